use retinker_wire::session::SessionStatus;

use super::super::samples;
use super::super::simulation::{Service, World};
use super::*;
use crate::client::testing::test;

const RUNS: usize = 1000;

/// A thousand runs, each of a session of its own, of which these last.
fn world(lasting: &[usize]) -> World {
    let others = (0..RUNS).map(|n| samples::run(&format!("s{n}:train:0"), Some(false))).collect();
    let standings = lasting.iter().map(|n| (format!("s{n}"), SessionStatus::Active)).collect();
    World::new(Service { others, standings, ..Service::default() })
}

struct Watch {
    survey: Survey,
    sessions: Sessions,
}

impl Watch {
    fn new() -> Self {
        Self { survey: Survey::new(), sessions: Sessions::new() }
    }

    /// The ids that a reading gives, sorted, whether it was whole, and how many requests it says it took.
    async fn read(&self, world: &World, also: &[&str]) -> (Vec<String>, bool, u64) {
        let before = world.service().asked.len();
        let also = also.iter().map(|id| (*id).to_owned()).collect();
        let now = crate::runtime::Runtime::monotonic(&world.runtime);
        let mut reading = self.survey.begin(&world.api, &self.sessions, also, now).await;
        let whole = reading.is_whole();
        let mut ids = Vec::new();
        while let Some(page) = reading.next().await.unwrap() {
            assert!(page.len() <= 100);
            ids.extend(page.into_iter().map(|run| run.training_run_id));
        }
        ids.sort();
        let asked = world.service().asked.len() - before;
        // The one that finds out that there is no search is left out.
        let tries = u64::from(!world.service().searches && before == 0);
        assert_eq!(asked as u64, reading.requests() + tries, "the requests are counted");
        (ids, whole, reading.requests())
    }
}

#[test]
fn between_two_whole_readings_only_what_can_have_changed_is_read() {
    let world = world(&[3, 7]);
    let watch = Watch::new();
    world.runtime.block_on(async {
        let (ids, whole, requests) = watch.read(&world, &[]).await;
        assert_eq!((ids.len(), whole, requests), (RUNS, true, 11), "a search and ten pages");
        // One more run in a session that lasts, another that has ended meanwhile, and one that is known to be lost.
        world.service().others.push(samples::run("s3:train:1", None));
        world.service().standings.insert("s7".into(), SessionStatus::cancelled("silent"));
        let (ids, whole, requests) = watch.read(&world, &["s500:train:0"]).await;
        assert_eq!((whole, requests), (false, 1 + 2 + 4));
        assert_eq!(ids, ["s3:train:0", "s3:train:1", "s500:train:0", "s7:train:0"]);
        let (ids, ..) = watch.read(&world, &[]).await;
        assert_eq!(ids, ["s3:train:0", "s3:train:1"], "an end is followed once");
        // A run that was deleted meanwhile is no trouble.
        let (ids, ..) = watch.read(&world, &["s9999:train:0"]).await;
        assert_eq!(ids, ["s3:train:0", "s3:train:1"]);
        world.sleep(WHOLE_EVERY).await;
        assert!(watch.read(&world, &[]).await.1, "now and then all is read");
        assert!(!watch.read(&world, &[]).await.1);
        watch.survey.want_whole();
        assert!(watch.read(&world, &[]).await.1, "or when that is asked for");
    });
}

#[test]
fn the_whole_list_is_read_where_it_is_cheaper_or_nothing_else_would_do() {
    let many: Vec<usize> = (0..20).collect();
    let untold = samples::run("s3:train:x:train:1", None);
    type Case<'a> = (&'a str, &'a [usize], &'a dyn Fn(&mut Service));
    let cases: [Case<'_>; 4] = [
        ("most sessions last", &many, &|_| {}),
        ("the list is short", &[3], &|service| service.others.truncate(300)),
        ("there is no search", &[3], &|service| service.searches = false),
        ("the ids do not tell their session", &[3], &|service| service.others.push(untold.clone())),
    ];
    for (why, lasting, change) in cases {
        let world = world(lasting);
        change(&mut world.service());
        let watch = Watch::new();
        world.runtime.block_on(async {
            for _ in 0..2 {
                let (ids, whole, _) = watch.read(&world, &[]).await;
                assert!(whole, "{why}");
                assert_eq!(ids.len(), world.service().others.len(), "{why}");
            }
        });
    }
}

#[test]
fn a_reading_that_breaks_off_changes_nothing() {
    let world = world(&[3]);
    let watch = Watch::new();
    world.runtime.block_on(async {
        watch.read(&world, &[]).await;
        world.service().standings.insert("s3".into(), SessionStatus::cancelled("silent"));
        let now = crate::runtime::Runtime::monotonic(&world.runtime);
        let mut reading = watch.survey.begin(&world.api, &watch.sessions, BTreeSet::new(), now).await;
        assert!(!reading.is_whole());
        world.service().down = true;
        reading.next().await.unwrap_err();
        world.service().down = false;
        assert_eq!(watch.read(&world, &[]).await.0, ["s3:train:0"], "its end is followed all the same");
    });
}
