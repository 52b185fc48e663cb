//! What reads bytes from outside, given arbitrary ones. Each function here is a target: it panics if what it is given makes
//! something panic, go on for ever, or break a promise that it names. `cargo xtask soak` has libFuzzer look for such bytes;
//! the replay below gives the targets those that are known, on any Rust.
//!
//! Inputs that stand for several things hold them as text: parts between lines of `--` (see `script`). So they can be read,
//! written by hand, and made from what was really said.

// A target that fails, panics.
#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

mod checkpoint;
mod client;
mod credentials;
mod download;
mod host;
mod host_client;
mod journal;
mod protocol;
mod scratch;
mod script;
mod service;
mod tokenizers;

pub use checkpoint::checkpoint;
pub use client::client;
pub use credentials::credentials;
pub use download::download;
pub use host::host;
pub use host_client::host_client;
pub use journal::journal;
pub use protocol::protocol;
pub use service::service;
pub use tokenizers::tokenizers;

/// A target's name and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 10] = [
    ("checkpoint", checkpoint),
    ("client", client),
    ("credentials", credentials),
    ("download", download),
    ("host", host),
    ("host_client", host_client),
    ("journal", journal),
    ("protocol", protocol),
    ("service", service),
    ("tokenizers", tokenizers),
];

/// The program of a target: libFuzzer's under cargo-fuzz; else one that is given files, to see one of them fail by hand.
#[macro_export]
macro_rules! target {
    ($target:path) => {
        #[cfg(fuzzing)]
        libfuzzer_sys::fuzz_target!(|data: &[u8]| $target(data));

        #[cfg(not(fuzzing))]
        fn main() -> std::io::Result<()> {
            std::env::args_os().skip(1).try_for_each(|file| std::fs::read(file).map(|data| $target(&data)))
        }
    };
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn inputs(target: &str) -> Vec<std::path::PathBuf> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        let files = std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        files.map(|file| file.unwrap().path()).collect()
    }

    /// Each file of a target's corpus, and each with its end cut off.
    fn replay(target: &str) {
        let (_, run) = TARGETS.into_iter().find(|(name, _)| *name == target).unwrap();
        let inputs = inputs(target);
        assert!(!inputs.is_empty(), "{target} has no corpus");
        for path in inputs {
            // Shown if it fails.
            println!("{}", path.display());
            let data = std::fs::read(&path).unwrap();
            run(&data);
            run(&data[..data.len() * 2 / 3]);
        }
    }

    macro_rules! replays {
        ($($target:ident)*) => {$(
            #[test]
            fn $target() {
                replay(stringify!($target));
            }
        )*};
    }

    replays! { checkpoint client credentials download host host_client journal protocol service tokenizers }
}
