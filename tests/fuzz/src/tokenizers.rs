use std::sync::Arc;

use futures_util::FutureExt;
use retinker::client::{Error, Secret, Tokenizer, TokenizerId, TokenizerSource};
use retinker::native::{HubConfig, HubTokenizers, NativeRuntime};

use crate::client::tell;
use crate::download::Hurried;
use crate::scratch::{outside, scratch};
use crate::script::{Script, parts};

const TOKEN: &str = "hf_this-is-the-token";

/// Tokenizers from any hub: the first part is a text, the others are what the hub answers (see `script`). What is read can be
/// used, and used again from the cache, outside of which nothing is written; no error repeats the token.
pub fn tokenizers(data: &[u8]) {
    let parts = parts(data);
    let Some((text, script)) = parts.split_first() else { return };
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let runtime = Arc::new(Hurried(NativeRuntime::new(tokio.handle().clone())));
    let folder = scratch();
    let cache = folder.path().join("hub");
    let load = |script: &[&[u8]]| {
        let config = HubConfig {
            endpoint: "http://hub.test".to_owned(),
            token: Some(Secret::new(TOKEN)),
            cache: cache.clone(),
            offline: false,
        };
        let transport = Script::new(runtime.clone(), script, false);
        let source = HubTokenizers::new(config, Arc::new(transport), runtime.clone()).unwrap();
        tokio.block_on(source.load(TokenizerId::of_model("o/m", None)).boxed())
    };
    let text = String::from_utf8_lossy(text);
    let used = |found: Result<Arc<dyn Tokenizer>, Error>| match found {
        Ok(tokenizer) => Some(tokenizer.encode(&text, true).map(|tokens| {
            let ids: Vec<u32> = tokens.iter().filter_map(|token| (*token).try_into().ok()).collect();
            (tokens, tokenizer.decode(&ids, false).ok(), tokenizer.decode(&ids, true).ok())
        })),
        Err(error) => {
            assert!(!error.to_string().contains(TOKEN), "an error holds the token");
            tell::<(), _>(Err(error));
            None
        }
    };
    let first = used(load(script));
    let written = outside(folder.path(), &cache);
    assert!(written.is_empty(), "{written:?}");
    if let Some(Ok(first)) = first {
        // The hub says no more: this comes from the cache.
        let again = used(load(&[])).expect("what was read is in the cache").expect("it was used before");
        assert_eq!(again, first);
    }
}
