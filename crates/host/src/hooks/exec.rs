//! Programs that are run for events.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join3;
use retinker::recovery::events::{EventKind, EventSink, RecoveryEvent};
use retinker::runtime::Runtime;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};

use super::HookError;
use super::queue::{CAPACITY, Queue, Settings};

/// What a program gets of the monitor's environment, where it is set: what it needs to find others, its files and its
/// language. Nothing that could be a credential.
const PASSED: [&str; 10] =
    ["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR"];

/// The longest line, in bytes, that is told in one piece.
const LINE: usize = 4096;
/// How long the output of a program that has ended is waited for: one that it left running may hold it open.
const GRACE: Duration = Duration::from_secs(1);

/// Which program is run, and how.
#[derive(Clone)]
pub struct ExecConfig {
    /// The program and its arguments, as they are: no shell looks at them. The program is a path, or a name that is looked
    /// for in `PATH`.
    pub argv: Vec<String>,
    /// For which events; `None` = all.
    pub events: Option<Vec<EventKind>>,
    /// The service's address, told as `TINKER_BASE_URL`; `None` = it is not told.
    pub base_url: Option<String>,
    /// Variables that are passed on beside the usual ones, e.g. `TINKER_API_KEY`; none by default.
    pub pass_env: Vec<String>,
    /// Most programs that run at the same time; 4. With 1 they run in the order of the events.
    pub concurrency: usize,
    /// How long one may run; ten minutes. Then it and what it has started are killed.
    pub timeout: Duration,
    /// Most events that wait; 16,384. Those that come when so many do are dropped, which is told as a tracing error.
    pub queue: usize,
}

impl ExecConfig {
    /// This program for all events, with the defaults.
    pub fn new(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            argv: argv.into_iter().map(Into::into).collect(),
            events: None,
            base_url: None,
            pass_env: Vec::new(),
            concurrency: 4,
            timeout: Duration::from_secs(600),
            queue: CAPACITY,
        }
    }
}

/// Without the arguments, which can hold what nobody should read.
impl fmt::Debug for ExecConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecConfig")
            .field("program", &self.argv.first())
            .field("events", &self.events)
            .field("pass_env", &self.pass_env)
            .field("concurrency", &self.concurrency)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// Runs a program for each event.
///
/// The event is on its standard input, as JSON. Its environment is empty but for `PATH`, `HOME`, `USER`, `LOGNAME`,
/// `SHELL`, `LANG`, `LC_ALL`, `LC_CTYPE`, `TZ` and `TMPDIR`, what [`ExecConfig::pass_env`] names, and, where they are known:
///
/// | Variable | What |
/// |---|---|
/// | `RETINKER_EVENT` | The event's kind, e.g. `completed`. |
/// | `RETINKER_EVENT_JSON` | The event, as on standard input. |
/// | `RETINKER_SERVICE` | The service, as the journal is bound to it. |
/// | `TINKER_BASE_URL` | The service's address, if the configuration has it. |
/// | `TINKER_RESTORE_RUN_ID` | The poisoned run. |
/// | `TINKER_RESTORE_ID` | The restore. |
/// | `TINKER_RESTORE_PATH` | The checkpoint that is restored from, a `tinker://` path. |
/// | `TINKER_RESTORE_NEW_RUN_ID` | The new run. |
///
/// The API key is not among them: a trainer that needs it has it named in `pass_env`.
///
/// What the program writes is told by tracing, line by line; an exit code other than 0 is a tracing warning. After
/// [`ExecConfig::timeout`] its process group is killed (on other systems than Unix: the program). A trainer that is to
/// live longer is started in a session of its own, with its output elsewhere: `setsid`, `systemd-run`, or a job queue.
#[derive(Debug)]
pub struct ExecHook {
    queue: Queue,
}

impl ExecHook {
    /// Starts to wait for events. `environment` gives a variable's value, as `|name| std::env::var_os(name)` does; it is
    /// asked now. The runtime must be tokio's.
    ///
    /// # Errors
    /// [`HookError::Program`] if there is no such program, or it may not be run.
    pub fn new(
        config: ExecConfig,
        environment: impl Fn(&str) -> Option<OsString>,
        runtime: &dyn Runtime,
    ) -> Result<Self, HookError> {
        let ExecConfig { argv, events, base_url, pass_env, concurrency, timeout, queue } = config;
        let (named, arguments) =
            argv.split_first().map_or(("", &[][..]), |(first, rest)| (first.as_str(), rest));
        let program = find(named, environment("PATH"))
            .map_err(|reason| HookError::Program { program: named.to_owned(), reason })?;
        for name in pass_env.iter().filter(|name| environment(name).is_none()) {
            tracing::warn!("the hook {named} should get the variable {name}, which is not set");
        }
        let passed = PASSED.into_iter().chain(pass_env.iter().map(String::as_str));
        let mut variables: Vec<_> =
            passed.filter_map(|name| Some((name.to_owned(), environment(name)?))).collect();
        variables.extend(base_url.map(|url| ("TINKER_BASE_URL".to_owned(), url.into())));
        let settings = Settings { name: format!("the hook {named}"), events, capacity: queue, concurrency };
        let runs = Arc::new(Program {
            named: named.to_owned(),
            program,
            arguments: arguments.to_vec(),
            variables,
            timeout,
        });
        let queue = Queue::start(settings, runtime, move |event, _| {
            let runs = Arc::clone(&runs);
            async move { runs.run(&event).await }
        });
        Ok(Self { queue })
    }

    /// Takes no more events, and runs the program for those that are queued, for at most so long; then those that run are
    /// killed. Answers for how many events it did not run to its end; they are told as a tracing error.
    pub async fn drain(&self, patience: Duration) -> usize {
        self.queue.drain(patience).await
    }
}

impl EventSink for ExecHook {
    fn tell(&self, event: &RecoveryEvent) {
        self.queue.tell(event);
    }
}

/// Where a program is: at this path, or in a directory of `PATH`.
fn find(named: &str, path: Option<OsString>) -> Result<PathBuf, String> {
    if named.is_empty() {
        return Err("no program is named".to_owned());
    }
    if Path::new(named).components().count() > 1 {
        return executable(Path::new(named)).map(|()| named.into());
    }
    let path = path.unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join(named))
        .find(|file| executable(file).is_ok())
        .ok_or_else(|| "no directory of PATH has it. Give its path, or check PATH".to_owned())
}

fn executable(file: &Path) -> Result<(), String> {
    let found = std::fs::metadata(file).map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is not a file".to_owned());
    }
    #[cfg(unix)]
    if std::os::unix::fs::PermissionsExt::mode(&found.permissions()) & 0o111 == 0 {
        return Err("it is not executable: chmod +x it".to_owned());
    }
    Ok(())
}

struct Program {
    /// As the configuration has it.
    named: String,
    program: PathBuf,
    arguments: Vec<String>,
    variables: Vec<(String, OsString)>,
    timeout: Duration,
}

impl Program {
    /// Runs it for an event, and tells how it ended.
    async fn run(&self, event: &RecoveryEvent) {
        let (kind, run_id, named) = (event.event.as_str(), &event.run_id, &self.named);
        match self.outcome(event).await {
            Ok(Some(status)) if status.success() => {
                tracing::debug!(event = kind, %run_id, "the hook {named} has ended well");
            }
            Ok(Some(status)) => {
                tracing::warn!(event = kind, %run_id, "the hook {named} has failed: {status}");
            }
            Ok(None) => tracing::error!(
                event = kind,
                %run_id,
                "the hook {named} was killed, as it ran for more than {:?}",
                self.timeout
            ),
            Err(error) => {
                tracing::error!(event = kind, %run_id, %error, "the hook {named} cannot be run");
            }
        }
    }

    /// How it ended; `None` if it had to be killed.
    async fn outcome(&self, event: &RecoveryEvent) -> std::io::Result<Option<ExitStatus>> {
        let json = serde_json::to_string(event)?;
        let mut child = self.command(event, &json).spawn()?;
        let mut group = Group::of(&child);
        let talk = tokio::spawn(join3(
            feed(child.stdin.take(), json),
            tell(child.stdout.take(), self.named.clone(), "stdout"),
            tell(child.stderr.take(), self.named.clone(), "stderr"),
        ));
        let Ok(status) = tokio::time::timeout(self.timeout, child.wait()).await else {
            // Before the child is waited for: afterwards its number can be another's.
            group.kill();
            child.kill().await?;
            return Ok(None);
        };
        group.leave();
        // Goes on in the background beyond that.
        let _ = tokio::time::timeout(GRACE, talk).await;
        status.map(Some)
    }

    fn command(&self, event: &RecoveryEvent, json: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)))
            .envs(known(event))
            .env("RETINKER_EVENT_JSON", json)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        #[cfg(unix)]
        command.process_group(0);
        command
    }
}

/// What is known of an event, as variables.
fn known(event: &RecoveryEvent) -> impl Iterator<Item = (&'static str, &str)> {
    [
        ("RETINKER_EVENT", Some(event.event.as_str())),
        ("RETINKER_SERVICE", Some(event.service.as_str())),
        ("TINKER_RESTORE_RUN_ID", Some(event.run_id.as_str())),
        ("TINKER_RESTORE_ID", event.restore_id.as_deref()),
        ("TINKER_RESTORE_PATH", event.checkpoint.as_deref()),
        ("TINKER_RESTORE_NEW_RUN_ID", event.new_run_id.as_deref()),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
}

/// Writes to a program. One that does not read it is no failure.
async fn feed(stdin: Option<impl AsyncWriteExt + Unpin>, json: String) {
    if let Some(mut stdin) = stdin {
        let _ = stdin.write_all(json.as_bytes()).await;
    }
}

/// Tells each line that a program writes.
async fn tell(output: Option<impl AsyncRead + Unpin>, named: String, stream: &'static str) {
    let Some(output) = output else { return };
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut output).take(LINE as u64).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => tracing::info!(stream, "{named}: {}", String::from_utf8_lossy(&line).trim_end()),
        }
    }
}

/// A child's process group. Dropped before the child has ended, it is killed.
struct Group(Option<u32>);

impl Group {
    fn of(child: &Child) -> Self {
        Self(child.id())
    }

    /// The child has ended; what it has left running may go on.
    fn leave(&mut self) {
        self.0 = None;
    }

    fn kill(&mut self) {
        #[cfg(unix)]
        if let Some(pid) = self.0.and_then(|id| rustix::process::Pid::from_raw(i32::try_from(id).ok()?)) {
            // A group that is gone needs no killing.
            let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        }
        self.leave();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests;
