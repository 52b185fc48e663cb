use std::sync::Arc;

use retinker::client::testing::ManualRuntime;
use retinker::client::{Api, ApiConfig, SamplingClient};
use retinker::native::resolve;

use crate::client::tell;
use crate::scratch::scratch;
use crate::script::{Script, parts};

/// What a user, a file or another program gives a client, in parts (see `script`): the file of stored credentials, the
/// address, the key, the handle of a sampler. What is taken can be used; no error repeats a key.
pub fn credentials(data: &[u8]) {
    let parts = parts(data);
    let part = |number: usize| parts.get(number).copied().unwrap_or_default();
    let text = |number: usize| String::from_utf8_lossy(part(number)).into_owned();
    let home = scratch();
    let folder = home.path().join(".tinker");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("credentials.json"), part(0)).unwrap();
    let environment = |name: &str| match name {
        "HOME" => home.path().to_str().map(str::to_owned),
        "TINKER_BASE_URL" => Some(text(1)),
        "TINKER_API_KEY" => Some(text(2)),
        _ => None,
    };
    let config = resolve(environment, None, None);
    if let Err(error) = &config {
        // A file that cannot be understood may hold a key all the same.
        let stored = text(0);
        let words = stored.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
        let told = error.to_string();
        let key = |word: &str| word.starts_with("tml-") && word.len() > 10;
        assert!(!words.into_iter().any(|word| key(word) && told.contains(word)), "{told}");
    }
    use_them(config.unwrap_or_default(), &text(3));
}

/// Asks something with these; a server that takes nothing answers.
fn use_them(config: ApiConfig, handle: &str) {
    let runtime = ManualRuntime::new();
    let transport = Script::new(Arc::new(runtime.clone()), &[], false);
    let key = config.api_key.as_ref().map(|key| key.expose().to_owned());
    let api = match Api::new(config, Arc::new(transport), Arc::new(runtime.clone())) {
        Ok(api) => api,
        Err(error) => {
            // As keys are; others may be words that an error has of its own.
            let key = key.filter(|key| key.starts_with("tml-") && key.len() > 10);
            assert!(!key.is_some_and(|key| error.to_string().contains(&key)), "an error holds the key");
            return tell::<(), _>(Err(error));
        }
    };
    runtime.block_on(async {
        tell(api.healthz().await);
        tell(SamplingClient::from_sampler_handle(api, handle).await);
    });
}
