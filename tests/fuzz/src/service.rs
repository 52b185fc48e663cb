use std::cell::RefCell;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderName, HeaderValue, Method, Request, Uri};
use retinker_local::{LocalConfig, LocalService};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tower::ServiceExt;

use crate::scratch::scratch;
use crate::script::{head_and_body, members, parts};

/// Stands for the service's session in inputs, and in those of its run and sampler, which are as long.
const SESSION: &str = "00000000-0000-4000-8000-000000000000";
/// After so many inputs the service begins anew: what they have made would slow it down.
const INPUTS: u32 = 500;
/// What is held longer than this, such as a question for something that is not there yet, is asked by nobody any more.
const PATIENCE: Duration = Duration::from_millis(20);

/// The embedded service: requests in parts (see `script`), each with `METHOD /path; header=value` as its first line. Each is
/// answered, none with a 5xx.
pub fn service(data: &[u8]) {
    thread_local! {
        static SERVICE: RefCell<Option<Service>> = const { RefCell::new(None) };
    }
    SERVICE.with_borrow_mut(|service| {
        if let Some(old) = service.take_if(|service| service.inputs >= INPUTS) {
            old.tokio.block_on(old.running.stop());
        }
        let service = service.get_or_insert_with(Service::start);
        service.inputs += 1;
        parts(data).into_iter().for_each(|part| service.ask(part));
    });
}

/// A service, a session of it with a run, and how many inputs it was given.
struct Service {
    running: LocalService,
    tokio: Runtime,
    router: Router,
    session: String,
    inputs: u32,
    _folder: TempDir,
}

impl Service {
    fn start() -> Self {
        let folder = scratch();
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = LocalConfig {
            trainers: 1,
            threads: 1,
            memory_limit: 64 << 20,
            queue_limit: 64 << 20,
            ..LocalConfig::new(folder.path())
        };
        let running = tokio.block_on(LocalService::start(config)).unwrap();
        let router = running.router();
        let mut service = Self { running, tokio, router, session: String::new(), inputs: 0, _folder: folder };
        let opened = service.told(
            b"POST /api/v1/create_session\n{\"tags\":[],\"user_metadata\":{},\"sdk_version\":\"x\",\"type\":\"create_session\"}",
        );
        let opened: serde_json::Value = serde_json::from_slice(&opened).unwrap();
        service.session = opened["session_id"].as_str().unwrap().to_owned();
        assert_eq!(service.session.len(), SESSION.len());
        let run = format!(
            "POST /api/v1/create_model\n{{\"session_id\":\"{SESSION}\",\"model_seq_id\":0,\"base_model\":\"retinker/nano-llama\",\"lora_config\":{{\"rank\":1,\"seed\":1}},\"type\":\"create_model\"}}"
        );
        service.told(run.as_bytes());
        service
    }

    fn ask(&self, part: &[u8]) {
        self.told(part);
    }

    /// Asks and gives the answer; nothing, if it takes too long or was no request.
    fn told(&self, part: &[u8]) -> Vec<u8> {
        let Some(request) = request(&replaced(part, &self.session)) else { return Vec::new() };
        let shown = format!("{} {}", request.method(), request.uri());
        let answer = async {
            let answer = self.router.clone().oneshot(request).await.unwrap();
            let status = answer.status();
            assert!(!status.is_server_error(), "{shown} was answered {status}");
            to_bytes(answer.into_body(), usize::MAX).await.map_or_else(|_| Vec::new(), |body| body.to_vec())
        };
        self.tokio.block_on(async { tokio::time::timeout(PATIENCE, answer).await }).unwrap_or_default()
    }
}

/// With the session that there is.
fn replaced(part: &[u8], session: &str) -> Vec<u8> {
    let mut part = part.to_vec();
    while let Some(at) = part.windows(SESSION.len()).position(|id| id == SESSION.as_bytes()) {
        if session.is_empty() {
            break;
        }
        part[at..at + session.len()].copy_from_slice(session.as_bytes());
    }
    part
}

fn request(part: &[u8]) -> Option<Request<Body>> {
    let (head, body) = head_and_body(part);
    let (method, path) = head.split(';').next()?.trim().split_once(' ')?;
    let mut request = Request::new(Body::from(body.to_vec()));
    *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
    *request.uri_mut() = path.trim().parse::<Uri>().ok()?;
    let headers = request.headers_mut();
    for (name, value) in
        [("host", "127.0.0.1"), ("content-type", "application/json"), ("x-api-key", "tml-fuzz")]
    {
        headers.insert(name, HeaderValue::from_static(value));
    }
    for (name, value) in members(&head) {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        headers.insert(name, HeaderValue::from_str(value).ok()?);
    }
    Some(request)
}
