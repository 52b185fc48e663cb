//! The Rust that a restored run is taken over by is Rust: what stands below between the marks is compiled, and is what the
//! host gives out.
#![allow(clippy::unwrap_used)] // A test that fails, panics.

use std::error::Error;

use retinker::client::TrainingClient as Client;
use retinker::recovery::restore::Attachment as Identity;

#[rustfmt::skip]
async fn attached() -> Result<Client, Box<dyn Error>> {
    // <snippet>
    // Goes on with a restored run, with optimizer state and all. Needs the crate `retinker` and TINKER_API_KEY.
    // `next_seq_id` is good for one attach: a second program needs the number that the first one ended with.
    use std::sync::Arc;

    use retinker::client::{Api, ApiConfig, Secret, TrainingClient};
    use retinker::native::{NativeRuntime, NativeTransport};
    use retinker::recovery::restore::Attachment;

    let config = ApiConfig {
        base_url: "http://127.0.0.1:9".into(),
        api_key: std::env::var("TINKER_API_KEY").ok().map(Secret::new),
        ..ApiConfig::default()
    };
    let runtime = NativeRuntime::current().ok_or("run this inside of a tokio runtime")?;
    let api = Api::new(config, Arc::new(NativeTransport::new()?), Arc::new(runtime))?;
    let training_client = TrainingClient::attach(
        api,
        Attachment { session_id: "s".into(), model_id: "s:train:0".into(), next_seq_id: 7 },
    );
    // </snippet>
    Ok(training_client)
}

#[tokio::test]
async fn the_rust_snippet_compiles_and_attaches() {
    let identity = Identity { session_id: "s".into(), model_id: "s:train:0".into(), next_seq_id: 7 };
    let snippets = retinker_host::attach_snippets("http://127.0.0.1:9", &identity);
    let given = &snippets.iter().find(|snippet| snippet.language == "rust").unwrap().code;
    let here = include_str!("snippets.rs").split_once("// <snippet>\n").unwrap().1;
    let here = here.split_once("    // </snippet>").unwrap().0;
    let dedented: String =
        here.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
    assert_eq!(dedented.trim_end(), given.trim_end());
    assert_eq!(attached().await.unwrap().attachment(), identity);
}
