//! Taking over a restored run: who owns it now, and how to go on with it.

use crate::prelude::*;
use leptos::reactive::spawn_local;
use retinker::host::api::{ApiProblem, Snippet};
use retinker::recovery::ownership::heartbeats_until;
use retinker::recovery::restore::{Attachment, RestoreRecord};
use retinker_console::words;

use super::copy::copy_button;
use super::reactive::{maybe, text};
use super::snippets::snippet_tabs;
use super::time::clock;
use crate::live::session;

/// The panel of a restored run. Once a program has taken it over, its ids lead nowhere: the sequence number is used.
/// `taken` says so.
pub(crate) fn hand_over_panel(
    restore: RestoreRecord,
    snippets: Vec<Snippet>,
    is_free: bool,
    taken: Signal<String>,
) -> AnyView {
    let session = session();
    let now = session.now;
    let busy = RwSignal::new(false);
    let problem = RwSignal::new(None::<ApiProblem>);
    let id = restore.id.clone();
    let hand_over = move || {
        if busy.get_untracked() {
            return;
        }
        busy.set(true);
        problem.set(None);
        let (session, id) = (session.clone(), id.clone());
        spawn_local(async move {
            match session.host.hand_over(&id).await {
                // The run is read again: its restore tells the rest.
                Ok(_) => session.read_again(),
                Err(refused) => {
                    session.notice(&refused);
                    let _ = problem.try_set(Some(refused));
                    let _ = busy.try_set(false);
                }
            }
        });
    };
    let until = heartbeats_until(&restore);
    let owner = text(move || match until {
        Some(until) if now.get() < until.as_millis() => format!(
            "Handed over. retinker keeps the session alive until {}, beside whoever attaches; after that it is \
             theirs alone.",
            clock(until)
        ),
        Some(until) => format!(
            "Handed over. retinker kept the session alive until {}; since then it is theirs alone who attached.",
            clock(until)
        ),
        None if is_free => {
            "retinker owns this run's session and keeps it alive until a program takes it over.".to_owned()
        }
        None => "retinker keeps the session alive beside it until you hand it over.".to_owned(),
    });
    let ids = restore.attachment.filter(|_| is_free).map(attachment_ids);
    let code = (is_free && !snippets.is_empty()).then(|| snippet_tabs(&snippets));
    let trouble = maybe(move || {
        let problem = problem.get()?;
        Some(view! {
            <section class="note" role="alert" data-testid="banner-problem" data-code=problem.code.clone()>
                <strong>{words::problem_heading(&problem)}</strong>
                <p>{problem.message} " " {problem.hint}</p>
            </section>
        })
    });
    let offer = until.is_none().then(|| {
        view! {
            <div class="actions">
                <button
                    type="button"
                    class="button"
                    data-testid="hand-over-button"
                    disabled=busy.signal()
                    on:click=move |_| hand_over()
                >
                    "Hand over"
                </button>
                <span class="quiet">
                    "When your program has attached: retinker then lets go of the session after a while."
                </span>
            </div>
        }
    });
    view! {
        <section class="panel" data-testid="hand-over-panel">
            <h2>"Go on with this run"</h2>
            <p data-testid="session-owner">{taken} {owner}</p>
            {ids}
            {code}
            {trouble}
            {offer}
        </section>
    }
}

fn attachment_ids(attachment: Attachment) -> AnyView {
    let rows = [
        ("Session", "attachment-session", attachment.session_id, "the session's id"),
        ("Model", "attachment-model", attachment.model_id, "the model's id"),
        ("Next seq_id", "attachment-seq", attachment.next_seq_id.to_string(), "the next sequence number"),
    ];
    let rows = rows
        .into_iter()
        .map(|(label, testid, value, what)| {
            view! {
                <dt>{label}</dt>
                <dd>
                    <span class="mono break" data-testid=testid>
                        {value.clone()}
                    </span>
                    {copy_button(Signal::stored(value), what)}
                </dd>
            }
        })
        .collect::<Vec<_>>();
    view! { <dl class="facts">{rows}</dl> }
}
