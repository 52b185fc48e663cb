//! Embeds the console that trunk built into `dist/` at the workspace's root.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let crate_dir = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let dist = crate_dir.join("..").join("..").join("dist");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("assets.rs");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", dist.display());
    let embedded = dist.join("index.html").is_file();
    // What is fuzzed is built like a release, and given to nobody.
    let fuzzing = env::var_os("CARGO_CFG_FUZZING").is_some();
    if !embedded && !fuzzing && env::var("PROFILE").as_deref() == Ok("release") {
        println!(
            "cargo:error=the console is not built, and a release must hold it; build it first: cargo xtask console"
        );
        std::process::exit(1);
    }
    let mut files = Vec::new();
    if embedded {
        collect(&dist, &dist, &mut files);
        files.sort();
    }
    let mut text = format!(
        "/// Whether the real console is embedded; without it a page says how to build it.\n\
         pub const UI_EMBEDDED: bool = {embedded};\n\
         static EMBEDDED: &[Asset] = &[\n"
    );
    for name in files.iter().filter(|name| !is_compressed_copy(name, &files)) {
        let load = |name: &str| format!("include_bytes!({:?})", dist.join(name));
        let compressed = format!("{name}.br");
        let brotli = if files.contains(&compressed) {
            format!("Some({})", load(&compressed))
        } else {
            "None".to_owned()
        };
        let _ = writeln!(text, "    Asset {{ path: {name:?}, bytes: {}, brotli: {brotli} }},", load(name));
    }
    text.push_str("];\n");
    if let Err(error) = fs::write(&out, text) {
        println!("cargo:error={} cannot be written: {error}", out.display());
        std::process::exit(1);
    }
}

fn is_compressed_copy(name: &str, files: &[String]) -> bool {
    name.strip_suffix(".br").is_some_and(|original| files.iter().any(|file| file == original))
}

/// Paths below `root`, with `/` between their parts.
fn collect(root: &Path, dir: &Path, files: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            collect(root, &path, files);
        } else if let Ok(below) = path.strip_prefix(root) {
            let parts: Vec<_> = below.iter().map(|part| part.to_string_lossy()).collect();
            files.push(parts.join("/"));
        }
    }
}
