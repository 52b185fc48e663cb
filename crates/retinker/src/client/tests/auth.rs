//! Keys exchanged for tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::client::testing::test;
use crate::runtime::Runtime;

/// A token that lives so many seconds from now.
fn token(runtime: &ManualRuntime, name: &str, life: i64) -> String {
    let now = runtime.now().as_millis() / 1000;
    let claims = json!({"exp": now + life, "iat": now, "name": name}).to_string();
    format!("eyJhbGciOiJub25lIn0.{}.x", URL_SAFE_NO_PAD.encode(claims))
}

/// A server that gives out tokens of ten minutes, numbered, and takes only what `takes` says.
fn exchanging(
    exchanges: impl Fn(u32) -> Option<FakeReply> + Send + 'static,
    takes: impl Fn(u32) -> bool + Send + 'static,
) -> (ManualRuntime, FakeTransport, Api) {
    let runtime = ManualRuntime::new();
    let clock = runtime.clone();
    let mut given = 0;
    let transport = FakeTransport::new(&runtime, move |request| match path(request) {
        "auth/token" => {
            given += 1;
            assert_eq!(request.header("x-api-key"), Some(KEY), "the credential itself");
            exchanges(given).unwrap_or_else(|| {
                FakeReply::json(200, json!({"jwt": token(&clock, &given.to_string(), 600)}).to_string())
            })
        }
        _ if takes(given) => FakeReply::json(200, "{}"),
        _ => FakeReply::json(401, r#"{"detail":"expired"}"#)
            .header("www-authenticate", r#"Bearer error="invalid_token""#),
    });
    let api = api(&runtime, &transport);
    api.exchange_tokens();
    (runtime, transport, api)
}

fn exchanged(transport: &FakeTransport) -> usize {
    transport.requests().iter().filter(|request| path(request) == "auth/token").count()
}

#[test]
fn one_token_serves_all_until_half_its_life() {
    let (runtime, transport, api) = exchanging(|_| None, |_| true);
    runtime.block_on(async {
        let both = futures_util::future::join(api.capabilities(), api.capabilities()).await;
        assert!(both.0.is_ok() && both.1.is_ok());
        assert_eq!(exchanged(&transport), 1);
        runtime.sleep(secs(299)).await;
        api.capabilities().await.unwrap();
        assert_eq!(exchanged(&transport), 1);
        runtime.sleep(secs(2)).await;
        api.capabilities().await.unwrap();
        assert_eq!(exchanged(&transport), 2);
    });
    let keys = transport.requests();
    let keys = keys.iter().filter(|request| path(request) != "auth/token");
    assert!(keys.clone().all(|request| request.header("x-api-key").unwrap().starts_with("eyJ")));
}

#[test]
fn an_exchange_that_fails_leaves_the_old_token_while_it_lives() {
    let fail = |n| (n > 1).then(|| FakeReply::json(503, "{}"));
    let (runtime, transport, api) = exchanging(fail, |_| true);
    let api = api.with_retry(crate::client::retry::RetryPolicy::none());
    runtime.block_on(async {
        api.capabilities().await.unwrap();
        runtime.sleep(secs(400)).await;
        api.capabilities().await.unwrap();
        api.capabilities().await.unwrap();
        assert_eq!(exchanged(&transport), 2, "tried again after a minute only");
        runtime.sleep(secs(61)).await;
        api.capabilities().await.unwrap();
        assert_eq!(exchanged(&transport), 3);
        runtime.sleep(secs(200)).await;
        let error = api.capabilities().await.unwrap_err();
        assert!(!format!("{error} {error:?}").contains("eyJ"), "{error}");
    });
}

#[test]
fn a_refused_token_is_replaced_once() {
    let (runtime, transport, api) = exchanging(|_| None, |given| given >= 2);
    runtime.block_on(api.capabilities()).unwrap();
    assert_eq!(transport.paths().len(), 4, "a token, refused, another, taken");
    let (runtime, transport, api) = exchanging(|_| None, |_| false);
    let error = runtime.block_on(api.capabilities()).unwrap_err();
    assert_eq!((error.status(), exchanged(&transport)), (Some(401), 2));
}

#[test]
fn a_refused_credential_is_said_at_once() {
    let refuse = |_| Some(FakeReply::json(401, r#"{"detail":"no such key"}"#));
    let (runtime, transport, api) = exchanging(refuse, |_| true);
    let error = runtime.block_on(api.capabilities()).unwrap_err();
    assert!(error.to_string().contains("no such key"), "{error}");
    assert_eq!(transport.paths().len(), 1);
    assert!(error.is_definite_refusal());
}

#[test]
fn without_a_token_nothing_of_a_run_is_sent_and_its_order_is_whole() {
    let (runtime, transport, api) =
        exchanging(|_| Some(FakeReply::fail(TransportErrorKind::Request)), |_| true);
    let client = TrainingClient::attach(api, attachment(7));
    let error = runtime.block_on(client.optim_step(AdamParams::default())).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::NeverSent { .. }), "{error}");
    assert!(client.poisoned().is_none());
    assert!(transport.requests().iter().all(|request| path(request) == "auth/token"));
}

/// A client whose key is this; every request is answered, exchanges by `exchanged`.
fn with_key(key: &str, source: bool) -> (ManualRuntime, FakeTransport, Api) {
    let runtime = ManualRuntime::new();
    let clock = runtime.clone();
    let transport = FakeTransport::new(&runtime, move |request| match path(request) {
        "auth/token" => FakeReply::json(200, json!({"jwt": token(&clock, "given", 600)}).to_string()),
        _ => FakeReply::json(200, "{}"),
    });
    let config = ApiConfig {
        base_url: "http://service.test/prefix".into(),
        api_key: Some(Secret::new(key)),
        credential_source: source.then(|| Arc::new(Printed) as Arc<dyn crate::client::CredentialSource>),
        ..ApiConfig::default()
    };
    let api = Api::new(config, Arc::new(transport.clone()), Arc::new(runtime.clone())).unwrap();
    (runtime, transport, api)
}

#[derive(Debug)]
struct Printed;

impl crate::client::CredentialSource for Printed {
    fn credential(&self) -> futures_core::future::BoxFuture<'static, Result<Secret, String>> {
        Box::pin(std::future::ready(Ok(Secret::new("tml-printed"))))
    }
}

fn key_of(request: &Request) -> &str {
    request.header("x-api-key").unwrap()
}

#[test]
fn a_token_given_as_the_key_is_used_as_it_is_or_exchanged_as_the_server_wants() {
    let runtime = ManualRuntime::new();
    let own = token(&runtime, "own", 100);
    let (runtime, transport, api) = with_key(&own, false);
    runtime.block_on(async {
        api.capabilities().await.unwrap();
        api.exchange_tokens();
        api.capabilities().await.unwrap();
        runtime.sleep(secs(101)).await;
        // What it was exchanged for still lives.
        api.capabilities().await.unwrap();
        runtime.sleep(secs(600)).await;
        let error = api.capabilities().await.unwrap_err();
        assert!(error.to_string().contains("has expired") && !error.to_string().contains("eyJ"), "{error}");
    });
    let requests = transport.requests();
    assert_eq!(
        (key_of(&requests[0]), path(&requests[1]), key_of(&requests[1])),
        (own.as_str(), "auth/token", &*own)
    );
    assert!(requests[2..].iter().all(|request| key_of(request) != own));
}

#[test]
fn a_server_can_want_short_lived_credentials() {
    let wants = retinker_wire::capabilities::ClientConfig {
        pjwt_auth_enabled: true,
        credential_default_source: "credential_cmd".to_owned(),
        ..Default::default()
    };
    let exchanged_from = |key: &str, source: bool, wanted: bool| {
        let (runtime, transport, api) = with_key(key, source);
        let api = api.with_retry(crate::client::retry::RetryPolicy::none());
        api.heed(&retinker_wire::capabilities::ClientConfig {
            credential_default_source: if wanted { "credential_cmd" } else { "api_key" }.to_owned(),
            ..wants.clone()
        });
        runtime.block_on(api.capabilities())?;
        Ok::<_, Error>(key_of(&transport.requests()[0]).to_owned())
    };
    assert_eq!(exchanged_from(KEY, true, true).unwrap(), "tml-printed");
    assert_eq!(exchanged_from(KEY, true, false).unwrap(), KEY);
    let token = token(&ManualRuntime::new(), "own", 100);
    assert_eq!(exchanged_from(&token, true, true).unwrap(), token, "it is short-lived already");
    let error = exchanged_from(KEY, false, true).unwrap_err().to_string();
    assert!(error.contains("TINKER_CREDENTIAL_CMD") && !error.contains(KEY), "{error}");
}
