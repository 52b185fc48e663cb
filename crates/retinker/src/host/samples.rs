//! Sampling through the host, in text.

use std::fmt;

use retinker_wire::time::Time;
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::client::{Call, HostClient};

/// The most tokens of a sample.
pub const MAX_TOKENS: u32 = 2048;
/// The most samples of one prompt.
pub const MAX_SAMPLES: u32 = 8;
/// The longest prompt, in bytes.
pub const MAX_PROMPT: usize = 256 << 10;

/// What can be sampled from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleSources {
    /// The names of the base models.
    pub base_models: Vec<String>,
    /// Checkpoints for samplers, newest first; at most 500.
    pub checkpoints: Vec<SampleSource>,
    /// Whether there are more checkpoints than these; their paths can be used all the same.
    pub more: bool,
}

/// A checkpoint for samplers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleSource {
    /// Its path.
    pub path: String,
    /// The name of its run.
    pub run_name: String,
    /// When it was saved.
    pub time: Time,
}

/// A number with a fraction. Read from a number or from its text, written as text: a browser need not load what prints
/// fractions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decimal(pub String);

impl Decimal {
    /// Its value; `None` if the text is no number.
    pub fn value(&self) -> Option<f64> {
        self.0.trim().parse().ok().filter(|value: &f64| value.is_finite())
    }
}

impl<'de> Deserialize<'de> for Decimal {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reads;
        impl Visitor<'_> for Reads {
            type Value = Decimal;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Decimal, E> {
                Ok(Decimal(text.to_owned()))
            }

            fn visit_f64<E: de::Error>(self, number: f64) -> Result<Decimal, E> {
                Ok(Decimal(number.to_string()))
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Decimal, E> {
                Ok(Decimal(number.to_string()))
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Decimal, E> {
                Ok(Decimal(number.to_string()))
            }
        }
        deserializer.deserialize_any(Reads)
    }
}

/// Asks for samples that go on from a prompt. Dropping the call cancels them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SampleRequest {
    /// What to sample from: a `tinker://` path of a checkpoint for samplers, or the name of a base model.
    pub source: String,
    /// The text to go on from.
    #[serde(default)]
    pub prompt: String,
    /// The same as tokens, for a model whose tokenizer cannot be had; not beside a text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tokens: Vec<i32>,
    /// The most tokens of a sample; 64 when absent, at most [`MAX_TOKENS`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// How many samples; 1 when absent, at most [`MAX_SAMPLES`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_samples: Option<u32>,
    /// What logits are divided by; 1 when absent, 0 = the most probable token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<Decimal>,
    /// Only the most probable tokens with this share together; 1 = all, as when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<Decimal>,
    /// Only so many of the most probable tokens; -1 = all, as when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<i64>,
    /// The same seed draws the same tokens; absent = any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Whether the prompt's tokens are scored too.
    #[serde(default)]
    pub prompt_logprobs: bool,
}

/// A token with its text and its score.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleToken {
    /// The token.
    pub id: u32,
    /// Its part of the text. Empty where a character is made of several tokens and this is not the last of them, and where
    /// there is no tokenizer.
    pub text: String,
    /// The natural logarithm of its probability at temperature 1; `None` where there is none, as for a prompt's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logprob: Option<f32>,
}

/// A sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// Its tokens; what ended it is among them.
    pub tokens: Vec<SampleToken>,
    /// Why it ended: `stop` or `length`.
    pub stop_reason: String,
}

/// Samples of one prompt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Samples {
    /// What they were drawn from.
    pub source: String,
    /// Its base model.
    pub base_model: String,
    /// The prompt's tokens; scored if that was asked for.
    pub prompt: Vec<SampleToken>,
    /// The samples.
    pub samples: Vec<Sample>,
    /// Milliseconds from the request to its result, without the tokenizer's.
    pub took_ms: u64,
    /// Why there is no text beside the tokens; `None` where there is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_text_because: Option<String>,
}

impl HostClient {
    /// What can be sampled from.
    pub fn sample_sources(&self) -> Call<'_, SampleSources> {
        Call::of(self.get("/samples/sources"))
    }

    /// Draws samples. The host gives up after 50 s.
    pub fn sample(&self, request: &SampleRequest) -> Call<'_, Samples> {
        Call::of(self.post("/samples", request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    #[test]
    fn fractions_are_numbers_or_texts_of_them() {
        let read = |text: &str| serde_json::from_str::<Decimal>(text).unwrap().value();
        assert_eq!(read("0.7"), Some(0.7));
        assert_eq!(read("1"), Some(1.0));
        assert_eq!(read("-1"), Some(-1.0));
        assert_eq!(read("\" 0.25 \""), Some(0.25));
        assert_eq!(read("\"warm\""), None);
        assert_eq!(read("\"inf\""), None);
        assert_eq!(serde_json::to_string(&Decimal("0.7".into())).unwrap(), "\"0.7\"");
        serde_json::from_str::<Decimal>("[]").unwrap_err();
    }
}
