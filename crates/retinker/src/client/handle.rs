//! A sampler as a text that another program can make a client of. It holds no credentials.

use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::json;

/// What a handle says. The official SDK's says more, which only its own client needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Handle {
    /// The session that the sampler belongs to.
    pub(super) session_id: String,
    /// The sampler.
    pub(super) sampling_session_id: String,
    /// See [`SamplingOptions`](super::SamplingOptions::record_stability_info).
    #[serde(default)]
    pub(super) record_stability_info: bool,
}

impl Handle {
    pub(super) fn encode(&self) -> String {
        // Two texts are always valid JSON.
        URL_SAFE.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    pub(super) fn decode(text: &str) -> Result<Self, Error> {
        let bad = |what: &str| Error::config("a sampler's handle", what.to_owned());
        let decoded = URL_SAFE_NO_PAD
            .decode(text.trim().trim_end_matches('='))
            .map_err(|_| bad("it is not base64: was it copied whole?"))?;
        json::read(&decoded).map_err(|_| bad("it names no sampler and its session"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::testing::test;

    #[test]
    fn handles_are_read_back_those_of_the_official_sdk_too() {
        let handle = Handle {
            session_id: "s".into(),
            sampling_session_id: "s:sample:0".into(),
            record_stability_info: true,
        };
        assert_eq!(Handle::decode(&handle.encode()).unwrap(), handle);
        let theirs = r#"{"session_id":"s","sampling_session_id":"s:sample:0","base_model":"m","record_stability_info":true,"holder":{"base_url":"u"}}"#;
        assert_eq!(Handle::decode(&URL_SAFE.encode(theirs)).unwrap(), handle);
        for bad in ["", "%", &URL_SAFE.encode("{}")] {
            assert!(Handle::decode(bad).unwrap_err().to_string().contains("handle"), "{bad}");
        }
    }
}
