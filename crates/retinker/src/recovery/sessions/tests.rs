use super::super::samples;
use super::super::simulation::{Service, World};
use super::*;
use crate::client::testing::test;

/// A run of this session that was asked for something so long ago.
fn run(session: &str, world: &World, ago: Duration) -> TrainingRun {
    let mut run = samples::run(&format!("{session}:train:0"), Some(false));
    run.last_request_time = Time::from_millis(world.now().as_millis() - ago.as_millis() as i64);
    run
}

fn world(standings: &[(&str, SessionStatus)]) -> World {
    let standings = standings.iter().map(|(id, status)| ((*id).to_owned(), status.clone())).collect();
    World::new(Service { standings, ..Service::default() })
}

fn gone() -> SessionStatus {
    SessionStatus::cancelled("its client went silent")
}

#[test]
fn only_runs_of_sessions_that_do_not_last_are_asked_for_and_an_end_once() {
    let world = world(&[("lasts", SessionStatus::Active), ("gone", gone())]);
    let sessions = Sessions::new();
    world.runtime.block_on(async {
        let lasting = sessions.lasting(&world.api).await.unwrap();
        assert_eq!(lasting, Lasting { ids: ["lasts".to_owned()].into(), requests: 1 });
        let now = world.now();
        let open = |run: &TrainingRun| sessions.is_open(run, Some(&lasting), now);
        assert!(!open(&run("lasts", &world, QUIET)));
        assert!(!open(&run("gone", &world, FORGOTTEN)), "that is history");
        assert!(!open(&samples::run("no-session", None)), "nobody could say");
        let gone = run("gone", &world, Duration::ZERO);
        assert!(open(&gone));
        assert!(sessions.ask(&world.api, vec![gone.clone()], now).await);
        assert!(sessions.cut_off(&gone) && !open(&gone));
        let mut again = gone;
        again.last_request_time = now.later(Duration::from_secs(1));
        assert!(!sessions.cut_off(&again) && open(&again), "what was learnt says nothing of later");
    });
}

#[test]
fn without_the_search_quiet_runs_are_asked_for_their_model_again_and_again() {
    let world = World::new(Service { searches: false, ..Service::default() });
    let sessions = Sessions::new();
    world.runtime.block_on(async {
        assert_eq!(sessions.lasting(&world.api).await, None);
        assert_eq!(sessions.lasting(&world.api).await, None);
        assert_eq!(world.service().asked.len(), 1, "it is not looked for again");
        let now = world.now();
        let (busy, quiet) = (run("s", &world, QUIET - Duration::from_secs(1)), run("s", &world, QUIET));
        assert!(!sessions.is_open(&busy, None, now) && sessions.is_open(&quiet, None, now));
        // It holds the model, and then not any more.
        let made = super::super::simulation::Made::of("s:train:0");
        world.service().made.insert(("s".into(), 0), made);
        assert!(!sessions.ask(&world.api, vec![quiet.clone()], now).await);
        assert!(!sessions.is_open(&quiet, None, now), "it was asked a moment ago");
        let later = now.later(QUIET);
        assert!(sessions.is_open(&quiet, None, later));
        world.service().made.clear();
        assert!(sessions.ask(&world.api, vec![quiet.clone()], later).await);
        assert!(sessions.cut_off(&quiet));
    });
}

#[test]
fn an_end_that_the_client_wished_is_no_failure() {
    let finished = serde_json::from_value(
        serde_json::json!({"type": "client_finished", "reason": {"type": "interrupted"}}),
    );
    let world = world(&[("done", finished.unwrap())]);
    let sessions = Sessions::new();
    world.runtime.block_on(async {
        let done = run("done", &world, QUIET);
        assert!(sessions.ask(&world.api, vec![done.clone()], world.now()).await);
        assert!(sessions.end_of(&done).is_some() && !sessions.cut_off(&done));
        // History takes no memory.
        sessions.ask(&world.api, Vec::new(), world.now().later(FORGOTTEN)).await;
        assert_eq!(sessions.end_of(&done), None);
    });
}
