//! Who asks: a key as it is, one that a source gives anew, or the short-lived token that a server exchanges it for.
//!
//! The rules of the exchange are those of the official SDK 0.38 (`lib/_jwt_auth.py`), but that nothing runs in the
//! background: a call that finds the token past half its life exchanges it first.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_core::future::BoxFuture;
use serde::Deserialize;

use super::error::{Error, ErrorKind};
use super::secret::Secret;
use crate::json;

/// How every JWT begins.
const JWT: &str = "eyJ";
/// A token with less than this left is exchanged before it is used.
const RUNWAY: Duration = Duration::from_secs(60);
/// How long after an exchange that failed the next one is tried, while the token still lives.
const AGAIN: Duration = Duration::from_secs(60);
/// The endpoint that exchanges.
pub(crate) const EXCHANGE: &str = "/api/v1/auth/token";

/// Gives a credential whenever one is needed, such as one that lives for minutes only.
pub trait CredentialSource: fmt::Debug + Send + Sync {
    /// The credential to use now; an error says why there is none, and holds no secret.
    fn credential(&self) -> BoxFuture<'static, Result<Secret, String>>;
}

/// Whether a credential is a token.
pub(crate) fn is_jwt(credential: &Secret) -> bool {
    credential.expose().starts_with(JWT)
}

/// Whether a token says of itself who it belongs to, in the service's own words; as the official SDK tells it.
pub(crate) fn is_identity(token: &Secret) -> bool {
    let claims = is_jwt(token).then(|| Claims::of(token.expose())).flatten();
    let issuer = claims.and_then(|claims| Some(claims.others.get("iss")?.as_str()?.to_owned()));
    issuer.is_some_and(|issuer| issuer.starts_with("passport-"))
}

/// Exchanges a credential for a token.
pub(crate) type Ask<'a> = dyn Fn(Secret) -> BoxFuture<'a, Result<Secret, Error>> + Send + Sync + 'a;

/// What requests are signed with.
#[derive(Debug)]
pub(crate) struct Auth {
    key: Option<Secret>,
    source: Option<Arc<dyn CredentialSource>>,
    /// Whether the server wants a token in place of the credential.
    exchanges: AtomicBool,
    /// Whether the server wants the source's credentials in place of the key.
    dynamic: AtomicBool,
    token: Mutex<Option<Token>>,
    /// What the source gave last.
    given: Mutex<Option<Secret>>,
    /// Held while a token is asked for, so that one is enough for all who wait.
    exchanging: futures_util::lock::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Token {
    secret: Secret,
    /// By the clock of the runtime, in milliseconds since 1970.
    exchange_after: i64,
    expires: i64,
}

/// What a JWT says of itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Claims {
    /// When it ends, in seconds since 1970.
    pub(crate) exp: f64,
    /// When it was made.
    #[serde(default)]
    pub(crate) iat: Option<f64>,
    /// Everything else.
    #[serde(flatten)]
    pub(crate) others: serde_json::Map<String, serde_json::Value>,
}

impl Claims {
    /// Reads them. The signature is the server's business, over whose own connection the token came.
    pub(crate) fn of(jwt: &str) -> Option<Self> {
        let payload = jwt.split('.').nth(1)?.trim_end_matches('=');
        json::read(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
    }
}

impl Token {
    /// A token that came at this time. Half its life is counted from then: the server's clock may be another.
    fn new(secret: Secret, now: i64) -> Self {
        let claims = Claims::of(secret.expose());
        let expires = claims.as_ref().map_or(0, |claims| millis(claims.exp));
        let life = claims.and_then(|claims| Some(millis(claims.exp - claims.iat?))).filter(|life| *life > 0);
        let wait = life.map_or_else(|| millis(AGAIN.as_secs_f64()), |life| life / 2);
        Self { secret, exchange_after: now.saturating_add(wait), expires }
    }

    fn is_fresh(&self, now: i64) -> bool {
        now < self.exchange_after && self.left(now) > millis(RUNWAY.as_secs_f64())
    }

    fn left(&self, now: i64) -> i64 {
        self.expires.saturating_sub(now)
    }
}

fn millis(seconds: f64) -> i64 {
    (seconds * 1000.0) as i64
}

impl Auth {
    pub(crate) fn new(key: Option<Secret>, source: Option<Arc<dyn CredentialSource>>) -> Self {
        Self {
            key,
            source,
            exchanges: AtomicBool::new(false),
            dynamic: AtomicBool::new(false),
            token: Mutex::new(None),
            given: Mutex::new(None),
            exchanging: futures_util::lock::Mutex::new(()),
        }
    }

    /// From now on requests carry a token.
    pub(crate) fn exchange(&self) {
        self.exchanges.store(true, Ordering::Relaxed);
    }

    pub(crate) fn exchanges(&self) -> bool {
        self.exchanges.load(Ordering::Relaxed)
    }

    /// Which credential tokens are asked for with, where there is a choice.
    pub(crate) fn prefer_source(&self, dynamic: bool) {
        self.dynamic.store(dynamic, Ordering::Relaxed);
    }

    /// The credential itself, with which a token is asked for: the key, or the source's where there is no key or the server
    /// wants it so. A token given as the key is as short-lived as the source's.
    async fn credential(&self, operation: &str, now: i64) -> Result<Option<Secret>, Error> {
        let dynamic = self.dynamic.load(Ordering::Relaxed) && !self.key.as_ref().is_some_and(is_jwt);
        let credential = match (&self.key, &self.source) {
            (Some(key), _) if !dynamic => Some(key.clone()),
            (_, Some(source)) => {
                let given = Some(source.credential().await.map_err(|e| Error::config(operation, e))?);
                self.given.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&given);
                given
            }
            (None, None) => None,
            (Some(_), None) => {
                return Err(Error::config(
                    operation,
                    "the organization requires short-lived credentials: set TINKER_CREDENTIAL_CMD to a command that prints one",
                ));
            }
        };
        let expired = |key: &Secret| {
            is_jwt(key) && Claims::of(key.expose()).is_some_and(|claims| now >= millis(claims.exp))
        };
        if credential.as_ref().is_some_and(expired) {
            return Err(Error::config(
                operation,
                "the API key is a token (JWT) that has expired: give a fresh one, or a command that prints one",
            ));
        }
        Ok(credential)
    }

    /// What a request is signed with now. `ask` exchanges a credential for a token.
    pub(crate) async fn key(
        &self,
        operation: &str,
        now: i64,
        ask: &Ask<'_>,
    ) -> Result<Option<Secret>, Error> {
        if !self.exchanges.load(Ordering::Relaxed) {
            return self.credential(operation, now).await;
        }
        if let Some(token) = self.token().filter(|token| token.is_fresh(now)) {
            return Ok(Some(token.secret));
        }
        let _exchanging = self.exchanging.lock().await;
        let held = self.token();
        if let Some(token) = held.as_ref().filter(|token| token.is_fresh(now)) {
            return Ok(Some(token.secret.clone()));
        }
        match self.renew(operation, now, ask).await {
            Ok(secret) => Ok(secret),
            // The credential itself was refused: what it was exchanged for will not be either, soon.
            Err(error) if error.status() == Some(401) => Err(error),
            Err(error) => match held.filter(|token| token.left(now) > 0) {
                Some(mut token) => {
                    tracing::warn!(%error, "the token was not renewed; the one there is will do for now");
                    // Close to its end it is tried for again at once.
                    token.exchange_after = now.saturating_add(millis(AGAIN.as_secs_f64()));
                    let secret = token.secret.clone();
                    self.keep(token);
                    Ok(Some(secret))
                }
                None => Err(not_sent(operation, &error)),
            },
        }
    }

    /// Another token than one that the server did not take; whoever asks first exchanges for all.
    pub(crate) async fn replacement(
        &self,
        operation: &str,
        now: i64,
        refused: &Secret,
        ask: &Ask<'_>,
    ) -> Result<Option<Secret>, Error> {
        let _exchanging = self.exchanging.lock().await;
        match self.token() {
            Some(token) if token.secret == *refused => {
                self.renew(operation, now, ask).await.map_err(|error| not_sent(operation, &error))
            }
            Some(token) => Ok(Some(token.secret)),
            // It was no token: there is nothing to replace it with.
            None => Ok(None),
        }
    }

    async fn renew(&self, operation: &str, now: i64, ask: &Ask<'_>) -> Result<Option<Secret>, Error> {
        let Some(credential) = self.credential(operation, now).await? else { return Ok(None) };
        let secret = ask(credential).await?;
        self.keep(Token::new(secret.clone(), now));
        Ok(Some(secret))
    }

    /// All that must appear nowhere.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = Secret> {
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let token = self.token().map(|token| token.secret);
        self.key.clone().into_iter().chain(given).chain(token)
    }

    fn token(&self) -> Option<Token> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, token: Token) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
    }
}

/// The error of a request that was not sent, because there was nothing to sign it with.
fn not_sent(operation: &str, error: &Error) -> Error {
    match error.kind() {
        ErrorKind::Refused { .. } if !error.is_retryable() => error.clone(),
        ErrorKind::Config { .. } => error.clone(),
        _ => Error::new(
            operation,
            ErrorKind::NeverSent { message: format!("no token to sign it with: {error}") },
        ),
    }
}
