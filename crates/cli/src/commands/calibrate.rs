//! `retinker calibrate`.

use anyhow::{Result, bail};
use retinker::client::{ServiceClient, SessionOptions};
use retinker::redo::{Matching, calibrate};
use retinker::wire::model::LoraConfig;
use retinker::wire::session::FinishReason;
use retinker::wire::training::Datum;
use serde_json::json;

use super::target::Target;
use crate::say::say;

/// Examples of a batch, and tokens of each. Small: it is the service's way of adding up that is looked at.
const BATCH: (i32, i32) = (4, 32);
/// Tokens below this are in every vocabulary.
const VOCABULARY: i32 = 200;

/// What `retinker calibrate` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The base model of the two runs.
    model: String,
    /// Passes and optimizer steps of each.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    steps: u16,
    /// The rank of their adapters.
    #[arg(long, default_value_t = 16)]
    rank: u32,
    /// Print what was found as a line of JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    target: Target,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let keeper = args.target.reader().await?;
    let options = SessionOptions {
        display_name: Some("retinker: how much the service varies".to_owned()),
        ..SessionOptions::default()
    };
    let service = ServiceClient::with_options(keeper.api.clone(), options);
    let lora = LoraConfig { rank: args.rank, ..LoraConfig::default() };
    let batches = (0..i32::from(args.steps)).map(batch).collect();
    let found = calibrate(&service, &args.model, lora, batches).await;
    if let Err(error) = service.finish(FinishReason::Success, None).await {
        tracing::debug!(%error, "the session of the two runs was not finished: it ends by itself");
    }
    let found = found?;
    let passes = found.passes;
    let Some(matching) = found.matching() else {
        bail!(
            "the results of two runs of the same {passes} passes have too little in common to hold a replay by them: no tolerance would tell \
             another run from the same one"
        );
    };
    let tolerance = match matching {
        Matching::Exact => None,
        Matching::Tolerance(part) => Some(part),
    };
    if args.json {
        say(
            json!({ "passes": passes, "exact": tolerance.is_none(), "largest": found.largest, "tolerance": tolerance }),
        );
        return Ok(());
    }
    match tolerance {
        Some(tolerance) => say(format_args!(
            "Two runs of the same {passes} passes were apart by up to {:.1e} of what their results are sums of. Hold replays by a tolerance of \
             {tolerance:.1e}.",
            found.largest.unwrap_or_default()
        )),
        None => say(format_args!(
            "Two runs of the same {passes} passes came to the same results, bit for bit. Hold replays exactly."
        )),
    }
    Ok(())
}

fn batch(step: i32) -> Vec<Datum> {
    let (examples, tokens) = BATCH;
    let token = |example: i32, at: i32| (step * 7 + example * 31 + at * 13) % VOCABULARY;
    let example = |example| {
        let text = (0..tokens).map(|at| token(example, at)).collect();
        let next = (0..tokens).map(|at| i64::from(token(example, at + 1))).collect();
        Datum::cross_entropy(text, next, vec![1.0; tokens.unsigned_abs() as usize])
    };
    (0..examples).map(example).collect()
}
