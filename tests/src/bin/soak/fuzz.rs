//! Sends the service requests that have been tampered with, and checks that each is answered, none with a 5xx, and that
//! training goes on as if nothing had come.

use anyhow::{Context, Result, ensure};
use prost::Message as _;
use retinker::client::{ServiceClient, TrainingOptions};
use retinker::wire::proto::ForwardBackwardRequest;
use retinker_tests::http::Connection;
use retinker_tests::random::Random;
use retinker_tests::schedule;
use retinker_tests::service::ServiceProcess;

/// Numbers that programs forget.
const NUMBERS: [&str; 8] =
    ["-1", "0", "9223372036854775808", "18446744073709551615", "1e39", "-1e400", "NaN", "4294967296"];

/// Sends this many, and tells what was found.
pub(crate) async fn run(requests: u64, reference: &[f64]) -> Result<String> {
    let data = tempfile::tempdir()?;
    let service = ServiceProcess::start(data.path()).await?;
    let owner = ServiceClient::new(service.api()?);
    let client = owner
        .create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), TrainingOptions::default())
        .await?;
    // In a session of its own: within one, runs' ids differ by a bit that may be flipped.
    let target = ServiceClient::new(service.api()?);
    let victim = target
        .create_lora_training_client(schedule::BASE_MODEL, schedule::lora(), TrainingOptions::default())
        .await?;
    let seeds = seeds(&victim.model_id(), &target.session_id().await?);
    let mut random = Random(0xf022);
    let mut connection = Connection::open(&service.base_url).await?;
    let mut accepted = 0u64;
    for number in 0..requests {
        let Some((path, kind, body)) = seeds.get((random.next() % seeds.len() as u64) as usize) else {
            continue;
        };
        let body = tamper(body, &mut random);
        let status = match connection.status(path, kind, &body).await {
            Ok(status) => status,
            Err(_) => {
                // A request that cannot be read ends its connection; the service has to take the next one.
                connection = Connection::open(&service.base_url).await.context("the service is gone")?;
                continue;
            }
        };
        ensure!(
            status < 500,
            "request {number} to {path} was answered {status}: {}",
            String::from_utf8_lossy(&body)
        );
        accepted += u64::from(status < 400);
    }
    for (step, expected) in reference.iter().enumerate().take(5) {
        let loss = schedule::step(&client, step).await?;
        ensure!(
            loss == *expected,
            "after the fuzzing, step {step} has the loss {loss} instead of {expected}"
        );
    }
    Ok(format!(
        "{requests} requests, JSON and protobuf, were sent with bytes flipped, cut, doubled, or numbers replaced by \
         extreme ones. {accepted} were still taken; none was answered with a 5xx, and another run's losses were \
         untouched.\n"
    ))
}

type Seed = (&'static str, &'static str, Vec<u8>);

/// One good request for each endpoint.
fn seeds(model: &str, session: &str) -> Vec<Seed> {
    let json = |path, text: String| (path, "application/json", text.into_bytes());
    let data = schedule::batch(0);
    let batch = ForwardBackwardRequest {
        model_id: model.to_owned(),
        seq_id: 1,
        data: data.iter().filter_map(|datum| datum.to_proto().ok()).collect(),
        loss_fn: "cross_entropy".to_owned(),
        ..ForwardBackwardRequest::default()
    };
    vec![
        ("forward_backward", "application/x-protobuf", batch.encode_to_vec()),
        json(
            "forward_backward",
            serde_json::json!({
                "forward_backward_input": {"data": data, "loss_fn": "cross_entropy"}, "model_id": model, "seq_id": 2
            })
            .to_string(),
        ),
        json("create_session", r#"{"tags":["a"],"user_metadata":{"k":"v"},"sdk_version":"0.38.0","type":"create_session"}"#.to_owned()),
        json("session_heartbeat", format!(r#"{{"session_id":"{session}","type":"session_heartbeat"}}"#)),
        json("create_model", format!(r#"{{"session_id":"{session}","model_seq_id":7,"base_model":"retinker/nano-llama","lora_config":{{"rank":2,"seed":1}},"type":"create_model"}}"#)),
        json("optim_step", format!(r#"{{"model_id":"{model}","seq_id":3,"type":"optim_step","adam_params":{{"learning_rate":0.0001,"beta1":0.9}}}}"#)),
        json("save_weights", format!(r#"{{"model_id":"{model}","path":"s1","seq_id":4,"ttl_seconds":3600,"type":"save_weights"}}"#)),
        json("load_weights", format!(r#"{{"session_id":"{session}","model_seq_id":8,"path":"tinker://{model}/weights/s1","optimizer":true}}"#)),
        json("get_info", format!(r#"{{"model_id":"{model}","type":"get_info"}}"#)),
        json("weights_info", format!(r#"{{"tinker_path":"tinker://{model}/weights/s1"}}"#)),
    ]
}

fn tamper(body: &[u8], random: &mut Random) -> Vec<u8> {
    let mut body = body.to_vec();
    for _ in 0..=random.next() % 3 {
        let at = (random.next() % (body.len() as u64 + 1)) as usize;
        match random.next() % 5 {
            0 => {
                if let Some(byte) = body.get_mut(at) {
                    *byte ^= 1 << (random.next() % 8);
                }
            }
            1 => body.truncate(at),
            2 => {
                let tail = body.get(at..).unwrap_or_default().to_vec();
                body.extend(tail.into_iter().take(64));
            }
            3 => {
                let byte = random.next().to_le_bytes();
                body.splice(at..at, byte.into_iter().take(3));
            }
            _ => {
                let digits = body.iter().skip(at).position(u8::is_ascii_digit).map(|offset| at + offset);
                let number = NUMBERS.get((random.next() % 8) as usize).copied().unwrap_or("0");
                if let Some(start) = digits {
                    let length = body.iter().skip(start).take_while(|byte| byte.is_ascii_digit()).count();
                    body.splice(start..start + length, number.bytes());
                }
            }
        }
    }
    body
}
