//! What happened to a run, in its order: from what the service, the journal and the curves tell.

use retinker::host::api::RunDetail;
use retinker::host::run::RunEvidence;
use retinker::recovery::restore::{RestoreRecord, RestoreState};
use retinker::wire::run::CheckpointType;

use crate::format;
use crate::order::sorted_by;

/// What kind of thing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The run was made.
    Made,
    /// It was trained, for a while.
    Trained,
    /// A checkpoint was saved.
    Saved,
    /// A checkpoint expires, or has.
    Expires,
    /// The run's state was lost, or somebody saw it.
    Lost,
    /// A restore: the one that made it, or one of it.
    Restored,
    /// A restore that failed.
    Failed,
    /// A program has taken it over.
    Taken,
    /// It was last asked for something.
    Asked,
}

impl Kind {
    /// Its name in the page's attributes.
    pub fn key(self) -> &'static str {
        match self {
            Self::Made => "made",
            Self::Trained => "trained",
            Self::Saved => "saved",
            Self::Expires => "expires",
            Self::Lost => "lost",
            Self::Restored => "restored",
            Self::Failed => "failed",
            Self::Taken => "taken",
            Self::Asked => "asked",
        }
    }

    /// The drawing beside it.
    pub fn icon(self) -> &'static str {
        match self {
            Self::Made => "dot",
            Self::Trained | Self::Taken => "forward",
            Self::Saved => "check",
            Self::Expires => "stalled",
            Self::Lost => "poisoned",
            Self::Restored => "recovered",
            Self::Failed => "cross",
            Self::Asked => "question",
        }
    }
}

/// One thing that happened, or a stretch of the same.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    /// What kind of thing.
    pub kind: Kind,
    /// When it began, in milliseconds.
    pub from: i64,
    /// When it ended; the same as `from` unless it took a while.
    pub to: i64,
    /// What happened, as a sentence.
    pub text: String,
    /// The run that it is about, where that is another.
    pub run_id: Option<String>,
    /// What it was made of, with the time of each.
    pub steps: Vec<(i64, String)>,
}

impl Moment {
    fn at(kind: Kind, at: i64, text: String) -> Self {
        Self { kind, from: at, to: at, text, run_id: None, steps: Vec::new() }
    }
}

/// A pause between steps that is at least so long, and ten times as long as is usual, ends a burst.
const PAUSE_MS: i64 = 30_000;

/// Stretches in which the run took steps: from, to, and how many.
pub fn bursts(times: &[i64]) -> Vec<(i64, i64, u64)> {
    let gaps = times.windows(2).filter_map(|pair| Some(pair.last()? - pair.first()?)).collect();
    let gaps = sorted_by(gaps, |gap| *gap);
    let usual = gaps.get(gaps.len() / 2).copied().unwrap_or_default();
    let pause = PAUSE_MS.max(usual.saturating_mul(10));
    let mut bursts: Vec<(i64, i64, u64)> = Vec::new();
    for at in times {
        match bursts.last_mut() {
            Some((_, to, count)) if at - *to < pause => (*to, *count) = (*at, *count + 1),
            _ => bursts.push((*at, *at, 1)),
        }
    }
    bursts
}

/// Everything that is known to have happened, oldest first; what is still to come is last.
pub fn moments(detail: &RunDetail, evidence: Option<&RunEvidence>, times: &[i64], now: i64) -> Vec<Moment> {
    let mut moments = Vec::new();
    for (from, to, count) in bursts(times) {
        let text = format!("Trained: {}.", format::counted(count, "step", "steps"));
        moments.push(Moment { to, ..Moment::at(Kind::Trained, from, text) });
    }
    told(evidence, times.is_empty(), &mut moments);
    if !moments.iter().any(|moment| moment.kind == Kind::Lost)
        && let Some(since) = detail.row.verdict.since
    {
        moments.push(Moment::at(Kind::Lost, since.as_millis(), "The run was seen to be lost.".to_owned()));
    }
    saved(detail, now, &mut moments);
    if let Some(made_by) = &detail.restored_by {
        let text = format!("Restored from {}.", format::short_id(&made_by.plan.run_id));
        moments.push(restored(made_by, text, Some(made_by.plan.run_id.clone())));
    }
    for restore in detail.restore.iter().chain(&detail.earlier_restores) {
        let text = match (&restore.new_run_id, restore.state) {
            (_, RestoreState::Failed) => "A restore of it failed.".to_owned(),
            (_, RestoreState::Cancelled) => "A restore of it was cancelled.".to_owned(),
            (Some(new), state) if state.is_done() => format!("Restored as {}.", format::short_id(new)),
            _ => "A restore of it is under way.".to_owned(),
        };
        moments.push(restored(restore, text, restore.new_run_id.clone().filter(|_| restore.state.is_done())));
    }
    if let Some(taken) = detail.taken_over_at {
        let text = "The program that has taken it over asked for something.".to_owned();
        moments.push(Moment::at(Kind::Taken, taken.as_millis(), text));
    }
    sorted_by(moments, |moment| moment.from)
}

/// What the evidence tells with its time. That the run was asked for something says nothing where its steps are known.
fn told(evidence: Option<&RunEvidence>, without_steps: bool, moments: &mut Vec<Moment>) {
    for entry in evidence.into_iter().flat_map(|evidence| &evidence.entries) {
        let kind = match entry.kind.as_str() {
            "made" => Kind::Made,
            "lost" | "reported" | "found" | "given_up" => Kind::Lost,
            "asked" if without_steps => Kind::Asked,
            _ => continue,
        };
        if let Some(at) = entry.at {
            moments.push(Moment::at(kind, at.as_millis(), entry.text.clone()));
        }
    }
}

/// When the run's own checkpoints were saved, which have expired, and which will next.
fn saved(detail: &RunDetail, now: i64, moments: &mut Vec<Moment>) {
    let own = format!("tinker://{}/", detail.row.run.training_run_id);
    let mut next: Option<(i64, String)> = None;
    for row in &detail.checkpoints {
        let checkpoint = &row.checkpoint;
        if !checkpoint.tinker_path.starts_with(&own) {
            continue;
        }
        let name = format::checkpoint_name(&checkpoint.checkpoint_id);
        let what = match checkpoint.checkpoint_type {
            CheckpointType::Training => "",
            CheckpointType::Sampler => " for sampling",
            _ => " for download",
        };
        let text = format!("Saved {name}{what}.");
        moments.push(Moment::at(Kind::Saved, checkpoint.time.as_millis(), text));
        let Some(expires) = checkpoint.expires_at.map(|at| at.as_millis()) else { continue };
        if expires <= now {
            moments.push(Moment::at(Kind::Expires, expires, format!("{name}{what} expired.")));
        } else if next.as_ref().is_none_or(|(at, _)| expires < *at) {
            next = Some((expires, format!("{name}{what} expires.")));
        }
    }
    moments.extend(next.map(|(at, text)| Moment::at(Kind::Expires, at, text)));
}

fn restored(record: &RestoreRecord, text: String, run_id: Option<String>) -> Moment {
    let kind = if record.state.holds_the_run() { Kind::Restored } else { Kind::Failed };
    let steps: Vec<_> =
        record.events.iter().map(|event| (event.at.as_millis(), event.message.clone())).collect();
    Moment {
        kind,
        from: record.created_at.as_millis(),
        to: record.events.last().map_or(record.updated_at, |last| last.at).as_millis(),
        text,
        run_id,
        steps,
    }
}

/// Where each moment begins and ends in a picture from 0 to 1. Not to scale: a gap takes room by the square root of its
/// length, so that what happened within seconds can be told apart beside pauses of days.
pub fn places(moments: &[Moment]) -> Vec<(f64, f64)> {
    let instants = moments.iter().flat_map(|moment| [moment.from, moment.to]).collect();
    let mut instants = sorted_by(instants, |at| *at);
    instants.dedup();
    let mut place = 0.0;
    let mut before = None;
    let reached: Vec<f64> = instants
        .iter()
        .map(|at| {
            place += before.map_or(0.0, |before| (at - before) as f64).sqrt();
            before = Some(*at);
            place
        })
        .collect();
    let whole = if place > 0.0 { place } else { 1.0 };
    let of = |at: i64| {
        let found = instants.binary_search(&at).ok().and_then(|index| reached.get(index));
        found.map_or(0.0, |place| place / whole)
    };
    moments.iter().map(|moment| (of(moment.from), of(moment.to))).collect()
}

#[cfg(test)]
mod tests {
    use retinker::host::run::Evidence;
    use retinker::wire::time::Time;
    use serde_json::json;

    use super::*;

    fn detail() -> RunDetail {
        let checkpoint = |run: &str, name: &str, at: &str, expires: Option<&str>| {
            json!({"checkpoint": {
                "checkpoint_id": format!("weights/{name}"), "checkpoint_type": "training", "time": at,
                "tinker_path": format!("tinker://{run}/weights/{name}"), "expires_at": expires,
            }})
        };
        serde_json::from_value(json!({
            "row": {
                "run": {"training_run_id": "a:train:0", "last_request_time": "1970-01-01T00:05:00Z"},
                "name": "a",
                "verdict": {"health": "poisoned", "reason": "r", "since": "1970-01-01T00:06:00Z"},
            },
            "checkpoints": [
                checkpoint("a:train:0", "2", "1970-01-01T00:04:00Z", Some("1970-01-02T00:00:00Z")),
                checkpoint("a:train:0", "1", "1970-01-01T00:02:00Z", Some("1970-01-01T00:06:30Z")),
                checkpoint("elsewhere:train:0", "0", "1970-01-01T00:00:10Z", None),
            ],
            "lineage": [], "own_metadata": {}, "snippets": [],
        }))
        .unwrap()
    }

    fn record(state: &str, new: Option<&str>) -> RestoreRecord {
        serde_json::from_value(json!({
            "id": "r1", "state": state, "new_run_id": new,
            "events": [
                {"at": "1970-01-01T00:07:00Z", "state": "planned", "message": "Planned."},
                {"at": "1970-01-01T00:07:03Z", "state": state, "message": "The end."},
            ],
            "created_at": "1970-01-01T00:07:00Z", "updated_at": "1970-01-01T00:07:03Z",
            "plan": {
                "schema": 1, "id": "p", "run_id": "a:train:0", "made_at": "1970-01-01T00:07:00Z", "why": "newest",
                "optimizer": true, "base_model": "m", "root_run_id": "a:train:0", "generation": 1,
                "user_metadata": {}, "lost": {"seconds": 1, "summary": "a second"}, "checks": [],
                "checkpoint": {"checkpoint_id": "weights/2", "checkpoint_type": "training",
                    "time": "1970-01-01T00:04:00Z", "tinker_path": "tinker://a:train:0/weights/2"}
            }
        }))
        .unwrap()
    }

    fn told(moments: &[Moment]) -> Vec<(&'static str, i64, &str)> {
        moments.iter().map(|moment| (moment.kind.key(), moment.from / 1000, moment.text.as_str())).collect()
    }

    const NOW: i64 = 600_000;

    #[test]
    fn a_poisoned_run_that_was_restored_tells_its_story() {
        let mut detail = detail();
        detail.restore = Some(record("adopted", Some("b:train:0")));
        let entry = |kind: &str, at: i64, text: &str| Evidence {
            kind: kind.into(),
            by: "service".into(),
            at: Some(Time::from_millis(at)),
            text: text.into(),
        };
        let evidence = RunEvidence {
            entries: vec![
                entry("made", 1000, "The run was made."),
                entry("asked", 300_000, "The run was last asked for something."),
                entry("lost", 350_000, "The service lost the run's state."),
            ],
            ..RunEvidence::default()
        };
        let moments = moments(&detail, Some(&evidence), &[60_000, 61_000, 62_000, 200_000], NOW);
        assert_eq!(
            told(&moments),
            [
                ("made", 1, "The run was made."),
                ("trained", 60, "Trained: 3 steps."),
                ("saved", 120, "Saved 1."),
                ("trained", 200, "Trained: 1 step."),
                ("saved", 240, "Saved 2."),
                ("lost", 350, "The service lost the run's state."),
                ("expires", 390, "1 expired."),
                ("restored", 420, "Restored as b:train:0."),
                ("expires", 86_400, "2 expires."),
            ]
        );
        let restore = &moments[7];
        assert_eq!((restore.to, restore.run_id.as_deref()), (423_000, Some("b:train:0")));
        assert_eq!(restore.steps, [(420_000, "Planned.".to_owned()), (423_000, "The end.".to_owned())]);
    }

    #[test]
    fn without_evidence_and_curves_the_rest_is_told() {
        let mut detail = detail();
        detail.restore = Some(record("failed", None));
        let told: Vec<_> = moments(&detail, None, &[], NOW).iter().map(|m| m.kind.key()).collect();
        assert_eq!(told, ["saved", "saved", "lost", "expires", "failed", "expires"]);
        detail.restore = Some(record("loading", Some("b:train:0")));
        let moments = moments(&detail, None, &[], NOW);
        let restore = moments.iter().find(|moment| moment.kind == Kind::Restored).unwrap();
        assert_eq!((restore.text.as_str(), &restore.run_id), ("A restore of it is under way.", &None));
    }

    #[test]
    fn every_restore_of_a_run_is_told() {
        let mut detail = detail();
        (detail.checkpoints, detail.row.verdict.since) = (Vec::new(), None);
        detail.restore = Some(record("adopted", Some("b:train:0")));
        detail.earlier_restores = vec![record("cancelled", None), record("failed", None)];
        let told: Vec<_> = moments(&detail, None, &[], NOW).into_iter().map(|moment| moment.text).collect();
        let expected =
            ["Restored as b:train:0.", "A restore of it was cancelled.", "A restore of it failed."];
        assert_eq!(told, expected);
    }

    #[test]
    fn a_restored_run_tells_where_it_comes_from_and_who_took_it() {
        let mut detail = detail();
        detail.checkpoints.clear();
        detail.row.verdict.since = None;
        detail.restored_by = Some(record("handed_over", Some("b:train:0")));
        detail.taken_over_at = Some(Time::from_millis(500_000));
        let moments = moments(&detail, None, &[], NOW);
        assert_eq!(
            told(&moments),
            [
                ("restored", 420, "Restored from a:train:0."),
                ("taken", 500, "The program that has taken it over asked for something."),
            ]
        );
    }

    #[test]
    fn steps_are_told_as_bursts() {
        assert_eq!(bursts(&[]), []);
        assert_eq!(bursts(&[5]), [(5, 5, 1)]);
        assert_eq!(bursts(&[0, 1000, 2000, 40_000, 41_000]), [(0, 2000, 3), (40_000, 41_000, 2)]);
        // Steps of a minute each are one burst.
        let slow: Vec<i64> = (0..5).map(|k| k * 60_000).collect();
        assert_eq!(bursts(&slow), [(0, 240_000, 5)]);
    }

    #[test]
    fn a_picture_keeps_the_order_and_its_ends() {
        let at = |from, to| Moment { to, ..Moment::at(Kind::Asked, from, String::new()) };
        let placed = places(&[at(0, 100), at(100, 100), at(10_000, 10_000)]);
        assert_eq!((placed[0].0, placed[2].1), (0.0, 1.0));
        assert!(placed[0].1 > 0.05 && placed[0].1 < 0.2 && placed[0].1 == placed[1].0, "{placed:?}");
        assert_eq!(places(&[at(7, 7)]), [(0.0, 0.0)]);
        assert_eq!(places(&[]), []);
    }
}
