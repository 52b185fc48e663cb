//! A tokenizer as its files describe it, by the `tokenizers` crate.

use std::fmt;
use std::path::Path;

use serde_json::Value;

use crate::client::{Error, Tokenizer};

/// What the tokenizer does.
pub(super) const TOKENIZER: &str = "tokenizer.json";
/// What it is for, among which the names of its special tokens; not all have one.
pub(super) const CONFIG: &str = "tokenizer_config.json";

/// A tokenizer of Hugging Face's kind: what a `tokenizer.json` says, and nothing of what the Python library `transformers`
/// does on top of that for some models.
pub struct HfTokenizer {
    name: String,
    tokenizer: tokenizers::Tokenizer,
    bos: Option<i32>,
    eos: Option<i32>,
}

impl fmt::Debug for HfTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HfTokenizer").field("name", &self.name).finish_non_exhaustive()
    }
}

impl HfTokenizer {
    /// The tokenizer in a directory: its `tokenizer.json`, and its `tokenizer_config.json` if there is one.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::client::ErrorKind::Config) if the first is missing or either cannot be understood.
    pub fn from_directory(directory: &Path) -> Result<Self, Error> {
        let name = directory.display().to_string();
        let read = |file: &str| match std::fs::read(directory.join(file)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::config(of(&name), format!("its {file} cannot be read: {e}"))),
        };
        let Some(tokenizer) = read(TOKENIZER)? else { return Err(missing(&name)) };
        Self::from_bytes(&name, &tokenizer, read(CONFIG)?.as_deref())
    }

    /// The tokenizer that these files describe: the bytes of a `tokenizer.json`, and of a `tokenizer_config.json` if there is
    /// one. `name` says whose it is, for errors.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::client::ErrorKind::Config) if either cannot be understood.
    pub fn from_bytes(name: &str, tokenizer: &[u8], config: Option<&[u8]>) -> Result<Self, Error> {
        let bad = |file: &str, e: String| Error::config(of(name), format!("its {file} cannot be used: {e}"));
        let tokenizer =
            tokenizers::Tokenizer::from_bytes(tokenizer).map_err(|e| bad(TOKENIZER, e.to_string()))?;
        let config: Value = match config {
            Some(text) => serde_json::from_slice(text).map_err(|e| bad(CONFIG, e.to_string()))?,
            None => Value::Null,
        };
        // The name of a token, or an object that says more of it.
        let special = |member: &str| {
            let token = config.get(member)?;
            let content = token.as_str().or_else(|| token.get("content")?.as_str())?;
            i32::try_from(tokenizer.token_to_id(content)?).ok()
        };
        let (bos, eos) = (special("bos_token"), special("eos_token"));
        Ok(Self { name: name.to_owned(), tokenizer, bos, eos })
    }
}

/// The error of a model whose tokenizer is of another kind.
pub(super) fn missing(name: &str) -> Error {
    let what = format!(
        "it has no {TOKENIZER}, the only kind that this source reads: make one with Python's `transformers`, or bring a \
         `TokenizerSource` of your own"
    );
    Error::config(of(name), what)
}

fn of(name: &str) -> String {
    format!("the tokenizer {name}")
}

impl Tokenizer for HfTokenizer {
    fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<i32>, Error> {
        let fail = |e: String| Error::config(of(&self.name), format!("the text cannot be encoded: {e}"));
        let encoding =
            self.tokenizer.encode_fast(text, add_special_tokens).map_err(|e| fail(e.to_string()))?;
        let tokens = encoding.get_ids().iter().map(|id| i32::try_from(*id));
        tokens
            .collect::<Result<_, _>>()
            .map_err(|_| fail("a token is beyond what the protocol takes".to_owned()))
    }

    fn decode(&self, tokens: &[u32], skip_special_tokens: bool) -> Result<String, Error> {
        let fail = |e| Error::config(of(&self.name), format!("the tokens cannot be decoded: {e}"));
        self.tokenizer.decode(tokens, skip_special_tokens).map_err(fail)
    }

    fn vocab_size(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    fn bos_token_id(&self) -> Option<i32> {
        self.bos
    }

    fn eos_token_id(&self) -> Option<i32> {
        self.eos
    }
}
