//! The named peers, by the configuration or the operator: which to connect to, and when again.

use std::net::SocketAddr;
use std::time::Duration;

use crate::wire::Moment;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Idle { next: Moment },
    Connecting { since: Moment },
    Connected,
}

/// Who named a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NamedBy {
    /// `peers.connect`: only these are connected to.
    Connect,
    /// `peers.add`: beside those of the book.
    Add,
    /// The operator, until the host ends.
    Operator,
}

#[derive(Debug)]
struct Entry {
    addr: SocketAddr,
    by: NamedBy,
    state: State,
    /// Failures in a row: connections that did not come about, or brought nothing.
    failures: u32,
}

/// The configured addresses and what became of them.
#[derive(Debug)]
pub(super) struct Addresses {
    entries: Vec<Entry>,
    delay: Duration,
    max_delay: Duration,
    connect_timeout: Duration,
}

impl Addresses {
    pub(super) fn new(
        addrs: &[SocketAddr],
        delay: Duration,
        max_delay: Duration,
        connect_timeout: Duration,
    ) -> Self {
        let mut addresses = Addresses {
            entries: Vec::new(),
            delay,
            max_delay,
            connect_timeout,
        };
        for addr in addrs {
            addresses.add(*addr, Moment(0));
        }
        addresses
    }

    pub(super) fn add(&mut self, addr: SocketAddr, now: Moment) {
        self.add_by(addr, NamedBy::Connect, now);
    }

    pub(super) fn add_by(&mut self, addr: SocketAddr, by: NamedBy, now: Moment) {
        if self.entry(addr).is_none() {
            self.entries.push(Entry {
                addr,
                by,
                state: State::Idle { next: now },
                failures: 0,
            });
        }
    }

    pub(super) fn contains(&self, addr: &SocketAddr) -> bool {
        self.entries.iter().any(|entry| entry.addr == *addr)
    }

    /// Those that the configuration names.
    pub(super) fn configured(&self) -> impl Iterator<Item = SocketAddr> {
        let entries = self.entries.iter();
        entries
            .filter(|entry| entry.by != NamedBy::Operator)
            .map(|entry| entry.addr)
    }

    /// How many are connected to beside those of the book.
    pub(super) fn added(&self) -> usize {
        let entries = self.entries.iter();
        entries.filter(|entry| entry.by != NamedBy::Connect).count()
    }

    /// Forgets those that the operator added. Returns whether there was any.
    pub(super) fn remove_operators(&mut self, which: impl Fn(&SocketAddr) -> bool) -> bool {
        let before = self.entries.len();
        self.entries
            .retain(|entry| entry.by != NamedBy::Operator || !which(&entry.addr));
        self.entries.len() < before
    }

    /// The addresses to connect to now, at most so many of `connect` at once; they count as being connected to from here on.
    pub(super) fn due(&mut self, max_outbound: usize, now: Moment) -> Vec<SocketAddr> {
        let mut busy = 0;
        for entry in &mut self.entries {
            if let State::Connecting { since } = entry.state
                && now.since(since) >= self.connect_timeout
            {
                fail(entry, self.delay, self.max_delay, now);
            }
            busy += usize::from(
                entry.by == NamedBy::Connect && !matches!(entry.state, State::Idle { .. }),
            );
        }
        let mut due = Vec::new();
        for entry in &mut self.entries {
            let counts = entry.by == NamedBy::Connect;
            if counts && busy >= max_outbound {
                continue;
            }
            if let State::Idle { next } = entry.state
                && next <= now
            {
                entry.state = State::Connecting { since: now };
                due.push(entry.addr);
                busy += usize::from(counts);
            }
        }
        due
    }

    /// Returns whether it is one of these.
    pub(super) fn connected(&mut self, addr: SocketAddr) -> bool {
        let entry = self.entry(addr);
        let named = entry.is_some();
        if let Some(entry) = entry {
            entry.state = State::Connected;
        }
        named
    }

    /// The peer brought something good: the next loss of it starts from the shortest pause.
    pub(super) fn useful(&mut self, addr: SocketAddr) {
        if let Some(entry) = self.entry(addr) {
            entry.failures = 0;
        }
    }

    /// The connection ended or did not come about.
    pub(super) fn lost(&mut self, addr: SocketAddr, now: Moment) {
        let (delay, max_delay) = (self.delay, self.max_delay);
        if let Some(entry) = self.entry(addr) {
            fail(entry, delay, max_delay, now);
        }
    }

    /// The address is to be connected to again at once, in another way: that it was lost is no failure.
    pub(super) fn again(&mut self, addr: SocketAddr, now: Moment) {
        if let Some(entry) = self.entry(addr) {
            entry.failures = entry.failures.saturating_sub(1);
            entry.state = State::Idle { next: now };
        }
    }

    /// Forgets every pause: after a sleep, everything is tried at once.
    pub(super) fn reset(&mut self, now: Moment) {
        for entry in &mut self.entries {
            entry.failures = 0;
            entry.state = State::Idle { next: now };
        }
    }

    fn entry(&mut self, addr: SocketAddr) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|entry| entry.addr == addr)
    }
}

fn fail(entry: &mut Entry, delay: Duration, max_delay: Duration, now: Moment) {
    let pause = delay
        .saturating_mul(1 << entry.failures.min(20))
        .min(max_delay);
    entry.failures = entry.failures.saturating_add(1);
    entry.state = State::Idle { next: now + pause };
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    fn addresses(count: u16) -> Addresses {
        let addrs: Vec<SocketAddr> = (0..count)
            .map(|port| SocketAddr::from(([127, 0, 0, 1], port + 1)))
            .collect();
        Addresses::new(
            &addrs,
            Duration::from_secs(1),
            Duration::from_secs(10),
            Duration::from_secs(30),
        )
    }

    #[test]
    fn a_lost_peer_is_tried_again_with_growing_pauses() {
        let mut addresses = addresses(1);
        let addr = addresses.due(8, Moment(0))[0];
        let mut now = Moment(0);
        for pause in [1, 2, 4, 8, 10, 10] {
            addresses.lost(addr, now);
            assert!(
                addresses
                    .due(8, now + Duration::from_millis(pause * 1000 - 1))
                    .is_empty()
            );
            now = now + Duration::from_secs(pause);
            assert_eq!(addresses.due(8, now), [addr]);
        }
        addresses.connected(addr);
        addresses.useful(addr);
        addresses.lost(addr, now);
        assert_eq!(addresses.due(8, now + Duration::from_secs(1)), [addr]);
    }

    #[test]
    fn no_more_are_connected_to_than_wanted_and_a_spare_takes_the_place_of_a_lost_one() {
        let mut addresses = addresses(3);
        let first = addresses.due(2, Moment(0));
        assert_eq!(first.len(), 2);
        assert!(addresses.due(2, Moment(10)).is_empty());
        addresses.lost(first[0], Moment(10));
        assert_eq!(
            addresses.due(2, Moment(10)),
            [SocketAddr::from(([127, 0, 0, 1], 3))]
        );
    }

    #[test]
    fn a_connection_that_never_comes_about_is_given_up() {
        let mut addresses = addresses(1);
        let addr = addresses.due(8, Moment(0))[0];
        assert!(addresses.due(8, Moment(29_999)).is_empty());
        assert!(addresses.due(8, Moment(30_000)).is_empty());
        assert_eq!(addresses.due(8, Moment(31_000)), [addr]);
    }
}
