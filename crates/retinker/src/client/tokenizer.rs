//! Text as tokens. Which tokenizer a model has is found here; how one works and where it comes from is the program's, or
//! that of the crate's feature `tokenizers`.

use std::fmt;
use std::sync::Arc;

use futures_core::future::BoxFuture;

use super::error::Error;

/// Turns text into tokens and back.
pub trait Tokenizer: fmt::Debug + Send + Sync {
    /// A text's tokens, as [`ModelInput::from_ints`](retinker_wire::training::ModelInput::from_ints) takes them. With
    /// `add_special_tokens` also those that the model expects around a text, as Python's `encode` adds unless told not to.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](super::ErrorKind::Config) if the tokenizer cannot do it.
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<i32>, Error>;

    /// The text of tokens, as a sample has them; with `skip_special_tokens` without those that mark its end and the like,
    /// which Python's `decode` keeps unless told otherwise.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](super::ErrorKind::Config) if the tokenizer cannot do it.
    fn decode(&self, tokens: &[u32], skip_special_tokens: bool) -> Result<String, Error>;

    /// How many tokens there are, special ones included.
    fn vocab_size(&self) -> usize;

    /// The token that begins a text, where the tokenizer has one.
    fn bos_token_id(&self) -> Option<i32>;

    /// The token that ends a text, where the tokenizer has one.
    fn eos_token_id(&self) -> Option<i32>;
}

/// Where tokenizers come from.
pub trait TokenizerSource: fmt::Debug + Send + Sync {
    /// The tokenizer of this id.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](super::ErrorKind::Config) if there is none, or none that can be used; and what keeps it from
    /// being fetched, where it is.
    fn load(&self, id: TokenizerId) -> BoxFuture<'_, Result<Arc<dyn Tokenizer>, Error>>;
}

/// Which tokenizer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenizerId {
    /// A Hugging Face id, `organization/name`, or the absolute path of a directory.
    pub name: String,
    /// The version, e.g. a commit; `None` = the newest.
    pub revision: Option<String>,
}

/// Llama 3's own repositories are not open to all; this one is, and has the same.
const LLAMA_3: &str = "thinkingmachineslabinc/meta-llama-3-instruct-tokenizer";
/// Ids that stand for a version of another, or of themselves.
const PINNED: [(&str, &str, &str); 5] = [
    (
        "moonshotai/Kimi-K2-Thinking",
        "moonshotai/Kimi-K2-Thinking",
        "612681931a8c906ddb349f8ad0f582cb552189cd",
    ),
    ("moonshotai/Kimi-K2.5-Text-Only", "moonshotai/Kimi-K2.5", "4d01dfe0332d63057c186e0b262165819efb6611"),
    ("moonshotai/Kimi-K2.5", "moonshotai/Kimi-K2.5", "4d01dfe0332d63057c186e0b262165819efb6611"),
    ("moonshotai/Kimi-K2.6", "moonshotai/Kimi-K2.6", "b5aabbfb20227ed42becbf5541dbffd213942c58"),
    ("moonshotai/Kimi-K3", "moonshotai/Kimi-K3", "f831ab66814297da540d832a5235f8e904f29d06"),
];

impl TokenizerId {
    /// The tokenizer of a model: the one that the service names, else the one that goes by the model's name. The rules are
    /// those of the official SDK 0.38 (`_load_tokenizer_from_model_info`).
    pub fn of_model(model_name: &str, tokenizer_id: Option<&str>) -> Self {
        let id = tokenizer_id.unwrap_or_else(|| {
            let name = model_name.split(':').next().unwrap_or(model_name);
            if name.starts_with("meta-llama/Llama-3") {
                return LLAMA_3;
            }
            // A variant of a model has the model's.
            match name.match_indices('/').collect::<Vec<_>>()[..] {
                [_, (end, _)] => name.get(..end).unwrap_or(name),
                _ => name,
            }
        });
        match PINNED.iter().find(|(known, _, _)| *known == id) {
            Some((_, name, revision)) => Self::at(name, Some(revision)),
            None => Self::at(id, None),
        }
    }

    fn at(name: &str, revision: Option<&str>) -> Self {
        Self { name: name.to_owned(), revision: revision.map(str::to_owned) }
    }
}

impl fmt::Display for TokenizerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        self.revision.iter().try_for_each(|revision| write!(f, " at {revision}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    #[test]
    fn the_services_own_id_comes_before_the_models_name() {
        let of = |model, id| TokenizerId::of_model(model, id).to_string();
        assert_eq!(of("a/b:variant", None), "a/b");
        assert_eq!(of("a/b/variant", None), "a/b");
        assert_eq!(of("a/b/c/d", None), "a/b/c/d");
        assert_eq!(of("a/b", Some("c/d/e:f")), "c/d/e:f");
        assert_eq!(of("meta-llama/Llama-3.1-8B:x", None), LLAMA_3);
        assert_eq!(of("meta-llama/Llama-3.1-8B", Some("/models/llama")), "/models/llama");
        assert_eq!(
            of("moonshotai/Kimi-K2.5-Text-Only", None),
            "moonshotai/Kimi-K2.5 at 4d01dfe0332d63057c186e0b262165819efb6611"
        );
        assert_eq!(
            of("x", Some("moonshotai/Kimi-K3")),
            "moonshotai/Kimi-K3 at f831ab66814297da540d832a5235f8e904f29d06"
        );
    }
}
