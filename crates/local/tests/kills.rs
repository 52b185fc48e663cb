//! SIGKILL at random moments under load, and after each the service is held against all that it ever acknowledged.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use common::process::Process;
use common::{Client, MODEL, batch, eventually, start};
use reqwest::Method;
use serde_json::{Value, json};

/// How often the service is killed, unless RETINKER_KILLS says otherwise.
const KILLS: u64 = 24;
/// Programs at work when it is.
const PROGRAMS: u64 = 4;
/// Steps of the undisturbed run that all others are held against.
const STEPS: usize = 250;

/// How many requests of all programs were answered.
static ANSWERS: AtomicU64 = AtomicU64::new(0);

#[tokio::test(flavor = "multi_thread")]
async fn after_any_kill_all_that_was_acknowledged_is_there_and_what_is_lost_is_called_lost() {
    let seed = match std::env::var("RETINKER_SEED") {
        Ok(seed) => seed.parse().unwrap(),
        Err(_) => std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
    };
    let kills = std::env::var("RETINKER_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    println!("RETINKER_SEED={seed} RETINKER_KILLS={kills}");
    let mut random = Random(seed);
    let losses: &'static [f64] = undisturbed().await.leak();
    let dir = tempfile::tempdir().unwrap();
    let mut programs: Vec<Program> =
        (0..PROGRAMS).map(|_| Program::new(Random(random.next()), losses)).collect();
    for kill in 0..=kills {
        // Without room for more than the runs being worked on, every other time.
        let arguments: &[&str] = if kill % 2 == 0 { &["0", "0"] } else { &[] };
        let service = Process::start_with(dir.path(), arguments);
        let client = Client::new(&service.base);
        nothing_is_left_over(dir.path());
        let thorough = kill == kills;
        for program in &mut programs {
            program.check(&client, thorough).await;
        }
        everything_listed_is_whole(&client, thorough).await;
        if thorough {
            break;
        }
        let tasks: Vec<_> = programs
            .into_iter()
            .map(|mut program| {
                let client = client.clone();
                tokio::spawn(async move {
                    program.live(&client).await;
                    program
                })
            })
            .collect();
        // By what was done, not by the clock, so that a slow machine meets as much as a fast one; then at any moment.
        let answers = ANSWERS.load(Ordering::Relaxed) + 1 + random.next() % 100;
        eventually("the programs get answers", async || {
            (ANSWERS.load(Ordering::Relaxed) >= answers).then_some(())
        })
        .await;
        tokio::time::sleep(Duration::from_micros(random.next() % 20_000)).await;
        tokio::task::spawn_blocking(|| service.kill()).await.unwrap();
        programs = Vec::new();
        for task in tasks {
            programs.push(task.await.unwrap());
        }
    }
    let mut seen = Seen::default();
    for program in &programs {
        seen.add(&program.seen);
    }
    println!(
        "{kills} kills of a service that {PROGRAMS} programs used: {} saves and {} weights to sample from were \
         acknowledged and found again, {} runs lost work and said so, {} went on with the same numbers, {} were made \
         from a checkpoint",
        seen.saved, seen.samplers, seen.lost, seen.went_on, seen.restored
    );
    // A test that never meets what it is about shows nothing.
    assert!(seen.saved > 20 && seen.samplers > 3 && seen.lost > 5 && seen.went_on > 5, "{seen:?}");
}

/// The losses of a run that nothing happens to.
async fn undisturbed() -> Vec<f64> {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let session = client.session().await;
    let losses = client.run(&session, 0).await.losses(0..STEPS).await;
    service.stop().await;
    losses
}

fn nothing_is_left_over(data_dir: &Path) {
    let below = |path: &Path| {
        std::fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path()).collect::<Vec<_>>()
    };
    assert!(below(&data_dir.join("aside")).is_empty());
    for run in below(&data_dir.join("checkpoints")) {
        for place in below(&run).iter().flat_map(|kind| below(kind)) {
            let name = place.file_name().unwrap().to_string_lossy().into_owned();
            assert!(!name.starts_with('.'), "{} is half-written", place.display());
        }
    }
}

/// What is listed can be used; `thorough` says that all of it is looked at.
async fn everything_listed_is_whole(client: &Client, thorough: bool) {
    let limit = if thorough { 1000 } else { 20 };
    let (_, listed) = client.get(&format!("checkpoints?limit={limit}")).await;
    for checkpoint in listed["checkpoints"].as_array().unwrap() {
        let path = &checkpoint["tinker_path"];
        let (status, info) = client.post("weights_info", json!({"tinker_path": path})).await;
        assert_eq!(status, 200, "{path}: {info}");
    }
}

/// How often what happened.
#[derive(Debug, Default)]
struct Seen {
    saved: u64,
    samplers: u64,
    lost: u64,
    went_on: u64,
    restored: u64,
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.saved += other.saved;
        self.samplers += other.samplers;
        self.lost += other.lost;
        self.went_on += other.went_on;
        self.restored += other.restored;
    }
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The service does not answer any more.
struct Killed;

/// What was asked for and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    No,
    /// Sent; the answer never came.
    Perhaps,
    Yes,
}

/// A checkpoint as it is listed.
#[derive(Debug, Clone, PartialEq)]
struct Version {
    label: String,
    step: usize,
    public: bool,
    expires: bool,
}

/// What a checkpoint may be found as, the newest wish last; `None` = not there.
#[derive(Debug)]
struct Stored {
    versions: Vec<Option<Version>>,
}

impl Stored {
    fn newest(&self) -> Option<&Version> {
        self.versions.last()?.as_ref()
    }

    /// The newest wish was acknowledged.
    fn settle(&mut self) {
        self.versions.drain(..self.versions.len() - 1);
    }
}

/// What is known about one run.
#[derive(Debug)]
struct Known {
    session: String,
    id: String,
    label: String,
    /// The number of the last request sent.
    seq: u64,
    /// How many steps were taken.
    step: usize,
    gradients_pending: bool,
    unsaved: Asked,
    /// A save under this name, with this label, was sent and would make the run clean.
    saving: Option<(String, String)>,
    /// What was sent and not answered: to be sent again.
    in_flight: Option<(&'static str, Value)>,
    /// Requests that were accepted, whose results are not known.
    pending: Vec<String>,
    checkpoints: BTreeMap<String, Stored>,
    /// Why it is corrupted, once that was seen.
    lost: Option<String>,
}

impl Known {
    fn new(session: &str, id: String, label: &str, step: usize) -> Self {
        Self {
            session: session.to_owned(),
            id,
            label: label.to_owned(),
            seq: 0,
            step,
            gradients_pending: false,
            unsaved: Asked::No,
            saving: None,
            in_flight: None,
            pending: Vec::new(),
            checkpoints: BTreeMap::new(),
            lost: None,
        }
    }
}

/// Weights to sample from, and a sampler of them.
#[derive(Debug)]
struct Sampler {
    session: String,
    id: String,
    path: String,
    /// What it drew, without chance.
    tokens: Value,
}

/// One program that trains, saves and tidies up at random, and remembers all that it was told.
struct Program {
    random: Random,
    losses: &'static [f64],
    /// Its sessions, and whether they were finished. The last is the current one.
    sessions: Vec<(String, String, Asked)>,
    runs: Vec<Known>,
    samplers: Vec<Sampler>,
    /// Makes names that were never used before.
    names: u64,
    seen: Seen,
}

impl Program {
    fn new(random: Random, losses: &'static [f64]) -> Self {
        Self {
            random,
            losses,
            sessions: Vec::new(),
            runs: Vec::new(),
            samplers: Vec::new(),
            names: 0,
            seen: Seen::default(),
        }
    }

    fn chance(&mut self, one_in: u64) -> bool {
        self.random.next().is_multiple_of(one_in)
    }

    fn name(&mut self) -> String {
        self.names += 1;
        format!("n{}", self.names)
    }

    /// Does one thing after the other until the service is killed.
    async fn live(&mut self, client: &Client) {
        while self.act(client).await.is_ok() {}
    }

    async fn act(&mut self, client: &Client) -> Result<(), Killed> {
        let usable = self.runs.last().is_some_and(|run| run.lost.is_none() && run.step + 2 < STEPS);
        let session = self.sessions.last().filter(|(_, _, finished)| *finished == Asked::No);
        let Some((session, _, _)) = session.cloned() else { return self.begin_session(client).await };
        if !usable || self.runs.last().is_some_and(|run| run.session != session) || self.chance(40) {
            return self.make_run(client, &session).await;
        }
        match self.random.next() % 16 {
            0..5 => self.train(client).await,
            5 => self.gradients(client).await,
            6 => self.forward(client).await,
            7..10 => self.save(client).await,
            10 => self.save_for_sampler(client).await,
            11..15 => self.tidy_up(client).await,
            _ if self.chance(4) => self.finish_session(client).await,
            _ => self.train(client).await,
        }
    }

    /// The checkpoints that are surely there: whose, which, and of which step.
    fn settled(&self) -> Vec<(usize, String, usize)> {
        let mut settled = Vec::new();
        for (position, run) in self.runs.iter().enumerate() {
            for (name, stored) in &run.checkpoints {
                if let [Some(version)] = stored.versions.as_slice() {
                    settled.push((position, name.clone(), version.step));
                }
            }
        }
        settled
    }

    async fn begin_session(&mut self, client: &Client) -> Result<(), Killed> {
        let label = self.name();
        let body = json!({"tags": [], "user_metadata": {"label": label}, "sdk_version": "t"});
        let answer = ask(client, Method::POST, "create_session", &body).await?;
        self.sessions.push((answer["session_id"].as_str().unwrap().to_owned(), label, Asked::No));
        Ok(())
    }

    async fn finish_session(&mut self, client: &Client) -> Result<(), Killed> {
        let (session, _, finished) = self.sessions.last_mut().unwrap();
        *finished = Asked::Perhaps;
        let body = json!({"reason": {"type": "success"}});
        ask(client, Method::POST, &format!("sessions/{session}/finish"), &body).await?;
        *finished = Asked::Yes;
        Ok(())
    }

    /// A run from a checkpoint that was acknowledged, or a new one.
    async fn make_run(&mut self, client: &Client, session: &str) -> Result<(), Killed> {
        let label = self.name();
        let labels = json!({"label": label});
        let source = self.settled().pop().filter(|(_, _, step)| step + 2 < STEPS);
        let number = self.names;
        let (path, body, step) = match source {
            Some((run, name, step)) => {
                let path = format!("tinker://{}/weights/{name}", self.runs[run].id);
                let body = json!({"session_id": session, "model_seq_id": number, "path": path, "optimizer": true,
                                  "user_metadata": labels});
                ("load_weights", body, step)
            }
            None => {
                let body = json!({"session_id": session, "model_seq_id": number, "base_model": MODEL,
                                  "lora_config": {"rank": 4, "seed": 7}, "user_metadata": labels});
                ("create_model", body, 0)
            }
        };
        let accepted = ask(client, Method::POST, path, &body).await?;
        let made = resolved(client, accepted["request_id"].as_str().unwrap()).await?;
        let id = format!("{session}:train:{number}");
        assert_eq!(made["model_id"], id, "{made}");
        self.runs.push(Known::new(session, id, &label, step));
        self.seen.restored += u64::from(path == "load_weights");
        Ok(())
    }

    /// Sends the run's next request, until it is accepted. Gives its id.
    async fn send(&mut self, client: &Client, path: &'static str, mut body: Value) -> Result<String, Killed> {
        let run = self.runs.last_mut().unwrap();
        run.seq += 1;
        body["model_id"] = json!(run.id);
        body["seq_id"] = json!(run.seq);
        run.in_flight = Some((path, body));
        self.send_again(client).await
    }

    async fn send_again(&mut self, client: &Client) -> Result<String, Killed> {
        let run = self.runs.last_mut().unwrap();
        let (path, body) = run.in_flight.clone().unwrap();
        let trains = matches!(path, "forward_backward" | "optim_step");
        if trains && run.unsaved == Asked::No {
            run.unsaved = Asked::Perhaps;
        }
        let answer = ask(client, Method::POST, path, &body).await?;
        run.in_flight = None;
        if trains {
            run.unsaved = Asked::Yes;
        }
        let id = answer["request_id"].as_str().unwrap().to_owned();
        assert_eq!(id, format!("{}:{}", run.id, run.seq));
        run.pending.push(id.clone());
        Ok(id)
    }

    async fn result(&mut self, client: &Client, id: &str) -> Result<Value, Killed> {
        let result = resolved(client, id).await?;
        self.runs.last_mut().unwrap().pending.retain(|pending| pending != id);
        Ok(result)
    }

    fn batch(&self) -> Value {
        let step = self.runs.last().unwrap().step;
        json!({"data": batch(step), "loss_fn": "cross_entropy"})
    }

    fn check_loss(&self, result: &Value) {
        let run = self.runs.last().unwrap();
        assert_eq!(
            result["metrics"]["loss:sum"].as_f64(),
            Some(self.losses[run.step]),
            "{run:?} is not where it should be: {result}"
        );
    }

    async fn gradients(&mut self, client: &Client) -> Result<(), Killed> {
        if self.runs.last().unwrap().gradients_pending {
            return self.optim_step(client).await;
        }
        let body = json!({"forward_backward_input": self.batch()});
        let id = self.send(client, "forward_backward", body).await?;
        let result = self.result(client, &id).await?;
        self.check_loss(&result);
        self.runs.last_mut().unwrap().gradients_pending = true;
        Ok(())
    }

    async fn optim_step(&mut self, client: &Client) -> Result<(), Killed> {
        let id = self.send(client, "optim_step", json!({"adam_params": {"learning_rate": 0.01}})).await?;
        let result = self.result(client, &id).await?;
        assert!(result["metrics"].is_object(), "{result}");
        let run = self.runs.last_mut().unwrap();
        run.gradients_pending = false;
        run.step += 1;
        Ok(())
    }

    async fn train(&mut self, client: &Client) -> Result<(), Killed> {
        if !self.runs.last().unwrap().gradients_pending {
            self.gradients(client).await?;
        }
        self.optim_step(client).await
    }

    /// Changes nothing, and takes a number.
    async fn forward(&mut self, client: &Client) -> Result<(), Killed> {
        let body = json!({"forward_input": self.batch()});
        let id = self.send(client, "forward", body).await?;
        let result = self.result(client, &id).await?;
        self.check_loss(&result);
        Ok(())
    }

    /// Saves under a new name or an old one.
    async fn save(&mut self, client: &Client) -> Result<(), Killed> {
        let label = self.name();
        let overwrite = self.chance(4);
        let run = self.runs.last_mut().unwrap();
        let mut name = label.clone();
        if overwrite && let Some((old, _)) = run.checkpoints.iter().find(|(_, old)| old.versions.len() == 1) {
            name.clone_from(old);
        }
        let version = Version { label: label.clone(), step: run.step, public: false, expires: false };
        let stored = run.checkpoints.entry(name.clone());
        let stored = stored.or_insert_with(|| Stored { versions: vec![None] });
        stored.versions.push(Some(version));
        let step = run.step.to_string();
        // Gradients that wait are in no checkpoint.
        if run.unsaved == Asked::Yes && !run.gradients_pending {
            run.unsaved = Asked::Perhaps;
            run.saving = Some((name.clone(), label.clone()));
        }
        let body = json!({"path": name, "overwrite": true, "user_metadata": {"label": label, "step": step}});
        let id = self.send(client, "save_weights", body).await?;
        self.saved(client, &id, &name).await
    }

    async fn saved(&mut self, client: &Client, id: &str, name: &str) -> Result<(), Killed> {
        let result = self.result(client, id).await?;
        let run = self.runs.last_mut().unwrap();
        assert_eq!(result["path"], format!("tinker://{}/weights/{name}", run.id), "{result}");
        run.checkpoints.get_mut(name).unwrap().settle();
        run.saving = None;
        if !run.gradients_pending {
            run.unsaved = Asked::No;
        }
        self.seen.saved += 1;
        Ok(())
    }

    /// Saves weights to sample from, and draws from them.
    async fn save_for_sampler(&mut self, client: &Client) -> Result<(), Killed> {
        let name = self.name();
        let id = self.send(client, "save_weights_for_sampler", json!({"path": name})).await?;
        self.saved_for_sampler(client, &id).await
    }

    async fn saved_for_sampler(&mut self, client: &Client, id: &str) -> Result<(), Killed> {
        let result = self.result(client, id).await?;
        let path = result["path"].as_str().unwrap_or_else(|| panic!("{result}")).to_owned();
        let session = self.runs.last().unwrap().session.clone();
        let body = json!({"session_id": session, "sampling_session_seq_id": self.names, "model_path": path});
        let made = ask(client, Method::POST, "create_sampling_session", &body).await?;
        let id = made["sampling_session_id"].as_str().unwrap().to_owned();
        let tokens = drawn(client, &path).await?;
        self.samplers.push(Sampler { session, id, path, tokens });
        self.seen.samplers += 1;
        Ok(())
    }

    /// Deletes, publishes, or sets the time of a checkpoint of any run.
    async fn tidy_up(&mut self, client: &Client) -> Result<(), Killed> {
        let dice = self.random.next();
        let mut all = self.settled();
        if all.is_empty() {
            return Ok(());
        }
        let (run, name, _) = all.swap_remove((dice >> 8) as usize % all.len());
        let run = &mut self.runs[run];
        let path = format!("training_runs/{}/checkpoints/weights/{name}", run.id);
        let stored = run.checkpoints.get_mut(&name).unwrap();
        let mut version = stored.newest().unwrap().clone();
        let (method, path, body) = match dice % 4 {
            0 => {
                stored.versions.push(None);
                ask(client, Method::DELETE, &path, &Value::Null).await?;
                stored.settle();
                return Ok(());
            }
            1 => {
                version.public = !version.public;
                let method = if version.public { Method::POST } else { Method::DELETE };
                (method, format!("{path}/publish"), Value::Null)
            }
            _ => {
                version.expires = !version.expires;
                let seconds = version.expires.then_some(3600);
                (Method::PUT, format!("{path}/ttl"), json!({"ttl_seconds": seconds}))
            }
        };
        stored.versions.push(Some(version));
        ask(client, method, &path, &body).await?;
        stored.settle();
        Ok(())
    }

    /// Holds the service against what it acknowledged, and goes on with the current run if it is there.
    async fn check(&mut self, client: &Client, thorough: bool) {
        for (session, label, finished) in &mut self.sessions {
            let (status, info) = client.get(&format!("sessions/{session}")).await;
            assert_eq!(status, 200, "session {session} is gone");
            assert_eq!(info["user_metadata"]["label"], *label, "{info}");
            let (status, _) = client.post("session_heartbeat", json!({"session_id": session})).await;
            *finished = match (status, *finished) {
                (200, Asked::No | Asked::Perhaps) => Asked::No,
                (410, Asked::Yes | Asked::Perhaps) => Asked::Yes,
                other => panic!("session {session}: {other:?}"),
            };
        }
        let count = self.runs.len();
        for (position, run) in self.runs.iter_mut().enumerate() {
            let over = self.sessions.iter().any(|(id, _, over)| *id == run.session && *over == Asked::Yes);
            let listed = check_checkpoints(client, run, thorough || position + 3 > count).await;
            let before = run.lost.is_some();
            check_run(client, run, over, &listed).await;
            self.seen.lost += u64::from(run.lost.is_some() && !before);
        }
        let skipped = if thorough { 0 } else { self.samplers.len().saturating_sub(2) };
        for sampler in &self.samplers[skipped..] {
            let tokens = drawn(client, &sampler.path).await.unwrap_or_else(|Killed| panic!("{sampler:?}"));
            assert_eq!(tokens, sampler.tokens, "other weights than were saved: {sampler:?}");
            if self.sessions.iter().any(|(id, _, over)| *id == sampler.session && *over == Asked::No) {
                let (status, info) = client.get(&format!("samplers/{}", sampler.id)).await;
                assert_eq!((status, &info["model_path"]), (200, &json!(sampler.path)), "{sampler:?} {info}");
            }
        }
        let current = self.runs.last().filter(|run| {
            let lasts = |(id, _, over): &(String, String, Asked)| *id == run.session && *over == Asked::No;
            run.lost.is_none() && self.sessions.iter().any(lasts)
        });
        if current.is_some() && self.go_on(client).await.is_err() {
            panic!("the service is gone");
        }
    }

    /// The same client goes on with the next number.
    async fn go_on(&mut self, client: &Client) -> Result<(), Killed> {
        let run = self.runs.last_mut().unwrap();
        run.unsaved = Asked::No;
        run.saving = None;
        run.pending.clear();
        run.gradients_pending = false;
        if let Some((path, body)) = run.in_flight.clone() {
            if path == "save_weights" {
                let label = body["user_metadata"]["label"].as_str().unwrap().to_owned();
                let name = body["path"].as_str().unwrap();
                let wish = Version { label, step: run.step, public: false, expires: false };
                run.checkpoints.get_mut(name).unwrap().versions.push(Some(wish));
                let id = self.send_again(client).await?;
                self.saved(client, &id, name).await?;
            } else if path == "save_weights_for_sampler" {
                let id = self.send_again(client).await?;
                self.saved_for_sampler(client, &id).await?;
            } else {
                let id = self.send_again(client).await?;
                let result = self.result(client, &id).await?;
                self.check_loss(&result);
                self.runs.last_mut().unwrap().gradients_pending = path == "forward_backward";
            }
        }
        self.train(client).await?;
        self.seen.went_on += 1;
        Ok(())
    }
}

/// Looks for a run's checkpoints, and settles what each of them is. Gives the list.
async fn check_checkpoints(client: &Client, run: &mut Known, read: bool) -> BTreeMap<String, Version> {
    let (status, list) = client.get(&format!("training_runs/{}/checkpoints", run.id)).await;
    assert_eq!(status, 200, "run {} is gone", run.id);
    let mut listed = BTreeMap::new();
    for checkpoint in list["checkpoints"].as_array().unwrap() {
        // Weights to sample from are held against what was drawn from them.
        let Some(name) = checkpoint["checkpoint_id"].as_str().unwrap().strip_prefix("weights/") else {
            continue;
        };
        let version = Version {
            label: checkpoint["user_metadata"]["label"].as_str().unwrap().to_owned(),
            step: checkpoint["user_metadata"]["step"].as_str().unwrap().parse().unwrap(),
            public: checkpoint["public"].as_bool().unwrap(),
            expires: checkpoint["expires_at"].is_string(),
        };
        assert!(run.checkpoints.contains_key(name), "{checkpoint} was never asked for");
        listed.insert(name.to_owned(), version);
    }
    for (name, stored) in &mut run.checkpoints {
        let found = listed.get(name);
        let known = stored.versions.iter().any(|version| version.as_ref() == found);
        assert!(known, "{} {name} is {found:?}, not one of {stored:?}", run.id);
        stored.versions = vec![found.cloned()];
        if read {
            let path = json!({"tinker_path": format!("tinker://{}/weights/{name}", run.id)});
            let (status, info) = client.post("weights_info", path).await;
            assert_eq!(status, if found.is_some() { 200 } else { 404 }, "{} {name}: {info}", run.id);
        }
    }
    listed
}

async fn check_run(client: &Client, run: &mut Known, over: bool, listed: &BTreeMap<String, Version>) {
    let (status, info) = client.get(&format!("training_runs/{}", run.id)).await;
    assert_eq!(status, 200, "run {} is gone", run.id);
    assert_eq!(info["user_metadata"]["label"], run.label, "{info}");
    let corrupted = info["corrupted"].as_bool().unwrap();
    if let Some(reason) = &run.lost {
        assert_eq!(info["corrupted_reason"], *reason, "{info}");
        return;
    }
    if over {
        assert!(!corrupted, "its client let the work go: {info}");
        return;
    }
    match run.unsaved {
        Asked::No => assert!(!corrupted, "nothing was unsaved: {run:?} {info}"),
        Asked::Yes => assert!(corrupted, "work was lost: {run:?}"),
        Asked::Perhaps => {
            if let Some((name, label)) = run.saving.as_ref().filter(|_| !corrupted) {
                let found = listed.get(name).map(|version| &version.label);
                assert_eq!(found, Some(label), "work was lost and no save holds it: {run:?}");
            }
        }
    }
    if corrupted {
        let reason = info["corrupted_reason"].as_str().unwrap();
        assert!(reason.contains("unsaved"), "{reason}");
        run.lost = Some(reason.to_owned());
        for id in &run.pending {
            let (status, result) = client.result_of(id).await;
            assert_eq!(status, 200, "{id}: {result}");
            let saved = result["path"].is_string();
            assert!(saved || result["category"] == "server", "{id}: {result}");
        }
    }
}

/// What weights draw without chance.
async fn drawn(client: &Client, path: &str) -> Result<Value, Killed> {
    let body = json!({"model_path": path, "num_samples": 1, "prompt": {"chunks": [{"tokens": [1, 84]}]},
                      "sampling_params": {"max_tokens": 8, "temperature": 0.0, "stop": []}});
    let accepted = ask(client, Method::POST, "asample", &body).await?;
    let result = resolved(client, accepted["request_id"].as_str().unwrap()).await?;
    assert!(result["sequences"].is_array(), "{result}");
    Ok(result["sequences"][0].clone())
}

/// What a request is answered; it has to be accepted.
async fn ask(client: &Client, method: Method, path: &str, body: &Value) -> Result<Value, Killed> {
    let mut request = client.http.request(method, client.url(path));
    if !body.is_null() {
        request = request.json(body);
    }
    let response = request.send().await.map_err(|_| Killed)?;
    let status = response.status();
    let answer = response.bytes().await.map_err(|_| Killed)?;
    ANSWERS.fetch_add(1, Ordering::Relaxed);
    assert!(status.is_success(), "{path} {body}: {status} {}", String::from_utf8_lossy(&answer));
    Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null))
}

/// What an accepted request comes to.
async fn resolved(client: &Client, id: &str) -> Result<Value, Killed> {
    loop {
        let result = ask(client, Method::POST, "retrieve_future", &json!({"request_id": id})).await?;
        if result["type"] != "try_again" {
            return Ok(result);
        }
    }
}
