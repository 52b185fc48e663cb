//! What the page asks of the browser. Everything that a browser may refuse (storage, clipboard) fails quietly here,
//! and the caller says so to the person.

use leptos::prelude::{document, window};
use retinker::direction::isolated;
use retinker::wire::time::Time;
use retinker_console::address;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

const TOKEN_KEY: &str = "retinker.token";
const THEME_KEY: &str = "retinker.theme";

/// The wall clock, in milliseconds.
pub(crate) fn now() -> i64 {
    js_sys::Date::now() as i64
}

/// Minutes east of UTC at this time, as the viewer's clock has it.
pub(crate) fn offset_minutes(time: Time) -> i32 {
    let date = js_sys::Date::new(&JsValue::from_f64(time.as_millis() as f64));
    let west = date.get_timezone_offset();
    if west.is_finite() { -(west as i32) } else { 0 }
}

/// The page's title.
pub(crate) fn set_title(title: &str) {
    // Two tabs of two connections are told apart by it.
    let connection = address::connection_shown().map(|name| format!(" · {name}")).unwrap_or_default();
    document().set_title(&format!("{}{connection} · retinker", isolated(title)));
}

/// Saves a text as a file, as a click on a link does.
pub(crate) fn download(name: &str, text: &str) {
    let save = || -> Result<(), JsValue> {
        let kind = web_sys::BlobPropertyBag::new();
        kind.set_type("application/json");
        let parts = js_sys::Array::of1(&JsValue::from_str(text));
        let blob = web_sys::Blob::new_with_str_sequence_and_options(&parts, &kind)?;
        let address = web_sys::Url::create_object_url_with_blob(&blob)?;
        let link: web_sys::HtmlAnchorElement = document().create_element("a")?.unchecked_into();
        link.set_href(&address);
        link.set_download(name);
        link.click();
        web_sys::Url::revoke_object_url(&address)
    };
    let _ = save();
}

/// The path and the query of the page's address, the query without its `?`.
pub(crate) fn place() -> (String, String) {
    let location = window().location();
    let query = location.search().unwrap_or_default();
    (location.pathname().unwrap_or_default(), query.trim_start_matches('?').to_owned())
}

/// Puts another address into the address bar; with `replace`, or where it is there already, in the place of this one.
pub(crate) fn go(to: &str, replace: bool) {
    let Ok(history) = window().history() else { return };
    let before = place();
    let is_same = to == before.0 || to == format!("{}?{}", before.0, before.1);
    let _ = if replace || is_same {
        history.replace_state_with_url(&JsValue::NULL, "", Some(to))
    } else {
        history.push_state_with_url(&JsValue::NULL, "", Some(to))
    };
}

/// Shows the top of the page.
pub(crate) fn scroll_to_top() {
    window().scroll_to_with_x_and_y(0.0, 0.0);
}

/// Has the browser save what is at an address as a file, as a click on a link does.
pub(crate) fn save_from(address: &str) {
    let save = || -> Result<(), JsValue> {
        let link: web_sys::HtmlAnchorElement = document().create_element("a")?.unchecked_into();
        link.set_href(address);
        link.set_download("");
        link.click();
        Ok(())
    };
    let _ = save();
}

/// An attribute of the element that an event happened at.
pub(crate) fn attribute_of_target(event: &web_sys::Event, name: &str) -> Option<String> {
    event.target()?.dyn_into::<web_sys::Element>().ok()?.get_attribute(name)
}

/// The origin that served the page.
pub(crate) fn origin() -> String {
    window().location().origin().unwrap_or_default()
}

/// Takes the token out of the address into this tab's storage, and gives the one to use. The address keeps no token:
/// it would be in the history and in every copied link.
pub(crate) fn take_token() -> Option<String> {
    let location = window().location();
    let fragment = location.hash().unwrap_or_default();
    if let Some(token) = address::token_in(&fragment) {
        let path = location.pathname().unwrap_or_else(|_| "/".to_owned());
        let query = location.search().unwrap_or_default();
        if let Ok(history) = window().history() {
            let _ = history.replace_state_with_url(&JsValue::NULL, "", Some(&format!("{path}{query}")));
        }
        keep_token(token);
        return Some(token.to_owned());
    }
    window().session_storage().ok().flatten().and_then(|storage| storage.get_item(TOKEN_KEY).ok().flatten())
}

/// Begins anew when a token has been put into the address of the open page.
pub(crate) fn take_new_token() {
    let fragment = window().location().hash().unwrap_or_default();
    if address::token_in(&fragment).is_some() {
        let _ = take_token();
        let _ = window().location().reload();
    }
}

fn keep_token(token: &str) {
    if let Ok(Some(storage)) = window().session_storage() {
        let _ = storage.set_item(TOKEN_KEY, token);
    }
}

/// The colours that were chosen: `light`, `dark`, or nothing for those of the system.
pub(crate) fn theme() -> &'static str {
    match root_attribute("data-theme").as_deref() {
        Some("dark") => "dark",
        Some("light") => "light",
        _ => "",
    }
}

/// Uses these colours, and remembers it.
pub(crate) fn set_theme(theme: &str) {
    if let Some(root) = document().document_element() {
        let _ = match theme {
            "" => root.remove_attribute("data-theme"),
            theme => root.set_attribute("data-theme", theme),
        };
    }
    store(THEME_KEY, theme);
}

/// The page's address.
pub(crate) fn address() -> String {
    window().location().href().unwrap_or_default()
}

/// Scrolls so far that an element is seen.
pub(crate) fn show(id: &str) {
    if let Some(element) = document().get_element_by_id(id) {
        element.scroll_into_view_with_bool(false);
    }
}

/// What this browser has kept under a name; nothing where it keeps nothing.
pub(crate) fn stored(key: &str) -> String {
    window()
        .local_storage()
        .ok()
        .flatten()
        .and_then(|kept| kept.get_item(key).ok().flatten())
        .unwrap_or_default()
}

/// Keeps a text under a name, in this browser; `false` where it keeps nothing.
pub(crate) fn store(key: &str, text: &str) -> bool {
    window().local_storage().ok().flatten().is_some_and(|kept| kept.set_item(key, text).is_ok())
}

/// The window's height in pixels.
pub(crate) fn height() -> f64 {
    window().inner_height().ok().and_then(|height| height.as_f64()).unwrap_or(800.0)
}

/// Scrolls a frame sideways so far that an element in it is seen.
pub(crate) fn show_sideways(frame: &web_sys::HtmlElement, id: &str) -> Option<()> {
    let element = document().get_element_by_id(id)?;
    let (seen, wanted) = (frame.get_bounding_client_rect(), element.get_bounding_client_rect());
    let by = if wanted.left() < seen.left() {
        wanted.left() - seen.left()
    } else {
        (wanted.right() - seen.right()).max(0.0)
    };
    if by != 0.0 {
        frame.set_scroll_left(frame.scroll_left().saturating_add(by as i32));
    }
    Some(())
}

/// Whether the page can be seen.
pub(crate) fn is_visible() -> bool {
    document().visibility_state() != web_sys::VisibilityState::Hidden
}

/// Puts text on the clipboard. `false` when the browser has none or refuses.
pub(crate) async fn copy(text: &str) -> bool {
    // Outside a secure context there is no clipboard object, and asking it would throw.
    if !window().is_secure_context() {
        return false;
    }
    JsFuture::from(window().navigator().clipboard().write_text(text)).await.is_ok()
}

/// Gives the keyboard to an element.
pub(crate) fn focus(id: &str) {
    if let Some(element) =
        document().get_element_by_id(id).and_then(|e| e.dyn_into::<web_sys::HtmlElement>().ok())
    {
        let _ = element.focus();
    }
}

/// How wide an element is now, in pixels; `None` where it is not drawn.
pub(crate) fn width_of(id: &str) -> Option<f64> {
    let width = document().get_element_by_id(id)?.client_width();
    (width > 0).then_some(f64::from(width))
}

/// Where an element begins, in pixels from the window's left edge.
pub(crate) fn left_of(id: &str) -> Option<f64> {
    Some(document().get_element_by_id(id)?.get_bounding_client_rect().left())
}

/// Whether the `<details>` that was just turned is open.
pub(crate) fn is_open(event: &web_sys::Event) -> bool {
    let target = event.target().and_then(|target| target.dyn_into::<web_sys::Element>().ok());
    target.is_some_and(|element| element.has_attribute("open"))
}

/// A number with every digit that tells it from its neighbours.
pub(crate) fn every_digit(value: f64) -> String {
    js_sys::Number::from(value).to_string_with_radix(10).map_or_else(|_| String::new(), String::from)
}

/// Takes away what the static page showed before the program was there.
pub(crate) fn remove_skeleton() {
    if let Some(element) = document().get_element_by_id("skeleton") {
        element.remove();
    }
}

/// Says in the page that the program has stopped, since nothing else can any more. Used by the panic hook, so it
/// must not fail itself.
pub(crate) fn show_fatal(detail: &str) {
    let Some(document) = web_sys::window().and_then(|window| window.document()) else { return };
    if let Some(element) = document.get_element_by_id("fatal-detail") {
        element.set_text_content(Some(detail));
    }
    if let Some(element) = document.get_element_by_id("fatal") {
        let _ = element.remove_attribute("hidden");
    }
}

fn root_attribute(name: &str) -> Option<String> {
    document().document_element().and_then(|root| root.get_attribute(name))
}

/// Whether the screen is such.
pub(crate) fn media(query: &str) -> bool {
    window().match_media(query).ok().flatten().is_some_and(|list| list.matches())
}
