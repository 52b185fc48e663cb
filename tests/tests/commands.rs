//! The commands of recovery, as a person or a script calls them: what they do, what they say, and how they end.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join, join_all};
use futures_util::stream::{self, StreamExt};
use retinker::client::{Api, SaveOptions, ServiceClient, TrainingClient, TrainingOptions};
use retinker::native::{DiskLog, NativeRuntime};
use retinker::recovery::events::{EventKind, RecoveryEvent};
use retinker::recovery::executor::Executor;
use retinker::recovery::incidents::Incident;
use retinker::recovery::journal::{Begun, Store};
use retinker::recovery::plan::{PlanRequest, RestorePlan};
use retinker::recovery::planner::{gather, make_plan};
use retinker::recovery::probe::save_state_with_probe;
use retinker::recovery::restore::{Attachment, RestoreRecord, RestoreState};
use retinker::recovery::verify::{Findings, OptimizerState};
use retinker::redo::{CheckpointPolicy, Redo, RedoEvent, RedoOptions};
use retinker::runtime::Runtime;
use retinker::wire::UserMetadata;
use retinker::wire::session::FinishReason;
use retinker_ir::id::Uuid;
use retinker_ir::lineage::{Event, Record, id_of_restore};
use retinker_ir::work::Job;
use retinker_local::{LocalConfig, LocalService, Pause, RequestFault, RequestRule};
use retinker_store::Location;
use retinker_tests::command::{Retinker, Said};
use retinker_tests::{process, runs, schedule};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

const TEXT: [i32; 8] = [84, 101, 108, 108, 32, 109, 101, 46];

/// A service, a journal, and the commands on both.
struct Place {
    _data: TempDir,
    home: TempDir,
    service: LocalService,
    api: Api,
    retinker: Retinker,
}

impl Place {
    async fn new() -> Self {
        let (data, service, api) = retinker_tests::service::faulty().await.unwrap();
        let home = tempfile::tempdir().unwrap();
        let retinker = Retinker::new(api.base_url(), home.path());
        Self { _data: data, home, service, api, retinker }
    }

    /// The journal, as another program of this machine has it.
    async fn store(&self) -> Arc<dyn Store> {
        let store = retinker_store::open(&Location::Directory(self.home.path().to_owned())).await.unwrap();
        store.bind(self.api.base_url()).await.unwrap();
        store
    }

    /// The restores, newest first.
    async fn restores(&self) -> Vec<RestoreRecord> {
        self.store().await.list().await.unwrap()
    }

    /// The one restore that there is.
    async fn restored(&self) -> RestoreRecord {
        <[RestoreRecord; 1]>::try_from(self.restores().await).unwrap()[0].clone()
    }

    async fn runs(&self) -> usize {
        runs::all(&self.api).await.unwrap().len()
    }

    /// A run that has taken a step and saved.
    async fn trained(&self) -> TrainingClient {
        let client = fresh(&self.api).await;
        schedule::step(&client, 0).await.unwrap();
        save_state_with_probe(&client, "a", SaveOptions::default(), &TEXT).await.unwrap();
        client
    }

    /// One that was poisoned afterwards.
    async fn lost(&self) -> String {
        let run = self.trained().await.model_id();
        self.poison(&run).await;
        run
    }

    async fn poison(&self, run: &str) {
        self.service.faults().poison(run, "a backend failed").await.unwrap();
    }

    /// A command that is to go well.
    async fn well(&self, words: &[&str]) -> Said {
        let said = self.retinker.run(words).await.unwrap();
        assert_eq!(said.code, Some(0), "'retinker {}' said {said:#?}", words.join(" "));
        said
    }

    /// A command that is to be refused: says why.
    async fn refused(&self, words: &[&str]) -> String {
        refusal(&self.retinker.run(words).await.unwrap())
    }

    /// Starts a command, to hear what it says on its standard output while it runs, or on its standard error.
    fn start(&self, words: &[&str], error: bool) -> (Child, Spoken) {
        let mut command = self.retinker.command(words).unwrap();
        let (out, err) =
            if error { (Stdio::null(), Stdio::piped()) } else { (Stdio::piped(), Stdio::null()) };
        let mut child = command.stdout(out).stderr(err).spawn().unwrap();
        let spoken: Box<dyn tokio::io::AsyncRead + Send + Unpin> = match child.stdout.take() {
            Some(out) => Box::new(out),
            None => Box::new(child.stderr.take().unwrap()),
        };
        (child, BufReader::new(spoken).lines())
    }
}

async fn fresh(api: &Api) -> TrainingClient {
    let owner = ServiceClient::new(api.clone());
    let made = TrainingOptions::default();
    owner.create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), made).await.unwrap()
}

/// What a failed command said, which is one line, the last.
fn refusal(said: &Said) -> String {
    assert_eq!(said.code, Some(1), "{said:#?}");
    let errors: Vec<_> = said.err.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
    assert_eq!(errors.len(), 1, "{said:#?}");
    assert_eq!(said.err.lines().last().unwrap().strip_prefix("error: "), Some(errors[0]), "{said:#?}");
    assert!(!said.err.contains("panicked"), "{said:#?}");
    errors[0].to_owned()
}

/// What a command says while it runs.
type Spoken = tokio::io::Lines<BufReader<Box<dyn tokio::io::AsyncRead + Send + Unpin>>>;

/// Reads on until a line holds these words.
async fn until(spoken: &mut Spoken, words: &str) {
    let mut said = Vec::new();
    let found = async {
        while let Some(line) = spoken.next_line().await.unwrap() {
            if line.contains(words) {
                return true;
            }
            said.push(line);
        }
        false
    };
    let found = tokio::time::timeout(Duration::from_secs(60), found).await;
    assert_eq!(found, Ok(true), "'{words}' was not said: {said:#?}");
}

fn runtime() -> Arc<dyn Runtime> {
    Arc::new(NativeRuntime::current().unwrap())
}

/// A restore that is begun here, as by another program.
async fn begun(api: &Api, executor: &Executor, run: &str) -> RestoreRecord {
    let request = PlanRequest::new(run);
    let facts = gather(api, &request, None, None, runtime().now()).await.unwrap();
    let Begun::New(record) = executor.begin(make_plan(&facts, &request).unwrap()).await.unwrap() else {
        panic!()
    };
    record
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_shows_the_plan_and_does_nothing() {
    let place = Place::new().await;
    let run = place.lost().await;
    let store = place.store().await;
    let said = place.well(&["restore", &run, "--dry-run"]).await;
    let checkpoint = format!("tinker://{run}/weights/a");
    for words in [&format!("Restore run {run}"), &checkpoint, "It is the run's only checkpoint."] {
        assert!(said.out.contains(words), "{words}: {}", said.out);
    }
    let said = place.well(&["restore", &run, "--dry-run", "--json"]).await;
    let plan: RestorePlan = serde_json::from_str(&said.out).unwrap();
    assert!(plan.verify_id(), "it is whole");
    assert_eq!((plan.run_id, plan.checkpoint.tinker_path, plan.optimizer), (run, checkpoint, true));
    assert_eq!(store.revision().await.unwrap(), 0, "nothing is written");
    assert_eq!(place.runs().await, 1, "nothing is made");
    place.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_restored_once_however_often_it_is_asked_for() {
    let place = Place::new().await;
    let run = place.lost().await;
    let words = ["restore", &run, "--detach"];
    let (first, second) = join(place.well(&words), place.well(&words)).await;
    let new_run = place.restored().await.new_run_id.unwrap();
    for said in [first, second, place.well(&words).await] {
        let told = format!(
            "Run {new_run} has taken the place of run {run}.\nGo on with it: retinker attach {new_run}\n"
        );
        assert!(said.out.ends_with(&told), "{}", said.out);
    }
    // Whoever asks again without --detach is not kept waiting.
    let said = place.well(&["restore", &run, "--json"]).await;
    let record: RestoreRecord = serde_json::from_str(&said.out).unwrap();
    assert_eq!(record, place.restored().await);
    assert_eq!((record.state, place.runs().await), (RestoreState::Adopted, 2));
    place.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_checkpoint_can_be_chosen() {
    let place = Place::new().await;
    let client = fresh(&place.api).await;
    let run = &client.model_id();
    for (name, loss) in [("a", Some("0.5")), ("b", Some("0.2")), ("c", Some("0.9")), ("d", None)] {
        let labels = loss.map(|loss| UserMetadata::from([("loss".to_owned(), loss.to_owned())]));
        client
            .save_state(name, SaveOptions { user_metadata: labels, ..SaveOptions::default() })
            .await
            .unwrap();
    }
    place.poison(run).await;
    let path = |name: &str| format!("tinker://{run}/weights/{name}");
    let (a, nowhere) = (path("a"), path("e"));
    for (options, chosen) in [
        (vec![], "d"),
        (vec!["--step-back", "1"], "c"),
        (vec!["--best", "loss:min"], "b"),
        (vec!["--best", "loss:max"], "c"),
        (vec!["--checkpoint", &a], "a"),
    ] {
        let said = place.well(&[&["restore", run, "--dry-run", "--json"], &options[..]].concat()).await;
        let plan: RestorePlan = serde_json::from_str(&said.out).unwrap();
        assert_eq!(plan.checkpoint.tinker_path, path(chosen), "{options:?}");
    }
    for (options, why) in [
        (
            ["--best", "reward:max"],
            format!("None of the checkpoints of run {run} can be restored from by its label 'reward'."),
        ),
        (["--checkpoint", &nowhere], format!("{nowhere} is not among the checkpoints of run {run}")),
        (["--step-back", "4"], "Stepping back over the 4 newest ones leaves no checkpoint".to_owned()),
    ] {
        let said = place.refused(&[&["restore", run, "--detach"], &options[..]].concat()).await;
        assert!(said.starts_with(&why), "{said}");
    }
    assert!(place.restores().await.is_empty());
    let said = place.well(&["restore", run, "--checkpoint", &a, "--without-optimizer", "--detach"]).await;
    assert!(said.out.contains("(without the optimizer's state)"), "{}", said.out);
    let record = place.restored().await;
    let RestorePlan { checkpoint, optimizer, .. } = record.plan;
    assert_eq!((record.state, checkpoint.tinker_path, optimizer), (RestoreState::Adopted, a, false));
    place.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_well_or_unknown_or_has_saved_nothing_is_not_restored() {
    let place = Place::new().await;
    let (sound, unsaved) = (place.trained().await, fresh(&place.api).await);
    let (sound, unsaved) = (&*sound.model_id(), &*unsaved.model_id());
    place.poison(unsaved).await;
    for (run, why) in [
        (sound, format!("Run {sound} is not corrupted, so there is nothing to restore.")),
        ("nobody", "no plan can be made for run nobody: ".to_owned()),
        (unsaved, format!("Run {unsaved} has no training checkpoint")),
    ] {
        for options in [["--detach"], ["--dry-run"]] {
            let said = place.refused(&[&["restore", run], &options[..]].concat()).await;
            assert!(said.starts_with(&why), "{said}");
        }
    }
    let said = place.refused(&["restore", "nobody"]).await;
    assert!(said.contains("status 404") && said.ends_with("Check the id or path."), "{said}");
    assert_eq!((place.restores().await.len(), place.runs().await), (0, 2));
    place.service.stop().await;
}

/// One process for each write of a restore, dead before and after it; each time the command goes on with what is written.
#[tokio::test(flavor = "multi_thread")]
async fn restore_goes_on_with_what_was_cut_off_at_any_write() {
    const WRITES: u64 = 10;
    let here = Place::new().await;
    let deaths: Vec<_> = (1..=WRITES).flat_map(|write| [(write, "before"), (write, "after")]).collect();
    let place = &here;
    let cut_off = stream::iter(deaths)
        .map(|(write, when)| async move {
            let (run, home) = (place.lost().await, tempfile::tempdir().unwrap());
            let mut mortal = Command::new(env!("CARGO_BIN_EXE_mortal"));
            mortal.arg(place.api.base_url()).arg(home.path()).args([&run, &write.to_string(), when]);
            mortal.stderr(Stdio::null()).status().await.unwrap();
            let location = Location::Directory(home.path().to_owned());
            let unfinished = retinker_store::open(&location).await.unwrap().unfinished().await.unwrap().len();
            let retinker = Retinker::new(place.api.base_url(), home.path());
            let said = retinker.run(&["restore", &run, "--detach"]).await.unwrap();
            assert_eq!(said.code, Some(0), "{write} {when}: {said:#?}");
            assert_eq!(said.out.contains("has been begun already, from "), unfinished == 1, "{}", said.out);
            let records = retinker_store::open(&location).await.unwrap().list().await.unwrap();
            let states: Vec<_> = records.iter().map(|record| record.state).collect();
            assert_eq!(states, [RestoreState::Adopted], "{write} {when}");
            let new_run = records[0].new_run_id.clone().unwrap();
            assert!(
                said.out.contains(&format!("Run {new_run} has taken the place of run {run}.")),
                "{}",
                said.out
            );
            unfinished
        })
        .buffer_unordered(2)
        .collect::<Vec<_>>()
        .await;
    let cut_off: usize = cut_off.iter().sum();
    assert!(cut_off >= 8, "{cut_off} restores were cut off");
    assert_eq!(place.runs().await, 4 * usize::try_from(WRITES).unwrap(), "one new run for each");
    here.service.stop().await;
}

/// The command itself is killed, while the service is at what it was asked for: that is done for nobody, or for the next.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_restore_is_gone_on_with() {
    let place = Place::new().await;
    let hold = |endpoint: &str| {
        let rule = RequestRule::new(endpoint, RequestFault::Delay { milliseconds: 600_000 });
        place.service.faults().add_request_rule(rule).unwrap();
    };
    for state in [RestoreState::OpeningSession, RestoreState::Loading, RestoreState::Checking] {
        let run = place.lost().await;
        let runs = place.runs().await;
        match state {
            RestoreState::OpeningSession => hold("create_session"),
            RestoreState::Loading => place.service.faults().pause(Pause::default()).unwrap(),
            _ => hold("get_info"),
        }
        let (mut command, mut spoken) = place.start(&["restore", &run, "--detach"], false);
        let words = match state {
            RestoreState::OpeningSession => "Opening a session",
            RestoreState::Loading => "Loading tinker://",
            _ => "The checkpoint is loaded.",
        };
        until(&mut spoken, words).await;
        command.kill().await.unwrap();
        let found = place.store().await.by_old_run(&run).await.unwrap();
        assert_eq!(found.iter().map(|record| record.state).collect::<Vec<_>>(), [state]);
        place.service.faults().clear();
        place.well(&["restore", &run, "--detach"]).await;
        let records = place.store().await.by_old_run(&run).await.unwrap();
        assert_eq!(records.iter().map(|record| record.state).collect::<Vec<_>>(), [RestoreState::Adopted]);
        assert_eq!(place.runs().await, runs + 1, "{state:?}: one new run");
    }
    place.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_begun_otherwise_than_is_asked_for_is_not_gone_on_with() {
    let place = Place::new().await;
    let client = place.trained().await;
    let (run, store) = (&client.model_id(), place.store().await);
    client.save_state("b", SaveOptions::default()).await.unwrap();
    place.poison(run).await;
    let executor = Executor::new(place.api.clone(), Arc::clone(&store), runtime());
    let record = begun(&place.api, &executor, run).await;
    let path = |name: &str| format!("tinker://{run}/weights/{name}");
    let (a, b) = (path("a"), path("b"));
    let told = format!("from {b} with the optimizer's state");
    let cases: [(&[&str], &str); 5] = [
        (&["--checkpoint", &a], "that is not the --checkpoint that was asked for"),
        (&["--without-optimizer"], "--without-optimizer cannot be heeded any more"),
        (&["--check-optimizer"], "--check-optimizer cannot be heeded any more"),
        (&["--best", "loss:min"], "--best and --step-back cannot be heeded any more"),
        (&["--step-back", "1"], "--best and --step-back cannot be heeded any more"),
    ];
    for (options, why) in cases {
        let said = place.refused(&[&["restore", run, "--detach"], options].concat()).await;
        let begun = format!("restore {} of run {run} has been begun already, {told}: {why}.", record.id);
        assert!(said.starts_with(&begun), "{said}");
    }
    assert_eq!(place.restored().await, record, "nothing was driven");
    // What it does anyhow may be asked for. It was begun; nobody knows that it was cut off.
    let said = place.well(&["restore", run, "--checkpoint", &b, "--detach"]).await;
    let begun = format!("Restore {} has been begun already, {told}.\n", record.id);
    assert!(said.out.starts_with(&begun) && !said.out.contains("cut off"), "{}", said.out);
    let new_run = place.restored().await.new_run_id.unwrap();
    for (options, why) in cases {
        let said = place.refused(&[&["restore", run, "--detach"], options].concat()).await;
        let done = format!("run {run} has been restored already, as run {new_run}, {told}: {why}");
        assert_eq!(said, done);
    }
    let said = place.well(&["restore", run, "--checkpoint", &b, "--detach"]).await;
    assert!(said.out.starts_with(&format!("It has been restored already, {told}.\n")), "{}", said.out);
    place.service.stop().await;
}

/// Two are asked for at once: the one that comes second is refused if it wants something else, whenever it finds that out.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_restores_at_once_that_differ_one_is_refused() {
    let place = Place::new().await;
    let run = place.lost().await;
    let (with, without) = (["restore", &run, "--check-optimizer"], ["restore", &run, "--without-optimizer"]);
    let (with, without) = ([&with[..], &["--detach"]].concat(), [&without[..], &["--detach"]].concat());
    let said = join(place.retinker.run(&with), place.retinker.run(&without)).await;
    let (with, without) = (said.0.unwrap(), said.1.unwrap());
    let (done, other, optimizer) =
        if with.code == Some(0) { (&with, &without, true) } else { (&without, &with, false) };
    assert_eq!(done.code, Some(0), "{done:#?}");
    assert!(refusal(other).ends_with("it is gone on with") || refusal(other).contains("restored already"));
    assert!(refusal(other).contains("cannot be heeded any more"), "{other:#?}");
    let record = place.restored().await;
    assert_eq!((record.state, record.plan.optimizer), (RestoreState::Adopted, optimizer));
    place.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_program_carries_out_is_waited_for() {
    const WAITS: &str = "Another program carries it out; waiting for that.";
    let place = Place::new().await;
    // Another that lives: it is slow, and ends before the command does anything.
    let run = place.lost().await;
    let executor = Executor::new(place.api.clone(), place.store().await, runtime());
    place.service.faults().pause(Pause::default()).unwrap();
    let record = begun(&place.api, &executor, &run).await;
    let other = tokio::spawn({
        let id = record.id.clone();
        async move { executor.run(&id).await }
    });
    let store = place.store().await;
    while store.get(&record.id).await.unwrap().unwrap().state != RestoreState::Loading {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (mut command, mut spoken) = place.start(&["restore", &run, "--detach"], false);
    until(&mut spoken, WAITS).await;
    place.service.faults().resume();
    let settled = other.await.unwrap().unwrap();
    until(&mut spoken, &format!("Run {} has taken the place of run {run}.", settled.new_run_id.unwrap()))
        .await;
    assert!(command.wait().await.unwrap().success());
    assert_eq!((place.restores().await.len(), place.runs().await), (1, 2));
    // Another that is gone: once its lease is over, the command carries it out.
    let run = place.lost().await;
    let executor = Executor::new(place.api.clone(), Arc::clone(&store), runtime());
    let record = begun(&place.api, &executor, &run).await;
    let lease = store.acquire_lease(&record.id, "another", Duration::from_secs(600)).await.unwrap().unwrap();
    let (mut command, mut spoken) = place.start(&["restore", &run, "--detach"], false);
    until(&mut spoken, WAITS).await;
    store.release(&lease).await.unwrap();
    until(&mut spoken, &format!("has taken the place of run {run}.")).await;
    assert!(command.wait().await.unwrap().success());
    assert_eq!(store.get(&record.id).await.unwrap().unwrap().state, RestoreState::Adopted);
    place.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_program_carries_out_is_cancelled() {
    let place = Place::new().await;
    let run = place.lost().await;
    let none = place.refused(&["restore", &run, "--cancel"]).await;
    assert!(none.contains(&format!("no restore of run {run} is under way")), "{none}");
    place.service.faults().pause(Pause::default()).unwrap();
    let driver = place.start(&["restore", &run, "--detach"], true);
    eventually("the load waits", async || {
        place.restores().await.iter().any(|record| record.state == RestoreState::Loading)
    })
    .await;
    let said = place.well(&["restore", &run, "--cancel"]).await;
    assert!(said.out.contains(&format!("Run {run} can be restored by hand")), "{said:#?}");
    let (mut driver, mut spoken) = driver;
    until(&mut spoken, "the restore was cancelled").await;
    assert!(!driver.wait().await.unwrap().success());
    place.service.faults().resume();
    // No monitor begins it again, and a person can.
    place.well(&["watch", "--once", "--auto-restore"]).await;
    assert_eq!(place.restored().await.state, RestoreState::Cancelled);
    place.well(&["restore", &run, "--detach"]).await;
    assert_eq!(place.restores().await[0].state, RestoreState::Adopted);
    let late = place.refused(&["restore", &run, "--cancel"]).await;
    assert!(late.contains("cannot be cancelled any more: it is adopted"), "{late}");
    place.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_run_is_attached_to_once_and_trains_on() {
    let place = Place::new().await;
    let undisturbed = place.trained().await;
    let expected = schedule::step(&undisturbed, 1).await.unwrap();
    let run = place.lost().await;
    place.well(&["restore", &run, "--detach"]).await;
    let record = place.restored().await;
    let Attachment { session_id, model_id, next_seq_id } = record.attachment.clone().unwrap();
    for (language, call) in [
        (
            "python",
            format!("attach(\"{}\", \"{session_id}\", \"{model_id}\", {next_seq_id})", place.api.base_url()),
        ),
        ("rust", format!("model_id: \"{model_id}\".into(), next_seq_id: {next_seq_id} }}")),
        ("typescript", format!("nextSeqId: {next_seq_id} }}")),
    ] {
        // By the old run's name and the new one's.
        for name in [&run, &model_id] {
            let said = place.well(&["attach", name, "--language", language, "--dry-run"]).await;
            assert!(said.out.contains(&call), "{}", said.out);
        }
    }
    let as_default = place.well(&["attach", &run, "--dry-run"]).await;
    assert!(as_default.out.contains("import TrainingClient"), "{}", as_default.out);
    assert_eq!(place.restored().await.state, RestoreState::Adopted, "a dry run hands nothing over");
    let said = place.well(&["attach", &run, "--language", "json"]).await;
    let attachment: Attachment = serde_json::from_str(&said.out).unwrap();
    assert_eq!(Some(&attachment), record.attachment.as_ref());
    assert_eq!(place.restored().await.state, RestoreState::HandedOver);
    assert_eq!(said.err, "", "the first one to attach");
    let handed_over = place.restored().await.events.last().unwrap().at;
    for options in [&["--dry-run"][..], &[]] {
        let said = place.refused(&[&["attach", &run, "--language", "json"], options].concat()).await;
        let told = format!(
            "run {model_id} was handed over at {handed_over}; if what was printed then is lost, print it again with --again"
        );
        assert_eq!(said, told);
    }
    let again = place.well(&["attach", &run, "--language", "json", "--again"]).await;
    assert_eq!(again.out, said.out, "what was lost on the screen can be printed again");
    let client = TrainingClient::attach(place.api.clone(), attachment);
    assert_eq!(schedule::step(&client, 1).await.unwrap(), expected, "as if nothing had happened");
    // Requests within two seconds of the restore's own could be its own: train on until the service tells of a later one.
    let mut step = 2;
    while record.taken_over_at(&place.api.training_run(&model_id).await.unwrap()).is_none() {
        schedule::step(&client, step).await.unwrap();
        step += 1;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    for options in [&["--dry-run"][..], &["--again"], &[]] {
        let said = place.refused(&[&["attach", &run], options].concat()).await;
        assert!(said.starts_with(&format!("run {model_id} has been taken over already")), "{said}");
    }
    schedule::step(&client, step).await.unwrap();
    place.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_attach_at_once_one_is_given_the_run() {
    let place = Place::new().await;
    let run = place.lost().await;
    place.well(&["restore", &run, "--detach"]).await;
    let words = ["attach", &run, "--language", "json"];
    let said = join_all((0..6).map(|_| place.retinker.run(&words))).await;
    let (given, refused): (Vec<_>, Vec<_>) =
        said.into_iter().map(Result::unwrap).partition(|said| said.code == Some(0));
    assert_eq!(given.len(), 1, "{given:#?}");
    for said in refused {
        assert_eq!(said.out, "");
        assert!(refusal(&said).ends_with("print it again with --again"), "{said:#?}");
    }
    place.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn restore_keeps_the_new_run_alive_until_it_is_taken_over() {
    let place = Place::new().await;
    let run = place.lost().await;
    let (mut command, mut spoken) = place.start(&["restore", &run], false);
    until(&mut spoken, "Its session is kept alive here until a program has taken it over.").await;
    assert_eq!(place.restored().await.state, RestoreState::Adopted);
    place.well(&["attach", &run]).await;
    until(&mut spoken, "It was taken over.").await;
    assert!(command.wait().await.unwrap().success());
    place.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attach_follows_the_lineage_and_says_what_to_do_where_it_cannot() {
    let place = Place::new().await;
    let run = place.lost().await;
    let said = place.refused(&["attach", &run]).await;
    assert!(said.ends_with(&format!("restore it first, with 'retinker restore {run}'")), "{said}");
    assert!(said.starts_with("the journal knows no restore of run"), "{said}");
    let newest = async || place.restores().await[0].new_run_id.clone().unwrap();
    place.well(&["restore", &run, "--detach"]).await;
    let first = newest().await;
    place.poison(&first).await;
    let said = place.refused(&["attach", &run]).await;
    let advice = format!("run {first} is poisoned itself: restore it first, with 'retinker restore {first}'");
    assert_eq!(said, advice);
    // What it says helps.
    place.well(&["restore", &first, "--detach"]).await;
    let second = newest().await;
    let session = place.restores().await[0].session_id.clone().unwrap();
    for name in [&run, &first, &second] {
        let said = place.well(&["attach", name, "--language", "json", "--dry-run"]).await;
        assert_eq!(serde_json::from_str::<Attachment>(&said.out).unwrap().model_id, second);
    }
    // A service may have forgotten the session, or tell that it is over.
    let rule = RequestFault::Fail { status: 404, retry_after: None, empty_body: false };
    place.service.faults().add_request_rule(RequestRule::new("session_heartbeat", rule)).unwrap();
    let forgotten = place.refused(&["attach", &run]).await;
    assert!(place.service.faults().active().requests.is_empty());
    place.api.finish_session(&session, FinishReason::Interrupted, None).await.unwrap();
    let said = place.refused(&["attach", &run]).await;
    assert_eq!(said, forgotten);
    assert!(said.starts_with(&format!("the session of run {second} is over")), "{said}");
    assert!(said.ends_with(&format!("'retinker restore {second} --seen session-over'")), "{said}");
    place.well(&["restore", &second, "--seen", "session-over", "--detach"]).await;
    let said = place.well(&["attach", &run, "--language", "json"]).await;
    assert_eq!(serde_json::from_str::<Attachment>(&said.out).unwrap().model_id, newest().await);
    place.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_failed_is_told_and_leaves_nothing_to_attach_to() {
    let place = Place::new().await;
    let run = place.lost().await;
    let rule = retinker_local::OperationRule {
        message: Some("the disk is on fire".to_owned()),
        ..retinker_local::OperationRule::new("load_weights")
    };
    place.service.faults().add_operation_rule(rule).unwrap();
    let said = place.refused(&["restore", &run, "--detach"]).await;
    assert!(said.starts_with("the restore failed. ") && said.contains("the disk is on fire"), "{said}");
    let said = place.refused(&["attach", &run]).await;
    assert!(said.contains(&format!("'retinker restore {run}'")), "{said}");
    let failed = place.restored().await;
    let story = place.well(&["journal", &failed.id]).await;
    assert!(story.out.contains("the disk is on fire"), "{}", story.out);
    // It is not held against the run.
    place.well(&["restore", &run, "--detach"]).await;
    place.well(&["attach", &run]).await;
    place.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verify_tells_by_its_exit_code_what_a_checkpoint_is_worth() {
    let place = Place::new().await;
    let client = fresh(&place.api).await;
    let run = &client.model_id();
    let cold = save_state_with_probe(&client, "cold", SaveOptions::default(), &TEXT).await.unwrap().path;
    schedule::step(&client, 0).await.unwrap();
    let unknown = client.save_state("unknown", SaveOptions::default()).await.unwrap().path;
    // It says that it is what was saved before the step.
    let saved = place.api.run_checkpoints(run).await.unwrap().checkpoints;
    let labels = saved.into_iter().find(|saved| saved.tinker_path == cold).unwrap().user_metadata;
    let other = SaveOptions { user_metadata: labels, ..SaveOptions::default() };
    let different = client.save_state("different", other).await.unwrap().path;
    let good = save_state_with_probe(&client, "good", SaveOptions::default(), &TEXT).await.unwrap().path;
    for (what, code, weights, optimizer) in [
        (good.as_str(), 0, "Verified: ", "The optimizer's state is restored: "),
        // A run stands for its newest checkpoint.
        (run, 0, "Verified: ", "The optimizer's state is restored: "),
        (&unknown, 3, "Not verified. ", "The optimizer's state is restored: "),
        (&cold, 4, "Verified: ", "The optimizer is cold: "),
        (&different, 4, "Different: ", "The optimizer's state is restored: "),
    ] {
        let said = place.retinker.run(&["verify", what]).await.unwrap();
        assert_eq!(said.code, Some(code), "{what}: {said:#?}");
        let lines: Vec<_> = said.out.lines().map(str::trim).collect();
        assert_eq!(lines[0], if what == run { &good } else { what });
        assert!(lines[1].starts_with(weights) && lines[2].starts_with(optimizer), "{}", said.out);
    }
    assert_eq!(place.retinker.run(&["verify"]).await.unwrap().code, Some(2), "as every mistyped command");
    let said = place.well(&["verify", &good, "--json"]).await;
    let found: Findings = serde_json::from_str(&said.out).unwrap();
    assert!(matches!(found.optimizer, OptimizerState::Warm { .. }), "{found:?}");
    let missing = format!("tinker://{run}/weights/missing");
    let said = place.refused(&["verify", &missing]).await;
    assert_eq!(said, format!("run {run} has no checkpoint {missing}"));
    for (what, why) in [("tinker://", "tinker://"), ("nobody", "status 404")] {
        let said = place.refused(&["verify", what]).await;
        assert!(said.contains(why), "{said}");
    }
    schedule::step(&client, 1).await.unwrap();
    place.service.stop().await;
}

fn events(said: &Said) -> Vec<RecoveryEvent> {
    said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn kinds(said: &Said) -> Vec<EventKind> {
    events(said).into_iter().map(|event| event.event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn how_much_a_service_varies_is_told_with_what_to_do_about_it() {
    let place = Place::new().await;
    let said = place.well(&["calibrate", schedule::BASE_MODEL, "--steps", "3"]).await;
    assert_eq!(
        said.out.trim(),
        "Two runs of the same 4 passes came to the same results, bit for bit. Hold replays exactly."
    );
    place.service.faults().set_noise(1e-6).unwrap();
    let told = place.well(&["calibrate", schedule::BASE_MODEL, "--json"]).await.out;
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    let (largest, tolerance) = (told["largest"].as_f64().unwrap(), told["tolerance"].as_f64().unwrap());
    assert!(largest > 0.0 && largest < 1e-4 && tolerance > largest, "{told}");
    assert_eq!((&told["passes"], &told["exact"]), (&6.into(), &false.into()));
    place.service.faults().set_noise(0.5).unwrap();
    let error = place.refused(&["calibrate", schedule::BASE_MODEL]).await;
    assert!(error.contains("too little in common"), "{error}");
    let error = place.refused(&["calibrate", "no/such-model"]).await;
    assert!(error.contains("no/such-model"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_once_tells_and_restores_only_if_it_is_to() {
    let place = Place::new().await;
    let (_sound, runs) = (place.trained().await, [place.lost().await, place.lost().await]);
    for (words, nothing) in
        [(["incidents"], "No run was seen to be lost."), (["journal"], "Nothing has been restored yet.")]
    {
        let said = place.well(&words).await;
        assert!(said.out.starts_with(nothing), "{}", said.out);
        let said = place.well(&[words[0], "--json"]).await;
        assert_eq!(said.out, "", "no line of JSON is an empty list");
    }
    let said = place.well(&["watch", "--once", "--events", "-"]).await;
    let told = events(&said);
    let mut lost: Vec<_> = told.iter().map(|event| event.run_id.clone()).collect();
    lost.sort();
    let mut expected = runs.to_vec();
    expected.sort();
    assert_eq!(lost, expected);
    assert!(told.iter().all(|event| event.event == EventKind::Detected), "{told:?}");
    assert!(said.err.ends_with("Runs: 3. Lost: 2. Stalled: 0. Restores begun: 0.\n"), "{}", said.err);
    assert!(place.restores().await.is_empty());
    // Told once.
    let said = place.well(&["watch", "--once", "--events", "-"]).await;
    assert_eq!(said.out, "");
    let said = place.well(&["watch", "--once", "--auto-restore", "--events", "-"]).await;
    assert!(said.err.ends_with("Runs: 3. Lost: 2. Stalled: 0. Restores begun: 2.\n"), "{}", said.err);
    for run in &runs {
        let of_run = events(&said).into_iter().filter(|event| event.run_id == *run);
        let kinds: Vec<_> = of_run.map(|event| event.event).collect();
        use EventKind::{CheckpointSelected, ClientCreated, Completed, Planned, Started, Verified};
        assert_eq!(kinds, [Planned, Started, CheckpointSelected, ClientCreated, Verified, Completed]);
    }
    let said = place.well(&["incidents", "--json"]).await;
    let incident: Incident = serde_json::from_str(&said.out).unwrap();
    let mut found = incident.run_ids;
    found.sort();
    assert_eq!(found, expected);
    let said = place.well(&["incidents"]).await;
    assert!(said.out.contains(": 2 runs poisoned, 2 can be restored, 0 cannot"), "{}", said.out);
    assert!(
        said.out.contains("2 of them: ") && runs.iter().all(|run| said.out.contains(run)),
        "{}",
        said.out
    );
    let records = place.restores().await;
    let said = place.well(&["journal"]).await;
    assert_eq!(said.out.lines().count(), 2);
    for (line, record) in said.out.lines().zip(&records) {
        let from_to = format!("{} -> {}", record.plan.run_id, record.new_run_id.as_ref().unwrap());
        assert!(line.contains(&record.id) && line.contains("adopted") && line.ends_with(&from_to), "{line}");
    }
    let said = place.well(&["journal", "--json"]).await;
    let told: Vec<RestoreRecord> = said.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(told, records);
    let said = place.well(&["journal", &records[0].id, "--json"]).await;
    assert_eq!(serde_json::from_str::<RestoreRecord>(&said.out).unwrap(), records[0]);
    let said = place.well(&["journal", "--as", "lineage"]).await;
    let told: Vec<Event> = said.out.lines().map(|line| Event::from_json(line).unwrap()).collect();
    told.iter().for_each(|event| event.validate().unwrap());
    let traces: BTreeSet<_> = told.iter().map(|event| event.trace_id).collect();
    assert_eq!(traces, records.iter().map(|record| Some(id_of_restore(&record.id))).collect());
    let said = place.well(&["journal", &records[0].id, "--as", "work"]).await;
    let job = Job::from_json(said.out.lines().last().unwrap()).unwrap();
    assert_eq!(Uuid::of_work(&job.id), Ok(id_of_restore(&records[0].id)));
    let said = place.refused(&["journal", "restore-0", "--as", "work"]).await;
    assert!(said.contains("knows no restore restore-0"), "{said}");
    let said = place.refused(&["journal", "restore-0"]).await;
    assert_eq!(said, "the journal knows no restore restore-0");
    place.service.stop().await;
}

/// Starts `watch --once` on a lost run, on a service that has paused all loads; answers when the load waits.
async fn paused_load(place: &Place) -> Child {
    place.lost().await;
    place.service.faults().pause(Pause::default()).unwrap();
    let mut command =
        place.retinker.command(&["watch", "--once", "--auto-restore", "--events", "-"]).unwrap();
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let store = place.store().await;
    eventually("the load waits", async || {
        store.list().await.unwrap().iter().any(|record| record.state == RestoreState::Loading)
    })
    .await;
    child
}

/// Waits until something is so, which it has to be within a minute.
async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let looking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(60), looking).await;
    assert_eq!(found, Ok(()), "{what}");
}

/// A load can be queued for longer than a session lives by itself.
#[tokio::test(flavor = "multi_thread")]
async fn watching_once_keeps_the_session_alive_while_a_load_waits() {
    let place = Place::new().await;
    let watch = paused_load(&place).await;
    // Holds up nothing: it is there to be used up by a heartbeat, and nobody else sends any.
    let heartbeat = RequestRule::new("session_heartbeat", RequestFault::Delay { milliseconds: 0 });
    place.service.faults().add_request_rule(heartbeat).unwrap();
    eventually("a heartbeat", async || place.service.faults().active().requests.is_empty()).await;
    assert_eq!(place.restored().await.state, RestoreState::Loading);
    place.service.faults().resume();
    let said = Said::from(watch.wait_with_output().await.unwrap());
    assert_eq!((said.code, place.restored().await.state), (Some(0), RestoreState::Adopted), "{said:#?}");
    place.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_once_is_stopped_as_watching_is() {
    let place = Place::new().await;
    let mut watch = paused_load(&place).await;
    let mut spoken = BufReader::new(watch.stderr.take().unwrap()).lines();
    process::terminate(watch.id().unwrap());
    while !spoken.next_line().await.unwrap().unwrap().starts_with("Stopping: ") {}
    place.service.faults().resume();
    let said = Said::from(watch.wait_with_output().await.unwrap());
    assert_eq!((said.code, place.restored().await.state), (Some(0), RestoreState::Adopted), "{said:#?}");
    assert_eq!(kinds(&said).last(), Some(&EventKind::Completed), "its events are delivered");
    // A second signal stops it at once.
    let mut watch = paused_load(&place).await;
    let mut spoken = BufReader::new(watch.stderr.take().unwrap()).lines();
    process::terminate(watch.id().unwrap());
    while !spoken.next_line().await.unwrap().unwrap().starts_with("Stopping: ") {}
    process::terminate(watch.id().unwrap());
    assert_eq!(watch.wait().await.unwrap().code(), Some(0));
    assert_eq!(place.restores().await[0].state, RestoreState::Loading, "it is left to others");
    place.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn monitors_do_what_they_are_told() {
    let place = Place::new().await;
    let run = place.lost().await;
    let watch = ["watch", "--once", "--auto-restore", "--events", "-"];
    let open = "Restores begin by themselves where a monitor's policy allows it.\n";
    assert_eq!(place.well(&["monitor", "status"]).await.out, open);
    place.well(&["monitor", "pause"]).await;
    assert_eq!(place.well(&["monitor", "status"]).await.out, "Paused: no restore begins by itself.\n");
    assert_eq!(kinds(&place.well(&watch).await), [EventKind::Detected]);
    assert!(place.restores().await.is_empty());
    place.well(&["monitor", "resume"]).await;
    let said = place.refused(&["monitor", "opt-out", "nobody"]).await;
    assert!(said.contains("status 404"), "{said}");
    place.well(&["monitor", "opt-out", &run]).await;
    let status = place.well(&["monitor", "status"]).await.out;
    assert_eq!(status, format!("{open}Left alone: {run}\n"));
    assert_eq!(kinds(&place.well(&watch).await), []);
    assert!(place.restores().await.is_empty());
    place.well(&["monitor", "opt-in", &run]).await;
    assert_eq!(place.well(&["monitor", "status"]).await.out, open);
    assert_eq!(kinds(&place.well(&watch).await).last(), Some(&EventKind::Completed));
    assert_eq!(place.restored().await.state, RestoreState::Adopted);
    place.service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_program_told_of_its_run_can_be_taken_back() {
    let place = Place::new().await;
    let (client, store) = (place.trained().await, place.store().await);
    let run = &client.model_id();
    let symptom = retinker::recovery::evidence::Symptom::NotLoaded;
    retinker::recovery::reports::report(&*store, run, symptom, runtime().now()).await.unwrap();
    let watch = ["watch", "--once"];
    assert!(place.well(&watch).await.err.contains("Lost: 1."));
    assert_eq!(place.well(&["monitor", "well", run]).await.out, "Taken back.\n");
    assert!(place.well(&watch).await.err.contains("Lost: 0."));
    let said = place.well(&["monitor", "well", run]).await.out;
    assert_eq!(said, "Nobody had told that this run was lost.\n");
    place.service.stop().await;
}

/// A monitor that listens hears of what a command did that tells nobody; of two that listen one tells.
#[tokio::test(flavor = "multi_thread")]
async fn what_any_program_does_is_told_once_by_one_that_listens() {
    let place = Place::new().await;
    let (mut watch, mut spoken) = place.start(&["watch", "--events", "-"], false);
    let (mut other, mut also) = place.start(&["watch", "--events", "-"], false);
    // Both are there when a sound run is made, and have a beginning.
    until_told(&place).await;
    let run = place.lost().await;
    place.well(&["incidents", "--look"]).await;
    place.well(&["restore", &run, "--detach"]).await;
    for process in [&mut watch, &mut other] {
        interrupt(process).await;
    }
    let mut kinds = Vec::new();
    for lines in [&mut spoken, &mut also] {
        while let Some(line) = lines.next_line().await.unwrap() {
            kinds.push(serde_json::from_str::<RecoveryEvent>(&line).unwrap().event);
        }
    }
    use EventKind::{CheckpointSelected, ClientCreated, Completed, Detected, Planned, Started, Verified};
    kinds.sort_unstable();
    assert_eq!(
        kinds,
        [Detected, Planned, Started, CheckpointSelected, ClientCreated, Verified, Completed],
        "each once"
    );
    place.service.stop().await;
}

/// Waits until somebody listens to the journal.
async fn until_told(place: &Place) {
    let store = place.store().await;
    while store.documents("telling").await.unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// As Ctrl-C does; the program ends by itself.
async fn interrupt(process: &mut tokio::process::Child) {
    let id = process.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().await.unwrap().success());
    assert!(process.wait().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_monitor_ends_by_itself() {
    let place = Place::new().await;
    let (mut watch, mut spoken) = place.start(&["watch", "--auto-restore"], true);
    until(&mut spoken, "Watching").await;
    let said = place.well(&["monitor", "drain"]).await;
    assert_eq!(said.out, "Draining: monitors end when nothing is under way.\n");
    until(&mut spoken, "Drained").await;
    assert!(watch.wait().await.unwrap().success());
    let run = place.lost().await;
    let said = place.well(&["watch", "--once", "--auto-restore"]).await;
    assert!(said.err.ends_with("Lost: 1. Stalled: 0. Restores begun: 0.\n"), "{}", said.err);
    let (mut watch, mut spoken) = place.start(&["watch", "--auto-restore"], true);
    until(&mut spoken, "Drained").await;
    assert!(watch.wait().await.unwrap().success(), "one that is started later ends as well");
    // A person may all the same.
    place.well(&["restore", &run, "--detach"]).await;
    place.service.stop().await;
}

/// SQLite's locks are a process's, not a connection's: what one program does must not take them from its others.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_a_program_opens_twice_keeps_what_it_writes() {
    let place = Place::new().await;
    let store = place.store().await;
    drop(place.store().await);
    // Another program, which is the last to close the journal if nobody tells it of the first.
    place.well(&["journal"]).await;
    retinker::recovery::control::set_gate(&*store, retinker::recovery::policy::Gate::Paused).await.unwrap();
    assert!(place.well(&["monitor", "status"]).await.out.starts_with("Paused"));
    place.service.stop().await;
}

const KEY: &str = "tml-hunter2";

/// What each command that asks the service or the journal says, where it cannot: one line, and never the key.
async fn all_refused(retinker: &Retinker, commands: &[&[&str]]) -> Vec<String> {
    let mut lines = Vec::new();
    for words in commands {
        let said = retinker.run(words).await.unwrap();
        for secret in [KEY, &retinker.key].into_iter().filter(|key| !key.is_empty()) {
            assert!(!said.err.contains(secret) && !said.out.contains(secret), "{words:?}: {said:#?}");
        }
        assert_eq!(said.out, "", "{words:?}");
        lines.push(refusal(&said));
    }
    lines
}

const ASK_THE_SERVICE: [&[&str]; 6] = [
    &["restore", "run"],
    &["restore", "run", "--dry-run"],
    &["verify", "run"],
    &["watch", "--once", "--auto-restore"],
    &["incidents", "--look"],
    &["monitor", "opt-out", "run"],
];
const ASK_THE_JOURNAL: [&[&str]; 9] = [
    &["restore", "run"],
    &["attach", "run"],
    &["verify", "run"],
    &["incidents"],
    &["journal"],
    &["watch"],
    &["monitor", "status"],
    &["monitor", "pause"],
    &["monitor", "well", "run"],
];

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_told_and_not_shown() {
    let (data, home) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let config = LocalConfig { api_key: Some(KEY.to_owned()), ..LocalConfig::new(data.path()) };
    let service = LocalService::start(config).await.unwrap();
    let mut retinker = Retinker::new(&service.base_url(), home.path());
    for (key, why) in [
        ("tml-hunter3", "status 401"),
        ("", "status 401"),
        ("tml-hunter2 ü", "the API key: it is empty or holds a character that a header cannot carry."),
    ] {
        key.clone_into(&mut retinker.key);
        for said in all_refused(&retinker, &ASK_THE_SERVICE).await {
            assert_eq!(said.matches(why).count(), 1, "once: {said}");
            assert!(said.contains("API key"), "{said}");
        }
    }
    KEY.clone_into(&mut retinker.key);
    assert_eq!(retinker.run(&["watch", "--once"]).await.unwrap().code, Some(0), "with the right one it goes");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_is_told() {
    let home = tempfile::tempdir().unwrap();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut retinker = Retinker::new(&format!("http://{closed}"), home.path());
    KEY.clone_into(&mut retinker.key);
    for said in all_refused(&retinker, &ASK_THE_SERVICE).await {
        assert_eq!(said.matches("was never sent").count(), 1, "once: {said}");
        assert!(said.ends_with("Is the service running, and is its address right?"), "{said}");
    }
    for (url, why) in [("127.0.0.1:8788", "is not a service's address"), ("http://", "")] {
        let retinker = Retinker { base_url: url.to_owned(), ..retinker.clone() };
        for said in all_refused(&retinker, &[&["watch", "--once"], &["journal"]]).await {
            assert!(said.contains(why), "{said}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_another_service_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let (mine, other) = ("http://127.0.0.1:1", "http://127.0.0.1:2");
    let retinker = Retinker::new(mine, home.path());
    assert_eq!(retinker.run(&["journal"]).await.unwrap().code, Some(0), "now it is that service's");
    let retinker = Retinker { base_url: other.to_owned(), key: KEY.to_owned(), ..retinker };
    for said in all_refused(&retinker, &ASK_THE_JOURNAL).await {
        let place = home.path().display();
        let told = format!(
            "the restores in the data directory {place} belong to the service at {mine}, not to the service at {other}: \
             choose another with --journal or --data-dir"
        );
        assert_eq!(said, told);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_of_a_newer_version_or_that_is_none_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let retinker = Retinker::new("http://127.0.0.1:1", home.path());
    let retinker = Retinker { key: KEY.to_owned(), ..retinker };
    assert_eq!(retinker.run(&["journal"]).await.unwrap().code, Some(0));
    let files: Vec<_> = std::fs::read_dir(home.path()).unwrap().map(|file| file.unwrap().path()).collect();
    let file = files.iter().find(|file| file.extension().is_some_and(|end| end == "db")).unwrap();
    let database = rusqlite::Connection::open(file).unwrap();
    assert_eq!(database.execute("UPDATE schema SET version = 99", []).unwrap(), 1);
    drop(database);
    for said in all_refused(&retinker, &ASK_THE_JOURNAL).await {
        let told = "the recovery journal holds schema 99, and this version knows 1: use the newer retinker that wrote it";
        assert_eq!(said, told);
    }
    std::fs::write(file, "no database").unwrap();
    for said in all_refused(&retinker, &ASK_THE_JOURNAL).await {
        assert!(said.contains(&home.path().display().to_string()), "{said}");
    }
    let retinker = Retinker { journal: file.into(), ..retinker };
    for said in all_refused(&retinker, &ASK_THE_JOURNAL).await {
        assert!(said.contains(&file.display().to_string()), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_made_as_it_was_after_a_step_by_its_redo_log() {
    let place = Place::new().await;
    let log = place.home.path().join("log");
    let (directory, service) = (log.to_str().unwrap(), ServiceClient::new(place.api.clone()));
    let checkpoints = CheckpointPolicy { every_steps: Some(4), ..CheckpointPolicy::default() };
    let options = RedoOptions { checkpoints, ..RedoOptions::default() };
    let written = DiskLog::open(&log).unwrap();
    let redo = Redo::lora(&service, written, schedule::BASE_MODEL, schedule::lora(), options).await.unwrap();
    let (plain, run) = (fresh(&place.api).await, redo.training_client().model_id());
    for step in 0..7 {
        schedule::step(redo.training_client(), step).await.unwrap();
        if step < 5 {
            schedule::step(&plain, step).await.unwrap();
        }
    }
    let said = place.well(&["restore", &run, "--to-step", "5", "--log", directory, "--dry-run"]).await;
    assert!(said.out.contains("(step 4)") && said.out.contains("again  2 requests with"), "{}", said.out);
    let said = place.well(&["restore", &run, "--to-step", "5", "--log", directory, "--json"]).await;
    let made: serde_json::Value = serde_json::from_str(said.out.lines().last().unwrap()).unwrap();
    let path = made["path"].as_str().unwrap();
    let back = service.create_training_client_from_state_with_optimizer(path, TrainingOptions::default());
    let back = back.await.unwrap();
    for step in 5..8 {
        let losses =
            (schedule::step(&back, step).await.unwrap(), schedule::step(&plain, step).await.unwrap());
        assert_eq!(losses.0, losses.1, "step {step}");
    }
    for (words, why) in [
        (
            ["restore", &run, "--to-step", "9", "--log", directory],
            "step 9 cannot be gone back to: the redo log covers",
        ),
        (["restore", "other", "--to-step", "5", "--log", directory], "is of run"),
        (
            ["restore", &run, "--to-step", "5", "--log", "/nowhere/at/all"],
            "the redo log /nowhere/at/all cannot be used",
        ),
    ] {
        let said = place.refused(&words).await;
        assert!(said.contains(why), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_are_pruned_by_rules_and_never_those_that_something_needs() {
    let place = Place::new().await;
    let client = fresh(&place.api).await;
    let (run, mut paths) = (client.model_id(), Vec::new());
    for (step, loss) in [5.0, 3.0, 4.0, 2.0, 6.0].into_iter().enumerate() {
        schedule::step(&client, step).await.unwrap();
        let user_metadata = Some(UserMetadata::from([("loss".to_owned(), loss.to_string())]));
        let options = SaveOptions { user_metadata, ..SaveOptions::default() };
        paths.push(client.save_state(&format!("n{step}"), options).await.unwrap().path);
    }
    let there = async || {
        let listed = place.api.run_checkpoints(&run).await.unwrap().checkpoints;
        listed.into_iter().map(|checkpoint| checkpoint.tinker_path).collect::<BTreeSet<_>>()
    };
    let rules = ["--keep-last", "1", "--keep-best", "2", "--by", "loss:min"];
    let said = place.well(&[&["checkpoints", "prune", &run], &rules[..]].concat()).await;
    assert!(
        said.out.contains("That would delete 2 of 5 checkpoints") && said.out.contains("add --yes"),
        "{}",
        said.out
    );
    assert_eq!(there().await.len(), 5, "nothing is deleted without --yes");
    // Poisoned: the newest is what it would be restored from.
    place.poison(&run).await;
    let said = place.well(&["checkpoints", "prune", &run, "--keep-every", "9", "--yes", "--json"]).await;
    assert_eq!(said.out.lines().count(), 5);
    assert_eq!(there().await, BTreeSet::from([paths[0].clone(), paths[4].clone()]));
    let said = place.refused(&["checkpoints", "prune", &run]).await;
    assert!(said.starts_with("say what is kept: "), "{said}");

    // One with a redo log: what that stands on stays.
    let log = place.home.path().join("log");
    let checkpoints = CheckpointPolicy { every_steps: Some(2), ..CheckpointPolicy::default() };
    let (service, options) =
        (ServiceClient::new(place.api.clone()), RedoOptions { checkpoints, ..RedoOptions::default() });
    let written = DiskLog::open(&log).unwrap();
    let redo = Redo::lora(&service, written, schedule::BASE_MODEL, schedule::lora(), options).await.unwrap();
    let mut events = Box::pin(redo.events());
    for step in 0..8 {
        schedule::step(redo.training_client(), step).await.unwrap();
    }
    while !matches!(events.next().await, Some(RedoEvent::Saved { step: 8, .. })) {}
    let run = redo.training_client().model_id();
    let said = place.refused(&["checkpoints", "prune", &run, "--keep-last", "1"]).await;
    assert!(said.contains("has a redo log: give its directory with --log"), "{said}");
    let words = ["checkpoints", "prune", &run, "--keep-last", "1", "--log", log.to_str().unwrap(), "--yes"];
    let said = place.well(&words).await;
    assert!(said.out.contains("Deleted 2 of 4 checkpoints"), "{}", said.out);
    assert_eq!(said.out.matches("The redo log stands on it.").count(), 2, "{}", said.out);
    place.poison(&run).await;
    schedule::step(redo.training_client(), 8).await.unwrap();

    let options = SaveOptions { ttl_seconds: Some(3600), ..SaveOptions::default() };
    let path = client_of(&place).await.save_state("short", options).await.unwrap().path;
    let said = place.well(&["checkpoints", "protect", &path]).await;
    assert!(said.out.contains("It lives until"), "{}", said.out);
    let said = place.well(&["checkpoints", "protect", &path]).await;
    assert!(said.out.contains("lives for as long already"), "{}", said.out);
}

async fn client_of(place: &Place) -> TrainingClient {
    let client = fresh(&place.api).await;
    schedule::step(&client, 0).await.unwrap();
    client
}
