//! What came of a run, and whether it is what should.

use std::fmt;
use std::hash::Hasher;
use std::time::Duration;

use blockmill::wire::Moment;

use super::calls::Incoming;
use super::{MOST_KEPT, MOST_LATE, Simulation};
use crate::host::Encrypted;
use crate::kind::Kind;
use crate::world::Side;

/// What came of compact blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Compact {
    /// Blocks that were put together and were good.
    pub blocks: u64,
    /// Transactions that the pool had of them.
    pub filled: u64,
    /// Blocks that were put together and were not good, so that they were asked for once more.
    pub wrong: u64,
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// What it was made of.
    pub seed: u64,
    /// Simulated time until the host was at the tip for good.
    pub took: Duration,
    /// The most bytes that the network machine kept.
    pub peak: i64,
    /// Of everything that the host sent, in order.
    pub trace: u64,
    /// What became of the connections that peers made.
    pub incoming: Incoming,
    /// What came of compact blocks.
    pub compact: Compact,
    /// What came of version 2 of the transport.
    pub encrypted: Encrypted,
    /// Compact blocks and handshakes that were spoiled.
    pub spoiled: u64,
    /// The most that it took from the first honest peer's announcement of a block to the block.
    pub slowest: Duration,
    /// What did not hold.
    pub failures: Vec<String>,
}

/// A peer that the host dropped for a fault.
pub(super) struct Dropped {
    pub(super) kind: Kind,
    pub(super) reason: String,
    /// It was banned for it.
    pub(super) offence: bool,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (calls, v2) = (&self.incoming, &self.encrypted);
        write!(
            f,
            "at the tip after {} min, no block later than {:.1} s, {} kB at most; {} blocks of compact form ({} wrong); \
             {} incoming at most of {} calls, {} let go for another; encrypted {} to and {} from it, {} fell back",
            self.took.as_secs() / 60,
            self.slowest.as_secs_f64(),
            self.peak / 1_000,
            self.compact.blocks,
            self.compact.wrong,
            calls.most,
            calls.calls,
            calls.evicted,
            v2.incoming,
            v2.outgoing,
            v2.fallbacks,
        )
    }
}

impl Simulation {
    pub(super) fn judge(mut self, there: Option<Moment>) -> Outcome {
        self.count_honest_callers();
        let mut failures = std::mem::take(&mut self.failures);
        let machine = self.host.machine();
        if there.is_none() {
            failures.push(format!(
                "the host is at {} and the network at {}; synced: {}",
                machine.tip().0,
                self.world.height(Side::Main),
                machine.synced(self.now),
            ));
        }
        for dropped in &self.dropped {
            // On a bad line a peer may be too slow, and is never banned for it.
            let wronged = match dropped.kind {
                Kind::Slow => dropped.offence,
                kind => kind.is_honest(),
            };
            if wronged {
                failures.push(format!("an honest peer was dropped: {}", dropped.reason));
            }
        }
        for node in self
            .scenario
            .nodes
            .iter()
            .filter(|node| node.kind.is_honest())
        {
            if let Some((subnet, ban)) = machine.bans().of(node.addr.ip(), self.now.secs()) {
                failures.push(format!(
                    "an honest peer is banned ({subnet}): {}",
                    ban.reason
                ));
            }
        }
        let honest = self
            .connections
            .values()
            .filter(|connection| !connection.incoming)
            .filter(|connection| self.kind(connection.node).is_some_and(Kind::is_honest))
            .count();
        if honest == 0 {
            failures.push("the host is connected to no honest peer".to_owned());
        }
        // Those of the flood that are still there are no newcomers any more; honest ones share what is left, by turns.
        let (callers, stayed) = self.incoming.honest;
        let incoming = self.connections.values().filter(|c| c.incoming).count();
        if stayed < callers && incoming < self.limits.incoming {
            failures.push(format!(
                "of {callers} honest peers that connect to the host {stayed} are connected"
            ));
        }
        if self.slowest > MOST_LATE {
            failures.push(format!("a block came {:?} late", self.slowest));
        }
        if self.host.peak > MOST_KEPT {
            failures.push(format!("{} bytes were kept", self.host.peak));
        }
        // Who has no honest peer but those for blocks alone hears of none.
        let lost = self.announced.difference(&self.arrived).count();
        // A payment of the time when nothing was synced is not asked for, and nobody announces it again.
        if lost * 2 > self.announced.len() && self.scenario.sleeps_at.is_none() {
            failures.push(format!(
                "{lost} of {} transactions did not come",
                self.announced.len()
            ));
        }
        Outcome {
            seed: self.scenario.seed,
            took: there.unwrap_or(self.now).since(self.start),
            peak: self.host.peak,
            trace: self.trace.finish(),
            incoming: self.incoming,
            compact: self.compact,
            slowest: self.slowest,
            spoiled: self.scenario.nodes.iter().map(|node| node.spoiled).sum(),
            encrypted: self.host.encrypted,
            failures,
        }
    }
}
