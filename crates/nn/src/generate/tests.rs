use super::super::tests::{bytes, lora, nano, stirred};
use super::super::*;
use super::*;

const TEXT: &str =
    "The quick brown fox jumps over the lazy dog, and the dog, being lazy, lets it; so the day goes by.";

fn model() -> (MergedModel, Adapter) {
    let base = Arc::new(nano());
    let adapter = stirred(&base, &lora(4));
    (MergedModel::new(base, Some(&adapter)).unwrap(), adapter)
}

fn read(model: &MergedModel, text: &str) -> Prompt {
    model.read(&bytes(text), false, &mut Workspace::new()).unwrap()
}

fn most_probable(logits: &[f32]) -> u32 {
    Distribution::new(logits).unwrap().top(1)[0].0
}

/// Goes on for so many tokens, each the most probable; the tokens and the logits after the last.
fn greedy(model: &MergedModel, prompt: &Prompt, tokens: usize) -> (Vec<u32>, Vec<f32>) {
    let (mut sequence, mut logits) = (prompt.sequence(tokens), prompt.next_logits().to_vec());
    let mut scratch = DecodeScratch::default();
    let mut chosen = Vec::new();
    for _ in 0..tokens {
        chosen.push(most_probable(&logits));
        let step = &mut [(&mut sequence, *chosen.last().unwrap())];
        logits = model.decode(step, &mut scratch).unwrap().to_vec();
    }
    (chosen, logits)
}

#[test]
fn decoding_with_a_cache_says_what_the_whole_sequence_says() {
    let (model, adapter) = model();
    let base = &model.base;
    // Past a block of attention from the start, and across the next while it grows.
    let prompt = model.read(&bytes(TEXT), true, &mut Workspace::new()).unwrap();
    let (mut sequence, mut tokens) = (prompt.sequence(80), bytes(TEXT));
    let (mut scratch, mut logprobs) = (DecodeScratch::default(), Vec::new());
    let mut logits = prompt.next_logits().to_vec();
    for _ in 0..80 {
        let token = most_probable(&logits);
        let whole = next_token_logits(base, &adapter, &tokens, &mut Workspace::new()).unwrap();
        assert_eq!(token, most_probable(&whole));
        logprobs.push(Distribution::new(&logits).unwrap().logprob(token).unwrap());
        tokens.push(token);
        logits = model.decode(&mut [(&mut sequence, token)], &mut scratch).unwrap().to_vec();
    }
    assert_eq!(sequence.len(), tokens.len());
    let whole = forward(base, &adapter, &[Example::next_token(&tokens)], &mut Workspace::new()).unwrap();
    let of_prompt = prompt.scores().zip(&tokens[1..]).take(prompt.len() - 1);
    let of_prompt = of_prompt.map(|(row, token)| Distribution::new(row).unwrap().logprob(*token).unwrap());
    let all: Vec<f32> = of_prompt.chain(logprobs).collect();
    assert_eq!(all.len(), whole[0].logprobs.len());
    // The adapter is a wild one, with logits in the tens: 1e-5 of those is what f32 can be held to.
    let size = logits.iter().fold(1.0_f32, |max, x| max.max(x.abs()));
    for (i, (cached, whole)) in all.iter().zip(&whole[0].logprobs).enumerate() {
        assert!((cached - whole).abs() < 1e-5 * size, "at {i}: {cached} with the cache, {whole} without");
    }
}

#[test]
fn a_sequence_does_not_feel_the_others_of_its_step() {
    let (model, _) = model();
    let texts = ["a", TEXT, "Once upon", "x y z", "and then", "1234567", "The end."];
    let prompts: Vec<Prompt> = texts.iter().map(|text| read(&model, text)).collect();
    let alone: Vec<(Vec<u32>, Vec<f32>)> = prompts.iter().map(|prompt| greedy(&model, prompt, 12)).collect();
    // In company of every number, which changes from step to step, in another order.
    for company in 2..=texts.len() {
        let mut scratch = DecodeScratch::default();
        let mut sequences: Vec<Sequence> =
            prompts.iter().take(company).map(|prompt| prompt.sequence(12)).collect();
        for step in 0..12 {
            let (reversed, apart) = (step % 2 == 1, step % company);
            let mut steps: Vec<(usize, &mut Sequence)> = sequences.iter_mut().enumerate().collect();
            if reversed {
                steps.reverse();
            }
            let late = steps.remove(apart);
            for mut steps in [steps, vec![late]] {
                let mut rows: Vec<(&mut Sequence, u32)> =
                    steps.iter_mut().map(|(i, sequence)| (&mut **sequence, alone[*i].0[step])).collect();
                let logits = model.decode(&mut rows, &mut scratch).unwrap();
                for ((i, _), logits) in steps.iter().zip(logits.chunks_exact(VOCAB_SIZE)) {
                    match alone[*i].0.get(step + 1) {
                        Some(next) => assert_eq!(most_probable(logits), *next),
                        None => assert_eq!(logits, alone[*i].1, "sequence {i} in a company of {company}"),
                    }
                }
            }
        }
    }
}

#[test]
fn sequences_of_one_prompt_go_their_own_ways() {
    let (model, _) = model();
    let prompt = read(&model, "Once upon a time");
    let (mut left, mut right) = (prompt.sequence(0), prompt.sequence(0));
    let mut scratch = DecodeScratch::default();
    for (l, r) in [(b'a', b'z'), (b'b', b'y')] {
        model.decode(&mut [(&mut left, l.into()), (&mut right, r.into())], &mut scratch).unwrap();
    }
    let logits =
        model.decode(&mut [(&mut left, b'.'.into()), (&mut right, b'.'.into())], &mut scratch).unwrap();
    for (text, logits) in
        ["Once upon a timeab.", "Once upon a timezy."].iter().zip(logits.chunks_exact(VOCAB_SIZE))
    {
        for (cached, whole) in logits.iter().zip(read(&model, text).next_logits()) {
            assert!((cached - whole).abs() < 1e-4, "{text}: {cached} {whole}");
        }
    }
}

#[test]
fn without_an_adapter_it_is_the_base_model() {
    let base = Arc::new(nano());
    let fresh = Adapter::new(base.config(), &lora(4)).unwrap();
    let plain = MergedModel::new(Arc::clone(&base), None).unwrap();
    let merged = MergedModel::new(Arc::clone(&base), Some(&fresh)).unwrap();
    assert_eq!(read(&plain, TEXT).next_logits(), read(&merged, TEXT).next_logits());
    assert_eq!(plain.bytes(), 0);
    assert!(merged.bytes() > 4 * 50_000);
    let other = BaseModel::generate(&ModelConfig::builtin()[0]).unwrap();
    assert_eq!(MergedModel::new(Arc::new(other), Some(&fresh)).unwrap_err(), NnError::LayoutMismatch);
}

#[test]
fn what_cannot_go_on_is_refused() {
    let (model, _) = model();
    let mut workspace = Workspace::new();
    assert!(model.read(&[], false, &mut workspace).is_err());
    assert!(model.read(&[1, 260], false, &mut workspace).is_err());
    let context = model.config().max_context;
    assert!(model.read(&vec![1; context + 1], false, &mut workspace).is_err());
    let full = model.read(&vec![1; context], false, &mut workspace).unwrap();
    let mut scratch = DecodeScratch::default();
    let error = model.decode(&mut [(&mut full.sequence(1), 1)], &mut scratch).unwrap_err();
    assert!(error.to_string().contains("fills the model's context"), "{error}");
    let mut sequence = read(&model, "a").sequence(1);
    assert!(model.decode(&mut [(&mut sequence, 260)], &mut scratch).is_err());
    assert_eq!(sequence.len(), 2, "a refused step leaves no trace");
    let other = Arc::new(BaseModel::generate(&ModelConfig::builtin()[0]).unwrap());
    let other = MergedModel::new(other, None).unwrap();
    let refused = other.decode(&mut [(&mut sequence, 1)], &mut scratch);
    assert_eq!(refused.unwrap_err(), NnError::LayoutMismatch);
}
