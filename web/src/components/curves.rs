//! Curves on the page: read, followed, drawn and looked into.

mod chart;
mod controls;
mod values;

use std::time::Duration;

use crate::prelude::*;
use futures_util::future::LocalBoxFuture;
use retinker::host::api::ApiProblem;
use retinker_console::curves::series::{Metric, Series};

use self::chart::chart;
pub(crate) use self::controls::swatch;
use self::controls::{readout, tools};
use self::values::values;
use super::reactive::{flag, text, when, word};
use crate::data::Host;
use crate::live::{Again, session, whenever};

/// Curves are read again no sooner than this, however often their runs change.
const CALM: Duration = Duration::from_secs(2);

/// The curves of some runs, as far as they are read.
#[derive(Clone, Copy)]
pub(crate) struct Curves {
    /// One for each run, in the order asked for.
    pub(crate) all: RwSignal<Vec<Series>>,
    /// Whether the service has curves; `None` until it is known.
    pub(crate) offered: RwSignal<Option<bool>>,
    /// Whether every run was read to its end once.
    pub(crate) whole: RwSignal<bool>,
    pub(crate) problem: RwSignal<Option<ApiProblem>>,
}

/// Which curves to read: these runs, the last `live` of which still change. Any difference has everything read anew.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Wanted {
    pub(crate) run_ids: Vec<String>,
    pub(crate) live: usize,
    /// Moves when what was read may not be true any more, as after a loss.
    pub(crate) edition: u64,
}

/// Reads curves and follows them: after the first time only what came after the last point is asked for.
pub(crate) fn follow(wanted: Memo<Wanted>, changes: RwSignal<u64>) -> Curves {
    let session = session();
    let curves = Curves {
        all: RwSignal::default(),
        offered: RwSignal::default(),
        whole: RwSignal::default(),
        problem: RwSignal::default(),
    };
    Effect::new(move |_| {
        let wanted = wanted.get();
        curves.whole.set(false);
        if wanted.run_ids.is_empty() {
            curves.all.set(Vec::new());
            return;
        }
        let session = session.clone();
        let act = move || -> LocalBoxFuture<'static, Again> {
            let (session, wanted) = (session.clone(), wanted.clone());
            Box::pin(async move {
                let outcome = read(&session.host, &wanted, curves).await;
                let again = if outcome.is_ok() { Again::OnChange } else { Again::Soon };
                if let Err(problem) = &outcome {
                    session.notice(problem);
                }
                curves.problem.set(outcome.err());
                if curves.offered.get_untracked() == Some(false) { Again::Never } else { again }
            })
        };
        whenever(changes, CALM, Box::new(act));
    });
    curves
}

/// Reads what is new. Before everything was read once it begins anew, and what was on the page stays until that is there.
async fn read(host: &Host, wanted: &Wanted, curves: Curves) -> Result<(), ApiProblem> {
    let first = !curves.whole.get_untracked();
    let fixed = if first { 0 } else { wanted.run_ids.len().saturating_sub(wanted.live) };
    let mut all: Vec<Series> = match first {
        true => wanted.run_ids.iter().cloned().map(Series::new).collect(),
        false => curves.all.get_untracked(),
    };
    let mut grown = first;
    for series in all.iter_mut().skip(fixed) {
        loop {
            let page = match host.run_metrics(&series.run_id, series.steps.last().copied()).await {
                Ok(page) => page,
                // A run before this one may be gone; what came of it is not.
                Err(problem) if problem.code == "run_not_found" => break,
                Err(problem) => return Err(problem),
            };
            if !page.offered {
                curves.offered.set(Some(false));
                return Ok(());
            }
            grown |= !page.steps.is_empty();
            series.add(&page);
            if page.next_after.is_none() || page.steps.is_empty() {
                break;
            }
        }
    }
    if grown {
        curves.all.set(all);
    }
    curves.offered.set(Some(true));
    curves.whole.set(true);
    Ok(())
}

/// How the curves of one panel are looked at.
#[derive(Clone, Copy)]
pub(crate) struct Look {
    /// What is drawn: the runs' own curves, or several of them as one.
    pub(crate) shown: Memo<Vec<Series>>,
    /// The runs' names, in the same order.
    pub(crate) names: Signal<Vec<String>>,
    /// The steps that are shown; `None` = all.
    pub(crate) part: RwSignal<Option<(f64, f64)>>,
    /// The step that is looked at.
    pub(crate) at: RwSignal<Option<u64>>,
    /// In hundredths.
    pub(crate) smoothing: RwSignal<u32>,
    pub(crate) log: RwSignal<bool>,
    /// Which loss.
    pub(crate) loss: RwSignal<Metric>,
    /// Where a part is being marked by dragging: from and to, as steps.
    pub(crate) marked: RwSignal<Option<(f64, f64)>>,
}

impl Look {
    pub(crate) fn new(shown: Memo<Vec<Series>>, names: Signal<Vec<String>>) -> Self {
        Self {
            shown,
            names,
            part: RwSignal::new(None),
            at: RwSignal::new(None),
            smoothing: RwSignal::new(0),
            log: RwSignal::new(false),
            loss: RwSignal::new(Metric::LossPerToken),
            marked: RwSignal::new(None),
        }
    }
}

/// Loss, learning rate and gradient norm, with what changes how they are seen. `more` stands beside the heading. A service
/// without curves has no panel for them.
pub(crate) fn panel(curves: Curves, look: Look, more: AnyView) -> AnyView {
    let some = Memo::new(move |_| look.shown.with(|all| all.iter().any(|series| !series.steps.is_empty())));
    let instead = text(move || {
        let said = match (curves.whole.get() || some.get(), curves.problem.with(Option::is_some)) {
            (true, _) if some.get() => "",
            (true, _) => "No optimizer step has been taken yet: there is nothing to draw.",
            (false, true) => "The curves could not be read. This does not mean that there are none.",
            (false, false) => "Reading the curves…",
        };
        said.to_owned()
    });
    let body = when(move || some.get(), move || charts(look));
    view! {
        <section class="panel curves" data-testid="curves" hidden=flag(move || curves.offered.get() == Some(false)) data-whole=word(move || curves.whole.get().then_some("true"))>
            <div class="panel-head">
                <h2>"Curves"</h2>
                {more}
            </div>
            <p class="quiet" role="status" data-testid="curves-instead">
                {instead}
            </p>
            {body}
        </section>
    }
}

fn charts(look: Look) -> AnyView {
    view! {
        {tools(look)}
        {readout(look)}
        <div class="charts">
            {chart(look, look.loss.into(), true)}
            {chart(look, Signal::stored(Metric::LearningRate), false)}
            {chart(look, Signal::stored(Metric::GradNorm), false)}
        </div>
        {values(look)}
    }
}
