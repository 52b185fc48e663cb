//! Checkpoints are downloaded whole: gone on with where they broke off, checked, and unpacked where they belong.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test that fails, panics.

use std::path::Path;

use retinker::client::{
    Api, Download, SaveExternalOptions, SaveOptions, Secret, ServiceClient, TrainingClient, TrainingOptions,
};
use retinker::native::{Progress, download_archive, download_external_weights};
use retinker::wire::model::LoraConfig;
use retinker_local::LocalService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

const MODEL: &str = "retinker/nano-llama";

async fn service() -> (tempfile::TempDir, LocalService, ServiceClient) {
    let (dir, service, api) = retinker_tests::service::embedded().await.unwrap();
    (dir, service, ServiceClient::new(api))
}

async fn run(owner: &ServiceClient) -> TrainingClient {
    let lora = LoraConfig { rank: 4, ..LoraConfig::default() };
    owner.create_lora_training_client(MODEL, lora, TrainingOptions::default()).await.unwrap()
}

fn hidden(directory: &Path) -> usize {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with('.')).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn external_weights_are_gone_on_with_and_checked() {
    let (dir, service, owner) = service().await;
    let run = run(&owner).await;
    let path = run.save_weights_external("out", SaveExternalOptions::default()).await.unwrap().path;
    let rest = owner.create_rest_client();
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    let files = download_external_weights(&rest, &path, &first, |_| {}).await.unwrap();
    let weights = files.iter().find(|file| file.ends_with("adapter_model.safetensors")).unwrap();
    let whole = std::fs::read(weights).unwrap();
    assert!(whole.len() > 10_000 && hidden(&first) == 0);

    // What a broken-off download has left.
    std::fs::create_dir(&second).unwrap();
    let part = second.join(".adapter_model.safetensors.part");
    std::fs::write(&part, &whole[..4000]).unwrap();
    let mut seen = Vec::new();
    let files =
        download_external_weights(&rest, &path, &second, |progress| seen.push(progress)).await.unwrap();
    assert_eq!(std::fs::read(second.join("adapter_model.safetensors")).unwrap(), whole);
    assert_eq!((files.len(), hidden(&second)), (std::fs::read_dir(&first).unwrap().count(), 0));
    let of_weights: Vec<&Progress> =
        seen.iter().filter(|at| at.file == "adapter_model.safetensors").collect();
    assert!(of_weights[0].received > 4000, "{:?}", of_weights[0]);
    assert_eq!(of_weights.last().unwrap().received, whole.len() as u64);
    assert!(of_weights.iter().all(|at| at.total == Some(whole.len() as u64)));

    // A beginning that is not its own is found out by what the file says of itself, and is not gone on with again.
    std::fs::remove_file(second.join("adapter_model.safetensors")).unwrap();
    std::fs::write(&part, vec![b'x'; 4000]).unwrap();
    let error = download_external_weights(&rest, &path, &second, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("adapter_model.safetensors"), "{error}");
    download_external_weights(&rest, &path, &second, |_| {}).await.unwrap();
    assert_eq!(std::fs::read(second.join("adapter_model.safetensors")).unwrap(), whole);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_becomes_a_directory_or_nothing() {
    let (dir, service, owner) = service().await;
    let run = run(&owner).await;
    let path = run.save_state("a", SaveOptions::default()).await.unwrap().path;
    let rest = owner.create_rest_client();
    let target = dir.path().join("unpacked");
    let mut last = 0;
    let files = download_archive(&rest, &path, &target, |progress| last = progress.received).await.unwrap();
    let names: Vec<_> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert!(
        names.contains(&"adapter_model.safetensors") && names.contains(&"adapter_config.json"),
        "{names:?}"
    );
    assert!(last > 10_000 && files.iter().all(|file| file.starts_with(&target) && file.is_file()));
    let again = download_archive(&rest, &path, &target, |_| {}).await.unwrap_err();
    assert!(again.to_string().contains("there already"), "{again}");
    let none = dir.path().join("none");
    let missing = path.replace("/weights/a", "/weights/b");
    assert_eq!(download_archive(&rest, &missing, &none, |_| {}).await.unwrap_err().status(), Some(404));
    assert!(!none.exists());
    service.stop().await;
}

/// Answers connections with these texts, one after the other, and gives back what was asked.
async fn answering(answers: Vec<Vec<u8>>) -> (Api, Secret, tokio::task::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = stream.read(&mut request).await.unwrap();
            asked.push(String::from_utf8_lossy(&request[..length]).to_lowercase());
            stream.write_all(&answer).await.unwrap();
        }
        asked
    });
    let api = retinker_tests::service::api(&base).unwrap();
    (api, Secret::new(format!("{base}/secret-place/file?sig=secret")), asked)
}

async fn read(mut download: Download) -> Result<Vec<u8>, retinker::client::Error> {
    let mut all = Vec::new();
    while let Some(piece) = download.next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_is_gone_on_with_and_nothing_else() {
    let head =
        |status: &str, headers: &str| format!("HTTP/1.1 {status}\r\nConnection: close\r\n{headers}\r\n");
    let start = head("200 OK", "Content-Length: 10\r\nAccept-Ranges: bytes\r\nETag: \"v1\"\r\n") + "01234";
    let rest =
        head("206 Partial Content", "Content-Range: bytes 5-9/10\r\nContent-Length: 5\r\nETag: \"v1\"\r\n")
            + "56789";
    let busy = head("503 Service Unavailable", "Content-Length: 0\r\n");
    let answers = [&start, &busy, &rest].map(|text| text.clone().into_bytes()).to_vec();
    let (api, address, asked) = answering(answers).await;
    let download = Download::open(&api, "a file", &address, 0).await.unwrap();
    assert_eq!(download.total(), Some(10));
    assert_eq!(read(download).await.unwrap(), b"0123456789");
    let asked = asked.await.unwrap();
    assert!(asked.iter().all(|request| !request.contains("x-api-key")), "the key is not for this address");
    assert!(asked[2].contains("range: bytes=5-") && asked[2].contains("if-range: \"v1\""), "{}", asked[2]);

    // Another version, a server that cannot go on, one that lies about the length: errors, and no byte of a mixture.
    let changed = head("200 OK", "Content-Length: 10\r\nETag: \"v2\"\r\n") + "abcdefghij";
    let once = head("200 OK", "Content-Length: 10\r\n") + "01234";
    for (answers, said) in [
        (vec![start.clone(), changed], "changed while"),
        (vec![once], "broke off"),
        (vec![head("403 Forbidden", "Content-Length: 7\r\n") + "expired"], "403"),
    ] {
        let (api, address, _asked) = answering(answers.into_iter().map(String::into_bytes).collect()).await;
        let result = match Download::open(&api, "a file", &address, 0).await {
            Ok(download) => read(download).await,
            Err(error) => Err(error),
        };
        let error = format!("{0} {0:?}", result.unwrap_err());
        assert!(error.contains(said) && !error.contains("secret"), "{said}: {error}");
    }
}
