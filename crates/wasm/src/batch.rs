//! Batches out of typed arrays, and tensors back into them. Each array is copied once, as a whole.

use std::collections::BTreeMap;

use js_sys::{Array, BigInt64Array, Float32Array, Function, Int32Array, Object, Reflect, Uint8Array};
use retinker::client::CustomLoss;
use retinker::json;
use retinker::wire::tensor::{SparseIndices, TensorData, TensorValues};
use retinker::wire::training::{Datum, ForwardBackwardOutput, ImageFormat, ModelInput, ModelInputChunk};
use wasm_bindgen::prelude::*;

use crate::call::Outcome;
use crate::failure::Failure;

#[wasm_bindgen]
extern "C" {
    /// An example as the facade gives it: its arrays are typed, its tensors in a list.
    type RawDatum;
    #[wasm_bindgen(method, getter)]
    fn chunks(this: &RawDatum) -> Array;
    #[wasm_bindgen(method, getter)]
    fn tensors(this: &RawDatum) -> Array;

    type RawTensor;
    #[wasm_bindgen(method, getter)]
    fn name(this: &RawTensor) -> String;
    #[wasm_bindgen(method, getter)]
    fn data(this: &RawTensor) -> JsValue;
    #[wasm_bindgen(method, getter)]
    fn shape(this: &RawTensor) -> Option<Vec<f64>>;
    #[wasm_bindgen(method, getter)]
    fn crow(this: &RawTensor) -> Option<BigInt64Array>;
    #[wasm_bindgen(method, getter)]
    fn col(this: &RawTensor) -> Option<BigInt64Array>;

    /// A piece of what a model reads that is not text.
    type RawChunk;
    #[wasm_bindgen(method, getter)]
    fn format(this: &RawChunk) -> Option<String>;
    #[wasm_bindgen(method, getter)]
    fn bytes(this: &RawChunk) -> Option<Uint8Array>;
    #[wasm_bindgen(method, getter)]
    fn location(this: &RawChunk) -> Option<String>;
    #[wasm_bindgen(method, getter, js_name = expectedTokens)]
    fn expected_tokens(this: &RawChunk) -> Option<f64>;
}

/// Examples out of the facade's.
pub(crate) fn data(raw: &Array) -> Result<Vec<Datum>, Failure> {
    raw.iter().map(|datum| example(datum.unchecked_ref())).collect()
}

fn example(raw: &RawDatum) -> Result<Datum, Failure> {
    let tensors = raw.tensors();
    let tensors = tensors.iter().map(|tensor| {
        let tensor: &RawTensor = tensor.unchecked_ref();
        Ok((tensor.name(), values(tensor)?))
    });
    Ok(Datum {
        model_input: input(&raw.chunks())?,
        loss_fn_inputs: tensors.collect::<Result<BTreeMap<_, _>, Failure>>()?,
        provenance: None,
    })
}

/// What a model reads.
pub(crate) fn input(chunks: &Array) -> Result<ModelInput, Failure> {
    let chunks = chunks.iter().map(|chunk| match chunk.dyn_ref::<Int32Array>() {
        Some(tokens) => Ok(ModelInputChunk::EncodedText { tokens: tokens.to_vec() }),
        None => picture(chunk.unchecked_ref()),
    });
    Ok(ModelInput { chunks: chunks.collect::<Result<_, Failure>>()? })
}

fn picture(raw: &RawChunk) -> Result<ModelInputChunk, Failure> {
    let expected_tokens = raw.expected_tokens().map(|tokens| tokens as u32);
    let format = || match raw.format().as_deref() {
        Some("png") => Ok(ImageFormat::Png),
        Some("jpeg") => Ok(ImageFormat::Jpeg),
        other => Err(Failure::config(format!(
            "a picture's format is 'png' or 'jpeg', not '{}'",
            other.unwrap_or("nothing")
        ))),
    };
    Ok(match (raw.bytes(), raw.location()) {
        (Some(bytes), _) if raw.format().is_none() => ModelInputChunk::Dmel { dmel: bytes.to_vec().into() },
        (Some(bytes), _) => {
            ModelInputChunk::Image { data: bytes.to_vec().into(), format: format()?, expected_tokens }
        }
        (None, Some(location)) => {
            ModelInputChunk::ImageAssetPointer { format: format()?, location, expected_tokens }
        }
        (None, None) => {
            return Err(Failure::config("a piece of a model's input is neither tokens, a picture nor sound"));
        }
    })
}

fn values(raw: &RawTensor) -> Result<TensorData, Failure> {
    let data = raw.data();
    let values = if let Some(floats) = data.dyn_ref::<Float32Array>() {
        TensorValues::Float32(floats.to_vec())
    } else if let Some(numbers) = data.dyn_ref::<BigInt64Array>() {
        TensorValues::Int64(numbers.to_vec())
    } else if let Some(numbers) = data.dyn_ref::<Int32Array>() {
        // Token ids, as JavaScript holds them: widened here, where that costs nothing.
        TensorValues::Int64(numbers.to_vec().into_iter().map(i64::from).collect())
    } else {
        return Err(Failure::config(format!(
            "tensor '{}' is no Float32Array, Int32Array or BigInt64Array",
            raw.name()
        )));
    };
    let sparse = raw.crow().zip(raw.col());
    Ok(TensorData {
        values,
        shape: raw.shape().map(|shape| shape.into_iter().map(|side| side as u64).collect()),
        sparse: sparse.map(|(crow, col)| SparseIndices { crow: crow.to_vec(), col: col.to_vec() }),
    })
}

/// A tensor as the facade shows it.
pub(crate) fn tensor(tensor: &TensorData) -> Outcome {
    let object = Object::new();
    let (data, dtype): (JsValue, _) = match &tensor.values {
        TensorValues::Float32(values) => (Float32Array::from(values.as_slice()).into(), "float32"),
        TensorValues::Int64(values) => (BigInt64Array::from(values.as_slice()).into(), "int64"),
    };
    put(&object, "data", &data);
    put(&object, "dtype", &dtype.into());
    if let Some(shape) = &tensor.shape {
        let sides = shape.iter().map(|&side| JsValue::from_f64(side as f64));
        put(&object, "shape", &sides.collect::<Array>());
    }
    if let Some(SparseIndices { crow, col }) = &tensor.sparse {
        put(&object, "crow", &BigInt64Array::from(crow.as_slice()).into());
        put(&object, "col", &BigInt64Array::from(col.as_slice()).into());
    }
    Ok(object.into())
}

/// What a pass gives.
pub(crate) fn output(output: &ForwardBackwardOutput) -> Outcome {
    let object = Object::new();
    put(&object, "lossFnOutputType", &JsValue::from_str(&output.loss_fn_output_type));
    let outputs = Array::new();
    for fields in &output.loss_fn_outputs {
        let record = Object::new();
        for (name, values) in fields {
            put(&record, name, &tensor(values)?);
        }
        outputs.push(&record);
    }
    put(&object, "lossFnOutputs", &outputs);
    // As numbers: in JSON there is no NaN, which is what the loss of a run that diverges is.
    let metrics = Object::new();
    for (name, value) in &output.metrics {
        put(&metrics, name, &JsValue::from_f64(*value));
    }
    put(&object, "metrics", &metrics);
    Ok(object.into())
}

/// What a loss of the program's own says of these log-probabilities. The facade has it say so in a form that it has checked.
pub(crate) fn custom_loss(loss: &Function, logprobs: &[Vec<f32>]) -> Result<CustomLoss, String> {
    let given: Array = logprobs.iter().map(|one| Float32Array::from(one.as_slice())).collect();
    let said = loss.call1(&JsValue::UNDEFINED, &given).map_err(|_| "the loss threw an error".to_owned())?;
    if let Some(why) = said.as_string() {
        return Err(why);
    }
    let said: Array = said.unchecked_into();
    let gradients: Array = said.get(1).unchecked_into();
    let metrics = said.get(2).as_string().unwrap_or_default();
    Ok(CustomLoss {
        loss: said.get(0).as_f64().unwrap_or(f64::NAN),
        gradients: gradients.iter().map(|one| one.unchecked_into::<Float32Array>().to_vec()).collect(),
        metrics: json::read(metrics.as_bytes()).map_err(|error| error.to_string())?,
    })
}

/// Sets a member of a plain object of our own, which takes every one.
pub(crate) fn put(object: &Object, name: &str, value: &JsValue) {
    let _ = Reflect::set(object, &JsValue::from_str(name), value);
}
