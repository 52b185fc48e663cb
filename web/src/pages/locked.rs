//! Pages that show nothing of the service: no token, and no such page.

use crate::prelude::*;
use retinker::host::api::ApiProblem;
use retinker_console::address::at;
use retinker_console::words;

use crate::browser;
use crate::components::connections::connection_list;

/// The host would answer nothing: the token is missing or not the host's, or the address names no connection of it.
pub(crate) fn locked(problem: ApiProblem) -> AnyView {
    if words::is_connection_problem(&problem) {
        return no_connection(problem);
    }
    browser::set_title("Locked");
    view! {
        <section class="lonely" data-testid="locked" data-code=problem.code>
            <h1 id="page-title" tabindex="-1">"Open the address that retinker printed"</h1>
            <p>{problem.message}</p>
            <p>
                "At its start retinker prints an address that ends in " <code>"#token=…"</code>
                ". The token is made anew each time, so that nobody else on this machine can use your service. Open \
                 that whole address in this tab."
            </p>
        </section>
    }
}

fn no_connection(problem: ApiProblem) -> AnyView {
    browser::set_title("No such connection");
    view! {
        <section class="lonely" data-testid="no-connection" data-code=problem.code>
            <h1 id="page-title" tabindex="-1">"There is no such connection"</h1>
            <p>{problem.message}</p>
            <p>{problem.hint}</p>
            {connection_list()}
        </section>
    }
}

/// There is no page at this address.
pub(crate) fn not_found() -> AnyView {
    browser::set_title("No such page");
    view! {
        <section class="lonely" data-testid="not-found">
            <h1 id="page-title" tabindex="-1">"There is no page here"</h1>
            <p>"The address is mistyped, or from another version of retinker."</p>
            <p><a class="button primary" href=at("/")>"All runs"</a></p>
        </section>
    }
}
