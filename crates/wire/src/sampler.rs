//! Sampling sessions: what a sampling client samples from.

use serde::{Deserialize, Serialize};

/// `POST /api/v1/create_sampling_session`. The pair (`session_id`, `sampling_session_seq_id`) is its identity.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CreateSamplingSessionRequest {
    /// The session that owns the sampler.
    pub session_id: String,
    /// The sampler's number in its session, from 0; unnamed saves for a sampler count with it.
    pub sampling_session_seq_id: u64,
    /// The base model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_model: Option<String>,
    /// A checkpoint's `tinker://` path; absent = the base model itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_path: Option<String>,
}

/// The answer of `create_sampling_session`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CreateSamplingSessionResponse {
    /// The sampler.
    pub sampling_session_id: String,
}

/// `POST /api/v1/join_sampling_session`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JoinSamplingSessionRequest {
    /// The sampler.
    pub sampling_session_id: String,
}

/// The answer of `join_sampling_session`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinSamplingSessionResponse {
    /// A number that no other client of the sampler has, from 1.
    pub client_counter: u64,
}

/// `GET /api/v1/samplers/{id}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GetSamplerResponse {
    /// The sampler.
    pub sampler_id: String,
    /// What its weights belong to.
    pub base_model: String,
    /// The checkpoint that it was made from, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_path: Option<String>,
}

/// The id that a sampler made in this session under this number has.
pub fn sampler_id_of(session_id: &str, sampling_session_seq_id: u64) -> String {
    format!("{session_id}:sample:{sampling_session_seq_id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_sdk_sends() {
        let body = r#"{"session_id":"S","sampling_session_seq_id":1,
            "model_path":"tinker://r/sampler_weights/s1","type":"create_sampling_session"}"#;
        let request: CreateSamplingSessionRequest = serde_json::from_str(body).unwrap();
        assert_eq!(sampler_id_of(&request.session_id, request.sampling_session_seq_id), "S:sample:1");
        assert_eq!(request.model_path.as_deref(), Some("tinker://r/sampler_weights/s1"));
        assert_eq!(request.base_model, None);
    }
}
