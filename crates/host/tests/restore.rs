//! A restore through the host API, from the list to the hand-over.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{FakeService, KEY, client, config, connection, refused, start, until};
use futures_util::StreamExt;
use futures_util::future::join_all;
use retinker::host::api::{HostEvent, PlanAnswer, RunsQuery};
use retinker::recovery::health::Health;
use retinker::recovery::plan::{NoPlan, PlanRequest, RestorePlan};
use retinker::recovery::restore::RestoreState;
use retinker_host::{Host, HostConfig, Location};
use retinker_store::testing::{PASSWORD, Postgres};

async fn plan_of(host: &retinker::host::HostClient) -> RestorePlan {
    match host.plan(&PlanRequest::new("old")).await.unwrap() {
        PlanAnswer::Plan(plan) => *plan,
        PlanAnswer::None(none) => panic!("{none:?}"),
    }
}

#[tokio::test]
async fn from_the_list_to_the_hand_over() {
    let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    let running = start(&service, dir.path()).await;
    let host = client(&running);
    let window = until("a list with verdicts", async || {
        let window = host.runs(&RunsQuery::default()).await.unwrap();
        // Checkpoints of lost runs are read after the list: until then nobody knows that one has none.
        (window.total == 3 && window.counts.unrecoverable == 1).then_some(window)
    })
    .await;
    let health = |id: &str| window.rows.iter().find(|r| r.run.training_run_id == id).unwrap().verdict.health;
    assert_eq!(
        (health("old"), health("lost"), health("fine")),
        (Health::Poisoned, Health::Unrecoverable, Health::Healthy)
    );
    assert_eq!(window.rows[0].name, "mine", "worst first");

    let lost = host.run("lost").await.unwrap();
    assert!(lost.no_restore_because.unwrap().contains("no checkpoint"));
    assert!(matches!(
        host.plan(&PlanRequest::new("lost")).await.unwrap(),
        PlanAnswer::None(NoPlan::NoCheckpoint { .. })
    ));
    assert!(matches!(
        host.plan(&PlanRequest::new("fine")).await.unwrap(),
        PlanAnswer::None(NoPlan::NotPoisoned { .. })
    ));
    assert_eq!(host.plan(&PlanRequest::new("none")).await.unwrap_err().problem.code, "run_not_found");

    let mut events = host.events().await.unwrap();
    assert!(matches!(events.next().await.unwrap().unwrap(), HostEvent::Status { .. }));
    let detail = host.run("old").await.unwrap();
    assert_eq!((detail.no_restore_because, detail.checkpoints.len()), (None, 1));
    assert!(detail.snippets[0].code.contains("create_training_client_from_state_with_optimizer"));

    let plan = plan_of(&host).await;
    service.state().hold_loads = true;
    // Several clicks and tabs at once: one restore.
    let started = join_all((0..5).map(|_| host.start_restore(&plan))).await;
    let started: Vec<_> = started.into_iter().map(Result::unwrap).collect();
    assert_eq!(started.iter().filter(|s| !s.already).count(), 1);
    let id = started[0].restore.id.clone();
    assert!(started.iter().all(|s| s.restore.id == id));
    // Who confirmed something else is not told that it is being done.
    let mut other = plan.clone();
    other.optimizer = false;
    let refused = host.start_restore(&other.sealed()).await.unwrap_err();
    assert_eq!((refused.status, refused.problem.code.as_str()), (Some(409), "another_plan"));
    assert!(refused.problem.message.contains("with optimizer state"), "{}", refused.problem.message);
    let answer = host.plan(&PlanRequest::new("old")).await.unwrap();
    assert!(
        matches!(answer, PlanAnswer::None(NoPlan::AlreadyRestored { restore_id, .. }) if restore_id == id)
    );
    service.state().hold_loads = false;

    let mut states = Vec::new();
    while states.last() != Some(&RestoreState::Adopted) {
        if let HostEvent::Restore { restore } = events.next().await.unwrap().unwrap() {
            assert_eq!(restore.id, id);
            states.push(restore.state);
        }
    }
    use RestoreState::*;
    assert_eq!(states, [Planned, OpeningSession, Loading, Checking, Adopted]);
    let made = {
        let state = service.state();
        (state.sessions, state.loads)
    };
    assert_eq!(made, (1, 1));

    let new = host.run("s1:train:0").await.unwrap();
    assert_eq!(new.row.restored_from.as_deref(), Some("old"));
    assert_eq!(new.own_metadata.into_iter().collect::<Vec<_>>(), [("name".to_owned(), "mine".to_owned())]);
    assert!(new.snippets[0].code.contains(r#""s1", "s1:train:0", 1)"#), "{}", new.snippets[0].code);
    let chain: Vec<_> =
        new.lineage.iter().map(|e| (e.run_id.as_str(), e.generation, e.restore_id.as_deref())).collect();
    assert_eq!(chain, [("old", 0, None), ("s1:train:0", 1, Some(id.as_str()))]);
    let old = host.run("old").await.unwrap();
    assert_eq!(
        (old.row.verdict.health, old.row.restored_to.as_deref()),
        (Health::Recovered, Some("s1:train:0"))
    );

    assert_eq!(new.row.verdict.health, Health::AtRisk);
    assert!(new.row.verdict.reason.contains("no checkpoint of its own yet"), "{}", new.row.verdict.reason);
    assert_eq!(new.taken_over_at, None);

    let handed = host.hand_over(&id).await.unwrap();
    assert!(handed.snippets[0].code.contains(r#""s1", "s1:train:0", 1)"#), "{}", handed.snippets[0].code);
    assert_eq!(handed.attachment.model_id, "s1:train:0");
    assert_eq!(handed.base_url, service.base_url());
    let record = host.restore(&id).await.unwrap();
    assert_eq!(record.state, HandedOver);
    assert_eq!(handed.heartbeats_until.as_millis() - record.updated_at.as_millis(), 120_000);

    // Its taker has used the number up: nobody is told to attach with it again.
    service.state().made_asked_at = Some("2026-01-01T00:03:23Z".into());
    let taken = host.run("s1:train:0").await.unwrap();
    assert_eq!(taken.taken_over_at.map(|at| at.to_string()).as_deref(), Some("2026-01-01T00:03:23Z"));
    let again = host.hand_over(&id).await.unwrap();
    for snippets in [&taken.snippets, &again.snippets] {
        assert!(snippets[0].code.contains("from_state_with_optimizer"), "{}", snippets[0].code);
    }

    // Another start of the host knows it all.
    drop(events);
    running.stop().await;
    let running = start(&service, dir.path()).await;
    let host = client(&running);
    let again = host.start_restore(&plan).await.unwrap();
    assert!(again.already && again.restore == record);
    assert_eq!(host.restores().await.unwrap().restores, [record]);
    assert_eq!(service.state().loads, 1);
    running.stop().await;
}

#[tokio::test]
async fn a_restore_that_a_stop_cut_off_is_gone_on_with() {
    let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    let running = start(&service, dir.path()).await;
    let host = client(&running);
    service.state().hold_loads = true;
    let started = host.start_restore(&plan_of(&host).await).await.unwrap();
    until("the load", async || (service.state().loads == 1).then_some(())).await;
    running.stop().await;
    service.state().hold_loads = false;
    let running = start(&service, dir.path()).await;
    let host = client(&running);
    let done = until("adoption", async || {
        let record = host.restore(&started.restore.id).await.unwrap();
        record.state.is_settled().then_some(record)
    })
    .await;
    assert_eq!(done.state, RestoreState::Adopted);
    assert_eq!(done.attachment.unwrap().model_id, "s1:train:0", "the identity of before");
    assert_eq!(service.state().sessions, 1);
    running.stop().await;
}

#[tokio::test]
async fn a_restore_under_way_is_cancelled_and_the_run_can_be_restored_again() {
    let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    let running = start(&service, dir.path()).await;
    let host = client(&running);
    service.state().hold_loads = true;
    let plan = plan_of(&host).await;
    let started = host.start_restore(&plan).await.unwrap();
    let id = started.restore.id.as_str();
    until("the load", async || (service.state().loads == 1).then_some(())).await;
    let cancelled = host.cancel_restore(id).await.unwrap();
    assert_eq!((cancelled.state, cancelled.new_run_id.as_deref()), (RestoreState::Cancelled, None));
    assert_eq!(host.restore(id).await.unwrap(), cancelled);
    assert_eq!(host.cancel_restore(id).await.unwrap(), cancelled, "a second time");
    let detail = host.run("old").await.unwrap();
    assert_eq!((detail.row.verdict.health, &detail.no_restore_because), (Health::Poisoned, &None));

    service.state().hold_loads = false;
    let again = host.start_restore(&plan_of(&host).await).await.unwrap();
    assert!(!again.already && again.restore.id != id);
    until("adoption", async || {
        (host.restore(&again.restore.id).await.unwrap().state == RestoreState::Adopted).then_some(())
    })
    .await;
    let late = host.cancel_restore(&again.restore.id).await.unwrap_err();
    assert_eq!((late.status, late.problem.code.as_str()), (Some(409), "nothing_to_cancel"));
    assert_eq!(host.cancel_restore("none").await.unwrap_err().status, Some(404));
    running.stop().await;
}

#[tokio::test]
async fn a_run_whose_checkpoints_cannot_be_read_is_not_called_lost() {
    let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    service.state().unlisted = vec!["old".into()];
    let running = start(&service, dir.path()).await;
    let host = client(&running);
    // Once the other corrupted run is judged, this one has been asked about as well.
    let window = until("verdicts", async || {
        let window = host.runs(&RunsQuery::default()).await.unwrap();
        (window.counts.unrecoverable == 1).then_some(window)
    })
    .await;
    assert_eq!(window.counts.poisoned, 1);
    let detail = host.run("old").await.unwrap();
    assert_eq!(detail.row.verdict.health, Health::Poisoned);
    assert!(detail.row.verdict.reason.contains("could not be read yet"), "{}", detail.row.verdict.reason);
    assert!(detail.checkpoints_problem.is_some());
    assert_eq!(detail.no_restore_because, None, "a restore is offered");
    let error = host.plan(&PlanRequest::new("old")).await.unwrap_err();
    assert!(error.problem.message.contains("not now"), "planning tells why: {}", error.problem.message);
    running.stop().await;
}

#[tokio::test]
async fn a_plan_that_is_altered_or_outdated_is_refused() {
    let (service, dir) = (FakeService::start().await, tempfile::tempdir().unwrap());
    let running = start(&service, dir.path()).await;
    let host = client(&running);
    let plan = plan_of(&host).await;
    let altered = RestorePlan { optimizer: false, ..plan.clone() };
    let error = host.start_restore(&altered).await.unwrap_err();
    assert_eq!((error.status, error.problem.code.as_str()), (Some(400), "plan_altered"));
    let mut gone = plan;
    gone.checkpoint.tinker_path = "tinker://old/weights/deleted".into();
    let error = host.start_restore(&gone.sealed()).await.unwrap_err();
    assert_eq!((error.status, error.problem.code.as_str()), (Some(409), "plan_changed"));
    assert!(error.to_string().contains("Make a new plan"), "{error}");
    assert_eq!(service.state().sessions, 0);
    running.stop().await;
}

#[tokio::test]
async fn two_hosts_on_one_journal_restore_once_and_both_see_it() {
    let dir = tempfile::tempdir().unwrap();
    two_hosts_restore_once(Location::Directory(dir.path().to_owned())).await;
}

#[tokio::test]
async fn two_hosts_on_one_postgresql_do_as_well() {
    let server = Postgres::shared();
    let journal = Location::Database(server.database().await.into());
    two_hosts_restore_once(journal.clone()).await;

    let other = FakeService::start().await;
    let mut elsewhere = config(other.base_url(), server.dir());
    elsewhere.connections[0].journal = journal;
    let text = refused(elsewhere).await.to_string();
    for part in [&other.base_url(), &format!("127.0.0.1:{}", server.port()), "--journal"] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert!(!text.contains(PASSWORD), "{text}");
}

async fn two_hosts_restore_once(journal: Location) {
    let service = FakeService::start().await;
    let config = || HostConfig {
        connections: vec![connection("fake", service.base_url(), KEY, journal.clone())],
        ..config(service.base_url(), "".as_ref())
    };
    let (first, second) = (Host::start(config()).await.unwrap(), Host::start(config()).await.unwrap());
    let hosts = [client(&first), client(&second)];
    let plan = plan_of(&hosts[0]).await;
    let started = join_all(hosts.iter().map(|host| host.start_restore(&plan))).await;
    let started: Vec<_> = started.into_iter().map(Result::unwrap).collect();
    assert_eq!(started.iter().filter(|s| !s.already).count(), 1, "{started:?}");
    assert_eq!(started[0].restore.id, started[1].restore.id);
    for host in &hosts {
        let row = until("the run has a successor, whichever host made it", async || {
            // Whoever looks asks for a new reading.
            let _events = host.events().await.unwrap();
            let window = host.runs(&RunsQuery::default()).await.unwrap();
            let row = window.rows.into_iter().find(|row| row.run.training_run_id == "old").unwrap();
            row.restored_to.is_some().then_some(row)
        })
        .await;
        assert_eq!(row.verdict.health, Health::Recovered);
    }
}
