//! The services that the host stands before, and the way from one to another.

use crate::prelude::*;
use retinker::host::api::{ApiProblem, ConnectionInfo, Connections};
use retinker_console::address::{at, connection_shown, on};
use retinker_console::connections::{kind, state};

use super::copy::copy_button;
use super::menu::menu_of;
use super::reactive::{flag, maybe, text, word};
use crate::live::{Loaded, load, session};

type Read = RwSignal<Loaded<Connections>>;

/// The service that the page shows, and beneath it the way to the others.
pub(crate) fn connection_menu() -> AnyView {
    let status = session().status;
    let service = Memo::new(move |_| status.with(|s| s.data.as_ref().map(|status| status.service.clone())));
    let name = text(move || service.with(|s| s.as_ref().map(|s| s.name.clone()).unwrap_or_default()));
    let base_url = text(move || service.with(|s| s.as_ref().map(|s| s.base_url.clone()).unwrap_or_default()));
    let down = flag(move || service.with(|s| s.as_ref().is_some_and(|s| s.problem.is_some())));
    let unread = flag(move || service.with(Option::is_none));
    let what = word(move || service.with(|s| s.as_ref().map(|s| kind(s.kind))));
    let shown = view! {
        <span class="said">"Connections. Shown: "</span>
        <strong>{name}</strong>
        <span class="mono service-url">{base_url}</span>
    };
    // What the host knows of them is a moment's: it is read when the menu is opened.
    let content = || {
        view! {
            <div class="connections" data-testid="connections">
                {connection_list()}
                <p class="quiet">"More are given where retinker is started."</p>
                <p>
                    <a href=at("/welcome")>"How to begin"</a>
                </p>
            </div>
        }
    };
    view! {
        <span class="service" class:down=down hidden=unread data-testid="service" title=what>
            {menu_of(shown.into_any(), "service-open", "connections-open", content)}
            {copy_button(base_url, "the service's address")}
        </span>
    }
}

/// All connections, as the host knows them now.
pub(crate) fn connection_list() -> AnyView {
    let all: Read = load(Memo::new(|_| ()), session().any_change, true, |host, ()| {
        Box::pin(async move { host.connections().await })
    });
    let known = Memo::new(move |_| all.with(|all| all.data.clone()));
    let problem: Memo<Option<ApiProblem>> = Memo::new(move |_| all.with(|all| all.problem.clone()));
    let list = maybe(move || {
        let all = known.get()?.connections;
        let rows: Vec<_> = all.iter().zip(0..).map(|(one, at)| line(one, at == 0)).collect();
        Some(view! { <ul class="connection-list">{rows}</ul> })
    });
    view! {
        {list}
        {maybe(move || {
            problem.get().map(|problem| view! { <p role="alert">{problem.message}</p> })
        })}
    }
}

/// A link to one. It loads the page anew, so that nothing of the other is left on it.
fn line(connection: &ConnectionInfo, is_first: bool) -> AnyView {
    let here = match connection_shown() {
        Some(name) => name == connection.name,
        None => is_first,
    };
    let (code, words) = state(connection);
    view! {
        <li>
            <a
                href=on("/", &connection.name)
                rel="external"
                aria-current=here.then_some("true")
                data-testid="connection"
                data-name=connection.name.clone()
                data-state=code
            >
                <strong>{connection.title.clone()}</strong>
                <span class="connection-state">{words}</span>
                <span class="mono quiet connection-url">{connection.base_url.clone()}</span>
            </a>
        </li>
    }
}
