//! A monitor as `retinker watch` is: `monitor URL JOURNAL POLICY`, the policy as JSON. Tells each event as a line of JSON.

use std::ffi::OsString;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use retinker::client::Secret;
use retinker::host::api::ServiceKind;
use retinker::recovery::events::EventSink;
use retinker_host::hooks::JsonLines;
use retinker_host::{Keeper, Location, ServiceTarget};

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [url, journal, policy] = args.as_slice() else { bail!("three arguments are needed") };
    let service = ServiceTarget {
        name: "service".to_owned(),
        kind: ServiceKind::Remote,
        base_url: url.clone(),
        api_key: Some(Secret::new("tml-test")),
    };
    let policy = serde_json::from_str(policy).context("the policy makes no sense")?;
    let sink: Arc<dyn EventSink> = Arc::new(JsonLines::stdout());
    let keeper =
        Keeper::open("a monitor", &service, Location::from(OsString::from(journal)), policy, sink, |_| {})
            .await?;
    tokio::select! {
        () = keeper.monitor.run(|_| {}) => {}
        () = keeper.drives.clone().resume() => {}
        () = keeper.ownership().run() => {}
    }
    bail!("the monitor has ended")
}
