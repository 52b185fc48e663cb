//! A network that delays, refuses, breaks off, delivers twice and answers nonsense, between a client and a service.

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
    counts: Arc<Counts>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: AtomicU64,
    duplicates: AtomicU64,
}

impl Storm {
    /// A storm before the service at this address.
    pub async fn before(base_url: &str, seed: u64) -> Result<Self> {
        let target = base_url.strip_prefix("http://").context("the service has no address")?.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let base_url = format!("http://{}", listener.local_addr()?);
        let counts = Arc::<Counts>::default();
        let task = tokio::spawn(blow(listener, target, Random(seed), Arc::clone(&counts)));
        Ok(Self { base_url, counts, task })
    }

    /// How many connections it has answered with nonsense, or cut.
    pub fn faults(&self) -> u64 {
        self.counts.connections.load(Ordering::Relaxed)
    }

    /// How many requests it has delivered twice.
    pub fn duplicates(&self) -> u64 {
        self.counts.duplicates.load(Ordering::Relaxed)
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn blow(listener: TcpListener, target: String, mut random: Random, counts: Arc<Counts>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let (dice, target, counts) = (random.next(), target.clone(), Arc::clone(&counts));
        tokio::spawn(async move {
            counts.connections.fetch_add(1, Ordering::Relaxed);
            // One connection in four is answered with nonsense, one in five begins with a request that arrives twice; they
            // and the others live for up to 150 ms.
            let first = match dice % 20 {
                kind @ ..5 => {
                    let answer = NONSENSE.get(kind as usize).copied().unwrap_or_default();
                    let mut request = [0; 4096];
                    let _ = client.read(&mut request).await;
                    let _ = client.write_all(answer.as_bytes()).await;
                    return;
                }
                5..9 => {
                    let Some(request) = whole_request(&mut client).await else { return };
                    if deliver(&request, &target).await.is_ok() {
                        counts.duplicates.fetch_add(1, Ordering::Relaxed);
                    }
                    request
                }
                _ => Vec::new(),
            };
            let Ok(mut server) = TcpStream::connect(target).await else { return };
            let life = Duration::from_millis(2 + (dice >> 8) % 150);
            let delay = Duration::from_millis((dice >> 16) % 10);
            let forward = async {
                tokio::time::sleep(delay).await;
                server.write_all(&first).await?;
                copy_bidirectional(&mut client, &mut server).await
            };
            // Ending it in the middle is the point: before the service saw the request, or after.
            let _ = tokio::time::timeout(life, forward).await;
        });
    }
}

/// Delivers a request whose answer nobody reads, and waits until the service begins to answer, but not for long.
async fn deliver(request: &[u8], target: &str) -> std::io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    server.write_all(request).await?;
    let _ = tokio::time::timeout(Duration::from_millis(200), server.read_u8()).await;
    Ok(())
}

/// Reads a request to its end. Those that clients send here say how long they are.
async fn whole_request(client: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let end = loop {
        if let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end + 4;
        }
        if client.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8_lossy(request.get(..end)?).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    let length: usize = length.map_or(Some(0), |length| length.trim().parse().ok())?;
    while request.len() < end + length {
        if client.read_buf(&mut request).await.ok()? == 0 {
            return None;
        }
    }
    Some(request)
}
