//! A console's host, and a client of it as a browser's tab has one.

use std::sync::Arc;

use anyhow::{Context, Result};
use retinker::client::{Api, Secret};
use retinker::host::HostClient;
use retinker::host::api::ServiceKind;
use retinker::native::{NativeRuntime, NativeTransport};
use retinker_host::{Connection, Host, HostConfig, Location, RedoLogs, RunningHost, ServiceTarget, Watching};

/// Both, on this service.
pub async fn console(api: &Api, journal: Location, redo_logs: RedoLogs) -> Result<(RunningHost, HostClient)> {
    let token = "a-token-of-this-test";
    let connection = Connection {
        name: "service".to_owned(),
        service: ServiceTarget {
            name: "service".to_owned(),
            kind: ServiceKind::Remote,
            base_url: api.base_url().to_owned(),
            api_key: Some(Secret::new("tml-test")),
        },
        key_from: String::new(),
        journal,
        watching: Watching::default(),
        demo: None,
    };
    let host = Host::start(HostConfig {
        listen: "127.0.0.1:0".parse()?,
        connections: vec![connection],
        redo_logs,
        token: Some(token.to_owned()),
    })
    .await?;
    let runtime = NativeRuntime::current().context("there is no runtime")?;
    let address = format!("http://{}", host.address());
    let tab =
        HostClient::new(Arc::new(NativeTransport::new()?), Arc::new(runtime), &address, Secret::new(token));
    Ok((host, tab))
}
