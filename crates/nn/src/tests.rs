//! Tests of the parts together.

use std::sync::Arc;

use retinker_wire::training::AdamParams;

use super::*;

pub(crate) fn nano() -> BaseModel {
    BaseModel::generate(&ModelConfig::by_name("retinker/nano-llama").unwrap()).unwrap()
}

pub(crate) fn lora(rank: usize) -> LoraConfig {
    LoraConfig { rank, seed: 7, ..LoraConfig::default() }
}

pub(crate) fn bytes(text: &str) -> Vec<u32> {
    std::iter::once(BOS_TOKEN).chain(text.bytes().map(u32::from)).collect()
}

/// An adapter whose `B` factors are not zero, so that every factor has a gradient.
pub(crate) fn stirred(base: &BaseModel, config: &LoraConfig) -> Adapter {
    let adapter = Adapter::new(base.config(), config).unwrap();
    let tensors: Vec<NamedTensor> = adapter
        .tensors()
        .map(|view| {
            let mut tensor = view.to_owned();
            if tensor.name.ends_with("lora_B.weight") {
                Rng::for_label(3, &tensor.name).fill_normal(&mut tensor.data, 0.05);
            }
            tensor
        })
        .collect();
    Adapter::from_tensors(base.config(), config, tensors).unwrap()
}

fn total_loss(base: &BaseModel, adapter: &Adapter, examples: &[Example]) -> f64 {
    let outputs = forward(base, adapter, examples, &mut Workspace::new()).unwrap();
    outputs.iter().map(|output| output.loss_sum).sum()
}

fn bits(gradients: &Gradients) -> Vec<u32> {
    gradients
        .tensors()
        .flat_map(|tensor| tensor.data.iter().map(|x| x.to_bits()).collect::<Vec<_>>())
        .collect()
}

/// Two examples with weights of both signs and zeros; the first is longer than an attention block.
fn two_examples() -> [Example; 2] {
    let mut a = Example::next_token(&bytes(
        "The quick brown fox jumps over the lazy dog, and the dog, being lazy, lets it; so the day goes by.",
    ));
    for (i, weight) in a.weights.iter_mut().enumerate() {
        *weight = [1.0, 0.0, -0.5, 2.0][i % 4];
    }
    [a, Example::next_token(&bytes("A second, shorter text."))]
}

#[test]
fn built_in_models_have_the_sizes_they_claim() {
    let configs = ModelConfig::builtin();
    let default = BaseModel::generate(&configs[0]).unwrap();
    assert!(default.parameter_count() >= 1_000_000);
    for config in &configs {
        let base = BaseModel::generate(config).unwrap();
        assert_eq!(base.parameter_count(), config.parameter_count());
        assert!(config.max_context >= 512);
    }
    assert!(ModelConfig::by_name("no/such-model").is_none());
}

#[test]
fn a_new_adapter_leaves_the_model_nearly_uniform_and_unchanged() {
    let base = nano();
    let examples = two_examples();
    let mut workspace = Workspace::new();
    let one = Adapter::new(base.config(), &lora(4)).unwrap();
    let other = Adapter::new(base.config(), &LoraConfig { seed: 8, ..lora(16) }).unwrap();
    let a = forward(&base, &one, &examples, &mut workspace).unwrap();
    let b = forward(&base, &other, &examples, &mut workspace).unwrap();
    assert_eq!(a, b);
    let mean = a[1].loss_sum / a[1].logprobs.len() as f64;
    assert!((mean - (VOCAB_SIZE as f64).ln()).abs() < 0.1, "{mean}");
}

#[test]
fn gradients_match_finite_differences() {
    let base = nano();
    let config = lora(4);
    let adapter = stirred(&base, &config);
    let examples = two_examples();
    let mut gradients = Gradients::zeros(adapter.layout());
    let outputs =
        forward_backward(&base, &adapter, &examples, &mut Workspace::new(), &mut gradients).unwrap();
    assert_eq!(outputs, forward(&base, &adapter, &examples, &mut Workspace::new()).unwrap());
    for gradient in gradients.tensors() {
        // Along the gradient itself the derivative is its norm, so nothing cancels.
        let norm = gradient.data.iter().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
        assert!(norm > 0.0, "{}", gradient.name);
        let at = |step: f64| {
            let moved = adapter.tensors().map(|view| {
                let mut tensor = view.to_owned();
                if tensor.name == gradient.name {
                    for (value, g) in tensor.data.iter_mut().zip(gradient.data) {
                        *value += (step * f64::from(*g) / norm) as f32;
                    }
                }
                tensor
            });
            total_loss(&base, &Adapter::from_tensors(base.config(), &config, moved).unwrap(), &examples)
        };
        // Large enough against the rounding of f32, with the error of third order taken out.
        let h = 0.01;
        let wide = (at(2.0 * h) - at(-2.0 * h)) / (4.0 * h);
        let close = (at(h) - at(-h)) / (2.0 * h);
        let derivative = (4.0 * close - wide) / 3.0;
        let error = (derivative - norm).abs() / norm;
        assert!(error < 5e-3, "{}: {derivative} by differences, {norm} by backpropagation", gradient.name);
    }
}

#[test]
fn single_entries_of_the_gradient_match_finite_differences() {
    let base = nano();
    let config = lora(2);
    let adapter = stirred(&base, &config);
    let examples = two_examples();
    let mut gradients = Gradients::zeros(adapter.layout());
    forward_backward(&base, &adapter, &examples, &mut Workspace::new(), &mut gradients).unwrap();
    for gradient in gradients.tensors() {
        // The entry with the greatest gradient, and one in the middle.
        let (greatest, _) =
            gradient.data.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).unwrap();
        for entry in [greatest, gradient.data.len() / 2] {
            let at = |step: f32| {
                let moved = adapter.tensors().map(|view| {
                    let mut tensor = view.to_owned();
                    if tensor.name == gradient.name {
                        tensor.data[entry] += step;
                    }
                    tensor
                });
                total_loss(&base, &Adapter::from_tensors(base.config(), &config, moved).unwrap(), &examples)
            };
            let derivative = (8.0 * (at(0.005) - at(-0.005)) - (at(0.01) - at(-0.01))) / 0.06;
            let expected = f64::from(gradient.data[entry]);
            let error = (derivative - expected).abs();
            assert!(
                error < 0.02 * expected.abs() + 0.02,
                "{}[{entry}]: {derivative} {expected}",
                gradient.name
            );
        }
    }
}

#[test]
fn repeating_changes_no_bit_whatever_was_computed_before_or_beside() {
    let base = nano();
    let adapter = stirred(&base, &lora(8));
    let [a, b] = two_examples();
    let batch = [a.clone(), b];
    let run = |workspace: &mut Workspace| {
        let mut gradients = Gradients::zeros(adapter.layout());
        let outputs = forward_backward(&base, &adapter, &batch, workspace, &mut gradients).unwrap();
        (outputs, bits(&gradients))
    };
    let mut workspace = Workspace::new();
    let first = run(&mut workspace);
    // The workspace now holds what other work left in it; a fresh one holds nothing.
    forward(&base, &adapter, &windows(TEXT, 40), &mut workspace).unwrap();
    assert!(first == run(&mut workspace));
    assert!(first == run(&mut Workspace::new()));
    let elsewhere = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..2).map(|_| scope.spawn(|| run(&mut Workspace::new()))).collect();
        handles.into_iter().map(|handle| handle.join().unwrap()).collect::<Vec<_>>()
    });
    assert!(elsewhere.iter().all(|result| *result == first));
    let mut zeroed = Gradients::zeros(adapter.layout());
    forward_backward(&base, &adapter, &[a], &mut workspace, &mut zeroed).unwrap();
    zeroed.zero();
    assert_eq!(zeroed, Gradients::zeros(adapter.layout()));
}

#[test]
fn a_batch_is_the_sum_of_its_examples() {
    let base = nano();
    let adapter = stirred(&base, &lora(8));
    // Stacks of several examples, of one, and one longer than a stack.
    let mut batch = windows(TEXT, 31);
    batch.push(Example::next_token(&bytes(&TEXT.repeat(2))));
    batch.extend(two_examples());
    batch.push(Example::next_token(&bytes("ab")));
    let mut workspace = Workspace::new();
    let mut run = |batches: &[&[Example]]| {
        let mut gradients = Gradients::zeros(adapter.layout());
        let pass = |batch: &&[Example]| {
            forward_backward(&base, &adapter, batch, &mut workspace, &mut gradients).unwrap()
        };
        let outputs: Vec<ExampleOutput> = batches.iter().flat_map(pass).collect();
        (outputs, gradients)
    };
    let together = run(&[&batch]);
    let each: Vec<&[Example]> = batch.chunks(1).collect();
    for parts in [each, batch.chunks(3).collect()] {
        let apart = run(&parts);
        assert!(apart.0 == together.0, "what is said of an example depends on no other");
        // Gradients differ by the order of summation only.
        let distance = |a: &[f32], b: &[f32]| {
            let squares = |x: f32| f64::from(x) * f64::from(x);
            let apart: f64 = a.iter().zip(b).map(|(a, b)| squares(a - b)).sum();
            (apart / b.iter().map(|b| squares(*b)).sum::<f64>()).sqrt()
        };
        for (a, b) in apart.1.tensors().zip(together.1.tensors()) {
            let distance = distance(a.data, b.data);
            assert!(distance < 1e-5, "{}: {distance}", a.name);
        }
    }
}

#[test]
fn what_is_said_of_an_example_depends_on_no_other_in_any_model() {
    for config in ModelConfig::builtin() {
        let base = BaseModel::generate(&config).unwrap();
        let adapter = stirred(&base, &lora(8));
        let batch: Vec<Example> =
            [2, 3, 5, 9, 17, 33, 50, 64, 65, 127].map(|len| Example::next_token(&bytes(&TEXT[..len]))).into();
        let mut workspace = Workspace::new();
        let together = forward(&base, &adapter, &batch, &mut workspace).unwrap();
        for (example, together) in batch.chunks(1).zip(&together) {
            let alone = forward(&base, &adapter, example, &mut workspace).unwrap();
            assert!(alone[0] == *together, "{}, {} tokens", config.name, example[0].tokens.len());
        }
    }
}

#[test]
fn a_position_depends_on_nothing_after_it() {
    let base = nano();
    let adapter = stirred(&base, &lora(4));
    let mut workspace = Workspace::new();
    let tokens = bytes("What comes later does not matter to what came before it, as it should be in a text.");
    let score = |tokens: &[u32], workspace: &mut Workspace| {
        let example = Example::next_token(tokens);
        forward(&base, &adapter, &[example], workspace).unwrap().remove(0).logprobs
    };
    let long = score(&tokens, &mut workspace);
    let short = score(&tokens[..30], &mut workspace);
    for (a, b) in long.iter().zip(&short) {
        // Products of other sizes may be summed in another order.
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
    let logits = next_token_logits(&base, &adapter, &tokens[..29], &mut workspace).unwrap();
    let sum: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
    let logprob = f64::from(logits[tokens[29] as usize]) - sum.ln();
    assert!((logprob - f64::from(short[28])).abs() < 1e-4);
}

#[test]
fn any_loss_of_the_logprobs_can_be_given() {
    let base = nano();
    let adapter = stirred(&base, &lora(4));
    let [a, b] = two_examples();
    let examples = [a, b];
    let mut workspace = Workspace::new();
    let (mut plain, mut given) = (Gradients::zeros(adapter.layout()), Gradients::zeros(adapter.layout()));
    let outputs = forward_backward(&base, &adapter, &examples, &mut workspace, &mut plain).unwrap();
    let seen = std::sync::Mutex::new(vec![Vec::new(); examples.len()]);
    let with =
        forward_backward_with(&base, &adapter, &examples, &mut workspace, &mut given, |i, logprobs| {
            seen.lock().unwrap()[i] = logprobs.to_vec();
            LossTerms { loss_sum: i as f64, d_logprobs: examples[i].weights.iter().map(|w| -w).collect() }
        })
        .unwrap();
    assert_eq!(plain, given);
    let seen = seen.into_inner().unwrap();
    for (i, (output, with)) in outputs.iter().zip(&with).enumerate() {
        assert_eq!((&output.logprobs, &seen[i]), (&with.logprobs, &output.logprobs));
        assert_eq!(with.loss_sum, i as f64);
    }
}

#[test]
fn a_pass_that_fails_adds_nothing() {
    let base = nano();
    let adapter = stirred(&base, &lora(4));
    let examples = two_examples();
    let mut workspace = Workspace::new();
    let mut gradients = Gradients::zeros(adapter.layout());
    forward_backward(&base, &adapter, &examples, &mut workspace, &mut gradients).unwrap();
    let before = bits(&gradients);
    let right = |i: usize| vec![1.0; examples[i].targets.len()];
    let mut nan = right(1);
    nan[3] = f32::NAN;
    for (d_logprobs, loss_sum, reason) in [
        (vec![0.0], 0.0, "1 derivatives for 23 targets"),
        (nan, 0.0, "the derivative at position 3 is not finite"),
        (right(1), f64::INFINITY, "its sum is not finite"),
    ] {
        let terms = |i: usize, _: &[f32]| match i {
            0 => LossTerms { loss_sum: 0.0, d_logprobs: right(0) },
            _ => LossTerms { loss_sum, d_logprobs: d_logprobs.clone() },
        };
        let error = forward_backward_with(&base, &adapter, &examples, &mut workspace, &mut gradients, terms);
        let expected = NnError::InvalidLoss { index: 1, reason: reason.to_owned() };
        assert_eq!(error, Err(expected.clone()));
        assert_eq!(forward_with(&base, &adapter, &examples, &mut workspace, terms), Err(expected));
        assert_eq!(bits(&gradients), before);
    }
    let huge = |i: usize, _: &[f32]| LossTerms { loss_sum: 0.0, d_logprobs: vec![3e38; right(i).len()] };
    let error = forward_backward_with(&base, &adapter, &examples, &mut workspace, &mut gradients, huge);
    assert_eq!(error, Err(NnError::GradientsNotFinite));
    assert_eq!(bits(&gradients), before);
}

#[test]
fn several_targets_for_a_token_are_the_sum_of_each() {
    let base = nano();
    let adapter = stirred(&base, &lora(4));
    let [one, _] = two_examples();
    let other = Example {
        targets: one.targets.iter().map(|t| (t + 7) % 260).collect(),
        weights: one.weights.iter().map(|w| 0.3 - w).collect(),
        ..one.clone()
    };
    let side_by_side = |a: &[u32], b: &[u32]| a.iter().zip(b).flat_map(|(a, b)| [*a, *b]).collect();
    let both = Example {
        tokens: one.tokens.clone(),
        targets: side_by_side(&one.targets, &other.targets),
        weights: one.weights.iter().zip(&other.weights).flat_map(|(a, b)| [*a, *b]).collect(),
    };
    assert_eq!((one.width(), both.width()), (1, 2));
    let run = |batch: &[Example]| {
        let mut gradients = Gradients::zeros(adapter.layout());
        let outputs =
            forward_backward(&base, &adapter, batch, &mut Workspace::new(), &mut gradients).unwrap();
        (outputs, gradients)
    };
    let (apart, expected) = run(&[one, other]);
    let (together, found) = run(&[both]);
    for (i, logprob) in together[0].logprobs.iter().enumerate() {
        assert_eq!(*logprob, apart[i % 2].logprobs[i / 2]);
    }
    let sum: f64 = apart.iter().map(|output| output.loss_sum).sum();
    assert!((together[0].loss_sum - sum).abs() < 1e-9);
    for (found, expected) in found.tensors().zip(expected.tensors()) {
        let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
        let difference = norm(&mut found.data.iter().zip(expected.data).map(|(a, b)| a - b));
        assert!(difference < 1e-5 * norm(&mut expected.data.iter().copied()), "{}", found.name);
    }
}

#[test]
fn only_what_is_trained_has_tensors_and_its_gradients_do_not_depend_on_the_rest() {
    let base = nano();
    let examples = two_examples();
    let all = Adapter::new(base.config(), &lora(4)).unwrap();
    let mut expected = Gradients::zeros(all.layout());
    forward_backward(&base, &all, &examples, &mut Workspace::new(), &mut expected).unwrap();
    for (train_attn, train_mlp, train_unembed) in
        [(true, false, false), (false, true, false), (false, false, true), (false, true, true)]
    {
        let config = LoraConfig { train_attn, train_mlp, train_unembed, ..lora(4) };
        let adapter = Adapter::new(base.config(), &config).unwrap();
        let names: Vec<&str> = adapter.tensors().map(|tensor| tensor.name).collect();
        assert_eq!(names.iter().any(|name| name.contains("self_attn")), train_attn);
        assert_eq!(names.iter().any(|name| name.contains("mlp")), train_mlp);
        assert_eq!(names.iter().any(|name| name.contains("lm_head")), train_unembed);
        let mut gradients = Gradients::zeros(adapter.layout());
        forward_backward(&base, &adapter, &examples, &mut Workspace::new(), &mut gradients).unwrap();
        for tensor in gradients.tensors() {
            assert_eq!(Some(tensor), expected.tensors().find(|other| other.name == tensor.name));
        }
    }
    let names: Vec<String> = all.tensors().take(2).map(|tensor| tensor.name.to_owned()).collect();
    assert_eq!(
        names,
        [
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
            "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
        ]
    );
    let last = all.tensors().last().unwrap();
    assert_eq!((last.name, last.shape), ("base_model.model.lm_head.lora_B.weight", [VOCAB_SIZE, 4]));
}

const TEXT: &str = "It was a bright cold day in the village, and the old clock in the tower was striking one. \
The baker opened the door of his shop, and the smell of warm bread went down the street and round the corner. \
A child who was on the way to school stopped there for a while and looked at the loaves in the window. \
Then the bell of the school began to ring, and the child ran off over the wet stones of the square. ";

fn windows(text: &str, len: usize) -> Vec<Example> {
    bytes(text).chunks(len + 1).filter(|chunk| chunk.len() > 1).map(Example::next_token).collect()
}

fn mean_loss(outputs: &[ExampleOutput]) -> f64 {
    let positions: usize = outputs.iter().map(|output| output.logprobs.len()).sum();
    outputs.iter().map(|output| output.loss_sum).sum::<f64>() / positions as f64
}

/// A run that can be continued.
struct Run {
    adapter: Adapter,
    gradients: Gradients,
    optimizer: OptimizerState,
}

impl Run {
    fn new(base: &BaseModel, config: &LoraConfig) -> Self {
        let adapter = Adapter::new(base.config(), config).unwrap();
        let gradients = Gradients::zeros(adapter.layout());
        let optimizer = OptimizerState::new(adapter.layout());
        Self { adapter, gradients, optimizer }
    }

    fn step(&mut self, base: &BaseModel, batch: &[Example], params: &AdamParams) -> f64 {
        let outputs =
            forward_backward(base, &self.adapter, batch, &mut Workspace::new(), &mut self.gradients).unwrap();
        optim_step(&mut self.adapter, &mut self.gradients, &mut self.optimizer, params).unwrap();
        mean_loss(&outputs)
    }
}

#[test]
fn the_number_of_threads_changes_nothing() {
    let base = nano();
    let config = lora(8);
    let mut batch = windows(TEXT, 31);
    batch.push(Example::next_token(&bytes(TEXT)));
    batch.extend(two_examples());
    let pass = |threads: usize| {
        let adapter = stirred(&base, &config);
        let mut workspace = Workspace::with_threads(Arc::new(Threads::new(threads)));
        let mut gradients = Gradients::zeros(adapter.layout());
        let outputs: Vec<_> = [&batch[..], &batch[3..]]
            .map(|batch| forward_backward(&base, &adapter, batch, &mut workspace, &mut gradients).unwrap())
            .concat();
        assert_eq!(outputs[..batch.len()], forward(&base, &adapter, &batch, &mut workspace).unwrap());
        (outputs, bits(&gradients))
    };
    let alone = pass(1);
    for threads in [2, 3, 8] {
        assert!(pass(threads) == alone, "{threads} threads");
    }
}

#[test]
fn training_lowers_the_loss() {
    let base = nano();
    let mut run = Run::new(&base, &lora(8));
    let batch = windows(TEXT, 64);
    let params = AdamParams { learning_rate: 0.01, ..AdamParams::default() };
    let losses: Vec<f64> = (0..30).map(|_| run.step(&base, &batch, &params)).collect();
    assert!(losses[0] > 5.0 && losses[29] < 2.5, "{losses:?}");
}

#[test]
fn a_saved_run_continues_as_if_it_had_not_stopped() {
    let base = nano();
    let config = lora(4);
    let batch = windows(TEXT, 48);
    let params =
        AdamParams { learning_rate: 0.01, weight_decay: 0.1, grad_clip_norm: 1.0, ..AdamParams::default() };
    let mut run = Run::new(&base, &config);
    for _ in 0..3 {
        run.step(&base, &batch, &params);
    }
    // The order in a file need not be ours.
    let mut tensors: Vec<NamedTensor> = run.adapter.tensors().map(|view| view.to_owned()).collect();
    tensors.reverse();
    let adapter = Adapter::from_tensors(base.config(), &config, tensors).unwrap();
    let mut moments = run.optimizer.to_tensors();
    moments.reverse();
    let optimizer = OptimizerState::from_tensors(adapter.layout(), run.optimizer.step(), moments).unwrap();
    let gradients = Gradients::zeros(adapter.layout());
    let mut loaded = Run { adapter, gradients, optimizer };
    for _ in 0..3 {
        let (a, b) = (run.step(&base, &batch, &params), loaded.step(&base, &batch, &params));
        assert_eq!(a.to_bits(), b.to_bits());
    }
    assert_eq!(run.adapter, loaded.adapter);
    assert_eq!(run.optimizer, loaded.optimizer);
}

#[test]
fn loading_tells_what_is_wrong() {
    let base = nano();
    let (model, config) = (base.config(), lora(4));
    let adapter = Adapter::new(model, &config).unwrap();
    let tensors: Vec<NamedTensor> = adapter.tensors().map(|view| view.to_owned()).collect();

    let missing = tensors.iter().skip(1).cloned();
    assert_eq!(
        Adapter::from_tensors(model, &config, missing),
        Err(NnError::MissingTensor(tensors[0].name.clone()))
    );
    let mut wrong = tensors.clone();
    wrong[0].shape.reverse();
    let error = Adapter::from_tensors(model, &config, wrong).unwrap_err();
    assert!(error.to_string().contains("has shape [64, 4]"), "{error}");
    let mut short = tensors.clone();
    short[0].data.pop();
    assert!(matches!(Adapter::from_tensors(model, &config, short), Err(NnError::WrongShape { .. })));
    let twice = tensors.iter().chain(&tensors[..1]).cloned();
    assert!(matches!(Adapter::from_tensors(model, &config, twice), Err(NnError::UnexpectedTensor(_))));
    let less = LoraConfig { train_unembed: false, ..config.clone() };
    assert!(matches!(Adapter::from_tensors(model, &less, tensors), Err(NnError::UnexpectedTensor(_))));

    let state = OptimizerState::new(adapter.layout());
    let moments = state.to_tensors();
    assert_eq!(moments[0].name, format!("exp_avg.{}", adapter.tensors().next().unwrap().name));
    let half = moments.iter().take(moments.len() / 2).cloned();
    assert!(matches!(
        OptimizerState::from_tensors(adapter.layout(), 0, half),
        Err(NnError::MissingTensor(name)) if name.starts_with("exp_avg_sq.")
    ));
}

#[test]
fn examples_that_cannot_be_used_are_refused() {
    let base = nano();
    let adapter = Adapter::new(base.config(), &lora(2)).unwrap();
    let good = Example::next_token(&bytes("fine"));
    let context = base.config().max_context;
    let long = Example {
        tokens: vec![1; context + 1],
        targets: vec![1; context + 1],
        weights: vec![1.0; context + 1],
    };
    let cases = [
        (Example::default(), "no tokens"),
        (Example { weights: vec![1.0], ..good.clone() }, "the numbers must be equal"),
        (Example { targets: vec![], ..good.clone() }, "the numbers must be equal"),
        (Example { tokens: vec![1, 260, 3, 4], ..good.clone() }, "token 260 at position 1"),
        (Example { targets: vec![1, 2, 3, u32::MAX], ..good.clone() }, "target 4294967295 at position 3"),
        (Example { weights: vec![1.0, 1.0, f32::NAN, 1.0], ..good.clone() }, "position 2 is not finite"),
        (long, "more than the model's context"),
    ];
    let mut gradients = Gradients::zeros(adapter.layout());
    for (bad, reason) in cases {
        let batch = [good.clone(), bad];
        let error =
            forward_backward(&base, &adapter, &batch, &mut Workspace::new(), &mut gradients).unwrap_err();
        assert!(matches!(error, NnError::InvalidExample { index: 1, .. }), "{error}");
        assert!(error.to_string().contains(reason), "{error}");
    }
    assert_eq!(gradients, Gradients::zeros(adapter.layout()), "a refused batch adds nothing");
    assert!(next_token_logits(&base, &adapter, &[], &mut Workspace::new()).is_err());
    assert_eq!(forward(&base, &adapter, &[], &mut Workspace::new()), Ok(vec![]));
}

#[test]
fn the_longest_sequence_fits() {
    let base = nano();
    let adapter = stirred(&base, &lora(2));
    let tokens: Vec<u32> = (0..=base.config().max_context as u32).map(|i| i * 7 % 256).collect();
    let mut gradients = Gradients::zeros(adapter.layout());
    let outputs = forward_backward(
        &base,
        &adapter,
        &[Example::next_token(&tokens)],
        &mut Workspace::new(),
        &mut gradients,
    )
    .unwrap();
    assert!(outputs[0].loss_sum.is_finite());
    assert!(gradients.tensors().all(|tensor| tensor.data.iter().all(|g| g.is_finite())));
}

#[test]
fn configurations_are_checked() {
    let model = ModelConfig::builtin().remove(1);
    for bad in [
        ModelConfig { n_layers: 0, ..model.clone() },
        ModelConfig { n_heads: 5, ..model.clone() },
        ModelConfig { n_kv_heads: 3, ..model.clone() },
        ModelConfig { rope_theta: f32::NAN, ..model.clone() },
        ModelConfig { norm_eps: 0.0, ..model.clone() },
    ] {
        assert!(matches!(BaseModel::generate(&bad), Err(NnError::InvalidModel(_))));
    }
    for bad in [
        lora(0),
        lora(LoraConfig::MAX_RANK + 1),
        LoraConfig { alpha: f32::INFINITY, ..lora(1) },
        LoraConfig { train_attn: false, train_mlp: false, train_unembed: false, ..lora(1) },
    ] {
        assert!(matches!(Adapter::new(&model, &bad), Err(NnError::InvalidLora(_))));
    }
    let default = BaseModel::generate(&ModelConfig::builtin()[0]).unwrap();
    let adapter = Adapter::new(&model, &lora(2)).unwrap();
    assert_eq!(forward(&default, &adapter, &[], &mut Workspace::new()), Err(NnError::LayoutMismatch));
    let mut other = Adapter::new(&model, &lora(3)).unwrap();
    let mut gradients = Gradients::zeros(adapter.layout());
    let mut state = OptimizerState::new(adapter.layout());
    let params = AdamParams::default();
    assert_eq!(optim_step(&mut other, &mut gradients, &mut state, &params), Err(NnError::LayoutMismatch));
    let nan = AdamParams { learning_rate: f64::NAN, ..params };
    let mut adapter = adapter;
    assert!(matches!(
        optim_step(&mut adapter, &mut gradients, &mut state, &nan),
        Err(NnError::InvalidOptimizer(_))
    ));
    assert_eq!(state.step(), 0);
}

#[test]
fn random_numbers_are_those_of_the_reference() {
    // The first outputs of the authors' xoshiro256++ for the state that splitmix64 makes of seed 0.
    let mut rng = Rng::new(0);
    assert_eq!([rng.next_u64(), rng.next_u64()], [0x53175D61490B23DF, 0x61DA6F3DC380D507]);
    let mut values = vec![0.0; 100_001];
    Rng::for_label(5, "x").fill_normal(&mut values, 2.0);
    let mean = values.iter().map(|x| f64::from(*x)).sum::<f64>() / values.len() as f64;
    let variance = values.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / values.len() as f64;
    assert!(mean.abs() < 0.03 && (variance - 4.0).abs() < 0.1, "{mean} {variance}");
    assert_ne!(Rng::for_label(5, "x").next_u64(), Rng::for_label(5, "y").next_u64());
    assert_ne!(Rng::for_label(5, "x").next_u64(), Rng::for_label(6, "x").next_u64());
}

#[test]
fn base_weights_are_the_same_everywhere() {
    let base = nano();
    let parts = [&base.embedding, &base.weights, &base.norms, &base.rope_cos, &base.rope_sin];
    let hash = parts.into_iter().flatten().fold(0xCBF2_9CE4_8422_2325_u64, |hash, value| {
        (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01B3)
    });
    // Saved adapters are of use only with the weights they were trained on.
    assert_eq!(hash, 0x0D07_9E0F_8959_C625);
}
