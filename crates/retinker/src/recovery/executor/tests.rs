use futures_util::StreamExt;
use futures_util::future::{Either, join, select};

use retinker_wire::tensor::TensorData;

use super::super::evidence::Symptom;
use super::super::plan::{CheckOutcome, LABEL_CHECKPOINT, LABEL_ROOT, NoPlan, PlanRequest};
use super::super::planner::{gather, make_plan};
use super::super::samples;
use super::super::simulation::{LOGPROBS, Service, World};
use super::*;
use crate::client::testing::test;

async fn begin_and_run(executor: &Executor) -> Result<RestoreRecord, RestoreError> {
    begin_and_run_plan(executor, samples::plan("old")).await
}

async fn begin_and_run_plan(executor: &Executor, plan: RestorePlan) -> Result<RestoreRecord, RestoreError> {
    let (Begun::New(record) | Begun::Existing(record)) = executor.begin(plan).await?;
    if record.state.is_settled() { Ok(record) } else { executor.run(&record.id).await }
}

fn restored(service: Service) -> (World, RestoreRecord) {
    let world = World::new(service);
    let record = world.runtime.block_on(begin_and_run(&world.executor())).unwrap();
    (world, record)
}

#[test]
fn a_run_is_restored_with_its_labels_and_lineage() {
    let (world, record) = restored(Service::default());
    assert_eq!(record.state, RestoreState::Adopted, "{:?}", record.error);
    let attachment = Attachment { session_id: "s0".into(), model_id: "s0:train:0".into(), next_seq_id: 1 };
    assert_eq!(record.attachment, Some(attachment));
    assert_eq!(record.new_run_id.as_deref(), Some("s0:train:0"));
    let states: Vec<_> = record.events.iter().map(|event| event.state).collect();
    use RestoreState::*;
    assert_eq!(states, [Planned, OpeningSession, Loading, Checking, Adopted]);
    let service = world.service();
    let made = service.made.values().next().unwrap();
    assert!(made.optimizer);
    assert_eq!(made.labels[LABEL_RESTORE_ID], record.id.as_str());
    assert_eq!(made.labels[LABEL_RESTORED_FROM], "old");
    assert_eq!(made.labels[LABEL_ROOT], "old");
    assert_eq!(made.labels[LABEL_CHECKPOINT], "tinker://old/weights/a");
}

#[test]
fn a_service_without_the_one_call_form_gets_two() {
    let (world, record) =
        restored(Service { create_via_load: false, keeps_labels: false, ..Service::default() });
    assert_eq!(record.state, RestoreState::Adopted, "{:?}", record.error);
    let attachment = record.attachment.unwrap();
    assert_eq!((attachment.model_id.as_str(), attachment.next_seq_id), ("model_0", 2));
    let service = world.service();
    let made = service.made.values().next().unwrap();
    assert!(made.loaded && made.optimizer);
    assert!(made.seed.is_some(), "a seed is always sent");
}

/// The program stops for ever at its n-th instruction, for every n: before and after each request and each write.
fn crash_everywhere(service: impl Fn() -> Service) -> u64 {
    crash_everywhere_with(service, |_, _| {})
}

fn crash_everywhere_with(service: impl Fn() -> Service, check: impl Fn(&World, &RestoreRecord)) -> u64 {
    for n in 1.. {
        let world = World::new(service());
        let mut crashed = world.crash.arm(n);
        let finished = world.runtime.block_on(async {
            let executor = world.executor();
            let plan = plan_of(&service());
            let work = Box::pin(begin_and_run_plan(&executor, plan));
            matches!(select(work, crashed.next()).await, Either::Left(_))
        });
        world.crash.disarm();
        world.runtime.block_on(async {
            world.sleep(LEASE_TTL).await;
            // A new process goes on, and then somebody clicks again.
            let executor = world.executor();
            executor.resume_unfinished().await.unwrap();
            let record = begin_and_run_plan(&executor, plan_of(&service())).await.unwrap();
            assert_eq!(record.state, RestoreState::Adopted, "crash {n}: {:?}", record.error);
            let all = world.store.list().await.unwrap();
            assert_eq!(all.len(), 1, "crash {n}: one restore");
            check(&world, &record);
            let attachment = record.attachment.unwrap();
            let service = world.service();
            assert_eq!(service.made.len(), 1, "crash {n}: one run");
            let made = service.made.get(&(attachment.session_id.clone(), 0)).unwrap();
            assert_eq!(made.id, attachment.model_id, "crash {n}");
            assert!(made.loaded, "crash {n}");
            assert!(service.sessions.len() <= 2, "crash {n}: at most one orphaned session");
            for session in service.sessions.iter().filter(|id| **id != attachment.session_id) {
                assert!(service.finished.contains(session), "crash {n}: {session} is found and finished");
            }
            assert!(!service.finished.contains(&attachment.session_id), "crash {n}");
        });
        if finished {
            return n;
        }
    }
    unreachable!()
}

#[test]
fn a_crash_at_any_instruction_ends_in_one_adopted_run() {
    let points = crash_everywhere(Service::default);
    // Requests: run, checkpoints, list, session, load, future, info, run. Writes: begin, lease, five states, release.
    assert!(points > 2 * 13, "{points} instructions");
}

#[test]
fn a_crash_on_a_service_without_the_one_call_form() {
    let points =
        crash_everywhere(|| Service { create_via_load: false, keeps_labels: false, ..Service::default() });
    assert!(points > 2 * 16, "{points} instructions");
}

#[test]
fn two_that_begin_at_once_share_one_restore() {
    let world = World::new(Service { slow_load: Duration::from_secs(2), ..Service::default() });
    let (a, b) = (world.executor(), world.executor());
    world.runtime.block_on(async {
        let (first, second) = join(a.begin(samples::plan("old")), b.begin(samples::plan("old"))).await;
        let begun = [first.unwrap(), second.unwrap()];
        assert_eq!(begun.iter().filter(|b| matches!(b, Begun::New(_))).count(), 1);
        let ids = begun.map(|b| match b {
            Begun::New(record) | Begun::Existing(record) => record.id,
        });
        assert_eq!(ids[0], ids[1]);
        let (first, second) = join(a.run(&ids[0]), b.run(&ids[1])).await;
        assert_eq!(first.unwrap().state, RestoreState::Adopted);
        assert!(matches!(second, Err(RestoreError::DrivenElsewhere(_))), "{second:?}");
    });
    assert_eq!(world.service().made.len(), 1);
}

#[test]
fn one_who_was_thought_dead_writes_nothing() {
    let world = World::new(Service { slow_load: Duration::from_secs(2), ..Service::default() });
    let (a, b) = (world.executor(), world.executor());
    world.runtime.block_on(async {
        let Begun::New(record) = a.begin(samples::plan("old")).await.unwrap() else { panic!() };
        let paused = Box::pin(a.run(&record.id));
        let Either::Right((_, paused)) = select(paused, Box::pin(world.sleep(Duration::from_secs(1)))).await
        else {
            panic!("the load is slow")
        };
        // It is not polled: its lease ends.
        world.sleep(LEASE_TTL).await;
        let done = b.run(&record.id).await.unwrap();
        assert_eq!(done.state, RestoreState::Adopted);
        let late = paused.await;
        assert!(matches!(late, Err(RestoreError::Journal(StoreError::LeaseLost(_)))), "{late:?}");
        assert_eq!(world.store.get(&record.id).await.unwrap().unwrap(), done);
    });
    assert_eq!(world.service().made.len(), 1);
}

#[test]
fn the_lease_is_kept_through_a_long_load() {
    let world = World::new(Service { slow_load: LEASE_TTL * 2, ..Service::default() });
    let record = world.runtime.block_on(begin_and_run(&world.executor())).unwrap();
    assert_eq!(record.state, RestoreState::Adopted, "{:?}", record.error);
}

#[test]
fn a_result_that_the_service_forgot_is_asked_for_under_the_same_identity() {
    let (world, record) = restored(Service { forgets: 2, ..Service::default() });
    assert_eq!(record.state, RestoreState::Adopted, "{:?}", record.error);
    assert_eq!(world.service().made.len(), 1);
}

#[test]
fn failures_are_told_and_let_the_run_go() {
    let path = "tinker://old/weights/a";
    let cases: [(Service, &[&str]); 4] = [
        (
            Service { refuse_load: Some((404, "checkpoint has expired")), ..Service::default() },
            &[path, "expired"],
        ),
        (Service { fail_load: Some("checksum does not match"), ..Service::default() }, &[path, "checksum"]),
        (
            Service { refuse_load: Some((500, "something broke")), ..Service::default() },
            &[path, "500", "something broke"],
        ),
        (Service { new_run_corrupted: true, ..Service::default() }, &["s0:train:0", "corrupted itself"]),
    ];
    for (service, parts) in cases {
        let (world, record) = restored(service);
        assert_eq!(record.state, RestoreState::Failed);
        let error = record.error.unwrap();
        for part in parts {
            assert!(error.contains(part), "'{part}' in: {error}");
        }
        assert_eq!(record.attachment, None);
        let of_checkpoint = parts.contains(&path) && !parts.contains(&"500");
        assert_eq!(record.checkpoint_useless, of_checkpoint, "{error}");
        assert_eq!(world.service().finished, ["s0"], "its session is given back");
        *world.service() = Service { sessions: vec!["s0".into()], ..Service::default() };
        let again = world.runtime.block_on(begin_and_run(&world.executor())).unwrap();
        assert_eq!(again.state, RestoreState::Adopted, "it can be planned for again");
    }
}

/// Whatever it answers while it is not there: the restore waits, and goes on when it is.
#[test]
fn an_outage_is_no_failure_of_the_restore() {
    type Outage = fn(&mut Service);
    let outages: [(Outage, RestoreState); 4] = [
        (|service| service.down = true, RestoreState::OpeningSession),
        (|service| service.refuse_session = Some(402), RestoreState::OpeningSession),
        (|service| service.refuse_load = Some((503, "overloaded")), RestoreState::Loading),
        (|service| service.refuse_load = Some((429, "slow down")), RestoreState::Loading),
    ];
    for (outage, waits_in) in outages {
        let world = World::new(Service::default());
        let executor = world.executor();
        world.runtime.block_on(async {
            let Begun::New(record) = executor.begin(samples::plan("old")).await.unwrap() else { panic!() };
            outage(&mut world.service());
            let error = executor.run(&record.id).await.unwrap_err();
            assert!(matches!(&error, RestoreError::Service(error) if error.is_outage()), "{error}");
            let left = world.store.get(&record.id).await.unwrap().unwrap();
            assert_eq!((left.state, left.error), (waits_in, None));
            assert!(executor.held_until().unwrap() > world.now(), "no other restore begins meanwhile");
            {
                let mut service = world.service();
                (service.down, service.refuse_session, service.refuse_load) = (false, None, None);
            }
            let record = executor.run(&record.id).await.unwrap();
            assert_eq!(record.state, RestoreState::Adopted, "{:?}", record.error);
            assert_eq!(world.service().made.len(), 1);
        });
    }
}

/// The session ended while the service was away: that says nothing of the checkpoint.
#[test]
fn a_load_that_fails_because_its_session_is_over_leaves_the_checkpoint_its_name() {
    let service = Service {
        refuse_load: Some((404, "session s0 is over")),
        over: vec!["s0".into()],
        ..Service::default()
    };
    let (_, record) = restored(service);
    assert_eq!((record.state, record.checkpoint_useless), (RestoreState::Failed, false));
}

/// A session was opened, and the answer never came; then the load fails.
#[test]
fn a_failed_restore_leaves_no_surplus_session() {
    let world = World::new(Service { refuse_load: Some((404, "expired")), ..Service::default() });
    world.runtime.block_on(async {
        let executor = world.executor();
        let Begun::New(record) = executor.begin(samples::plan("old")).await.unwrap() else { panic!() };
        {
            let mut service = world.service();
            service.sessions.push("lost".into());
            service.session_labels.insert("lost".into(), record.id.clone());
        }
        let record = executor.run(&record.id).await.unwrap();
        assert_eq!(record.state, RestoreState::Failed);
        assert_eq!(world.service().finished, ["lost", "s1"]);
    });
}

#[test]
fn what_is_confirmed_must_still_hold() {
    type Change = fn(&mut Service);
    let changes: [(Change, &str); 4] = [
        (|service| service.old.corrupted = Some(false), "no longer corrupted"),
        (|service| service.checkpoints.clear(), "does not exist any more"),
        (|service| service.checkpoints[0].time = retinker_wire::time::Time::from_millis(5), "saved again"),
        (
            |service| service.checkpoints[0].expires_at = Some(retinker_wire::time::Time::from_millis(5)),
            "expired",
        ),
    ];
    for (change, part) in changes {
        let world = World::new(Service::default());
        change(&mut world.service());
        let refused = world.runtime.block_on(world.executor().begin(samples::plan("old"))).unwrap_err();
        let RestoreError::PlanChanged(why) = refused else { panic!("{refused:?}") };
        assert!(why.contains(part), "{why}");
        assert!(world.service().sessions.is_empty());
    }
    let world = World::new(Service::default());
    let altered = RestorePlan { optimizer: false, ..samples::plan("old") };
    let refused = world.runtime.block_on(world.executor().begin(altered));
    assert!(matches!(refused, Err(RestoreError::NotThePlan)), "{refused:?}");
}

#[test]
fn an_adopted_run_is_handed_over_once() {
    let (world, record) = restored(Service::default());
    let executor = world.executor();
    world.runtime.block_on(async {
        let first = executor.hand_over(&record.id).await.unwrap();
        assert_eq!(first.state, RestoreState::HandedOver);
        assert_eq!(executor.hand_over(&record.id).await.unwrap(), first);
        let unknown = executor.hand_over("none").await;
        assert!(matches!(unknown, Err(RestoreError::Journal(StoreError::NotFound(_)))), "{unknown:?}");
    });
}

#[test]
fn a_restore_under_way_cannot_be_handed_over() {
    let world = World::new(Service::default());
    let executor = world.executor();
    world.runtime.block_on(async {
        let Begun::New(record) = executor.begin(samples::plan("old")).await.unwrap() else { panic!() };
        let refused = executor.hand_over(&record.id).await.unwrap_err();
        assert!(refused.to_string().contains("planned"), "{refused}");
    });
}

#[test]
fn a_hand_over_does_not_disturb_the_restore_under_way() {
    let world = World::new(Service { slow_load: Duration::from_secs(8), ..Service::default() });
    let executor = world.executor();
    let record = world.runtime.block_on(async {
        let Begun::New(record) = executor.begin(samples::plan("old")).await.unwrap() else { panic!() };
        let impatient = async {
            for _ in 0..12 {
                world.sleep(Duration::from_millis(500)).await;
                match executor.hand_over(&record.id).await {
                    Err(RestoreError::NothingToHandOver { state: "loading", .. }) => {}
                    answer => panic!("{answer:?}"),
                }
            }
        };
        join(executor.run(&record.id), impatient).await.0.unwrap()
    });
    assert_eq!(record.state, RestoreState::Adopted, "{:?}", record.error);
}

/// A restore that loads for so long, and somebody who cancels it from another program so long after it has begun.
fn cancelled_after(
    load: Duration,
    after: Duration,
) -> (World, Result<RestoreRecord, RestoreError>, Result<RestoreRecord, RestoreError>) {
    let world = World::new(Service { slow_load: load, ..Service::default() });
    let (driver, other) = (world.executor(), world.executor());
    let (driven, cancelled) = world.runtime.block_on(async {
        let Begun::New(record) = driver.begin(samples::plan("old")).await.unwrap() else { panic!() };
        let cancel = async {
            world.sleep(after).await;
            other.cancel(&record.id).await
        };
        join(driver.run(&record.id), cancel).await
    });
    (world, driven, cancelled)
}

#[test]
fn a_restore_under_way_is_cancelled_whoever_carries_it_out() {
    let (world, driven, cancelled) = cancelled_after(Duration::from_secs(60), Duration::from_secs(3));
    let record = cancelled.unwrap();
    assert_eq!((record.state, &record.new_run_id, &record.error), (RestoreState::Cancelled, &None, &None));
    assert_eq!(driven.unwrap(), record, "the driver tells the same");
    assert_eq!(world.service().finished, ["s0"], "nobody keeps its session");
    world.runtime.block_on(async {
        let executor = world.executor();
        assert_eq!(executor.cancel(&record.id).await.unwrap(), record, "a second time");
        assert_eq!(executor.run(&record.id).await.unwrap(), record, "it is not gone on with");
        assert!(executor.unfinished().await.unwrap().is_empty());
        world.service().slow_load = Duration::ZERO;
        let again = begin_and_run(&executor).await.unwrap();
        assert_eq!(again.state, RestoreState::Adopted, "it holds the run no longer: {:?}", again.error);
        assert_ne!(again.id, record.id);
    });
}

#[test]
fn whenever_it_is_cancelled_both_sides_are_told_the_same() {
    let mut ends = std::collections::BTreeMap::new();
    for after in (0..60).map(|n| Duration::from_millis(n * 100)) {
        let (world, driven, cancelled) = cancelled_after(Duration::from_secs(4), after);
        let driven = driven.unwrap();
        match (driven.state, cancelled) {
            (RestoreState::Cancelled, Ok(told)) => {
                assert_eq!(told, driven, "{after:?}");
                let service = world.service();
                let kept = service.sessions.iter().filter(|id| !service.finished.contains(id));
                assert_eq!(kept.count(), 0, "{after:?}");
            }
            (RestoreState::Adopted, Err(RestoreError::NothingToCancel { state: "adopted", .. })) => {
                assert!(world.service().finished.is_empty(), "{after:?}");
            }
            (state, told) => panic!("{after:?}: {state:?} and {told:?}"),
        }
        *ends.entry(driven.state.as_str()).or_insert(0) += 1;
    }
    assert!(ends["cancelled"] > 5 && ends["adopted"] > 5, "{ends:?}");
}

#[test]
fn what_nobody_carries_out_is_cancelled_at_once() {
    let world = World::new(Service::default());
    let executor = world.executor();
    world.runtime.block_on(async {
        let Begun::New(record) = executor.begin(samples::plan("old")).await.unwrap() else { panic!() };
        // Its driver has crashed: until its lease is over, it might be alive.
        world.store.acquire_lease(&record.id, "crashed", LEASE_TTL).await.unwrap().unwrap();
        let begun_at = world.now();
        assert_eq!(executor.cancel(&record.id).await.unwrap().state, RestoreState::Cancelled);
        assert!(world.now() >= begun_at.later(LEASE_TTL));
        assert!(world.service().sessions.is_empty(), "nothing was asked for");
        let unknown = executor.cancel("none").await;
        assert!(matches!(unknown, Err(RestoreError::Journal(StoreError::NotFound(_)))), "{unknown:?}");
    });
}

#[test]
fn hand_overs_at_once_are_one() {
    let (world, record) = restored(Service::default());
    let writes = Arc::new(std::sync::Mutex::new(Vec::new()));
    let counting = || {
        let sink = Arc::clone(&writes);
        world.executor().on_progress(move |record| sink.lock().unwrap().push(record.clone()))
    };
    let (executor, other) = (counting(), counting());
    let answers = world.runtime.block_on(futures_util::future::join_all(
        [&executor, &executor, &other].map(|executor| executor.hand_over(&record.id)),
    ));
    let written = world.runtime.block_on(world.store.get(&record.id)).unwrap().unwrap();
    assert_eq!(*writes.lock().unwrap(), std::slice::from_ref(&written), "one write");
    for answer in answers {
        assert_eq!(answer.unwrap(), written);
    }
}

#[test]
fn a_restored_run_that_is_poisoned_before_its_first_save_is_restored_from_the_same_checkpoint() {
    use super::super::plan::PlanRequest;
    use super::super::planner::{gather, make_plan};
    for keeps_labels in [true, false] {
        let (world, first) = restored(Service { keeps_labels, ..Service::default() });
        let poisoned = first.new_run_id.clone().unwrap();
        world.service().new_run_corrupted = true;
        let request = PlanRequest::new(&poisoned);
        let (plan, second) = world.runtime.block_on(async {
            let made_by = world.store.by_new_run(&poisoned).await.unwrap();
            let facts = gather(&world.api, &request, None, made_by.as_ref(), world.now()).await.unwrap();
            assert_eq!(
                facts.weights.keys().collect::<Vec<_>>(),
                ["tinker://old/weights/a"],
                "it was asked about"
            );
            let plan = make_plan(&facts, &request).unwrap();
            let executor = world.executor();
            let Begun::New(record) = executor.begin(plan.clone()).await.unwrap() else { panic!() };
            world.service().new_run_corrupted = false;
            (plan, executor.run(&record.id).await.unwrap())
        });
        assert!(plan.why.contains("restored from"), "{}", plan.why);
        assert_eq!(plan.checkpoint.tinker_path, "tinker://old/weights/a");
        assert_eq!(plan.lost.seconds, 100, "since that checkpoint: {}", plan.lost.summary);
        assert_eq!(second.state, RestoreState::Adopted, "{:?}", second.error);
        assert_ne!(second.new_run_id, first.new_run_id);
    }
}

#[test]
fn an_origin_that_is_gone_is_no_candidate() {
    use super::super::planner::candidates;
    let world = World::new(Service::default());
    let run = samples::run("new", Some(true));
    world.runtime.block_on(async {
        let found = candidates(&world.api, &run, Some("tinker://old/weights/a")).await.unwrap();
        assert_eq!(found.len(), 1);
        for gone in ["tinker://old/weights/deleted", "no path"] {
            assert_eq!(candidates(&world.api, &run, Some(gone)).await.unwrap(), []);
        }
        world.service().down = true;
        assert!(candidates(&world.api, &run, Some("tinker://old/weights/a")).await.is_err());
    });
}

#[test]
fn a_successor_of_another_host_is_seen_right_before() {
    let successor = |restore_id: &str| {
        let labels = [(LABEL_RESTORED_FROM, "old"), (LABEL_RESTORE_ID, restore_id)];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        TrainingRun { user_metadata: Some(labels), ..samples::run("theirs", Some(false)) }
    };
    let more = || (0..250).map(|n| samples::run(&format!("r{n}"), None));
    let first: Vec<_> = std::iter::once(successor("elsewhere")).chain(more()).collect();
    let last: Vec<_> = more().chain([successor("elsewhere")]).collect();
    for others in [vec![successor("elsewhere")], first, last] {
        let world = World::new(Service { others, ..Service::default() });
        let refused = world.runtime.block_on(world.executor().begin(samples::plan("old"))).unwrap_err();
        let RestoreError::PlanChanged(why) = refused else { panic!("{refused:?}") };
        assert!(why.contains("run theirs has taken its place"), "{why}");
        assert!(world.runtime.block_on(world.store.list()).unwrap().is_empty());
    }
    // What a failed restore of this journal left behind is no successor.
    let (world, failed) = restored(Service { fail_load: Some("no"), ..Service::default() });
    assert_eq!(failed.state, RestoreState::Failed);
    world.service().others = vec![successor(&failed.id)];
    world.service().fail_load = None;
    let again = world.runtime.block_on(world.executor().begin(samples::plan("old")));
    assert!(matches!(again, Ok(Begun::New(_))), "{again:?}");
}

#[test]
fn the_services_own_id_of_the_new_run_counts() {
    let (_, record) = restored(Service { told_id: Some("theirs"), ..Service::default() });
    assert_eq!(record.state, RestoreState::Adopted, "{:?}", record.error);
    assert_eq!(record.new_run_id.as_deref(), Some("theirs"));
    assert_eq!(record.attachment.unwrap().model_id, "theirs");
}

#[test]
fn a_form_that_is_refused_as_a_bad_request_is_unknown_as_well() {
    for unknown_form in [400, 405, 422] {
        let (_, record) = restored(Service { create_via_load: false, unknown_form, ..Service::default() });
        assert_eq!(record.state, RestoreState::Adopted, "{unknown_form}: {:?}", record.error);
    }
}

#[test]
fn progress_is_told_after_each_write() {
    let world = World::new(Service::default());
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    let sink = Arc::clone(&told);
    let executor = world.executor().on_progress(move |record| sink.lock().unwrap().push(record.state));
    world.runtime.block_on(begin_and_run(&executor)).unwrap();
    use RestoreState::*;
    assert_eq!(*told.lock().unwrap(), [Planned, OpeningSession, Loading, Checking, Adopted]);
}

/// A service whose checkpoint carries a probe that fits [`LOGPROBS`].
fn probed() -> Service {
    let outputs = [("logprobs".to_owned(), TensorData::float32(LOGPROBS.to_vec()))].into();
    let output = ForwardBackwardOutput { loss_fn_outputs: vec![outputs], ..Default::default() };
    let probe = Probe::of(&[1, 2, 3], &output).unwrap();
    let mut service = Service::default();
    service.checkpoints[0].user_metadata = Some(probe.label());
    service
}

/// A plan that was made from the checkpoint as it is listed.
fn plan_of(service: &Service) -> RestorePlan {
    let mut plan = samples::plan("old");
    plan.checkpoint = service.checkpoints[0].clone();
    plan.sealed()
}

fn restored_with_probe(service: Service) -> (World, RestoreRecord) {
    let (plan, world) = (plan_of(&service), World::new(service));
    let record = world.runtime.block_on(async {
        let executor = world.executor();
        let Begun::New(record) = executor.begin(plan).await.unwrap() else { panic!() };
        executor.run(&record.id).await.unwrap()
    });
    (world, record)
}

#[test]
fn a_run_that_is_what_was_saved_is_verified_and_its_next_number_handed_over() {
    let (world, record) = restored_with_probe(probed());
    assert_eq!(record.state, RestoreState::Adopted, "{:?}", record.error);
    assert_eq!(record.verification, Some(Verification::Verified { difference: 0.0 }));
    let attachment = record.attachment.unwrap();
    assert_eq!(world.service().forwards, [(attachment.model_id, 1)]);
    assert_eq!(attachment.next_seq_id, 2, "the probe took number 1");
    assert!(record.events.last().unwrap().message.ends_with("(largest difference 0.0000)."));
}

#[test]
fn a_run_that_is_not_what_was_saved_is_not_adopted() {
    let service = Service { logprobs: vec![-1.5, -0.5], ..probed() };
    let (world, record) = restored_with_probe(service);
    assert_eq!(record.state, RestoreState::Failed);
    assert!(matches!(record.verification, Some(Verification::Different { difference: 0.25, .. })));
    let error = record.error.unwrap();
    assert!(
        error.contains("is not what was saved. Different: its log-probabilities are up to 0.2500"),
        "{error}"
    );
    assert_eq!(world.service().finished, ["s0"], "its session is let go");
}

#[test]
fn what_cannot_be_compared_is_told_and_adopted() {
    let (world, record) = restored_with_probe(Service::default());
    assert!(
        matches!(&record.verification, Some(Verification::NotVerified { reason }) if reason.starts_with("No probe"))
    );
    assert_eq!((world.service().forwards.len(), record.attachment.unwrap().next_seq_id), (0, 1));
    let refused = Service { refuse_forward: Some((422, "no such loss")), ..probed() };
    let (_, record) = restored_with_probe(refused);
    assert_eq!(record.state, RestoreState::Adopted);
    assert!(
        matches!(&record.verification, Some(Verification::NotVerified { reason }) if reason.contains("no such loss"))
    );
    assert_eq!(record.attachment.unwrap().next_seq_id, 1, "a refused request used no number");
}

#[test]
fn a_crash_anywhere_leaves_the_numbers_right() {
    let steps = crash_everywhere_with(probed, |world, record| {
        let next = record.attachment.as_ref().unwrap().next_seq_id;
        assert!(world.service().forwards.iter().all(|(_, seq_id)| *seq_id == 1), "the same number each time");
        assert!(!world.service().forwards.is_empty());
        assert_eq!(next, 2);
        assert_eq!(record.verification, Some(Verification::Verified { difference: 0.0 }));
    });
    assert!(steps > 36, "{steps}: the probe adds requests and a write");
}

#[test]
fn a_refused_number_that_may_have_been_used_before_is_not_handed_over() {
    let cut_off_after_the_probe = (1..).find_map(|n| {
        let world = World::new(probed());
        let mut crashed = world.crash.arm(n);
        world.runtime.block_on(async {
            let executor = world.executor();
            let work = Box::pin(begin_and_run_plan(&executor, plan_of(&probed())));
            select(work, crashed.next()).await;
        });
        world.crash.disarm();
        let seen = !world.service().forwards.is_empty();
        seen.then_some(world)
    });
    let world = cut_off_after_the_probe.unwrap();
    world.service().refuse_forward = Some((400, "the number was used before"));
    world.runtime.block_on(async {
        world.sleep(LEASE_TTL).await;
        let resumed = world.executor().resume_unfinished().await.unwrap();
        assert_eq!(resumed[0].state, RestoreState::Failed);
        assert!(
            resumed[0].error.as_ref().unwrap().contains("could not be compared"),
            "{:?}",
            resumed[0].error
        );
    });
}

#[test]
fn a_run_that_only_its_driver_knows_to_be_lost_is_restored() {
    let mut service = Service::default();
    service.old.corrupted = Some(false);
    let world = World::new(service);
    let record = world.runtime.block_on(async {
        let mut request = PlanRequest::new("old");
        let facts = gather(&world.api, &request, None, None, world.now()).await.unwrap();
        assert!(matches!(make_plan(&facts, &request), Err(NoPlan::NotPoisoned { .. })));
        request.observed = Some(Symptom::NotLoaded);
        let facts = gather(&world.api, &request, None, None, world.now()).await.unwrap();
        let plan = make_plan(&facts, &request).unwrap();
        let warning = plan.checks.iter().find(|check| check.name == "the run is corrupted").unwrap();
        assert_eq!(warning.outcome, CheckOutcome::Warning);
        let executor = world.executor();
        let Begun::New(record) = executor.begin(plan).await.unwrap() else { panic!() };
        executor.run(&record.id).await.unwrap()
    });
    assert_eq!(record.state, RestoreState::Adopted, "{:?}", record.error);
}

#[test]
fn a_search_that_finds_too_much_finishes_nobody_elses_session() {
    let service = Service { filters: false, sessions: vec!["theirs".into()], ..Service::default() };
    let (world, record) = restored(service);
    assert_eq!(record.state, RestoreState::Adopted, "{:?}", record.error);
    assert_eq!(world.service().finished, Vec::<String>::new());
}
