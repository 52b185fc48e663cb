//! `retinker local fault`: makes a running service fail.

use anyhow::{Context, Result, anyhow, bail};
use clap::{Subcommand, ValueEnum};
use futures_util::StreamExt;
use retinker::native::NativeTransport;
use retinker::transport::{Method, Request, Transport, TransportErrorKind};
use retinker_local::{
    ActiveFaults, Damage, DropWhen, OperationRule, Pause, RequestFault, RequestRule, StoppedTrainer,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::say::say;

const EXAMPLES: &str = "\
Examples:
  retinker local --faults                                     start a service that can be made to fail
  retinker local fault fail forward_backward --status 503 --times 2
  retinker local fault drop optim_step --when after           the step is taken, its answer never comes
  retinker local fault fail-operation save_weights            the save is accepted, then fails
  retinker local fault pause --seconds 30 --reason 'maintenance'
  retinker local fault poison RUN_ID --reason 'a machine died'
  retinker local fault list";

/// What `retinker local fault` takes.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    fault: Fault,
    /// The service's address.
    #[arg(long, global = true, default_value = "http://127.0.0.1:8788")]
    url: String,
    /// The service's key, where it was started with one.
    #[arg(long, global = true, env = "RETINKER_LOCAL_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Fault {
    /// Corrupt a run now: its memory is gone, and what it was asked for fails.
    Poison {
        /// The run's id.
        run_id: String,
        /// Why, for those who look at the run.
        #[arg(long)]
        reason: Option<String>,
    },
    /// End the trainer that holds a run: all its runs with unsaved work are corrupted.
    StopTrainer {
        /// The run's id.
        run_id: String,
    },
    /// Let a run go on from a checkpoint of its own as if it had not trained since, and tell nobody.
    RollBack {
        /// The checkpoint's tinker:// path.
        path: String,
    },
    /// Let the next loads leave the optimizer's state behind, and tell nobody.
    ColdLoads {
        /// How many loads, of those that are to bring it.
        #[arg(long, default_value_t = 1)]
        times: u32,
    },
    /// Let each number that a pass gives be off by up to a part of itself, as where arithmetic depends on what else is done.
    Noise {
        /// The part, e.g. 1e-6; 0 ends it.
        relative: f64,
    },
    /// Answer the next requests of an endpoint with an error, unapplied.
    Fail {
        #[command(flatten)]
        which: Which,
        /// The status, from 400 to 599.
        #[arg(long, default_value_t = 500)]
        status: u16,
        /// Tell the client to wait for so many seconds.
        #[arg(long, value_name = "SECONDS")]
        retry_after: Option<u64>,
        /// Send no body, as a proxy does that fails.
        #[arg(long)]
        empty_body: bool,
    },
    /// Accept the next operations, and fail them when their turn comes, with nothing done.
    FailOperation {
        /// forward_backward, optim_step, save_weights, ...; '*' for all.
        operation: String,
        /// Only those of this run.
        #[arg(long = "run", value_name = "RUN_ID")]
        run_id: Option<String>,
        /// How many operations.
        #[arg(long, default_value_t = 1)]
        times: u32,
        /// Whose fault it is said to be.
        #[arg(long, value_enum, default_value_t = Category::Server)]
        category: Category,
        /// What the failure says.
        #[arg(long)]
        message: Option<String>,
        /// Whether the run is lost by it.
        #[arg(long)]
        corrupts: bool,
    },
    /// Hold the next requests of an endpoint for a while, then apply them.
    Delay {
        #[command(flatten)]
        which: Which,
        /// For how many milliseconds.
        #[arg(long, value_name = "MILLISECONDS")]
        ms: u64,
    },
    /// Break the connections of the next requests of an endpoint: they get no answer at all.
    Drop {
        #[command(flatten)]
        which: Which,
        /// Before the request is applied, or after it was.
        #[arg(long, value_enum)]
        when: When,
    },
    /// Let all work rest: what is accepted waits, and clients are told why.
    Pause {
        /// Say that the account is at a limit; otherwise, that the service is short of machines.
        #[arg(long)]
        rate_limit: bool,
        /// The sentence that clients are told; the official SDK logs it once it has waited for about half a minute.
        #[arg(long)]
        reason: Option<String>,
        /// For how long; otherwise until it is resumed.
        #[arg(long)]
        seconds: Option<u64>,
    },
    /// Let work go on.
    Resume,
    /// Let a checkpoint expire now.
    Expire {
        /// tinker://RUN_ID/weights/NAME
        path: String,
    },
    /// Damage a file of a checkpoint.
    Damage {
        /// tinker://RUN_ID/weights/NAME
        path: String,
        /// Which file; otherwise the weights.
        #[arg(long)]
        file: Option<String>,
        /// Cut off the file's second half; otherwise one byte in its middle is changed.
        #[arg(long)]
        truncate: bool,
    },
    /// Show what is still to go wrong.
    List,
    /// Forget all that is still to go wrong, and let work go on.
    Clear,
}

/// The requests that something happens to.
#[derive(Debug, clap::Args)]
struct Which {
    /// The path below /api/v1, where '*' stands for anything: forward_backward, 'training_runs/*', '*'.
    endpoint: String,
    /// Only requests of this method.
    #[arg(long)]
    method: Option<String>,
    /// How many requests.
    #[arg(long, default_value_t = 1)]
    times: u32,
}

impl Which {
    fn rule(self, fault: RequestFault) -> RequestRule {
        RequestRule { method: self.method, times: self.times, ..RequestRule::new(self.endpoint, fault) }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Category {
    Server,
    User,
    Unknown,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum When {
    Before,
    After,
}

pub(crate) async fn run(args: Args) -> Result<()> {
    let service = Service::new(args.url, args.api_key)?;
    for line in service.carry_out(args.fault).await? {
        say(line);
    }
    Ok(())
}

/// The fault API of a running service.
struct Service {
    transport: NativeTransport,
    url: String,
    api_key: Option<String>,
}

impl Service {
    fn new(url: String, api_key: Option<String>) -> Result<Self> {
        if !url.starts_with("http://") && !url.starts_with("https://") {
            bail!("'{url}' is not a service's address: give the like of --url http://127.0.0.1:8788");
        }
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { transport: NativeTransport::new()?, url, api_key })
    }

    /// Does what is asked for. Gives what there is to tell.
    async fn carry_out(&self, fault: Fault) -> Result<Vec<String>> {
        Ok(match fault {
            Fault::Poison { run_id, reason } => {
                let _: Value = self.post("/poison", &json!({ "run_id": run_id, "reason": reason })).await?;
                vec![format!("Run {run_id} is corrupted.")]
            }
            Fault::StopTrainer { run_id } => {
                let stopped: StoppedTrainer =
                    self.post("/stop_trainer", &json!({ "run_id": run_id })).await?;
                let corrupted = stopped.corrupted.iter().map(|run| format!("  corrupted: {run}"));
                let unharmed = stopped.unharmed.iter().map(|run| format!("  unharmed:  {run}"));
                let told = "The trainer lost its memory, and another takes over.".to_owned();
                std::iter::once(told).chain(corrupted).chain(unharmed).collect()
            }
            Fault::RollBack { path } => {
                let _: Value = self.post("/roll_back", &json!({ "path": path })).await?;
                vec![format!("The run is as it was at {path}, and does not say so.")]
            }
            Fault::ColdLoads { times } => lines(&self.post("/cold_loads", &json!({ "times": times })).await?),
            Fault::Noise { relative } => lines(&self.post("/noise", &json!({ "relative": relative })).await?),
            Fault::Fail { which, status, retry_after, empty_body } => {
                self.add(which.rule(RequestFault::Fail { status, retry_after, empty_body })).await?
            }
            Fault::Delay { which, ms } => {
                self.add(which.rule(RequestFault::Delay { milliseconds: ms })).await?
            }
            Fault::Drop { which, when } => {
                let when = match when {
                    When::Before => DropWhen::Before,
                    When::After => DropWhen::After,
                };
                self.add(which.rule(RequestFault::Drop { when })).await?
            }
            Fault::FailOperation { operation, run_id, times, category, message, corrupts } => {
                let category = match category {
                    Category::Server => "server",
                    Category::User => "user",
                    Category::Unknown => "unknown",
                };
                let rule = OperationRule {
                    run_id,
                    times,
                    category: category.to_owned().into(),
                    message,
                    corrupts,
                    ..OperationRule::new(operation)
                };
                lines(&self.post("/operations", &rule).await?)
            }
            Fault::Pause { rate_limit, reason, seconds } => {
                let state = if rate_limit { "paused_rate_limit" } else { "paused_capacity" };
                let pause = Pause { queue_state: state.to_owned().into(), reason, seconds };
                lines(&self.post("/pause", &pause).await?)
            }
            Fault::Resume => lines(&self.ask(Method::Delete, "/pause", None).await?),
            Fault::Expire { path } => {
                let _: Value = self.post("/expire", &json!({ "path": path })).await?;
                vec![format!("{path} has expired.")]
            }
            Fault::Damage { path, file, truncate } => {
                let damage = if truncate { Damage::Truncate } else { Damage::Flip };
                let body = json!({ "path": path, "file": file, "damage": damage });
                let damaged: Value = self.post("/damage", &body).await?;
                let file = damaged.get("file").and_then(Value::as_str).unwrap_or_default();
                vec![format!("{file} of {path} is damaged.")]
            }
            Fault::List => lines(&self.ask(Method::Get, "", None).await?),
            Fault::Clear => lines(&self.ask(Method::Delete, "", None).await?),
        })
    }

    async fn add(&self, rule: RequestRule) -> Result<Vec<String>> {
        Ok(lines(&self.post("/requests", &rule).await?))
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T> {
        self.ask(Method::Post, path, Some(serde_json::to_vec(body)?)).await
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<T> {
        let key = self.api_key.iter().map(|key| ("x-api-key".into(), key.clone()));
        let kind = ("content-type".into(), "application/json".to_owned());
        let request = Request {
            method,
            url: format!("{}/retinker/local/v1/faults{path}", self.url),
            headers: key.chain([kind]).collect(),
            body: body.unwrap_or_default().into(),
        };
        let mut response = self.transport.send(request).await.map_err(|error| match error.kind {
            TransportErrorKind::Connect => anyhow!(
                "no service answers at {}: start one with 'retinker local --faults', or give its address with --url",
                self.url
            ),
            _ => error.into(),
        })?;
        let mut bytes = Vec::new();
        while let Some(piece) = response.body.next().await {
            bytes.extend_from_slice(&piece?);
        }
        let answer: Option<Value> = serde_json::from_slice(&bytes).ok();
        if (200..300).contains(&response.status) {
            let answer = answer.and_then(|answer| serde_json::from_value(answer).ok());
            return answer.with_context(|| format!("{} is not a retinker local service", self.url));
        }
        let detail = answer.as_ref().and_then(|answer| answer.get("detail")?.as_str());
        match (response.status, detail) {
            (404, None | Some("Not Found")) => bail!(
                "{} cannot be made to fail: it is not a retinker local service, or an older one",
                self.url
            ),
            (401, Some(detail)) => bail!("{detail}; give the key with --api-key or RETINKER_LOCAL_API_KEY"),
            (_, Some(detail)) => bail!("{detail}"),
            (status, None) => bail!("{} answered with status {status}", self.url),
        }
    }
}

/// What is still to go wrong, a line each.
fn lines(active: &ActiveFaults) -> Vec<String> {
    let requests = active.requests.iter().map(|rule| {
        let method = rule.method.as_deref().map_or_else(String::new, |method| format!("{method} "));
        let fault = match rule.fault {
            RequestFault::Fail { status, retry_after, empty_body } => {
                let retry =
                    retry_after.map_or_else(String::new, |s| format!(", to be tried again after {s} s"));
                format!("answered with {status}{}{retry}", if empty_body { " and no body" } else { "" })
            }
            RequestFault::Delay { milliseconds } => format!("held for {milliseconds} ms"),
            RequestFault::Drop { when: DropWhen::Before } => "dropped before it is applied".to_owned(),
            RequestFault::Drop { when: DropWhen::After } => "dropped after it was applied".to_owned(),
        };
        format!("next {} x {method}{}: {fault}", rule.times, rule.endpoint)
    });
    let operations = active.operations.iter().map(|rule| {
        let run = rule.run_id.as_deref().map_or_else(String::new, |run| format!(" of {run}"));
        let lost = if rule.corrupts { ", and the run is lost" } else { "" };
        format!(
            "next {} x operation {}{run}: fails, category {}{lost}",
            rule.times, rule.operation, rule.category
        )
    });
    let pause = active.pause.iter().map(|pause| {
        let reason = pause.reason.as_deref().map_or_else(String::new, |reason| format!(" ({reason})"));
        let left = pause.seconds.map_or_else(|| "until resumed".to_owned(), |s| format!("for {s} s"));
        format!("paused {left}: {}{reason}", pause.queue_state)
    });
    let cold = (active.cold_loads > 0)
        .then(|| format!("next {} x load: the optimizer's state is left behind", active.cold_loads));
    let noise =
        (active.noise > 0.0).then(|| format!("what passes give is off by up to {} of itself", active.noise));
    let lines: Vec<String> = requests.chain(operations).chain(cold).chain(noise).chain(pause).collect();
    if lines.is_empty() { vec!["Nothing is to go wrong.".to_owned()] } else { lines }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use retinker_local::{LocalConfig, LocalService};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    async fn tell(service: &LocalService, words: &str) -> Result<Vec<String>> {
        let words = std::iter::once("fault").chain(words.split(' '));
        let args = Line::try_parse_from(words)?.args;
        Service::new(service.base_url(), args.api_key)?.carry_out(args.fault).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_to_go_wrong_is_set_listed_and_cleared() {
        let dir = tempfile::tempdir().unwrap();
        let config =
            LocalConfig { faults: true, api_key: Some("tml-k".into()), ..LocalConfig::new(dir.path()) };
        let service = LocalService::start(config).await.unwrap();
        let key = "--api-key tml-k";
        for command in [
            "fail forward_backward --status 429 --retry-after 7 --times 3 --method post",
            "fail * --status 400 --empty-body",
            "delay optim_step --ms 20",
            "drop training_runs/* --when after",
            "fail-operation save_weights --run r --category user --message no",
            "pause --rate-limit --reason maintenance",
        ] {
            tell(&service, &format!("{command} {key}")).await.unwrap();
        }
        let expected = [
            "next 3 x POST forward_backward: answered with 429, to be tried again after 7 s",
            "next 1 x *: answered with 400 and no body",
            "next 1 x optim_step: held for 20 ms",
            "next 1 x training_runs/*: dropped after it was applied",
            "next 1 x operation save_weights of r: fails, category user",
            "paused until resumed: paused_rate_limit (maintenance)",
        ];
        assert_eq!(tell(&service, &format!("list {key}")).await.unwrap(), expected);
        assert_eq!(tell(&service, &format!("resume {key}")).await.unwrap(), &expected[..5]);
        let nothing = ["Nothing is to go wrong."];
        assert_eq!(tell(&service, &format!("clear {key}")).await.unwrap(), nothing);
        for (command, said) in [
            ("list", "this service requires its API key in X-API-Key; give the key with --api-key"),
            ("poison none --api-key tml-k", "training run none does not exist"),
            ("stop-trainer none --api-key tml-k", "training run none does not exist"),
            ("expire tinker://r/weights/a --api-key tml-k", "training run r does not exist"),
            ("damage tinker://r --api-key tml-k", "path: 'tinker://r' is not a checkpoint path"),
            ("fail * --status 200 --api-key tml-k", "status must be from 400 to 599, not 200"),
            ("fail-operation x --api-key tml-k", "operation must be one of *, "),
        ] {
            let error = tell(&service, command).await.unwrap_err().to_string();
            assert!(error.starts_with(said), "{command}: {error}");
        }
        service.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_service_that_is_not_there_or_has_no_faults_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let service = LocalService::start(LocalConfig::new(dir.path())).await.unwrap();
        let error = tell(&service, "list").await.unwrap_err().to_string();
        assert_eq!(error, "faults are off: start the service with --faults");
        let url = service.base_url();
        service.stop().await;
        let absent = Service::new(url.clone(), None).unwrap();
        let error = absent.carry_out(Fault::List).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("no service answers at {url}: start one")), "{error}");
        assert!(Service::new("127.0.0.1:1".into(), None).is_err());
    }
}
