//! Trains through a network that refuses, breaks off and answers nonsense, and checks that no loss is other than it
//! would have been.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use retinker::client::{ServiceClient, TrainingOptions};
use retinker_tests::random::Random;
use retinker_tests::schedule;
use retinker_tests::service::{ServiceProcess, api};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// Answers that are not the service's.
const NONSENSE: [&str; 3] = [
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 19\r\nConnection: close\r\n\r\n{\"detail\":\"storm!\"}",
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\nConnection: close\r\n\r\n{\"request_id\":",
    "HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
];

/// Trains all steps through the storm, and tells what it withstood.
pub(crate) async fn run(reference: &[f64]) -> Result<String> {
    let data = tempfile::tempdir()?;
    let service = ServiceProcess::start(data.path()).await?;
    let target = service.base_url.strip_prefix("http://").context("the service has no address")?.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let proxy = format!("http://{}", listener.local_addr()?);
    let faults = Arc::new(AtomicU64::new(0));
    let weather = tokio::spawn(blow(listener, target, Arc::clone(&faults)));
    let owner = ServiceClient::new(api(&proxy)?);
    let client = owner
        .create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), TrainingOptions::default())
        .await?;
    for (step, expected) in reference.iter().enumerate() {
        let loss = schedule::step(&client, step).await.with_context(|| format!("step {step}"))?;
        ensure!(loss == *expected, "step {step} has the loss {loss}; the undisturbed run has {expected}");
    }
    weather.abort();
    Ok(format!(
        "{} steps were trained through a proxy that refused, answered with half a body or 429, or cut the connection, \
         {} times. Every step was taken once, and every loss was equal to the undisturbed run's, bit for bit.\n",
        reference.len(),
        faults.load(Ordering::Relaxed)
    ))
}

async fn blow(listener: TcpListener, target: String, faults: Arc<AtomicU64>) {
    let mut random = Random(0x570f);
    while let Ok((mut client, _)) = listener.accept().await {
        let (dice, target, faults) = (random.next(), target.clone(), Arc::clone(&faults));
        tokio::spawn(async move {
            faults.fetch_add(1, Ordering::Relaxed);
            // One in four connections is answered with nonsense, the others live for up to 150 ms.
            if let Some(answer) = NONSENSE.get((dice % 12) as usize) {
                let mut request = [0; 4096];
                let _ = client.read(&mut request).await;
                let _ = client.write_all(answer.as_bytes()).await;
                return;
            }
            let Ok(mut server) = TcpStream::connect(target).await else { return };
            let life = Duration::from_millis(2 + (dice >> 8) % 150);
            // Ending it in the middle is the point.
            let _ = tokio::time::timeout(life, copy_bidirectional(&mut client, &mut server)).await;
        });
    }
}
