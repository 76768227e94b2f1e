//! A blocking client of the control socket, for subcommands.

use std::io;
use std::path::Path;
use std::time::Duration;

use handover::control::client;
use handover::control::protocol::{Refusal, Step};
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use serde::de::DeserializeOwned;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// An answer whose head has arrived.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    answer: client::Answer,
    patience: Option<Duration>,
    runtime: Runtime,
}

/// Sends a request and waits for the head of the answer. `patience` is the timeout of that wait and of the wait for the body.
pub(crate) fn ask(
    socket: &Path,
    method: Method,
    target: &str,
    patience: Option<Duration>,
) -> io::Result<Answer> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let answer = wait(&runtime, patience, client::ask(socket, method, target, Bytes::new()))?;
    Ok(Answer { status: answer.status, answer, patience, runtime })
}

fn wait<T>(
    runtime: &Runtime,
    patience: Option<Duration>,
    answer: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    runtime.block_on(async {
        match patience {
            Some(patience) => timeout(patience, answer).await?,
            None => answer.await,
        }
    })
}

impl Answer {
    /// Waits for the whole body and parses it as JSON.
    pub(crate) fn value<T: DeserializeOwned>(self) -> io::Result<T> {
        let text = wait(&self.runtime, self.patience, self.answer.bytes())?;
        Ok(serde_json::from_slice(&text)?)
    }

    /// Returns the reason of a refusal.
    pub(crate) fn error(self) -> String {
        let refusal = self.value().unwrap_or(Refusal { error: String::new() });
        if refusal.error.is_empty() { "it gives no reason".to_owned() } else { refusal.error }
    }

    /// Reads the body step by step as it arrives.
    pub(crate) fn steps(self) -> Steps {
        Steps(self)
    }
}

pub(crate) struct Steps(Answer);

impl Iterator for Steps {
    type Item = Step;

    fn next(&mut self) -> Option<Step> {
        let Answer { answer, runtime, .. } = &mut self.0;
        serde_json::from_slice(&runtime.block_on(answer.line())?).ok()
    }
}
