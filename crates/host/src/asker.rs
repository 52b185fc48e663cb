//! On whose behalf this process acts, as the journal tells it.

/// The program with the user and the machine that it runs as, e.g. `the console of ada@box`; without what the system does not
/// tell.
pub fn asker(program: &str) -> String {
    let told = |answer: Result<String, whoami::Error>| answer.ok().filter(|name| !name.trim().is_empty());
    match (told(whoami::username()), told(whoami::hostname())) {
        (Some(user), Some(machine)) => format!("{program} of {user}@{machine}"),
        (Some(name), None) | (None, Some(name)) => format!("{program} of {name}"),
        (None, None) => program.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_named_first() {
        let told = asker("the console");
        assert!(told == "the console" || told.starts_with("the console of "), "{told}");
        assert!(!told.ends_with('@') && !told.ends_with(' '), "{told}");
    }
}
