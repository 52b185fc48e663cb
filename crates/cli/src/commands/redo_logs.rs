//! Where a console finds redo logs.

use std::path::PathBuf;

use retinker::redo::Matching;
use retinker_host::RedoLogs;

/// The options that say so.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Redo logs")]
pub(crate) struct RedoArgs {
    /// Runs whose redo log lies in this directory, or in one within it, can be gone back in from the console. Can be given several
    /// times; RETINKER_REDO_LOGS takes several as PATH does.
    #[arg(long, value_name = "DIR")]
    redo_logs: Vec<PathBuf>,
    /// By which part of itself a sum of what is replayed may differ from what was recorded, e.g. 1e-4; by default nothing may.
    #[arg(long, value_name = "PART")]
    redo_tolerance: Option<f64>,
}

impl RedoArgs {
    pub(crate) fn logs(self) -> RedoLogs {
        let matching = self.redo_tolerance.map_or(Matching::Exact, Matching::Tolerance);
        let mut directories = self.redo_logs;
        if directories.is_empty() {
            let named = std::env::var_os("RETINKER_REDO_LOGS").unwrap_or_default();
            directories = std::env::split_paths(&named).filter(|path| !path.as_os_str().is_empty()).collect();
        }
        RedoLogs { directories, matching }
    }
}
