//! What the book knows about one address.

use bitcoin::p2p::ServiceFlags;

use super::address::{Group, NetAddress};
use crate::wire::TransportKind;

/// An address that was not seen for so long is not worth a try (Core's `ADDRMAN_HORIZON`).
const HORIZON: u64 = 30 * 24 * 60 * 60;
/// Tries without any success after which an address is given up (Core's `ADDRMAN_RETRIES`).
const MOST_TRIES: u32 = 3;
/// Failures in a row after which one that was good once is given up (Core's `ADDRMAN_MAX_FAILURES`).
const MOST_FAILURES: u32 = 10;
/// But not as long as it was good so lately (Core's `ADDRMAN_MIN_FAIL`).
const GOOD_LATELY: u64 = 7 * 24 * 60 * 60;
/// An address from the future is a lie, beyond what clocks differ.
const CLOCKS_DIFFER: u64 = 10 * 60;
/// An address that was tried within this is not likely to be chosen again.
const TRIED_LATELY: u64 = 10 * 60;
/// Bytes of a reason that are kept.
const MAX_REASON: usize = 160;

/// Where in the book a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Heard of, never connected to: the place in the table of the new.
    New(u32),
    /// Connected to before: the place in the table of the tried.
    Tried(u32),
    /// In none: named by the configuration or the operator, and not to be chosen.
    Pinned,
}

/// What happened to an address. Times are unix seconds, 0 for never.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which.
    pub address: NetAddress,
    /// What it offers, by what others said or itself.
    pub services: ServiceFlags,
    /// The group of whoever told of it first.
    pub source: Group,
    /// When it was last said to be there, or was.
    pub seen: u64,
    /// When a connection was last tried.
    pub tried: u64,
    /// When a handshake was last done.
    pub good: u64,
    /// Tries since, that count.
    pub failures: u32,
    /// The transport that it took, and version 1 only if it refused version 2.
    pub transport: Option<TransportKind>,
    /// Why the last connection ended, and when.
    pub dropped: Option<(u64, String)>,
    /// Where it is.
    pub place: Place,
    /// When a try last counted as a failure.
    pub counted: u64,
}

impl Record {
    /// One that nothing happened to.
    pub fn new(address: NetAddress, services: ServiceFlags, source: Group, seen: u64) -> Record {
        Record {
            address,
            services,
            source,
            seen,
            tried: 0,
            good: 0,
            failures: 0,
            transport: None,
            dropped: None,
            place: Place::Pinned,
            counted: 0,
        }
    }

    /// Whether it can make room for another (Core's `IsTerrible`).
    pub fn is_worthless(&self, now: u64) -> bool {
        if now.saturating_sub(self.tried) <= 60 {
            return false;
        }
        self.seen > now + CLOCKS_DIFFER
            || now.saturating_sub(self.seen) > HORIZON
            || (self.good == 0 && self.failures >= MOST_TRIES)
            || (now.saturating_sub(self.good) > GOOD_LATELY && self.failures >= MOST_FAILURES)
    }

    /// The part of the draws that it wins (Core's `GetChance`).
    pub fn chance(&self, now: u64) -> f64 {
        let recent = if now.saturating_sub(self.tried) < TRIED_LATELY {
            0.01
        } else {
            1.0
        };
        recent * 0.66_f64.powi(i32::try_from(self.failures.min(8)).unwrap_or(8))
    }

    /// Remembers why a connection ended.
    pub fn ended(&mut self, why: &str, now: u64) {
        let mut end = why.len().min(MAX_REASON);
        while !why.is_char_boundary(end) {
            end -= 1;
        }
        self.dropped = Some((now, why.get(..end).unwrap_or_default().to_owned()));
    }
}
