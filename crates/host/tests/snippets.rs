//! The Rust that starts a run from a checkpoint is Rust: what stands below between the marks is compiled, and is what the
//! host gives out.
#![allow(clippy::unwrap_used)]

use std::error::Error;

use retinker::client::TrainingClient;

#[rustfmt::skip]
async fn started(base_url: &str, path: &str) -> Result<TrainingClient, Box<dyn Error>> {
    // <start>
    // Starts a new run from this checkpoint, with optimizer state. Needs the crate `retinker` and TINKER_API_KEY.
    use std::sync::Arc;

    use retinker::client::{Api, ApiConfig, Secret, ServiceClient, TrainingOptions};
    use retinker::native::{NativeRuntime, NativeTransport};

    let config = ApiConfig {
        base_url: base_url.into(),
        api_key: std::env::var("TINKER_API_KEY").ok().map(Secret::new),
        ..ApiConfig::default()
    };
    let runtime = NativeRuntime::current().ok_or("run this inside of a tokio runtime")?;
    let api = Api::new(config, Arc::new(NativeTransport::new()?), Arc::new(runtime))?;
    let service_client = ServiceClient::new(api);
    let options = TrainingOptions { user_metadata: Some([("name".into(), "mine".into())].into()), ..TrainingOptions::default() };
    let training_client =
        service_client.create_training_client_from_state_with_optimizer(path, options).await?;
    // </start>
    Ok(training_client)
}

#[test]
fn the_rust_snippet_is_what_is_compiled_here() {
    let _ = started;
    let path = "tinker://run/weights/a";
    let checkpoint = serde_json::from_value(serde_json::json!({
        "checkpoint_id": "weights/a",
        "checkpoint_type": "training",
        "time": "2026-01-02T03:04:05Z",
        "tinker_path": path,
    }))
    .unwrap();
    let labels = [("name".to_owned(), "mine".to_owned())].into();
    let snippets = retinker_host::checkpoint_snippets("BASE", &checkpoint, &labels);
    let given = &snippets.iter().find(|snippet| snippet.language == "rust").unwrap().code;
    let given = given.replace("\"BASE\"", "base_url").replace(&format!("\"{path}\""), "path");
    let here = include_str!("snippets.rs").split_once("// <start>\n").unwrap().1;
    let here = here.split_once("    // </start>").unwrap().0;
    let dedented: String =
        here.lines().map(|line| format!("{}\n", line.strip_prefix("    ").unwrap_or(line))).collect();
    assert_eq!(dedented.trim(), given.trim());
}
