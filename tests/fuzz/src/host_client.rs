use std::sync::Arc;

use futures_util::StreamExt;
use retinker::client::testing::ManualRuntime;
use retinker::host::HostClient;
use retinker::host::api::RunsQuery;
use retinker::recovery::plan::PlanRequest;

use crate::script::{Script, parts};

/// The console's client against any host: the first byte says what it asks, the second how its answers are cut into pieces, the
/// rest is what is answered (see `script`). Every answer is read or refused, and events are the same however the stream of
/// them is cut.
pub fn host_client(data: &[u8]) {
    let [choice, length, script @ ..] = data else { return };
    let whole = said(*choice, script);
    if let Some(cut) = cut(script, *length) {
        assert_eq!(said(*choice, &cut), whole);
    }
}

/// The same script, its answers in pieces; if it does not say itself what they are.
fn cut(script: &[u8], length: u8) -> Option<Vec<u8>> {
    if script.contains(&b'@') {
        return None;
    }
    let pieces = parts(script).into_iter().map(|part| {
        let end = part.iter().position(|byte| *byte == b'\n').unwrap_or(part.len());
        [&part[..end], format!("; @pieces={length}").as_bytes(), &part[end..]].concat()
    });
    Some(pieces.collect::<Vec<_>>().join(&b"\n--\n"[..]))
}

/// What came of it, for people.
fn said(choice: u8, script: &[u8]) -> String {
    let runtime = ManualRuntime::new();
    let transport = Script::new(Arc::new(runtime.clone()), &parts(script), false);
    let client = HostClient::new(
        Arc::new(transport),
        Arc::new(runtime.clone()),
        "http://host.test",
        "0123456789abcdef".to_owned(),
    );
    runtime.block_on(async {
        match choice % 8 {
            0 => format!("{:?}", client.status().await),
            1 => format!("{:?}", client.runs(&RunsQuery::default()).await),
            2 => format!("{:?}", client.run("s:train:0").await),
            3 => format!("{:?}", client.plan(&PlanRequest::new("s:train:0")).await),
            4 => format!("{:?}", client.restores().await),
            5 => format!("{:?}", client.restore("restore-0").await),
            6 => format!("{:?}", client.hand_over("restore-0").await),
            _ => match client.events().await {
                Ok(events) => format!("{:?}", events.collect::<Vec<_>>().await),
                Err(error) => format!("{error:?}"),
            },
        }
    })
}
