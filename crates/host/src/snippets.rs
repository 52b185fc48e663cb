//! Ready-made code that goes on with a run.

use retinker::host::api::{ServiceKind, Snippet};
use retinker::recovery::restore::Attachment;
use retinker::wire::UserMetadata;
use retinker::wire::run::Checkpoint;

const PYTHON_ATTACH: &str = include_str!("snippets/attach.py");
const TYPESCRIPT_ATTACH: &str = include_str!("snippets/attach.ts");
const RUST_ATTACH: &str = include_str!("snippets/attach.rs.txt");
const PYTHON_FROM_CHECKPOINT: &str = include_str!("snippets/from_checkpoint.py");
const RUST_FROM_CHECKPOINT: &str = include_str!("snippets/from_checkpoint.rs.txt");
const TYPESCRIPT_FROM_CHECKPOINT: &str = include_str!("snippets/from_checkpoint.ts");
const PYTHON_FIRST_RUN: &str = include_str!("snippets/first_run.py");
const COOKBOOK_FIRST_RUN: &str = include_str!("snippets/first_run_cookbook.txt");
const RETINKER_FIRST_RUN: &str = include_str!("snippets/first_run_retinker.txt");

/// What stands where a person's own key belongs.
const YOUR_KEY: &str = "tml-YOUR-KEY";
/// The embedded service takes any.
const ANY_KEY: &str = "tml-local";

/// Makes a first run. Of the models that the service offers the first is taken.
pub(crate) fn first_run(base_url: &str, kind: ServiceKind, models: &[String]) -> Vec<Snippet> {
    let key = if kind == ServiceKind::Local { ANY_KEY } else { YOUR_KEY };
    let model = models.first().map_or("BASE_MODEL", String::as_str);
    let fill = |template: &str, literal: fn(&str) -> String| {
        let values = [("{base_url}", base_url), ("{key}", key), ("{model}", model)];
        fill(template, values.map(|(name, value)| (name, literal(value))))
    };
    let mut all = vec![snippet("python", "The official SDK", fill(PYTHON_FIRST_RUN, python))];
    // The cookbook knows the tokenizers of models that are told of elsewhere too: none of the embedded ones.
    if kind == ServiceKind::Remote {
        all.push(snippet("cookbook", "The Tinker cookbook", fill(COOKBOOK_FIRST_RUN, shell)));
    }
    all.push(snippet("rust", "retinker's own example", fill(RETINKER_FIRST_RUN, shell)));
    all
}
const ELIXIR_FROM_CHECKPOINT: &str = include_str!("snippets/from_checkpoint.exs");
const COOKBOOK_FROM_CHECKPOINT: &str = include_str!("snippets/cookbook.py");

/// Takes over a run that the host owns.
pub fn attach(base_url: &str, attachment: &Attachment) -> Vec<Snippet> {
    let values = [
        ("{base_url}", base_url),
        ("{session_id}", &attachment.session_id),
        ("{model_id}", &attachment.model_id),
    ];
    let number = attachment.next_seq_id.to_string();
    let fill = |template: &str, literal: fn(&str) -> String| {
        let values = values.map(|(name, value)| (name, literal(value)));
        fill(template, values.into_iter().chain([("{next_seq_id}", number.clone())]))
    };
    let title = "Go on with this run";
    let code = [
        ("python", fill(PYTHON_ATTACH, python)),
        ("rust", fill(RUST_ATTACH, rust)),
        ("typescript", fill(TYPESCRIPT_ATTACH, typescript)),
    ];
    code.map(|(language, code)| snippet(language, title, code)).into()
}

/// Starts a new run from a checkpoint, under the labels of the run that it belongs to.
pub fn from_checkpoint(base_url: &str, checkpoint: &Checkpoint, labels: &UserMetadata) -> Vec<Snippet> {
    let pairs = |literal: fn(&str) -> String, between: &str, open: &str, close: &str| {
        let pairs: Vec<String> = labels
            .iter()
            .map(|(k, v)| format!("{open}{}{between}{}{close}", literal(k), literal(v)))
            .collect();
        pairs.join(", ")
    };
    let path = &checkpoint.tinker_path;
    let python_code = fill(
        PYTHON_FROM_CHECKPOINT,
        [
            ("{base_url}", python(base_url)),
            ("{path}", python(path)),
            ("{metadata}", format!("{{{}}}", pairs(python, ": ", "", ""))),
        ],
    );
    let rust_code = fill(
        RUST_FROM_CHECKPOINT,
        [
            ("{base_url}", rust(base_url)),
            ("{path}", rust(path)),
            ("{metadata}", format!("[{}]", pairs(rust, ".into(), ", "(", ".into())"))),
        ],
    );
    let typescript_code = fill(
        TYPESCRIPT_FROM_CHECKPOINT,
        [
            ("{base_url}", typescript(base_url)),
            ("{path}", typescript(path)),
            ("{metadata}", format!("{{{}}}", pairs(typescript, ": ", "", ""))),
        ],
    );
    let elixir_code =
        fill(ELIXIR_FROM_CHECKPOINT, [("{base_url}", elixir(base_url)), ("{path}", elixir(path))]);
    let name = checkpoint.checkpoint_id.rsplit('/').next().unwrap_or_default();
    let cookbook_code = fill(
        COOKBOOK_FROM_CHECKPOINT,
        [("{base_url_word}", python(base_url)), ("{name}", python(name)), ("{path}", python(path))],
    );
    let title = "New run from the newest checkpoint";
    vec![
        snippet("python", title, python_code),
        snippet("rust", title, rust_code),
        snippet("typescript", title, typescript_code),
        snippet("elixir", title, elixir_code),
        snippet("cookbook", "The recipe goes on from the newest checkpoint", cookbook_code),
    ]
}

fn snippet(language: &str, title: &str, code: String) -> Snippet {
    Snippet { language: language.to_owned(), title: title.to_owned(), code }
}

/// Replaces each name where the template holds it, and nothing inside what was put in.
fn fill(template: &str, values: impl IntoIterator<Item = (&'static str, String)>) -> String {
    let values: Vec<_> = values.into_iter().collect();
    let mut out = String::with_capacity(template.len() + 256);
    let mut rest = template;
    while let Some((at, name, value)) = values
        .iter()
        .filter_map(|(name, value)| rest.find(name).map(|at| (at, *name, value)))
        .min_by_key(|hit| hit.0)
    {
        out.push_str(rest.get(..at).unwrap_or_default());
        out.push_str(value);
        rest = rest.get(at + name.len()..).unwrap_or_default();
    }
    out.push_str(rest);
    out
}

/// A Python string literal. Ids come from the service, and the code is made to be run: nothing in them may end the
/// literal. Everything but plain ASCII is escaped, by JSON's rules, which Python shares below U+10000.
fn python(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        ' '..='~' => c.to_string(),
        c => format!("\\U{:08x}", u32::from(c)),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

/// A string literal of TypeScript: JSON's, but for what would not be plain ASCII.
fn typescript(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        ' '..='~' => c.to_string(),
        c => format!("\\u{{{:x}}}", u32::from(c)),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

/// An Elixir string literal: what stands between `#{` and `}` in one is code.
fn elixir(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' | '#' => format!("\\{c}"),
        ' '..='~' => c.to_string(),
        c => format!("\\u{{{:x}}}", u32::from(c)),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

/// A Rust string literal.
fn rust(text: &str) -> String {
    let escape = |c: char| match c {
        '"' | '\\' => format!("\\{c}"),
        ' '..='~' => c.to_string(),
        c => c.escape_unicode().to_string(),
    };
    format!("\"{}\"", text.chars().map(escape).collect::<String>())
}

/// A word for a shell: as it is where nothing in it means anything to one, else between quotation marks.
fn shell(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        return text.to_owned();
    }
    // A control character would be acted on as the text is pasted, before any quotation mark counts.
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    format!("'{}'", text.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_run_is_of_the_service_that_is_shown() {
        let models = ["retinker/nano-llama".to_owned()];
        let local = first_run("http://127.0.0.1:8788", ServiceKind::Local, &models);
        assert_eq!(local.iter().map(|s| s.language.as_str()).collect::<Vec<_>>(), ["python", "rust"]);
        assert!(local[0].code.contains(r#"base_url="http://127.0.0.1:8788", api_key="tml-local""#));
        assert!(local[0].code.contains(r#"user_metadata={"name": "first run"}"#), "{}", local[0].code);
        assert!(local[1].code.contains("--create retinker/nano-llama --rank 8"));
        let remote = first_run("https://t.example/$(x)", ServiceKind::Remote, &["a'b\n".to_owned()]);
        assert_eq!(remote.len(), 3);
        assert!(
            remote[1].code.contains("base_url='https://t.example/$(x)' model_name='a'\\''b'"),
            "{remote:?}"
        );
        assert!(remote.iter().all(|s| s.code.contains(YOUR_KEY) && !s.code.contains("{key}")));
    }

    fn attachment(session: &str) -> Attachment {
        Attachment { session_id: session.into(), model_id: format!("{session}:train:0"), next_seq_id: 1 }
    }

    #[test]
    fn every_placeholder_is_filled() {
        let attach = attach("http://127.0.0.1:8788", &attachment("s1"));
        assert_eq!(
            attach.iter().map(|s| s.language.as_str()).collect::<Vec<_>>(),
            ["python", "rust", "typescript"]
        );
        assert!(
            attach[0].code.contains(r#"attach("http://127.0.0.1:8788", "s1", "s1:train:0", 1)"#),
            "{}",
            attach[0].code
        );
        assert!(attach.iter().all(|s| s.code.contains("is good for one attach")), "{attach:?}");
        let labels = [("name".to_owned(), "mine".to_owned())].into();
        let checkpoint = Checkpoint {
            checkpoint_id: "weights/a".into(),
            checkpoint_type: retinker::wire::run::CheckpointType::Training,
            time: Default::default(),
            tinker_path: "tinker://r/weights/a".into(),
            size_bytes: None,
            public: false,
            user_metadata: None,
            expires_at: None,
        };
        let start = from_checkpoint("http://h", &checkpoint, &labels);
        let lines = [
            ("python", r#"user_metadata={"name": "mine"}"#),
            ("rust", r#"("name".into(), "mine".into())"#),
            ("typescript", r#"{ userMetadata: {"name": "mine"} }"#),
            ("elixir", r#"(service_client, "tinker://r/weights/a")"#),
            (
                "cookbook",
                r#"{"name": "a", "epoch": epoch, "batch": batch, "state_path": "tinker://r/weights/a"}"#,
            ),
        ];
        assert_eq!(
            start.iter().map(|s| s.language.as_str()).collect::<Vec<_>>(),
            lines.map(|(name, _)| name)
        );
        for (snippet, (_, line)) in start.iter().zip(lines) {
            assert!(snippet.code.contains(line), "{}", snippet.code);
        }
        for snippet in attach.iter().chain(&start) {
            for name in ["base_url", "base_url_word", "session_id", "model_id", "next_seq_id", "path", "name"]
            {
                assert!(!snippet.code.contains(&format!("{{{name}}}")), "{name} in {}", snippet.code);
            }
        }
    }

    #[test]
    fn an_id_cannot_become_code() {
        let evil = "s\"); import os; os.system(\"x\n# {model_id} é";
        let code = attach("http://h", &attachment(evil));
        let expected = r#""s\"); import os; os.system(\"x\U0000000a# {model_id} \U000000e9""#;
        assert!(code[0].code.contains(expected), "{}", code[0].code);
        assert!(code[1].code.contains(r#"os.system(\"x\u{a}# {model_id} \u{e9}""#), "{}", code[1].code);
        assert!(code[2].code.contains(r#"os.system(\"x\u{a}# {model_id} \u{e9}""#), "{}", code[2].code);
        assert_eq!(elixir("\"#{System.halt()}\\\n"), r#""\"\#{System.halt()}\\\u{a}""#);
    }
}
