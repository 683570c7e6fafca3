//! What a lane does when a step fails: try again, wait for the host, or stand still.
//!
//! Each failure drops what is not committed and the instance; a fresh one tries the same block after a pause that grows. A
//! plugin is a function of the chain, so the same failure on the same block will come for ever: after a few of them the
//! plugin is quarantined. What the host, its disk or its database did wrong says nothing about the plugin: it is never
//! counted, and the lane goes on by itself when it is over.

use super::active_chain::Position;
use crate::plugin::CallError;
use crate::store::{RowError, StoreError};
use std::time::Duration;

/// The longest pause while the host's disk or database fails: it goes on soon after they are well.
const LONGEST_HOST_PAUSE: Duration = Duration::from_secs(10);

/// Whose fault a failure is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The plugin's, with what tells this failure from others: class and cause.
    Plugin(String),
    /// The host's, its disk's or its database's.
    Host,
}

impl Fault {
    /// Tells whose fault an error of a lane's step is. What nobody claims is the host's: a plugin is accused only of what it
    /// is known to have done.
    pub fn of(error: &anyhow::Error) -> Self {
        for cause in error.chain() {
            if let Some(call) = cause.downcast_ref::<CallError>() {
                return match call.is_hosts_fault() {
                    true => Self::Host,
                    false => Self::Plugin(format!("{} {}", call.class().as_str(), call.cause())),
                };
            }
            let text = match (
                cause.downcast_ref::<StoreError>(),
                cause.downcast_ref::<RowError>(),
            ) {
                (Some(store), _) if store.is_callers_fault() => store.to_string(),
                (_, Some(rows)) if rows.is_plugins_fault() => format!("{error:#}"),
                _ => continue,
            };
            return Self::Plugin(text);
        }
        Self::Host
    }
}

/// What to do about a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Try again after a pause; this was the so many-th failure of its kind.
    Retry { pause: Duration, attempts: u32 },
    /// Stand still until somebody asks for another try.
    Quarantine { attempts: u32 },
    /// Wait for the host, and try again after a pause.
    WaitForHost { pause: Duration },
}

/// The failures of a lane since its last block.
#[derive(Debug, Clone)]
pub struct Ladder {
    /// Failures of one cause on one block after which the plugin is quarantined.
    quarantine_after: u32,
    first_pause: Duration,
    longest_pause: Duration,
    pause: Duration,
    host_pause: Duration,
    /// The block and the cause of the last failure of the plugin, and how often it came.
    last: Option<(Option<Position>, String)>,
    same: u32,
}

impl Ladder {
    /// A ladder with nothing on it. Pauses begin at the first and double up to the longest.
    pub fn new(quarantine_after: u32, first_pause: Duration, longest_pause: Duration) -> Self {
        Self {
            quarantine_after,
            first_pause,
            longest_pause,
            pause: first_pause,
            host_pause: first_pause.min(LONGEST_HOST_PAUSE),
            last: None,
            same: 0,
        }
    }

    /// A block was taken, or somebody asked for a fresh start: all is forgotten.
    pub fn reset(&mut self) {
        *self = Self::new(self.quarantine_after, self.first_pause, self.longest_pause);
    }

    /// Failures of one cause on one block so far.
    pub fn attempts(&self) -> u32 {
        self.same
    }

    /// A step failed at this block: what is to be done?
    pub fn failed(&mut self, block: Option<Position>, fault: Fault) -> Verdict {
        let cause = match fault {
            Fault::Host => {
                let pause = self.host_pause;
                self.host_pause = (pause * 2).min(LONGEST_HOST_PAUSE.max(self.first_pause));
                return Verdict::WaitForHost { pause };
            }
            Fault::Plugin(cause) => cause,
        };
        self.host_pause = self.first_pause.min(LONGEST_HOST_PAUSE);
        let this = Some((block, cause));
        if self.last == this {
            self.same += 1;
        } else {
            (self.last, self.same) = (this, 1);
        }
        if self.same >= self.quarantine_after {
            return Verdict::Quarantine {
                attempts: self.same,
            };
        }
        let pause = self.pause;
        self.pause = (pause * 2).min(self.longest_pause);
        Verdict::Retry {
            pause,
            attempts: self.same,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::super::active_chain::tests::block;
    use super::*;
    use anyhow::{Context, anyhow};

    fn ladder() -> Ladder {
        Ladder::new(3, Duration::from_secs(1), Duration::from_secs(3))
    }

    fn at(height: u32, branch: u8) -> Option<Position> {
        Some(Position {
            height,
            hash: block(height, branch, 0).0,
        })
    }

    fn plugin(cause: &str) -> Fault {
        Fault::Plugin(cause.to_owned())
    }

    fn trap() -> CallError {
        CallError::Trap {
            call: "on-block",
            message: "unreachable".to_owned(),
            backtrace: "differs".to_owned(),
        }
    }

    fn retry(seconds: u64, attempts: u32) -> Verdict {
        Verdict::Retry {
            pause: Duration::from_secs(seconds),
            attempts,
        }
    }

    #[test]
    fn the_same_failure_on_the_same_block_is_quarantined_after_growing_pauses() {
        let mut ladder = ladder();
        assert_eq!(ladder.failed(at(5, 0), plugin("a")), retry(1, 1));
        assert_eq!(ladder.failed(at(5, 0), plugin("a")), retry(2, 2));
        assert_eq!(
            ladder.failed(at(5, 0), plugin("a")),
            Verdict::Quarantine { attempts: 3 }
        );
    }

    #[test]
    fn another_cause_or_another_block_counts_anew() {
        let mut ladder = ladder();
        for (block, cause, attempts) in [
            (at(5, 0), "a", 1),
            (at(5, 0), "b", 1),
            (at(5, 1), "b", 1),
            (at(5, 1), "b", 2),
            (at(5, 1), "a", 1),
        ] {
            let verdict = ladder.failed(block, plugin(cause));
            assert!(
                matches!(verdict, Verdict::Retry { attempts: said, .. } if said == attempts),
                "{verdict:?}"
            );
        }
    }

    #[test]
    fn the_host_s_faults_are_never_counted_and_their_pauses_stay_short() {
        let mut ladder = ladder();
        ladder.failed(at(5, 0), plugin("a"));
        ladder.failed(at(5, 0), plugin("a"));
        for _ in 0..100 {
            let verdict = ladder.failed(at(5, 0), Fault::Host);
            assert!(
                matches!(verdict, Verdict::WaitForHost { pause } if pause <= LONGEST_HOST_PAUSE),
                "{verdict:?}"
            );
        }
        assert_eq!(
            ladder.attempts(),
            2,
            "nor do they take away what was counted"
        );
        ladder.reset();
        assert_eq!(ladder.attempts(), 0);
        assert_eq!(ladder.failed(at(5, 0), plugin("a")), retry(1, 1));
    }

    #[test]
    fn a_fault_is_the_plugin_s_only_when_it_is_known_to_be() {
        let host = CallError::Host {
            call: "on-block",
            source: anyhow!("disk full"),
        };
        let full = StoreError::Io {
            what: "write",
            path: "x".into(),
            source: std::io::ErrorKind::StorageFull.into(),
        };
        let busy = RowError::Database {
            what: "insert rows",
            source: sqlx::Error::PoolTimedOut,
        };
        for error in [
            anyhow::Error::new(host).context("failed to flush"),
            anyhow::Error::new(full),
            anyhow::Error::new(busy),
            anyhow!("something else"),
        ] {
            assert_eq!(Fault::of(&error), Fault::Host, "{error:#}");
        }
        let rows = RowError::Rows {
            table: "t".to_owned(),
            why: "two rows with one key".to_owned(),
        };
        for error in [
            anyhow::Error::new(trap()).context("block 5"),
            anyhow::Error::new(rows),
        ] {
            assert!(matches!(Fault::of(&error), Fault::Plugin(_)), "{error:#}");
        }
        let wrapped = Err::<(), _>(trap()).context("again").unwrap_err();
        assert_eq!(Fault::of(&anyhow::Error::new(trap())), Fault::of(&wrapped));
    }
}
