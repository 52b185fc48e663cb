//! Tensors: flat, row-major buffers of float32 or int64, and their protobuf and JSON forms.

use serde::{Deserialize, Serialize};

use crate::proto;

/// The values of a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "dtype", content = "data", rename_all = "lowercase")]
pub enum TensorValues {
    /// 32-bit floats.
    Float32(Vec<f32>),
    /// 64-bit integers.
    Int64(Vec<i64>),
}

/// A dense tensor. One that arrives sparse is made dense, with 0 in the cells that it does not list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "JsonTensor")]
pub struct TensorData {
    /// The values, row-major.
    #[serde(flatten)]
    pub values: TensorValues,
    /// The shape; absent = one dimension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u64>>,
}

/// What JSON may say of a tensor.
#[derive(Deserialize)]
struct JsonTensor {
    #[serde(flatten)]
    values: TensorValues,
    #[serde(default)]
    shape: Option<Vec<u64>>,
    /// Where each row's values begin, and where the last one's end.
    #[serde(default)]
    sparse_crow_indices: Option<Vec<i64>>,
    /// The column of each value.
    #[serde(default)]
    sparse_col_indices: Option<Vec<i64>>,
}

impl TryFrom<JsonTensor> for TensorData {
    type Error = TensorError;

    fn try_from(tensor: JsonTensor) -> Result<Self, TensorError> {
        let JsonTensor { values, shape, sparse_crow_indices, sparse_col_indices } = tensor;
        let values = match (sparse_crow_indices, sparse_col_indices) {
            (None, None) => values,
            (Some(crow), Some(col)) => {
                let sizes: Vec<i64> =
                    shape.iter().flatten().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect();
                densify(values, &crow, &col, &sizes)?
            }
            _ => return Err(TensorError::Sparse("the row bounds or the columns are missing")),
        };
        Ok(Self { values, shape })
    }
}

/// Why bytes are not a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The number of bytes is not a multiple of the element's size.
    #[error("{bytes} bytes do not divide into elements of {size} bytes")]
    Ragged {
        /// Bytes given.
        bytes: usize,
        /// Bytes of one element.
        size: usize,
    },
    /// An element type that this place does not take.
    #[error("element type {0} is not supported here")]
    Dtype(i32),
    /// The shape does not hold the number of elements given.
    #[error("shape {shape:?} does not hold {elements} elements")]
    Shape {
        /// The shape given.
        shape: Vec<i64>,
        /// Elements given.
        elements: usize,
    },
    /// A sparse tensor's indices do not fit its shape.
    #[error("the sparse tensor's indices do not fit its shape: {0}")]
    Sparse(&'static str),
    /// Nothing inside.
    #[error("the tensor is empty of any encoding")]
    Missing,
    /// The offsets of a batched tensor do not fit its data.
    #[error("the offsets of field '{0}' do not fit its data")]
    Offsets(String),
}

impl TensorData {
    /// A vector of floats.
    pub fn float32(values: Vec<f32>) -> Self {
        Self { values: TensorValues::Float32(values), shape: None }
    }

    /// A vector of integers.
    pub fn int64(values: Vec<i64>) -> Self {
        Self { values: TensorValues::Int64(values), shape: None }
    }

    /// How many elements.
    pub fn len(&self) -> usize {
        match &self.values {
            TensorValues::Float32(v) => v.len(),
            TensorValues::Int64(v) => v.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes as the SDK estimates them for chunking: 4 a float, 8 an integer.
    pub fn estimated_bytes(&self) -> usize {
        match &self.values {
            TensorValues::Float32(v) => v.len() * 4,
            TensorValues::Int64(v) => v.len() * 8,
        }
    }

    /// As floats; integers are converted.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.values {
            TensorValues::Float32(v) => v.clone(),
            TensorValues::Int64(v) => v.iter().map(|&x| x as f32).collect(),
        }
    }

    /// As integers; `None` for floats.
    pub fn as_i64(&self) -> Option<&[i64]> {
        match &self.values {
            TensorValues::Int64(v) => Some(v),
            TensorValues::Float32(_) => None,
        }
    }

    /// The protobuf form.
    pub fn to_proto(&self) -> proto::Tensor {
        let (dense, dtype) = match &self.values {
            TensorValues::Float32(v) => (f32_bytes(v), proto::DType::Float32),
            TensorValues::Int64(v) => (i64_bytes(v), proto::DType::Int64),
        };
        let shape = match &self.shape {
            Some(shape) => shape.iter().map(|&d| d as i64).collect(),
            None => vec![self.len() as i64],
        };
        proto::Tensor {
            encoding: Some(proto::tensor::Encoding::Dense(dense.into())),
            dtype: dtype as i32,
            shape,
        }
    }

    /// Reads the protobuf form; a sparse matrix is made dense, with 0 in the cells that it does not list.
    pub fn from_proto(tensor: &proto::Tensor) -> Result<Self, TensorError> {
        let values = |bytes: &[u8]| match proto::DType::try_from(tensor.dtype) {
            Ok(proto::DType::Float32) => Ok(TensorValues::Float32(f32_values(bytes)?)),
            Ok(proto::DType::Int64) => Ok(TensorValues::Int64(i64_values(bytes)?)),
            Ok(proto::DType::Int32) => {
                Ok(TensorValues::Int64(i32_values(bytes)?.into_iter().map(i64::from).collect()))
            }
            _ => Err(TensorError::Dtype(tensor.dtype)),
        };
        let data = match &tensor.encoding {
            Some(proto::tensor::Encoding::Dense(bytes)) => {
                let values = values(bytes)?;
                Self { values, shape: None }
            }
            Some(proto::tensor::Encoding::SparseCsr(csr)) => {
                let values = densify(
                    values(&csr.values)?,
                    &i64_values(&csr.crow_indices)?,
                    &i64_values(&csr.col_indices)?,
                    &tensor.shape,
                )?;
                Self { values, shape: None }
            }
            None => return Err(TensorError::Missing),
        };
        if tensor.shape.is_empty() {
            return Ok(data);
        }
        let product = tensor.shape.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?));
        if product != Some(data.len()) {
            return Err(TensorError::Shape { shape: tensor.shape.clone(), elements: data.len() });
        }
        Ok(Self { shape: Some(tensor.shape.iter().map(|&d| d as u64).collect()), ..data })
    }
}

/// The largest dense size that a sparse tensor may claim: 2^28 cells, so that a small request cannot ask for all memory.
const MAX_CELLS: usize = 1 << 28;

fn densify(
    values: TensorValues,
    crow: &[i64],
    col: &[i64],
    shape: &[i64],
) -> Result<TensorValues, TensorError> {
    let &[rows, cols] = shape else { return Err(TensorError::Sparse("the shape is not two-dimensional")) };
    let (rows, cols) = match (usize::try_from(rows), usize::try_from(cols)) {
        (Ok(rows), Ok(cols)) if rows.checked_mul(cols).is_some_and(|n| n <= MAX_CELLS) => (rows, cols),
        _ => return Err(TensorError::Sparse("the shape is too large")),
    };
    let listed = match &values {
        TensorValues::Float32(v) => v.len(),
        TensorValues::Int64(v) => v.len(),
    };
    if crow.len() != rows + 1 || col.len() != listed {
        return Err(TensorError::Sparse("the index counts do not fit"));
    }
    let mut cells = Vec::with_capacity(listed);
    for (row, bounds) in crow.windows(2).enumerate() {
        let &[from, to] = bounds else { return Err(TensorError::Sparse("a row has no bounds")) };
        let (Ok(from), Ok(to)) = (usize::try_from(from), usize::try_from(to)) else {
            return Err(TensorError::Sparse("a row bound is negative"));
        };
        let Some(columns) = col.get(from..to) else {
            return Err(TensorError::Sparse("row bounds out of range"));
        };
        for &column in columns {
            match usize::try_from(column) {
                Ok(column) if column < cols => cells.push(row * cols + column),
                _ => return Err(TensorError::Sparse("a column is out of range")),
            }
        }
    }
    if cells.len() != listed {
        return Err(TensorError::Sparse("the rows do not list every value"));
    }
    fn spread<T: Copy + Default>(values: &[T], cells: &[usize], size: usize) -> Vec<T> {
        let mut dense = vec![T::default(); size];
        for (&cell, &value) in cells.iter().zip(values) {
            if let Some(slot) = dense.get_mut(cell) {
                *slot = value;
            }
        }
        dense
    }
    Ok(match values {
        TensorValues::Float32(v) => TensorValues::Float32(spread(&v, &cells, rows * cols)),
        TensorValues::Int64(v) => TensorValues::Int64(spread(&v, &cells, rows * cols)),
    })
}

macro_rules! little_endian {
    ($to:ident, $from:ident, $type:ty, $size:literal, $what:literal) => {
        #[doc = concat!("Little-endian bytes of ", $what, ".")]
        pub fn $to(values: &[$type]) -> Vec<u8> {
            values.iter().flat_map(|v| v.to_le_bytes()).collect()
        }

        #[doc = concat!("Reads little-endian ", $what, ".")]
        pub fn $from(bytes: &[u8]) -> Result<Vec<$type>, TensorError> {
            let (chunks, rest) = bytes.as_chunks::<$size>();
            if !rest.is_empty() {
                return Err(TensorError::Ragged { bytes: bytes.len(), size: $size });
            }
            Ok(chunks.iter().map(|c| <$type>::from_le_bytes(*c)).collect())
        }
    };
}

little_endian!(f32_bytes, f32_values, f32, 4, "32-bit floats");
little_endian!(i64_bytes, i64_values, i64, 8, "64-bit integers");
little_endian!(i32_bytes, i32_values, i32, 4, "32-bit integers");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proto_round_trip() {
        for tensor in [TensorData::float32(vec![1.5, f32::NAN, -0.0]), TensorData::int64(vec![i64::MIN, 7])] {
            let back = TensorData::from_proto(&tensor.to_proto()).unwrap();
            assert_eq!(format!("{:?}", back.values), format!("{:?}", tensor.values));
            assert_eq!(back.shape, Some(vec![tensor.len() as u64]));
        }
    }

    #[test]
    fn sparse_becomes_dense() {
        let tensor = proto::Tensor {
            encoding: Some(proto::tensor::Encoding::SparseCsr(proto::SparseCsr {
                values: f32_bytes(&[1.0, 2.0, 3.0]).into(),
                crow_indices: i64_bytes(&[0, 1, 3]).into(),
                col_indices: i64_bytes(&[2, 0, 1]).into(),
            })),
            dtype: proto::DType::Float32 as i32,
            shape: vec![2, 3],
        };
        let dense = TensorData::from_proto(&tensor).unwrap();
        assert_eq!(dense.values, TensorValues::Float32(vec![0.0, 0.0, 1.0, 2.0, 3.0, 0.0]));
    }

    #[test]
    fn sparse_json_becomes_dense() {
        let read = |json: serde_json::Value| serde_json::from_value::<TensorData>(json);
        let mut tensor = serde_json::json!({
            "data": [1, 2, 3], "dtype": "int64", "shape": [2, 3],
            "sparse_crow_indices": [0, 1, 3], "sparse_col_indices": [2, 0, 1],
        });
        let dense = TensorData { shape: Some(vec![2, 3]), ..TensorData::int64(vec![0, 0, 1, 2, 3, 0]) };
        assert_eq!(read(tensor.clone()).unwrap(), dense);
        // What the SDK sends for a dense one.
        let plain = serde_json::json!({
            "data": [0.5], "dtype": "float32", "shape": null,
            "sparse_crow_indices": null, "sparse_col_indices": null,
        });
        assert_eq!(read(plain).unwrap(), TensorData::float32(vec![0.5]));
        for (member, value, said) in [
            ("sparse_col_indices", serde_json::json!(null), "the row bounds or the columns are missing"),
            ("sparse_col_indices", serde_json::json!([2, 0, 3]), "a column is out of range"),
            ("shape", serde_json::json!(null), "the shape is not two-dimensional"),
            ("shape", serde_json::json!([1u64 << 40, 1u64 << 40]), "the shape is too large"),
        ] {
            let mut bad = tensor.clone();
            bad[member] = value;
            let error = read(bad).unwrap_err().to_string();
            assert!(error.ends_with(said), "{member}: {error}");
        }
        tensor["data"] = serde_json::json!([1, 2]);
        assert!(read(tensor).is_err());
    }

    #[test]
    fn bad_tensors_are_errors() {
        let mut tensor = TensorData::float32(vec![1.0, 2.0]).to_proto();
        tensor.shape = vec![3];
        assert!(matches!(TensorData::from_proto(&tensor), Err(TensorError::Shape { .. })));
        tensor.shape = vec![i64::MAX, i64::MAX];
        assert!(TensorData::from_proto(&tensor).is_err());
        tensor.encoding = Some(proto::tensor::Encoding::Dense(vec![0u8; 7].into()));
        assert!(matches!(TensorData::from_proto(&tensor), Err(TensorError::Ragged { .. })));
    }

    #[test]
    fn json_form_is_the_sdks() {
        let json = serde_json::to_value(TensorData::int64(vec![1, 2])).unwrap();
        assert_eq!(json, serde_json::json!({"data": [1, 2], "dtype": "int64"}));
        let back: TensorData =
            serde_json::from_str(r#"{"data":[0.5],"dtype":"float32","shape":[1]}"#).unwrap();
        assert_eq!(back.to_f32(), vec![0.5]);
    }
}
