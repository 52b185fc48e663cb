//! What a model reads: tokens, pictures and sound, in both encodings.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::proto;
use crate::tensor;
use crate::training::DatumError;

/// How a picture is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ImageFormat {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
}

impl ImageFormat {
    /// The format's name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpeg",
        }
    }
}

/// A piece of model input, tagged by `type`; binary data is base64 in JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ModelInputChunk {
    /// Tokens.
    EncodedText {
        /// Token ids.
        tokens: Vec<i32>,
    },
    /// A picture.
    Image {
        /// The file.
        #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
        data: Bytes,
        /// How it is encoded.
        format: ImageFormat,
        /// How many tokens it should count as; the server counts itself, and refuses what does not agree.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expected_tokens: Option<u32>,
    },
    /// A picture that the server fetches. Not for training: protobuf has no place for it.
    ImageAssetPointer {
        /// How it is encoded.
        format: ImageFormat,
        /// Its path or address.
        location: String,
        /// How many tokens it should count as.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        expected_tokens: Option<u32>,
    },
    /// Discretised sound: the bytes of a TensorContainer.
    Dmel {
        /// The bytes.
        #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
        dmel: Bytes,
    },
}

fn to_base64<S: Serializer>(data: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(data))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = String::deserialize(deserializer)?;
    STANDARD
        .decode(text)
        .map(Bytes::from)
        .map_err(|e| serde::de::Error::custom(format!("it is not base64: {e}")))
}

impl ModelInputChunk {
    /// The kind's name on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::EncodedText { .. } => "encoded_text",
            Self::Image { .. } => "image",
            Self::ImageAssetPointer { .. } => "image_asset_pointer",
            Self::Dmel { .. } => "dmel",
        }
    }

    /// How many positions of the context it takes; `None` where only the server can tell.
    pub fn length(&self) -> Option<usize> {
        match self {
            Self::EncodedText { tokens } => Some(tokens.len()),
            Self::Image { expected_tokens, .. } | Self::ImageAssetPointer { expected_tokens, .. } => {
                expected_tokens.and_then(|tokens| usize::try_from(tokens).ok())
            }
            Self::Dmel { dmel } => first_dimension(dmel),
        }
    }

    /// Bytes as the SDK estimates them, with so many for a token.
    fn estimated_bytes(&self, of_a_token: usize) -> usize {
        match self {
            Self::EncodedText { tokens } => tokens.len() * of_a_token,
            Self::Image { data, .. } => data.len(),
            Self::ImageAssetPointer { location, .. } => location.chars().count(),
            Self::Dmel { dmel } => dmel.len(),
        }
    }

    /// The protobuf form.
    ///
    /// # Errors
    /// An asset pointer has none.
    pub fn to_proto(&self) -> Result<proto::Chunk, DatumError> {
        use proto::chunk::Chunk;
        let chunk = match self {
            Self::EncodedText { tokens } => {
                Chunk::EncodedText(proto::EncodedTextChunk { tokens: tensor::i32_bytes(tokens).into() })
            }
            Self::Image { data, format, expected_tokens } => Chunk::Image(proto::ImageChunk {
                data: data.clone(),
                format: format.as_str().to_owned(),
                expected_tokens: expected_tokens.map(|tokens| i32::try_from(tokens).unwrap_or(i32::MAX)),
            }),
            Self::ImageAssetPointer { .. } => return Err(DatumError::Unsupported(self.kind())),
            Self::Dmel { dmel } => Chunk::Dmel(proto::DmelChunk { dmel: dmel.clone() }),
        };
        Ok(proto::Chunk { chunk: Some(chunk) })
    }

    /// Reads the protobuf form.
    pub fn from_proto(chunk: &proto::Chunk) -> Result<Self, DatumError> {
        use proto::chunk::Chunk;
        let in_field = |source| DatumError::Tensor { field: "model_input".to_owned(), source };
        Ok(match &chunk.chunk {
            Some(Chunk::EncodedText(text)) => {
                Self::EncodedText { tokens: tensor::i32_values(&text.tokens).map_err(in_field)? }
            }
            Some(Chunk::Image(image)) => Self::Image {
                data: image.data.clone(),
                format: match image.format.as_str() {
                    "png" => ImageFormat::Png,
                    "jpeg" => ImageFormat::Jpeg,
                    other => return Err(DatumError::ImageFormat(other.to_owned())),
                },
                expected_tokens: image.expected_tokens.and_then(|tokens| u32::try_from(tokens).ok()),
            },
            Some(Chunk::Dmel(dmel)) => Self::Dmel { dmel: dmel.dmel.clone() },
            None => return Err(DatumError::Unsupported("unknown")),
        })
    }
}

/// What the model reads.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ModelInput {
    /// The pieces, in order.
    pub chunks: Vec<ModelInputChunk>,
}

/// Input that is not text where only text will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a chunk of kind '{kind}' is not text")]
pub struct NotText {
    /// The kind that was found.
    pub kind: &'static str,
}

impl ModelInput {
    /// One piece of text.
    pub fn from_ints(tokens: Vec<i32>) -> Self {
        Self { chunks: vec![ModelInputChunk::EncodedText { tokens }] }
    }

    /// The same with one more piece.
    #[must_use]
    pub fn append(mut self, chunk: ModelInputChunk) -> Self {
        self.chunks.push(chunk);
        self
    }

    /// The same with one more token, as a piece of its own.
    #[must_use]
    pub fn append_int(self, token: i32) -> Self {
        self.append(ModelInputChunk::EncodedText { tokens: vec![token] })
    }

    /// All tokens, in order.
    ///
    /// # Errors
    /// If there is a piece that is not text.
    pub fn to_ints(&self) -> Result<Vec<i32>, NotText> {
        let mut all = Vec::new();
        for chunk in &self.chunks {
            match chunk {
                ModelInputChunk::EncodedText { tokens } => all.extend_from_slice(tokens),
                other => return Err(NotText { kind: other.kind() }),
            }
        }
        Ok(all)
    }

    /// How many positions of the context it takes; `None` where only the server can tell.
    pub fn length(&self) -> Option<usize> {
        self.chunks.iter().map(ModelInputChunk::length).sum()
    }

    /// Bytes as the SDK estimates them for a prompt: 10 a token, which is what it takes as JSON.
    pub fn estimated_sample_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.estimated_bytes(10)).sum()
    }

    /// Bytes as the SDK estimates them for training: 4 a token.
    pub fn estimated_bytes(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.estimated_bytes(4)).sum()
    }
}

/// The first dimension that a TensorContainer states, as the SDK reads it: an optional mark of a constant, the element
/// type, the number of dimensions and then each, as varints.
fn first_dimension(container: &[u8]) -> Option<usize> {
    const CONSTANT: u8 = 254;
    const LAST_DTYPE: u8 = 7;
    let mut rest = container.strip_prefix(&[CONSTANT]).unwrap_or(container).iter().copied();
    if rest.next()? > LAST_DTYPE {
        return None;
    }
    let mut varint = || {
        let mut value = 0u64;
        for shift in (0..=63).step_by(7) {
            let byte = rest.next()?;
            value |= u64::from(byte & 0x7F).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    };
    if varint()? == 0 {
        return None;
    }
    usize::try_from(varint()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_kinds() -> ModelInput {
        ModelInput::from_ints(vec![1, -2])
            .append(ModelInputChunk::Image {
                data: Bytes::from_static(b"\x89PNG\xff"),
                format: ImageFormat::Png,
                expected_tokens: Some(9),
            })
            .append(ModelInputChunk::Dmel { dmel: Bytes::from_static(&[254, 3, 2, 0x85, 1, 80]) })
            .append_int(7)
    }

    #[test]
    fn json_form_is_the_sdks() {
        let pointer = ModelInputChunk::ImageAssetPointer {
            format: ImageFormat::Jpeg,
            location: "s3://a/b".to_owned(),
            expected_tokens: None,
        };
        let input = all_kinds().append(pointer);
        let json = serde_json::json!({"chunks": [
            {"type": "encoded_text", "tokens": [1, -2]},
            {"type": "image", "data": "iVBOR/8=", "format": "png", "expected_tokens": 9},
            {"type": "dmel", "dmel": "/gMChQFQ"},
            {"type": "encoded_text", "tokens": [7]},
            {"type": "image_asset_pointer", "format": "jpeg", "location": "s3://a/b"},
        ]});
        assert_eq!(serde_json::to_value(&input).unwrap(), json);
        assert_eq!(serde_json::from_value::<ModelInput>(json).unwrap(), input);
        let odd = serde_json::json!({"type": "image", "data": "%", "format": "png"});
        assert!(
            serde_json::from_value::<ModelInputChunk>(odd).unwrap_err().to_string().contains("not base64")
        );
    }

    #[test]
    fn protobuf_round_trip() {
        for chunk in all_kinds().chunks {
            assert_eq!(ModelInputChunk::from_proto(&chunk.to_proto().unwrap()).unwrap(), chunk);
        }
        let gif = proto::ImageChunk { format: "gif".to_owned(), ..Default::default() };
        let gif = proto::Chunk { chunk: Some(proto::chunk::Chunk::Image(gif)) };
        assert_eq!(ModelInputChunk::from_proto(&gif), Err(DatumError::ImageFormat("gif".to_owned())));
    }

    #[test]
    fn lengths_and_estimates() {
        let input = all_kinds();
        assert_eq!(input.length(), Some(2 + 9 + 133 + 1));
        assert_eq!(input.estimated_bytes(), 3 * 4 + 5 + 6);
        assert_eq!(input.estimated_sample_bytes(), 3 * 10 + 5 + 6);
        assert_eq!(input.to_ints(), Err(NotText { kind: "image" }));
        assert_eq!(ModelInput::from_ints(vec![1]).append_int(2).to_ints(), Ok(vec![1, 2]));
        let unknown =
            ModelInputChunk::Image { data: Bytes::new(), format: ImageFormat::Png, expected_tokens: None };
        assert_eq!(ModelInput::default().append(unknown).length(), None);
    }

    #[test]
    fn broken_containers_have_no_length() {
        for broken in [&[][..], &[254], &[8, 1, 1], &[0], &[0, 0], &[0, 1, 0x80], &[0, 0xFF, 0xFF, 0xFF]] {
            assert_eq!(first_dimension(broken), None, "{broken:?}");
        }
        assert_eq!(first_dimension(&[0, 1, 5]), Some(5));
        assert_eq!(
            first_dimension(&[0, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1]),
            None
        );
    }
}
