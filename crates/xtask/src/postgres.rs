//! The PostgreSQL server that the journal's tests start, each run its own: see `crates/store/src/testing.rs`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::{self, as_root, run};

const ADVICE: &str = "the journal's tests need PostgreSQL 15 or newer: install it, or name the directory of initdb and \
                      pg_ctl in RETINKER_POSTGRES";

/// Read by Debian's packages when they would make and start a server of the system's own.
const NO_SERVER: &str = "/etc/postgresql-common/createcluster.d/retinker.conf";

/// The server's programs: in `RETINKER_POSTGRES`, else on PATH, else where Debian puts them, else installed from the
/// system's packages.
pub fn needs() -> Result<()> {
    if is_there() {
        return Ok(());
    }
    install().context(ADVICE)?;
    if !is_there() {
        bail!(ADVICE);
    }
    Ok(())
}

/// Only the programs are wanted: no server that runs from now on.
fn install() -> Result<()> {
    shell::has_apt_get("PostgreSQL")?;
    let say_so =
        format!("mkdir -p \"$(dirname {NO_SERVER})\" && echo 'create_main_cluster = false' > {NO_SERVER}");
    run(as_root("sh").args(["-c", &say_so]))?;
    let installed = shell::install_system_packages("PostgreSQL", &[&["postgresql"]]);
    run(as_root("rm").arg(NO_SERVER))?;
    installed
}

fn is_there() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    std::env::var_os("RETINKER_POSTGRES")
        .map(PathBuf::from)
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(debian.map(|version| version.path().join("bin")))
        .any(|dir: PathBuf| has_programs(&dir))
}

fn has_programs(dir: &Path) -> bool {
    ["initdb", "pg_ctl"].iter().all(|program| dir.join(program).is_file())
}
