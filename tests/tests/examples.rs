//! The examples of the core crate, as a reader would run them.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // A test that fails, panics.

use std::path::PathBuf;
use std::process::{Command, Output};

use retinker_local::LocalService;

/// Runs an example that `cargo test --workspace` has built.
async fn example(name: &str, service: &LocalService, arguments: &[&str]) -> String {
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let program: PathBuf = deps.join("../examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(program.exists(), "example {name} is not built: run `cargo build -p retinker --examples` first");
    let mut command = Command::new(program);
    command.args(arguments).env("TINKER_BASE_URL", service.base_url()).env("TINKER_API_KEY", "tml-local");
    let Output { status, stdout, stderr } =
        tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    assert!(status.success(), "{name} {arguments:?}: {}", String::from_utf8_lossy(&stderr));
    String::from_utf8(stdout).unwrap()
}

async fn service() -> (tempfile::TempDir, LocalService) {
    let (dir, service, _) = retinker_tests::service::embedded().await.unwrap();
    (dir, service)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_that_was_stopped_goes_on_as_if_nothing_had_been() {
    let (_dir, service) = service().await;
    let whole = example("resume", &service, &["undisturbed", "12"]).await;
    let first = example("resume", &service, &["stopped", "7"]).await;
    let rest = example("resume", &service, &["stopped", "12"]).await;
    assert_eq!(rest.lines().count(), 5);
    assert_eq!(first + &rest, whole, "the same losses, bit for bit");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loop_with_a_redo_log_goes_on_though_its_run_was_lost() {
    let (dir, service) = service().await;
    let log = |name: &str| dir.path().join(name).display().to_string();
    let loss = |said: String| {
        said.lines().map(|line| line.rsplit_once('\t').unwrap().0.to_owned()).collect::<Vec<_>>()
    };
    let whole = loss(example("redo", &service, &[&log("undisturbed"), "12"]).await);
    let first = example("redo", &service, &[&log("lost"), "7"]).await;
    let run = first.lines().last().unwrap().rsplit_once('\t').unwrap().1;
    service.faults().poison(run, "a backend failed").await.unwrap();
    let rest = example("redo", &service, &[&log("lost"), "12"]).await;
    assert!(!rest.contains(run), "another run took its place");
    assert_eq!([loss(first.clone()), loss(rest)].concat(), whole, "the same losses");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn samples_are_drawn_and_checkpoints_are_kept_house_of() {
    let (dir, service) = service().await;
    example("resume", &service, &["mine", "5"]).await;
    let listed = example("checkpoints", &service, &["list"]).await;
    assert_eq!(listed.lines().count(), 1, "{listed}");
    let path = listed.split_whitespace().last().unwrap();
    assert!(path.ends_with("/weights/step-5"), "{listed}");
    let target = dir.path().join("downloaded");
    let files = example("checkpoints", &service, &["download", path, target.to_str().unwrap()]).await;
    assert!(files.lines().any(|file| file.ends_with("adapter_model.safetensors")), "{files}");
    assert!(files.lines().all(|file| std::path::Path::new(file).exists()), "{files}");
    assert!(example("checkpoints", &service, &["expire", path, "3600"]).await.contains("3600 s"));
    let drawn = example("sampling", &service, &["retinker/nano-llama", "Once"]).await;
    assert_eq!(drawn.lines().count(), 4, "three samples and the prompt: {drawn}");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_training_loop_tells_of_each_step() {
    let (dir, service) = service().await;
    let text = dir.path().join("text");
    std::fs::write(&text, "It was the best of times, it was the worst of times. ".repeat(20)).unwrap();
    let arguments = ["--base-url", &service.base_url(), "--text", text.to_str().unwrap(), "--steps", "6"];
    let made = ["--create", "retinker/nano-llama", "--lr", "0.01", "--save-every", "3"];
    let said = example("train", &service, &[&arguments[..], &made[..]].concat()).await;
    let losses: Vec<f64> = said
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["loss"].as_f64())
        .collect();
    assert!(losses.len() == 6 && losses[5] < losses[0], "{losses:?}");
    assert_eq!(said.matches("\"saved\"").count(), 2, "{said}");
    service.stop().await;
}
