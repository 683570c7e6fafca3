//! What a lane is told to do between two blocks.

use super::status::Program;
use crate::store::PluginNote;
use anyhow::{Result, bail};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often it is looked whether an order is waited for still.
const LOOK: Duration = Duration::from_millis(100);

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
pub(super) struct Orders(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    /// With the number of each.
    waiting: Vec<(u64, Waiting)>,
    given: u64,
}

impl Orders {
    /// Queues an order. The answer comes when the lane has carried it out, and never when the lane ends before.
    pub(super) fn give(&self, order: Order) -> Receiver<Result<()>> {
        self.queue(order).1
    }

    fn queue(&self, order: Order) -> (u64, Receiver<Result<()>>) {
        let (sender, answer) = channel();
        let mut queue = self.lock();
        queue.given += 1;
        let number = queue.given;
        queue.waiting.push((number, (order, sender)));
        (number, answer)
    }

    /// Waits for the answer to an order that [`queue`](Self::queue) has queued. When the lane has not begun with it within
    /// `limit`, or when it is `given_up`, it is taken back: whoever gave it goes on as if it never had been given. Once the lane
    /// is at it, only the answer says what has become of it.
    fn answer(
        &self,
        (number, answer): (u64, Receiver<Result<()>>),
        limit: Duration,
        given_up: impl Fn() -> bool,
    ) -> Result<()> {
        let began = Instant::now();
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(answer) => return answer,
                Err(RecvTimeoutError::Disconnected) => bail!("the lane has ended"),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if (began.elapsed() >= limit || given_up()) && self.withdraw(number) {
                bail!(
                    "the lane did not come to the end of its block: nothing was changed, ask again"
                );
            }
        }
    }

    /// Takes an order back; false when the lane has taken it.
    fn withdraw(&self, number: u64) -> bool {
        let mut queue = self.lock();
        let before = queue.waiting.len();
        queue.waiting.retain(|(waiting, _)| *waiting != number);
        queue.waiting.len() < before
    }

    /// Gives an order, `wake`s the lane, and waits until it is carried out.
    ///
    /// # Errors
    ///
    /// When it could not be carried out; or the lane has not begun with it within `limit`, or before it was `given_up`. Then it
    /// never will.
    pub(super) fn carry_out(
        &self,
        order: Order,
        wake: impl FnOnce(),
        limit: Duration,
        given_up: impl Fn() -> bool,
    ) -> Result<()> {
        let queued = self.queue(order);
        wake();
        self.answer(queued, limit, given_up)
    }

    /// The next order.
    pub(super) fn take(&self) -> Option<Waiting> {
        let mut queue = self.lock();
        (!queue.waiting.is_empty()).then(|| queue.waiting.remove(0).1)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use std::cell::RefCell;

    const NEVER: Duration = Duration::from_secs(3_600);

    #[test]
    fn an_order_that_is_given_up_is_never_carried_out() {
        let orders = Orders::default();
        let first = orders.give(Order::End);
        let error = orders.carry_out(Order::End, || {}, Duration::ZERO, || false);
        assert!(error.unwrap_err().to_string().contains("end of its block"));
        let error = orders.carry_out(Order::End, || {}, NEVER, || true);
        assert!(error.is_err());
        // Only the one that is waited for.
        orders.take().unwrap().1.send(Ok(())).unwrap();
        first.recv().unwrap().unwrap();
        assert!(orders.take().is_none());
    }

    #[test]
    fn an_order_that_the_lane_is_at_is_waited_for_whatever_time_it_takes() {
        let orders = Orders::default();
        let taken = RefCell::new(None);
        let looks = RefCell::new(0);
        // The lane takes it, and carries it out only after it was given up.
        let lane = || {
            *looks.borrow_mut() += 1;
            let mut taken = taken.borrow_mut();
            let (_, asker) = taken.get_or_insert_with(|| orders.take().unwrap());
            if *looks.borrow() == 3 {
                asker.send(Ok(())).unwrap();
            }
            true
        };
        orders.carry_out(Order::End, || {}, NEVER, lane).unwrap();
        assert_eq!(*looks.borrow(), 3);
    }
}
