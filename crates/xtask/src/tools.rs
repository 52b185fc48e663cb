//! The build tools, at pinned versions. Each is taken from PATH if its version is right, else from the cache, else
//! installed into the cache: prebuilt where it can be had, else from source. Never twice.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::shell::{self, cache_dir, command, output, run, step};

/// trunk 0.22 asks for rustc 1.96.
pub const TRUNK: &str = "0.21.14";
/// Must equal the `wasm-bindgen` in Cargo.toml, to the letter.
pub const WASM_BINDGEN: &str = "0.2.130";
/// From the npm package `binaryen`, which carries wasm-opt compiled to wasm: the same on every machine.
pub const BINARYEN: &str = "132.0.0";
/// What wasm-bindgen writes is commented and long, and trunk's own means does not read it.
pub const TERSER: &str = "5.51.4";
pub const WASM_PACK: &str = "0.15.1";
pub const CARGO_DENY: &str = "0.20.2";
pub const CARGO_FUZZ: &str = "0.13.2";

/// A tool that cargo can build.
struct CargoTool {
    krate: &'static str,
    version: &'static str,
    binaries: &'static [&'static str],
    /// How long a build from source takes, for the person who waits.
    patience: &'static str,
    /// How far it is optimised then.
    opt_level: &'static str,
    /// The address of a prebuilt archive for this machine, if there is one.
    prebuilt: fn() -> Option<String>,
}

/// This machine as projects name it that offer prebuilt programs, on Linux with this C library.
fn target(libc: &str) -> Option<String> {
    let arch = std::env::consts::ARCH;
    match std::env::consts::OS {
        "linux" => Some(format!("{arch}-unknown-linux-{libc}")),
        "macos" => Some(format!("{arch}-apple-darwin")),
        _ => None,
    }
}

const TRUNK_TOOL: CargoTool = CargoTool {
    krate: "trunk",
    version: TRUNK,
    binaries: &["trunk"],
    patience: "about five minutes",
    opt_level: "0",
    prebuilt: || {
        let target = target("gnu")?;
        Some(format!("https://github.com/trunk-rs/trunk/releases/download/v{TRUNK}/trunk-{target}.tar.gz"))
    },
};

const WASM_BINDGEN_TOOL: CargoTool = CargoTool {
    krate: "wasm-bindgen-cli",
    version: WASM_BINDGEN,
    binaries: &["wasm-bindgen", "wasm-bindgen-test-runner"],
    patience: "about two minutes",
    opt_level: "1",
    prebuilt: || {
        let target = target("musl")?;
        Some(format!(
            "https://github.com/wasm-bindgen/wasm-bindgen/releases/download/{WASM_BINDGEN}/wasm-bindgen-{WASM_BINDGEN}-{target}.tar.gz"
        ))
    },
};

const WASM_PACK_TOOL: CargoTool = CargoTool {
    krate: "wasm-pack",
    version: WASM_PACK,
    binaries: &["wasm-pack"],
    patience: "about three minutes",
    opt_level: "0",
    prebuilt: || {
        let target = target("musl")?;
        Some(format!(
            "https://github.com/wasm-bindgen/wasm-pack/releases/download/v{WASM_PACK}/wasm-pack-v{WASM_PACK}-{target}.tar.gz"
        ))
    },
};

const CARGO_DENY_TOOL: CargoTool = CargoTool {
    krate: "cargo-deny",
    version: CARGO_DENY,
    binaries: &["cargo-deny"],
    patience: "about three minutes",
    opt_level: "0",
    prebuilt: || None,
};

const CARGO_FUZZ_TOOL: CargoTool = CargoTool {
    krate: "cargo-fuzz",
    version: CARGO_FUZZ,
    binaries: &["cargo-fuzz"],
    patience: "about a minute",
    opt_level: "0",
    prebuilt: || None,
};

/// The wasm32 target of the Rust that builds us.
pub fn wasm_target() -> Result<()> {
    let sysroot = output(command("rustc").args(["--print", "sysroot"]))
        .context("rustc is missing: install Rust (stable) from https://rustup.rs")?;
    if Path::new(&sysroot).join("lib/rustlib/wasm32-unknown-unknown/lib").is_dir() {
        return Ok(());
    }
    step("Installing the wasm32-unknown-unknown target", || {
        run(command("rustup").args(["target", "add", "wasm32-unknown-unknown"])).context(
            "the wasm32-unknown-unknown target is missing and rustup could not add it: \
             add it the way your Rust was installed, then run this again",
        )
    })
}

/// Node and npm.
pub fn node() -> Result<()> {
    let version = output(command("node").arg("--version"))
        .context("Node is missing: install Node 20 or newer, then run this again")?;
    let major: u32 =
        version.trim_start_matches('v').split('.').next().and_then(|v| v.parse().ok()).unwrap_or(0);
    if major < 20 {
        bail!("Node {version} is too old: install Node 20 or newer, then run this again");
    }
    output(command(shell::npm()).arg("--version"))
        .context("npm is missing: install it (it usually comes with Node), then run this again")?;
    Ok(())
}

/// trunk's directory.
pub fn trunk() -> Result<PathBuf> {
    TRUNK_TOOL.ensure()
}

/// The directory of wasm-bindgen and its test runner.
pub fn wasm_bindgen() -> Result<PathBuf> {
    WASM_BINDGEN_TOOL.ensure()
}

/// wasm-pack's directory.
pub fn wasm_pack() -> Result<PathBuf> {
    WASM_PACK_TOOL.ensure()
}

/// cargo-deny's directory.
pub fn cargo_deny() -> Result<PathBuf> {
    CARGO_DENY_TOOL.ensure()
}

/// cargo-fuzz's directory; with it comes a nightly Rust, which alone takes the options that it needs.
pub fn cargo_fuzz() -> Result<PathBuf> {
    let dir = CARGO_FUZZ_TOOL.ensure()?;
    if output(command("rustup").args(["run", "nightly", "rustc", "--version"])).is_none() {
        step("Installing a nightly Rust, for fuzzing", || {
            run(command("rustup").args(["toolchain", "install", "nightly", "--profile", "minimal"])).context(
                "fuzzing needs a nightly Rust, and rustup could not install one: \
                 run `rustup toolchain install nightly`, then this again",
            )
        })?;
    }
    Ok(dir)
}

/// wasm-opt's directory.
pub fn wasm_opt() -> Result<PathBuf> {
    // It tells its major version only.
    let major = BINARYEN.split('.').next().unwrap_or(BINARYEN);
    npm_tool("binaryen", BINARYEN, "wasm-opt", major)
}

/// terser's directory.
pub fn terser() -> Result<PathBuf> {
    npm_tool("terser", TERSER, "terser", TERSER)
}

/// The directory of a program out of an npm package, which says that it is of the version `says`.
fn npm_tool(package: &str, version: &str, program: &str, says: &str) -> Result<PathBuf> {
    let right = |file: &Path| {
        output(Command::new(file).arg("--version"))
            .is_some_and(|text| text.split_whitespace().any(|word| word == says))
    };
    if let Some(dir) = on_path(program, right) {
        return Ok(dir);
    }
    let home = cache_dir()?.join("tools").join(format!("{package}-{says}"));
    let bin = home.join("node_modules/.bin");
    if right(&bin.join(program)) {
        return Ok(bin);
    }
    node()?;
    step(&format!("Installing {program} {says} (npm package {package})"), || {
        std::fs::create_dir_all(&home).with_context(|| format!("{} cannot be created", home.display()))?;
        run(command(shell::npm())
            .args(["install", "--silent", "--no-audit", "--no-fund", "--prefix"])
            .arg(&home)
            .arg(format!("{package}@{version}")))
        .with_context(|| {
            format!("{program} could not be installed from npm: check the network, or put {program} on PATH")
        })?;
        if !right(&bin.join(program)) {
            bail!("the npm package {package}@{version} did not bring a {program} of version {says}");
        }
        Ok(bin.clone())
    })
}

/// PATH with these directories in front.
pub fn path_with(dirs: &[PathBuf]) -> Result<std::ffi::OsString> {
    let current = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(dirs.iter().cloned().chain(std::env::split_paths(&current)))
        .context("PATH holds a character that it cannot")
}

/// `cargo xtask tools`.
pub fn report() -> Result<()> {
    wasm_target()?;
    for (name, dir) in [
        ("trunk", trunk()?),
        ("wasm-bindgen", wasm_bindgen()?),
        ("wasm-opt", wasm_opt()?),
        ("terser", terser()?),
        ("wasm-pack", wasm_pack()?),
        ("cargo-deny", cargo_deny()?),
    ] {
        println!("{name}: {}", dir.display());
    }
    Ok(())
}

/// The directory on PATH whose program of this name is right.
fn on_path(program: &str, right: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|dir| {
        let file = dir.join(program);
        file.is_file() && right(&file)
    })
}

impl CargoTool {
    fn ensure(&self) -> Result<PathBuf> {
        let Some((main, _)) = self.binaries.split_first() else { bail!("{} has no binaries", self.krate) };
        let right = |file: &Path| self.is_right(file);
        if let Some(dir) = on_path(main, right)
            && self.all_in(&dir)
        {
            return Ok(dir);
        }
        let home = cache_dir()?.join("tools").join(format!("{}-{}", main, self.version));
        let bin = home.join("bin");
        if right(&bin.join(main)) && self.all_in(&bin) {
            return Ok(bin);
        }
        std::fs::create_dir_all(&bin).with_context(|| format!("{} cannot be created", bin.display()))?;
        step(&format!("Installing {} {}", self.krate, self.version), || {
            if self.install_prebuilt(&home, &bin) && right(&bin.join(main)) && self.all_in(&bin) {
                return Ok(());
            }
            eprintln!(
                "    no prebuilt {} here: building it from source takes {}, once",
                self.krate, self.patience
            );
            self.install_from_source(&home)
        })?;
        Ok(bin)
    }

    fn is_right(&self, file: &Path) -> bool {
        output(Command::new(file).arg("--version"))
            .is_some_and(|text| text.split_whitespace().any(|word| word == self.version))
    }

    fn all_in(&self, dir: &Path) -> bool {
        self.binaries.iter().all(|name| dir.join(name).is_file())
    }

    fn install_prebuilt(&self, home: &Path, bin: &Path) -> bool {
        let spec = format!("{}@{}", self.krate, self.version);
        if output(command("cargo-binstall").arg("-V")).is_some()
            && run(command("cargo-binstall").args(["--no-confirm", "--root"]).arg(home).arg(&spec)).is_ok()
        {
            return true;
        }
        let Some(url) = (self.prebuilt)() else { return false };
        let archive = home.join("download.tar.gz");
        let fetched = output(
            command("curl")
                .args(["--fail", "--silent", "--location", "--proto", "=https", "--connect-timeout", "10"])
                .args(["--max-time", "180", "--output"])
                .arg(&archive)
                .arg(url),
        );
        let unpacked = fetched.is_some()
            && output(command("tar").arg("xzf").arg(&archive).arg("-C").arg(home)).is_some()
            && self.binaries.iter().all(|name| {
                find(home, name).is_some_and(|file| {
                    let goal = bin.join(name);
                    file == goal || std::fs::rename(file, goal).is_ok()
                })
            });
        // What is left over is only a download; a failure to remove it harms nobody.
        let _ = std::fs::remove_file(&archive);
        unpacked
    }

    fn install_from_source(&self, home: &Path) -> Result<()> {
        let install = |locked: bool| {
            let mut cargo = shell::cargo();
            cargo.args(["install", self.krate, "--version", self.version, "--root"]).arg(home);
            // Its own target directory, gone afterwards: the workspace's cache stays the workspace's.
            cargo.env_remove("CARGO_TARGET_DIR");
            // Optimising a tool costs minutes of building for seconds of running.
            cargo.envs([
                ("CARGO_PROFILE_RELEASE_LTO", "off"),
                ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
                ("CARGO_PROFILE_RELEASE_OPT_LEVEL", self.opt_level),
                ("CARGO_PROFILE_RELEASE_DEBUG", "false"),
            ]);
            if locked {
                cargo.arg("--locked");
            }
            run(&mut cargo)
        };
        // A registry that lags can lack a version that the lock file names.
        install(true).or_else(|_| install(false)).with_context(|| {
            format!(
                "{} {} could not be built: install it by hand (cargo install {} --version {}) and run this again",
                self.krate, self.version, self.krate, self.version
            )
        })
    }
}

/// The file of this name under a directory, at most two levels deep.
fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).collect();
    if let Some(file) =
        entries.iter().find(|path| path.is_file() && path.file_name().is_some_and(|n| n == name))
    {
        return Some(file.clone());
    }
    entries.iter().filter(|path| path.is_dir()).find_map(|path| find(path, name))
}
