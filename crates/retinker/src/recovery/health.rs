//! One verdict per run, with its reason.

use retinker_wire::run::{Checkpoint, CheckpointType, TrainingRun};
use retinker_wire::session::{SessionFailureCategory, SessionStatus};
use retinker_wire::time::Time;
use serde::{Deserialize, Serialize};

use super::reports::Report;
use super::sentence::sentence;

/// A checkpoint that expires sooner than this is not restored from: it could vanish while it is being loaded.
pub const EXPIRY_MARGIN_MS: i64 = 60_000;

/// A run whose last checkpoint expires sooner than this is at risk.
pub const EXPIRES_SOON_MS: i64 = 24 * 3_600_000;

/// A run that has worked for longer than this since its last checkpoint is at risk. Ours: a night's work.
pub const UNSAVED_MS: i64 = 6 * 3_600_000;

/// How a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// Poisoned, and there is a checkpoint to restore from.
    Poisoned,
    /// Poisoned, and nothing to restore from.
    Unrecoverable,
    /// Its session is over, and nobody trains it any more: what it has not saved is lost, whatever the service says of
    /// the run itself.
    Stalled,
    /// Poisoned once; a restored run has taken its place.
    Recovered,
    /// Nothing wrong, but a failure now would cost much: no checkpoint, or the last one expires soon, or is hours old.
    AtRisk,
    /// Nothing wrong as far as can be seen.
    Healthy,
}

impl Health {
    /// Every verdict, worst first.
    pub const ALL: [Self; 6] =
        [Self::Poisoned, Self::Unrecoverable, Self::Stalled, Self::AtRisk, Self::Recovered, Self::Healthy];

    /// The verdict's name on the wire and in URLs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Poisoned => "poisoned",
            Self::Unrecoverable => "unrecoverable",
            Self::Stalled => "stalled",
            Self::Recovered => "recovered",
            Self::AtRisk => "at_risk",
            Self::Healthy => "healthy",
        }
    }
}

/// Whose fault it was, as far as is known. A failure of category `user` is never restored by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCategory {
    /// The service's.
    Server,
    /// The request's.
    User,
    /// Not known.
    Unknown,
}

/// A verdict with its reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How the run is.
    pub health: Health,
    /// Why, as a sentence for people.
    pub reason: String,
    /// Whose fault; `None` where nothing failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<FailureCategory>,
    /// Since when, as far as is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

impl Verdict {
    fn new(health: Health, reason: String) -> Self {
        Self { health, reason: sentence(&reason), category: None, since: None }
    }
}

/// What is known of the run that replaces another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    /// The restore.
    pub restore_id: String,
    /// The new run; `None` while the restore is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new_run_id: Option<String>,
}

/// Why a checkpoint cannot be restored from; `None` when nothing that can be seen in it speaks against it.
pub fn unusable_because(checkpoint: &Checkpoint, now: Time) -> Option<String> {
    if checkpoint.checkpoint_type != CheckpointType::Training {
        return Some(format!(
            "It is a {} checkpoint; only a training checkpoint can be trained on.",
            checkpoint.checkpoint_type
        ));
    }
    let expires_at = checkpoint.expires_at?;
    if expires_at <= now {
        Some(format!("It expired at {expires_at:#}."))
    } else if expires_at.as_millis().saturating_sub(now.as_millis()) < EXPIRY_MARGIN_MS {
        Some(format!("It expires at {expires_at:#}, before a restore could be sure to have loaded it."))
    } else {
        None
    }
}

/// The newest of these checkpoints that nothing visible speaks against. Servers order their lists differently, so
/// the order is made here: by time, then by id.
pub fn newest_usable<'a>(
    checkpoints: impl IntoIterator<Item = &'a Checkpoint>,
    now: Time,
) -> Option<&'a Checkpoint> {
    checkpoints
        .into_iter()
        .filter(|checkpoint| unusable_because(checkpoint, now).is_none())
        .max_by(|a, b| (a.time, &a.checkpoint_id).cmp(&(b.time, &b.checkpoint_id)))
}

/// When [`assess`] can next come to another verdict for no other reason than that time goes by: one of these checkpoints
/// comes near its end, or to it. `None` = never.
pub fn changes_at<'a>(checkpoints: impl IntoIterator<Item = &'a Checkpoint>, now: Time) -> Option<Time> {
    let ends = checkpoints.into_iter().filter_map(|checkpoint| checkpoint.expires_at);
    let turns = ends.flat_map(|end| {
        // The rules ask whether there is less left than this.
        [EXPIRES_SOON_MS, EXPIRY_MARGIN_MS, 0]
            .map(|left| Time::from_millis(end.as_millis().saturating_sub(left).saturating_add(1)))
    });
    turns.filter(|at| *at > now).min()
}

/// The session that a run was made in, where its id tells: `<session>:train:<number>`.
pub fn session_of_run(run_id: &str) -> Option<&str> {
    run_id.rsplit_once(":train:").map(|(session, _)| session)
}

/// What is known of a run beyond what the list of runs says.
#[derive(Debug, Clone, Copy, Default)]
pub struct Known<'a> {
    /// All checkpoints that it could be restored from (see [`candidates`](super::planner::candidates)); `None` where
    /// they have not been read. The run's `last_checkpoint` then has to do, which some servers never tell.
    pub checkpoints: Option<&'a [Checkpoint]>,
    /// The restore that holds the run, if one does.
    pub succession: Option<&'a Succession>,
    /// The path of the checkpoint that the run was restored from (see [`origin_of`](super::planner::origin_of)).
    pub origin: Option<&'a str>,
    /// How the run's session stands, where the service tells.
    pub session: Option<&'a SessionStatus>,
    /// What the program that trains the run has seen and told of (see [`reports`](super::reports)).
    pub reported: Option<&'a Report>,
    /// When the run was first seen to be poisoned, by the journal.
    pub since: Option<Time>,
}

/// How a run is, from all that is known of it.
pub fn assess(run: &TrainingRun, known: Known<'_>, now: Time) -> Verdict {
    if let Some(Succession { new_run_id: Some(new_run), .. }) = known.succession {
        let reason = format!("Run {new_run} was restored from this one and has taken its place.");
        return Verdict::new(Health::Recovered, reason);
    }
    let listed = known.checkpoints.unwrap_or_default();
    let newest = newest_usable(listed.iter().chain(run.last_checkpoint.as_ref()), now);
    if let Some(loss) = lost(run, known) {
        return poisoned(loss, newest, known);
    }
    if let Some(verdict) = known.session.and_then(stalled) {
        return verdict;
    }
    at_risk(run, newest, known, now).unwrap_or_else(|| {
        let begin = match known.session {
            Some(SessionStatus::ClientFinished { .. }) => "Its client has finished its session",
            _ => "Nothing wrong",
        };
        let newest =
            newest.map_or_else(|| "unknown".to_owned(), |checkpoint| checkpoint.checkpoint_id.clone());
        Verdict::new(Health::Healthy, format!("{begin}; its newest checkpoint is {newest}."))
    })
}

/// What a failure now would cost; `None` if it would cost little.
fn at_risk(run: &TrainingRun, newest: Option<&Checkpoint>, known: Known<'_>, now: Time) -> Option<Verdict> {
    let is_origin = |checkpoint: &Checkpoint| known.origin == Some(checkpoint.tinker_path.as_str());
    let some_listed = run.last_checkpoint.is_some() || known.checkpoints.is_some_and(|list| !list.is_empty());
    // What its client has not saved then, it has let go.
    let is_finished = matches!(known.session, Some(SessionStatus::ClientFinished { .. }));
    let reason = match (newest.filter(|checkpoint| !is_origin(checkpoint)), known.origin) {
        (None, _) if is_finished => return None,
        (None, Some(origin)) => format!(
            "It has no checkpoint of its own yet: a failure now goes back to {origin}, which it was restored from."
        ),
        (None, None) if some_listed => {
            "None of its checkpoints can be restored from: a failure now would lose all of its work."
                .to_owned()
        }
        (None, None) => "It has no checkpoint: a failure now would lose all of its work.".to_owned(),
        (Some(checkpoint), _) if !is_finished && unsaved_ms(run, checkpoint) > UNSAVED_MS => format!(
            "It has worked for {} hours since its newest checkpoint, {}: a failure now would lose that.",
            unsaved_ms(run, checkpoint) / 3_600_000,
            checkpoint.checkpoint_id
        ),
        (Some(checkpoint), _) => {
            let soon = |at: &Time| at.as_millis().saturating_sub(now.as_millis()) < EXPIRES_SOON_MS;
            let expires_at = checkpoint.expires_at.filter(soon)?;
            format!("Its newest checkpoint, {}, expires at {expires_at:#}.", checkpoint.checkpoint_id)
        }
    };
    Some(Verdict::new(Health::AtRisk, reason))
}

/// How long a run has worked since this checkpoint, in milliseconds.
fn unsaved_ms(run: &TrainingRun, checkpoint: &Checkpoint) -> i64 {
    run.last_request_time.as_millis().saturating_sub(checkpoint.time.as_millis())
}

/// A session that was cut off, by silence or from outside. One that its client ended is no failure.
fn stalled(session: &SessionStatus) -> Option<Verdict> {
    let (why, category) = match session {
        SessionStatus::Cancelled { detail } => (detail.as_deref(), FailureCategory::Unknown),
        SessionStatus::Failed { category: SessionFailureCategory::User, message, .. } => {
            (Some(message.as_str()), FailureCategory::User)
        }
        SessionStatus::Failed { message, .. } => (Some(message.as_str()), FailureCategory::Server),
        _ => return None,
    };
    let why = why.map_or_else(String::new, |why| format!(" ({})", why.trim().trim_end_matches('.')));
    let reason = format!("Its session is over{why}: nobody trains it, and what it had not saved is lost.");
    Some(Verdict { category: Some(category), ..Verdict::new(Health::Stalled, reason) })
}

/// Whether a session was cut off.
pub(super) fn is_cut_off(session: &SessionStatus) -> bool {
    stalled(session).is_some()
}

/// That a run has lost its state, and how that is known.
struct Loss {
    cause: String,
    category: FailureCategory,
    since: Option<Time>,
}

fn lost(run: &TrainingRun, known: Known<'_>) -> Option<Loss> {
    if run.corrupted == Some(true) {
        let cause = match cause_of(run) {
            Some(cause) => format!("{}.", capitalised(cause)),
            None => "The service says that a failure corrupted this run.".to_owned(),
        };
        let category = category_of_loss(known);
        return Some(Loss { cause, category, since: known.since });
    }
    let report = known.reported?;
    let cause = format!("{} Its training program has told so.", report.symptom.sentence());
    Some(Loss { cause, category: category_of_loss(known), since: Some(report.at) })
}

/// State is lost by failures of the service; a bad request fails its own call and leaves the run alone. Where the session
/// says otherwise, it knows better.
fn category_of_loss(known: Known<'_>) -> FailureCategory {
    match known.session {
        Some(SessionStatus::Failed { category: SessionFailureCategory::User, .. }) => FailureCategory::User,
        _ => FailureCategory::Server,
    }
}

/// Services begin their reasons in lower case.
fn capitalised(cause: &str) -> String {
    let mut letters = cause.chars();
    letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters).collect()
}

fn poisoned(loss: Loss, newest: Option<&Checkpoint>, known: Known<'_>) -> Verdict {
    let Loss { cause, category, since } = loss;
    let (health, way_out) = match (newest, known.origin) {
        _ if known.succession.is_some() => (Health::Poisoned, "A restore is under way.".to_owned()),
        (Some(checkpoint), Some(origin)) if checkpoint.tinker_path == origin => (
            Health::Poisoned,
            format!("It has no checkpoint of its own; it can be restored from {origin}, as it was before."),
        ),
        (Some(checkpoint), _) => {
            (Health::Poisoned, format!("It can be restored from {}.", checkpoint.checkpoint_id))
        }
        // What has not been read is not lost.
        (None, _) if known.checkpoints.is_none() => {
            (Health::Poisoned, "Its checkpoints could not be read yet.".to_owned())
        }
        (None, _) => (Health::Unrecoverable, "It has no checkpoint to restore from.".to_owned()),
    };
    Verdict { category: Some(category), since, ..Verdict::new(health, format!("{cause} {way_out}")) }
}

/// Why the service says that the run is corrupted, to stand inside a sentence: without its full stop.
pub(crate) fn cause_of(run: &TrainingRun) -> Option<&str> {
    let told = run.corrupted_reason.as_deref()?.trim().trim_end_matches('.');
    (!told.is_empty()).then_some(told)
}

#[cfg(test)]
mod tests {
    use super::super::evidence::Symptom;
    use super::super::samples::{checkpoint, run};
    use super::*;
    use crate::client::testing::test;
    use retinker_wire::session::{FinishReason, FinishReasonBody};

    fn at(ms: i64) -> Time {
        Time::from_millis(ms)
    }

    const NOW: i64 = 1_000_000_000_000;

    fn listed(checkpoints: &[Checkpoint]) -> Known<'_> {
        Known { checkpoints: Some(checkpoints), ..Known::default() }
    }

    #[test]
    fn corrupted_missing_null_false_true() {
        for (corrupted, health) in
            [(None, Health::Healthy), (Some(false), Health::Healthy), (Some(true), Health::Poisoned)]
        {
            let mut run = run("r", corrupted);
            run.last_checkpoint = Some(checkpoint("r", "a", NOW - 5_000));
            assert_eq!(assess(&run, Known::default(), at(NOW)).health, health, "{corrupted:?}");
        }
    }

    #[test]
    fn reason_is_the_services_own_where_it_gives_one() {
        let mut run = run("r", Some(true));
        run.corrupted_reason = Some("the trainer lost its memory".into());
        let verdict = assess(&run, listed(&[checkpoint("r", "a", NOW)]), at(NOW));
        assert_eq!(verdict.reason, "The trainer lost its memory. It can be restored from weights/a.");
        assert_eq!(verdict.category, Some(FailureCategory::Server));
        run.corrupted_reason = None;
        let verdict = assess(&run, listed(&[]), at(NOW));
        assert_eq!(verdict.health, Health::Unrecoverable);
        assert!(verdict.reason.contains("no checkpoint to restore from"), "{}", verdict.reason);
    }

    #[test]
    fn a_restore_that_is_done_recovers_and_one_under_way_does_not_yet() {
        let mut run = run("r", Some(true));
        run.last_checkpoint = Some(checkpoint("r", "a", NOW));
        let mut succession = Succession { restore_id: "x".into(), new_run_id: None };
        let verdict = assess(&run, Known { succession: Some(&succession), ..Known::default() }, at(NOW));
        assert_eq!(verdict.health, Health::Poisoned);
        assert!(verdict.reason.contains("under way"), "{}", verdict.reason);
        succession.new_run_id = Some("n".into());
        // `corrupted` may stay true after the cause is mended.
        assert_eq!(
            assess(&run, Known { succession: Some(&succession), ..Known::default() }, at(NOW)).health,
            Health::Recovered
        );
    }

    #[test]
    fn at_risk_without_a_checkpoint_or_with_one_that_expires_soon() {
        let mut run = run("r", Some(false));
        assert_eq!(assess(&run, Known::default(), at(NOW)).health, Health::AtRisk);
        for (left, health) in [
            (EXPIRES_SOON_MS, Health::Healthy),
            (EXPIRES_SOON_MS - 1, Health::AtRisk),
            (EXPIRY_MARGIN_MS - 1, Health::AtRisk),
            (-1, Health::AtRisk),
        ] {
            let mut last = checkpoint("r", "a", NOW - 5_000);
            last.expires_at = Some(at(NOW + left));
            run.last_checkpoint = Some(last);
            assert_eq!(assess(&run, Known::default(), at(NOW)).health, health, "{left}");
        }
    }

    #[test]
    fn a_run_whose_client_has_finished_it_has_nothing_to_lose_but_its_checkpoints() {
        let body = FinishReasonBody { kind: FinishReason::Success };
        let finished = SessionStatus::ClientFinished { reason: body, detail: None };
        let known = Known { session: Some(&finished), ..Known::default() };
        let mut run = run("r", None);
        run.last_checkpoint = None;
        assert_eq!(assess(&run, Known::default(), at(NOW)).health, Health::AtRisk);
        assert_eq!(assess(&run, known, at(NOW)).health, Health::Healthy);
        run.last_checkpoint = Some(checkpoint("r", "a", NOW - UNSAVED_MS - 5_000));
        assert_eq!(assess(&run, Known::default(), at(NOW)).health, Health::AtRisk);
        let verdict = assess(&run, known, at(NOW));
        assert_eq!(verdict.health, Health::Healthy);
        assert!(verdict.reason.starts_with("Its client has finished its session; "), "{}", verdict.reason);
        run.last_checkpoint.as_mut().unwrap().expires_at = Some(at(NOW + 1_000_000));
        assert_eq!(assess(&run, known, at(NOW)).health, Health::AtRisk, "it expires");
    }

    #[test]
    fn a_verdict_stands_until_it_is_due() {
        let mut run = run("r", None);
        let (mut last, mut listed) = (checkpoint("r", "a", NOW - 5_000), checkpoint("r", "b", NOW - 9_000));
        last.expires_at = Some(at(NOW + EXPIRES_SOON_MS + 7));
        listed.expires_at = Some(at(NOW + 3 * EXPIRES_SOON_MS));
        run.last_checkpoint = Some(last);
        let listed = [listed];
        for corrupted in [false, true] {
            run.corrupted = Some(corrupted);
            let known = Known { checkpoints: Some(&listed), ..Known::default() };
            let (mut now, mut verdicts) = (at(NOW), vec![assess(&run, known, at(NOW))]);
            while let Some(due) = changes_at(listed.iter().chain(&run.last_checkpoint), now) {
                let before = assess(&run, known, now);
                let until = at(due.as_millis() - 1);
                assert_eq!(assess(&run, known, until), before, "{now} to {until}");
                verdicts.push(assess(&run, known, due));
                now = due;
            }
            verdicts.dedup();
            assert!(verdicts.len() > 2, "{verdicts:?}");
            assert_eq!(assess(&run, known, at(i64::MAX / 2)), assess(&run, known, now));
        }
    }

    #[test]
    fn an_expired_or_sampler_checkpoint_restores_nothing() {
        let run = run("r", Some(true));
        let mut expired = checkpoint("r", "a", NOW - 5_000);
        expired.expires_at = Some(at(NOW - 1));
        let mut sampler = checkpoint("r", "b", NOW - 4_000);
        sampler.checkpoint_type = CheckpointType::Sampler;
        assert_eq!(assess(&run, listed(&[expired, sampler]), at(NOW)).health, Health::Unrecoverable);
    }

    #[test]
    fn the_newest_is_found_in_any_order() {
        let listed = [checkpoint("r", "b", 20), checkpoint("r", "c", 30), checkpoint("r", "a", 10)];
        assert_eq!(newest_usable(&listed, at(40)).unwrap().checkpoint_id, "weights/c");
    }

    #[test]
    fn a_run_whose_session_was_cut_off_is_stalled() {
        let mut run = run("r", Some(false));
        run.last_checkpoint = Some(checkpoint("r", "a", NOW));
        let health = |status: &SessionStatus| {
            let verdict = assess(&run, Known { session: Some(status), ..Known::default() }, at(NOW));
            (verdict.health, verdict.category, verdict.reason)
        };
        let (stalled, category, reason) = health(&SessionStatus::cancelled("no heartbeat for 60 s"));
        assert_eq!((stalled, category), (Health::Stalled, Some(FailureCategory::Unknown)));
        assert!(reason.starts_with("Its session is over (no heartbeat for 60 s): nobody"), "{reason}");
        for (category, expected) in [
            (SessionFailureCategory::User, FailureCategory::User),
            (SessionFailureCategory::Internal, FailureCategory::Server),
        ] {
            let reason = serde_json::json!({"type": "training_run"});
            let failed = SessionStatus::Failed { category, message: "it broke.".into(), reason };
            let (stalled, category, reason) = health(&failed);
            assert_eq!((stalled, category), (Health::Stalled, Some(expected)));
            assert!(reason.contains("(it broke)"), "{reason}");
        }
        assert_eq!(health(&SessionStatus::Active).0, Health::Healthy);
        let reason = serde_json::json!({"type": "training_run"});
        let by_user =
            SessionStatus::Failed { category: SessionFailureCategory::User, message: "NaN".into(), reason };
        let mut poisoned = run.clone();
        poisoned.corrupted = Some(true);
        let known = Known { session: Some(&by_user), ..Known::default() };
        assert_eq!(assess(&poisoned, known, at(NOW)).category, Some(FailureCategory::User));
        let json = r#"{"type":"client_finished","reason":{"type":"completed"}}"#;
        assert_eq!(health(&serde_json::from_str(json).unwrap()).0, Health::Healthy, "it was done");
        assert_eq!(health(&SessionStatus::Unknown).0, Health::Healthy);
    }

    #[test]
    fn what_the_training_program_told_poisons_a_run_that_the_service_calls_sound() {
        let mut run = run("r", Some(false));
        run.last_checkpoint = Some(checkpoint("r", "a", NOW - 5_000));
        let report = Report { run_id: "r".into(), symptom: Symptom::NotLoaded, at: at(NOW - 1) };
        let verdict = assess(&run, Known { reported: Some(&report), ..Known::default() }, at(NOW));
        assert_eq!(verdict.health, Health::Poisoned);
        assert_eq!(verdict.since, Some(at(NOW - 1)));
        assert_eq!(
            verdict.reason,
            "The service does not hold the run's model any more. Its training program has told so. It can be \
             restored from weights/a."
        );
        run.corrupted = Some(true);
        let verdict = assess(&run, Known { since: Some(at(7)), ..Known::default() }, at(NOW));
        assert_eq!(verdict.since, Some(at(7)), "when it was first seen");
    }

    #[test]
    fn what_was_not_read_is_not_lost() {
        let mut run = run("r", Some(true));
        let mut expired = checkpoint("r", "a", NOW - 5_000);
        expired.expires_at = Some(at(NOW - 1));
        for last in [None, Some(expired)] {
            run.last_checkpoint = last;
            let verdict = assess(&run, Known::default(), at(NOW));
            assert_eq!(verdict.health, Health::Poisoned);
            assert!(verdict.reason.ends_with("Its checkpoints could not be read yet."), "{}", verdict.reason);
            assert_eq!(assess(&run, listed(&[]), at(NOW)).health, Health::Unrecoverable);
        }
    }

    #[test]
    fn a_restored_run_without_its_own_checkpoint_goes_back_to_its_origin() {
        let origin = checkpoint("old", "a", NOW - 5_000);
        let path = origin.tinker_path.as_str();
        let mut run = run("new", Some(false));
        let mut known = Known { origin: Some(path), ..Known::default() };
        let verdict = assess(&run, known, at(NOW));
        assert_eq!(verdict.health, Health::AtRisk);
        assert!(verdict.reason.starts_with("It has no checkpoint of its own yet"), "{}", verdict.reason);
        assert!(verdict.reason.contains(path), "{}", verdict.reason);
        run.corrupted = Some(true);
        let candidates = [origin.clone()];
        known.checkpoints = Some(&candidates);
        let verdict = assess(&run, known, at(NOW));
        assert_eq!(verdict.health, Health::Poisoned);
        assert!(verdict.reason.contains(path), "{}", verdict.reason);
        known.checkpoints = Some(&[]);
        assert_eq!(assess(&run, known, at(NOW)).health, Health::Unrecoverable, "the origin is gone as well");
        let own = [origin.clone(), checkpoint("new", "b", NOW - 1)];
        known.checkpoints = Some(&own);
        let verdict = assess(&run, known, at(NOW));
        assert!(verdict.reason.ends_with("It can be restored from weights/b."), "{}", verdict.reason);
    }
}
