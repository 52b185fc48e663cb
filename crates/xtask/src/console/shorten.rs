//! Makes what a browser loads shorter without changing what it does: the names by which the wasm and wasm-bindgen's JavaScript
//! know each other, which end in digests that cannot be compressed, and that JavaScript itself.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::shell::{command, output_shown, run};
use crate::tools;

/// What wasm-opt tells of the names that it has given.
#[derive(Debug, Deserialize)]
struct Names {
    /// Module, former name, new name. All modules are called `a` now.
    imports: Vec<(String, String, String)>,
    /// Former name, new name.
    exports: Vec<(String, String)>,
}

/// Shortens the program in a directory that trunk has filled.
pub(super) fn shorten(dist: &Path) -> Result<()> {
    let (wasm, script) = (the_one(dist, "wasm")?, the_one(dist, "js")?);
    let told = output_shown(
        command(tools::wasm_opt()?.join("wasm-opt"))
            .arg(&wasm)
            // Once more over what trunk had optimised: 0.7 kB less.
            .args(["-Oz", "--minify-imports-and-exports-and-modules", "-o"])
            .arg(&wasm),
    )
    .with_context(|| format!("wasm-opt could not rename what {} exchanges", wasm.display()))?;
    let names: Names = serde_json::from_str(&told).context("wasm-opt tells no names")?;
    let text = std::fs::read_to_string(&script)?;
    std::fs::write(&script, without_classes(&renamed(&text, &names)?))?;
    run(command(tools::terser()?.join("terser"))
        .arg(&script)
        .args(["--module", "--ecma", "2022", "--compress", "passes=3", "--mangle", "--output"])
        .arg(&script))
    .with_context(|| format!("{} could not be shortened", script.display()))
}

/// The only file with this ending.
fn the_one(dist: &Path, ending: &str) -> Result<PathBuf> {
    let mut found = super::files(dist)?;
    found.retain(|file| file.extension().is_some_and(|end| end == ending));
    match (found.pop(), found.pop()) {
        (Some(file), None) => Ok(file),
        (None, _) => bail!("{} holds no {ending} file", dist.display()),
        (Some(_), Some(_)) => bail!("{} holds several {ending} files", dist.display()),
    }
}

/// The script with the new names.
fn renamed(script: &str, names: &Names) -> Result<String> {
    let imports: HashMap<&str, &str> =
        names.imports.iter().map(|(_, old, new)| (old.as_str(), new.as_str())).collect();
    let exports: HashMap<&str, &str> =
        names.exports.iter().map(|(old, new)| (old.as_str(), new.as_str())).collect();
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$';
    let mut text = String::with_capacity(script.len());
    let mut rest = script;
    let mut met = HashSet::new();
    while let Some(at) = rest.find(is_of_name) {
        let (between, from) = rest.split_at(at);
        text.push_str(between);
        let (name, after) = from.split_at(from.find(|c| !is_of_name(c)).unwrap_or(from.len()));
        let new = if text.ends_with("wasm.") { exports.get(name) } else { imports.get(name) };
        met.insert(name);
        text.push_str(new.copied().unwrap_or(name));
        rest = after;
    }
    text.push_str(rest);
    if let Some(old) = imports.keys().find(|old| !met.contains(*old)) {
        bail!("wasm-bindgen's script does not give {old}, which the wasm asks for");
    }
    for module in names.imports.iter().map(|(module, ..)| module) {
        text = text.replace(&format!("\"{module}\""), "\"a\"");
    }
    Ok(text)
}

/// The script without the classes that it offers to other scripts: a library among the console's brings some, and there are no
/// other scripts.
fn without_classes(script: &str) -> String {
    let mut within = false;
    let kept = script.lines().filter(|line| {
        within |= line.starts_with("export class ");
        let is_last = within && line.starts_with("if (Symbol.dispose) ");
        let keep = !within;
        within &= !is_last;
        keep
    });
    kept.flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names {
            imports: vec![("./x_bg.js".into(), "__wbg_then_12".into(), "b".into())],
            exports: vec![("memory".into(), "c".into()), ("__wbg_then_12".into(), "d".into())],
        }
    }

    #[test]
    fn both_sides_are_renamed_and_nothing_else() {
        let script = r#"const memory = 1; const all = { "./x_bg.js": { __wbg_then_12: () => wasm.memory.buffer } };
            wasm.__wbg_then_12(memory, __wbg_then_123);"#;
        let told = r#"const memory = 1; const all = { "a": { b: () => wasm.c.buffer } };
            wasm.d(memory, __wbg_then_123);"#;
        assert_eq!(renamed(script, &names()).unwrap(), told);
    }

    #[test]
    fn classes_for_others_are_left_out() {
        let script =
            "const a = 1;\nexport class B {\n  free() {}\n}\nif (Symbol.dispose) B.x = 1;\nexport { a };\n";
        assert_eq!(without_classes(script), "const a = 1;\nexport { a };\n");
    }

    #[test]
    fn what_is_not_given_is_told() {
        let problem = renamed("wasm.memory", &names()).unwrap_err().to_string();
        assert!(problem.contains("__wbg_then_12"), "{problem}");
    }
}
