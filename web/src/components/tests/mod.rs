//! The parts that pages are made of, in a browser: with a session that reads nothing, or with a host whose answers and whose
//! time are set by hand.

mod changing;
mod chart;
mod columns;
mod copy;
mod grid;
mod keys;
mod palette;
mod parts;
mod picker;
mod progress;
mod runs;
mod selecting;
mod time;

use std::cell::{OnceCell, RefCell};
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use js_sys::{Object, Promise, Reflect};
use retinker::client::testing::{FakeReply, FakeTransport, ManualRuntime};
use retinker::host::HostClient;
use retinker::host::api::{HealthCounts, RunRow, RunWindow};
use retinker::runtime::Runtime;
use retinker::transport::Request;
use retinker::wire::time::Time;
use wasm_bindgen::JsValue;
use wasm_bindgen::closure::Closure;
use web_sys::{Element, EventTarget, HtmlInputElement};

use crate::browser;
use crate::data::Host;
use crate::live::Session;
use crate::place::{self, Place};
use crate::prelude::*;
use crate::view::tests::{Stage, settled};

/// With a session that reads nothing.
fn stage(draw: impl FnOnce(&Session) -> AnyView) -> Stage {
    Stage::new(|| {
        let session = Session::new(Host::new(&browser::origin(), "", None));
        provide_context(session.clone());
        draw(&session)
    })
}

/// A host that answers at once what a test says, and whose time stands still until a test lets some go by.
#[derive(Clone)]
struct FakeHost {
    runtime: ManualRuntime,
    transport: FakeTransport,
}

impl FakeHost {
    fn new(answer: impl FnMut(&Request) -> FakeReply + Send + 'static) -> Self {
        let runtime = ManualRuntime::new();
        Self { transport: FakeTransport::new(&runtime, answer), runtime }
    }

    /// As the console calls it.
    fn called(&self) -> Host {
        let runtime: Arc<dyn Runtime> = Arc::new(self.runtime.clone());
        let transport = Arc::new(self.transport.clone());
        let client = HostClient::new(transport, Arc::clone(&runtime), browser::origin(), String::new());
        Host::over(client, runtime)
    }

    /// So much time goes by for whoever waits for it.
    async fn pass(&self, time: Duration) {
        self.runtime.block_on(self.runtime.sleep(time));
        settled().await;
    }

    /// What was asked so far, as `METHOD /path` without what all of them begin with.
    fn asked(&self) -> Vec<String> {
        self.transport.paths().iter().map(|line| line.replacen("/retinker/v1", "", 1)).collect()
    }
}

/// What a member of a request's query says.
fn member(request: &Request, name: &str) -> Option<String> {
    let (_, query) = request.url.split_once('?')?;
    query.split('&').find_map(|member| member.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
}

/// The path of a request.
fn path(request: &Request) -> &str {
    let (_, rest) = request.url.split_once("/retinker/v1").unwrap();
    rest.split_once('?').map_or(rest, |(path, _)| path)
}

/// A run as it stands in a list.
fn run(id: &str, name: &str) -> RunRow {
    serde_json::from_value(serde_json::json!({
        "name": name,
        "verdict": {"health": "healthy", "reason": "It goes on."},
        "run": {
            "training_run_id": id, "base_model": format!("model of {id}"), "lora_rank": 16,
            "last_request_time": "2026-01-02T03:04:05Z",
        },
    }))
    .unwrap()
}

/// Rows of a list of so many, as a host gives them.
fn rows_of_list(rows: Vec<RunRow>, matching: u64) -> RunWindow {
    RunWindow {
        rows,
        matching,
        total: matching,
        counts: HealthCounts { healthy: matching, ..HealthCounts::default() },
        revision: 1,
        order: "1".to_owned(),
        partial: false,
        ids: None,
        no_field: None,
        as_of: Some(Time::from_millis(1_767_225_600_000)),
        problem: None,
    }
}

/// Something drawn with a session of such a host.
struct Desk {
    stage: Stage,
    session: Session,
    host: FakeHost,
}

impl Desk {
    /// In a browser that has kept nothing.
    fn new(host: FakeHost, draw: impl FnOnce(&Session) -> AnyView) -> Self {
        window().local_storage().unwrap().unwrap().clear().unwrap();
        let mut known = None;
        let stage = Stage::new(|| {
            let session = known.insert(Session::new(host.called()));
            provide_context(session.clone());
            draw(session)
        });
        Self { stage, session: known.unwrap(), host }
    }

    /// All that a selector finds, in order.
    fn all(&self, selector: &str) -> Vec<Element> {
        all_in(&self.stage.root, selector)
    }
}

impl Deref for Desk {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

/// All that a selector finds within an element, in order.
fn all_in(element: &Element, selector: &str) -> Vec<Element> {
    use wasm_bindgen::JsCast;
    let found = element.query_selector_all(selector).unwrap();
    (0..found.length()).map(|at| found.get(at).unwrap().unchecked_into()).collect()
}

/// Where the page is, which is this address now. As in the console, it is there for as long as the page is.
fn at(address: &str) -> Place {
    thread_local! {
        static PLACE: OnceCell<(Owner, Place)> = const { OnceCell::new() };
    }
    let _ = any_spawner::Executor::init_wasm_bindgen();
    let place = PLACE.with(|known| {
        let begin = || {
            let owner = Owner::new();
            let place = owner.with(place::follow);
            (owner, place)
        };
        known.get_or_init(begin).1
    });
    place.go(address, true);
    place
}

/// The console's own style sheets, for as long as this lives: where rows lie is theirs.
struct Styled(Element);

impl Styled {
    fn new() -> Self {
        let style = document().create_element("style").unwrap();
        style.set_text_content(Some(concat!(
            include_str!("../../../style/base.css"),
            include_str!("../../../style/parts.css"),
            include_str!("../../../style/runs.css"),
            include_str!("../../../style/curves.css"),
            // Whether the page is taller than the window changes no width.
            "html { overflow-y: scroll }",
        )));
        document().head().unwrap().append_child(&style).unwrap();
        Self(style)
    }
}

impl Drop for Styled {
    fn drop(&mut self) {
        self.0.remove();
    }
}

/// A clipboard in the place of the browser's, for as long as this lives.
struct Clipboard {
    held: Rc<RefCell<Vec<String>>>,
    _write: Closure<dyn FnMut(String) -> Promise>,
}

impl Clipboard {
    fn new(refuses: bool) -> Self {
        let held = Rc::new(RefCell::new(Vec::new()));
        let taken = Rc::clone(&held);
        let write = Closure::<dyn FnMut(String) -> Promise>::new(move |text| {
            if refuses {
                return Promise::reject(&JsValue::from_str("not allowed"));
            }
            taken.borrow_mut().push(text);
            Promise::resolve(&JsValue::UNDEFINED)
        });
        let clipboard = Object::new();
        Reflect::set(&clipboard, &"writeText".into(), write.as_ref()).unwrap();
        let property = Object::new();
        Reflect::set(&property, &"value".into(), &clipboard).unwrap();
        Reflect::set(&property, &"configurable".into(), &JsValue::TRUE).unwrap();
        assert!(Reflect::define_property(&window().navigator(), &"clipboard".into(), &property).unwrap());
        Self { held, _write: write }
    }

    /// What was put on it, in order.
    fn held(&self) -> Vec<String> {
        self.held.borrow().clone()
    }
}

impl Drop for Clipboard {
    fn drop(&mut self) {
        // The browser's own stands behind it.
        let _ = Reflect::delete_property(&window().navigator(), &"clipboard".into());
    }
}

/// A few milliseconds later.
async fn soon() {
    let timer = Promise::new(&mut |resolve, _| {
        let _ = window().set_timeout_with_callback_and_timeout_and_arguments_0(&resolve, 5);
    });
    wasm_bindgen_futures::JsFuture::from(timer).await.unwrap();
}

/// Once the browser has drawn a frame, and done what it was to do with it.
async fn drawn() {
    for _ in 0..2 {
        let frame = Promise::new(&mut |resolve, _| {
            let _ = window().request_animation_frame(&resolve);
        });
        wasm_bindgen_futures::JsFuture::from(frame).await.unwrap();
    }
    settled().await;
}

/// Waits until it is so: a browser tells of some things in tasks of their own, and of others with its next frame. Whether it
/// has come to it.
async fn comes(holds: impl Fn() -> bool) -> bool {
    for _ in 0..400 {
        settled().await;
        if holds() {
            return true;
        }
        soon().await;
    }
    false
}

/// Waits until it is so, as it has to be.
async fn until(what: &str, holds: impl Fn() -> bool) {
    assert!(comes(holds).await, "it did not come to it that {what}");
}

/// Presses a key, as `ArrowDown` or `Ctrl+Shift+End`. Whether the page has taken it, so that the browser does nothing of its
/// own with it.
fn press(on: &Element, keys: &str) -> bool {
    let (held, key) = match keys.rsplit_once('+') {
        Some((held, key)) if !held.is_empty() && !key.is_empty() => (held, key),
        _ => ("", keys),
    };
    let init = web_sys::KeyboardEventInit::new();
    init.set_key(key);
    init.set_bubbles(true);
    init.set_cancelable(true);
    init.set_shift_key(held.contains("Shift"));
    init.set_ctrl_key(held.contains("Ctrl"));
    init.set_meta_key(held.contains("Meta"));
    let event = web_sys::KeyboardEvent::new_with_keyboard_event_init_dict("keydown", &init).unwrap();
    !on.dispatch_event(&event).unwrap()
}

/// An event of the pointer, so far from the window's left edge.
fn point(on: &Element, kind: &str, x: f64) {
    let init = web_sys::PointerEventInit::new();
    init.set_bubbles(true);
    init.set_cancelable(true);
    init.set_client_x(x.round() as i32);
    let event = web_sys::PointerEvent::new_with_event_init_dict(kind, &init).unwrap();
    on.dispatch_event(&event).unwrap();
}

/// An event without more to it.
fn happen(on: &EventTarget, kind: &str) {
    on.dispatch_event(&web_sys::Event::new(kind).unwrap()).unwrap();
}

/// Writes a text into a field, in the place of the one that was there.
fn write(field: &HtmlInputElement, text: &str) {
    field.set_value(text);
    happen(field, "input");
}

/// Chooses an option of a list.
fn choose(list: &web_sys::HtmlSelectElement, value: &str) {
    list.set_value(value);
    happen(list, "change");
}
