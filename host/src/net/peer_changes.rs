//! The operator's changes on their way to the machine, and what became of them on the way back.

use crate::chain::sync::{PeerChange, PeerChangeError};
use std::sync::mpsc;
use std::time::Duration;
use tokio::sync::mpsc as tasks;

/// How long the network's task may take: it answers between two of its steps.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Changes that may wait.
const WAITING: usize = 16;

/// A change, and who waits for what became of it.
pub(super) struct Asked {
    pub(super) change: PeerChange,
    pub(super) answer: mpsc::SyncSender<Result<String, PeerChangeError>>,
}

/// Asks the network's task for changes, from other threads.
#[derive(Clone)]
pub(super) struct Changes(tasks::Sender<Asked>);

/// The network's task has ended, or is too busy to answer.
#[derive(Debug, thiserror::Error)]
#[error("the network does not answer")]
pub struct NoAnswer;

impl Changes {
    pub(super) fn new() -> (Self, tasks::Receiver<Asked>) {
        let (sender, receiver) = tasks::channel(WAITING);
        (Self(sender), receiver)
    }

    /// Asks, and waits. Not to be called from a task.
    pub(super) fn ask(
        &self,
        change: PeerChange,
    ) -> Result<Result<String, PeerChangeError>, NoAnswer> {
        let (answer, answered) = mpsc::sync_channel(1);
        let asked = Asked { change, answer };
        self.0.try_send(asked).map_err(|_| NoAnswer)?;
        answered.recv_timeout(ANSWER_LIMIT).map_err(|_| NoAnswer)
    }
}
