//! A service that can be killed.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::time::SystemTime;

/// A service in a process of its own, which can be killed.
pub(crate) struct Process {
    child: Child,
    pub(crate) base: String,
}

impl Process {
    pub(crate) fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    /// The same with more arguments than the directory.
    pub(crate) fn start_with(data_dir: &Path, arguments: &[&str]) -> Self {
        let mut child = Command::new(serve_program())
            .arg(data_dir)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut base = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut base).unwrap();
        assert!(base.starts_with("http://"), "the service did not start: {base}");
        Self { child, base: base.trim().to_owned() }
    }

    /// SIGKILL: nothing of the process runs after this.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The example `serve`, which lies beside the tests. `cargo test --test durability` alone does not build it.
fn serve_program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(Path::parent).unwrap();
    let program = target.join("examples").join(format!("serve{}", std::env::consts::EXE_SUFFIX));
    static BUILT: Once = Once::new();
    BUILT.call_once(|| {
        let built = std::fs::metadata(&program).and_then(|file| file.modified());
        let source = newest(&package_dir().join("src"));
        if built.is_ok_and(|built| built >= source) {
            return;
        }
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "-p", "retinker-local", "--example", "serve"]);
        build.env("CARGO_TARGET_DIR", target.parent().unwrap());
        if target.file_name().is_some_and(|name| name == "release") {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success(), "the example serve could not be built");
    });
    program
}

/// This package's directory, as cargo says it now: the target directory may be shared with another clone.
fn package_dir() -> PathBuf {
    std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).into()
}

/// When anything below a directory was last changed.
fn newest(directory: &Path) -> SystemTime {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let times = entries
        .map(|path| if path.is_dir() { newest(&path) } else { path.metadata().unwrap().modified().unwrap() });
    times.max().unwrap_or(SystemTime::UNIX_EPOCH)
}
