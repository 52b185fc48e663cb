//! Tensors: flat, row-major buffers of float32 or int64, and their protobuf and JSON forms.

use std::borrow::Cow;

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

/// A tensor; dense, or a matrix of which only some cells are listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "JsonTensor")]
pub struct TensorData {
    /// The values, row-major.
    #[serde(flatten)]
    pub values: TensorValues,
    /// The shape; absent = one dimension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<Vec<u64>>,
    /// Which cells the values are of; `None` = all, one after the other.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub sparse: Option<SparseIndices>,
}

/// Which cells of a matrix are listed, in compressed rows (CSR).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SparseIndices {
    /// Where each row's values begin, and where the last one's end.
    #[serde(rename = "sparse_crow_indices")]
    pub crow: Vec<i64>,
    /// The column of each value.
    #[serde(rename = "sparse_col_indices")]
    pub col: Vec<i64>,
}

/// What JSON may say of a tensor.
#[derive(Deserialize)]
struct JsonTensor {
    #[serde(flatten)]
    values: TensorValues,
    #[serde(default)]
    shape: Option<Vec<u64>>,
    #[serde(default)]
    sparse_crow_indices: Option<Vec<i64>>,
    #[serde(default)]
    sparse_col_indices: Option<Vec<i64>>,
}

impl TryFrom<JsonTensor> for TensorData {
    type Error = TensorError;

    fn try_from(tensor: JsonTensor) -> Result<Self, TensorError> {
        let JsonTensor { values, shape, sparse_crow_indices, sparse_col_indices } = tensor;
        let sparse = match (sparse_crow_indices, sparse_col_indices) {
            (None, None) => None,
            (Some(crow), Some(col)) => Some(SparseIndices { crow, col }),
            _ => return Err(TensorError::Sparse("the row bounds or the columns are missing")),
        };
        Ok(Self { values, shape, sparse })
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
        Self { values: TensorValues::Float32(values), shape: None, sparse: None }
    }

    /// A vector of integers.
    pub fn int64(values: Vec<i64>) -> Self {
        Self { values: TensorValues::Int64(values), shape: None, sparse: None }
    }

    /// How many values; of a sparse tensor, those that are listed.
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

    /// Bytes as the SDK estimates them for chunking: 4 a float, 8 an integer or index.
    pub fn estimated_bytes(&self) -> usize {
        let indices = self.sparse.as_ref().map_or(0, |sparse| (sparse.crow.len() + sparse.col.len()) * 8);
        indices
            + match &self.values {
                TensorValues::Float32(v) => v.len() * 4,
                TensorValues::Int64(v) => v.len() * 8,
            }
    }

    /// Bytes of the values of [`to_dense`](Self::to_dense), however few are listed.
    pub fn dense_bytes(&self) -> u64 {
        let size = match &self.values {
            TensorValues::Float32(_) => 4,
            TensorValues::Int64(_) => 8,
        };
        let cells = match (&self.sparse, &self.shape) {
            (Some(_), Some(shape)) => shape.iter().fold(1, |cells: u64, size| cells.saturating_mul(*size)),
            _ => self.len() as u64,
        };
        cells.saturating_mul(size)
    }

    /// The same with all cells, those that are not listed as 0.
    ///
    /// # Errors
    /// If the indices do not fit the shape, or there is none.
    pub fn to_dense(&self) -> Result<Self, TensorError> {
        let Some(SparseIndices { crow, col }) = &self.sparse else { return Ok(self.clone()) };
        let sizes: Vec<i64> =
            self.shape.iter().flatten().map(|&size| i64::try_from(size).unwrap_or(i64::MAX)).collect();
        let values = densify(self.values.clone(), crow, col, &sizes)?;
        Ok(Self { values, shape: self.shape.clone(), sparse: None })
    }

    /// The same with only the cells listed that are not 0, if it is a matrix and that saves space; as the official SDK
    /// does it with the targets and weights of an example.
    #[must_use]
    pub fn to_sparse(self) -> Self {
        let Some(&[rows, cols]) = self.shape.as_deref() else { return self };
        let (Ok(rows), Ok(cols)) = (usize::try_from(rows), usize::try_from(cols)) else { return self };
        if self.sparse.is_some() || cols == 0 || rows.checked_mul(cols) != Some(self.len()) {
            return self;
        }
        fn listed<T: Copy + Default + PartialEq>(values: &[T], cols: usize) -> (Vec<T>, SparseIndices) {
            let (mut kept, mut crow, mut col) = (Vec::new(), vec![0], Vec::new());
            for row in values.chunks_exact(cols) {
                for (column, &value) in row.iter().enumerate().filter(|(_, value)| **value != T::default()) {
                    kept.push(value);
                    col.push(column as i64);
                }
                crow.push(kept.len() as i64);
            }
            (kept, SparseIndices { crow, col })
        }
        let (values, sparse) = match &self.values {
            TensorValues::Float32(values) => {
                let (kept, sparse) = listed(values, cols);
                (TensorValues::Float32(kept), sparse)
            }
            TensorValues::Int64(values) => {
                let (kept, sparse) = listed(values, cols);
                (TensorValues::Int64(kept), sparse)
            }
        };
        if sparse.crow.len() + 2 * sparse.col.len() >= self.len() {
            return self;
        }
        Self { values, shape: self.shape, sparse: Some(sparse) }
    }

    /// The little-endian bytes of the values, and their type in protobuf.
    pub fn bytes(&self) -> (Cow<'_, [u8]>, proto::DType) {
        match &self.values {
            TensorValues::Float32(values) => (f32_le(values), proto::DType::Float32),
            TensorValues::Int64(values) => (i64_le(values), proto::DType::Int64),
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
        let (values, dtype) = self.bytes();
        let values = values.into_owned();
        let shape = match &self.shape {
            Some(shape) => shape.iter().map(|&d| d as i64).collect(),
            None => vec![self.len() as i64],
        };
        let encoding = match &self.sparse {
            None => proto::tensor::Encoding::Dense(values.into()),
            Some(sparse) => proto::tensor::Encoding::SparseCsr(proto::SparseCsr {
                values: values.into(),
                crow_indices: i64_bytes(&sparse.crow).into(),
                col_indices: i64_bytes(&sparse.col).into(),
            }),
        };
        proto::Tensor { encoding: Some(encoding), dtype: dtype as i32, shape }
    }

    /// Reads the protobuf form.
    pub fn from_proto(tensor: &proto::Tensor) -> Result<Self, TensorError> {
        let values = |bytes: &[u8]| TensorValues::from_bytes(tensor.dtype, bytes);
        let bad_shape = |elements: usize| TensorError::Shape { shape: tensor.shape.clone(), elements };
        let sizes: Option<Vec<u64>> = tensor.shape.iter().map(|&size| u64::try_from(size).ok()).collect();
        match &tensor.encoding {
            Some(proto::tensor::Encoding::Dense(bytes)) => {
                let dense = Self { values: values(bytes)?, shape: None, sparse: None };
                let sizes = sizes.ok_or_else(|| bad_shape(dense.len()))?;
                if sizes.is_empty() {
                    return Ok(dense);
                }
                let product = sizes.iter().try_fold(1u64, |n, &size| n.checked_mul(size));
                if product != Some(dense.len() as u64) {
                    return Err(bad_shape(dense.len()));
                }
                Ok(Self { shape: Some(sizes), ..dense })
            }
            Some(proto::tensor::Encoding::SparseCsr(csr)) => {
                let values = values(&csr.values)?;
                let crow = i64_values(&csr.crow_indices)?;
                let col = i64_values(&csr.col_indices)?;
                let shape = Some(sizes.ok_or_else(|| bad_shape(col.len()))?);
                Ok(Self { values, shape, sparse: Some(SparseIndices { crow, col }) })
            }
            None => Err(TensorError::Missing),
        }
    }
}

impl TensorValues {
    /// Reads values of a type by its number in the protocol. Narrower ones become the wider of their kind.
    ///
    /// # Errors
    /// If the type is not known, or the bytes are no whole number of values.
    pub(crate) fn from_bytes(dtype: i32, bytes: &[u8]) -> Result<Self, TensorError> {
        match proto::DType::try_from(dtype) {
            Ok(proto::DType::Float32) => Ok(Self::Float32(f32_values(bytes)?)),
            Ok(proto::DType::Int64) => Ok(Self::Int64(i64_values(bytes)?)),
            Ok(proto::DType::Int32) => {
                Ok(Self::Int64(i32_values(bytes)?.into_iter().map(i64::from).collect()))
            }
            Ok(proto::DType::Bfloat16) => {
                let (pairs, rest) = bytes.as_chunks::<2>();
                if !rest.is_empty() {
                    return Err(TensorError::Ragged { bytes: bytes.len(), size: 2 });
                }
                // Its bits are the upper half of a float32's.
                let value = |pair: &[u8; 2]| f32::from_bits(u32::from(u16::from_le_bytes(*pair)) << 16);
                Ok(Self::Float32(pairs.iter().map(value).collect()))
            }
            _ => Err(TensorError::Dtype(dtype)),
        }
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
    ($view:ident, $to:ident, $from:ident, $type:ty, $size:literal, $what:literal) => {
        #[doc = concat!("Little-endian bytes of ", $what, "; the same memory where the machine has them so.")]
        pub fn $view(values: &[$type]) -> Cow<'_, [u8]> {
            if cfg!(target_endian = "little") {
                Cow::Borrowed(bytemuck::cast_slice(values))
            } else {
                Cow::Owned(values.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
        }

        #[doc = concat!("Little-endian bytes of ", $what, ".")]
        pub fn $to(values: &[$type]) -> Vec<u8> {
            $view(values).into_owned()
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

little_endian!(f32_le, f32_bytes, f32_values, f32, 4, "32-bit floats");
little_endian!(i64_le, i64_bytes, i64_values, i64, 8, "64-bit integers");
little_endian!(i32_le, i32_bytes, i32_values, i32, 4, "32-bit integers");

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
        let sparse = TensorData::from_proto(&tensor).unwrap();
        assert_eq!(sparse.to_proto(), tensor);
        let dense = sparse.to_dense().unwrap();
        assert_eq!(dense.clone().to_sparse(), dense, "it would save nothing");
        assert_eq!(dense.values, TensorValues::Float32(vec![0.0, 0.0, 1.0, 2.0, 3.0, 0.0]));
    }

    #[test]
    fn sparse_json_becomes_dense() {
        let read = |json: serde_json::Value| {
            let tensor = serde_json::from_value::<TensorData>(json).map_err(|e| e.to_string())?;
            tensor.to_dense().map_err(|e| e.to_string())
        };
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
            let error = read(bad).unwrap_err();
            assert!(error.ends_with(said), "{member}: {error}");
        }
        tensor["data"] = serde_json::json!([1, 2]);
        assert!(read(tensor).is_err());
    }

    #[test]
    fn a_wide_matrix_is_listed_by_its_cells() {
        let mut values = vec![0; 40];
        (values[3], values[25]) = (7, -1);
        let dense = TensorData { shape: Some(vec![2, 20]), ..TensorData::int64(values) };
        let sparse = dense.clone().to_sparse();
        let json = serde_json::json!({
            "data": [7, -1], "dtype": "int64", "shape": [2, 20],
            "sparse_crow_indices": [0, 1, 2], "sparse_col_indices": [3, 5],
        });
        assert_eq!(serde_json::to_value(&sparse).unwrap(), json);
        assert_eq!(serde_json::from_value::<TensorData>(json).unwrap(), sparse);
        assert_eq!(TensorData::from_proto(&sparse.to_proto()).unwrap(), sparse);
        assert_eq!(sparse.to_dense().unwrap(), dense);
        assert_eq!(sparse.estimated_bytes(), 2 * 8 + 5 * 8);
        assert_eq!([sparse.dense_bytes(), dense.dense_bytes()], [40 * 8; 2]);
        assert_eq!(TensorData { shape: Some(vec![u64::MAX, 2]), ..sparse }.dense_bytes(), u64::MAX);
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
