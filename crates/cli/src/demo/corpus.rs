//! The text that the demonstration trains on: the first chapter of "Alice's Adventures in Wonderland" (Lewis
//! Carroll, 1865), which is in the public domain. One token per byte.

use retinker::wire::training::Datum;

/// Tokens of one example.
const LENGTH: usize = 64;
/// Examples of one batch.
const BATCH: usize = 8;
/// Examples kept back from training.
const HELD_OUT: usize = 16;

/// The text, cut into examples.
pub(crate) struct Corpus {
    training: Vec<Datum>,
    held_out: Vec<Datum>,
}

impl Corpus {
    pub(crate) fn new() -> Self {
        let text = include_bytes!("corpus.txt");
        // Every example has one byte more than its length: the last is only ever a target.
        let mut examples: Vec<Datum> = text.windows(LENGTH + 1).step_by(LENGTH).map(example).collect();
        let held_out = examples.split_off(examples.len().saturating_sub(HELD_OUT));
        Self { training: examples, held_out }
    }

    /// The batch of a step; the same for every run, so that their losses can be compared.
    pub(crate) fn batch(&self, step: u32) -> Vec<Datum> {
        self.training
            .iter()
            .cycle()
            .skip(step as usize * BATCH % self.training.len())
            .take(BATCH)
            .cloned()
            .collect()
    }

    /// Text that is never trained on.
    pub(crate) fn held_out(&self) -> Vec<Datum> {
        self.held_out.clone()
    }
}

fn example(bytes: &[u8]) -> Datum {
    let tokens = bytes.iter().take(LENGTH).map(|&b| i32::from(b)).collect();
    let targets = bytes.iter().skip(1).map(|&b| i64::from(b)).collect();
    Datum::cross_entropy(tokens, targets, vec![1.0; LENGTH])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_out_text_is_never_trained_on() {
        let corpus = Corpus::new();
        assert_eq!(corpus.held_out().len(), HELD_OUT);
        for step in 0..500 {
            let batch = corpus.batch(step);
            assert_eq!(batch.len(), BATCH);
            assert!(batch.iter().all(|datum| !corpus.held_out.contains(datum)));
        }
    }
}
