//! The model, the losses and the optimizer against what an independent implementation computed.
//!
//! The fixtures come from `tests/reference` (JAX, double precision); `cargo xtask reference` makes them anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

use std::collections::BTreeMap;
use std::path::PathBuf;

use retinker_nn::{
    Adapter, BaseModel, Clip, Example, Gradients, LoraConfig, LossTerms, ModelConfig, NamedTensor,
    OptimizerState, PolicyLoss, Rollout, TensorView, Workspace, cross_entropy, forward_backward_with,
    optim_step,
};
use retinker_wire::training::AdamParams;
use safetensors::SafeTensors;
use serde::Deserialize;
use serde_json::Value;

/// How far any result may be from the reference, relative to the largest of its kind.
const TOLERANCE: f64 = 1e-4;

#[derive(Deserialize)]
struct Document {
    rank: usize,
    alpha: f32,
    cases: Vec<Case>,
    optimizers: BTreeMap<String, Optimizer>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    loss_fn: String,
    loss_fn_config: BTreeMap<String, f64>,
    data: Vec<Datum>,
    loss: f64,
    logprobs: Vec<Vec<f64>>,
}

#[derive(Deserialize)]
struct Datum {
    tokens: Vec<u32>,
    loss_fn_inputs: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct Optimizer {
    settings: AdamParams,
    gradient_norms: Vec<f64>,
}

/// All numbers of an array, however deep.
fn flat(value: &Value) -> Vec<f32> {
    match value {
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        number => vec![number.as_f64().unwrap() as f32],
    }
}

impl Datum {
    fn input(&self, name: &str) -> Option<Vec<f32>> {
        self.loss_fn_inputs.get(name).map(flat)
    }

    fn example(&self) -> Example {
        let targets: Vec<u32> = self.input("target_tokens").unwrap().iter().map(|t| *t as u32).collect();
        let weights = self.input("weights").unwrap_or_else(|| vec![1.0; targets.len()]);
        Example { tokens: self.tokens.clone(), targets, weights }
    }

    fn rollout(&self) -> Rollout {
        Rollout {
            logprobs: self.input("logprobs").unwrap(),
            advantages: self.input("advantages").unwrap(),
            weights: self.example().weights,
            clip_low: self.input("clip_low_threshold"),
            clip_high: self.input("clip_high_threshold"),
        }
    }
}

impl Case {
    fn policy(&self) -> Option<PolicyLoss> {
        let clip = || Clip {
            low: self.loss_fn_config["clip_low_threshold"],
            high: self.loss_fn_config["clip_high_threshold"],
        };
        match self.loss_fn.as_str() {
            "cross_entropy" => None,
            "importance_sampling" => Some(PolicyLoss::ImportanceSampling),
            "ppo" => Some(PolicyLoss::Ppo(clip())),
            "cispo" => Some(PolicyLoss::Cispo(clip())),
            "dro" => Some(PolicyLoss::Dro { beta: self.loss_fn_config["beta"] }),
            other => panic!("{other}"),
        }
    }

    /// One pass: the loss, the log-probabilities of each datum; adds to the gradients.
    fn pass(&self, base: &BaseModel, adapter: &Adapter, gradients: &mut Gradients) -> (f64, Vec<Vec<f32>>) {
        let examples: Vec<Example> = self.data.iter().map(Datum::example).collect();
        let policy = self.policy();
        let loss = |i: usize, logprobs: &[f32]| -> LossTerms {
            match &policy {
                None => cross_entropy(&examples[i], logprobs),
                Some(policy) => policy.terms(&self.data[i].rollout(), logprobs),
            }
        };
        let outputs =
            forward_backward_with(base, adapter, &examples, &mut Workspace::new(), gradients, loss).unwrap();
        let sum = outputs.iter().map(|output| output.loss_sum).sum();
        (sum, outputs.into_iter().map(|output| output.logprobs).collect())
    }
}

/// One model with what was recorded of it.
struct Reference {
    base: BaseModel,
    lora: LoraConfig,
    document: Document,
    tensors: Vec<u8>,
}

impl Reference {
    fn of(model: &str) -> Self {
        // Asked when it runs: the target directory may be shared with another clone.
        let package =
            std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let fixtures = PathBuf::from(package).join("tests/fixtures/reference");
        let read = |extension: &str| {
            let path = fixtures.join(format!("{model}.{extension}"));
            std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let document: Document = serde_json::from_slice(&read("json")).unwrap();
        let config = ModelConfig::by_name(&format!("retinker/{model}")).unwrap();
        let lora = LoraConfig { rank: document.rank, alpha: document.alpha, ..LoraConfig::default() };
        Self { base: BaseModel::generate(&config).unwrap(), lora, document, tensors: read("safetensors") }
    }

    /// The recorded tensors under a prefix, by the adapter's names.
    fn recorded(&self, prefix: &str) -> BTreeMap<String, NamedTensor> {
        let file = SafeTensors::deserialize(&self.tensors).unwrap();
        let mut found = BTreeMap::new();
        for (name, view) in file.iter() {
            let Some(name) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')) else {
                continue;
            };
            let data = retinker_wire::tensor::f32_values(view.data()).unwrap();
            let shape = [view.shape()[0], view.shape()[1]];
            found.insert(name.to_owned(), NamedTensor { name: name.to_owned(), shape, data });
        }
        assert!(!found.is_empty(), "nothing is recorded under {prefix}");
        found
    }

    fn adapter(&self) -> Adapter {
        let tensors = self.recorded("adapter").into_values();
        Adapter::from_tensors(self.base.config(), &self.lora, tensors).unwrap()
    }

    fn check_losses(&self) {
        let adapter = self.adapter();
        for case in &self.document.cases {
            let name = &case.name;
            let mut gradients = Gradients::zeros(adapter.layout());
            let (loss, logprobs) = case.pass(&self.base, &adapter, &mut gradients);
            let error = (loss - case.loss).abs() / case.loss.abs();
            assert!(error < TOLERANCE, "{name}: the loss is {loss}, not {}", case.loss);
            for (datum, (found, expected)) in logprobs.iter().zip(&case.logprobs).enumerate() {
                assert_eq!(found.len(), expected.len(), "{name}: datum {datum}");
                for (found, expected) in found.iter().zip(expected) {
                    let error = (f64::from(*found) - expected).abs() / expected.abs();
                    assert!(error < TOLERANCE, "{name}: datum {datum}: {found} is not {expected}");
                }
            }
            assert_alike(name, gradients.tensors(), &self.recorded(&format!("gradients/{name}")));
        }
    }
}

/// Compares every entry of every tensor.
fn assert_alike<'a>(
    what: &str,
    found: impl Iterator<Item = TensorView<'a>>,
    expected: &BTreeMap<String, NamedTensor>,
) {
    let mut compared = 0;
    for tensor in found {
        let expected = &expected[tensor.name];
        assert_eq!(tensor.shape, expected.shape, "{what}: {}", tensor.name);
        let largest = expected.data.iter().fold(0.0, |max: f32, x| max.max(x.abs()));
        assert!(largest > 0.0, "{what}: {} is nothing but zeros", tensor.name);
        for (i, (found, expected)) in tensor.data.iter().zip(&expected.data).enumerate() {
            let error = f64::from((found - expected).abs()) / f64::from(largest);
            assert!(error < TOLERANCE, "{what}: {}[{i}] is {found}, not {expected}", tensor.name);
        }
        compared += 1;
    }
    assert_eq!(compared, expected.len(), "{what}");
}

#[test]
fn losses_and_gradients_are_those_of_the_reference() {
    Reference::of("nano-llama").check_losses();
}

#[test]
fn so_are_those_of_the_default_model() {
    Reference::of("tiny-llama-1m").check_losses();
}

#[test]
fn five_steps_of_adamw_arrive_at_the_same_weights() {
    Reference::of("nano-llama").check_steps(4);
}

#[test]
fn so_they_do_on_the_default_model() {
    Reference::of("tiny-llama-1m").check_steps(1);
}

impl Reference {
    fn check_steps(&self, settings: usize) {
        let case = &self.document.cases[0];
        assert_eq!(self.document.optimizers.len(), settings);
        for (name, optimizer) in &self.document.optimizers {
            let mut adapter = self.adapter();
            let mut gradients = Gradients::zeros(adapter.layout());
            let mut state = OptimizerState::new(adapter.layout());
            assert_eq!(optimizer.gradient_norms.len(), 5);
            for expected in &optimizer.gradient_norms {
                case.pass(&self.base, &adapter, &mut gradients);
                let step = optim_step(&mut adapter, &mut gradients, &mut state, &optimizer.settings).unwrap();
                assert!(
                    (step.grad_norm - expected).abs() < TOLERANCE * expected,
                    "{name}: {step:?} {expected}"
                );
            }
            assert_alike(name, adapter.tensors(), &self.recorded(&format!("stepped/{name}")));
        }
    }
}
