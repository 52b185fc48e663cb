//! Adapters and their gradients: named tensors in flat buffers.
#![allow(clippy::indexing_slicing)] // Offsets come from the layout that sized the buffers.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::{LoraConfig, ModelConfig};
use super::error::NnError;
use super::layout::Layout;
use super::rng::Rng;

/// A tensor by itself, as read from or written to a file.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedTensor {
    /// The tensor's name.
    pub name: String,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// The values, row by row.
    pub data: Vec<f32>,
}

/// A tensor within an adapter, gradients or an optimizer state.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TensorView<'a> {
    /// The name PEFT gives the adapter's tensor.
    pub name: &'a str,
    /// Rows and columns.
    pub shape: [usize; 2],
    /// The values, row by row.
    pub data: &'a [f32],
}

impl TensorView<'_> {
    /// A copy that stands by itself.
    pub fn to_owned(&self) -> NamedTensor {
        NamedTensor { name: self.name.to_owned(), shape: self.shape, data: self.data.to_vec() }
    }
}

/// The tensors of a flat buffer, in the layout's order.
pub(crate) fn views<'a>(layout: &'a Layout, data: &'a [f32]) -> impl Iterator<Item = TensorView<'a>> {
    layout.tensors().iter().map(|spec| TensorView {
        name: &spec.name,
        shape: spec.shape,
        data: &data[spec.offset..spec.offset + spec.len()],
    })
}

/// Fills a flat buffer from tensors named `prefix` and the layout's name, and takes them out of `tensors`.
pub(crate) fn take_tensors(
    layout: &Layout,
    prefix: &str,
    tensors: &mut BTreeMap<String, NamedTensor>,
) -> Result<Vec<f32>, NnError> {
    let mut data = vec![0.0; layout.parameter_count()];
    for spec in layout.tensors() {
        let name = format!("{prefix}{}", spec.name);
        let Some(tensor) = tensors.remove(&name) else { return Err(NnError::MissingTensor(name)) };
        if tensor.shape != spec.shape || tensor.data.len() != spec.len() {
            return Err(NnError::WrongShape {
                name,
                expected: spec.shape,
                found: tensor.shape,
                values: tensor.data.len(),
            });
        }
        data[spec.offset..spec.offset + spec.len()].copy_from_slice(&tensor.data);
    }
    Ok(data)
}

/// Tensors by name; a name given twice is refused.
pub(crate) fn by_name(
    tensors: impl IntoIterator<Item = NamedTensor>,
) -> Result<BTreeMap<String, NamedTensor>, NnError> {
    let mut map = BTreeMap::new();
    for tensor in tensors {
        if let Some(twice) = map.insert(tensor.name.clone(), tensor) {
            return Err(NnError::UnexpectedTensor(twice.name));
        }
    }
    Ok(map)
}

/// Refuses tensors that nothing took.
pub(crate) fn expect_none_left(tensors: BTreeMap<String, NamedTensor>) -> Result<(), NnError> {
    match tensors.into_keys().next() {
        Some(name) => Err(NnError::UnexpectedTensor(name)),
        None => Ok(()),
    }
}

/// The trained part of a model: low-rank additions `scale * B A` to base weights.
#[derive(Debug, Clone, PartialEq)]
pub struct Adapter {
    pub(super) layout: Arc<Layout>,
    pub(super) data: Vec<f32>,
}

impl Adapter {
    /// A new adapter, which leaves the model as it is: `A` uniform in `+-1 / sqrt(in)` (PEFT's
    /// `kaiming_uniform_(a = sqrt(5))`), `B` zero.
    pub fn new(model: &ModelConfig, lora: &LoraConfig) -> Result<Self, NnError> {
        let layout = Layout::new(model, lora)?;
        let mut data = vec![0.0; layout.parameter_count()];
        for spec in layout.tensors().iter().filter(|spec| spec.name.ends_with("lora_A.weight")) {
            let [_, input] = spec.shape;
            let values = &mut data[spec.offset..spec.offset + spec.len()];
            Rng::for_label(lora.seed, &spec.name).fill_uniform(values, 1.0 / (input as f32).sqrt());
        }
        Ok(Self { layout: Arc::new(layout), data })
    }

    /// An adapter of the given values: exactly the tensors of the layout, in any order.
    pub fn from_tensors(
        model: &ModelConfig,
        lora: &LoraConfig,
        tensors: impl IntoIterator<Item = NamedTensor>,
    ) -> Result<Self, NnError> {
        let layout = Layout::new(model, lora)?;
        let mut tensors = by_name(tensors)?;
        let data = take_tensors(&layout, "", &mut tensors)?;
        expect_none_left(tensors)?;
        Ok(Self { layout: Arc::new(layout), data })
    }

    /// An adapter of values as [`Self::values`] gives them.
    pub fn from_values(layout: &Arc<Layout>, values: Vec<f32>) -> Result<Self, NnError> {
        Ok(Self { layout: Arc::clone(layout), data: layout.fitting(values)? })
    }

    /// All values, in the layout's order.
    pub fn values(&self) -> &[f32] {
        &self.data
    }

    /// What tensors it has; gradients and optimizer states are made from it.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The tensors, in the order of [`Layout::tensors`].
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        views(&self.layout, &self.data)
    }

    /// Whether all values are finite.
    pub fn is_finite(&self) -> bool {
        self.data.iter().all(|x| x.is_finite())
    }

    /// How many trained parameters it has.
    pub fn parameter_count(&self) -> usize {
        self.data.len()
    }
}

/// The sum of the gradients of every loss since the last optimizer step.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradients {
    pub(super) layout: Arc<Layout>,
    pub(super) data: Vec<f32>,
}

impl Gradients {
    /// Zero gradients.
    pub fn zeros(layout: &Arc<Layout>) -> Self {
        Self { layout: Arc::clone(layout), data: vec![0.0; layout.parameter_count()] }
    }

    /// Gradients of values as [`Self::values`] gives them.
    pub fn from_values(layout: &Arc<Layout>, values: Vec<f32>) -> Result<Self, NnError> {
        Ok(Self { layout: Arc::clone(layout), data: layout.fitting(values)? })
    }

    /// All values, in the layout's order.
    pub fn values(&self) -> &[f32] {
        &self.data
    }

    /// Forgets what was accumulated.
    pub fn zero(&mut self) {
        self.data.fill(0.0);
    }

    /// The tensors, in the order of [`Layout::tensors`].
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        views(&self.layout, &self.data)
    }
}

/// Whether two layouts are the same, quickly when they are shared.
pub(crate) fn same_layout(a: &Arc<Layout>, b: &Arc<Layout>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}
