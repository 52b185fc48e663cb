//! Models tried: samples that go on from a prompt, of one model or of two side by side, token by token.

use crate::prelude::*;
use retinker::host::api::ApiProblem;
use retinker::host::samples::{
    MAX_SAMPLES, MAX_TOKENS, Sample, SampleRequest, SampleSources, SampleToken, Samples,
};
use retinker_console::address::trial_address;
use retinker_console::sessions::tried;
use retinker_console::tokens::{self, Form, SHADES};
use retinker_console::{format, words};

use crate::browser;
use crate::components::banner::problems;
use crate::components::copy::copy_button;
use crate::components::heads::heads;
use crate::components::page_head::page_head;
use crate::components::reactive::{flag, maybe, part, text, when};
use crate::live::{Loaded, load, session, until_cleanup};
use crate::place::place;

/// What became of one model's samples.
#[derive(Clone)]
enum State {
    None,
    Running,
    Done(Samples),
    Failed(ApiProblem),
}

/// One model: what is sampled from, what is asked of it, and what came.
#[derive(Clone, Copy)]
struct Side {
    source: RwSignal<String>,
    asked: RwSignal<Option<SampleRequest>>,
    state: RwSignal<State>,
}

impl Side {
    fn new(source: String) -> Self {
        Self { source: RwSignal::new(source), asked: RwSignal::new(None), state: RwSignal::new(State::None) }
    }

    /// Asks whenever there is something to be asked. Another wish, or none, and leaving the page cut the one off that is
    /// under way.
    fn follow(self) {
        let session = session();
        Effect::new(move |_| {
            let Some(request) = self.asked.get() else { return };
            self.state.set(State::Running);
            let session = session.clone();
            until_cleanup(Box::pin(async move {
                let state = match session.host.sample(&request).await {
                    Ok(samples) => State::Done(samples),
                    Err(problem) => {
                        session.notice(&problem);
                        State::Failed(problem)
                    }
                };
                self.state.set(state);
            }));
        });
    }

    fn runs(self) -> bool {
        self.state.with(|state| matches!(state, State::Running))
    }

    fn stop(self) {
        self.asked.set(None);
        if self.state.with_untracked(|state| matches!(state, State::Running)) {
            self.state.set(State::None);
        }
    }
}

/// The page `/try`.
pub(crate) fn trial_page() -> AnyView {
    let place = place();
    let address = Memo::new(move |_| place.query.with(|query| tried(query)));
    let (path, with) = address.get_untracked();
    let (one, other) = (Side::new(path), Side::new(with));
    one.follow();
    other.follow();
    // Back, forward and links change the address; the fields follow.
    Effect::new(move |_| {
        let (path, with) = address.get();
        for (side, source) in [(one, path), (other, with)] {
            if side.source.with_untracked(|known| known.trim() != source) {
                side.source.set(source);
            }
        }
    });
    let sources: RwSignal<Loaded<SampleSources>> =
        load(Memo::new(|_| ()), session().asked_again, true, |host, ()| {
            Box::pin(async move { host.sample_sources().await })
        });
    let form = session().trial;
    let refusal = RwSignal::new(String::new());
    let running = Memo::new(move |_| one.runs() || other.runs());
    let run = move || {
        if running.get_untracked() {
            return;
        }
        let second = other.source.with_untracked(|source| !source.trim().is_empty());
        let requests = form.with_untracked(|form| {
            let first = one.source.with_untracked(|source| form.request(source))?;
            let second = match second {
                true => Some(other.source.with_untracked(|source| form.request(source))?),
                false => None,
            };
            Ok::<_, String>((first, second))
        });
        match requests {
            Ok((first, second)) => {
                refusal.set(String::new());
                one.asked.set(Some(first));
                if second.is_none() {
                    other.state.set(State::None);
                }
                other.asked.set(second);
            }
            Err(sentence) => refusal.set(sentence),
        }
    };
    let stop = move |_| {
        one.stop();
        other.stop();
    };
    let own = Signal::derive(move || sources.with(|s| s.problem.clone().into_iter().collect::<Vec<_>>()));
    let keys = move |event: leptos::ev::KeyboardEvent| {
        if event.key() == "Enter" && (event.ctrl_key() || event.meta_key()) {
            event.prevent_default();
            run();
        }
    };
    let send = move |event: leptos::ev::SubmitEvent| {
        event.prevent_default();
        run();
    };
    let about = view! {
        <p class="shown">"Samples go on from your prompt. Checkpoints for samplers and base models can be tried."</p>
    };
    view! {
        {page_head("Try it", about)}
        {problems(own, text(|| "Paths can be written all the same.".to_owned()))}
        <form class="panel trial" on:submit=send on:keydown=keys>
            <div class="trial-sources">
                {source_field("Sample from", "try-source", one, one, other)}
                {source_field("Compare with (if you like)", "try-with", other, one, other)}
            </div>
            {offered(sources)}
            <label class="field stacked">
                <span class="field-name">
                    {text(move || {
                        if form.with(|form| form.is_numbers) { "Prompt, as token numbers" } else { "Prompt" }.to_owned()
                    })}
                </span>
                <textarea
                    rows="4"
                    data-testid="try-prompt"
                    spellcheck="false"
                    maxlength="200000"
                    prop:value=form.with_untracked(|form| form.prompt.clone())
                    on:input=move |event| form.update(|form| form.prompt = event_target_value(&event))
                ></textarea>
            </label>
            <div class="trial-options">
                {number("Most tokens", "try-max-tokens", form, |form| &mut form.max_tokens)}
                {number("Samples", "try-samples", form, |form| &mut form.num_samples)}
                {number("Temperature", "try-temperature", form, |form| &mut form.temperature)}
                {number("Top-p", "try-top-p", form, |form| &mut form.top_p)}
                {number("Top-k", "try-top-k", form, |form| &mut form.top_k)}
                {number("Seed", "try-seed", form, |form| &mut form.seed)}
            </div>
            <div class="trial-options">
                {tick("Score the prompt too", "try-prompt-logprobs", form, |form| &mut form.prompt_logprobs)}
                {tick("The prompt is token numbers", "try-numbers", form, |form| &mut form.is_numbers)}
            </div>
            <p class="quiet">
                {format!(
                    "Empty fields mean: temperature 1, all tokens, any seed. At most {} tokens and {MAX_SAMPLES} samples.",
                    format::count(MAX_TOKENS.into()),
                )}
            </p>
            <p class="strong" role="alert" data-testid="try-refusal">
                {refusal.signal()}
            </p>
            <div class="actions">
                <button
                    type="submit"
                    class="button primary"
                    data-testid="try-run"
                    aria-keyshortcuts="Control+Enter Meta+Enter"
                    disabled=flag(move || running.get())
                >
                    "Sample"
                </button>
                {when(
                    move || running.get(),
                    move || {
                        view! {
                            <button type="button" class="button" data-testid="try-stop" on:click=stop>
                                "Stop"
                            </button>
                        }
                    },
                )}
                <span class="quiet">"Ctrl+Enter samples as well."</span>
            </div>
        </form>
        <div class="trial-sides">
            {result(one, "try-result")} {result(other, "try-result-with")}
        </div>
    }
}

fn source_field(name: &'static str, testid: &'static str, side: Side, one: Side, other: Side) -> AnyView {
    let place = place();
    // The address holds what is tried, and never the prompt, which may be private.
    let put = move |_| {
        let (path, with) = (one.source.get_untracked(), other.source.get_untracked());
        place.go(&trial_address(path.trim(), with.trim()), true);
    };
    view! {
        <label class="field stacked">
            <span class="field-name">{name}</span>
            <input
                type="text"
                class="mono"
                list="try-sources"
                autocomplete="off"
                spellcheck="false"
                maxlength="1000"
                placeholder="tinker://… or a base model"
                data-testid=testid
                prop:value=side.source.signal()
                on:input=move |event| side.source.set(event_target_value(&event))
                on:change=put
            />
        </label>
    }
}

fn offered(sources: RwSignal<Loaded<SampleSources>>) -> AnyView {
    let options = part(move || {
        sources.with(|s| {
            let Some(data) = &s.data else { return ().into_any() };
            let of_checkpoints = data.checkpoints.iter().map(|one| (one.path.clone(), one.run_name.clone()));
            let of_models = data.base_models.iter().map(|name| (name.clone(), "base model".to_owned()));
            let options: Vec<_> = of_models
                .chain(of_checkpoints)
                .map(|(value, label)| view! { <option value=value>{label}</option> })
                .collect();
            options.into_any()
        })
    });
    let more = maybe(move || {
        sources.with(|s| s.data.as_ref().is_some_and(|data| data.more)).then(|| {
            view! { <p class="quiet" data-testid="try-more">"The newest are offered: write the path of any other."</p> }
        })
    });
    view! {
        <datalist id="try-sources" data-testid="try-sources">
            {options}
        </datalist>
        {more}
    }
}

fn number(
    name: &'static str,
    testid: &'static str,
    form: RwSignal<Form>,
    field: fn(&mut Form) -> &mut String,
) -> AnyView {
    let value = field(&mut form.get_untracked()).clone();
    view! {
        <label class="field stacked">
            <span class="field-name">{name}</span>
            <input
                type="text"
                inputmode="decimal"
                autocomplete="off"
                maxlength="40"
                size="7"
                value=value
                data-testid=testid
                on:input=move |event| form.update(|form| *field(form) = event_target_value(&event))
            />
        </label>
    }
}

fn tick(
    name: &'static str,
    testid: &'static str,
    form: RwSignal<Form>,
    field: fn(&mut Form) -> &mut bool,
) -> AnyView {
    let on = *field(&mut form.get_untracked());
    view! {
        <label class="option">
            <input
                type="checkbox"
                data-testid=testid
                prop:checked=on
                on:change=move |event| form.update(|form| *field(form) = event_target_checked(&event))
            />
            <span>{name}</span>
        </label>
    }
}

/// What became of one side.
fn result(side: Side, testid: &'static str) -> AnyView {
    maybe(move || match side.state.get() {
        State::None => None,
        State::Running => Some(view! {
            <section class="panel" data-testid=testid data-state="running">
                <p role="status">"Sampling…"</p>
            </section>
        }),
        State::Failed(problem) => Some(view! {
            <section class="panel" role="alert" data-testid=testid data-state="failed" data-code=problem.code.clone()>
                <strong>{words::problem_heading(&problem)}</strong>
                <p class="break">{problem.message}</p>
                <p class="quiet">{problem.hint}</p>
            </section>
        }),
        State::Done(samples) => Some(done(samples, testid)),
    })
}

fn done(samples: Samples, testid: &'static str) -> AnyView {
    let Samples { source, base_model, prompt, samples, took_ms, no_text_because } = samples;
    let has_text = no_text_because.is_none();
    let drawn: usize = samples.iter().map(|sample| sample.tokens.len()).sum();
    let told = format!(
        "{} in {}.{:02} s",
        format::counted(drawn as u64, "token", "tokens"),
        took_ms / 1000,
        took_ms % 1000 / 10
    );
    let many = samples.len() > 1;
    let prompt = prompt
        .iter()
        .any(|token| token.logprob.is_some())
        .then(|| token_text("The prompt".to_owned(), String::new(), prompt, has_text, "prompt-tokens"));
    let samples: Vec<_> = samples
        .into_iter()
        .enumerate()
        .map(|(at, Sample { tokens, stop_reason })| {
            let name = if many { format!("Sample {}", at + 1) } else { "Sample".to_owned() };
            let end = match stop_reason.as_str() {
                "stop" => "ended by itself".to_owned(),
                "length" => "cut off: as long as it may be".to_owned(),
                other => other.to_owned(),
            };
            let told = format!("{}, {end}", format::counted(tokens.len() as u64, "token", "tokens"));
            token_text(name, told, tokens, has_text, "sample-tokens")
        })
        .collect();
    let legend: Vec<_> = SHADES
        .into_iter()
        .map(|(step, name)| view! { <span class=format!("token p{step}")>{name}</span> })
        .collect();
    view! {
        <section class="panel" data-testid=testid data-state="done">
            <h2 class="break mono">{source.clone()}</h2>
            <p class="quiet">
                {(base_model != source).then_some(format!("on {base_model}; "))} {told}
            </p>
            {no_text_because
                .map(|why| {
                    view! {
                        <p class="note break">
                            "Only token numbers can be shown: " {why}
                        </p>
                    }
                })}
            {prompt}
            {samples}
            <p class="quiet legend">"How probable: " {legend}</p>
        </section>
    }
}

/// A text made of tokens. The keyboard goes through them by arrow keys, the mouse by being over them; the line beneath tells
/// of one.
fn token_text(
    name: String,
    told: String,
    tokens: Vec<SampleToken>,
    has_text: bool,
    testid: &'static str,
) -> AnyView {
    let count = tokens.len();
    let pieces: Vec<_> = tokens
        .iter()
        .enumerate()
        .map(|(at, token)| {
            let class = tokens::shade(token.logprob).map_or("token", |step| {
                ["token p0", "token p1", "token p2", "token p3", "token p4"]
                    .get(usize::from(step))
                    .copied()
                    .unwrap_or("token")
            });
            view! { <span class=class data-at=at.to_string()>{tokens::visible(token, has_text)}</span> }
        })
        .collect();
    let whole = tokens::whole_text(&tokens);
    let tokens = StoredValue::new(tokens);
    let at = RwSignal::new(None::<usize>);
    let line = text(move || match at.get() {
        Some(at) => tokens.with_value(|tokens| {
            tokens.get(at).map(|token| tokens::told(at, count, token, has_text)).unwrap_or_default()
        }),
        None => String::new(),
    });
    let node = NodeRef::<web_sys::HtmlElement>::new();
    // The one that is told of is marked. By hand, since thousands of tokens that each watch for it would be slow.
    Effect::new(move |before: Option<Option<usize>>| {
        let now = at.get();
        if let Some(node) = node.get() {
            let mark = |at: Option<usize>, on: bool| {
                let child = at.and_then(|at| node.query_selector(&format!("[data-at=\"{at}\"]")).ok()?);
                if let Some(child) = child {
                    let _ = child.class_list().toggle_with_force("here", on);
                }
            };
            mark(before.flatten(), false);
            mark(now, true);
        }
        now
    });
    let keys = move |event: leptos::ev::KeyboardEvent| {
        let last = count.saturating_sub(1);
        let next = match (event.key().as_str(), at.get_untracked()) {
            ("ArrowRight" | "ArrowDown", now) => now.map_or(0, |now| now.saturating_add(1).min(last)),
            ("ArrowLeft" | "ArrowUp", now) => now.unwrap_or_default().saturating_sub(1),
            ("Home", _) => 0,
            ("End", _) => last,
            _ => return,
        };
        event.prevent_default();
        at.set(Some(next));
    };
    let over = move |event: leptos::ev::MouseEvent| {
        let place = browser::attribute_of_target(&event, "data-at").and_then(|place| place.parse().ok());
        if place.is_some() && place != at.get_untracked() {
            at.set(place);
        }
    };
    let open = RwSignal::new(false);
    let label = format!("{name}: arrow keys go from token to token");
    view! {
        <div class="sampled">
            <p class="sampled-head">
                <strong>{name}</strong>
                <span class="quiet">{told}</span>
                {has_text.then(|| copy_button(Signal::stored(whole), "the text"))}
            </p>
            <div
                class="tokens"
                node_ref=node
                tabindex="0"
                role="group"
                aria-label=label
                data-testid=testid
                on:keydown=keys
                on:mouseover=over
                on:focus=move |_| {
                    if at.get_untracked().is_none() && count > 0 {
                        at.set(Some(0));
                    }
                }
            >
                {pieces}
            </div>
            <p class="token-told mono" role="status" data-testid="token-told">
                {line}
            </p>
            <details on:toggle=move |_| open.update(|open| *open = !*open)>
                <summary>"All tokens as a table"</summary>
                {when(move || open.get(), move || tokens.with_value(|tokens| token_table(tokens, has_text)))}
            </details>
        </div>
    }
}

fn token_table(tokens: &[SampleToken], has_text: bool) -> AnyView {
    const HEADS: [(&str, &str); 5] = [
        ("number", "Place"),
        ("", "Text"),
        ("number", "Number"),
        ("number", "Log-probability"),
        ("number", "Probability"),
    ];
    let rows: Vec<_> = tokens
        .iter()
        .enumerate()
        .map(|(at, token)| {
            let score = token.logprob.map(|value| (tokens::logprob(value), tokens::percent(value)));
            let (logprob, percent) = score.unwrap_or_else(|| ("–".to_owned(), "–".to_owned()));
            let piece = if has_text { tokens::visible(token, true) } else { String::new() };
            view! {
                <tr role="row">
                    <td role="cell" class="number">
                        {at + 1}
                    </td>
                    <td role="cell" class="mono piece">
                        {piece}
                    </td>
                    <td role="cell" class="number">
                        {token.id}
                    </td>
                    <td role="cell" class="number" data-testid="token-logprob">
                        {logprob}
                    </td>
                    <td role="cell" class="number">
                        {percent}
                    </td>
                </tr>
            }
        })
        .collect();
    view! {
        <table class="token-table" role="table" aria-label="Tokens" data-testid="token-table">
            <thead role="rowgroup">
                <tr role="row">{heads(&HEADS)}</tr>
            </thead>
            <tbody role="rowgroup">{rows}</tbody>
        </table>
    }
}
