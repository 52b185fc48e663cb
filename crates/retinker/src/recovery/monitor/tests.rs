use super::super::plan::{LABEL_RESTORE_ID, LABEL_RESTORED_FROM, MetricMode, Strategy};
use super::super::restore::RestoreState;
use super::super::samples;
use super::super::simulation::{Service, World};
use super::*;
use crate::client::testing::test;
use crate::recovery::events::of_progress;
use crate::recovery::executor::{LEFT_ALONE, LONGEST_ALONE};

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Debug, Clone, Default)]
struct Told(Arc<Mutex<Vec<RecoveryEvent>>>);

impl EventSink for Told {
    fn tell(&self, event: &RecoveryEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

impl Told {
    fn kinds(&self) -> Vec<EventKind> {
        self.0.lock().unwrap().iter().map(|event| event.event).collect()
    }

    fn take(&self) -> Vec<EventKind> {
        let kinds = self.kinds();
        self.0.lock().unwrap().clear();
        kinds
    }
}

fn on() -> Policy {
    Policy { enabled: true, ..off() }
}

/// However old the samples are.
fn off() -> Policy {
    Policy { max_age_ms: u64::MAX, ..Policy::default() }
}

/// A monitor of this world, as one of several.
fn monitor(world: &World, policy: Policy, told: &Told) -> Monitor {
    let sink = told.clone();
    let executor = world.executor().on_progress(move |record| {
        of_progress("service", record).iter().for_each(|event| sink.tell(event));
    });
    let runtime: Arc<dyn Runtime> = Arc::new(world.runtime.clone());
    Monitor::new(Parts {
        api: world.api.clone(),
        store: Arc::clone(&world.store),
        drives: Drives::new(executor, Arc::clone(&runtime)),
        runtime,
        policy,
        sink: Arc::new(told.clone()),
        service: "service".into(),
        by: "the monitor".into(),
    })
}

impl Monitor {
    /// What it is made of, for another one over the same restores.
    fn parts(&self) -> Parts {
        let Inner { api, store, drives, sink, service, by, runtime, policy, .. } = &*self.inner;
        Parts {
            api: api.clone(),
            store: Arc::clone(store),
            runtime: Arc::clone(runtime),
            drives: drives.clone(),
            policy: policy.clone(),
            sink: Arc::clone(sink),
            service: service.clone(),
            by: by.clone(),
        }
    }
}

/// A world whose list has the poisoned run.
fn world() -> World {
    let service = Service::default();
    let listed = vec![samples::run("well", Some(false)), service.old.clone()];
    World::new(Service { others: listed, ..service })
}

async fn settled(monitor: &Monitor) {
    monitor.inner.drives.settled().await;
}

#[test]
fn a_poisoned_run_is_seen_protected_and_restored_once() {
    let world = world();
    world.service().checkpoints[0].expires_at = Some(world.now().later(DAY));
    let told = Told::default();
    let monitor = monitor(&world, on(), &told);
    world.runtime.block_on(async {
        let round = monitor.round().await.unwrap();
        assert_eq!(
            (round.runs, round.requests, round.lost, round.begun),
            (2, 2, 1, 1),
            "a search and a page"
        );
        settled(&monitor).await;
        use EventKind::*;
        let whole =
            [Detected, Protected, Planned, Started, CheckpointSelected, ClientCreated, Verified, Completed];
        assert_eq!(told.take(), whole);
        let records = world.store.list().await.unwrap();
        assert_eq!(records[0].state, RestoreState::Adopted, "{:?}", records[0].error);
        let again = monitor.round().await.unwrap();
        assert_eq!((again.lost, again.begun), (0, 0));
        assert_eq!(told.take(), []);
    });
}

#[test]
fn two_monitors_of_a_journal_restore_once_and_tell_once() {
    let world = world();
    let (told_a, told_b) = (Told::default(), Told::default());
    let (a, b) = (monitor(&world, on(), &told_a), monitor(&world, on(), &told_b));
    world.runtime.block_on(async {
        let (one, other) = futures_util::future::join(a.round(), b.round()).await;
        assert_eq!(one.unwrap().begun + other.unwrap().begun, 1);
        settled(&a).await;
        settled(&b).await;
        let mut kinds = told_a.kinds();
        kinds.extend(told_b.kinds());
        for once in [EventKind::Detected, EventKind::Started, EventKind::Completed] {
            assert_eq!(kinds.iter().filter(|kind| **kind == once).count(), 1, "{once:?}");
        }
        assert_eq!(world.service().made.len(), 1);
    });
}

#[test]
fn off_by_default_but_seen_and_protected() {
    let world = world();
    world.service().checkpoints[0].expires_at = Some(world.now().later(DAY));
    let told = Told::default();
    let monitor = monitor(&world, off(), &told);
    world.runtime.block_on(async {
        let round = monitor.round().await.unwrap();
        assert_eq!((round.lost, round.begun), (1, 0));
        assert_eq!(told.take(), [EventKind::Detected, EventKind::Protected]);
        assert!(world.store.list().await.unwrap().is_empty());
        monitor.round().await.unwrap();
        assert_eq!(told.take(), [], "told once");
        let found = incidents(&*world.store, "service", super::super::incidents::WITHIN).await.unwrap();
        assert_eq!((found.len(), found[0].count(), found[0].recoverable), (1, 1, 1));
    });
}

#[test]
fn paused_opted_out_or_draining_begins_nothing() {
    for case in 0..3 {
        let world = world();
        let told = Told::default();
        let monitor = monitor(&world, on(), &told);
        world.runtime.block_on(async {
            match case {
                0 => control::set_gate(&*world.store, Gate::Paused).await.unwrap(),
                1 => control::opt_out(&*world.store, "old", true).await.unwrap(),
                _ => monitor.drain().await,
            }
            assert_eq!(monitor.round().await.unwrap().begun, 0, "{case}");
            match case {
                0 => control::set_gate(&*world.store, Gate::Open).await.unwrap(),
                1 => control::opt_out(&*world.store, "old", false).await.unwrap(),
                _ => return,
            }
            assert_eq!(monitor.round().await.unwrap().begun, 1, "{case}: and then it goes on");
        });
    }
}

#[test]
fn what_a_training_program_told_is_acted_on() {
    let world = world();
    {
        let mut service = world.service();
        service.old.corrupted = Some(false);
        service.others = vec![service.old.clone()];
    }
    let monitor = monitor(&world, on(), &Told::default());
    world.runtime.block_on(async {
        assert_eq!(monitor.round().await.unwrap().lost, 0, "the service calls it sound");
        let symptom = super::super::evidence::Symptom::NotLoaded;
        reports::report(&*world.store, "old", symptom, world.now()).await.unwrap();
        assert_eq!(monitor.round().await.unwrap().begun, 1);
        settled(&monitor).await;
        let record = world.store.list().await.unwrap().remove(0);
        assert_eq!((record.state, record.plan.observed), (RestoreState::Adopted, Some(symptom)));
    });
}

/// Each restored run is poisoned again at once, before it has saved anything.
#[test]
fn a_crash_loop_stops_with_the_reason_and_is_told_once() {
    let world = world();
    let told = Told::default();
    let policy = Policy { max_attempts: 10, max_no_progress: 2, ..on() };
    let monitor = monitor(&world, policy, &told);
    world.runtime.block_on(async {
        for round in 0..50 {
            monitor.round().await.unwrap();
            settled(&monitor).await;
            let made: Vec<TrainingRun> = {
                let service = world.service();
                service
                    .made
                    .values()
                    .map(|made| {
                        let mut run = samples::run(&made.id, Some(true));
                        run.user_metadata = serde_json::from_value(made.labels.clone()).unwrap();
                        run
                    })
                    .collect()
            };
            {
                let mut service = world.service();
                service.others = vec![service.old.clone()];
                service.others.extend(made);
            }
            world.sleep(Duration::from_secs(120)).await;
            assert!(world.service().made.len() <= 2, "round {round}");
        }
        assert_eq!(world.service().made.len(), 2, "two restored runs came to nothing");
        let kinds = told.kinds();
        assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::Exhausted).count(), 1, "{kinds:?}");
        assert_eq!(kinds.iter().filter(|kind| **kind == EventKind::Detected).count(), 3);
        let why =
            told.0.lock().unwrap().iter().find(|e| e.event == EventKind::Exhausted).unwrap().message.clone();
        assert!(why.starts_with("2 restored runs were poisoned before they had saved"), "{why}");
    });
}

#[test]
fn a_service_that_asks_for_it_is_left_alone_for_as_long_as_it_says() {
    for (asked, alone) in [(0, LEFT_ALONE), (7, Duration::from_secs(7)), (100_000, LONGEST_ALONE)] {
        let world = world();
        let monitor = monitor(&world, on(), &Told::default());
        world.runtime.block_on(async {
            world.service().limited = Some(asked);
            let error = monitor.round().await.unwrap_err();
            assert!(matches!(error, MonitorError::Listing(_)), "{error}");
            let until = world.now().later(alone);
            assert_eq!(
                monitor.pause(&Err(error), Duration::ZERO, 1),
                Duration::from_secs(30).max(alone),
                "{asked}"
            );
            world.service().limited = None;
            let round = monitor.round().await.unwrap();
            assert_eq!((round.begun, round.next), (0, Some(until)), "{asked}");
            world.sleep(alone).await;
            assert_eq!(monitor.round().await.unwrap().begun, 1, "{asked}");
        });
    }
}

/// Two runs are poisoned; the load of the first is paused for want of capacity.
#[test]
fn while_the_service_pauses_a_load_no_other_restore_begins() {
    let world = world();
    let policy = Policy { max_restores_per_hour: 1, ..on() };
    let first = monitor(&world, policy, &Told::default());
    world.runtime.block_on(async {
        world.service().paused_loads = 3;
        assert_eq!(first.round().await.unwrap().begun, 1);
        world.sleep(Duration::from_secs(40)).await;
        assert!(first.inner.drives.executor().held_until().is_some());
        let other = samples::run("other", Some(true));
        {
            let mut service = world.service();
            service.others.push(other.clone());
            service.checkpoints.push(samples::checkpoint("other", "a", 999_999_900_000));
        }
        let second = Monitor::new(Parts { policy: on(), ..first.parts() });
        let round = second.round().await.unwrap();
        assert_eq!((round.lost, round.begun), (1, 0), "it waits");
        assert!(round.next.is_some());
        settled(&first).await;
        assert!(first.inner.drives.executor().held_until().is_none());
        world.service().old = other;
        world.sleep(Duration::from_secs(60)).await;
        assert_eq!(second.round().await.unwrap().begun, 1);
    });
}

#[test]
fn rounds_hurry_while_something_is_wrong_and_rest_while_nothing_is() {
    let world = world();
    let monitor = monitor(&world, on(), &Told::default());
    let interval = Duration::from_secs(30);
    let well = Ok(Round::default());
    assert_eq!(monitor.pause(&well, Duration::ZERO, 0), interval);
    assert_eq!(
        monitor.pause(&well, Duration::from_secs(20), 0),
        Duration::from_secs(60),
        "watching is no load"
    );
    let lost = |next| Ok(Round { lost: 1, next, ..Round::default() });
    assert_eq!(monitor.pause(&lost(None), Duration::ZERO, 0), interval / HURRY);
    let soon = world.now().later(Duration::from_secs(2));
    assert_eq!(monitor.pause(&lost(Some(soon)), Duration::ZERO, 0), Duration::from_secs(2));
    assert_eq!(monitor.pause(&lost(Some(world.now())), Duration::ZERO, 0), SHORTEST);
    let failed = || Err(MonitorError::Listing(ListingError::Contradicts(3)));
    assert_eq!(monitor.pause(&failed(), Duration::ZERO, 1), interval);
    assert_eq!(monitor.pause(&failed(), Duration::ZERO, 99), interval * PATIENCE);
}

#[test]
fn a_run_whose_session_is_over_is_told_of_and_protected_and_not_restored() {
    let mut run = samples::run("gone:train:0", Some(false));
    let mut saved = samples::checkpoint("gone:train:0", "a", 999_999_900_000);
    let world = World::new(Service::default());
    run.last_request_time = world.now();
    saved.expires_at = Some(world.now().later(DAY));
    {
        let mut service = world.service();
        service.others = vec![run];
        service.checkpoints.push(saved);
        service.standings.insert("gone".into(), SessionStatus::Active);
    }
    let told = Told::default();
    let monitor = monitor(&world, on(), &told);
    world.runtime.block_on(async {
        assert_eq!(monitor.round().await.unwrap().stalled, 0);
        world.service().standings.insert("gone".into(), SessionStatus::cancelled("it went silent"));
        for _ in 0..2 {
            let round = monitor.round().await.unwrap();
            assert_eq!((round.lost, round.stalled, round.begun, round.health.stalled), (0, 1, 0, 1));
        }
        let detected = told.0.lock().unwrap()[0].clone();
        assert_eq!((detected.event, detected.health), (EventKind::Detected, Some(Health::Stalled)));
        assert!(detected.message.contains("it went silent"), "{}", detected.message);
        assert_eq!(told.take(), [EventKind::Detected, EventKind::Protected], "told once");
        let incidents = incidents(&*world.store, "service", super::super::incidents::WITHIN).await.unwrap();
        assert!(incidents.is_empty(), "a script that ended is no incident");
        // The service calls it corrupted later: that is told as well, and it is restored.
        {
            let mut service = world.service();
            service.others[0].corrupted = Some(true);
            service.old = service.others[0].clone();
        }
        let round = monitor.round().await.unwrap();
        assert_eq!((round.lost, round.stalled, round.begun), (1, 0, 1));
        let told = told.0.lock().unwrap()[0].clone();
        assert_eq!((told.event, told.health), (EventKind::Detected, Some(Health::Poisoned)));
    });
}

/// A thousand runs of which three sessions last.
#[test]
fn a_round_reads_what_can_have_changed_and_counts_all() {
    let mut others: Vec<_> = (0..1000).map(|n| samples::run(&format!("s{n}:train:0"), Some(false))).collect();
    others[500].corrupted = Some(true);
    let standings = (0..3).map(|n| (format!("s{n}"), SessionStatus::Active)).collect();
    // Long ago, so that nobody asks how all these sessions ended.
    others.iter_mut().for_each(|run| run.last_request_time = Time::from_millis(0));
    let world = World::new(Service { others, standings, ..Service::default() });
    let monitor = monitor(&world, off(), &Told::default());
    world.runtime.block_on(async {
        let first = monitor.round().await.unwrap();
        assert_eq!((first.runs, first.requests, first.lost), (1000, 11, 1));
        let second = monitor.round().await.unwrap();
        assert_eq!(second, Round { requests: 1 + 3 + 4, ..first });
        world.service().others[1].corrupted = Some(true);
        world.service().others.push(samples::run("s2:train:1", Some(false)));
        let third = monitor.round().await.unwrap();
        assert_eq!((third.runs, third.lost, third.requests), (1001, 2, 1 + 3 + 5));
        let lost = |round: &Round| round.health.poisoned + round.health.unrecoverable;
        assert_eq!((lost(&second), lost(&third)), (1, 2));
        let all: u64 = Health::ALL.into_iter().map(|health| third.health.get(health)).sum();
        assert_eq!(all, 1001);
    });
}

#[test]
fn what_was_lost_long_ago_is_history_unless_it_was_seen_in_time() {
    let world = world();
    let told = Told::default();
    let policy = Policy { max_age_ms: 3_600_000, ..on() };
    let paused = monitor(&world, policy.clone(), &told);
    world.runtime.block_on(async {
        let round = paused.round().await.unwrap();
        assert_eq!(
            (round.lost, round.health.poisoned + round.health.unrecoverable),
            (0, 1),
            "counted, and no more"
        );
        assert!(told.take().is_empty() && world.store.list().await.unwrap().is_empty());
        // Another is seen in time, while restores are paused for hours.
        let mut fresh = world.service().old.clone();
        fresh.last_request_time = world.now();
        {
            let mut service = world.service();
            service.old = fresh.clone();
            service.others = vec![fresh];
        }
        control::set_gate(&*world.store, Gate::Paused).await.unwrap();
        assert_eq!(paused.round().await.unwrap().lost, 1);
        world.sleep(DAY).await;
        control::set_gate(&*world.store, Gate::Open).await.unwrap();
        assert_eq!(paused.round().await.unwrap().begun, 1, "no run that was seen is forgotten");
    });
}

#[test]
fn a_run_that_another_journal_has_restored_is_left_alone() {
    let world = world();
    let mut successor = samples::run("elsewhere", Some(false));
    let labels = [(LABEL_RESTORED_FROM, "old"), (LABEL_RESTORE_ID, "restore-of-another-journal")];
    successor.user_metadata = Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
    // Far from both ends of a long list, after the run that it replaces.
    let mut others: Vec<_> = (0..500).map(|n| samples::run(&format!("r{n}"), Some(false))).collect();
    others.insert(200, world.service().old.clone());
    others.insert(250, successor);
    world.service().others = others;
    let (told, policy) = (Told::default(), on());
    let monitor = monitor(&world, policy, &told);
    world.runtime.block_on(async {
        for _ in 0..3 {
            let round = monitor.round().await.unwrap();
            assert_eq!((round.lost, round.begun), (0, 0));
        }
        assert!(told.take().is_empty() && world.service().made.is_empty());
    });
}

#[test]
fn a_failure_of_category_user_is_not_restored_even_if_the_session_cannot_be_read() {
    let failed = serde_json::json!({"type": "failed", "category": "user", "message": "NaN",
        "reason": {"type": "training_run", "training_run_id": "s:train:0"}});
    let mut run = samples::run("s:train:0", Some(true));
    let mut service = Service { others: vec![run.clone()], ..Service::default() };
    service.checkpoints = vec![samples::checkpoint("s:train:0", "a", 999_999_900_000)];
    service.standings.insert("s".into(), serde_json::from_value(failed).unwrap());
    service.old = run.clone();
    for reported in [false, true] {
        let world = World::new(service.clone());
        if reported {
            run.corrupted = Some(false);
            let mut service = world.service();
            service.others = vec![run.clone()];
            service.old = run.clone();
        }
        let monitor = monitor(&world, on(), &Told::default());
        world.runtime.block_on(async {
            if reported {
                let symptom = super::super::evidence::Symptom::SessionOver;
                reports::report(&*world.store, "s:train:0", symptom, world.now()).await.unwrap();
            }
            for broken in [true, false] {
                world.service().search_fails = broken;
                let round = monitor.round().await.unwrap();
                assert_eq!((round.lost, round.begun), (1, 0), "reported: {reported}, broken: {broken}");
            }
        });
    }
}

/// The load of the newest checkpoint fails for good: the next restore takes the one before.
#[test]
fn a_checkpoint_that_cannot_be_loaded_is_stepped_back_over() {
    let world = world();
    world.service().checkpoints.push(samples::checkpoint("old", "b", 999_999_950_000));
    world.service().refuse_load = Some((422, "checksum does not match"));
    let monitor = monitor(&world, on(), &Told::default());
    world.runtime.block_on(async {
        assert_eq!(monitor.round().await.unwrap().begun, 1);
        settled(&monitor).await;
        world.service().refuse_load = None;
        world.sleep(Duration::from_secs(60)).await;
        assert_eq!(monitor.round().await.unwrap().begun, 1);
        settled(&monitor).await;
        let records = world.store.list().await.unwrap();
        let taken = |record: &RestoreRecord| (record.plan.checkpoint.checkpoint_id.clone(), record.state);
        assert_eq!(taken(&records[1]), ("weights/b".to_owned(), RestoreState::Failed));
        assert_eq!(taken(&records[0]), ("weights/a".to_owned(), RestoreState::Adopted));
    });
}

/// Between two whole readings, with its session over: its failed restore is not the end.
#[test]
fn a_run_whose_restore_failed_is_read_again_at_once() {
    let mut others: Vec<_> = (0..1000).map(|n| samples::run(&format!("r{n}"), Some(false))).collect();
    let world = world();
    others[500] = world.service().old.clone();
    {
        let mut service = world.service();
        service.others = others;
        service.refuse_load = Some((422, "checksum does not match"));
    }
    let monitor = monitor(&world, on(), &Told::default());
    world.runtime.block_on(async {
        assert_eq!(monitor.round().await.unwrap().begun, 1);
        assert_eq!(monitor.round().await.unwrap().lost, 0, "it is held");
        settled(&monitor).await;
        let round = monitor.round().await.unwrap();
        assert_eq!(round.lost, 1);
        assert!(round.requests < 10, "not by the whole list: {}", round.requests);
    });
}

/// With restores off: by the policy it would be the best one, which is not the newest.
#[test]
fn the_checkpoint_that_the_strategy_would_choose_is_protected_as_well() {
    let world = world();
    let expires_at = Some(world.now().later(DAY));
    let saved = |name: &str, at: i64, loss: &str| Checkpoint {
        expires_at,
        user_metadata: Some([("loss".to_owned(), loss.to_owned())].into()),
        ..samples::checkpoint("old", name, at)
    };
    world.service().checkpoints = vec![
        saved("first", 999_999_000_000, "3"),
        saved("best", 999_999_100_000, "1"),
        saved("last", 999_999_200_000, "2"),
    ];
    let strategy = Strategy::Best { metric: "loss".into(), mode: MetricMode::Min };
    let told = Told::default();
    let monitor = monitor(&world, Policy { checkpoint_strategy: strategy, ..off() }, &told);
    world.runtime.block_on(async {
        monitor.round().await.unwrap();
        assert_eq!(told.take(), [EventKind::Detected, EventKind::Protected, EventKind::Protected]);
        let lives = |n: usize| world.service().checkpoints[n].expires_at > expires_at;
        assert_eq!([lives(0), lives(1), lives(2)], [false, true, true]);
        // Nobody has come for it for a month: its checkpoints are not kept for ever.
        for _ in 0..40 {
            world.sleep(DAY).await;
            monitor.round().await.unwrap();
        }
        assert!(world.service().checkpoints[1].expires_at < Some(world.now()));
    });
}
