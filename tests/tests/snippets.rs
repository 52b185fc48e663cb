//! The Rust that a restored run is taken over by is Rust: what stands below between the marks is
//! compiled, and is what the host gives out; so is the Rust that starts from a checkpoint.
#![allow(clippy::unwrap_used)] // A test that fails, panics.

use std::error::Error;

use retinker::client::{SaveOptions, ServiceClient, TrainingClient as Client, TrainingOptions};
use retinker::recovery::restore::Attachment as Identity;
use retinker::wire::model::LoraConfig;
use retinker_local::{LocalConfig, LocalService};

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

#[rustfmt::skip]
async fn started(base_url: &str, path: &str) -> Result<Client, Box<dyn Error>> {
    // <start>
    // Starts a new run from this checkpoint, with optimizer state. Needs the crate `retinker` and TINKER_API_KEY.
    use std::sync::Arc;

    use retinker::client::{Api, ApiConfig, Secret, ServiceClient};
    use retinker::native::{NativeRuntime, NativeTransport};

    let config = ApiConfig {
        base_url: base_url.into(),
        api_key: std::env::var("TINKER_API_KEY").ok().map(Secret::new),
        ..ApiConfig::default()
    };
    let runtime = NativeRuntime::current().ok_or("run this inside of a tokio runtime")?;
    let api = Api::new(config, Arc::new(NativeTransport::new()?), Arc::new(runtime))?;
    let service_client = ServiceClient::new(api);
    let labels = [("name".into(), "mine".into())].into();
    let training_client =
        service_client.create_training_client_from_state_with_optimizer(path, Some(labels)).await?;
    // </start>
    Ok(training_client)
}

/// What stands here between two marks, as a program of its own would have it.
fn between(from: &str, to: &str) -> String {
    let here = include_str!("snippets.rs").split_once(from).unwrap().1;
    let here = here.split_once(to).unwrap().0;
    let lines = here.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line)));
    lines.collect::<String>().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_snippet_starts_from_a_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let service = LocalService::start(LocalConfig::new(dir.path())).await.unwrap();
    let owner = ServiceClient::new(retinker_tests::service::api(&service.base_url()).unwrap());
    let lora = LoraConfig { rank: 2, seed: Some(1), ..LoraConfig::default() };
    let options = TrainingOptions::default();
    let run = owner.create_lora_training_client("retinker/nano-llama", lora, options).await.unwrap();
    let path = run.save_state("a", SaveOptions::default()).await.unwrap().path;

    let new = started(&service.base_url(), &path).await.unwrap();
    let rest = owner.create_rest_client();
    let checkpoint = rest.list_checkpoints(run.model_id()).await.unwrap().checkpoints.remove(0);
    assert_ne!(new.model_id(), run.model_id());
    let labels = [("name".to_owned(), "mine".to_owned())].into();
    let snippets = retinker_host::checkpoint_snippets("BASE", &checkpoint, &labels);
    let given = &snippets.iter().find(|snippet| snippet.language == "rust").unwrap().code;
    let given = given.replace("\"BASE\"", "base_url").replace(&format!("\"{path}\""), "path");
    assert_eq!(between("// <start>\n", "    // </start>"), given.trim());
    service.stop().await;
}

#[tokio::test]
async fn the_rust_snippet_compiles_and_attaches() {
    let identity = Identity { session_id: "s".into(), model_id: "s:train:0".into(), next_seq_id: 7 };
    let snippets = retinker_host::attach_snippets("http://127.0.0.1:9", &identity);
    let given = &snippets.iter().find(|snippet| snippet.language == "rust").unwrap().code;
    assert_eq!(between("// <snippet>\n", "    // </snippet>"), given.trim());
    assert_eq!(attached().await.unwrap().attachment(), identity);
}
