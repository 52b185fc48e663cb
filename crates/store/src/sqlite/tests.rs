use std::cell::RefCell;

use futures::executor::block_on;
use retinker::recovery::journal::conformance::{self, record};
use retinker::recovery::restore::RestoreState;

use super::*;

fn temp() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn keeps_every_promise_of_a_store() {
    let dirs = RefCell::new(Vec::new());
    block_on(conformance::all(async || {
        let dir = temp();
        let store = SqliteStore::open(dir.path()).unwrap();
        dirs.borrow_mut().push(dir);
        Arc::new(store) as Arc<dyn Store>
    }));
}

#[test]
fn survives_being_closed_and_voids_the_leases_of_before() {
    let dir = temp();
    let store = SqliteStore::open(dir.path()).unwrap();
    block_on(async {
        store.begin(record("r", "old")).await.unwrap();
        let hour = Duration::from_secs(3600);
        let lease = store.acquire_lease("r", "a", hour).await.unwrap().unwrap();
        let loading = RestoreRecord { state: RestoreState::Loading, ..record("r", "old") };
        store.append(&lease, loading.clone()).await.unwrap();
        store.bind("http://one").await.unwrap();
        drop(store);
        let store = SqliteStore::open(dir.path()).unwrap();
        assert!(store.bind("http://two").await.is_err());
        store.bind("http://one").await.unwrap();
        assert_eq!(store.unfinished().await.unwrap(), std::slice::from_ref(&loading));
        assert_eq!(store.append(&lease, loading).await, Err(StoreError::LeaseLost("r".into())));
        let next = store.acquire_lease("r", "b", hour).await.unwrap().expect("void after the restart");
        assert!(next.fence > lease.fence);
    });
}

#[test]
fn several_processes_share_a_journal_and_its_leases() {
    let dir = temp();
    let first = SqliteStore::open(dir.path()).unwrap();
    let hour = Duration::from_secs(3600);
    block_on(async {
        first.begin(record("r", "old")).await.unwrap();
        let held = first.acquire_lease("r", "a", hour).await.unwrap().unwrap();
        // Opening it a second time, as another process would: the lease stands.
        let second = SqliteStore::open(dir.path()).unwrap();
        assert!(
            matches!(second.begin(record("other", "old")).await.unwrap(), Begun::Existing(r) if r.id == "r")
        );
        assert_eq!(second.acquire_lease("r", "b", hour).await.unwrap(), None);
        let before = second.revision().await.unwrap();
        let loading = RestoreRecord { state: RestoreState::Loading, ..record("r", "old") };
        first.append(&held, loading.clone()).await.unwrap();
        assert!(second.revision().await.unwrap() > before);
        assert_eq!(second.get("r").await.unwrap(), Some(loading));
        drop(first);
        // One process is left: its next neighbour must not void what it holds.
        first_gone(&second, dir.path()).await;
    });
}

async fn first_gone(second: &SqliteStore, dir: &Path) {
    second.begin(record("s", "another")).await.unwrap();
    let hour = Duration::from_secs(3600);
    let held = second.acquire_lease("s", "b", hour).await.unwrap().unwrap();
    let third = SqliteStore::open(dir).unwrap();
    assert_eq!(third.acquire_lease("s", "c", hour).await.unwrap(), None);
    second.append(&held, record("s", "another")).await.unwrap();
}

#[test]
fn many_processes_write_at_once_and_nothing_is_lost() {
    let dir = temp();
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let path = dir.path().to_owned();
            std::thread::spawn(move || {
                let store = SqliteStore::open(&path).unwrap();
                block_on(async {
                    for n in 0..25 {
                        let id = format!("{writer}-{n}");
                        assert!(matches!(store.begin(record(&id, &id)).await.unwrap(), Begun::New(_)));
                        // All want the same run; one restore has it.
                        store.begin(record(&format!("same-{id}"), &format!("same-{n}"))).await.unwrap();
                    }
                });
            })
        })
        .collect();
    for writer in writers {
        writer.join().unwrap();
    }
    let found = block_on(SqliteStore::open(dir.path()).unwrap().list()).unwrap();
    assert_eq!(found.len(), 4 * 25 + 25);
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let dir = temp();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let message = SqliteStore::open(&file.join("below")).unwrap_err().to_string();
    assert!(message.contains("below") && message.contains("--data-dir"), "{message}");
}

#[test]
fn a_newer_journal_is_refused_and_left_alone() {
    let dir = temp();
    drop(SqliteStore::open(dir.path()).unwrap());
    let path = dir.path().join(FILE);
    Connection::open(&path).unwrap().execute("UPDATE schema SET version = 99", []).unwrap();
    let error = SqliteStore::open(dir.path()).unwrap_err();
    assert_eq!(error, StoreError::Newer { found: 99, known: SCHEMA_VERSION });
    assert!(error.to_string().contains("newer retinker"), "{error}");
    let version: u32 =
        Connection::open(&path).unwrap().query_row("SELECT version FROM schema", [], |r| r.get(0)).unwrap();
    assert_eq!(version, 99);
}

#[test]
fn a_file_that_is_no_database_is_named() {
    let dir = temp();
    std::fs::write(
        dir.path().join(FILE),
        "this is not a database, and long enough to be seen as none".repeat(40),
    )
    .unwrap();
    let message = SqliteStore::open(dir.path()).unwrap_err().to_string();
    assert!(message.contains("not a database"), "{message}");
}

#[test]
fn an_entry_that_cannot_be_read_is_named() {
    let dir = temp();
    let store = SqliteStore::open(dir.path()).unwrap();
    block_on(async {
        store.begin(record("r", "old")).await.unwrap();
        let break_it = |connection: &mut Connection| {
            connection.execute("UPDATE restores SET record = '{\"plan\":{}}'", []).unwrap();
            Ok(())
        };
        store.worker.run(break_it).await.unwrap();
        let error = store.list().await.unwrap_err();
        assert!(matches!(&error, StoreError::Damaged { id, .. } if id == "r"), "{error}");
    });
}

#[cfg(unix)]
#[test]
fn only_the_user_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let dir = temp();
    let data = dir.path().join("data");
    let store = SqliteStore::open(&data).unwrap();
    block_on(store.begin(record("r", "old"))).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for file in std::fs::read_dir(&data).unwrap() {
        let path = file.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
    }
}
