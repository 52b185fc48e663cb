//! HTTP/2 that breaks, between a client and a service: streams are reset, connections say that they will end, or just end.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::TryStreamExt;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::{Request, Response};
use retinker::native::NativeTransport;
use retinker::transport::{Method, Transport};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Break {
    /// Its stream is reset, and the service does not see it.
    Refused,
    /// The service answers, and the stream is reset before the client sees any of that.
    Unanswered,
    /// The client sees a half of the service's answer, and the stream is reset.
    Halved,
    /// It is answered, and its connection takes no more of them (GOAWAY).
    Goodbye,
    /// Its connection ends, with everything that is under way.
    Lost,
}

impl Break {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Refused, Self::Unanswered, Self::Halved, Self::Goodbye, Self::Lost];

    /// What becomes of the nth request. Lost are some tens of them, and not for ever: what is lost is sent again.
    fn of(n: u64) -> Option<Self> {
        match n {
            _ if n % 61 == 60 && n < 1000 => Some(Self::Lost),
            _ if n % 47 == 46 => Some(Self::Goodbye),
            _ if n % 20 == 3 => Some(Self::Refused),
            _ if n % 20 == 9 => Some(Self::Unanswered),
            _ if n % 20 == 15 => Some(Self::Halved),
            _ => None,
        }
    }
}

/// A proxy that breaks what it carries. Ends when dropped.
#[derive(Debug)]
pub struct Streams {
    /// Where clients connect.
    pub base_url: String,
    state: Arc<State>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    target: String,
    transport: NativeTransport,
    requests: AtomicU64,
    counts: [AtomicU64; Break::ALL.len()],
}

impl Streams {
    /// A proxy before the service at this address.
    pub async fn before(base_url: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (target, base_url) = (base_url.to_owned(), format!("http://{}", listener.local_addr()?));
        let transport = NativeTransport::new()?;
        let state = State { target, transport, requests: AtomicU64::new(0), counts: Default::default() };
        let state = Arc::new(state);
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Self { base_url, state, task })
    }

    /// How many requests have suffered this.
    pub fn count(&self, of: Break) -> u64 {
        self.state.counts.get(of as usize).map_or(0, |count| count.load(Ordering::Relaxed))
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((socket, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        // A connection that ends, ends alone.
        tokio::spawn(async move { drop(carry(socket, state).await) });
    }
}

/// Carries a connection's requests until it ends.
async fn carry(socket: TcpStream, state: Arc<State>) -> Result<(), h2::Error> {
    let mut connection = h2::server::Builder::new().max_concurrent_streams(10_000).handshake(socket).await?;
    while let Some(asked) = connection.accept().await {
        let (request, respond) = asked?;
        let what = Break::of(state.requests.fetch_add(1, Ordering::Relaxed));
        if let Some(count) = what.and_then(|what| state.counts.get(what as usize)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        match what {
            Some(Break::Lost) => return Ok(()),
            Some(Break::Goodbye) => connection.graceful_shutdown(),
            _ => {}
        }
        let state = Arc::clone(&state);
        tokio::spawn(async move { drop(answer(request, respond, what, &state).await) });
    }
    Ok(())
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    what: Option<Break>,
    state: &State,
) -> Result<()> {
    if what == Some(Break::Refused) {
        respond.send_reset(Reason::REFUSED_STREAM);
        return Ok(());
    }
    let (status, kind, body) = state.ask(request).await?;
    if what == Some(Break::Unanswered) {
        respond.send_reset(Reason::INTERNAL_ERROR);
        return Ok(());
    }
    let mut stream = respond
        .send_response(Response::builder().status(status).header("content-type", kind).body(())?, false)?;
    if what == Some(Break::Halved) {
        stream.send_data(body.slice(..body.len() / 2), false)?;
        stream.send_reset(Reason::INTERNAL_ERROR);
    } else {
        stream.send_data(body, true)?;
    }
    Ok(())
}

impl State {
    /// Asks the service; its answer's status, type and body.
    async fn ask(&self, request: Request<RecvStream>) -> Result<(u16, String, Bytes)> {
        let (head, mut incoming) = request.into_parts();
        let mut body = Vec::new();
        while let Some(piece) = incoming.data().await {
            let piece = piece?;
            incoming.flow_control().release_capacity(piece.len())?;
            body.extend_from_slice(&piece);
        }
        let method = match head.method.as_str() {
            "GET" => Method::Get,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            _ => Method::Post,
        };
        let headers = head.headers.iter().filter(|(name, _)| *name != "content-length");
        let headers = headers.map(|(name, value)| {
            Ok((name.as_str().to_owned().into(), value.to_str().context("an odd header")?.to_owned()))
        });
        let asked = retinker::transport::Request {
            method,
            url: format!("{}{}", self.target, head.uri.path_and_query().context("no path")?),
            headers: headers.collect::<Result<_>>()?,
            body: body.into(),
        };
        let answer = self.transport.send(asked).await?;
        let kind = answer.header("content-type").unwrap_or("application/json").to_owned();
        let pieces: Vec<Bytes> = answer.body.try_collect().await?;
        Ok((answer.status, kind, pieces.concat().into()))
    }
}
