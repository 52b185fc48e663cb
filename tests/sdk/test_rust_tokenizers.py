"""The Rust client finds the tokenizer that the official SDK finds, and what it makes of texts is what `transformers` makes of
them."""

import json
import random

import pytest
import tokenizers
from tinker.lib.public_interfaces.sampling_client import _load_tokenizer_from_model_info
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

MODELS = [
    ("Qwen/Qwen3-8B", None),
    ("Qwen/Qwen3-8B:variant", None),
    ("Qwen/Qwen3-8B/variant", None),
    ("Qwen/Qwen3-8B/a/b", None),
    ("alone", None),
    ("meta-llama/Llama-3.1-8B", None),
    ("meta-llama/Llama-3.1-8B:peft", None),
    ("meta-llama/Llama-3.1-8B", "org/own"),
    ("x", "/models/own"),
    ("x", "a/b/c:d"),
    ("moonshotai/Kimi-K2-Thinking", None),
    ("moonshotai/Kimi-K2-Thinking:x", None),
    ("moonshotai/Kimi-K2.5", None),
    ("moonshotai/Kimi-K2.5-Text-Only", None),
    ("x", "moonshotai/Kimi-K2.5-Text-Only"),
    ("moonshotai/Kimi-K2.6", None),
    ("moonshotai/Kimi-K3", None),
    ("moonshotai/Kimi-K4", None),
]


@pytest.mark.parametrize("model, tokenizer", MODELS)
def test_which_it_is(rust, monkeypatch, model, tokenizer):
    found = {}

    def from_pretrained(name, revision=None, **_):
        found.update(name=name, revision=revision)

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", from_pretrained)
    _load_tokenizer_from_model_info.__wrapped__(model, tokenizer)
    assert rust("tokenizer_of", model=model, tokenizer=tokenizer) == found


#: Letters of many scripts, what joins and splits words, and what is written in several ways.
PIECES = [*"abcdeABC 012,.!?'\n\t  ", "the ", "ing", "'ll", "ü", "u\u0308", "ß", "漢字", "дом", "🦀", "👩‍🚀", "\u00a0", "\u200b", "<end>", "\0"]
#: How Llama 3 splits words; it looks ahead, which not every engine of regular expressions can.
LLAMA_3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def text(chance):
    return "".join(chance.choice(PIECES) for _ in range(chance.choice([0, 1, 5, 60])))


def byte_level(made, **options):
    made.decoder = decoders.ByteLevel()
    return trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **options)


def gpt_2(options):
    made = tokenizers.Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return made, byte_level(made, **options)


def llama_3(options):
    made = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(tokenizers.Regex(LLAMA_3), behavior="isolated")
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return made, byte_level(made, **options)


def qwen(options):
    made, trainer = llama_3(options)
    made.normalizer = normalizers.NFC()
    return made, trainer


def word_piece(options):
    made = tokenizers.Tokenizer(models.WordPiece(unk_token="<unk>"))
    made.normalizer = normalizers.BertNormalizer()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    return made, trainers.WordPieceTrainer(**options)


def unigram(options):
    made = tokenizers.Tokenizer(models.Unigram())
    made.normalizer = normalizers.NFKC()
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return made, trainers.UnigramTrainer(unk_token="<unk>", **options)


@pytest.mark.parametrize("kind", [gpt_2, llama_3, qwen, word_piece, unigram])
def test_what_it_makes_of_texts(rust, tmp_path, kind):
    chance = random.Random(kind.__name__)
    made, trainer = kind({"vocab_size": 500, "special_tokens": ["<begin>", "<end>", "<unk>"], "show_progress": False})
    made.train_from_iterator([text(chance) for _ in range(300)], trainer)
    made.post_processor = processors.TemplateProcessing(single="<begin> $A", special_tokens=[("<begin>", 0)])
    made.save(str(tmp_path / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<begin>",
        "eos_token": {"__type": "AddedToken", "content": "<end>", "special": True},
        "clean_up_tokenization_spaces": False,
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    official = AutoTokenizer.from_pretrained(str(tmp_path), fast=True)
    texts = [text(chance) for _ in range(200)]
    found = rust("tokenize", directory=str(tmp_path), texts=texts)
    assert None not in (found["bos"], found["eos"])
    assert (found["bos"], found["eos"]) == (official.bos_token_id, official.eos_token_id)
    assert found["vocab_size"] == len(official)
    for one, mine in zip(texts, found["texts"], strict=True):
        tokens = official.encode(one)
        assert mine == {
            "tokens": tokens,
            "plain": official.encode(one, add_special_tokens=False),
            "decoded": official.decode(tokens),
            "skipped": official.decode(tokens, skip_special_tokens=True),
        }
