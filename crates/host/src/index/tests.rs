use retinker::host::api::{MAX_IDS, RunIds, RunWindow, RunsQuery};
use retinker::recovery::plan::{LABEL_CHECKPOINT, LABEL_RESTORE_ID, LABEL_RESTORED_FROM};
use retinker::wire::session::SessionStatus;

use super::*;

fn run(id: &str, labels: &[(&str, &str)], corrupted: Option<bool>, last_request: i64) -> TrainingRun {
    let json = serde_json::json!({
        "training_run_id": id,
        "base_model": "base",
        "corrupted": corrupted,
        "last_request_time": Time::from_millis(last_request),
        "user_metadata": labels.iter().copied().collect::<BTreeMap<_, _>>(),
        "last_checkpoint": {
            "checkpoint_id": "weights/a",
            "checkpoint_type": "training",
            "time": Time::from_millis(1),
            "tinker_path": format!("tinker://{id}/weights/a"),
        },
    });
    serde_json::from_value(json).unwrap()
}

fn now() -> Time {
    Time::from_millis(1_000_000)
}

fn ids(window: &RunWindow) -> Vec<&str> {
    window.rows.iter().map(|row| row.run.training_run_id.as_str()).collect()
}

fn index(runs: Vec<TrainingRun>) -> Index {
    let mut index = Index::default();
    index.replace(runs, now());
    index
}

fn ask(index: &Index, query: RunsQuery) -> RunWindow {
    index.window(&query, now()).unwrap()
}

fn some() -> Index {
    index(vec![
        run("a", &[("name", "Zebra")], Some(false), 10),
        run("b", &[("name", "apple"), ("lr", "1e-4")], Some(true), 20),
        run("c", &[], None, 30),
        run("b", &[("name", "twice")], Some(true), 20),
        run("d", &[("name", "mango")], Some(true), 40),
    ])
}

#[test]
fn each_id_stands_once_in_every_order() {
    let index = some();
    let by = |sort| RunsQuery { sort, ..RunsQuery::default() };
    let window = ask(&index, by(RunSort::Health));
    assert_eq!(ids(&window), ["d", "b", "c", "a"]);
    assert_eq!((window.total, window.matching), (4, 4));
    assert_eq!((window.counts.poisoned, window.counts.healthy), (2, 2));
    assert_eq!(ids(&ask(&index, by(RunSort::Activity))), ["d", "c", "b", "a"]);
    assert_eq!(ids(&ask(&index, by(RunSort::Name))), ["a", "b", "c", "d"]);
    assert_eq!(ask(&index, by(RunSort::Name)).rows[1].name, "apple", "the first of two counts");
}

#[test]
fn windows_filters_and_counts() {
    let index = some();
    let query =
        RunsQuery { health: Some(Health::Poisoned), offset: 1, limit: Some(1), ..RunsQuery::default() };
    let window = ask(&index, query);
    assert_eq!(ids(&window), ["b"]);
    assert_eq!((window.matching, window.total, window.counts.healthy), (2, 4, 2));
    for (q, found) in
        [("ZEB", vec!["a"]), ("lr=1e-4", vec!["b"]), (" base ", vec!["d", "b", "c", "a"]), ("nix", vec![])]
    {
        let window = ask(&index, RunsQuery { q: Some(q.into()), ..RunsQuery::default() });
        assert_eq!(ids(&window), found, "{q}");
        assert_eq!(
            window.counts.poisoned + window.counts.healthy,
            found.len() as u64,
            "counts follow the text"
        );
    }
    assert!(ids(&ask(&index, RunsQuery { offset: 99, ..RunsQuery::default() })).is_empty());
}

#[test]
fn a_failed_reading_keeps_the_rows() {
    let mut index = some();
    index.fail(crate::problem::slow_service(20));
    let window = ask(&index, RunsQuery::default());
    assert_eq!((window.rows.len(), window.as_of), (4, Some(now())));
    assert_eq!(window.problem.unwrap().code, "service_slow");
    index.replace(vec![], now());
    let window = ask(&index, RunsQuery::default());
    assert_eq!((window.rows.len(), window.problem), (0, None));
    assert_eq!(ask(&Index::default(), RunsQuery::default()).as_of, None);
}

#[test]
fn only_what_looks_different_is_told() {
    let mut index = some();
    let mut runs = vec![
        run("a", &[("name", "Zebra")], Some(false), 10),
        run("b", &[("name", "apple"), ("lr", "1e-4")], Some(true), 20),
        run("c", &[], None, 31),
        run("e", &[], None, 50),
    ];
    let mut changed = index.replace(runs.clone(), now());
    changed.sort();
    assert_eq!(changed, ["c", "d", "e"], "changed, gone, new");
    runs.reverse();
    assert!(index.replace(runs, now()).is_empty());
}

#[test]
fn lineage_from_labels_when_the_journal_does_not_know() {
    let labels = [(LABEL_RESTORED_FROM, "b"), (LABEL_RESTORE_ID, "elsewhere"), ("name", "apple")];
    let index = index(vec![run("b", &[("name", "apple")], Some(true), 1), run("n", &labels, None, 2)]);
    let window = ask(&index, RunsQuery::default());
    let row = |id: &str| window.rows.iter().find(|row| row.run.training_run_id == id).unwrap();
    assert_eq!(row("b").verdict.health, Health::Recovered);
    assert_eq!(row("b").restored_to.as_deref(), Some("n"));
    assert_eq!(row("n").restored_from.as_deref(), Some("b"));
    let family = |id| index.family(row(id)).into_iter().map(|e| (e.run_id, e.restore_id)).collect::<Vec<_>>();
    let chain = vec![("b".to_owned(), None), ("n".to_owned(), Some("elsewhere".to_owned()))];
    assert_eq!(family("n"), chain);
    assert_eq!(family("b"), chain);
    assert_eq!(own_metadata(&row("n").run).into_keys().collect::<Vec<_>>(), ["name"]);
}

#[test]
fn what_a_restore_has_left_behind_is_told_as_that() {
    let labels = [(LABEL_RESTORED_FROM, "b"), (LABEL_RESTORE_ID, "r")];
    let mut index = index(vec![run("b", &[], Some(true), 1), run("n", &labels, None, 2)]);
    let mut record = retinker::recovery::journal::conformance::record("r", "b");
    index.set_restore(record.clone(), now());
    record.state = RestoreState::Cancelled;
    let mut changed = index.set_restore(record.clone(), now()).unwrap();
    changed.sort();
    assert_eq!(changed, ["b", "n"]);
    assert_eq!(index.set_restore(record, now()), None, "it is told once");
    let verdict = &index.row("n").unwrap().verdict;
    assert_eq!(
        (verdict.health, verdict.reason.as_str()),
        (Health::Healthy, "Nobody trains it: it was left behind by restore r of run b, which was cancelled.")
    );
    assert_eq!(index.row("b").unwrap().verdict.health, Health::Poisoned);
}

#[test]
fn a_family_branches_and_ends_even_where_labels_go_in_a_circle() {
    let from = |id: &str, parent: &str| {
        let labels =
            [(LABEL_RESTORED_FROM, parent), (LABEL_RESTORE_ID, "r"), (LABEL_CHECKPOINT, "tinker://p")];
        run(id, &labels, None, 2)
    };
    let index = index(vec![run("a", &[], Some(true), 1), from("d", "b"), from("c", "a"), from("b", "a")]);
    let of = |index: &Index, id: &str| index.family(index.row(id).unwrap());
    let family = of(&index, "d");
    let told: Vec<_> =
        family.iter().map(|e| (e.run_id.as_str(), e.generation, e.parent.as_deref())).collect();
    assert_eq!(told, [("a", 0, None), ("b", 1, Some("a")), ("d", 2, Some("b")), ("c", 1, Some("a"))]);
    assert_eq!(
        (family[0].checkpoint.as_deref(), family[1].checkpoint.as_deref()),
        (None, Some("tinker://p"))
    );
    assert_eq!(family[0].health, Some(Health::Recovered));
    assert_eq!(of(&index, "c"), family);
    // What was read by itself is told though no list has had it.
    let unlisted = Index::default().family(&index.row_for(&run("e", &[], Some(true), 1), None, now()));
    assert_eq!((unlisted.len(), unlisted[0].health), (1, Some(Health::Poisoned)));

    let circle = self::index(vec![from("x", "y"), from("y", "x")]);
    assert_eq!(of(&circle, "x").len(), 2);
}

#[test]
fn a_corrupted_run_that_the_list_tells_too_little_of_is_asked_about_once() {
    let mut bare = run("x", &[], Some(true), 5);
    bare.last_checkpoint = None;
    bare.user_metadata = Some([(LABEL_CHECKPOINT.to_owned(), "tinker://o/weights/a".to_owned())].into());
    let mut index = index(vec![bare.clone(), run("y", &[], Some(true), 6)]);
    assert_eq!(index.unjudged(now()), [(bare.clone(), Some("tinker://o/weights/a".to_owned()))]);
    let poisoned = |index: &Index| ask(index, RunsQuery::default()).counts.poisoned;
    assert_eq!(poisoned(&index), 2, "what was not read is not lost");
    assert_eq!(index.set_checkpoints(vec![(bare.clone(), vec![])], now()), ["x"]);
    assert_eq!(ask(&index, RunsQuery::default()).counts.unrecoverable, 1);
    assert!(index.unjudged(now()).is_empty());
    // It has been asked for something since: what was read then says nothing of now.
    bare.last_request_time = Time::from_millis(7);
    assert_eq!(index.replace(vec![bare.clone(), run("y", &[], Some(true), 6)], now()), ["x"]);
    assert_eq!((poisoned(&index), index.unjudged(now()).len()), (2, 1));
    let listed = run("x", &[], None, 5).last_checkpoint.unwrap();
    assert_eq!(index.set_checkpoints(vec![(bare, vec![listed])], now()), ["x"]);
    assert_eq!(poisoned(&index), 2);
    assert!(index.unjudged(now()).is_empty());
}

#[test]
fn a_run_whose_session_is_over_is_stalled_until_it_is_trained_again() {
    let sessions = Arc::new(Sessions::new());
    let mut index = Index::new(Arc::clone(&sessions), now());
    let runs = vec![run("a:train:0", &[], None, 10), run("b:train:0", &[], None, 10)];
    index.replace(runs.clone(), now());
    sessions.learn(&runs[0], SessionStatus::cancelled("silent"), now());
    assert_eq!(index.set_sessions(&runs, now()), ["a:train:0"]);
    let window = ask(&index, RunsQuery { health: Some(Health::Stalled), ..RunsQuery::default() });
    assert_eq!((ids(&window), window.counts.stalled), (vec!["a:train:0"], 1));
    let mut again = runs[0].clone();
    again.last_request_time = now();
    assert_eq!(index.update(vec![again], now()), ["a:train:0"]);
    assert_eq!(ask(&index, RunsQuery::default()).counts.stalled, 0);
}

#[test]
fn a_reading_of_a_part_leaves_the_others() {
    let mut index = index(vec![run("a", &[], None, 10), run("b", &[], None, 20)]);
    let later = Time::from_millis(now().as_millis() + 5);
    let part = vec![run("new", &[], None, 40), run("b", &[], Some(true), 30), run("new", &[], None, 50)];
    let mut changed = index.update(part, later);
    changed.sort();
    assert_eq!(changed, ["b", "new"]);
    let window = ask(&index, RunsQuery { sort: RunSort::Activity, ..RunsQuery::default() });
    assert_eq!((ids(&window), window.total, window.as_of), (vec!["new", "b", "a"], 3, Some(later)));
    assert_eq!(window.counts.poisoned, 1);
}

#[test]
fn a_journal_that_was_read_a_moment_ago_takes_nothing_back() {
    let mut index = index(vec![run("a", &[], Some(true), 10)]);
    let at = |state, events: usize| {
        let event = serde_json::json!({"at": Time::from_millis(1), "state": "planned", "message": ""});
        let mut record = retinker::recovery::journal::conformance::record("r", "a");
        record.state = state;
        record.events = vec![serde_json::from_value(event).unwrap(); events];
        record
    };
    index.set_restore(at(RestoreState::Checking, 4), now());
    let earlier = Journal { records: Arc::new(vec![at(RestoreState::Loading, 3)]), ..Journal::default() };
    assert!(index.set_journal(earlier, now()).0.is_empty());
    assert_eq!(index.restore_states().collect::<Vec<_>>(), [RestoreState::Checking]);
    let later = Journal { records: Arc::new(vec![at(RestoreState::Adopted, 5)]), ..Journal::default() };
    assert_eq!(index.set_journal(later, now()).0.len(), 1);
    assert_eq!(index.restore_states().collect::<Vec<_>>(), [RestoreState::Adopted]);
}

#[test]
fn the_journal_tells_since_when_and_what_drivers_have_seen() {
    let mut index = index(vec![run("a", &[], Some(true), 10), run("b", &[], Some(false), 10)]);
    let finding = serde_json::json!({"run_id": "a", "since": Time::from_millis(7), "reason": "x",
        "category": "server", "recoverable": true, "random": 1});
    let report = serde_json::json!({"run_id": "b", "symptom": "not_loaded", "at": Time::from_millis(9)});
    let journal = Journal {
        findings: Arc::new([("a".to_owned(), serde_json::from_value(finding).unwrap())].into()),
        reports: Arc::new([("b".to_owned(), serde_json::from_value(report).unwrap())].into()),
        ..Journal::default()
    };
    let (_, changed) = index.set_journal(journal, now());
    assert_eq!(changed, ["a", "b"]);
    let since = |id: &str| {
        let verdict = &index.row(id).unwrap().verdict;
        (verdict.health, verdict.since.map(Time::as_millis))
    };
    assert_eq!(since("a"), (Health::Poisoned, Some(7)));
    assert_eq!(since("b"), (Health::Poisoned, Some(9)));
}

#[test]
fn a_hundred_thousand_runs_are_windowed_whole() {
    let runs = (0..100_000).map(|n| run(&format!("run-{n}"), &[], Some(n % 1000 == 0), n)).collect();
    let index = index(runs);
    let window = ask(&index, RunsQuery { offset: 99_990, limit: Some(5000), ..RunsQuery::default() });
    assert_eq!((window.total, window.rows.len()), (100_000, 10));
    let window =
        ask(&index, RunsQuery { health: Some(Health::Poisoned), limit: Some(5000), ..RunsQuery::default() });
    assert_eq!((window.matching, window.rows.len()), (100, 100));
    assert_eq!(ids(&window)[0], "run-99000");
}

#[test]
fn every_order_can_be_turned_round() {
    let mut runs = vec![
        run("a", &[("name", "b")], Some(false), 10),
        run("b", &[("name", "a")], Some(true), 20),
        run("c", &[("name", "c")], None, 30),
    ];
    for (at, run) in runs.iter_mut().enumerate() {
        run.base_model = ["m2", "m1", "m3"][at].into();
        run.lora_rank = [Some(8), None, Some(16)][at];
    }
    runs[0].last_checkpoint.as_mut().unwrap().time = Time::from_millis(5);
    runs[0].last_checkpoint.as_mut().unwrap().expires_at = Some(Time::from_millis(9_000_000));
    runs[1].last_checkpoint.as_mut().unwrap().expires_at = Some(Time::from_millis(8_000_000));
    runs[2].last_checkpoint = None;
    let index = index(runs);
    for (sort, expected) in [
        (RunSort::Health, ["b", "c", "a"]),
        (RunSort::Activity, ["c", "b", "a"]),
        (RunSort::Name, ["b", "a", "c"]),
        (RunSort::Model, ["b", "a", "c"]),
        (RunSort::Rank, ["c", "a", "b"]),
        (RunSort::Saved, ["a", "b", "c"]),
        (RunSort::Expires, ["b", "a", "c"]),
    ] {
        let mut expected = expected.to_vec();
        let query = RunsQuery { sort, ..RunsQuery::default() };
        assert_eq!(ids(&ask(&index, query.clone())), expected, "{sort:?}");
        expected.reverse();
        let query = RunsQuery { reverse: true, ..query };
        assert_eq!(ids(&ask(&index, query.clone())), expected, "{sort:?} reversed");
        assert_eq!(index.ids(&query, now()).unwrap().ids, expected, "{sort:?} as ids");
    }
}

#[test]
fn a_window_asked_for_again_holds_what_changed_and_no_more() {
    let mut index = some();
    let first = ask(&index, RunsQuery::default());
    assert!(!first.partial && first.ids.is_none());
    let again = |index: &Index, known: &RunWindow| {
        ask(
            index,
            RunsQuery {
                since: Some(known.revision),
                order: Some(known.order.clone()),
                ..RunsQuery::default()
            },
        )
    };
    let same = again(&index, &first);
    assert!(same.partial && same.rows.is_empty() && same.ids.is_none(), "nothing has changed");
    assert_eq!(same.counts, first.counts);

    // One row changes and stays where it is.
    index.update(vec![run("d", &[("name", "renamed")], Some(true), 40)], now());
    let second = again(&index, &first);
    assert_eq!((ids(&second), &second.ids), (vec!["d"], &None));
    // What was known of an older state is made up for in one answer.
    index.update(vec![run("b", &[("name", "apple")], Some(true), 50)], now());
    let third = again(&index, &first);
    let mut changed = ids(&third);
    changed.sort_unstable();
    assert_eq!(changed, ["b", "d"]);
    assert_eq!(
        third.ids.as_deref().unwrap(),
        ["b", "d", "c", "a"],
        "the order is another one, so it is told"
    );
    // A run that has gone changes the order alone.
    let runs = third.ids.iter().flatten().filter(|id| *id != "c");
    let left = runs.filter_map(|id| index.run(id).cloned()).collect();
    index.replace(left, now());
    let fourth = again(&index, &third);
    assert!(fourth.rows.is_empty());
    assert_eq!(fourth.ids.as_deref().unwrap(), ["b", "d", "a"]);

    // What another host has counted, or this one before its start, is not known here.
    for since in [fourth.revision + 1, u64::MAX] {
        let window = ask(&index, RunsQuery { since: Some(since), ..RunsQuery::default() });
        assert!(!window.partial && window.rows.len() == 3, "{since}");
    }
    let mut later = Index::new(Arc::default(), Time::from_millis(1_700_000_000_000));
    later.replace(vec![run("a", &[], None, 1)], now());
    let window = ask(&later, RunsQuery { since: Some(fourth.revision), ..RunsQuery::default() });
    assert!(!window.partial && window.revision > fourth.revision);
}

#[test]
fn ids_are_those_of_the_filter() {
    let index = some();
    let query = RunsQuery { health: Some(Health::Poisoned), limit: Some(1), ..RunsQuery::default() };
    assert_eq!(
        index.ids(&query, now()).unwrap(),
        RunIds { ids: vec!["d".into(), "b".into()], matching: 2 },
        "limits of windows are none of ids"
    );
    assert!(index.ids(&RunsQuery { q: Some("rank>=x".into()), ..query }, now()).is_err());
    let many = (0..MAX_IDS + 5).map(|n| run(&format!("r{n}"), &[], None, 1)).collect::<Vec<_>>();
    let found = self::index(many).ids(&RunsQuery::default(), now()).unwrap();
    assert_eq!((found.ids.len(), found.matching), (MAX_IDS, MAX_IDS as u64 + 5));
}

#[test]
fn a_range_is_between_its_anchor_and_a_place_wherever_they_are() {
    let many = MAX_IDS + 30;
    let index = index((0..many).map(|n| run(&format!("r{n:05}"), &[], None, 1)).collect());
    let all: Vec<_> = (0..many).map(|n| format!("r{n:05}")).collect();
    let range = |anchor: usize, to: u64| {
        let query = RunsQuery {
            sort: RunSort::Name,
            anchor: Some(format!("r{anchor:05}")),
            offset: to,
            ..RunsQuery::default()
        };
        index.ids(&query, now()).unwrap()
    };
    let told = |ids: &[String]| RunIds { ids: ids.to_vec(), matching: ids.len() as u64 };
    assert_eq!(range(MAX_IDS + 10, MAX_IDS as u64 + 12), told(&all[MAX_IDS + 10..=MAX_IDS + 12]));
    assert_eq!(range(5, 5), told(&all[5..=5]));
    let backwards: Vec<_> = all[7..=9].iter().rev().cloned().collect();
    assert_eq!(range(9, 7), told(&backwards));
    assert_eq!(range(many - 2, u64::MAX), told(&all[many - 2..]), "no further than the last");
    assert_eq!(range(many, 3), told(&all[3..=3]), "an anchor that the filter keeps out");
    let most = range(many - 1, 0);
    assert_eq!((most.ids.len(), most.matching), (MAX_IDS, many as u64));
    assert_eq!(most.ids.first(), all.last(), "those nearest to the anchor");
    let none = RunsQuery { q: Some("nothing".into()), anchor: Some("r00001".into()), ..RunsQuery::default() };
    assert_eq!(index.ids(&none, now()).unwrap(), RunIds::default());
}

/// Whatever happens in whatever order, an index that is mended shows what one shows that is made of all anew.
#[test]
fn a_mended_index_equals_one_made_anew() {
    let hour = |n: u64| Time::from_millis(n as i64 * 3_600_000);
    for seed in 1..=40u64 {
        let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut roll = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let sessions = Arc::new(Sessions::new());
        let mut index = Index::new(Arc::clone(&sessions), hour(0));
        let mut listed: BTreeMap<String, TrainingRun> = BTreeMap::new();
        let (mut journal, mut lists) = (Journal::default(), HashMap::new());
        let mut records: BTreeMap<String, RestoreRecord> = BTreeMap::new();
        for step in 0..60 {
            let now = hour(100 + step);
            let id = format!("s{}:train:{}", roll(3), roll(4));
            match roll(7) {
                0 | 1 => {
                    let labels = [
                        (LABEL_RESTORED_FROM, format!("s{}:train:{}", roll(3), roll(4))),
                        (LABEL_RESTORE_ID, format!("r{}", roll(6))),
                    ];
                    let known = listed.get(&id).map(|run| run.user_metadata.clone());
                    let mut new = run(&id, &[], [None, Some(true)][roll(2) as usize], 0);
                    new.last_request_time = hour(90 + step - roll(3));
                    // Labels stay what they were when the run was made.
                    new.user_metadata = known.unwrap_or_else(|| {
                        (roll(3) == 0).then(|| labels.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())
                    });
                    match roll(3) {
                        0 => new.last_checkpoint = None,
                        1 => new.last_checkpoint.as_mut().unwrap().expires_at = Some(hour(100 + roll(120))),
                        _ => {}
                    }
                    listed.insert(id, new.clone());
                    index.update(vec![new], now);
                }
                2 => {
                    if roll(2) == 0 {
                        listed.remove(&id);
                        lists.remove(&id);
                    }
                    index.replace(listed.values().cloned().collect(), now);
                }
                3 => {
                    let restore_id = format!("r{}", roll(6));
                    let mut record = retinker::recovery::journal::conformance::record(&restore_id, &id);
                    if let Some(known) = records.get(&restore_id) {
                        record = known.clone();
                    }
                    let states = [
                        RestoreState::Planned,
                        RestoreState::Loading,
                        RestoreState::Adopted,
                        RestoreState::Failed,
                    ];
                    record.state = states[roll(4) as usize];
                    record.new_run_id = (roll(2) == 0).then(|| format!("s{}:train:{}", roll(3), roll(4)));
                    records.insert(restore_id, record.clone());
                    index.set_restore(record, now);
                }
                4 => {
                    let finding = serde_json::json!({"run_id": id, "since": now, "reason": "x",
                        "category": "server", "recoverable": true, "random": 1});
                    let report = serde_json::json!({"run_id": id, "symptom": "not_loaded", "at": now});
                    let (mut findings, mut reports) =
                        (BTreeMap::clone(&journal.findings), BTreeMap::clone(&journal.reports));
                    match roll(3) {
                        0 => drop(findings.insert(id, serde_json::from_value(finding).unwrap())),
                        1 => drop(reports.insert(id, serde_json::from_value(report).unwrap())),
                        _ => drop((findings.remove(&id), reports.remove(&id))),
                    }
                    journal = Journal {
                        findings: Arc::new(findings),
                        reports: Arc::new(reports),
                        records: Arc::new(records.values().cloned().collect()),
                        ..Journal::default()
                    };
                    index.set_journal(journal.clone(), now);
                }
                5 => {
                    if let Some(run) = listed.get(&id).cloned() {
                        let list: Vec<_> = run.last_checkpoint.clone().into_iter().collect();
                        lists.insert(id, (run.clone(), list.clone()));
                        index.set_checkpoints(vec![(run, list)], now);
                    }
                }
                _ => {
                    if let Some(run) = listed.get(&id) {
                        sessions.learn(run, SessionStatus::cancelled("silent"), now);
                        index.set_sessions(std::slice::from_ref(run), now);
                    }
                }
            }
            // A reading of nothing, so that both have come to the same time.
            index.update(Vec::new(), now);
            let mut anew = Index::new(Arc::clone(&sessions), hour(0));
            let whole = Journal { records: Arc::new(records.values().cloned().collect()), ..journal.clone() };
            anew.set_journal(whole, now);
            anew.replace(listed.values().cloned().collect(), now);
            anew.set_checkpoints(lists.values().cloned().collect(), now);
            for sort in RunSort::ALL {
                let shown = |index: &Index| {
                    let window = index.window(&RunsQuery { sort, ..RunsQuery::default() }, now).unwrap();
                    (window.rows, window.counts, window.total)
                };
                assert_eq!(shown(&index), shown(&anew), "seed {seed}, step {step}, {sort:?}");
            }
        }
    }
}
