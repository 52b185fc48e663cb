//! How a connection is, and whether its service is one to begin with.

use retinker::host::api::{ConnectionInfo, HostStatus, ServiceKind};

/// Failures that do not pass by themselves, or that a newcomer can do something about.
const OF_THE_CONNECTION: [&str; 5] = [
    "service_key_missing",
    "service_unauthorized",
    "service_unreachable",
    "service_foreign",
    "service_unreadable",
];

/// How a connection is: a name for programs, and a few words.
pub fn state(connection: &ConnectionInfo) -> (&'static str, &'static str) {
    match &connection.problem {
        _ if !connection.asked => ("unasked", "Not asked yet"),
        Some(problem) => match problem.code.as_str() {
            "service_key_missing" => ("no-key", "No key"),
            "service_unauthorized" => ("wrong-key", "Refuses the key"),
            "service_unreachable" => ("unreachable", "Does not answer"),
            "service_slow" => ("slow", "Answers too slowly"),
            "service_foreign" | "service_unreadable" => ("foreign", "Not a Tinker service"),
            _ => ("failing", "Cannot be read"),
        },
        None if connection.as_of.is_none() => ("reading", "Being read"),
        None => ("ok", "Answers"),
    }
}

/// Whether there is nothing to show but how to begin: the service has no runs, or was never read for a reason that will
/// not go away by itself.
pub fn is_first(status: &HostStatus) -> bool {
    let problem = status.service.problem.as_ref();
    match status.as_of {
        Some(_) => status.runs == 0 && !status.demo.as_ref().is_some_and(|demo| demo.running),
        None => problem.is_some_and(|problem| OF_THE_CONNECTION.contains(&problem.code.as_str())),
    }
}

/// What kind of service it is.
pub fn kind(kind: ServiceKind) -> &'static str {
    match kind {
        ServiceKind::Local => "local service",
        ServiceKind::Remote => "remote service",
    }
}

#[cfg(test)]
mod tests {
    use retinker::host::api::{ApiProblem, DemoProgress, ServiceInfo};
    use retinker::wire::time::Time;

    use super::*;

    fn problem(code: &str) -> Option<ApiProblem> {
        Some(ApiProblem { code: code.to_owned(), message: String::new(), hint: String::new() })
    }

    fn connection(asked: bool, as_of: Option<Time>, problem: Option<ApiProblem>) -> ConnectionInfo {
        ConnectionInfo {
            name: "lab".to_owned(),
            title: "lab".to_owned(),
            kind: ServiceKind::Remote,
            base_url: "lab:8000".to_owned(),
            has_key: true,
            key_from: "TINKER_API_KEY_LAB".to_owned(),
            asked,
            as_of,
            problem,
        }
    }

    #[test]
    fn each_state_has_words_of_its_own() {
        let read = Some(Time::from_millis(1));
        assert_eq!(state(&connection(false, None, None)).0, "unasked");
        assert_eq!(state(&connection(true, None, None)).0, "reading");
        assert_eq!(state(&connection(true, read, None)).0, "ok");
        for (code, name) in [
            ("service_key_missing", "no-key"),
            ("service_unauthorized", "wrong-key"),
            ("service_unreachable", "unreachable"),
            ("service_slow", "slow"),
            ("service_foreign", "foreign"),
            ("service_failing", "failing"),
        ] {
            assert_eq!(state(&connection(true, read, problem(code))).0, name);
        }
    }

    #[test]
    fn the_first_page_is_for_those_who_have_nothing_to_see() {
        let status = |as_of, runs, problem, running| HostStatus {
            now: Time::from_millis(0),
            version: String::new(),
            service: ServiceInfo {
                name: String::new(),
                kind: ServiceKind::Local,
                base_url: String::new(),
                base_models: Vec::new(),
                problem,
            },
            as_of,
            runs,
            demo: Some(DemoProgress { running, ..DemoProgress::default() }),
        };
        let read = Some(Time::from_millis(1));
        assert!(is_first(&status(read, 0, None, false)));
        assert!(!is_first(&status(read, 0, None, true)), "runs come in a moment");
        assert!(!is_first(&status(read, 3, problem("service_unauthorized"), false)), "there is an old list");
        assert!(is_first(&status(None, 0, problem("service_unauthorized"), false)));
        assert!(!is_first(&status(None, 0, problem("service_failing"), false)), "that passes by itself");
        assert!(!is_first(&status(None, 0, None, false)), "it is being read");
    }
}
