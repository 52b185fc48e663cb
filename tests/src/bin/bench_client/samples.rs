//! Many samples of a small prompt at once.

use std::time::Instant;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use retinker::client::{SampleOptions, SamplingSource, ServiceClient};
use retinker::native::NativeTransport;
use retinker::wire::sampling::SamplingParams;
use retinker::wire::training::ModelInput;
use retinker_tests::process;
use serde::{Deserialize, Serialize};
use tokio::process::Command;

/// Samples at once.
pub(crate) const AT_ONCE: usize = 2000;
/// How often that is done in Rust, whose processor time would be too short to tell else; and in Python.
pub(crate) const ROUNDS: (usize, usize) = (10, 2);
/// Tokens of the prompt.
pub(crate) const TOKENS: usize = 8;
/// The model, which is the quickest: the client is what is measured.
pub(crate) const MODEL: &str = "retinker/nano-llama";

/// What a side took.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Sampled {
    pub(crate) samples: usize,
    pub(crate) cpu_seconds: f64,
    pub(crate) seconds: f64,
    pub(crate) peak_bytes: u64,
}

/// How this side speaks to the service.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Protocol {
    /// A connection for each request under way, as the SDK does where there is no TLS.
    Http1,
    /// One connection, as both do with the hosted service.
    Http2,
}

impl Protocol {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
        }
    }
}

/// This side.
pub(crate) async fn here(base_url: &str, protocol: Protocol) -> Result<Sampled> {
    let transport = match protocol {
        Protocol::Http1 => NativeTransport::new()?,
        Protocol::Http2 => NativeTransport::http2()?,
    };
    let service = ServiceClient::new(retinker_tests::service::api_over(transport, base_url)?);
    let client = service.create_sampling_client(SamplingSource::BaseModel(MODEL.to_owned())).await?;
    let prompt = ModelInput::from_ints((65..).take(TOKENS).collect());
    let params = SamplingParams { max_tokens: Some(1), seed: Some(1), ..SamplingParams::default() };
    let options = SampleOptions { sampling_params: params, ..SampleOptions::default() };
    let draw = async |count: usize| try_join_all((0..count).map(|_| client.sample(&prompt, &options))).await;
    draw(AT_ONCE / 10).await?;
    let id = std::process::id();
    let cpu = || process::cpu_time(id).context("the processor time of this process is not known");
    let (before, begin) = (cpu()?, Instant::now());
    let mut peak_bytes = 0;
    for round in 1..=ROUNDS.0 {
        draw(AT_ONCE).await?;
        if round == ROUNDS.1 {
            // After as many samples as the other side has drawn.
            peak_bytes = process::peak(id).context("the memory of this process is not known")?;
        }
    }
    Ok(Sampled {
        samples: AT_ONCE * ROUNDS.0,
        cpu_seconds: (cpu()? - before).as_secs_f64(),
        seconds: begin.elapsed().as_secs_f64(),
        peak_bytes,
    })
}

/// The official SDK's.
pub(crate) fn python(base_url: &str) -> Result<Command> {
    let mut command = crate::python("samples")?;
    command.arg(MODEL).args([TOKENS, AT_ONCE, ROUNDS.1].map(|number| number.to_string()));
    command.env("TINKER_BASE_URL", base_url).env("TINKER_API_KEY", "tml-bench");
    Ok(command)
}
