//! Makes what a browser loads shorter without changing what it does: the names by which the wasm and wasm-bindgen's JavaScript
//! know each other, which end in digests that cannot be compressed, and that JavaScript itself.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use serde_json::{Value, json};

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

/// How the wasm is optimised; of what was tried, this is the shortest when it is compressed. Functions of like names stand
/// together, since they are alike.
const OPTIMISED: [&str; 9] = [
    "-Oz",
    "--flatten",
    "--rereloop",
    "-Oz",
    "-Oz",
    "--converge",
    "--reorder-functions-by-name",
    "--low-memory-unused",
    "--strip-producers",
];

/// Shortens the program in a directory that trunk has filled.
pub(super) fn shorten(dist: &Path) -> Result<()> {
    let (wasm, script) = (the_one(dist, "wasm")?, the_one(dist, "js")?);
    let text = without_classes(&std::fs::read_to_string(&script)?);
    let binaryen = tools::wasm_opt()?;
    forget_unused(&binaryen, &wasm, &text)?;
    let program = binaryen.join("wasm-opt");
    run(command(&program).arg(&wasm).args(OPTIMISED).arg("-o").arg(&wasm))
        .with_context(|| format!("wasm-opt could not optimise {}", wasm.display()))?;
    // Once more with what each place can hold: a little less again.
    let last = ["--gufa-optimizing", "-Oz", "--minify-imports-and-exports-and-modules", "-o"];
    let told = output_shown(command(&program).arg(&wasm).args(last).arg(&wasm))
        .with_context(|| format!("wasm-opt could not rename what {} exchanges", wasm.display()))?;
    let names: Names = serde_json::from_str(&told).context("wasm-opt tells no names")?;
    std::fs::write(&script, renamed(&without_unasked(&text, &names), &names)?)?;
    run(command(tools::terser()?.join("terser"))
        .arg(&script)
        .args(["--module", "--ecma", "2022", "--compress", "passes=3", "--mangle", "--output"])
        .arg(&script))
    .with_context(|| format!("{} could not be shortened", script.display()))
}

/// Leaves out of the wasm what only exports lead to that the script does not use.
fn forget_unused(binaryen: &Path, wasm: &Path, script: &str) -> Result<()> {
    let used = used_exports(script);
    let mut graph: Vec<Value> = used.iter().map(|name| json!({"name": name, "export": name})).collect();
    graph.push(json!({"name": "the script", "root": true, "reaches": used}));
    let file = wasm.with_extension("graph");
    std::fs::write(&file, Value::from(graph).to_string())?;
    // What it tells is what it has left out.
    output_shown(
        command(binaryen.join("wasm-metadce"))
            .arg(wasm)
            // With the names, by which the functions that are left are put in order.
            .args(["-g", "--graph-file"])
            .arg(&file)
            .arg("-o")
            .arg(wasm),
    )
    .with_context(|| format!("wasm-metadce could not leave out what is not used of {}", wasm.display()))?;
    std::fs::remove_file(&file).context("the graph of what is used stays in dist/")
}

/// The exports of the wasm that the script names.
fn used_exports(script: &str) -> BTreeSet<&str> {
    let uses = script.split("wasm.").skip(1);
    let names = uses.filter_map(|after| after.split(|c| !is_of_name(c)).next());
    names.filter(|name| !name.is_empty()).collect()
}

/// Whether a name in JavaScript may hold this.
fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '$'
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
    let classes = without(
        script,
        |line| line.starts_with("export class "),
        |line| line.starts_with("if (Symbol.dispose) "),
    );
    without(&classes, |line| line.contains("Finalization = (typeof "), |line| line.ends_with(';'))
}

/// The script without those of its functions for the wasm that the wasm does not ask for.
fn without_unasked(script: &str, names: &Names) -> String {
    let asked: HashSet<&str> = names.imports.iter().map(|(_, old, _)| old.as_str()).collect();
    let is_unasked = |line: &str| {
        let name = line.trim_start().split_once(": function(").map(|(name, _)| name);
        name.is_some_and(|name| name.starts_with("__w") && !asked.contains(name))
    };
    without(script, is_unasked, |line| line.trim() == "},")
}

/// The script without the parts that begin and end with such lines.
fn without(script: &str, begins: impl Fn(&str) -> bool, ends: impl Fn(&str) -> bool) -> String {
    let mut within = false;
    let kept = script.lines().filter(|line| {
        within |= begins(line);
        let keep = !within;
        within &= !ends(line);
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
        let script = "const a = 1;\nexport class B {\n  free() {}\n}\nif (Symbol.dispose) B.x = 1;\nconst BFinalization = (typeof F)\n  ? 1\n  : 2;\nexport { a };\n";
        assert_eq!(without_classes(script), "const a = 1;\nexport { a };\n");
    }

    #[test]
    fn what_neither_side_uses_is_left_out() {
        let script = "{\n  __wbg_then_12: function(a) {\n    f(() => {\n    });\n  },\n  __wbg_of_3: function() {\n    1\n  },\n}\nwasm.free(wasm.memory);\n";
        let told =
            "{\n  __wbg_then_12: function(a) {\n    f(() => {\n    });\n  },\n}\nwasm.free(wasm.memory);\n";
        assert_eq!(without_unasked(script, &names()), told);
        assert_eq!(used_exports(script).into_iter().collect::<Vec<_>>(), ["free", "memory"]);
    }

    #[test]
    fn what_is_not_given_is_told() {
        let problem = renamed("wasm.memory", &names()).unwrap_err().to_string();
        assert!(problem.contains("__wbg_then_12"), "{problem}");
    }
}
