//! What can be done from anywhere by its name.

use crate::order::sorted_by;
use crate::views::Saved;

/// Something to do or a place to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// What it is called.
    pub name: String,
    /// Words beside the name that find it too; shown small.
    pub detail: String,
    /// What it does.
    pub act: Act,
}

/// What a command does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Goes to an address of the console.
    Go(String),
    /// Copies the page's address.
    CopyAddress,
    /// Takes in what has changed.
    Refresh,
    /// Uses these colours: `light`, `dark`, or nothing for those of the system.
    Colours(&'static str),
    /// Shows what the keyboard does.
    Keys,
}

/// Everything that is there on every page, with this person's own views.
pub fn commands(pages: &[(&'static str, &'static str)], own: Vec<Saved>) -> Vec<Command> {
    let go = |name: &str, detail: &str, address: &str| Command {
        name: name.to_owned(),
        detail: detail.to_owned(),
        act: Act::Go(address.to_owned()),
    };
    let mut all: Vec<Command> = pages.iter().map(|(address, name)| go(name, "page", address)).collect();
    all.extend([
        go("Samplers", "page", "/samplers"),
        go("Projects", "page", "/projects"),
        go("How to begin", "page, connections", "/welcome"),
        go("Compare runs", "page, curves", "/compare"),
        go("Pause or resume restores", "monitor, automatic", "/activity"),
    ]);
    all.extend(own.iter().map(|view| go(&view.name, "own view of the runs", &view.address)));
    all.extend(crate::views::OFFERED.iter().map(|(name, address)| go(name, "view of the runs", address)));
    let act = |name: &str, detail: &str, act: Act| Command {
        name: name.to_owned(),
        detail: detail.to_owned(),
        act,
    };
    all.extend([
        act("Refresh now", "take in what has changed", Act::Refresh),
        act("Copy this page's address", "link", Act::CopyAddress),
        act("Keyboard", "what the keys do", Act::Keys),
        act("Light colours", "theme", Act::Colours("light")),
        act("Dark colours", "theme", Act::Colours("dark")),
        act("Colours of the system", "theme", Act::Colours("")),
    ]);
    all
}

/// Those that all the words are found in, best first: a name that begins so before one that only holds it.
pub fn find(commands: Vec<Command>, text: &str) -> Vec<Command> {
    let words: Vec<String> = text.split_whitespace().map(folded).collect();
    let found: Vec<(i64, Command)> = commands
        .into_iter()
        .filter_map(|command| {
            let (name, detail) = (folded(&command.name), folded(&command.detail));
            let rank = |word: &String| match () {
                () if name.starts_with(word.as_str()) => Some(0),
                () if name.split_whitespace().any(|part| part.starts_with(word.as_str())) => Some(1),
                () if name.contains(word.as_str()) => Some(2),
                () if detail.contains(word.as_str()) => Some(3),
                () => None,
            };
            let ranks: Option<Vec<i64>> = words.iter().map(rank).collect();
            Some((ranks?.into_iter().sum(), command))
        })
        .collect();
    sorted_by(found, |(rank, _)| *rank).into_iter().map(|(_, command)| command).collect()
}

/// In small letters, by the browser where there is one: a table of all letters is not worth loading.
pub fn folded(text: &str) -> String {
    #[cfg(target_arch = "wasm32")]
    return js_sys::JsString::from(text).to_lower_case().into();
    #[cfg(not(target_arch = "wasm32"))]
    text.to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_found_by_their_words() {
        let own = vec![Saved { name: "Nightly".to_owned(), address: "/?q=night".to_owned() }];
        let all = commands(&[("/", "Runs"), ("/activity", "Activity")], own);
        let names = |text: &str| find(all.clone(), text).into_iter().map(|c| c.name).collect::<Vec<_>>();
        assert_eq!(names("").len(), all.len());
        assert_eq!(names("act")[0], "Activity");
        assert_eq!(names("dark col"), ["Dark colours"]);
        assert_eq!(names("theme").len(), 3);
        assert_eq!(names("nigh own"), ["Nightly"]);
        assert_eq!(names("pause"), ["Pause or resume restores"]);
        assert!(names("runs")[0] == "Runs", "the name that is the word comes first");
        assert!(names("xyzzy").is_empty());
    }
}
