//! A network that refuses, breaks off and answers nonsense, between a client and a service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::random::Random;

/// Answers that are not the service's.
const NONSENSE: [&str; 5] = [
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 19\r\nConnection: close\r\n\r\n{\"detail\":\"storm!\"}",
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\nConnection: close\r\n\r\n{\"request_id\":",
    "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
    "HTTP/1.1 408 Request Timeout\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}",
];

/// A proxy in bad weather. Ends when dropped.
#[derive(Debug)]
pub struct Storm {
    /// Where clients connect.
    pub base_url: String,
    connections: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Storm {
    /// A storm before the service at this address.
    pub async fn before(base_url: &str, seed: u64) -> Result<Self> {
        let target = base_url.strip_prefix("http://").context("the service has no address")?.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let base_url = format!("http://{}", listener.local_addr()?);
        let connections = Arc::<AtomicU64>::default();
        let task = tokio::spawn(blow(listener, target, Random(seed), Arc::clone(&connections)));
        Ok(Self { base_url, connections, task })
    }

    /// How many connections it has answered with nonsense, or cut.
    pub fn faults(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn blow(listener: TcpListener, target: String, mut random: Random, faults: Arc<AtomicU64>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let (dice, target, faults) = (random.next(), target.clone(), Arc::clone(&faults));
        tokio::spawn(async move {
            faults.fetch_add(1, Ordering::Relaxed);
            // One connection in four is answered with nonsense, the others live for up to 150 ms.
            if let Some(answer) = NONSENSE.get((dice % 20) as usize) {
                let mut request = [0; 4096];
                let _ = client.read(&mut request).await;
                let _ = client.write_all(answer.as_bytes()).await;
                return;
            }
            let Ok(mut server) = TcpStream::connect(target).await else { return };
            let life = Duration::from_millis(2 + (dice >> 8) % 150);
            // Ending it in the middle is the point: before the service saw the request, or after.
            let _ = tokio::time::timeout(life, copy_bidirectional(&mut client, &mut server)).await;
        });
    }
}
