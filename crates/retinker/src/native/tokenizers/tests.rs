//! What a hub is asked, what is kept of its answers, and where the token goes.

use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use super::{HfTokenizer, HubConfig, HubTokenizers};
use crate::client::testing::{FakeReply, FakeTransport, ManualRuntime};
use crate::client::{Error, Secret, Tokenizer, TokenizerId, TokenizerSource};
use crate::native::NativeRuntime;
use crate::transport::Request;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secret";

/// A tokenizer of three words.
fn tokenizer() -> String {
    let special = json!({
        "id": 3, "content": "<end>", "special": true,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "decoder": null,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<end>", "type_id": 0}}],
            "pair": [],
            "special_tokens": {"<end>": {"id": "<end>", "ids": [3], "tokens": ["<end>"]}},
        },
        "model": {"type": "WordLevel", "vocab": {"a": 0, "b": 1, "?": 2}, "unk_token": "?"},
    })
    .to_string()
}

fn config() -> String {
    json!({"bos_token": null, "eos_token": {"content": "<end>"}}).to_string()
}

fn of_commit(reply: FakeReply) -> FakeReply {
    reply.header("x-repo-commit", COMMIT)
}

/// A hub with one model of two files.
fn hub(request: &Request) -> FakeReply {
    match request.url.rsplit('/').next().unwrap() {
        "tokenizer.json" => of_commit(FakeReply::json(200, tokenizer())),
        "tokenizer_config.json" => of_commit(FakeReply::json(200, config())),
        other => panic!("{other}"),
    }
}

struct Hub {
    cache: tempfile::TempDir,
    transport: FakeTransport,
}

impl Hub {
    fn new(answer: impl FnMut(&Request) -> FakeReply + Send + 'static) -> Self {
        let transport = FakeTransport::new(&ManualRuntime::new(), answer);
        Self { cache: tempfile::tempdir().unwrap(), transport }
    }

    fn source(&self, offline: bool) -> HubTokenizers {
        let config = HubConfig {
            endpoint: "https://hub.test/".to_owned(),
            token: Some(Secret::new(TOKEN)),
            cache: self.cache.path().to_owned(),
            offline,
        };
        let runtime = NativeRuntime::current().unwrap();
        HubTokenizers::new(config, Arc::new(self.transport.clone()), Arc::new(runtime)).unwrap()
    }

    async fn load(&self, name: &str) -> Result<Arc<dyn Tokenizer>, Error> {
        self.source(false).load(id(name, None)).await
    }

    /// The error of a model, which names it and holds no secret.
    async fn error(&self, name: &str) -> String {
        let error = self.load(name).await.unwrap_err().to_string();
        assert!(error.contains(name) && !error.contains(TOKEN), "{error}");
        error
    }

    /// The addresses asked for, each with whether the token went there.
    fn asked(&self) -> Vec<(String, bool)> {
        let told = |request: &Request| request.header("authorization") == Some(&format!("Bearer {TOKEN}"));
        let requests = self.transport.requests();
        assert!(
            requests.iter().all(|r| told(r) || r.headers.iter().all(|(_, value)| !value.contains(TOKEN)))
        );
        requests.iter().map(|r| (r.url.clone(), told(r))).collect()
    }

    fn files(&self) -> Vec<String> {
        fn walk(directory: &Path, found: &mut Vec<std::path::PathBuf>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { walk(&path, found) } else { found.push(path) }
            }
        }
        let mut found = Vec::new();
        walk(self.cache.path(), &mut found);
        let below = |path: &Path| path.strip_prefix(self.cache.path()).unwrap().display().to_string();
        let mut files: Vec<_> = found.iter().map(|path| below(path)).collect();
        files.sort();
        files
    }
}

fn id(name: &str, revision: Option<&str>) -> TokenizerId {
    TokenizerId { name: name.to_owned(), revision: revision.map(str::to_owned) }
}

fn check(tokenizer: &dyn Tokenizer) {
    assert_eq!(tokenizer.encode("b a c", false).unwrap(), [1, 0, 2]);
    assert_eq!(tokenizer.encode("b a", true).unwrap(), [1, 0, 3]);
    assert_eq!(tokenizer.decode(&[1, 0, 3], true).unwrap(), "b a");
    assert_eq!(tokenizer.decode(&[1, 0, 3], false).unwrap(), "b a <end>");
    assert_eq!((tokenizer.vocab_size(), tokenizer.bos_token_id()), (4, None));
}

#[tokio::test]
async fn what_was_downloaded_is_kept_and_found_without_the_hub() {
    let hub = Hub::new(hub);
    let source = hub.source(false);
    let first = source.load(id("org/model", None)).await.unwrap();
    check(&*first);
    assert_eq!(first.eos_token_id(), Some(3));
    let at = |revision, file| (format!("https://hub.test/org/model/resolve/{revision}/{file}"), true);
    let asked = [at("main", "tokenizer_config.json"), at(COMMIT, "tokenizer.json")];
    assert_eq!(hub.asked(), asked, "the same commit for both");
    let snapshot = format!("models--org--model/snapshots/{COMMIT}");
    let files = [
        "models--org--model/refs/main".to_owned(),
        format!("{snapshot}/tokenizer.json"),
        format!("{snapshot}/tokenizer_config.json"),
    ];
    assert_eq!(hub.files(), files);
    assert!(Arc::ptr_eq(&first, &source.clone().load(id("org/model", None)).await.unwrap()));
    // By the next program, by its commit, and where there is no network.
    for (offline, revision) in [(false, None), (true, None), (true, Some(COMMIT)), (true, Some("main"))] {
        let again = hub.source(offline).load(id("org/model", revision)).await.unwrap();
        check(&*again);
        assert_eq!(again.eos_token_id(), Some(3));
    }
    assert_eq!(hub.asked(), asked);
    let error = hub.source(true).load(id("org/other", None)).await.unwrap_err().to_string();
    assert!(error.contains("org/other") && error.contains("offline"), "{error}");
}

#[tokio::test]
async fn the_token_stays_with_the_hub() {
    let hub = Hub::new(|request| {
        let to = |address: &str| of_commit(FakeReply::json(302, "")).header("location", address);
        match request.url.strip_prefix("https://").unwrap() {
            "hub.test/old/name/resolve/main/tokenizer_config.json" => to("/new/name/config?x=1"),
            "hub.test/new/name/config?x=1" => FakeReply::json(200, config()),
            url if url.ends_with("tokenizer.json") => to("https://cdn.test/file?signature=s"),
            "cdn.test/file?signature=s" => {
                FakeReply::json(302, "").header("location", "https://hub.test.evil.test/file")
            }
            "hub.test.evil.test/file" => FakeReply::json(200, tokenizer()),
            other => panic!("{other}"),
        }
    });
    let tokenizer = hub.load("old/name").await.unwrap();
    check(&*tokenizer);
    assert_eq!(tokenizer.eos_token_id(), Some(3));
    let told: Vec<_> = hub.asked().into_iter().map(|(_, told)| told).collect();
    assert_eq!(told, [true, true, true, false, false]);
}

#[tokio::test]
async fn only_the_hubs_own_addresses_are_its_own() {
    let inner = Hub::new(hub).source(false).inner;
    for (location, path) in [
        ("/a/b?c", Some("/a/b?c")),
        ("https://hub.test/a", Some("/a")),
        ("//evil.test/a", None),
        ("https://hub.test.evil.test/a", None),
        ("https://hub.test@evil.test/a", None),
        ("https://hub.test:444/a", None),
        ("http://hub.test/a", None),
        ("a/b", None),
        ("", None),
    ] {
        assert_eq!(inner.own_path(location).as_deref(), path, "{location}");
    }
}

#[tokio::test]
async fn a_model_without_a_config_has_no_special_tokens_known() {
    let hub = Hub::new(|request| match request.url.ends_with("_config.json") {
        true => of_commit(FakeReply::json(404, "Entry not found")),
        false => hub(request),
    });
    let tokenizer = hub.load("model").await.unwrap();
    check(&*tokenizer);
    assert_eq!(tokenizer.eos_token_id(), None);
    assert_eq!(hub.files().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_had_says_why() {
    let none = Hub::new(|_| of_commit(FakeReply::json(404, "Entry not found")));
    assert!(none.error("moonshotai/Kimi").await.contains("has no tokenizer.json"));
    for status in [401, 403, 404] {
        let closed = Hub::new(move |_| FakeReply::json(status, ""));
        assert!(closed.error("org/gated").await.contains("HF_TOKEN"));
    }
    let odd = Hub::new(|_| FakeReply::json(200, tokenizer()));
    assert!(odd.error("org/model").await.contains("HF_ENDPOINT"));
    let refusing = Hub::new(|_| FakeReply::json(418, r#"{"detail":"teapot"}"#));
    assert!(refusing.error("org/model").await.contains("status 418: teapot"));
    let round = Hub::new(|_| FakeReply::json(302, "").header("location", "/again"));
    assert!(round.error("org/model").await.contains("too often"));
    for unsafe_place in ["http://cdn.test/x", "ftp://x", "//cdn.test/x", ""] {
        let away = Hub::new(move |_| of_commit(FakeReply::json(302, "")).header("location", unsafe_place));
        assert!(away.error("org/model").await.contains("not safe"), "{unsafe_place}");
    }
    let broken = Hub::new(|request| match request.url.ends_with("_config.json") {
        true => hub(request),
        false => of_commit(FakeReply::json(200, r#"{"model":"cut o"#)),
    });
    assert!(broken.error("org/model").await.contains("tokenizer.json cannot be used"));
    for hub in [none, odd, refusing, round, broken] {
        assert_eq!(hub.files(), [""; 0], "what cannot be used is not kept");
    }
}

#[tokio::test]
async fn ids_lead_nowhere_else() {
    let hub = Hub::new(|request| panic!("{}", request.url));
    for bad in ["..", "../x", "a/../b", "a/b/c", "a/.b", "", "a b", "a/b?c", "a\\b", "./tokenizer", "a/"] {
        let error = hub.error(bad).await;
        assert!(error.contains("neither the id of a repository"), "{error}");
        let error = hub.source(false).load(id("a/b", Some(bad))).await.unwrap_err().to_string();
        assert!(error.contains("neither the id of a repository"), "{error}");
    }
    for name in ["TML/x", "thinkingmachines/y"] {
        assert!(hub.error(name).await.contains("tml-renderers"));
    }
}

#[tokio::test]
async fn a_directory_is_read_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let name = directory.path().to_str().unwrap();
    let hub = Hub::new(|request| panic!("{}", request.url));
    assert!(hub.error(name).await.contains("has no tokenizer.json"));
    std::fs::write(directory.path().join("tokenizer.json"), tokenizer()).unwrap();
    check(&HfTokenizer::from_directory(directory.path()).unwrap());
    std::fs::write(directory.path().join("tokenizer_config.json"), config()).unwrap();
    assert_eq!(hub.load(name).await.unwrap().eos_token_id(), Some(3));
    std::fs::write(directory.path().join("tokenizer_config.json"), "[").unwrap();
    assert!(hub.error(name).await.contains("tokenizer_config.json cannot be used"));
}

#[test]
fn the_environment_is_hugging_faces() {
    let of = |set: &[(&str, &str)]| {
        HubConfig::from_environment(|name| {
            set.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    };
    let plain = of(&[("HOME", "/home/u")]);
    assert_eq!(plain.endpoint, "https://huggingface.co");
    assert_eq!(plain.cache, Path::new("/home/u/.cache/huggingface/hub"));
    assert!(plain.token.is_none() && !plain.offline);
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("token"), "hf_stored\n").unwrap();
    let at_home = ("HF_HOME", home.path().to_str().unwrap());
    let stored = of(&[at_home, ("HF_ENDPOINT", "http://h"), ("TRANSFORMERS_OFFLINE", "1")]);
    assert_eq!(stored.cache, home.path().join("hub"));
    assert_eq!(
        (stored.token.unwrap().expose(), &*stored.endpoint, stored.offline),
        ("hf_stored", "http://h", true)
    );
    let given = of(&[at_home, ("HF_TOKEN", "hf_given"), ("HF_HUB_CACHE", "/c"), ("HF_HUB_OFFLINE", "0")]);
    assert_eq!((given.token.unwrap().expose(), given.offline), ("hf_given", false));
    assert_eq!(given.cache, Path::new("/c"));
}
