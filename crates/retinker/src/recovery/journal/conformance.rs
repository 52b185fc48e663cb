//! What every store must do, as tests that its crate calls with a fresh store each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use retinker_wire::run::{Checkpoint, CheckpointType};
use retinker_wire::time::Time;

use serde_json::json;

use super::{Begun, Document, Put, Store, StoreError};
use crate::recovery::plan::{LostWork, RestorePlan, SCHEMA_VERSION};
use crate::recovery::restore::{RestoreRecord, RestoreState};

const LONG: Duration = Duration::from_secs(3600);

/// A record of a restore of this run that nothing has been done for yet.
pub fn record(id: &str, old_run: &str) -> RestoreRecord {
    let time = Time::from_millis(1_000);
    let plan = RestorePlan {
        schema: SCHEMA_VERSION,
        id: String::new(),
        run_id: old_run.to_owned(),
        observed: None,
        made_at: time,
        checkpoint: Checkpoint {
            checkpoint_id: "weights/a".into(),
            checkpoint_type: CheckpointType::Training,
            time,
            tinker_path: format!("tinker://{old_run}/weights/a"),
            size_bytes: Some(3),
            public: false,
            user_metadata: None,
            expires_at: None,
        },
        why: "It is the newest.".into(),
        optimizer: true,
        check_optimizer: false,
        base_model: "base".into(),
        lora_rank: Some(8),
        root_run_id: old_run.to_owned(),
        generation: 1,
        user_metadata: [("name".to_owned(), "näme \"q\"".to_owned())].into(),
        lost: LostWork { seconds: 0, steps: None, summary: "Nothing.".into() },
        last_save: Some(time),
        checks: Vec::new(),
        rejected: Vec::new(),
    };
    RestoreRecord::planned(id.to_owned(), plan.sealed(), time, "Asked for.".to_owned())
}

async fn write(store: &dyn Store, record: RestoreRecord) {
    let lease = store.acquire_lease(&record.id, "writer", LONG).await.unwrap().expect("nobody else holds it");
    store.append(&lease, record).await.unwrap();
    store.release(&lease).await.unwrap();
}

/// Runs everything; `fresh` gives an empty store each time.
pub async fn all(fresh: impl AsyncFn() -> Arc<dyn Store>) {
    one_restore_holds_a_run(&*fresh().await).await;
    a_failed_restore_lets_the_run_go(&*fresh().await).await;
    records_come_back_as_written(&*fresh().await).await;
    leases_exclude_and_fence(&*fresh().await).await;
    a_lease_that_is_over_is_refused(&*fresh().await).await;
    lookups_and_their_order(&*fresh().await).await;
    newer_records_are_refused(&*fresh().await).await;
    unknown_ids(&*fresh().await).await;
    the_first_service_is_the_only_one(&*fresh().await).await;
    of_several_writers_of_a_document_one_writes(&*fresh().await).await;
    the_revision_grows_with_what_is_written(&*fresh().await).await;
}

/// Of many that begin at once, one is written.
pub async fn one_restore_holds_a_run(store: &dyn Store) {
    let begun = join_all((0..16).map(|n| store.begin(record(&format!("r{n}"), "old")))).await;
    let begun: Vec<Begun> = begun.into_iter().map(Result::unwrap).collect();
    let new: Vec<_> = begun.iter().filter(|b| matches!(b, Begun::New(_))).collect();
    assert_eq!(new.len(), 1, "exactly one restore is written");
    let Begun::New(winner) = new[0] else { unreachable!() };
    for other in &begun {
        let (Begun::New(record) | Begun::Existing(record)) = other;
        assert_eq!(record, winner, "everybody is given the same restore");
    }
    assert_eq!(store.list().await.unwrap().len(), 1);
    assert!(matches!(store.begin(record("x", "another run")).await.unwrap(), Begun::New(_)));
}

/// After a failure the run can be restored anew; after a success it cannot.
pub async fn a_failed_restore_lets_the_run_go(store: &dyn Store) {
    store.begin(record("r1", "old")).await.unwrap();
    write(store, RestoreRecord { state: RestoreState::Failed, ..record("r1", "old") }).await;
    assert!(matches!(store.begin(record("r2", "old")).await.unwrap(), Begun::New(_)));
    for state in [RestoreState::Loading, RestoreState::Adopted, RestoreState::HandedOver] {
        write(store, RestoreRecord { state, ..record("r2", "old") }).await;
        let Begun::Existing(found) = store.begin(record("r3", "old")).await.unwrap() else {
            panic!("{state:?} does not hold the run")
        };
        assert_eq!((found.id.as_str(), found.state), ("r2", state));
    }
}

/// A record is read as it was written, and replaced as a whole.
pub async fn records_come_back_as_written(store: &dyn Store) {
    let mut expected = record("r", "old");
    store.begin(expected.clone()).await.unwrap();
    assert_eq!(store.get("r").await.unwrap().as_ref(), Some(&expected));
    expected.state = RestoreState::Loading;
    expected.session_id = Some("s".into());
    expected.model_seq_id = Some(0);
    write(store, expected.clone()).await;
    assert_eq!(store.get("r").await.unwrap().as_ref(), Some(&expected));
    assert!(expected.plan.verify_id());
}

/// One holder at a time; the next one's fence is higher, and the former is refused.
pub async fn leases_exclude_and_fence(store: &dyn Store) {
    store.begin(record("r", "old")).await.unwrap();
    let first = store.acquire_lease("r", "a", LONG).await.unwrap().expect("free");
    assert_eq!(store.acquire_lease("r", "b", LONG).await.unwrap(), None, "held by another");
    assert_eq!(
        store.acquire_lease("r", "a", LONG).await.unwrap().as_ref(),
        Some(&first),
        "extended, not new"
    );
    store.release(&first).await.unwrap();
    let second = store.acquire_lease("r", "b", LONG).await.unwrap().expect("released");
    assert!(second.fence > first.fence);
    let refused = store.append(&first, record("r", "old")).await;
    assert_eq!(refused, Err(StoreError::LeaseLost("r".into())));
    store.release(&first).await.unwrap();
    assert_eq!(store.acquire_lease("r", "c", LONG).await.unwrap(), None, "a lost lease releases nothing");
    store.append(&second, record("r", "old")).await.unwrap();
}

/// A lease ends by the store's own clock, even when nobody has taken it.
pub async fn a_lease_that_is_over_is_refused(store: &dyn Store) {
    store.begin(record("r", "old")).await.unwrap();
    let over = store.acquire_lease("r", "a", Duration::ZERO).await.unwrap().expect("free");
    assert_eq!(store.append(&over, record("r", "old")).await, Err(StoreError::LeaseLost("r".into())));
    let next = store.acquire_lease("r", "b", LONG).await.unwrap().expect("the former is over");
    assert!(next.fence > over.fence);
    assert_eq!(store.append(&over, record("r", "old")).await, Err(StoreError::LeaseLost("r".into())));
}

/// Every way to find a restore, each in its order.
pub async fn lookups_and_their_order(store: &dyn Store) {
    let ids = |found: Vec<RestoreRecord>| found.into_iter().map(|r| r.id).collect::<Vec<_>>();
    store.begin(record("r2", "one")).await.unwrap();
    write(store, RestoreRecord { state: RestoreState::Failed, ..record("r2", "one") }).await;
    store.begin(record("r1", "one")).await.unwrap();
    store.begin(record("r3", "two")).await.unwrap();
    let adopted =
        RestoreRecord { state: RestoreState::Adopted, new_run_id: Some("new".into()), ..record("r3", "two") };
    write(store, adopted).await;
    store.begin(record("r0", "three")).await.unwrap();
    assert_eq!(ids(store.list().await.unwrap()), ["r0", "r3", "r1", "r2"], "newest first");
    assert_eq!(ids(store.by_old_run("one").await.unwrap()), ["r1", "r2"], "newest first");
    assert_eq!(store.by_new_run("new").await.unwrap().map(|r| r.id), Some("r3".into()));
    assert_eq!(store.by_new_run("one").await.unwrap(), None);
    assert_eq!(ids(store.unfinished().await.unwrap()), ["r1", "r0"], "oldest first");
}

/// What a newer version wrote is refused, not guessed at.
pub async fn newer_records_are_refused(store: &dyn Store) {
    let mut newer = record("r", "old");
    newer.plan.schema = SCHEMA_VERSION + 1;
    let refused = store.begin(newer).await;
    assert_eq!(refused, Err(StoreError::Newer { found: SCHEMA_VERSION + 1, known: SCHEMA_VERSION }));
    assert_eq!(store.list().await.unwrap(), []);
}

/// A journal belongs to the service that it was first opened for.
pub async fn the_first_service_is_the_only_one(store: &dyn Store) {
    store.bind("http://one").await.unwrap();
    store.bind("http://one").await.unwrap();
    let refused = StoreError::OtherService { bound: "http://one".into(), asked: "local".into() };
    assert_eq!(store.bind("local").await, Err(refused));
    store.bind("http://one").await.unwrap();
}

fn document(key: &str, version: u64, body: &str) -> Document {
    Document { kind: "kind".into(), key: key.into(), version, body: json!({ "said": body }) }
}

/// Who has not read the newest version of a document does not write over it.
pub async fn of_several_writers_of_a_document_one_writes(store: &dyn Store) {
    let puts = join_all((0..8).map(|n| store.put(document("a", 0, &format!("{n}"))))).await;
    let puts: Vec<Put> = puts.into_iter().map(Result::unwrap).collect();
    let written: Vec<_> = puts.iter().filter(|put| matches!(put, Put::Written(_))).collect();
    assert_eq!(written.len(), 1);
    let Put::Written(first) = written[0] else { unreachable!() };
    assert_eq!(first.version, 1);
    assert!(
        puts.iter().all(|put| matches!(put, Put::Written(found) | Put::Changed(found) if found == first))
    );
    let Put::Written(second) = store.put(document("a", 1, "second")).await.unwrap() else {
        panic!("refused")
    };
    assert_eq!(
        (second.version, store.put(document("a", 1, "late")).await.unwrap()),
        (2, Put::Changed(second.clone()))
    );
    assert!(
        matches!(store.put(document("b", 3, "never there")).await.unwrap(), Put::Changed(d) if d.version == 0)
    );
    for key in ["b", "B"] {
        assert!(matches!(store.put(document(key, 0, "new")).await.unwrap(), Put::Written(_)));
    }
    assert_eq!(store.document("kind", "a").await.unwrap(), Some(second.clone()));
    assert_eq!(store.document("other", "a").await.unwrap(), None);
    let keys: Vec<_> = store.documents("kind").await.unwrap().into_iter().map(|d| d.key).collect();
    assert_eq!(keys, ["B", "a", "b"], "by the bytes of the key");
    assert_eq!(store.documents("other").await.unwrap(), []);
}

/// What is written is seen in the revision; leases and refusals are not.
pub async fn the_revision_grows_with_what_is_written(store: &dyn Store) {
    let mut last = store.revision().await.unwrap();
    let mut grew = async |written: bool, what: &str| {
        let now = store.revision().await.unwrap();
        assert_eq!(now > last, written, "{what}: {last} to {now}");
        last = now;
    };
    store.begin(record("r", "old")).await.unwrap();
    grew(true, "begin").await;
    store.begin(record("other", "old")).await.unwrap();
    grew(false, "a run that is held").await;
    let lease = store.acquire_lease("r", "a", LONG).await.unwrap().expect("free");
    grew(false, "a lease").await;
    store.append(&lease, record("r", "old")).await.unwrap();
    grew(true, "append").await;
    store.put(document("a", 0, "x")).await.unwrap();
    grew(true, "a document").await;
    store.put(document("a", 0, "y")).await.unwrap();
    grew(false, "a document that is refused").await;
    store.put(document("a", 1, "y")).await.unwrap();
    grew(true, "a document anew").await;
}

/// A restore that is not there.
pub async fn unknown_ids(store: &dyn Store) {
    assert_eq!(store.get("none").await.unwrap(), None);
    assert_eq!(store.by_old_run("none").await.unwrap(), []);
    let refused = store.acquire_lease("none", "a", LONG).await;
    assert_eq!(refused, Err(StoreError::NotFound("none".into())));
}
