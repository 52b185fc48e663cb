//! Running programs from the repository's root, with progress that a person can follow.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The repository's root. Cargo says at run time where the package is; what it said when this was compiled may be of
/// another clone, with which the target directory is shared.
pub fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&package).ancestors().nth(2).map_or_else(PathBuf::new, Path::to_path_buf)
}

/// Where cargo puts what it builds.
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) => root().join(dir),
        None => root().join("target"),
    }
}

/// Builds a program of a package (`kind`: `--bin` or `--example`) in release mode; gives its path.
pub fn release(package: &str, kind: &str, name: &str) -> Result<PathBuf> {
    // The tests have the host in them, and a release of the host holds the console.
    if package == "retinker-tests" {
        crate::console::build()?;
    }
    run(cargo().args(["build", "--release", "--package", package, kind, name]))?;
    let folder = if kind == "--example" { "release/examples" } else { "release" };
    Ok(target_dir().join(folder).join(format!("{name}{}", std::env::consts::EXE_SUFFIX)))
}

/// Where tools and downloads are kept between clones: `retinker/` under the user's cache directory.
pub fn cache_dir() -> Result<PathBuf> {
    let base = match std::env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir),
        None => {
            let home = std::env::var_os("HOME")
                .context("HOME is not set, so there is no place for the build tools")?;
            if cfg!(target_os = "macos") {
                PathBuf::from(home).join("Library/Caches")
            } else {
                PathBuf::from(home).join(".cache")
            }
        }
    };
    Ok(base.join("retinker"))
}

/// The npm program's name.
pub fn npm() -> &'static str {
    if cfg!(windows) { "npm.cmd" } else { "npm" }
}

/// A command that runs in the repository's root.
pub fn command(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.current_dir(root());
    command
}

/// Cargo itself, by the path that it gave us.
pub fn cargo() -> Command {
    command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// Runs a command, its output shown; fails when it fails.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = describe(command);
    let status = command.status().with_context(|| format!("'{shown}' could not be started"))?;
    if !status.success() {
        bail!("'{shown}' failed ({status})");
    }
    Ok(())
}

/// Runs a command and gives its standard output; `None` when it cannot be started or fails.
pub fn output(command: &mut Command) -> Option<String> {
    let output = command.stderr(Stdio::null()).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Runs a command, its errors shown, and gives what it printed; fails when it fails.
pub fn output_shown(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("'{}' cannot be started", describe(command)))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("'{}' failed ({})\n{text}", describe(command), output.status);
    }
    Ok(text)
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    std::iter::once(program)
        .chain(command.get_args())
        .map(|part| part.to_string_lossy().into_owned())
        .collect::<Vec<_>>()
        .join(" ")
}

/// A program as root: as it is, or by sudo without a password.
pub fn as_root(program: &str) -> Command {
    if output(command("id").arg("-u")).is_some_and(|id| id == "0") {
        return command(program);
    }
    let mut command = command("sudo");
    // Never wait for a password that nobody types.
    command.args(["-n", program]);
    command
}

/// Refuses where there is no apt-get to install this with.
pub fn has_apt_get(what: &str) -> Result<()> {
    if output(command("apt-get").arg("--version")).is_none() {
        bail!("there is no apt-get here to install {what} with");
    }
    Ok(())
}

/// Installs packages of the system where that is possible: with apt-get, as root or by sudo without a password.
/// `alternatives` are lists of packages, of which the first that can be had is taken: distributions name them differently.
pub fn install_system_packages(what: &str, alternatives: &[&[&str]]) -> Result<()> {
    has_apt_get(what)?;
    let apt =
        |arguments: &[&str]| run(as_root("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive"));
    step(&format!("Installing {what} from the system's packages"), || {
        apt(&["update", "-qq"])?;
        let mut outcome = Ok(());
        for packages in alternatives {
            outcome = apt(&[&["install", "-y", "-qq"], *packages].concat());
            if outcome.is_ok() {
                break;
            }
        }
        outcome
    })
}

/// Says what is being done, and how long it took.
pub fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("==> {title}");
    let start = Instant::now();
    let result = work();
    let seconds = start.elapsed().as_secs_f32();
    match &result {
        Ok(_) => eprintln!("    {title}: done in {seconds:.1} s"),
        Err(_) => eprintln!("    {title}: failed after {seconds:.1} s"),
    }
    result
}
