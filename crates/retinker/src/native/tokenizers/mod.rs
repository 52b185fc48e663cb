//! Tokenizers of Hugging Face's kind.

mod cache;
mod files;
mod hub;
#[cfg(test)]
mod tests;

pub use files::HfTokenizer;
pub use hub::{HubConfig, HubTokenizers};
