use std::cell::RefCell;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::executor::block_on;
use futures_util::future::{Either, select};
use retinker::client::testing::ManualRuntime;
use retinker::client::{Api, ApiConfig};
use retinker::recovery::executor::Executor;
use retinker::recovery::journal::{MemoryStore, Store};
use retinker::recovery::ownership::Ownership;
use retinker::recovery::restore::RestoreRecord;
use retinker::runtime::Runtime;
use retinker_store::SqliteStore;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::client::tell;
use crate::scratch::scratch;
use crate::script::{Script, parts};

/// A record of the recovery journal as it stands in its file, and what the service answers to whoever goes on with it, in parts
/// (see `script`). A record is read or called damaged; going on with it ends, and a run that was adopted stays so.
pub fn journal(data: &[u8]) {
    let parts = parts(data);
    let Some((record, script)) = parts.split_first() else { return };
    stored(record);
    if let Ok(record) = serde_json::from_slice::<RestoreRecord>(record) {
        written_and_read(&record);
        carried_on(record, script);
    }
}

fn written_and_read(record: &RestoreRecord) {
    let written = serde_json::to_string(record).unwrap();
    let again: RestoreRecord = serde_json::from_str(&written).unwrap();
    assert_eq!(serde_json::to_string(&again).unwrap(), written);
}

/// Reads the record from the database.
fn stored(record: &[u8]) {
    thread_local! {
        static FOLDER: RefCell<Option<TempDir>> = const { RefCell::new(None) };
    }
    FOLDER.with_borrow_mut(|folder| {
        let folder = folder.get_or_insert_with(scratch);
        drop(SqliteStore::open(folder.path()).unwrap());
        put(folder.path(), record);
        let store = SqliteStore::open(folder.path()).unwrap();
        tell(block_on(store.list()));
        tell(block_on(store.unfinished()));
    });
}

fn put(folder: &Path, record: &[u8]) {
    let connection = Connection::open(folder.join("journal.db")).unwrap();
    connection.pragma_update(None, "synchronous", "OFF").unwrap();
    connection.execute("DELETE FROM restores", []).unwrap();
    connection
        .execute(
            "INSERT INTO restores (id, old_run, settled, holds, record) VALUES ('restore-0', 'r', 0, 1, ?1)",
            [String::from_utf8_lossy(record)],
        )
        .unwrap();
}

/// Longer than everything may take once the server refuses everything.
const FOR_EVER: Duration = Duration::from_secs(366 * 24 * 3600);

fn carried_on(record: RestoreRecord, script: &[&[u8]]) {
    let runtime = ManualRuntime::new().with_chance();
    let transport = Script::new(Arc::new(runtime.clone()), script, false);
    let config = ApiConfig { base_url: "http://service.test".to_owned(), ..ApiConfig::default() };
    let api = Api::new(config, Arc::new(transport), Arc::new(runtime.clone())).unwrap();
    let time: Arc<dyn Runtime> = Arc::new(runtime.clone());
    let store = Arc::new(MemoryStore::new(time.clone()));
    let (id, settled) = (record.id.clone(), record.state.is_settled());
    let work = async {
        if store.begin(record.clone()).await.is_err() {
            return;
        }
        let executor = Executor::new(api.clone(), store.clone(), time.clone());
        tell(executor.run(&id).await);
        if settled {
            assert_eq!(store.get(&id).await.unwrap(), Some(record), "what was settled was changed");
        }
        tell(executor.hand_over(&id).await);
        Ownership::new(api, store.clone(), time.clone()).beat().await;
    };
    let limit = time.sleep(FOR_EVER);
    let ended = runtime.block_on(async { matches!(select(Box::pin(work), limit).await, Either::Left(_)) });
    assert!(ended, "the restore does not end");
}
