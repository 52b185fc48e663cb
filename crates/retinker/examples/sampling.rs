//! Samples from a base model or from a checkpoint, and scores what came.
//!
//! ```sh
//! TINKER_BASE_URL=http://127.0.0.1:8788 TINKER_API_KEY=tml-local \
//!     cargo run -p retinker --example sampling -- retinker/tiny-llama-1m "Once upon a time"
//! ```
//!
//! In place of the model's name a `tinker://` path does. The built-in models of the embedded service read bytes as tokens.
#![allow(clippy::disallowed_methods)] // This is the program, which reads its environment.

use std::sync::Arc;

use retinker::client::{Api, SampleOptions, SamplingSource, ServiceClient};
use retinker::native::{NativeRuntime, NativeTransport, resolve};
use retinker::wire::sampling::SamplingParams;
use retinker::wire::session::FinishReason;
use retinker::wire::training::ModelInput;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(source), Some(text)) = (args.next(), args.next()) else {
        return Err("usage: sampling MODEL-OR-PATH TEXT".into());
    };
    // Address and key as the official SDK finds them: environment, then what `tinker auth login` has stored.
    let config = resolve(|name| std::env::var(name).ok(), None, None)?;
    let runtime = NativeRuntime::current().ok_or("there is no tokio runtime")?;
    let service = ServiceClient::new(Api::new(config, Arc::new(NativeTransport::new()?), Arc::new(runtime))?);
    let source = match source.starts_with("tinker://") {
        true => SamplingSource::ModelPath(source),
        false => SamplingSource::BaseModel(source),
    };
    let client = service.create_sampling_client(source).await?;
    let prompt = ModelInput::from_ints(text.bytes().map(i32::from).collect());
    let params =
        SamplingParams { max_tokens: Some(40), temperature: 0.8, seed: Some(1), ..SamplingParams::default() };
    let options = SampleOptions { num_samples: 3, sampling_params: params, ..SampleOptions::default() };
    for sequence in client.sample(&prompt, &options).await?.sequences {
        let bytes: Vec<u8> = sequence.tokens.iter().filter_map(|token| u8::try_from(*token).ok()).collect();
        let logprob: f32 = sequence.logprobs.iter().sum();
        println!("{logprob:8.2}  {:?}", String::from_utf8_lossy(&bytes));
    }
    let scores = client.compute_logprobs(&prompt, None).await?;
    println!("{:8.2}  (the prompt itself)", scores.iter().flatten().sum::<f32>());
    service.finish(FinishReason::Success, None).await?;
    Ok(())
}
