//! A call of an endpoint under way.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use serde::de::DeserializeOwned;

use super::api::Api;
use super::call::{Answer, Call};
use super::error::{Error, ErrorKind, snippet_of};
use crate::json;

/// A call of an endpoint: a future of what the server answers. Nothing is sent before it is polled; dropping it aborts the
/// call.
///
/// Not an `async fn` for each endpoint: each of those would be a state machine of its own in what a browser loads, and they
/// are alike in everything but what is asked and how the answer is read.
#[must_use = "a call is made when it is awaited"]
pub struct Asked<'a, T> {
    answer: Answering<'a>,
    of: PhantomData<fn() -> T>,
}

/// An answer of success with what was being done, for errors.
type Answering<'a> = BoxFuture<'a, Result<(String, Answer), Error>>;

impl<'a, T> Asked<'a, T> {
    pub(crate) fn new(api: &'a Api, call: Result<Call, Error>) -> Self {
        Self { answer: exchange(api, call), of: PhantomData }
    }

    /// The answer as the JSON text that it is, of whatever type.
    pub fn text(self) -> BoxFuture<'a, Result<String, Error>> {
        text(self.answer)
    }

    /// The same, once the server was asked how it wants to be talked to.
    pub(crate) fn settled(self, api: &'a Api) -> Self {
        Self { answer: settled(api, self.answer), of: PhantomData }
    }
}

fn text(answer: Answering<'_>) -> BoxFuture<'_, Result<String, Error>> {
    Box::pin(async move {
        let (operation, answer) = answer.await?;
        decode::<serde::de::IgnoredAny>(&operation, &answer)?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    })
}

fn exchange(api: &Api, call: Result<Call, Error>) -> Answering<'_> {
    Box::pin(async move {
        let call = call?;
        let answer = api.answer(&call).await?;
        Ok((call.operation, answer))
    })
}

fn settled<'a>(api: &'a Api, answer: Answering<'a>) -> Answering<'a> {
    Box::pin(async move {
        api.settled().await?;
        answer.await
    })
}

impl<'a> Asked<'a, ()> {
    /// Of a call that is answered with nothing of interest. A page, or half of an answer, is no yes: something else may stand at
    /// the address. Empty ones are, and whatever words a server finds.
    pub(crate) fn nothing(api: &'a Api, call: Result<Call, Error>) -> Self {
        Self { answer: nothing(exchange(api, call)), of: PhantomData }
    }
}

fn nothing(answer: Answering<'_>) -> Answering<'_> {
    Box::pin(async move {
        let (operation, mut answer) = answer.await?;
        if matches!(answer.body.trim_ascii_start().first(), Some(b'{' | b'[' | b'<')) {
            decode::<serde::de::IgnoredAny>(&operation, &answer)?;
        }
        answer.body = Bytes::from_static(b"null");
        Ok((operation, answer))
    })
}

impl<T: DeserializeOwned> Future for Asked<'_, T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.answer
            .as_mut()
            .poll(cx)
            .map(|answer| answer.and_then(|(operation, answer)| decode(&operation, &answer)))
    }
}

impl<T> fmt::Debug for Asked<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Asked").finish_non_exhaustive()
    }
}

/// Reads an answer as JSON of this type.
pub(crate) fn decode<T: DeserializeOwned>(operation: &str, answer: &Answer) -> Result<T, Error> {
    json::read(&answer.body).map_err(|error| undecodable(operation, answer, &error))
}

#[cold]
fn undecodable(operation: &str, answer: &Answer, error: &json::Misread) -> Error {
    Error::new(
        operation,
        ErrorKind::Undecodable {
            path: format!("{} of its JSON", error.place()),
            what: error.what().to_owned(),
            snippet: snippet_of(&answer.body),
        },
    )
}
