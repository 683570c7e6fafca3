//! What the operator asks for.

use super::Manager;
use crate::api::{PluginAction, QueryFailure};
use anyhow::Result;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// How long an answer may take: a rehearsal of many big blocks is the longest.
const ANSWER_LIMIT: Duration = Duration::from_secs(300);

/// A question to the manager, and who waits for its answer: a line for people.
pub(crate) struct Request {
    /// The plugin; none to read the configuration file again.
    pub(super) plugin: Option<(String, PluginAction)>,
    pub(super) asker: Sender<Result<String>>,
}

/// Asks the manager, from the threads of the API.
pub(crate) struct Asker(Mutex<Sender<Request>>);

impl Asker {
    pub(crate) fn new(requests: Sender<Request>) -> Self {
        Self(Mutex::new(requests))
    }

    /// Asks, and waits for what happened.
    pub(crate) fn ask(
        &self,
        plugin: Option<(String, PluginAction)>,
    ) -> Result<String, QueryFailure> {
        let (asker, answer) = channel();
        let busy = || QueryFailure::Busy("the host is ending".to_owned());
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .send(Request { plugin, asker })
            .map_err(|_| busy())?;
        match answer.recv_timeout(ANSWER_LIMIT) {
            Ok(answer) => answer.map_err(|why| QueryFailure::Failed(format!("{why:#}"))),
            Err(_) => Err(busy()),
        }
    }
}

impl Manager {
    pub(super) fn answer(&mut self, request: Request) {
        let Request { plugin, asker } = request;
        let answer = match plugin {
            None => self.read_config(),
            Some((name, action)) => self.act(&name, action),
        };
        // Whoever asked may have gone away.
        let _ = asker.send(answer);
    }

    fn act(&mut self, name: &str, action: PluginAction) -> Result<String> {
        match action {
            PluginAction::Reload => self.reload_now(name),
            PluginAction::Revert => self.revert(name),
            PluginAction::Retry => self.retry(name),
            PluginAction::Rebuild => self.rebuild(name),
            PluginAction::Purge => self.purge(name),
        }
    }
}
