//! A service whose faults are chosen, and raw requests.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use retinker::client::Secret;
use retinker::host::HostClient;
use retinker::host::api::ServiceKind;
use retinker::native::{NativeRuntime, NativeTransport};
use retinker_host::{
    Connection, Host, HostConfig, Location, RedoLogs, RunningHost, ServiceTarget, StartError, Watching,
};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";
pub const KEY: &str = "tml-the-key";

/// How the service fails.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub enum Fault {
    #[default]
    None,
    Status(u16),
    Html,
    HalfBody,
    /// Runs are counted, and none is listed.
    Contradicts,
    Redirect,
    Silent,
}

#[derive(Debug, Default)]
pub struct Service {
    pub fault: Fault,
    /// Loads wait for this to turn false.
    pub hold_loads: bool,
    /// Method, path and key of each request.
    pub seen: Vec<(String, String, Option<String>)>,
    pub sessions: u32,
    pub loads: u32,
    /// The new run's labels, once it is there.
    pub made: Option<(String, Value)>,
    /// When the new run was last asked for something, instead of by its restore.
    pub made_asked_at: Option<String>,
    /// Runs whose checkpoints cannot be listed, and which the list tells no checkpoint of.
    pub unlisted: Vec<String>,
}

#[derive(Clone)]
pub struct FakeService {
    pub address: SocketAddr,
    state: Arc<Mutex<Service>>,
}

impl FakeService {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(Service::default()));
        let app = Router::new().fallback(answer).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, state }
    }

    pub fn state(&self) -> MutexGuard<'_, Service> {
        self.state.lock().unwrap()
    }

    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }
}

async fn answer(State(state): State<Arc<Mutex<Service>>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let key = parts.headers.get("x-api-key").map(|key| key.to_str().unwrap().to_owned());
    let fault = {
        let mut service = state.lock().unwrap();
        service.seen.push((parts.method.to_string(), parts.uri.to_string(), key));
        service.fault
    };
    match fault {
        Fault::None => {}
        Fault::Status(status) => {
            let status = axum::http::StatusCode::from_u16(status).unwrap();
            return (status, [("set-cookie", "a=b")], "{\"detail\":\"the fault that was asked for\"}")
                .into_response();
        }
        Fault::Html => {
            return ([("content-type", "text/html")], "<!doctype html><h1>proxy</h1>").into_response();
        }
        Fault::HalfBody => {
            let pieces = [Ok(Bytes::from("{\"training_runs\":[")), Err(std::io::Error::other("cut"))];
            return Body::from_stream(futures_util::stream::iter(pieces)).into_response();
        }
        Fault::Contradicts => {
            return axum::Json(json!({
                "training_runs": [], "checkpoints": 7, "cursor": {"offset": 0, "limit": 100, "total_count": 7}
            }))
            .into_response();
        }
        Fault::Redirect => {
            return (axum::http::StatusCode::FOUND, [("location", "http://127.0.0.1:1/steal")])
                .into_response();
        }
        Fault::Silent => {
            futures_util::future::pending::<Infallible>().await;
        }
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let path = parts.uri.path().to_owned();
    if path == "/api/v1/retrieve_future" {
        while state.lock().unwrap().hold_loads {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    let mut service = state.lock().unwrap();
    let (status, answer) = service.good(parts.uri.query(), &path, &body);
    let status = axum::http::StatusCode::from_u16(status).unwrap();
    (status, [("content-type", "application/json"), ("set-cookie", "session=1")], answer.to_string())
        .into_response()
}

impl Service {
    fn good(&mut self, query: Option<&str>, path: &str, body: &Value) -> (u16, Value) {
        let ok = |value| (200, value);
        let checkpoint = json!({
            "checkpoint_id": "weights/a", "checkpoint_type": "training", "time": "2026-01-01T00:00:00Z",
            "tinker_path": "tinker://old/weights/a", "size_bytes": 7,
        });
        let run = |id: &str, corrupted: bool, checkpoint: Option<&Value>, labels: Value| {
            json!({
                "training_run_id": id, "base_model": "base", "model_owner": "me", "is_lora": true, "lora_rank": 8,
                "corrupted": corrupted, "last_request_time": "2026-01-01T00:03:20Z", "last_checkpoint": checkpoint,
                "user_metadata": labels,
            })
        };
        let mut runs = vec![
            run("old", true, Some(&checkpoint), json!({"name": "mine"})),
            run("lost", true, None, json!({})),
            run("fine", false, Some(&checkpoint), json!({})),
        ];
        if let Some((id, labels)) = &self.made {
            let mut made = run(id, false, None, labels.clone());
            if let Some(at) = &self.made_asked_at {
                made["last_request_time"] = json!(at);
            }
            runs.insert(0, made);
        }
        for run in &mut runs {
            if self.unlisted.iter().any(|id| run["training_run_id"] == **id) {
                run["last_checkpoint"] = Value::Null;
            }
        }
        let parts: Vec<_> = path.trim_start_matches("/api/v1/").split('/').collect();
        match parts.as_slice() {
            ["training_runs"] => {
                let offset =
                    query.and_then(|q| q.split("offset=").nth(1)).and_then(|n| n.parse().ok()).unwrap_or(0);
                // Pages of two, whatever is asked for: servers cap them.
                let page: Vec<_> = runs.iter().skip(offset).take(2).collect();
                ok(
                    json!({"training_runs": page, "cursor": {"offset": offset, "limit": 2, "total_count": runs.len()}}),
                )
            }
            ["training_runs", id] => match runs.into_iter().find(|run| run["training_run_id"] == *id) {
                Some(run) => ok(run),
                None => (404, json!({"detail": format!("no run {id}")})),
            },
            ["training_runs", id, "checkpoints"] if self.unlisted.iter().any(|u| u == id) => {
                (400, json!({"detail": "not now"}))
            }
            ["training_runs", "old" | "fine", "checkpoints"] => ok(json!({"checkpoints": [checkpoint]})),
            ["training_runs", _, "checkpoints"] => ok(json!({"checkpoints": []})),
            ["checkpoints"] => ok(
                json!({"checkpoints": [checkpoint], "cursor": {"offset": 0, "limit": 100, "total_count": 1}}),
            ),
            ["get_server_capabilities"] => ok(json!({"supported_models": [{"model_name": "base"}]})),
            ["weights_info"] => ok(json!({"base_model": "base", "is_lora": true, "lora_rank": 8})),
            ["create_session"] => {
                self.sessions += 1;
                ok(json!({"session_id": format!("s{}", self.sessions)}))
            }
            ["session_heartbeat"] => ok(json!({})),
            ["load_weights"] => {
                self.loads += 1;
                let id = format!("{}:train:{}", body["session_id"].as_str().unwrap(), body["model_seq_id"]);
                self.made = Some((id, body["user_metadata"].clone()));
                ok(json!({"request_id": "load"}))
            }
            ["retrieve_future"] => ok(json!({"path": "tinker://old/weights/a"})),
            ["get_info"] => ok(json!({"model_id": body["model_id"], "model_data": {}})),
            _ => (404, json!({"detail": "Not Found"})),
        }
    }
}

pub fn config(base_url: String, data_dir: &Path) -> HostConfig {
    HostConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        connections: vec![connection("fake", base_url, KEY, Location::Directory(data_dir.to_owned()))],
        redo_logs: RedoLogs::default(),
        token: Some(TOKEN.into()),
    }
}

pub fn connection(name: &str, base_url: String, key: &str, journal: Location) -> Connection {
    Connection {
        name: name.to_owned(),
        service: ServiceTarget {
            name: name.to_owned(),
            kind: ServiceKind::Remote,
            base_url,
            api_key: (!key.is_empty()).then(|| Secret::new(key)),
        },
        key_from: "TINKER_API_KEY".to_owned(),
        journal,
        watching: Watching::default(),
        demo: None,
    }
}

pub async fn start(service: &FakeService, data_dir: &Path) -> RunningHost {
    Host::start(config(service.base_url(), data_dir)).await.unwrap()
}

pub async fn refused(config: HostConfig) -> StartError {
    Host::start(config).await.map(|_| ()).unwrap_err()
}

pub fn client(host: &RunningHost) -> HostClient {
    let runtime = Arc::new(NativeRuntime::current().unwrap());
    let transport = Arc::new(NativeTransport::new().unwrap());
    HostClient::new(transport, runtime, format!("http://{}", host.address()), TOKEN.to_owned())
}

/// Waits until the question is answered with something; the test fails after half a minute.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut question: impl FnMut() -> F) -> T {
    let asking = async {
        loop {
            if let Some(answer) = question().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), asking).await.unwrap_or_else(|_| panic!("never: {what}"))
}

/// What a raw request is answered.
#[derive(Debug)]
pub struct Raw {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Raw {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (n, value) = line.split_once(':')?;
            n.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn code(&self) -> String {
        let value: Value = serde_json::from_str(&self.body).unwrap_or(Value::Null);
        value["code"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends exactly this: `line` is e.g. `GET /`, headers one a line.
pub async fn raw(address: SocketAddr, line: &str, headers: &[String], body: &str) -> Raw {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let text = format!(
        "{line} HTTP/1.1\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split_whitespace().nth(1).unwrap().parse().unwrap();
    Raw { status, head: head.to_owned(), body: body.to_owned() }
}
