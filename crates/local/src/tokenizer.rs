//! The tokenizer as Hugging Face's libraries load it, from a directory or from a hub, so that the official SDK's
//! `get_tokenizer` needs no network: a token is a byte, and three specials follow.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use retinker_nn::{BOS_TOKEN, EOS_TOKEN, ModelConfig, PAD_TOKEN};

const BOS: &str = "<bos>";
const EOS: &str = "<eos>";
const PAD: &str = "<pad>";

/// The files of a model's tokenizer: name and content.
pub(crate) fn files(model: &ModelConfig) -> [(&'static str, String); 2] {
    [
        ("tokenizer.json", format!("{:#}", tokenizer())),
        ("tokenizer_config.json", format!("{:#}", config(model.max_context))),
    ]
}

/// Writes the models' tokenizers below `root`, each in a directory of the model's name, unless they are there as they
/// should be. Gives the directory of all, absolute.
pub(crate) fn provide<'a>(root: &Path, models: impl Iterator<Item = &'a ModelConfig>) -> io::Result<PathBuf> {
    let all = root.join("tokenizers");
    for model in models {
        let directory = all.join(&model.name);
        fs::create_dir_all(&directory)?;
        for (name, text) in files(model) {
            let path = directory.join(name);
            if fs::read(&path).ok().as_deref() != Some(text.as_bytes()) {
                fs::write(&path, text)?;
            }
        }
    }
    fs::canonicalize(all)
}

/// The letter that stands for a byte in a byte-level vocabulary: itself where it can be printed, else one from U+0100 on
/// (the table of GPT-2, which the `tokenizers` library expects).
fn letters() -> impl Iterator<Item = (u32, char)> {
    let printable = |byte: u32| matches!(byte, 0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = 0x100..;
    (0..256).filter_map(move |byte| {
        let code = if printable(byte) { byte } else { others.next()? };
        Some((byte, char::from_u32(code)?))
    })
}

fn tokenizer() -> Value {
    let vocabulary: Map<String, Value> =
        letters().map(|(byte, letter)| (letter.to_string(), byte.into())).collect();
    let special = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    let bytes =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(BOS_TOKEN, BOS), special(EOS_TOKEN, EOS), special(PAD_TOKEN, PAD)],
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": null,
        "decoder": bytes,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "vocab": vocabulary, "merges": [],
        },
    })
}

fn config(max_context: usize) -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS, "eos_token": EOS, "pad_token": PAD,
        "clean_up_tokenization_spaces": false,
        "model_max_length": max_context,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_byte_has_a_letter_of_its_own() {
        let letters: Vec<(u32, char)> = letters().collect();
        assert!(letters.iter().map(|(byte, _)| *byte).eq(0..256));
        assert_eq!(letters.iter().map(|(_, letter)| letter).collect::<HashSet<_>>().len(), 256);
        assert_eq!(letters[usize::from(b' ')].1, 'Ġ');
        assert_eq!(letters[usize::from(b'a')].1, 'a');
    }

    #[test]
    fn it_is_written_once_and_mended() {
        let dir = tempfile::tempdir().unwrap();
        let models = ModelConfig::builtin();
        let all = provide(dir.path(), models.iter()).unwrap();
        assert!(all.is_absolute());
        let file = all.join(&models[0].name).join("tokenizer.json");
        let text = fs::read(&file).unwrap();
        fs::write(&file, "broken").unwrap();
        assert_eq!(provide(dir.path(), models.iter()).unwrap(), all);
        assert_eq!(fs::read(&file).unwrap(), text);
    }
}
