use std::collections::BTreeMap;

use futures::future::join_all;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use retinker::recovery::journal::conformance::{self, record};
use retinker::recovery::plan::SCHEMA_VERSION;
use retinker::recovery::restore::RestoreState;
use serde_json::json;

use super::*;
use crate::testing::{Certificate, PASSWORD, Postgres, USER, sql};

const HOUR: Duration = Duration::from_secs(3600);

async fn open(url: &str) -> Result<PostgresStore, StoreError> {
    PostgresStore::open(&Secret::new(url)).await
}

async fn refusal(url: &str) -> String {
    let error = open(url).await.map(|_| ()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains(PASSWORD), "{error:?}");
    error.to_string()
}

fn loading(id: &str, run: &str) -> RestoreRecord {
    RestoreRecord { state: RestoreState::Loading, ..record(id, run) }
}

fn document(key: &str, version: u64) -> Document {
    Document { kind: "kind".into(), key: key.into(), version, body: json!(version) }
}

#[tokio::test]
async fn keeps_every_promise_of_a_store() {
    let server = Postgres::shared();
    conformance::all(async || Arc::new(open(&server.database().await).await.unwrap()) as Arc<dyn Store>)
        .await;
}

#[tokio::test]
async fn survives_being_closed_and_keeps_leases() {
    let server = Postgres::shared();
    let url = server.database().await;
    let store = open(&url).await.unwrap();
    store.begin(record("r", "old")).await.unwrap();
    let lease = store.acquire_lease("r", "a", HOUR).await.unwrap().unwrap();
    store.append(&lease, loading("r", "old")).await.unwrap();
    store.bind("http://one").await.unwrap();
    drop(store);
    let store = open(&url).await.unwrap();
    assert!(store.bind("http://two").await.is_err());
    assert_eq!(store.unfinished().await.unwrap(), [loading("r", "old")]);
    // Another process may be there, so the lease stands; and whoever has it goes on with it.
    assert_eq!(store.acquire_lease("r", "b", HOUR).await.unwrap(), None);
    store.append(&lease, loading("r", "old")).await.unwrap();
}

#[tokio::test]
async fn a_lease_ends_by_the_servers_clock() {
    let server = Postgres::shared();
    let url = server.database().await;
    let store = open(&url).await.unwrap();
    store.begin(record("r", "old")).await.unwrap();
    let lease = store.acquire_lease("r", "a", Duration::MAX).await.unwrap().unwrap();
    sql(&url, "UPDATE retinker.restores SET until_at = clock_timestamp() + interval '1 hour'").await;
    assert_eq!(store.acquire_lease("r", "b", HOUR).await.unwrap(), None);
    sql(&url, "UPDATE retinker.restores SET until_at = clock_timestamp() - interval '1 microsecond'").await;
    assert_eq!(store.append(&lease, loading("r", "old")).await, Err(StoreError::LeaseLost("r".into())));
    let next = store.acquire_lease("r", "b", HOUR).await.unwrap().expect("it is over");
    assert!(next.fence > lease.fence);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_open_it_and_race_for_a_lease_one_wins() {
    let server = Postgres::shared();
    let url = server.database().await;
    let stores: Vec<_> = join_all((0..8).map(|_| open(&url))).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(sql(&url, "SELECT version FROM retinker.journal").await, [SCHEMA_VERSION.to_string()]);
    stores[0].begin(record("r", "old")).await.unwrap();
    let mut fence = 0;
    for _ in 0..20 {
        let race =
            stores.iter().enumerate().map(|(n, store)| store.acquire_lease("r", &format!("{n}"), HOUR));
        let won: Vec<_> = join_all(race).await.into_iter().filter_map(Result::unwrap).collect();
        assert_eq!(won.len(), 1, "{won:?}");
        assert_eq!(won[0].fence, fence + 1);
        fence = won[0].fence;
        stores[0].release(&won[0]).await.unwrap();
    }
}

/// Follows a journal as a host does: reads it again only when its revision has grown.
async fn follow(store: PostgresStore, until: usize) -> BTreeMap<String, u64> {
    let (mut seen, mut known) = (None, BTreeMap::new());
    loop {
        let revision = store.revision().await.unwrap();
        if seen == Some(revision) {
            continue;
        }
        assert!(seen < Some(revision), "it went back from {seen:?} to {revision}");
        seen = Some(revision);
        let documents = store.documents("kind").await.unwrap();
        let found: BTreeMap<_, _> = documents.into_iter().map(|d| (d.key, d.version)).collect();
        // What was written up to a revision is there for whoever has seen it.
        assert!(
            found.values().sum::<u64>() >= revision,
            "{revision} changes, but only {found:?} can be seen"
        );
        assert!(known.iter().all(|(key, version)| found.get(key) >= Some(version)));
        known = found;
        if revision == until as u64 {
            return known;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn followers_miss_nothing_that_several_write_at_once() {
    const WRITERS: usize = 4;
    const CHANGES: usize = 25;
    let server = Postgres::shared();
    let url = server.database().await;
    let followers: Vec<_> =
        join_all((0..2).map(|_| open(&url))).await.into_iter().map(Result::unwrap).collect();
    let followers: Vec<_> =
        followers.into_iter().map(|store| tokio::spawn(follow(store, WRITERS * CHANGES))).collect();
    let writers = (0..WRITERS).map(|writer| {
        let url = url.clone();
        tokio::spawn(async move {
            let store = open(&url).await.unwrap();
            for version in 0..CHANGES as u64 {
                let put = store.put(document(&writer.to_string(), version)).await.unwrap();
                assert!(matches!(put, Put::Written(_)), "{put:?}");
                // One that is refused counts nothing.
                assert!(matches!(store.put(document("0", 99)).await.unwrap(), Put::Changed(_)));
            }
        })
    });
    for writer in join_all(writers).await {
        writer.unwrap();
    }
    let expected: BTreeMap<_, _> = (0..WRITERS).map(|w| (w.to_string(), CHANGES as u64)).collect();
    for follower in followers {
        assert_eq!(follower.await.unwrap(), expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_is_gone_on_with() {
    let server = Postgres::start(None);
    let store = open(&server.database().await).await.unwrap();
    store.begin(record("r", "old")).await.unwrap();
    let lease = store.acquire_lease("r", "a", HOUR).await.unwrap().unwrap();
    server.restart();
    store.append(&lease, loading("r", "old")).await.unwrap();
    assert_eq!(store.get("r").await.unwrap(), Some(loading("r", "old")));
    server.stop();
    let error = store.revision().await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("127.0.0.1:{}", server.port())) && error.contains("--journal"),
        "{error}"
    );
    server.restart();
    assert!(matches!(store.begin(record("s", "another")).await.unwrap(), Begun::New(_)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_lost_connection_cut_off_is_done_again() {
    let server = Postgres::shared();
    let url = server.database().await;
    let store = open(&url).await.unwrap();
    let (mut other, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    // Another process is writing: the store waits for it, in the midst of its own change.
    let held = write(&mut other).await.unwrap();
    let begun = tokio::spawn(store.begin(record("r", "old")));
    let waiting = "SELECT pid FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'retinker' AND wait_event_type = 'Lock'";
    while sql(&url, waiting).await.is_empty() {}
    sql(&url, &waiting.replace("SELECT pid", "SELECT pg_terminate_backend(pid)")).await;
    // Cut off before its commit, it is asked anew, on a new connection.
    held.rollback().await.unwrap();
    assert!(matches!(begun.await.unwrap().unwrap(), Begun::New(_)));
    assert_eq!(store.revision().await.unwrap(), 1);
}

#[tokio::test]
async fn what_broke_off_at_the_commit_can_be_asked_again() {
    let server = Postgres::shared();
    let url = server.database().await;
    let store = open(&url).await.unwrap();
    store.bind("http://one").await.unwrap();
    // A commit that ends its own connection before it is done.
    sql(
        &url,
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER die AFTER INSERT ON retinker.restores
             DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()",
    )
    .await;
    let error = store.begin(record("r", "old")).await.unwrap_err().to_string();
    assert!(error.contains("not known") && error.contains("Ask again"), "{error}");
    sql(&url, "DROP TRIGGER die ON retinker.restores").await;
    assert!(matches!(store.begin(record("r", "old")).await.unwrap(), Begun::New(_)));
    // Had the first one been written after all, it is given back.
    let again = store.begin(record("r", "old")).await.unwrap();
    assert_eq!(again, Begun::Existing(record("r", "old")));
}

#[tokio::test]
async fn a_newer_journal_is_refused_and_left_alone() {
    let server = Postgres::shared();
    let url = server.database().await;
    let store = open(&url).await.unwrap();
    sql(&url, "UPDATE retinker.journal SET version = 99").await;
    let newer = StoreError::Newer { found: 99, known: SCHEMA_VERSION };
    assert_eq!(open(&url).await.map(|_| ()), Err(newer.clone()));
    // Even by one that was there before the newer program came.
    assert_eq!(store.begin(record("r", "old")).await, Err(newer));
    assert_eq!(sql(&url, "SELECT version, revision FROM retinker.journal").await, ["99"]);
    assert_eq!(store.list().await.unwrap(), []);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_named() {
    let server = Postgres::shared();
    let url = server.database().await;
    let store = open(&url).await.unwrap();
    store.begin(record("r", "old")).await.unwrap();
    sql(&url, r#"UPDATE retinker.restores SET record = '{"plan":{}}'"#).await;
    let error = store.list().await.unwrap_err();
    assert!(matches!(&error, StoreError::Damaged { id, .. } if id == "r"), "{error}");
}

#[tokio::test]
async fn a_user_who_may_not_make_schemas_uses_one_that_is_there() {
    let server = Postgres::shared();
    let url = server.database().await;
    let user = format!("plain_{}", url.rsplit('_').next().unwrap());
    let made = format!("CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'");
    sql(&url, &made).await;
    let plain = url.replace(&format!("{USER}:"), &format!("{user}:"));
    let refused = refusal(&plain).await;
    assert!(refused.contains("permission denied"), "{refused}");
    sql(&url, &format!("CREATE SCHEMA retinker AUTHORIZATION {user}")).await;
    let store = open(&plain).await.unwrap();
    assert!(matches!(store.begin(record("r", "old")).await.unwrap(), Begun::New(_)));
}

#[tokio::test]
async fn what_cannot_be_reached_is_named_without_the_password() {
    let server = Postgres::shared();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nobody = format!("postgres://{USER}:{PASSWORD}@127.0.0.1:{free}/journal");
    let missing = server.url("no_such_database");
    let wrong = server.url("postgres").replace(PASSWORD, "wrong");
    let place = format!("127.0.0.1:{}", server.port());
    for (url, place, said) in [
        (nobody, format!("the database journal of PostgreSQL at 127.0.0.1:{free}"), "refused"),
        (missing, place.clone(), "no_such_database"),
        (wrong, place, "password authentication failed"),
    ] {
        let error = refusal(&url).await;
        for part in [place.as_str(), said, "--journal"] {
            assert!(error.contains(part), "{part} in {error}");
        }
    }
    let store = open(&server.database().await).await.unwrap();
    assert!(!format!("{store:?}").contains(PASSWORD));
}

#[tokio::test]
async fn tls_is_used_and_its_certificate_checked() {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let (key, server_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root = authority.self_signed(&key).unwrap();
    let names = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let certificate = names.signed_by(&server_key, &Issuer::from_params(&authority, &key)).unwrap();
    let tls = Certificate { certificate: certificate.pem(), key: server_key.serialize_pem() };
    let server = Postgres::start(Some(&tls));
    let roots = server.dir().join("root.crt");
    std::fs::write(&roots, root.pem()).unwrap();

    let url = server.database().await;
    let named = url.replace("127.0.0.1", "localhost");
    let roots = format!("sslrootcert={}", roots.display());
    let store = open(&format!("{named}?sslmode=require&{roots}")).await.unwrap();
    let encrypted =
        "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'retinker'";
    assert_eq!(sql(&url, encrypted).await, ["t"]);
    assert!(matches!(store.begin(record("r", "old")).await.unwrap(), Begun::New(_)));

    let unknown = refusal(&format!("{named}?sslmode=require")).await;
    assert!(unknown.contains("certificate") && unknown.contains("sslrootcert"), "{unknown}");
    let other_name = refusal(&format!("{url}?sslmode=require&{roots}")).await;
    assert!(other_name.contains("not valid for name"), "{other_name}");

    let plain = Postgres::shared();
    let without = refusal(&format!("{}?sslmode=require", plain.database().await)).await;
    assert!(without.contains("does not support TLS") && without.contains("sslmode=disable"), "{without}");
}
