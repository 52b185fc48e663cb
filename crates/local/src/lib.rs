//! An embedded Tinker-compatible service that really trains.
//!
//! It answers the protocol's endpoints under `/api/v1`, trains LoRA adapters over small built-in Llama-style models, and
//! keeps sessions, runs and checkpoints in a data directory. What a run did since its last save is in memory only, as on
//! the real service: when that memory is lost, the run is `corrupted` and says why.
//!
//! ```no_run
//! # async fn example() -> Result<(), retinker_local::StartError> {
//! use retinker_local::{LocalConfig, LocalService};
//!
//! let service = LocalService::start(LocalConfig::new("./data")).await?;
//! println!("TINKER_BASE_URL={}", service.base_url());
//! service.stop().await;
//! # Ok(())
//! # }
//! ```

mod backlog;
mod beside;
mod changes;
mod checkpoint;
mod config;
mod core;
mod datadir;
mod db;
mod error;
mod faults;
mod fingerprint;
mod futures;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod http;
mod index;
mod intake;
mod labels;
mod lora;
mod metrics;
mod models;
mod ops;
mod sampler;
mod serve;
mod service;
mod sync;
mod time;
mod tokenizer;
mod trainer;

pub use config::LocalConfig;
pub use error::StartError;
pub use faults::{
    ActiveFaults, Damage, Damaged, DropWhen, FaultError, Faults, OperationRule, Pause, RequestFault,
    RequestRule, StoppedTrainer,
};
pub use service::LocalService;
