//! What a service of any number of runs answers. It remembers nothing but what was changed: a run is made from its number
//! each time that it is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use retinker::wire::UserMetadata;
use retinker::wire::capabilities::{ServerCapabilities, SupportedModel};
use retinker::wire::run::{
    Checkpoint, CheckpointType, CheckpointsResponse, Cursor, TrainingRun, TrainingRunsResponse,
};
use retinker::wire::session::{
    FinishReason, FinishReasonBody, GetSessionResponse, ListSessionsResponse, SessionSearchRequest,
    SessionSearchResponse, SessionStatus, SessionSummary,
};
use retinker::wire::time::Time;
use retinker::wire::weights::WeightsInfoResponse;
use serde::Serialize;

use super::odd;

/// Checkpoints of a run, by its number modulo eight.
const CHECKPOINTS: [u64; 8] = [2, 1, 3, 1, 2, 1, 2, 0];
const MODELS: [&str; 6] = [
    "meta-llama/Llama-3.1-8B",
    "meta-llama/Llama-3.2-1B",
    "meta-llama/Llama-3.3-70B-Instruct",
    "Qwen/Qwen3-8B",
    "Qwen/Qwen3-30B-A3B",
    "Qwen/Qwen3-235B-A22B-Instruct-2507",
];
const TASKS: [&str; 8] =
    ["sft-code", "sft-chat", "rl-math", "rl-tools", "dpo-tone", "distil", "probe", "ablation"];
const TEAMS: [&str; 5] = ["blue", "green", "red", "alignment", "platform"];
const OWNERS: [&str; 4] = ["ann", "bo", "chidi", "dana"];
const RANKS: [u32; 5] = [8, 16, 32, 64, 128];
const REASONS: [&str; 3] = [
    "the trainer lost its memory",
    "the node was taken away in the middle of a step",
    "a request failed between its two phases",
];
/// How much longer ago each run was last asked for something than the one before it.
const APART: Duration = Duration::from_secs(90);
/// 2026-01-02T03:04:05Z.
const LONG_AGO: i64 = 1_767_323_045_000;

/// The service. Run 0 is the newest. Run `n` is poisoned if `n` is a multiple of `every`, 0 = none. Each run has a session
/// of its own; those of the first `lasting` runs last.
#[derive(Debug)]
pub struct Service {
    /// How many runs there are.
    pub runs: u64,
    /// How many runs one poisoned one stands for.
    pub every: u64,
    /// How many sessions last.
    pub lasting: u64,
    /// Since when the service is there; its runs differ in age, name, model, and so on. `None`: all are alike, of long ago.
    pub varied_at: Option<Time>,
    /// Whether the first runs have names and labels that no program should stumble over.
    pub odd: bool,
    changes: Mutex<Changes>,
}

#[derive(Debug, Default)]
struct Changes {
    asked: BTreeMap<u64, Time>,
    poisoned: BTreeSet<u64>,
    next: u64,
}

impl Service {
    /// Runs that are all alike, of long ago.
    pub fn alike(runs: u64, every: u64, lasting: u64) -> Self {
        Self { runs, every, lasting, varied_at: None, odd: false, changes: Mutex::default() }
    }

    /// Runs that differ; it begins at this time.
    pub fn varied(runs: u64, every: u64, lasting: u64, now: Time) -> Self {
        Self { varied_at: Some(now), ..Self::alike(runs, every, lasting) }
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has so many of the runs whose sessions last be asked for something at this time: each time the next ones.
    pub fn touch(&self, count: u64, now: Time) {
        let among = self.lasting.min(self.runs).max(1);
        let mut changes = self.changes();
        for _ in 0..count {
            let n = changes.next % among;
            changes.next += 1;
            changes.asked.insert(n, now);
        }
    }

    /// Poisons a run.
    pub fn poison(&self, n: u64) {
        self.changes().poisoned.insert(n);
    }

    /// The answer to a request below `/api/v1/`, query and all; `None` where there is no such thing.
    pub fn answer(&self, path: &str, body: &[u8]) -> Option<String> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let limit = number(query, "limit").unwrap_or(100);
        let offset = number(query, "offset").unwrap_or(0);
        let parts: Vec<&str> = path.split('/').collect();
        match parts.as_slice() {
            ["training_runs"] => Some(self.page(limit, offset)),
            ["training_runs", id] => Some(json(&self.run(self.existing(id)?))),
            ["training_runs", id, "checkpoints"] => Some(json(&CheckpointsResponse {
                checkpoints: self.checkpoints(self.existing(id)?),
                cursor: None,
            })),
            ["checkpoints"] => Some(json(&self.all_checkpoints(limit, offset))),
            ["sessions"] => {
                let sessions = (offset..offset.saturating_add(limit).min(self.runs)).map(session).collect();
                Some(json(&ListSessionsResponse { sessions }))
            }
            ["sessions", "search"] => {
                Some(json(&self.search(&serde_json::from_slice(body).unwrap_or_default())))
            }
            ["sessions", id] => {
                let n = self.existing(id)?;
                let training_run_ids = vec![run_id(n)];
                Some(json(&GetSessionResponse { training_run_ids, ..GetSessionResponse::default() }))
            }
            ["weights_info"] => {
                let asked: serde_json::Value = serde_json::from_slice(body).ok()?;
                let path = asked.get("tinker_path")?.as_str()?;
                let run = self.run(self.existing(path.strip_prefix("tinker://")?)?);
                let (base_model, lora_rank) = (run.base_model, run.lora_rank);
                let (is_lora, rest) = (true, WeightsInfoResponse::default());
                Some(json(&WeightsInfoResponse { base_model, is_lora, lora_rank, ..rest }))
            }
            ["get_server_capabilities"] => {
                let named = |name: &str| SupportedModel {
                    model_name: Some(name.to_owned()),
                    ..SupportedModel::default()
                };
                let odd = if self.odd { odd::texts() } else { Vec::new() };
                let names = MODELS.into_iter().chain(odd.iter().map(String::as_str));
                Some(json(&ServerCapabilities { supported_models: names.map(named).collect() }))
            }
            // How clients are to behave: nothing in particular.
            ["client", "config" | "dynamic_config"] | ["telemetry"] => Some("{}".to_owned()),
            _ => None,
        }
    }

    /// A page of the list of runs.
    pub fn page(&self, limit: u64, offset: u64) -> String {
        let end = offset.saturating_add(limit).min(self.runs);
        json(&TrainingRunsResponse {
            training_runs: (offset..end).map(|n| self.run(n)).collect(),
            cursor: Cursor { offset, limit, total_count: self.runs },
        })
    }

    /// The number of the run or session in an id, if there is one.
    fn existing(&self, id: &str) -> Option<u64> {
        let n = u64::from_str_radix(id.get(..8)?, 16).ok()?;
        (n < self.runs && id.starts_with(&session(n))).then_some(n)
    }

    fn run(&self, n: u64) -> TrainingRun {
        let poisoned =
            (self.every > 0 && n.is_multiple_of(self.every)) || self.changes().poisoned.contains(&n);
        let list = self.checkpoints(n);
        let newest = |kind: &CheckpointType| list.iter().find(|c| c.checkpoint_type == *kind).cloned();
        let mut run = TrainingRun {
            training_run_id: run_id(n),
            base_model: "retinker/nano-llama".to_owned(),
            model_owner: format!("owner-{}", n % 10_000),
            is_lora: true,
            corrupted: Some(poisoned),
            lora_rank: Some(8),
            last_request_time: self.last_request(n),
            last_checkpoint: newest(&CheckpointType::Training),
            last_sampler_checkpoint: newest(&CheckpointType::Sampler),
            user_metadata: Some(labels(&[
                ("name", format!("run {n}")),
                ("project", format!("p{}", n % 100)),
            ])),
            corrupted_reason: None,
        };
        if self.varied_at.is_some() {
            run.base_model = pick(&MODELS, n, 1).to_owned();
            run.model_owner = pick(&OWNERS, n, 2).to_owned();
            run.lora_rank = Some(pick(&RANKS, n, 3));
            run.user_metadata = Some(labels(&[
                ("name", format!("{}-{n:05}", pick(&TASKS, n, 4))),
                ("team", pick(&TEAMS, n, 5).to_owned()),
                ("seed", (mixed(n, 6) % 100).to_string()),
            ]));
            run.corrupted_reason = poisoned.then(|| pick(&REASONS, n, 7).to_owned());
        }
        if let Some(text) = self.odd_text(n) {
            run.model_owner.clone_from(&text);
            run.base_model.clone_from(&text);
            run.user_metadata =
                Some(labels(&[("name", text.clone()), ("team", text.clone()), (&text, text.clone())]));
            run.corrupted_reason = poisoned.then_some(text);
        }
        run
    }

    fn odd_text(&self, n: u64) -> Option<String> {
        let texts = odd::texts();
        texts.into_iter().nth(usize::try_from(n).ok()?).filter(|_| self.odd)
    }

    /// When a run was last asked for something.
    fn last_request(&self, n: u64) -> Time {
        let Some(begin) = self.varied_at else { return Time::from_millis(LONG_AGO) };
        if let Some(changed) = self.changes().asked.get(&n) {
            return *changed;
        }
        let jitter = i64::try_from(mixed(n, 8) % 60_000).unwrap_or(0);
        let age = i64::try_from(n).unwrap_or(i64::MAX).saturating_mul(APART.as_millis() as i64);
        Time::from_millis(begin.as_millis().saturating_sub(age).saturating_sub(jitter))
    }

    /// A run's checkpoints, newest first.
    fn checkpoints(&self, n: u64) -> Vec<Checkpoint> {
        let Some(begin) = self.varied_at else {
            let time = Time::from_millis(LONG_AGO);
            return vec![checkpoint(n, "a".to_owned(), CheckpointType::Training, time, 1 << 20)];
        };
        // As the run was when the service began: what happens to it later saves nothing.
        let age = i64::try_from(n).unwrap_or(i64::MAX).saturating_mul(APART.as_millis() as i64);
        let last = begin.as_millis().saturating_sub(age).saturating_sub(60_000);
        let count = CHECKPOINTS.get((n % 8) as usize).copied().unwrap_or(0);
        (0..count)
            .map(|k| {
                let kind = if k == 1 { CheckpointType::Sampler } else { CheckpointType::Training };
                let time = Time::from_millis(last.saturating_sub(k as i64 * 1_200_000));
                let size = (50 << 20) + mixed(n, 9 + k) % (2 << 30);
                let name = format!("{:06}", 100 * (count - k));
                let mut made = checkpoint(n, name, kind, time, size);
                let hours = match mixed(n, 12 + k) % 20 {
                    0 => Some(-3),
                    1 | 2 => Some(5),
                    3..=7 => Some(24 * 12),
                    _ => None,
                };
                made.expires_at =
                    hours.map(|hours| Time::from_millis(begin.as_millis().saturating_add(hours * 3_600_000)));
                made.public = mixed(n, 15 + k).is_multiple_of(30);
                made.user_metadata = Some(labels(&[("step", (100 * (count - k)).to_string())]));
                if let Some(text) = self.odd_text(n) {
                    made.user_metadata = Some(labels(&[(&text, text.clone())]));
                }
                made
            })
            .collect()
    }

    /// A page of the checkpoints of all runs.
    fn all_checkpoints(&self, limit: u64, offset: u64) -> CheckpointsResponse {
        let in_eight: u64 = CHECKPOINTS.iter().sum();
        let of_rest: u64 = CHECKPOINTS.iter().take((self.runs % 8) as usize).sum();
        let total_count =
            if self.varied_at.is_none() { self.runs } else { self.runs / 8 * in_eight + of_rest };
        let first = if self.varied_at.is_none() { offset } else { offset / in_eight * 8 };
        let skipped = if self.varied_at.is_none() { 0 } else { offset % in_eight };
        let checkpoints = (first..self.runs)
            .flat_map(|n| self.checkpoints(n))
            .skip(skipped as usize)
            .take(limit as usize)
            .collect();
        CheckpointsResponse { checkpoints, cursor: Some(Cursor { offset, limit, total_count }) }
    }

    /// What a search finds of the sessions; all in one page.
    fn search(&self, request: &SessionSearchRequest) -> SessionSearchResponse {
        let asked: Vec<u64> = match &request.session_id {
            Some(id) => self.existing(id).into_iter().collect(),
            None => (0..self.lasting.min(self.runs)).collect(),
        };
        let statuses = request.statuses.as_deref().unwrap_or_default();
        let sessions = asked
            .into_iter()
            .map(|n| self.summary(n))
            .filter(|found| found.status.as_ref().is_some_and(|status| status.is_among(statuses)))
            .collect();
        SessionSearchResponse { sessions, next_cursor: None }
    }

    fn summary(&self, n: u64) -> SessionSummary {
        let status = match n {
            n if n < self.lasting => SessionStatus::Active,
            n if mixed(n, 18).is_multiple_of(40) => SessionStatus::cancelled("no heartbeat for 60 s"),
            _ => SessionStatus::ClientFinished {
                reason: FinishReasonBody { kind: FinishReason::Success },
                detail: None,
            },
        };
        let checkpoints = self.checkpoints(n);
        SessionSummary {
            session_id: session(n),
            created_at: Time::from_millis(self.last_request(n).as_millis().saturating_sub(7_200_000)),
            owner: "me".to_owned(),
            project_id: "p".to_owned(),
            status: Some(status),
            checkpoints_count: checkpoints.len() as u64,
            display_name: None,
            user_metadata: None,
            checkpoint_storage_bytes: Some(checkpoints.iter().filter_map(|c| c.size_bytes).sum()),
        }
    }
}

fn checkpoint(n: u64, name: String, kind: CheckpointType, time: Time, size: u64) -> Checkpoint {
    let place = if kind == CheckpointType::Sampler { "sampler_weights" } else { "weights" };
    Checkpoint {
        checkpoint_id: format!("{place}/{name}"),
        checkpoint_type: kind,
        time,
        tinker_path: format!("tinker://{}/{place}/{name}", run_id(n)),
        size_bytes: Some(size),
        public: false,
        user_metadata: None,
        expires_at: None,
    }
}

/// The id of run `n`'s session.
fn session(n: u64) -> String {
    format!("{n:08x}-7d3f-4a0e-9a55-0f1d2c3b4a59")
}

/// The id of run `n`.
fn run_id(n: u64) -> String {
    format!("{}:train:0", session(n))
}

/// A number that looks like chance, of a run and a purpose.
fn mixed(n: u64, purpose: u64) -> u64 {
    let mut x =
        n.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(purpose.wrapping_mul(0xD1B5_4A32_D192_ED03));
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// One of these, by a run and a purpose.
fn pick<T: Copy + Default>(from: &[T], n: u64, purpose: u64) -> T {
    let at = mixed(n, purpose) % (from.len() as u64).max(1);
    from.get(at as usize).copied().unwrap_or_default()
}

fn labels(pairs: &[(&str, String)]) -> UserMetadata {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect()
}

/// A number of the query.
fn number(query: &str, name: &str) -> Option<u64> {
    query.split('&').find_map(|part| part.strip_prefix(name)?.strip_prefix('='))?.parse().ok()
}

fn json(value: &impl Serialize) -> String {
    // What is made here can be written.
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> Service {
        Service::varied(21, 10, 3, Time::from_millis(LONG_AGO))
    }

    fn ids(answer: &CheckpointsResponse) -> Vec<String> {
        answer.checkpoints.iter().map(|checkpoint| checkpoint.tinker_path.clone()).collect()
    }

    #[test]
    fn the_pages_of_all_checkpoints_are_those_of_the_runs() {
        let service = service();
        let all: Vec<String> =
            (0..21).flat_map(|n| service.checkpoints(n)).map(|checkpoint| checkpoint.tinker_path).collect();
        assert_eq!(service.all_checkpoints(0, 0).cursor.unwrap().total_count, all.len() as u64);
        for limit in [1, 5, 100] {
            let offsets = (0..all.len() as u64).step_by(limit as usize);
            let paged: Vec<String> =
                offsets.flat_map(|offset| ids(&service.all_checkpoints(limit, offset))).collect();
            assert_eq!(paged, all, "in pages of {limit}");
        }
    }

    #[test]
    fn what_changes_is_told_wherever_it_is_asked_for() {
        let (service, now) = (service(), Time::from_millis(LONG_AGO + 5_000));
        assert!(service.run(10).corrupted == Some(true) && service.run(11).corrupted == Some(false));
        service.touch(4, now);
        service.poison(11);
        // The three whose sessions last, and the first of them again.
        let asked: Vec<u64> = (0..21).filter(|n| service.run(*n).last_request_time == now).collect();
        assert_eq!(asked, [0, 1, 2]);
        assert_eq!(service.run(11).corrupted, Some(true));
        let page: TrainingRunsResponse = serde_json::from_str(&service.page(21, 0)).unwrap();
        assert_eq!(page.training_runs.len(), 21);
        assert_eq!(page.training_runs[11], service.run(11));
    }

    #[test]
    fn ids_are_those_of_runs_that_there_are() {
        let service = service();
        let ask = |path: &str| service.answer(path, &[]);
        assert!(ask(&format!("training_runs/{}", run_id(20))).is_some());
        for id in
            [run_id(21), "0".into(), String::new(), "zzzzzzzz".into(), format!("{:08x}-other:train:0", 1)]
        {
            assert_eq!(ask(&format!("training_runs/{id}")), None, "{id}");
        }
        assert_eq!(ask("billing/usage"), None);
    }
}
