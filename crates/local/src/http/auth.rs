//! Tokens for keys, as the SDK exchanges them, and what the service says of whoever calls.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{ApiError, Shared};
use crate::time::now_millis;

/// How long a token lasts, in seconds. Clients fetch a new one half-way.
const LIFETIME: i64 = 3600;
/// The one user that the service knows, the same at every start and on every machine.
const USER: &str = "tml:organization_user:6c6f6361-6c00-4000-8000-000000000001";
const ORGANIZATION: &str = "local";
const EMAIL: &str = "you@localhost";
/// `{"alg":"HS256","typ":"JWT"}`.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// Gives out tokens and knows them again. Those of an earlier start are strangers.
pub(crate) struct Tokens {
    mac: Hmac<Sha256>,
}

#[derive(Serialize)]
struct Claims {
    iss: &'static str,
    sub: &'static str,
    org_id: &'static str,
    email: &'static str,
    iat: i64,
    exp: i64,
}

/// The claim that is looked at.
#[derive(Deserialize)]
struct Expiry {
    exp: i64,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

impl Tokens {
    /// With a secret made now.
    pub(crate) fn new() -> Result<Self, getrandom::Error> {
        let mut secret = [0u8; 64];
        getrandom::fill(&mut secret)?;
        Ok(Self { mac: Hmac::new(&secret.into()) })
    }

    /// A token from now on.
    pub(crate) fn issue(&self) -> String {
        self.issue_at(now_millis() / 1000)
    }

    fn issue_at(&self, iat: i64) -> String {
        let exp = iat.saturating_add(LIFETIME);
        let claims =
            Claims { iss: "retinker-local", sub: USER, org_id: ORGANIZATION, email: EMAIL, iat, exp };
        // Text and numbers always become JSON.
        let claims = serde_json::to_vec(&claims).unwrap_or_default();
        let signed = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = self.mac.clone().chain_update(&signed).finalize().into_bytes();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Whether a token is one of these and still lasts; if not, why.
    pub(crate) fn check(&self, token: &[u8]) -> Result<(), &'static str> {
        self.check_at(token, now_millis() / 1000)
    }

    fn check_at(&self, token: &[u8], now: i64) -> Result<(), &'static str> {
        const FOREIGN: &str = "it was not given out by this start of the service";
        let token = std::str::from_utf8(token).map_err(|_| FOREIGN)?;
        let (signed, signature) = token.rsplit_once('.').ok_or(FOREIGN)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| FOREIGN)?;
        self.mac.clone().chain_update(signed).verify_slice(&signature).map_err(|_| FOREIGN)?;
        let claims = signed.split_once('.').and_then(|(_, claims)| URL_SAFE_NO_PAD.decode(claims).ok());
        let expiry = claims.and_then(|claims| serde_json::from_slice::<Expiry>(&claims).ok());
        match expiry {
            Some(Expiry { exp }) if now < exp => Ok(()),
            _ => Err("it has expired"),
        }
    }
}

/// A token for the key that the guard has let pass.
pub(crate) async fn token(State(core): Shared) -> Json<Value> {
    Json(json!({ "jwt": core.tokens.issue() }))
}

/// What the key is, which the guard has let pass.
pub(crate) async fn describe_key() -> Json<Value> {
    Json(json!({
        "key_id": 1,
        "name": "local",
        "note": "The key of a retinker service on this machine",
        "details": { "org_details": { "name": ORGANIZATION }, "user_details": { "email": EMAIL } },
    }))
}

/// Deleting the key. Where any key is taken there is nothing to delete.
pub(crate) async fn delete_key(State(core): Shared) -> Response {
    if !core.requires_key {
        return StatusCode::NO_CONTENT.into_response();
    }
    let detail = "this service's key was set at its start, with --api-key, and stays valid until it is started with another";
    ApiError::forbidden(detail.to_owned()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_last_an_hour_and_cannot_be_forged() {
        let tokens = Tokens::new().unwrap();
        let now = 1_700_000_000;
        let token = tokens.issue_at(now);
        assert!(token.starts_with("eyJ"), "{token}");
        let check = |token: &str, at| tokens.check_at(token.as_bytes(), at);
        assert_eq!(check(&token, now), Ok(()));
        assert_eq!(check(&token, now + LIFETIME - 1), Ok(()));
        assert_eq!(check(&token, now + LIFETIME), Err("it has expired"));
        let parts: Vec<&str> = token.split('.').collect();
        let claims = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
        let longer =
            String::from_utf8(claims.clone()).unwrap().replace(&(now + LIFETIME).to_string(), "9999999999");
        let forged = format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(longer), parts[2]);
        let unsigned = format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), parts[1]);
        let shortened = &token[..token.len() - 8];
        for bad in [forged.as_str(), &unsigned, shortened, "", "eyJ", "a.b", "..", "eyJ.é.x"] {
            assert!(check(bad, now).is_err(), "{bad}");
        }
        let claims: Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), LIFETIME);
        assert!(Tokens::new().unwrap().check_at(token.as_bytes(), now).is_err());
        let header = URL_SAFE_NO_PAD.decode(HEADER).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&header).unwrap(), json!({"alg": "HS256", "typ": "JWT"}));
    }
}
