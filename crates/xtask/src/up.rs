//! `cargo xtask up`: from a fresh clone to a console in the browser.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::shell::{self, command, root, step};
use crate::{console, tools};

/// What `up` takes, and whether a value follows.
const OPTIONS: [(&str, bool); 4] =
    [("--port", true), ("--service-port", true), ("--data-dir", true), ("--no-demo", false)];

/// Installs, builds, and serves until Ctrl-C. Options go on to `retinker up`.
pub fn run(args: &[String]) -> Result<()> {
    let options = parse(args)?;
    // What cannot work is said at once, before minutes of building.
    let port = |flag: &str, default: &str| {
        options.iter().find(|(name, _)| name == flag).map_or(default.to_owned(), |(_, v)| v.clone())
    };
    let (console_port, service_port) = (port("--port", "8787"), port("--service-port", "8788"));
    if console_port == service_port && console_port != "0" {
        bail!("--port and --service-port are both {console_port}: give them different numbers");
    }
    check_port("--port", &console_port)?;
    check_port("--service-port", &service_port)?;
    let binary = step("Preparing (the first time takes a while, later starts take seconds)", || {
        tools::node()?;
        console::build()?;
        binary()
    })?;
    let mut retinker = command(&binary);
    retinker.arg("up");
    for (name, value) in &options {
        retinker.arg(name);
        if !value.is_empty() {
            retinker.arg(value);
        }
    }
    let status = retinker.status().with_context(|| format!("{} could not be started", binary.display()))?;
    match status.code() {
        Some(0) => Ok(()),
        // The program has said what is wrong; saying it again would only hide it.
        Some(code) => std::process::exit(code),
        None => bail!("retinker was ended by a signal ({status})"),
    }
}

/// The options given, each with its value; a flag's is empty.
fn parse(args: &[String]) -> Result<Vec<(String, String)>> {
    let mut options = Vec::new();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        let Some((_, takes_value)) = OPTIONS.iter().find(|(option, _)| *option == name) else {
            bail!(
                "'{arg}' is not an option of up; it takes --port N, --service-port N, --data-dir DIR and --no-demo"
            );
        };
        let value = match (takes_value, inline) {
            (false, None) => String::new(),
            (false, Some(_)) => bail!("{name} takes no value"),
            (true, inline) => inline
                .or_else(|| rest.next().cloned())
                .filter(|value| !value.is_empty())
                .with_context(|| format!("{name} needs a value"))?,
        };
        // The program runs in the repository's root; a directory was meant from here.
        let value = if name == "--data-dir" { absolute(&value)? } else { value };
        options.push((name.to_owned(), value));
    }
    Ok(options)
}

fn absolute(dir: &str) -> Result<String> {
    let path =
        std::path::absolute(Path::new(dir)).with_context(|| format!("'{dir}' is not a directory's name"))?;
    Ok(path.to_string_lossy().into_owned())
}

/// Builds the release binary, with the console inside; builds that too, if it never was.
pub fn binary() -> Result<PathBuf> {
    if !root().join("dist/index.html").exists() {
        console::build()?;
    }
    step("Building the retinker binary", || shell::release("retinker-cli", "--bin", "retinker"))
}

/// Whether a port can be had.
fn check_port(flag: &str, port: &str) -> Result<()> {
    let Ok(number) = port.parse::<u16>() else {
        bail!("'{port}' is not a port number: give {flag} a number from 0 to 65535")
    };
    match TcpListener::bind(("127.0.0.1", number)) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => bail!(
            "port {number} on 127.0.0.1 is in use: stop the program that uses it, or choose another with `cargo xtask up {flag} N`"
        ),
        _ => Ok(()),
    }
}
