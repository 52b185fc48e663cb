//! A network that delays, refuses, breaks off, delivers twice and answers nonsense, between a client and a service.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::random::Random;

/// What a storm does to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is answered 503, and the service does not see it.
    Unavailable,
    /// It is answered 429, and the service does not see it.
    TooMany,
    /// It is answered 500, and the service does not see it.
    Failing,
    /// It is answered 408, and the service does not see it.
    TimedOut,
    /// It is answered by the beginning of an answer, and the service does not see it.
    Nonsense,
    /// The connection ends before the service sees it.
    Lost,
    /// The service begins to answer, and the connection ends before the client sees any of that.
    Unanswered,
    /// The client sees the beginning of the service's answer, and the connection ends.
    Halved,
    /// The service sees it twice; the client sees the second answer.
    Twice,
}

impl Fault {
    /// All there are.
    pub const ALL: [Self; 9] = [
        Self::Unavailable,
        Self::TooMany,
        Self::Failing,
        Self::TimedOut,
        Self::Nonsense,
        Self::Lost,
        Self::Unanswered,
        Self::Halved,
        Self::Twice,
    ];

    /// The answer that is not the service's.
    fn answer(self) -> Option<&'static str> {
        Some(match self {
            Self::Unavailable => {
                "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 19\r\nConnection: close\r\n\r\n{\"detail\":\"storm!\"}"
            }
            Self::TooMany => {
                "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
            }
            Self::Failing => {
                "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
            }
            Self::TimedOut => {
                "HTTP/1.1 408 Request Timeout\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}"
            }
            Self::Nonsense => {
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 500\r\nConnection: close\r\n\r\n{\"request_id\":"
            }
            Self::Lost | Self::Unanswered | Self::Halved | Self::Twice => return None,
        })
    }
}

/// A proxy in bad weather. Ends when dropped.
#[derive(Debug)]
pub struct Storm {
    /// Where clients connect.
    pub base_url: String,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    target: String,
    weather: Weather,
    counts: [AtomicU64; Fault::ALL.len()],
}

#[derive(Debug)]
enum Weather {
    /// Every fault, by chance.
    All,
    /// This one alone, so many times from each [`Storm::again`] on.
    Row { fault: Fault, left: AtomicU64 },
}

impl Storm {
    /// A storm of all faults before the service at this address, by chance.
    pub async fn before(base_url: &str, seed: u64) -> Result<Self> {
        Self::of(base_url, Weather::All, seed).await
    }

    /// Fair weather, in which [`again`](Self::again) calls for this fault, many times in a row.
    pub async fn row(base_url: &str, fault: Fault) -> Result<Self> {
        Self::of(base_url, Weather::Row { fault, left: AtomicU64::new(0) }, 0).await
    }

    async fn of(base_url: &str, weather: Weather, seed: u64) -> Result<Self> {
        let target = base_url.strip_prefix("http://").context("the service has no address")?.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let base_url = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(State { target, weather, counts: Default::default() });
        let task = tokio::spawn(blow(listener, Random(seed), Arc::clone(&state)));
        Ok(Self { base_url, state, task })
    }

    /// Has the next so many requests suffer the row's fault.
    pub fn again(&self, count: u64) {
        if let Weather::Row { left, .. } = &self.state.weather {
            left.store(count, Ordering::Relaxed);
        }
    }

    /// How many requests have suffered this.
    pub fn count(&self, fault: Fault) -> u64 {
        self.state.count(fault).load(Ordering::Relaxed)
    }

    /// How many requests have suffered anything.
    pub fn faults(&self) -> u64 {
        Fault::ALL.map(|fault| self.count(fault)).iter().sum()
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl State {
    fn count(&self, fault: Fault) -> &AtomicU64 {
        let [first, ..] = &self.counts;
        self.counts.get(fault as usize).unwrap_or(first)
    }

    /// What becomes of a connection's first request: half of them suffer something.
    fn fault(&self, dice: u64) -> Option<Fault> {
        match &self.weather {
            Weather::All => Fault::ALL.get((dice % 18) as usize).copied(),
            Weather::Row { fault, left } => {
                let one = |left: u64| left.checked_sub(1);
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one).ok().map(|_| *fault)
            }
        }
    }
}

async fn blow(listener: TcpListener, mut random: Random, state: Arc<State>) {
    while let Ok((client, _)) = listener.accept().await {
        let (dice, state) = (random.next(), Arc::clone(&state));
        // A connection that ends, ends alone.
        tokio::spawn(async move { drop(suffer(client, dice, &state).await) });
    }
}

/// Carries a connection's first request, whatever becomes of it, and for a short while what follows.
async fn suffer(mut client: TcpStream, dice: u64, state: &State) -> std::io::Result<()> {
    let Some(request) = whole_request(&mut client).await else { return Ok(()) };
    let fault = state.fault(dice);
    // Counted before the client can know of it, and where it fails to happen, not at all.
    let happened = |fault| state.count(fault).fetch_add(1, Ordering::Relaxed);
    match fault {
        Some(Fault::Lost) => {
            happened(Fault::Lost);
            return Ok(());
        }
        Some(fault @ (Fault::Unanswered | Fault::Halved)) => {
            let mut server = deliver(&request, &state.target).await?;
            let mut half = [0; 40];
            server.read_exact(&mut half).await?;
            happened(fault);
            return if fault == Fault::Halved { client.write_all(&half).await } else { Ok(()) };
        }
        Some(Fault::Twice) => {
            let mut server = deliver(&request, &state.target).await?;
            // Nobody reads that answer. It is waited for, but not for long: it may be a long poll's.
            let _ = tokio::time::timeout(Duration::from_millis(200), server.read_u8()).await;
            happened(Fault::Twice);
        }
        Some(fault) => {
            happened(fault);
            return client.write_all(fault.answer().unwrap_or_default().as_bytes()).await;
        }
        None => {}
    }
    tokio::time::sleep(Duration::from_millis((dice >> 16) % 10)).await;
    let mut server = deliver(&request, &state.target).await?;
    // Ending it in the middle is the point.
    let life = Duration::from_millis(2 + (dice >> 8) % 150);
    let _ = tokio::time::timeout(life, copy_bidirectional(&mut client, &mut server)).await;
    Ok(())
}

async fn deliver(request: &[u8], target: &str) -> std::io::Result<TcpStream> {
    let mut server = TcpStream::connect(target).await?;
    server.write_all(request).await?;
    Ok(server)
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
