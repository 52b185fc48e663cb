#![cfg(unix)]

use std::collections::HashMap;

use super::super::testing::{Log, event, runtime, until};
use super::*;

const MINUTE: Duration = Duration::from_secs(60);

/// A script, and a directory that it can write to.
struct Script {
    dir: tempfile::TempDir,
}

impl Script {
    /// The directory is the script's first argument.
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("script"), text).unwrap();
        Self { dir }
    }

    fn at(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.at(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Run by its interpreter: a file just written cannot be executed while another test's child is being started.
    fn config(&self) -> ExecConfig {
        ExecConfig::new(["sh", &self.at("script"), self.dir.path().to_str().unwrap()])
    }

    async fn wait_for(&self, name: &str) {
        until(|| Path::new(&self.at(name)).exists()).await;
    }
}

fn environment(name: &str) -> Option<OsString> {
    match name {
        "PATH" => std::env::var_os("PATH"),
        "HOME" => Some("/home/me".into()),
        "TINKER_API_KEY" => Some("tml-s3cret".into()),
        "OTHER" => Some("other".into()),
        _ => None,
    }
}

fn hook(config: ExecConfig) -> ExecHook {
    ExecHook::new(config, environment, &runtime()).unwrap()
}

fn completed() -> RecoveryEvent {
    RecoveryEvent {
        restore_id: Some("restore".to_owned()),
        checkpoint: Some("tinker://run/weights/step-7".to_owned()),
        new_run_id: Some("new".to_owned()),
        ..event(EventKind::Completed, "old")
    }
}

fn variables(text: &str) -> HashMap<&str, &str> {
    // The shell adds these itself.
    let own = ["PWD", "OLDPWD", "_", "SHLVL"];
    text.lines().filter_map(|line| line.split_once('=')).filter(|(name, _)| !own.contains(name)).collect()
}

#[tokio::test]
async fn a_program_gets_the_event_and_no_more_of_the_environment_than_it_needs() {
    let script = Script::new("env >\"$1/env\"; cat >\"$1/stdin\"");
    let config = ExecConfig { base_url: Some("http://127.0.0.1:8788".to_owned()), ..script.config() };
    let hook = hook(config);
    hook.tell(&completed());
    assert_eq!(hook.drain(MINUTE).await, 0);
    let json = serde_json::to_string(&completed()).unwrap();
    assert_eq!(script.read("stdin"), json);
    let path = std::env::var("PATH").unwrap();
    let expected = HashMap::from([
        ("PATH", path.as_str()),
        ("HOME", "/home/me"),
        ("TINKER_BASE_URL", "http://127.0.0.1:8788"),
        ("RETINKER_EVENT", "completed"),
        ("RETINKER_EVENT_JSON", &json),
        ("RETINKER_SERVICE", "local"),
        ("TINKER_RESTORE_RUN_ID", "old"),
        ("TINKER_RESTORE_ID", "restore"),
        ("TINKER_RESTORE_PATH", "tinker://run/weights/step-7"),
        ("TINKER_RESTORE_NEW_RUN_ID", "new"),
    ]);
    assert_eq!(variables(&script.read("env")), expected);
}

#[tokio::test]
async fn what_is_not_known_is_not_set_and_a_key_is_passed_only_if_it_is_named() {
    let script = Script::new("env >\"$1/env\"");
    let log = Log::start();
    let pass_env = vec!["TINKER_API_KEY".to_owned(), "MISSING".to_owned()];
    let hook = hook(ExecConfig { pass_env, ..script.config() });
    assert_eq!(log.count("MISSING, which is not set"), 1, "{}", log.text());
    hook.tell(&event(EventKind::Detected, "old"));
    assert_eq!(hook.drain(MINUTE).await, 0);
    let text = script.read("env");
    let variables = variables(&text);
    assert_eq!(variables.get("TINKER_API_KEY"), Some(&"tml-s3cret"));
    for name in
        ["OTHER", "TINKER_RESTORE_PATH", "TINKER_RESTORE_ID", "TINKER_RESTORE_NEW_RUN_ID", "TINKER_BASE_URL"]
    {
        assert_eq!(variables.get(name), None, "{name}");
    }
    assert!(!format!("{hook:?}{}", log.text()).contains("s3cret"));
}

#[tokio::test]
async fn a_large_incident_told_at_once_arrives_whole_and_in_order() {
    let script = Script::new("echo \"$TINKER_RESTORE_RUN_ID\" >>\"$1/runs\"");
    let hook = hook(ExecConfig { concurrency: 1, ..script.config() });
    let runs: Vec<_> = (0..2_000).map(|run| run.to_string()).collect();
    // None is run meanwhile: this thread does not wait.
    runs.iter().for_each(|run| hook.tell(&event(EventKind::Detected, run)));
    assert_eq!(hook.drain(5 * MINUTE).await, 0);
    assert_eq!(script.read("runs").lines().collect::<Vec<_>>(), runs);
}

#[tokio::test]
async fn no_shell_looks_at_the_arguments() {
    let script = Script::new("printf %s \"$2\" >\"$1/argument\"");
    let mut config = script.config();
    let argument = "$(touch x) `id` *; \"quoted\" $HOME";
    config.argv.push(argument.to_owned());
    assert!(!format!("{config:?}").contains("quoted"), "arguments are not shown");
    let hook = hook(config);
    hook.tell(&completed());
    assert_eq!(hook.drain(MINUTE).await, 0);
    assert_eq!(script.read("argument"), argument);
}

#[tokio::test]
async fn what_it_writes_is_told_and_so_is_that_it_failed() {
    let script = Script::new("echo to out; echo to err >&2; head -c 10000 /dev/zero | tr '\\0' x; exit 3");
    let log = Log::start();
    let hook = hook(script.config());
    hook.tell(&completed());
    assert_eq!(hook.drain(MINUTE).await, 0);
    assert_eq!(log.count("sh: to out stream=\"stdout\""), 1, "{}", log.text());
    assert_eq!(log.count("sh: to err stream=\"stderr\""), 1, "{}", log.text());
    let long = "x".repeat(LINE);
    assert_eq!((log.count(&long), log.count(&format!("{long}x"))), (2, 0), "in pieces");
    let warned = log.text().lines().find(|line| line.contains("has failed")).unwrap().to_owned();
    assert!(warned.contains("WARN") && warned.contains("exit status: 3"), "{warned}");
}

#[tokio::test]
async fn one_that_does_not_read_its_input_is_no_failure() {
    let script = Script::new("exec <&-; echo done >\"$1/done\"");
    let log = Log::start();
    let hook = hook(script.config());
    hook.tell(&RecoveryEvent { message: "long ".repeat(20_000), ..completed() });
    assert_eq!(hook.drain(MINUTE).await, 0);
    assert_eq!(script.read("done"), "done\n");
    assert_eq!(log.count("has ended well"), 1, "{}", log.text());
}

/// Whether a process is there and not merely waiting to be noticed as dead.
fn lives(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap().trim_start().starts_with(['Z', 'X']))
}

async fn until_dead(pid: &str) {
    until(|| !lives(pid)).await;
}

/// Writes down its own number and that of one that it starts, and stays.
const STAYS: &str =
    "sleep 600 & echo $! >\"$1/grandchild\"; echo $$ >\"$1/pid.new\"; mv \"$1/pid.new\" \"$1/pid\"; wait";

#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_that_takes_too_long_is_killed_with_all_that_it_has_started() {
    let script = Script::new(STAYS);
    let log = Log::start();
    let hook = hook(ExecConfig { timeout: Duration::from_millis(500), ..script.config() });
    hook.tell(&completed());
    assert_eq!(hook.drain(MINUTE).await, 0);
    assert_eq!(log.count("was killed, as it ran for more than 500ms"), 1, "{}", log.text());
    until_dead(&script.read("pid")).await;
    until_dead(&script.read("grandchild")).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn those_that_run_when_patience_ends_are_killed() {
    let script = Script::new(STAYS);
    let log = Log::start();
    let hook = hook(script.config());
    hook.tell(&completed());
    script.wait_for("pid").await;
    assert!(lives(&script.read("pid")) && lives(&script.read("grandchild")));
    assert_eq!(hook.drain(Duration::ZERO).await, 1);
    assert_eq!(log.count("not done with 1 events"), 1, "{}", log.text());
    until_dead(&script.read("pid")).await;
    until_dead(&script.read("grandchild")).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_it_leaves_running_goes_on() {
    let script = Script::new("setsid sleep 600 >/dev/null 2>&1 </dev/null & echo $! >\"$1/left\"");
    let hook = hook(script.config());
    hook.tell(&completed());
    assert_eq!(hook.drain(MINUTE).await, 0);
    let left = script.read("left");
    assert!(lives(&left));
    let pid = rustix::process::Pid::from_raw(left.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

#[tokio::test]
async fn programs_of_one_at_a_time_run_in_the_order_of_the_events() {
    let script = Script::new("printf %s \"$TINKER_RESTORE_RUN_ID\" >>\"$1/runs\"");
    let hook = hook(ExecConfig { concurrency: 1, ..script.config() });
    for run in ["a", "b", "c"] {
        hook.tell(&event(EventKind::Detected, run));
    }
    assert_eq!(hook.drain(MINUTE).await, 0);
    assert_eq!(script.read("runs"), "abc");
}

#[tokio::test]
async fn several_run_at_the_same_time() {
    // Each ends only when both have begun.
    let script = Script::new(
        "touch \"$1/$TINKER_RESTORE_RUN_ID\"; until [ -e \"$1/a\" ] && [ -e \"$1/b\" ]; do sleep 0.01; done",
    );
    let hook = hook(script.config());
    hook.tell(&event(EventKind::Detected, "a"));
    hook.tell(&event(EventKind::Detected, "b"));
    assert_eq!(hook.drain(MINUTE).await, 0);
}

#[tokio::test]
async fn a_program_that_cannot_be_run_is_told_at_once() {
    let script = Script::new("");
    let refused = |argv: &[&str]| {
        let config = ExecConfig::new(argv.iter().copied());
        ExecHook::new(config, environment, &runtime()).unwrap_err().to_string()
    };
    assert!(refused(&[]).contains("no program is named"));
    let error = refused(&["no-such-program", "s3cret"]);
    assert!(
        error.contains("no-such-program") && error.contains("PATH") && !error.contains("s3cret"),
        "{error}"
    );
    let error = refused(&["/no/such/program"]);
    assert!(error.contains("/no/such/program") && error.contains("No such file"), "{error}");
    let error = refused(&[&script.at("script")]);
    assert!(error.contains("chmod +x"), "{error}");
    assert!(refused(&[script.dir.path().to_str().unwrap()]).contains("not a file"));
}

#[tokio::test]
async fn a_program_that_is_gone_later_is_told_and_the_next_event_goes_on() {
    use std::os::unix::fs::PermissionsExt;
    let script = Script::new("#!/bin/sh\n");
    std::fs::set_permissions(script.at("script"), PermissionsExt::from_mode(0o700)).unwrap();
    let log = Log::start();
    let hook = hook(ExecConfig::new([script.at("script")]));
    std::fs::remove_file(script.at("script")).unwrap();
    hook.tell(&completed());
    hook.tell(&completed());
    assert_eq!(hook.drain(MINUTE).await, 0);
    assert_eq!((log.count("cannot be run"), log.count("error=No such file")), (2, 2), "{}", log.text());
}
