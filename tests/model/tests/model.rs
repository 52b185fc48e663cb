//! What holds in every order of events, within bounds; and that each guard is needed for it.
//!
//! `cargo test -p retinker-model -- --nocapture` tells how many states each check has seen. Wider bounds, which take
//! minutes, are tests that are ignored here and run by `cargo xtask soak`.
#![allow(clippy::panic)]

use retinker_model::properties::Checked;
use retinker_model::service::{Repeated, Rules};
use retinker_model::world::{Bounds, Flaw, World};
use stateright::{Checker, HasDiscoveries, Model};

/// The embedded service.
const EMBEDDED: Rules =
    Rules { deduplicates: true, one_call: true, search: true, probe: true, repeated: Repeated::AsBefore };
/// One that makes a run anew each time that it is asked.
const FORGETFUL: Rules = Rules { deduplicates: false, ..EMBEDDED };
/// One that in addition makes a run and loads it by two requests, and knows no search, as SkyRL does.
const IN_TWO_CALLS: Rules = Rules { one_call: false, search: false, ..FORGETFUL };

/// Two drivers, nothing goes wrong, any of them may be suspended for as long as it likes.
const TWO: Bounds =
    Bounds { drivers: 2, starts: 2, crashes: 0, losses: 0, refusals: 0, slow_renewals: false };
const CRASH: Bounds = Bounds { crashes: 1, ..TWO };
const LOSS: Bounds = Bounds { losses: 1, ..TWO };

fn check(rules: Rules, bounds: Bounds) {
    let model = Checked::new(rules, bounds, Flaw::None).checker();
    let checker = model.finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    println!(
        "\n{} states, {} transitions, up to {} events: {rules:?}, {bounds:?}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth()
    );
    let properties = checker.model().properties();
    let mut broken = properties.iter().filter(|property| property.expectation.discovery_is_failure());
    if let Some((property, path)) = broken.find_map(|p| Some((p.name, checker.discovery(p.name)?))) {
        let steps = path.into_vec().into_iter();
        let told: Vec<_> = steps.filter_map(|(moment, event)| Some(World::told(&moment, &event?))).collect();
        panic!("not '{property}':\n  {}", told.join("\n  "));
    }
    checker.assert_properties();
}

/// Whether the checker finds each of these not to hold.
fn finds(rules: Rules, bounds: Bounds, flaw: Flaw, properties: &[&'static str]) {
    let wanted = HasDiscoveries::AllOf(properties.iter().copied().collect());
    let checker = Checked::new(rules, bounds, flaw).checker().finish_when(wanted).spawn_bfs().join();
    println!("{flaw:?}: found after {} states", checker.unique_state_count());
    for property in properties {
        assert!(checker.discovery(property).is_some(), "{flaw:?} leaves '{property}' true");
    }
}

#[test]
fn a_crash() {
    check(EMBEDDED, CRASH);
}

#[test]
fn a_crash_on_a_service_that_does_not_deduplicate() {
    check(FORGETFUL, CRASH);
    check(IN_TWO_CALLS, CRASH);
}

#[test]
fn a_lost_answer() {
    check(EMBEDDED, LOSS);
}

#[test]
fn a_lost_answer_on_a_service_that_does_not_deduplicate() {
    check(FORGETFUL, LOSS);
}

#[test]
fn without_a_probe() {
    check(Rules { probe: false, ..EMBEDDED }, CRASH);
}

#[test]
fn a_failed_restore_and_another_one() {
    check(EMBEDDED, Bounds { refusals: 1, ..TWO });
}

#[test]
fn a_renewal_that_is_overtaken() {
    check(EMBEDDED, Bounds { slow_renewals: true, ..TWO });
}

#[test]
fn a_service_that_calls_a_used_number_a_conflict() {
    check(Rules { repeated: Repeated::Refused(409), ..EMBEDDED }, CRASH);
}

/// A limit, and no flaw: requests to the service are not fenced. A driver that was suspended between taking the lease and
/// reading the record sends the probe beside the one that has followed it. Whose request comes second is refused, and
/// takes the number to be free. No service is known that refuses a used number by anything but 409.
#[test]
fn a_service_that_refuses_a_used_number_for_good_is_not_safe() {
    let rules = Rules { repeated: Repeated::Refused(400), ..EMBEDDED };
    finds(rules, TWO, Flaw::None, &["what is adopted is as it is told"]);
}

#[test]
fn the_fence_is_needed() {
    finds(FORGETFUL, TWO, Flaw::NoFence, &["only the lease writes", "one successor is adopted"]);
}

#[test]
fn the_journals_clock_is_needed() {
    finds(EMBEDDED, TWO, Flaw::DriversClock, &["one driver has the lease"]);
}

#[test]
fn leases_have_to_end() {
    finds(EMBEDDED, CRASH, Flaw::EndlessLease, &["left in peace, it is handed over"]);
}

#[test]
fn the_identity_has_to_be_written_first() {
    let broken = ["one run for each restore", "runs are in their restore's session"];
    finds(EMBEDDED, CRASH, Flaw::IdentityUnwritten, &broken);
}

#[test]
fn one_of_those_that_begin_has_to_win() {
    finds(EMBEDDED, TWO, Flaw::BeginsAlways, &["one restore holds the run", "one successor is adopted"]);
}

#[test]
#[ignore = "takes minutes: cargo xtask soak"]
fn deep_crash_and_restart() {
    check(EMBEDDED, Bounds { starts: 3, ..CRASH });
}

#[test]
#[ignore = "takes minutes: cargo xtask soak"]
fn deep_crash_and_loss() {
    for rules in [EMBEDDED, FORGETFUL, IN_TWO_CALLS] {
        check(rules, Bounds { losses: 1, ..CRASH });
    }
}

#[test]
#[ignore = "takes minutes: cargo xtask soak"]
fn deep_three_drivers() {
    check(EMBEDDED, Bounds { drivers: 3, starts: 3, ..TWO });
}

#[test]
#[ignore = "takes minutes: cargo xtask soak"]
fn deep_crash_and_slow_renewal() {
    check(EMBEDDED, Bounds { slow_renewals: true, ..CRASH });
}

#[test]
#[ignore = "takes minutes: cargo xtask soak"]
fn deep_failure_and_restart() {
    check(EMBEDDED, Bounds { starts: 3, refusals: 1, ..TWO });
}
