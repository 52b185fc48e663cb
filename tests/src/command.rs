//! The binary's commands, as a person calls them.

use std::ffi::{OsStr, OsString};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::process::Command;

use crate::service::binary;

/// No command that ends by itself takes longer.
const PATIENCE: Duration = Duration::from_secs(120);
/// What a shell may have set, and would be obeyed.
const ENVIRONMENT: [&str; 4] = ["TINKER_BASE_URL", "RETINKER_JOURNAL", "RETINKER_WEBHOOK", "RETINKER_LOG"];

/// `retinker` on one service and one journal.
#[derive(Debug, Clone)]
pub struct Retinker {
    /// The service's address.
    pub base_url: String,
    /// Where the journal is kept.
    pub journal: OsString,
    /// The key.
    pub key: String,
}

/// What a command said, and how it ended.
#[derive(Debug, Clone)]
pub struct Said {
    /// The exit code; `None` if it was killed.
    pub code: Option<i32>,
    /// On the standard output.
    pub out: String,
    /// On the standard error.
    pub err: String,
}

impl Retinker {
    /// On this service and this journal, with a key.
    pub fn new(base_url: &str, journal: impl AsRef<OsStr>) -> Self {
        let journal = journal.as_ref().to_owned();
        Self { base_url: base_url.to_owned(), journal, key: "tml-test".to_owned() }
    }

    /// A command of these words, for its caller to start; killed when it is dropped.
    pub fn command(&self, words: &[&str]) -> Result<Command> {
        let mut command = Command::new(binary()?);
        for name in ENVIRONMENT {
            command.env_remove(name);
        }
        command
            .args(words)
            .args(["--base-url", &self.base_url, "--journal"])
            .arg(&self.journal)
            .env("TINKER_API_KEY", &self.key)
            .stdin(Stdio::null())
            .kill_on_drop(true);
        Ok(command)
    }

    /// Lets a command run to its end.
    pub async fn run(&self, words: &[&str]) -> Result<Said> {
        let ended = tokio::time::timeout(PATIENCE, self.command(words)?.output()).await;
        let output = ended.with_context(|| format!("'retinker {}' did not end", words.join(" ")))??;
        Ok(Said::from(output))
    }
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}
