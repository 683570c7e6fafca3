//! What a lane is told to do between two blocks.

use super::status::Program;
use crate::store::PluginNote;
use anyhow::Result;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What a lane is told. When it cannot be done the lane goes on as before, and the answer says why.
pub enum Order {
    /// Go on with another program on the same state.
    Replace(Arc<Program>, PluginNote),
    /// Go on with another program on the plugin's second set of data, whose lane has ended.
    Exchange(Arc<Program>, PluginNote),
    /// Flush and end.
    End,
}

/// An order, and who waits for it.
pub(super) type Waiting = (Order, Sender<Result<()>>);

/// The orders that wait for one lane, oldest first.
#[derive(Default)]
pub(super) struct Orders(Mutex<Vec<Waiting>>);

impl Orders {
    /// Queues an order. The answer comes when the lane has carried it out, and never when the lane ends before.
    pub(super) fn give(&self, order: Order) -> Receiver<Result<()>> {
        let (sender, answer) = channel();
        self.lock().push((order, sender));
        answer
    }

    /// The next order.
    pub(super) fn take(&self) -> Option<Waiting> {
        let mut waiting = self.lock();
        (!waiting.is_empty()).then(|| waiting.remove(0))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
