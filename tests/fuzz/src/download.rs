use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use retinker::client::{Api, ApiConfig, RestClient};
use retinker::native::{NativeRuntime, download_archive, download_external_weights};
use retinker::runtime::Runtime;
use retinker::wire::time::Time;

use crate::client::tell;
use crate::scratch::{outside, scratch};
use crate::script::{Script, parts};

/// Checkpoints from any server: archives if the first byte is even, else files with addresses of their own; the rest is what
/// the server answers (see `script`). Nothing is written but in the folder that was named, and there is no folder of an
/// archive that was refused.
pub fn download(data: &[u8]) {
    let Some((choice, script)) = data.split_first() else { return };
    let tokio = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let runtime = Arc::new(Hurried(NativeRuntime::new(tokio.handle().clone())));
    let transport = Script::new(runtime.clone(), &parts(script), false);
    let config = ApiConfig { base_url: "http://service.test".to_owned(), ..ApiConfig::default() };
    let rest = RestClient::new(Api::new(config, Arc::new(transport), runtime).unwrap());
    let folder = scratch();
    let target = folder.path().join("a").join("target");
    let archive = choice.is_multiple_of(2);
    let result = tokio.block_on(async {
        if archive {
            download_archive(&rest, "tinker://r/weights/a", &target, |_| {}).boxed().await
        } else {
            download_external_weights(&rest, "tinker://r/external_weights/a", &target, |_| {}).boxed().await
        }
    });
    check(&result, folder.path(), &target, archive);
    tell(result);
}

/// A runtime whose pauses are short. (tokio's own way to skip them waits for the thread that unpacks.)
#[derive(Debug)]
pub(crate) struct Hurried(pub(crate) NativeRuntime);

impl Runtime for Hurried {
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        self.0.sleep(duration.min(Duration::from_millis(1)))
    }

    fn now(&self) -> Time {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        self.0.monotonic()
    }

    fn random(&self) -> u64 {
        self.0.random()
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.0.spawn(task);
    }
}

fn check<E>(result: &Result<Vec<PathBuf>, E>, folder: &Path, target: &Path, archive: bool) {
    let written = outside(folder, target);
    assert!(written.iter().all(|path| target.starts_with(path)), "{written:?}");
    match result {
        Ok(files) => {
            assert!(files.iter().all(|file| file.starts_with(target) && file.is_file()), "{files:?}")
        }
        Err(_) => assert!(!archive || !target.exists(), "a part of an archive was left"),
    }
}
