//! Checks that read the code rather than run it.

use anyhow::{Context, Result, bail};

use crate::shell::{cargo, command, output, root, run};
use crate::tools;

/// Formatting, and clippy with warnings denied, for both targets.
pub fn lint() -> Result<()> {
    run(cargo().args(["fmt", "--all", "--check"])).context("run `cargo fmt --all`")?;
    run(cargo().args(["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"]))?;
    tools::wasm_target()?;
    for features in [&["--all-features"][..], &["--no-default-features"]] {
        run(cargo()
            .args(["clippy", "--target", "wasm32-unknown-unknown", "--package", "retinker-wasm"])
            .args(features)
            .args(["--", "-D", "warnings"]))?;
    }
    run(cargo()
        .args(["clippy", "--target", "wasm32-unknown-unknown", "--package", "retinker-console"])
        .args(["--bins", "--tests", "--", "-D", "warnings"]))?;
    run(cargo()
        .args([
            "clippy",
            "--target",
            "wasm32-unknown-unknown",
            "--package",
            "retinker",
            "--no-default-features",
        ])
        .args(["--features", "test-util", "--all-targets", "--", "-D", "warnings"]))
}

/// Documentation without a warning.
pub fn docs() -> Result<()> {
    let doc = |arguments: &[&str]| {
        run(cargo().args(["doc", "--no-deps"]).args(arguments).env("RUSTDOCFLAGS", "-D warnings"))
    };
    doc(&["--workspace", "--all-features"])?;
    // docs.rs builds the core for both of its targets.
    tools::wasm_target()?;
    let core = ["--package", "retinker", "--package", "retinker-wire"];
    doc(&[&core[..], &["--all-features", "--target", "wasm32-unknown-unknown"]].concat())
}

/// Licences, bans and sources. Advisories need a database that is fetched, so they are left to `cargo deny check`.
pub fn deny() -> Result<()> {
    let path = tools::path_with(&[tools::cargo_deny()?])?;
    // It looks at the crates of every platform, and a build here fetches those of this one only.
    run(cargo().args(["fetch", "--locked", "--quiet"]))?;
    run(command("cargo-deny").args(["--offline", "check", "licenses", "bans", "sources"]).env("PATH", path))
}

/// A crate, how it is built, and what must not be in it.
struct Without {
    package: &'static str,
    arguments: &'static [&'static str],
    banned: &'static [&'static str],
}

const WITHOUT: [Without; 6] = [
    Without {
        package: "retinker",
        arguments: &["--no-default-features", "--target", "wasm32-unknown-unknown"],
        banned: &["tokio", "reqwest", "url", "rustls", "tokenizers"],
    },
    Without {
        package: "retinker",
        arguments: &["--no-default-features"],
        banned: &["tokio", "reqwest", "url", "tokenizers"],
    },
    Without {
        package: "retinker-wire",
        arguments: &[],
        banned: &["tokio", "reqwest", "gloo-net", "web-sys", "axum", "rusqlite", "futures-core"],
    },
    Without { package: "retinker-nn", arguments: &[], banned: &["tokio", "axum", "rusqlite", "reqwest"] },
    Without {
        package: "retinker-wasm",
        arguments: &["--target", "wasm32-unknown-unknown"],
        banned: &[
            "tokio",
            "reqwest",
            "url",
            "retinker-local",
            "retinker-store",
            "retinker-host",
            "tokenizers",
        ],
    },
    Without {
        package: "retinker-console",
        arguments: &["--target", "wasm32-unknown-unknown"],
        banned: &["tokio", "reqwest", "retinker-local", "retinker-store", "retinker-host", "tokenizers"],
    },
];

/// Text that must not stand in these files: where the native leaf module is not; and links of the console that would lose
/// the connection that the page shows (`address::at` makes them).
const WORDS: [(&str, &[&str], &[&str]); 2] = [
    (
        "crates/retinker/src",
        &["tokio::", "reqwest::", "Instant::now", "SystemTime::now"],
        &["crates/retinker/src/native"],
    ),
    ("web/src", &["http://", "https://", "gloo_net", "web_sys::Request", "href=\"/"], &[]),
];

/// The invariants of ARCHITECTURE.md that the compiler does not see.
pub fn invariants() -> Result<()> {
    for rule in WITHOUT {
        let tree = output(
            cargo()
                .args([
                    "tree",
                    "--package",
                    rule.package,
                    "--edges",
                    "normal",
                    "--prefix",
                    "none",
                    "--format",
                    "{p}",
                ])
                .args(rule.arguments),
        )
        .with_context(|| format!("cargo tree of {} failed", rule.package))?;
        for banned in rule.banned {
            if tree.lines().any(|line| line.split_whitespace().next() == Some(banned)) {
                bail!(
                    "{} {} depends on {banned}, which ARCHITECTURE.md rules out",
                    rule.package,
                    rule.arguments.join(" ")
                );
            }
        }
    }
    for (dir, words, except) in WORDS {
        for file in rust_files(&root().join(dir))? {
            let shown = file.strip_prefix(root()).unwrap_or(&file).display().to_string();
            if except.iter().any(|prefix| shown.starts_with(prefix)) {
                continue;
            }
            let text = std::fs::read_to_string(&file)?;
            for (number, line) in text.lines().enumerate() {
                let code = line.split("//").next().unwrap_or(line);
                // A URL's own slashes look like a comment's.
                let code = if words.iter().any(|w| w.contains("//")) && !line.trim_start().starts_with("//") {
                    line
                } else {
                    code
                };
                if let Some(word) = words.iter().find(|word| code.contains(**word)) {
                    bail!("{shown}:{}: '{word}' is ruled out here by ARCHITECTURE.md", number + 1);
                }
            }
        }
    }
    Ok(())
}

fn rust_files(dir: &std::path::Path) -> Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(rust_files(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}
