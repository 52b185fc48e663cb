//! Building the web console into `dist/`, where the host's build script embeds it from.

mod shorten;

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result, bail};

use crate::shell::{command, output, root, run, step};
use crate::tools;

/// What a browser must load before the console works, compressed: at most this many bytes.
pub const BUDGET: u64 = 350_000;

/// Builds the console unless `dist/` is newer than everything that it is made of. Gives its compressed size in bytes.
pub fn build() -> Result<u64> {
    let dist = root().join("dist");
    if !is_current(&dist) {
        tools::wasm_target()?;
        let flags = rust_flags()?;
        let path = tools::path_with(&[tools::trunk()?, tools::wasm_bindgen()?])?;
        step("Building the web console", || {
            run(command("trunk")
                .args(["build", "--release", "--offline", "--cargo-profile", "wasm-release"])
                .env("PATH", &path)
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", &flags)
                // trunk reads NO_COLOR as its own flag and takes only true or false.
                .env_remove("NO_COLOR"))?;
            shorten::shorten(&dist)?;
            compress(&dist)?;
            // Written last: a build that was cut off is not taken for a whole one.
            std::fs::write(stamp(&dist), "").context("dist/ cannot be written")
        })?;
    }
    let size = compressed_size(&dist)?;
    eprintln!("    the console is {} kB to load (brotli)", size / 1000);
    Ok(size)
}

/// Builds the console and holds it to what may be shipped: its size, and no path of the machine that built it.
pub fn check() -> Result<()> {
    let size = build()?;
    if size > BUDGET {
        bail!("the console is {size} bytes compressed, over its budget of {BUDGET}: look at what was added");
    }
    let home = std::env::var("HOME").unwrap_or_default();
    for file in files(&root().join("dist"))?.into_iter().filter(|file| !is_compressed(file)) {
        let bytes = std::fs::read(&file)?;
        if home.len() > 1 && bytes.windows(home.len()).any(|part| part == home.as_bytes()) {
            bail!("{} holds a path of this machine, under {home}", file.display());
        }
    }
    Ok(())
}

/// The file whose age says when `dist/` was built. The host embeds no dot files.
fn stamp(dist: &Path) -> PathBuf {
    dist.join(".built")
}

/// Short paths in place of this machine's in the panics' places.
pub fn rust_flags() -> Result<String> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    // Where a toolchain has its sources, it names the standard library's files by where they are.
    let toolchain =
        output(command("rustc").args(["--print", "sysroot"])).context("rustc does not say where it is")?;
    Ok(format!(
        "--remap-path-prefix={}=crates --remap-path-prefix={}=rust --remap-path-prefix={}=retinker",
        home.join("registry/src").display(),
        toolchain,
        root().display()
    ))
}

/// Whether every source is older than the last build.
fn is_current(dist: &Path) -> bool {
    let Ok(built) = std::fs::metadata(stamp(dist)).and_then(|m| m.modified()) else {
        return false;
    };
    [
        "web",
        "crates/retinker/src",
        "crates/retinker/Cargo.toml",
        "crates/wire",
        "Trunk.toml",
        "Cargo.toml",
        "Cargo.lock",
    ]
    .iter()
    .all(|source| newest(&root().join(source)).is_some_and(|time| time <= built))
}

fn newest(path: &Path) -> Option<SystemTime> {
    let meta = std::fs::metadata(path).ok()?;
    if meta.is_file() {
        return meta.modified().ok();
    }
    files(path).ok()?.iter().filter_map(|file| std::fs::metadata(file).ok()?.modified().ok()).max()
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("{} cannot be read", dir.display()))? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

fn is_compressed(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "br")
}

/// Writes a `.br` beside every file, so that the host never compresses at run time.
fn compress(dist: &Path) -> Result<()> {
    for file in files(dist)?.into_iter().filter(|file| !is_compressed(file)) {
        let out = brotli(&std::fs::read(&file)?)?;
        let mut name = file.into_os_string();
        name.push(".br");
        std::fs::write(name, out)?;
    }
    Ok(())
}

/// These bytes as a server sends them.
pub fn brotli(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    let mut params =
        brotli::enc::BrotliEncoderParams { quality: 11, lgwin: 22, lgblock: 17, ..Default::default() };
    // Blocks of this size and so many distances with codes of their own are what wasm is told the shortest in.
    params.dist.num_direct_distance_codes = 15;
    brotli::BrotliCompress(&mut &*bytes, &mut out, &params)?;
    Ok(out)
}

fn compressed_size(dist: &Path) -> Result<u64> {
    let sizes: Result<Vec<u64>> = files(dist)?
        .iter()
        .filter(|file| is_compressed(file))
        .map(|file| Ok(std::fs::metadata(file)?.len()))
        .collect();
    Ok(sizes?.iter().sum())
}
