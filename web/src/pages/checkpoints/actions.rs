//! What can be done with one checkpoint, and with those that are selected.

use crate::prelude::*;
use leptos::reactive::spawn_local;
use retinker::host::checkpoints::{CheckpointDo, CheckpointItem, MAX_PATHS};
use retinker::wire::run::CheckpointType;
use retinker_console::address::{run_address, try_address};
use retinker_console::checkpoints::{Job, kind};
use retinker_console::format;

use super::{Desk, Sheet, deleting, downloads};
use crate::components::copy::copy_button;
use crate::components::reactive::{flag, maybe, nothing, text, when};
use crate::components::time::{expiry, when_it_was};

type Act = Box<dyn Fn() + Send>;

pub(super) fn button(
    class: &'static str,
    testid: &'static str,
    name: impl Into<Signal<String>>,
    act: Act,
) -> AnyView {
    view! {
        <button type="button" class=class data-testid=testid on:click=move |_| act()>
            {name.into()}
        </button>
    }
}

fn plain(testid: &'static str, name: &'static str, act: Act) -> AnyView {
    button("button", testid, name.to_owned(), act)
}

/// One checkpoint, and what can be done with it.
pub(super) fn one(desk: Desk, item: CheckpointItem) -> AnyView {
    let checkpoint = item.checkpoint;
    let path = checkpoint.tinker_path;
    let fact = |name: String, value: AnyView| {
        view! {
            <dt class="break">{name}</dt>
            <dd class="break">{value}</dd>
        }
    };
    let whole = view! {
        <span class="mono">{path.clone()}</span>
        {copy_button(Signal::stored(path.clone()), "the checkpoint's path")}
    };
    let run = view! { <a href=run_address(&item.run_id)><bdi>{item.run_name}</bdi></a> };
    let size = checkpoint.size_bytes.map_or_else(|| "not told".to_owned(), format::bytes);
    let mut facts = vec![
        fact("Path".to_owned(), whole.into_any()),
        fact("Run".to_owned(), run.into_any()),
        fact("Type".to_owned(), kind(&checkpoint.checkpoint_type).to_owned().into_any()),
        fact("Saved".to_owned(), when_it_was(checkpoint.time)),
        fact("Size".to_owned(), size.into_any()),
        fact("Expires".to_owned(), expiry(checkpoint.expires_at)),
    ];
    if let Some(because) = item.needed_because {
        facts.push(fact("Needed".to_owned(), view! { <bdi>{because}</bdi> }));
    }
    facts.extend(
        checkpoint
            .user_metadata
            .into_iter()
            .flatten()
            .map(|(key, value)| fact(key, view! { <bdi>{value}</bdi> })),
    );
    let paths = vec![path.clone()];
    let act = |action: CheckpointDo| {
        let paths = paths.clone();
        Box::new(move || desk.run(Job::requests(action, &paths, None, false))) as Act
    };
    let publish = if checkpoint.public {
        plain("unpublish", "Make private", act(CheckpointDo::Unpublish))
    } else {
        plain("publish", "Publish", act(CheckpointDo::Publish))
    };
    let copy = plain("copy", "Copy", act(CheckpointDo::Copy));
    let (alive, gone, file) = (paths.clone(), paths, path.clone());
    let try_it = (checkpoint.checkpoint_type == CheckpointType::Sampler).then(|| {
        view! {
            <a class="button" data-testid="try-it" href=try_address(&path)>
                "Try it"
            </a>
        }
    });
    view! {
        <dl class="facts">{facts}</dl>
        <div class="actions sheet-actions">
            {plain("download", "Download", Box::new(move || downloads::begin(desk, file.clone())))}
            {try_it}
            {publish}
            {copy}
            {plain("life", "Change its life…", Box::new(move || desk.show(Sheet::Life(alive.clone()))))}
            {plain("delete", "Delete…", Box::new(move || deleting::open(desk, gone.clone())))}
        </div>
    }
}

/// How long these shall live.
pub(super) fn life(desk: Desk, paths: Vec<String>) -> AnyView {
    const DAYS: [(u64, &str); 6] =
        [(1, "1 day"), (7, "7 days"), (30, "30 days"), (90, "90 days"), (365, "1 year"), (3650, "10 years")];
    let days = RwSignal::new(7_u64);
    let chosen = RwSignal::new(CheckpointDo::Extend);
    let options = move || {
        let option = |(number, name): (u64, &'static str)| {
            view! {
                <option value=number.to_string() prop:selected=flag(move || days.get() == number)>
                    {name}
                </option>
            }
        };
        DAYS.map(option).into_iter().collect::<Vec<_>>()
    };
    let choice = |action: CheckpointDo, testid: &'static str, name: &'static str| {
        view! {
            <label class="option">
                <input
                    type="radio"
                    name="life"
                    data-testid=testid
                    prop:checked=flag(move || chosen.get() == action)
                    on:change=move |_| chosen.set(action)
                />
                <span>{name}</span>
            </label>
        }
    };
    let name = format!("Change {}", format::counted(paths.len() as u64, "checkpoint", "checkpoints"));
    let confirm = move || {
        let action = chosen.get_untracked();
        let ttl = (action != CheckpointDo::Keep).then(|| days.get_untracked() * 86_400);
        desk.run(Job::requests(action, &paths, ttl, false));
    };
    view! {
        <fieldset class="options">
            <legend class="said">"How long"</legend>
            {choice(CheckpointDo::Extend, "life-extend", "So much longer than now")}
            {choice(CheckpointDo::Live, "life-from-now", "So long from now, even if that is sooner than now")}
            {choice(CheckpointDo::Keep, "life-keep", "For ever")}
        </fieldset>
        {when(
            move || chosen.get() != CheckpointDo::Keep,
            move || {
                view! {
                    <label class="field">
                        <span class="field-name">"Time"</span>
                        <select
                            data-testid="life-days"
                            on:change=move |event| days.set(event_target_value(&event).parse().unwrap_or(7))
                        >
                            {options()}
                        </select>
                    </label>
                }
            },
        )}
        <p class="quiet">"What never expires is not made to by more time. All of this can be undone afterwards."</p>
        <div class="actions">{button("button primary", "confirm-life", name, Box::new(confirm))}</div>
    }
}

/// What can be done with those that are selected. At the foot of the window, so that no row moves when it comes.
pub(super) fn bar(desk: Desk) -> AnyView {
    let count = Memo::new(move |_| desk.selection.with(|s| s.paths.len()));
    let told = text(move || {
        let selected = format::counted(count.get() as u64, "checkpoint selected", "checkpoints selected");
        let elsewhere = desk.window.with(|w| {
            let here = w.data.iter().flat_map(|data| &data.rows);
            desk.selection.with(|s| {
                s.paths.len() - here.filter(|row| s.paths.contains(&row.checkpoint.tinker_path)).count()
            })
        });
        match elsewhere {
            0 => selected,
            some => format!("{selected}, {} not on this page", format::count(some as u64)),
        }
    });
    let matching = Memo::new(move |_| desk.window.with(|w| w.data.as_ref().map_or(0, |data| data.matching)));
    let paths = move || desk.selection.with_untracked(|s| s.in_order());
    let act = move |action: CheckpointDo| {
        Box::new(move || desk.run(Job::requests(action, &paths(), None, false))) as Act
    };
    let every = move || {
        let matching = matching.get();
        let most = matching.min(MAX_PATHS as u64);
        let all_here = desk.window.with(|w| {
            let mut here = w.data.iter().flat_map(|data| &data.rows);
            desk.selection.with(|s| here.all(|row| s.paths.contains(&row.checkpoint.tinker_path)))
        });
        (matching > count.get() as u64 || !all_here).then(|| {
            let name = match most == matching {
                true => format!("Select all {} matching", format::count(matching)),
                false => format!("Select the first {} of {}", format::count(most), format::count(matching)),
            };
            button("button", "select-matching", name, Box::new(move || select_matching(desk)))
        })
    };
    when(
        move || count.get() > 0,
        move || {
            view! {
                <section class="selection" aria-label="Selection" data-testid="selection">
                    <strong role="status">{told}</strong>
                    <div class="actions">
                        {maybe(every)}
                        {plain("bulk-publish", "Publish", act(CheckpointDo::Publish))}
                        {plain("bulk-unpublish", "Make private", act(CheckpointDo::Unpublish))}
                        {plain("bulk-copy", "Copy", act(CheckpointDo::Copy))}
                        {plain("bulk-life", "Change their life…", Box::new(move || desk.show(Sheet::Life(paths()))))}
                        {plain("bulk-delete", "Delete…", Box::new(move || deleting::open(desk, paths())))}
                        {plain("select-none", "Clear", Box::new(move || desk.selection.set(Default::default())))}
                    </div>
                </section>
            }
        },
    )
}

fn select_matching(desk: Desk) {
    let session = desk.session.get_value();
    let (before, shown) = (desk.selection.get_untracked(), desk.shown.get_untracked());
    let query = shown.to_query();
    spawn_local(async move {
        match session.host.checkpoint_paths(&query).await {
            Ok(all) => {
                desk.selection.try_update(|selection| {
                    // Who has cleared it meanwhile, or looks at another list, wants none of it.
                    if *selection == before && desk.shown.try_get_untracked() == Some(shown) {
                        selection.paths.extend(all.paths);
                    }
                });
            }
            Err(problem) => desk.refuse(problem),
        }
    });
}

/// How what was asked for goes on, or how it ended, with its way back.
pub(super) fn progress(desk: Desk) -> AnyView {
    let told = text(move || desk.job.with(|job| job.as_ref().map_or_else(String::new, Job::told)));
    let running = Memo::new(move |_| desk.job.with(|job| job.as_ref().map(|job| job.running)));
    let stopping = Memo::new(move |_| desk.job.with(|job| job.as_ref().is_some_and(|job| job.stopping)));
    let bar = move || {
        let (done, total) =
            desk.job.with(|job| job.as_ref().map_or((0, 1), |job| (job.outcomes.len(), job.total)));
        view! { <progress max=total.to_string() value=done.to_string() aria-label=told></progress> }
    };
    let stop = move || {
        desk.job.update(|job| {
            if let Some(job) = job {
                job.stopping = true;
            }
        });
    };
    let failures = move || {
        let failed: Vec<_> = desk.job.with(|job| {
            let failed = job.iter().flat_map(|job| &job.outcomes).filter(|one| !one.done);
            failed
                .map(|one| {
                    view! {
                        <li data-code=one.code.clone()>
                            <span class="mono break">{one.path.clone()}</span>
                            " "
                            {one.message.clone()}
                        </li>
                    }
                })
                .collect()
        });
        if failed.is_empty() {
            return nothing();
        }
        view! {
            <ul class="failures" tabindex="0" aria-label="What was refused" data-testid="job-failures">
                {failed}
            </ul>
        }
    };
    let undo = move || {
        if let Some(requests) = desk.job.with_untracked(|job| job.as_ref().and_then(Job::undo)) {
            desk.run(requests);
        }
    };
    let can_undo = move || desk.job.with(|job| job.as_ref().is_some_and(|job| job.undo().is_some()));
    maybe(move || {
        let running = running.get()?;
        let ways = if running && stopping.get() {
            view! { <span class="quiet">"Stopping\u{2026}"</span> }
        } else if running {
            plain("job-stop", "Stop", Box::new(stop))
        } else {
            view! {
                {can_undo().then(|| plain("undo", "Undo", Box::new(undo)))}
                {plain("job-close", "Close", Box::new(move || desk.job.set(None)))}
            }
        };
        let body = if running { crate::components::reactive::part(bar) } else { failures() };
        Some(view! {
            <section class="note job" data-testid="job" data-running=running.to_string()>
                <strong role="status">{told}</strong>
                <div class="actions">{ways}</div>
                {body}
            </section>
        })
    })
}
