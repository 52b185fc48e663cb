//! Lists, and who may read them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use common::{Client, start};
use retinker_local::{LocalConfig, LocalService};
use serde_json::{Value, json};

fn ids(page: &Value) -> Vec<&str> {
    page["training_runs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|run| run["training_run_id"].as_str().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_and_checkpoints_are_listed_newest_first_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut runs = Vec::new();
    for number in 0..5 {
        runs.push(client.run(&session, number).await);
    }
    let (_, all) = client.get("training_runs").await;
    let newest_first: Vec<&str> = runs.iter().rev().map(|run| run.id.as_str()).collect();
    assert_eq!(ids(&all), newest_first);
    assert_eq!(all["cursor"], json!({"offset": 0, "limit": 20, "total_count": 5}));
    // Activity does not reorder.
    let mut oldest = runs[0].clone();
    oldest.train(0).await;
    oldest.save("x").await;
    let (_, page) = client.get("training_runs?limit=2&offset=3&access_scope=owned").await;
    assert_eq!(ids(&page), newest_first[3..]);
    assert_eq!(page["training_runs"][1]["last_checkpoint"]["checkpoint_id"], "weights/x");
    let (_, beyond) = client.get("training_runs?limit=2&offset=9").await;
    assert_eq!(beyond["cursor"]["total_count"], 5);
    assert!(ids(&beyond).is_empty());

    oldest.save("y").await;
    let (_, list) = client.get("checkpoints").await;
    let names: Vec<&str> = list["checkpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["checkpoint_id"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["weights/y", "weights/x"]);
    assert_eq!(list["cursor"]["total_count"], 2);

    // Ids may be escaped or not.
    let escaped = oldest.id.replace(':', "%3A");
    assert_eq!(client.get(&format!("training_runs/{escaped}")).await.1["training_run_id"], oldest.id);
    let (_, of_run) = client.get(&format!("training_runs/{escaped}/checkpoints")).await;
    assert_eq!(of_run["checkpoints"].as_array().unwrap().len(), 2);
    for (path, public) in [("weights/x", true), ("weights%2Fy", true), ("weights%2Fy", false)] {
        let url = client.url(&format!("training_runs/{escaped}/checkpoints/{path}/publish"));
        let request = if public { client.http.post(url) } else { client.http.delete(url) };
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
    let (_, of_run) = client.get(&format!("training_runs/{}/checkpoints", oldest.id)).await;
    assert_eq!([&of_run["checkpoints"][0]["public"], &of_run["checkpoints"][1]["public"]], [false, true]);
    let delete = |path: &str| {
        client.http.delete(client.url(&format!("training_runs/{}/checkpoints/{path}", oldest.id))).send()
    };
    assert_eq!(delete("weights%2Fy").await.unwrap().status(), 204);
    assert_eq!(delete("weights/y").await.unwrap().status(), 404);
    assert_eq!(delete("y").await.unwrap().status(), 400);
    assert_eq!(delete("sampler_weights/y").await.unwrap().status(), 404);

    let (_, sessions) = client.get("sessions").await;
    assert_eq!(sessions["sessions"], json!([session]));
    let (_, of_session) = client.get(&format!("sessions/{session}")).await;
    assert_eq!(of_session["training_run_ids"].as_array().unwrap().len(), 5);
    let (_, capabilities) = client.get("get_server_capabilities").await;
    assert!(capabilities["supported_models"][0]["max_context_length"].as_u64().unwrap() >= 512);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_and_strangers_are_kept_out() {
    let dir = tempfile::tempdir().unwrap();
    let config = LocalConfig { api_key: Some("tml-right".into()), ..LocalConfig::new(dir.path()) };
    assert!(!format!("{config:?}").contains("tml-right"));
    let service = LocalService::start(config).await.unwrap();
    let client = Client::new(service.base_url());
    let get = |headers: &[(&'static str, &'static str)]| {
        let mut request = client.http.get(client.url("training_runs"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        async move {
            let response = request.send().await.unwrap();
            let status = response.status().as_u16();
            let body: Value = response.json().await.unwrap();
            assert_eq!(status != 200, body["detail"].is_string(), "{body}");
            status
        }
    };
    assert_eq!(get(&[("x-api-key", "tml-right")]).await, 200);
    assert_eq!(get(&[("x-api-key", "tml-wrong")]).await, 401);
    assert_eq!(get(&[]).await, 401);
    assert_eq!(get(&[("x-api-key", "tml-right"), ("origin", "http://evil.example")]).await, 403);
    assert_eq!(get(&[("x-api-key", "tml-right"), ("host", "evil.example")]).await, 403);
    let outside = client.http.get(format!("{}/other", service.base_url())).header("x-api-key", "tml-right");
    assert_eq!(outside.send().await.unwrap().status(), 404);
    service.stop().await;
}
