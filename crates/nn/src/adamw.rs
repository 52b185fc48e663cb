//! AdamW as in `torch.optim.AdamW`, with clipping as in `torch.nn.utils.clip_grad_norm_`.

use std::sync::Arc;

use retinker_wire::training::AdamParams;

use super::error::NnError;
use super::layout::Layout;
use super::lora::{
    Adapter, Gradients, NamedTensor, TensorView, by_name, expect_none_left, same_layout, take_tensors, views,
};
use super::math::vectorized;

/// Checks that a step with these settings is defined, in the single precision in which it is taken.
fn validate(params: &AdamParams) -> Result<(), NnError> {
    let fail = |reason: &str| Err(NnError::InvalidOptimizer(reason.to_owned()));
    let at_least_zero = |x: f64| (x as f32).is_finite() && x >= 0.0;
    if !at_least_zero(params.learning_rate) {
        return fail("learning_rate must be finite as a 32-bit float and not negative");
    }
    if !(0.0..1.0).contains(&params.beta1) || !(0.0..1.0).contains(&params.beta2) {
        return fail("beta1 and beta2 must be at least 0 and below 1");
    }
    if !at_least_zero(params.eps)
        || !at_least_zero(params.weight_decay)
        || !at_least_zero(params.grad_clip_norm)
    {
        return fail("eps, weight_decay and grad_clip_norm must be finite as 32-bit floats and not negative");
    }
    Ok(())
}

/// What AdamW remembers between steps.
#[derive(Debug, Clone, PartialEq)]
pub struct OptimizerState {
    layout: Arc<Layout>,
    step: u64,
    m: Vec<f32>,
    v: Vec<f32>,
}

/// Prefix of the exported names of the running mean of gradients.
const M_PREFIX: &str = "exp_avg.";
/// Prefix of the exported names of the running mean of squared gradients.
const V_PREFIX: &str = "exp_avg_sq.";

impl OptimizerState {
    /// The state before the first step.
    pub fn new(layout: &Arc<Layout>) -> Self {
        let zeros = vec![0.0; layout.parameter_count()];
        Self { layout: Arc::clone(layout), step: 0, m: zeros.clone(), v: zeros }
    }

    /// A state of the given values: exactly the tensors that [`Self::to_tensors`] gives, in any order.
    pub fn from_tensors(
        layout: &Arc<Layout>,
        step: u64,
        tensors: impl IntoIterator<Item = NamedTensor>,
    ) -> Result<Self, NnError> {
        let mut tensors = by_name(tensors)?;
        let m = take_tensors(layout, M_PREFIX, &mut tensors)?;
        let v = take_tensors(layout, V_PREFIX, &mut tensors)?;
        expect_none_left(tensors)?;
        Ok(Self { layout: Arc::clone(layout), step, m, v })
    }

    /// The state's tensors: names are the adapter's after `exp_avg.` and `exp_avg_sq.`, torch's words for them.
    pub fn to_tensors(&self) -> Vec<NamedTensor> {
        let named = |prefix: &'static str| {
            move |view: TensorView<'_>| {
                let tensor = view.to_owned();
                NamedTensor { name: format!("{prefix}{}", tensor.name), ..tensor }
            }
        };
        let m = views(&self.layout, &self.m).map(named(M_PREFIX));
        m.chain(views(&self.layout, &self.v).map(named(V_PREFIX))).collect()
    }

    /// A state of moments as [`Self::moments`] gives them.
    pub fn from_moments(layout: &Arc<Layout>, step: u64, moments: [Vec<f32>; 2]) -> Result<Self, NnError> {
        let [m, v] = moments;
        Ok(Self { layout: Arc::clone(layout), step, m: layout.fitting(m)?, v: layout.fitting(v)? })
    }

    /// The running means of gradients and of squared gradients, in the layout's order.
    pub fn moments(&self) -> [&[f32]; 2] {
        [&self.m, &self.v]
    }

    /// How many steps were taken.
    pub fn step(&self) -> u64 {
        self.step
    }

    /// Whether all values are finite.
    pub fn is_finite(&self) -> bool {
        self.m.iter().chain(&self.v).all(|x| x.is_finite())
    }
}

/// What a step tells of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepMetrics {
    /// Euclidean norm of all gradients together, before clipping.
    pub grad_norm: f64,
}

/// Takes one step and zeroes the gradients. Without pending gradients it steps with zeros.
///
/// A step that would leave anything that is not finite is not taken: adapter, gradients and state stay as they are.
pub fn optim_step(
    adapter: &mut Adapter,
    gradients: &mut Gradients,
    state: &mut OptimizerState,
    params: &AdamParams,
) -> Result<StepMetrics, NnError> {
    if !same_layout(&adapter.layout, &gradients.layout) || !same_layout(&adapter.layout, &state.layout) {
        return Err(NnError::LayoutMismatch);
    }
    validate(params)?;
    let grad_norm = norm(&gradients.data);
    let clip = if params.grad_clip_norm > 0.0 {
        // torch's guard against a division by zero.
        (params.grad_clip_norm / (grad_norm + 1e-6)).min(1.0) as f32
    } else {
        1.0
    };
    let step = state.step + 1;
    // The scalars are worked out in f64, as Python does, and applied in f32.
    let correction1 = 1.0 - power(params.beta1, step);
    let correction2 = 1.0 - power(params.beta2, step);
    let decay = (1.0 - params.learning_rate * params.weight_decay) as f32;
    let step_size = (params.learning_rate / correction1) as f32;
    let root2 = correction2.sqrt() as f32;
    let (keep1, take1) = (params.beta1 as f32, (1.0 - params.beta1) as f32);
    let (keep2, take2) = (params.beta2 as f32, (1.0 - params.beta2) as f32);
    let eps = params.eps as f32;
    let moved = |value: f32, grad: f32, m: f32, v: f32| {
        let g = grad * clip;
        let m = keep1 * m + take1 * g;
        let v = keep2 * v + take2 * g * g;
        let denominator = v.sqrt() / root2 + eps;
        // 0 / 0 where no gradient ever came and eps vanishes: nothing moves.
        let update = if denominator > 0.0 { m / denominator } else { 0.0 };
        [decay * value - step_size * update, m, v]
    };
    // Worked out twice rather than kept twice: first whether it can be done, then in place.
    let before = adapter.data.iter().zip(&gradients.data).zip(state.m.iter().zip(&state.v));
    let finite = vectorized(|| {
        // To the end even where it fails early: a loop without a way out becomes vector code.
        before.fold(true, |finite, ((value, grad), (m, v))| {
            let [value, m, v] = moved(*value, *grad, *m, *v);
            finite & value.is_finite() & m.is_finite() & v.is_finite()
        })
    });
    if !finite {
        return Err(NnError::StepNotFinite);
    }
    state.step = step;
    let moments = state.m.iter_mut().zip(state.v.iter_mut());
    vectorized(|| {
        for ((value, grad), (m, v)) in adapter.data.iter_mut().zip(&gradients.data).zip(moments) {
            [*value, *m, *v] = moved(*value, *grad, *m, *v);
        }
    });
    gradients.zero();
    Ok(StepMetrics { grad_norm })
}

/// A whole power by squaring: the same bits everywhere, unlike a C library's `pow`.
fn power(base: f64, exponent: u64) -> f64 {
    let (mut result, mut square, mut left) = (1.0, base, exponent);
    while left > 0 {
        if left & 1 == 1 {
            result *= square;
        }
        square *= square;
        left >>= 1;
    }
    result
}

/// Euclidean norm in f64, in a fixed order.
fn norm(values: &[f32]) -> f64 {
    let mut lanes = [0.0_f64; 8];
    vectorized(|| {
        for chunk in values.chunks(8) {
            for (lane, value) in lanes.iter_mut().zip(chunk) {
                *lane += f64::from(*value) * f64::from(*value);
            }
        }
    });
    lanes.iter().sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::config::{LoraConfig, ModelConfig};
    use super::*;

    /// Parameters after four steps on two entries that start at 1 and -2; all others have no gradient.
    fn run(params: &AdamParams) -> Vec<[f64; 3]> {
        let lora = LoraConfig { rank: 1, train_attn: false, train_mlp: false, ..LoraConfig::default() };
        let mut adapter = Adapter::new(&ModelConfig::builtin()[1], &lora).unwrap();
        let mut gradients = Gradients::zeros(adapter.layout());
        let mut state = OptimizerState::new(adapter.layout());
        adapter.data[..3].copy_from_slice(&[1.0, -2.0, 1.0]);
        let mut seen = Vec::new();
        for grads in [[3.0, -4.0], [0.5, 0.25], [0.0, 0.0], [-1.0, 2.0]] {
            gradients.data[..2].copy_from_slice(&grads);
            let metrics = optim_step(&mut adapter, &mut gradients, &mut state, params).unwrap();
            assert!(gradients.data.iter().all(|g| *g == 0.0));
            seen.push([f64::from(adapter.data[0]), f64::from(adapter.data[1]), metrics.grad_norm]);
        }
        assert_eq!(state.step(), 4);
        let decayed = (1.0 - params.learning_rate * params.weight_decay).powi(4);
        assert!((f64::from(adapter.data[2]) - decayed).abs() < 1e-6);
        seen
    }

    fn assert_close(found: &[[f64; 3]], expected: &[[f64; 3]]) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            assert!((found - expected).abs() < 2e-6, "{found} is not {expected}");
        }
    }

    const PARAMS: AdamParams = AdamParams {
        learning_rate: 0.1,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        grad_clip_norm: 0.0,
    };

    // The expected numbers come from the update rule of torch's documentation, evaluated in double precision in Python.
    #[test]
    fn steps_as_torch_does() {
        assert_close(
            &run(&PARAMS),
            &[
                [0.890_000_000_333, -1.880_000_000_250, 5.0],
                [0.801_818_411_508, -1.798_177_493_746, 0.559_016_994_375],
                [0.731_722_918_419, -1.730_849_235_374, 0.0],
                [0.694_588_054_494, -1.704_062_149_771, 2.236_067_977_500],
            ],
        );
    }

    #[test]
    fn clips_as_torch_does_and_reports_the_norm_before() {
        assert_close(
            &run(&AdamParams { grad_clip_norm: 1.0, ..PARAMS }),
            &[
                [0.890_000_001_667, -1.880_000_001_250, 5.0],
                [0.781_757_249_380, -1.819_014_607_217, 0.559_016_994_375],
                [0.696_154_521_484, -1.767_793_390_880, 0.0],
                [0.663_363_309_014, -1.774_388_389_011, 2.236_067_977_500],
            ],
        );
    }

    #[test]
    fn a_step_that_would_not_be_finite_is_not_taken() {
        let lora = LoraConfig { rank: 1, train_attn: false, train_mlp: false, ..LoraConfig::default() };
        let mut adapter = Adapter::new(&ModelConfig::builtin()[1], &lora).unwrap();
        let mut gradients = Gradients::zeros(adapter.layout());
        let mut state = OptimizerState::new(adapter.layout());
        let last = gradients.data.len() - 1;
        gradients.data[0] = 1.0;
        gradients.data[last] = 1.0;
        let (weights, moments, given) = (adapter.clone(), state.clone(), gradients.clone());
        let mut step = |params: AdamParams| {
            let error = optim_step(&mut adapter, &mut gradients, &mut state, &params).unwrap_err();
            assert_eq!((&adapter, &state, &gradients), (&weights, &moments, &given), "{params:?}");
            error
        };
        // Each fits an f32; the step size, or the decay, does not.
        for params in [
            AdamParams { learning_rate: 1e38, ..PARAMS },
            AdamParams { learning_rate: 1e20, weight_decay: 1e20, ..PARAMS },
        ] {
            assert_eq!(step(params), NnError::StepNotFinite, "{params:?}");
        }
        for params in [
            AdamParams { learning_rate: 1e39, ..PARAMS },
            AdamParams { learning_rate: f64::NAN, ..PARAMS },
            AdamParams { eps: 1e39, ..PARAMS },
            AdamParams { weight_decay: 1e39, ..PARAMS },
            AdamParams { grad_clip_norm: 1e39, ..PARAMS },
        ] {
            assert!(matches!(step(params), NnError::InvalidOptimizer(_)), "{params:?}");
        }
    }

    #[test]
    fn whole_powers_agree_with_repeated_multiplication() {
        assert_eq!(power(0.5, 10), 1.0 / 1024.0);
        assert_eq!(power(0.9, 0), 1.0);
        assert!((power(0.999, 1000) - 0.999_f64.powi(1000)).abs() < 1e-12);
    }
}
