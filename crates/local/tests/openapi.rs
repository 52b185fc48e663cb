//! The service's description of itself.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)] // A test that fails, panics.

mod common;

use std::collections::BTreeSet;

use common::{Client, start};
use serde_json::Value;

/// Every `$ref` in a document.
fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member.as_str() {
                    Some(target) if name == "$ref" => {
                        found.insert(target.to_owned());
                    }
                    _ => references(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_is_served_and_whole() {
    let dir = tempfile::tempdir().unwrap();
    let service = start(dir.path()).await;
    let client = Client::new(service.base_url());
    let response = client.http.get(format!("{}/openapi.json", client.base)).send().await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    let description: Value = response.json().await.unwrap();
    assert_eq!(description["openapi"], "3.1.0");

    let mut found = BTreeSet::new();
    references(&description, &mut found);
    for target in &found {
        let place = target.strip_prefix('#').unwrap();
        assert!(description.pointer(place).is_some(), "{target} is not there");
    }
    for (kind, components) in description["components"].as_object().unwrap() {
        let unused = components.as_object().unwrap().keys().filter(|name| {
            kind != "securitySchemes" && !found.contains(&format!("#/components/{kind}/{name}"))
        });
        // A change is the data of an event, which no schema of a body can say.
        assert_eq!(unused.filter(|name| *name != "Change").count(), 0, "{kind}");
    }

    let mut ids = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id), "{id} names two operations");
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let named: BTreeSet<String> = parameters
                .iter()
                .map(|parameter| description.pointer(&parameter["$ref"].as_str().unwrap()[1..]).unwrap())
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap()))
                .collect();
            let in_path: BTreeSet<String> =
                path.split('/').filter(|part| part.starts_with('{')).map(str::to_owned).collect();
            assert_eq!(named, in_path, "{method} {path}");
        }
    }
    service.stop().await;
}
