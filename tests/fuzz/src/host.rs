use std::cell::RefCell;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use retinker::client::Secret;
use retinker::host::api::ServiceKind;
use retinker_host::{Connection, Host, HostConfig, Location, RedoLogs, RunningHost, ServiceTarget, Watching};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::scratch::scratch;
use crate::script::{head_and_body, members, parts};

const TOKEN: &str = "0123456789abcdef0123456789abcdef";
/// How long an answer may take to begin.
const PATIENCE: Duration = Duration::from_secs(20);

/// The host, over a connection of its own for each request, in parts (see `script`) with `METHOD /path; header=value` as their
/// first lines. Its service refuses everything. Each request is answered, none with a 500.
pub fn host(data: &[u8]) {
    thread_local! {
        static HOST: RefCell<Option<HostUnderTest>> = const { RefCell::new(None) };
    }
    HOST.with_borrow_mut(|host| {
        let host = host.get_or_insert_with(HostUnderTest::start);
        parts(data).into_iter().for_each(|part| host.ask(part));
    });
}

struct HostUnderTest {
    tokio: Runtime,
    host: RunningHost,
    _folder: TempDir,
}

impl HostUnderTest {
    fn start() -> Self {
        let folder = scratch();
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let host = tokio.block_on(async {
            let service = ServiceTarget {
                name: "refuses".to_owned(),
                kind: ServiceKind::Remote,
                base_url: format!("http://{}", refuse_everything().await),
                api_key: Some(Secret::new("tml-fuzz")),
            };
            let connection = Connection {
                name: service.name.clone(),
                service,
                key_from: String::new(),
                journal: Location::Directory(folder.path().to_owned()),
                watching: Watching::default(),
                demo: None,
            };
            let config = HostConfig {
                listen: SocketAddr::from(([127, 0, 0, 1], 0)),
                connections: vec![connection],
                redo_logs: RedoLogs::default(),
                token: Some(TOKEN.to_owned()),
            };
            Host::start(config).await.unwrap()
        });
        Self { tokio, host, _folder: folder }
    }

    fn ask(&self, part: &[u8]) {
        let Some(request) = request(part, self.host.address()) else { return };
        let answer = async {
            let mut connection = TcpStream::connect(self.host.address()).await.unwrap();
            connection.write_all(&request).await.unwrap();
            let mut status = [0; 12];
            // A connection is closed on what is not HTTP.
            connection.read_exact(&mut status).await.map(|_| status).ok()
        };
        let status = self.tokio.block_on(async { tokio::time::timeout(PATIENCE, answer).await });
        let shown = String::from_utf8_lossy(&request);
        match status {
            Ok(Some(status)) => assert!(&status != b"HTTP/1.1 500", "{shown}"),
            Ok(None) => {}
            Err(_) => panic!("this was not answered: {shown}"),
        }
    }
}

async fn refuse_everything() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new().fallback(async || (StatusCode::NOT_FOUND, r#"{"detail":"there is nothing"}"#));
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// The bytes of a request, which is one whatever the part says.
fn request(part: &[u8], host: SocketAddr) -> Option<Vec<u8>> {
    let (head, body) = head_and_body(part);
    let (method, path) = head.split(';').next()?.trim().split_once(' ')?;
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nx-retinker-token: {TOKEN}\r\n");
    for (name, value) in members(&head).filter(|(name, _)| !name.eq_ignore_ascii_case("content-length")) {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str(&format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len()));
    Some([request.as_bytes(), body].concat())
}
