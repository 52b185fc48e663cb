//! The demonstration's cast.

use anyhow::{Context, Result};
use retinker::client::{Api, SaveOptions};
use retinker::wire::UserMetadata;
use retinker::wire::model::LoraConfig;

/// How a run ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Its owner closes it.
    Finishes,
    /// Its trainer loses its memory while the owner still trains.
    LosesItsTrainer,
}

/// One demonstration run.
#[derive(Debug)]
pub(crate) struct Story {
    pub(crate) name: &'static str,
    pub(crate) rank: u32,
    pub(crate) learning_rate: f64,
    pub(crate) steps: u32,
    /// Steps between saves; `None` = never.
    pub(crate) save_every: Option<u32>,
    /// Seconds that its checkpoints live; `None` = for ever.
    pub(crate) ttl_seconds: Option<u64>,
    pub(crate) mlp_only: bool,
    pub(crate) ending: Ending,
}

const DEFAULT: Story = Story {
    name: "",
    rank: 16,
    learning_rate: 2e-3,
    steps: 40,
    save_every: Some(10),
    ttl_seconds: None,
    mlp_only: false,
    ending: Ending::Finishes,
};

/// The cast. The ones that lose their trainer are caught between two saves, or before the first.
pub(crate) const STORIES: [Story; 6] = [
    Story { name: "alice-r32", rank: 32, ..DEFAULT },
    Story { name: "alice-r8-slow", rank: 8, learning_rate: 5e-4, ..DEFAULT },
    Story {
        name: "alice-r16-fast",
        learning_rate: 4e-3,
        steps: 27,
        ending: Ending::LosesItsTrainer,
        ..DEFAULT
    },
    Story { name: "alice-mlp-only", mlp_only: true, ttl_seconds: Some(12 * 3600), ..DEFAULT },
    Story {
        name: "alice-r16-weekend",
        steps: 25,
        ttl_seconds: Some(7 * 24 * 3600),
        ending: Ending::LosesItsTrainer,
        ..DEFAULT
    },
    Story {
        name: "alice-r4-no-saves",
        rank: 4,
        steps: 14,
        save_every: None,
        ending: Ending::LosesItsTrainer,
        ..DEFAULT
    },
];

impl Story {
    /// Whether the run is saved after this step.
    pub(crate) fn saves_at(&self, step: u32) -> bool {
        self.save_every.is_some_and(|every| step.is_multiple_of(every))
    }

    /// The first base model that the service offers.
    pub(crate) async fn base_model(&self, api: &Api) -> Result<String> {
        let capabilities = api.capabilities().await?;
        capabilities
            .supported_models
            .into_iter()
            .find_map(|model| model.model_name)
            .context("the service offers no base model")
    }

    pub(crate) fn lora_config(&self) -> LoraConfig {
        LoraConfig {
            rank: self.rank,
            seed: Some(u64::from(self.rank)),
            train_attn: !self.mlp_only,
            train_unembed: !self.mlp_only,
            train_mlp: true,
        }
    }

    /// The run's labels.
    pub(crate) fn metadata(&self) -> UserMetadata {
        UserMetadata::from([
            ("name".to_owned(), self.name.to_owned()),
            ("learning_rate".to_owned(), self.learning_rate.to_string()),
            ("text".to_owned(), "Alice's Adventures in Wonderland, chapter I".to_owned()),
            ("made_by".to_owned(), "retinker demonstration".to_owned()),
        ])
    }

    pub(crate) fn save_options(&self, user_metadata: UserMetadata) -> SaveOptions {
        SaveOptions {
            ttl_seconds: self.ttl_seconds,
            user_metadata: Some(user_metadata),
            ..SaveOptions::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cast_is_what_the_story_needs() {
        let doomed: Vec<&Story> = STORIES.iter().filter(|s| s.ending == Ending::LosesItsTrainer).collect();
        assert!(doomed.iter().any(|s| s.save_every.is_none()), "one has no checkpoint");
        assert!(doomed.iter().any(|s| s.save_every.is_some_and(|n| s.steps > n)), "one has a checkpoint");
        assert!(doomed.iter().all(|s| !s.saves_at(s.steps)), "all have unsaved work");
        let mut names: Vec<_> = STORIES.iter().map(|s| s.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STORIES.len());
    }
}
