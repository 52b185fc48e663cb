//! The Rust client manages what is on the embedded service.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test that fails, panics.

use futures_util::StreamExt;
use retinker::client::{SaveForSamplerOptions, SaveOptions, ServiceClient, SessionOptions, TrainingOptions};
use retinker::wire::model::LoraConfig;
use retinker::wire::session::SessionSearchRequest;
use retinker_local::{LocalConfig, LocalService};

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_and_sessions_are_listed_shared_copied_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let service = LocalService::start(LocalConfig::new(dir.path())).await.unwrap();
    let api = retinker_tests::service::api(&service.base_url()).unwrap();
    let named =
        |name: &str| SessionOptions { display_name: Some(name.to_owned()), ..SessionOptions::default() };
    let owner = ServiceClient::with_options(api.clone(), named("the first"));
    let rest = owner.create_rest_client();
    let lora = LoraConfig { rank: 2, seed: Some(1), ..LoraConfig::default() };
    let run = owner
        .create_lora_training_client("retinker/nano-llama", lora, TrainingOptions::default())
        .await
        .unwrap();
    let state = run.save_state("a", SaveOptions::default()).await.unwrap().path;
    let weights =
        run.save_weights_for_sampler("b", SaveForSamplerOptions::default()).await.unwrap().path.unwrap();

    let listed = rest.list_user_checkpoints(100, 0).await.unwrap();
    let paths: Vec<&str> = listed.checkpoints.iter().map(|c| c.tinker_path.as_str()).collect();
    assert_eq!(paths, [&weights, &state]);
    assert_eq!(rest.list_user_checkpoints(1, 1).await.unwrap().checkpoints[0].tinker_path, state);

    let public = async || rest.list_checkpoints(&run.model_id()).await.unwrap().checkpoints[0].public;
    rest.publish_checkpoint_from_tinker_path(&weights).await.unwrap();
    assert!(public().await);
    rest.unpublish_checkpoint_from_tinker_path(&weights).await.unwrap();
    assert!(!public().await);

    let copy = rest.copy_weights(&weights, Some("shared"), None, None).await.unwrap();
    assert_ne!(copy, weights);
    let info = rest.get_weights_info_by_tinker_path(&copy).await.unwrap();
    assert_eq!((info.base_model.as_str(), info.lora_rank), ("retinker/nano-llama", Some(2)));
    rest.set_checkpoint_ttl_from_tinker_path(&copy, Some(3600)).await.unwrap();
    rest.delete_checkpoint_from_tinker_path(&copy).await.unwrap();
    assert_eq!(rest.delete_checkpoint_from_tinker_path(&copy).await.unwrap_err().status(), Some(404));

    let mut all = vec![owner.session_id().await.unwrap()];
    for _ in 0..4 {
        all.push(ServiceClient::with_options(api.clone(), named("another")).session_id().await.unwrap());
    }
    let request = SessionSearchRequest { limit: Some(2), ..SessionSearchRequest::default() };
    let found = |request: SessionSearchRequest| {
        let pages = rest.search_sessions(request).collect::<Vec<_>>();
        async {
            pages.await.into_iter().flat_map(|page| page.unwrap()).map(|s| s.session_id).collect::<Vec<_>>()
        }
    };
    let pages = found(request.clone()).await;
    // The copy has a session of its own.
    assert!(pages.len() == 6 && all.iter().all(|id| pages.contains(id)), "{pages:?}");
    let first = SessionSearchRequest { display_name: Some("FIRST".into()), ..request };
    assert_eq!(found(first).await, all[..1]);
    rest.assign_session_project(&all[0], "p").await.unwrap();
    let of_project = SessionSearchRequest { project_ids: Some(vec!["p".into()]), ..Default::default() };
    assert_eq!(found(of_project).await, all[..1]);
    service.stop().await;
}
