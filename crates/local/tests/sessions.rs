//! Sessions: made once, moved between projects, searched.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use common::{Client, start};
use serde_json::{Value, json};

async fn named(client: &Client, name: &str, project: Option<&str>, team: &str) -> String {
    let body = json!({"tags": [], "user_metadata": {"team": team}, "sdk_version": "t", "display_name": name,
                      "project_id": project});
    client.ok("create_session", body).await["session_id"].as_str().unwrap().to_owned()
}

async fn found(client: &Client, body: Value) -> Vec<String> {
    let answer = client.ok("sessions/search", body).await;
    let sessions = answer["sessions"].as_array().unwrap().iter();
    sessions.map(|session| session["session_id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creation_sent_again_makes_no_second_session() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let create = async |client: &Client, key: &str| {
        let body = json!({"tags": [], "user_metadata": {}, "sdk_version": "t"});
        let request =
            client.http.post(client.url("create_session")).header("X-Idempotency-Key", key).json(&body);
        request.send().await.unwrap().json::<Value>().await.unwrap()["session_id"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let first = create(&client, "a").await;
    assert_eq!(create(&client, "a").await, first);
    assert_ne!(create(&client, "b").await, first);
    service.stop().await;
    let service = start(dir.path()).await;
    assert_eq!(create(&Client::new(service.base_url()), "a").await, first);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_by_every_filter_and_in_pages() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let first = named(&client, "Nightly Sweep one", None, "x").await;
    let second = named(&client, "nightly sweep two", Some("p"), "y").await;
    let third = named(&client, "other", Some("p"), "x").await;
    client
        .ok(&format!("sessions/{third}/finish"), json!({"reason": {"type": "errored"}, "detail": "oom"}))
        .await;
    let mut run = client.run(&first, 0).await;
    run.save("a").await;

    assert_eq!(found(&client, json!({})).await, [third.as_str(), &second, &first]);
    assert_eq!(found(&client, json!({"display_name": "SWEEP nightly"})).await, [second.as_str(), &first]);
    assert_eq!(found(&client, json!({"project_ids": ["p"]})).await, [third.as_str(), &second]);
    assert_eq!(found(&client, json!({"project_ids": ["local"]})).await, [first.as_str()]);
    assert_eq!(found(&client, json!({"user_metadata": {"team": "x"}})).await, [third.as_str(), &first]);
    let either = json!({"session_id": third, "display_name": "two"});
    assert_eq!(found(&client, either).await, [third.as_str(), &second]);
    assert_eq!(found(&client, json!({"statuses": [{"type": "active"}]})).await, [second.as_str(), &first]);
    let finished = |reason: &str| json!({"statuses": [{"type": "client_finished", "reasons": [reason]}]});
    assert_eq!(found(&client, finished("errored")).await, [third.as_str()]);
    assert!(found(&client, finished("success")).await.is_empty());
    let nobody = json!({"owner": {"type": "user", "owner_urns": ["tml:organization_user:0"]}});
    assert!(found(&client, nobody).await.is_empty());

    let mut pages = Vec::new();
    let mut cursor = Value::Null;
    loop {
        let mut body = json!({"limit": 1});
        if !cursor.is_null() {
            body["cursor"] = cursor;
        }
        let page = client.ok("sessions/search", body).await;
        pages.push(page["sessions"][0].clone());
        cursor = page["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    let ids: Vec<&str> = pages.iter().map(|session| session["session_id"].as_str().unwrap()).collect();
    assert_eq!(ids, [third.as_str(), &second, &first]);
    assert_eq!(
        pages[0]["status"],
        json!({"type": "client_finished", "reason": {"type": "errored"}, "detail": "oom"})
    );
    assert_eq!(pages[2]["checkpoints_count"], 1);
    assert!(pages[2]["checkpoint_storage_bytes"].as_u64().unwrap() > 1000);

    client.ok_put(&format!("sessions/{first}/project"), json!({"project_id": "p"})).await;
    assert_eq!(found(&client, json!({"project_ids": ["p"]})).await.len(), 3);
    for (body, status) in [
        (json!({"limit": 0}), 422),
        (json!({"limit": 201}), 422),
        (json!({"display_name": " "}), 422),
        (json!({"statuses": [{"type": "odd"}]}), 422),
    ] {
        assert_eq!(client.post("sessions/search", body.clone()).await.0, status, "{body}");
    }
    service.stop().await;
    // The project is kept, and so is how a session ended.
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    assert_eq!(found(&client, json!({"project_ids": ["p"]})).await.len(), 3);
    assert_eq!(found(&client, finished("errored")).await, [third.as_str()]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_with_a_lost_run_has_failed() {
    let dir = tempfile::tempdir().unwrap();
    let config = retinker_local::LocalConfig {
        session_timeout: std::time::Duration::from_millis(500),
        ..retinker_local::LocalConfig::new(dir.path())
    };
    let service = retinker_local::LocalService::start(config).await.unwrap();
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let mut run = client.run(&session, 0).await;
    run.train(0).await;
    let status = common::eventually("the session fails", async || {
        let answer = client.ok("sessions/search", json!({"statuses": [{"type": "failed"}]})).await;
        answer["sessions"].get(0).map(|session| session["status"].clone())
    })
    .await;
    assert_eq!(status["category"], "internal", "{status}");
    assert_eq!(status["reason"], json!({"type": "training_run", "training_run_id": run.id}));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_listed_by_project_and_move_with_their_session() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let (here, there) = (named(&client, "a", None, "x").await, named(&client, "b", Some("p"), "x").await);
    // By turns, so that the order is that of creation and not of sessions.
    let mut runs = Vec::new();
    for number in 0..2 {
        for session in [&here, &there] {
            runs.push(client.run(session, number).await.id);
        }
    }
    let listed = async |client: &Client, project: &str, offset: usize| {
        let path = format!("training_runs?project_id={project}&limit=10&offset={offset}");
        let (status, page) = client.get(&path).await;
        assert_eq!(status, 200, "{page}");
        let ids = page["training_runs"].as_array().unwrap().iter();
        let ids: Vec<String> = ids.map(|run| run["training_run_id"].as_str().unwrap().to_owned()).collect();
        (ids, page["cursor"]["total_count"].as_u64().unwrap())
    };
    let of = |places: &[usize]| places.iter().map(|place| runs[*place].clone()).collect::<Vec<_>>();
    assert_eq!(listed(&client, "local", 0).await, (of(&[2, 0]), 2));
    assert_eq!(listed(&client, "p", 1).await, (of(&[1]), 2));
    assert_eq!(listed(&client, "nobody", 0).await, (vec![], 0));
    client.ok_put(&format!("sessions/{here}/project"), json!({"project_id": "p"})).await;
    assert_eq!(listed(&client, "p", 0).await, (of(&[3, 2, 1, 0]), 4));
    assert_eq!(listed(&client, "local", 0).await, (vec![], 0));
    service.stop().await;
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    assert_eq!(listed(&client, "p", 2).await, (of(&[1, 0]), 4));
    service.stop().await;
}
