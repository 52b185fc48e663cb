//! Trains a run on a text file, one byte a token. It makes the run, goes on from a checkpoint, or attaches to a
//! run that somebody else made, such as one restored in the console.
//!
//! ```text
//! cargo run -p retinker --example train -- --base-url http://127.0.0.1:8000 --text corpus.txt --steps 20 \
//!     --create BASE_MODEL --rank 8 --seed 1 --name demo --save-every 5
//! cargo run -p retinker --example train -- --base-url ... --text corpus.txt --steps 20 --first-step 20 \
//!     --attach SESSION MODEL NEXT_SEQ
//! ```
//!
//! The data depends on the number of the step alone, so a run that was interrupted and goes on at `--first-step`
//! sees what it would have seen. One line of JSON a step; the first and the last say how to attach.

// This is the program that reads its environment; the core does not.
#![allow(clippy::disallowed_methods)]

#[cfg(target_arch = "wasm32")]
fn main() {}

#[cfg(not(target_arch = "wasm32"))]
fn main() -> std::process::ExitCode {
    native::main()
}

#[cfg(not(target_arch = "wasm32"))]
mod native {
    use std::process::ExitCode;
    use std::str::FromStr;
    use std::sync::Arc;
    use std::time::Duration;

    use retinker::client::retry::RetryPolicy;
    use retinker::client::{
        Api, ApiConfig, LossFnConfig, SaveOptions, Secret, ServiceClient, SessionOptions, TrainingClient,
        TrainingOptions,
    };
    use retinker::native::{NativeRuntime, NativeTransport};
    use retinker::recovery::restore::Attachment;
    use retinker::wire::model::LoraConfig;
    use retinker::wire::training::{AdamParams, Datum};

    const USAGE: &str = "usage: train --base-url URL --text FILE --steps N [--first-step K] [--lr RATE]
             [--save-every N] [--api-key KEY] [--budget SECONDS]
             (--attach SESSION MODEL NEXT_SEQ | --create BASE_MODEL [--rank R] [--seed S] [--name NAME]
              | --from-state PATH [--no-optimizer] [--name NAME])
The API key is better given as TINKER_API_KEY. --budget bounds how long one request is tried; 300 by default.";

    /// Tokens in a sequence, and sequences in a batch.
    const LENGTH: usize = 64;
    const BATCH: u64 = 4;

    enum Start {
        Attach(Attachment),
        Create { base_model: String },
        FromState { path: String },
    }

    struct Args {
        base_url: String,
        api_key: Option<Secret>,
        start: Start,
        text: String,
        steps: u64,
        first_step: u64,
        learning_rate: f64,
        save_every: Option<u64>,
        rank: u32,
        seed: Option<u64>,
        name: Option<String>,
        optimizer: bool,
        budget: Option<u64>,
    }

    #[derive(serde::Serialize)]
    struct Step {
        step: u64,
        /// Summed over the batch's tokens, before the step's update.
        loss: f64,
    }

    pub(super) fn main() -> ExitCode {
        let args = match parse(std::env::args().skip(1)) {
            Ok(args) => args,
            Err(problem) => {
                eprintln!("{problem}\n{USAGE}");
                return ExitCode::from(2);
            }
        };
        let outcome = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(Into::into)
            .and_then(|runtime| runtime.block_on(train(args)));
        match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        }
    }

    fn parse(mut given: impl Iterator<Item = String>) -> Result<Args, String> {
        let mut args = Args {
            base_url: String::new(),
            api_key: std::env::var("TINKER_API_KEY").ok().filter(|key| !key.is_empty()).map(Secret::new),
            start: Start::Create { base_model: String::new() },
            text: String::new(),
            steps: 0,
            first_step: 0,
            learning_rate: 1e-3,
            save_every: None,
            rank: 8,
            seed: None,
            name: None,
            optimizer: true,
            budget: None,
        };
        while let Some(option) = given.next() {
            let mut value = || given.next().ok_or_else(|| format!("{option} needs a value"));
            match option.as_str() {
                "--base-url" => args.base_url = value()?,
                "--api-key" => args.api_key = Some(Secret::new(value()?)),
                "--text" => args.text = value()?,
                "--steps" => args.steps = number(&option, value()?)?,
                "--first-step" => args.first_step = number(&option, value()?)?,
                "--lr" => args.learning_rate = number(&option, value()?)?,
                "--save-every" => args.save_every = Some(number(&option, value()?)?).filter(|n| *n > 0),
                "--rank" => args.rank = number(&option, value()?)?,
                "--seed" => args.seed = Some(number(&option, value()?)?),
                "--name" => args.name = Some(value()?),
                "--no-optimizer" => args.optimizer = false,
                "--budget" => args.budget = Some(number(&option, value()?)?),
                "--create" => args.start = Start::Create { base_model: value()? },
                "--from-state" => args.start = Start::FromState { path: value()? },
                "--attach" => {
                    let (session_id, model_id) = (value()?, value()?);
                    let next_seq_id = number(&option, value()?)?;
                    args.start = Start::Attach(Attachment { session_id, model_id, next_seq_id });
                }
                _ => return Err(format!("{option} is not an option")),
            }
        }
        let started = !matches!(&args.start, Start::Create { base_model } if base_model.is_empty());
        match (args.base_url.is_empty(), args.text.is_empty(), started) {
            (true, _, _) => Err("--base-url is missing".to_owned()),
            (_, true, _) => Err("--text is missing".to_owned()),
            (_, _, false) => Err("one of --attach, --create and --from-state is missing".to_owned()),
            _ => Ok(args),
        }
    }

    fn number<T: FromStr>(option: &str, text: String) -> Result<T, String> {
        text.parse().map_err(|_| format!("{option}: '{text}' is not a number that fits"))
    }

    async fn train(args: Args) -> Result<(), Box<dyn std::error::Error>> {
        let text =
            std::fs::read(&args.text).map_err(|error| format!("{} cannot be read: {error}", args.text))?;
        if text.len() <= LENGTH {
            return Err(format!("{} has {} bytes; {} are needed", args.text, text.len(), LENGTH + 1).into());
        }
        let runtime = NativeRuntime::current().ok_or("there is no tokio runtime")?;
        let config = ApiConfig { base_url: args.base_url, api_key: args.api_key, ..ApiConfig::default() };
        let mut api = Api::new(config, Arc::new(NativeTransport::new()?), Arc::new(runtime))?;
        if let Some(seconds) = args.budget {
            api = api
                .with_retry(RetryPolicy { budget: Duration::from_secs(seconds), ..RetryPolicy::default() });
        }
        let labels = args.name.clone().map(|name| [("name".to_owned(), name)].into());
        let made = TrainingOptions { user_metadata: labels, ..TrainingOptions::default() };
        let options = SessionOptions { display_name: args.name, ..SessionOptions::default() };
        let service = ServiceClient::with_options(api.clone(), options);
        let client = match args.start {
            Start::Attach(attachment) => TrainingClient::attach(api, attachment),
            Start::Create { base_model } => {
                let lora = LoraConfig { rank: args.rank, seed: args.seed, ..LoraConfig::default() };
                service.create_lora_training_client(&base_model, lora, made).await?
            }
            Start::FromState { path } if args.optimizer => {
                service.create_training_client_from_state_with_optimizer(&path, made).await?
            }
            Start::FromState { path } => service.create_training_client_from_state(&path, made).await?,
        };
        print(&client.attachment())?;
        let adam = AdamParams { learning_rate: args.learning_rate, ..AdamParams::default() };
        for step in args.first_step..args.first_step.saturating_add(args.steps) {
            let pass = client.forward_backward(batch(&text, step), "cross_entropy", &LossFnConfig::new());
            // Called before the pass is awaited: the service has the next request by the time it is done.
            let update = client.optim_step(adam);
            let output = pass.await?;
            update.await?;
            let loss = output.metrics.get("loss:sum").ok_or("the server measured no 'loss:sum'")?;
            print(&Step { step, loss: *loss })?;
            let done = step + 1;
            if args.save_every.is_some_and(|n| done.is_multiple_of(n)) {
                let options = SaveOptions { overwrite: true, ..SaveOptions::default() };
                let saved = client.save_state(&format!("step-{done}"), options).await?;
                print(&serde_json::json!({"saved": saved.path, "steps_done": done}))?;
            }
        }
        print(&client.hand_over().await?)?;
        Ok(())
    }

    /// The batch of a step: windows of the text whose places depend on the step's number and nothing else.
    fn batch(text: &[u8], step: u64) -> Vec<Datum> {
        let places = (text.len() - LENGTH) as u64;
        (0..BATCH)
            .filter_map(|i| {
                let mut place = (step * BATCH + i).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                place ^= place >> 29;
                let start = (place % places) as usize;
                let window = text.get(start..=start + LENGTH)?;
                let (inputs, targets) = (window.get(..LENGTH)?, window.get(1..)?);
                Some(Datum::cross_entropy(
                    inputs.iter().map(|b| i32::from(*b)).collect(),
                    targets.iter().map(|b| i64::from(*b)).collect(),
                    vec![1.0; LENGTH],
                ))
            })
            .collect()
    }

    fn print(line: &impl serde::Serialize) -> Result<(), Box<dyn std::error::Error>> {
        use std::io::Write as _;
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", serde_json::to_string(line)?)?;
        out.flush()?;
        Ok(())
    }
}
