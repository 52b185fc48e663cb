//! The tokenizer as Hugging Face's libraries load it from a directory, so that the official SDK's `get_tokenizer` needs no
//! network: a token is a byte, and three specials follow.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use retinker_nn::{BOS_TOKEN, EOS_TOKEN, PAD_TOKEN};

const BOS: &str = "<bos>";
const EOS: &str = "<eos>";
const PAD: &str = "<pad>";

/// Writes the tokenizer below `root`, unless it is there as it should be. Gives its directory, absolute.
pub(crate) fn provide(root: &Path) -> io::Result<PathBuf> {
    let directory = root.join("tokenizer");
    fs::create_dir_all(&directory)?;
    for (name, content) in [("tokenizer.json", tokenizer()), ("tokenizer_config.json", config())] {
        let (path, text) = (directory.join(name), serde_json::to_vec_pretty(&content)?);
        if fs::read(&path).ok().as_ref() != Some(&text) {
            fs::write(&path, text)?;
        }
    }
    fs::canonicalize(directory)
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

fn config() -> Value {
    json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS, "eos_token": EOS, "pad_token": PAD,
        "clean_up_tokenization_spaces": false,
        "model_max_length": 2048,
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
        let directory = provide(dir.path()).unwrap();
        assert!(directory.is_absolute());
        let file = directory.join("tokenizer.json");
        let text = fs::read(&file).unwrap();
        fs::write(&file, "broken").unwrap();
        assert_eq!(provide(dir.path()).unwrap(), directory);
        assert_eq!(fs::read(&file).unwrap(), text);
    }
}
