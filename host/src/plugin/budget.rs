//! Budgets: how much of the host a plugin may use, and how much it did.
//!
//! Each budget is a key of `[plugins]`, which the table of one plugin may override. Breaking one ends the call: the message
//! names the key and the limit. What was used is kept per plugin, so that a limit can be chosen by what is usual.

use crate::status::BudgetUse;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// Something that a plugin may use a bounded amount of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Budget {
    /// Bytes of all linear memories of an instance that handles blocks.
    Memory,
    /// Entries of all tables of an instance.
    Tables,
    /// Core instances of one plugin, its memories and its tables, each counted by itself.
    Instances,
    /// Time of one call with a block, with changes of the pool, or of the start.
    BlockTime,
    /// State keys written by such a call.
    BlockKeys,
    /// Bytes of keys and values written by such a call.
    BlockState,
    /// Rows written by such a call.
    BlockRows,
    /// Bytes of these rows.
    BlockRowBytes,
    /// Log lines of any call; what is over is dropped.
    BlockLog,
    /// Time of one query, its start included.
    QueryTime,
    /// Bytes of memory of an instance that answers a query.
    QueryMemory,
    /// Bytes of a query's answer.
    QueryAnswer,
}

/// What a budget is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Microseconds,
    Count,
}

impl Budget {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 12] = [
        Self::Memory,
        Self::Tables,
        Self::Instances,
        Self::BlockTime,
        Self::BlockKeys,
        Self::BlockState,
        Self::BlockRows,
        Self::BlockRowBytes,
        Self::BlockLog,
        Self::QueryTime,
        Self::QueryMemory,
        Self::QueryAnswer,
    ];

    /// Its key in `[plugins]` and `[plugins.NAME]`.
    pub fn key(self) -> &'static str {
        match self {
            Self::Memory => "memory_limit",
            Self::Tables => "table_limit",
            Self::Instances => "instance_limit",
            Self::BlockTime => "block_time_limit",
            Self::BlockKeys => "block_keys_limit",
            Self::BlockState => "block_state_limit",
            Self::BlockRows => "block_rows_limit",
            Self::BlockRowBytes => "block_row_bytes_limit",
            Self::BlockLog => "block_log_limit",
            Self::QueryTime => "query_time_limit",
            Self::QueryMemory => "query_memory_limit",
            Self::QueryAnswer => "query_answer_limit",
        }
    }

    /// What it is counted in.
    pub fn unit(self) -> Unit {
        match self {
            Self::BlockTime | Self::QueryTime => Unit::Microseconds,
            Self::Memory
            | Self::BlockState
            | Self::BlockRowBytes
            | Self::QueryMemory
            | Self::QueryAnswer => Unit::Bytes,
            _ => Unit::Count,
        }
    }

    /// An amount as the message of an error shows it.
    pub(super) fn amount(self, amount: u64) -> String {
        match self.unit() {
            Unit::Microseconds => format!("{:?}", Duration::from_micros(amount)),
            Unit::Bytes => format!("{amount} bytes"),
            Unit::Count => amount.to_string(),
        }
    }

    /// What went over it, as the message of an error says it: after the name of the call.
    pub(super) fn excess(self, wanted: u64) -> String {
        match self {
            Self::BlockTime | Self::QueryTime => "ran longer than its limit".to_owned(),
            Self::Memory | Self::QueryMemory => {
                format!("asked for {wanted} bytes of memory, more than its limit")
            }
            Self::Tables => format!("asked for tables of {wanted} entries, more than its limit"),
            Self::Instances => {
                "has more instances, memories or tables in it than its limit".to_owned()
            }
            Self::BlockKeys => format!("wrote {wanted} keys, more than its limit"),
            Self::BlockState => format!("wrote {wanted} bytes of state, more than its limit"),
            Self::BlockRows => format!("wrote {wanted} rows, more than its limit"),
            Self::BlockRowBytes => format!("wrote {wanted} bytes of rows, more than its limit"),
            Self::BlockLog => format!("wrote {wanted} log lines, more than its limit"),
            Self::QueryAnswer => format!("answered {wanted} bytes, more than its limit"),
        }
    }
}

/// What an instance may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: usize,
    /// Entries of all tables.
    pub tables: usize,
    /// Core instances, memories and tables, each.
    pub instances: usize,
    /// Time of one call that handles a block, pool changes or the start.
    pub block_time: Duration,
    /// State keys that one such call may write.
    pub block_keys: u64,
    /// Bytes of keys and values that one such call may write.
    pub block_state: u64,
    /// Rows that one such call may write.
    pub block_rows: u64,
    /// Bytes of rows that one such call may write.
    pub block_row_bytes: u64,
    /// Log lines that any call may write; more are dropped.
    pub block_log: u64,
    /// Time of one query.
    pub query_time: Duration,
    /// Bytes of memory of an instance that answers a query.
    pub query_memory: usize,
    /// Bytes of an answer.
    pub query_answer: usize,
}

impl Limits {
    /// What the configuration says when it says nothing: a full block of 4 MB (some 110,000 outputs and 24,000 inputs)
    /// with every option of the plugins on fits a few times over.
    pub const DEFAULT: Self = Self {
        memory: 512_000_000,
        tables: 100_000,
        instances: 100,
        block_time: Duration::from_secs(30),
        block_keys: 2_000_000,
        block_state: 128_000_000,
        block_rows: 2_000_000,
        block_row_bytes: 512_000_000,
        block_log: 100,
        query_time: Duration::from_secs(10),
        query_memory: 256_000_000,
        query_answer: 16_000_000,
    };

    /// Limits from amounts by key, as [`Limits::of`] gives them; what is not named is as by default.
    pub fn from_keys(keys: &BTreeMap<String, u64>) -> Self {
        let of = |budget: Budget| {
            let known = keys.get(budget.key()).copied();
            known.unwrap_or_else(|| Self::DEFAULT.of(budget))
        };
        let size = |budget| usize::try_from(of(budget)).unwrap_or(usize::MAX);
        Self {
            memory: size(Budget::Memory),
            tables: size(Budget::Tables),
            instances: size(Budget::Instances),
            block_time: Duration::from_micros(of(Budget::BlockTime)),
            block_keys: of(Budget::BlockKeys),
            block_state: of(Budget::BlockState),
            block_rows: of(Budget::BlockRows),
            block_row_bytes: of(Budget::BlockRowBytes),
            block_log: of(Budget::BlockLog),
            query_time: Duration::from_micros(of(Budget::QueryTime)),
            query_memory: size(Budget::QueryMemory),
            query_answer: size(Budget::QueryAnswer),
        }
    }

    /// The limit of a budget, in its unit.
    pub fn of(&self, budget: Budget) -> u64 {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        match budget {
            Budget::Memory => self.memory as u64,
            Budget::Tables => self.tables as u64,
            Budget::Instances => self.instances as u64,
            Budget::BlockTime => micros(self.block_time),
            Budget::BlockKeys => self.block_keys,
            Budget::BlockState => self.block_state,
            Budget::BlockRows => self.block_rows,
            Budget::BlockRowBytes => self.block_row_bytes,
            Budget::BlockLog => self.block_log,
            Budget::QueryTime => micros(self.query_time),
            Budget::QueryMemory => self.query_memory as u64,
            Budget::QueryAnswer => self.query_answer as u64,
        }
    }
}

#[derive(Default)]
struct Used {
    last: AtomicU64,
    max: AtomicU64,
}

/// What a plugin has used of its budgets since it was loaded.
#[derive(Default)]
pub struct Usage {
    used: [Used; Budget::ALL.len()],
    shown: AtomicBool,
}

impl Usage {
    fn used(&self, budget: Budget) -> Option<&Used> {
        self.used.get(budget as usize)
    }

    /// Notes what a call used. Says whether that is more than any call before.
    pub(super) fn note(&self, budget: Budget, amount: u64) -> bool {
        let Some(used) = self.used(budget) else {
            return false;
        };
        used.last.store(amount, Ordering::Relaxed);
        used.max.fetch_max(amount, Ordering::Relaxed) < amount
    }

    /// True the first time that it is asked.
    pub(super) fn first(&self) -> bool {
        !self.shown.swap(true, Ordering::Relaxed)
    }

    /// The most that a call has used of a budget.
    pub fn max(&self, budget: Budget) -> u64 {
        self.used(budget)
            .map_or(0, |used| used.max.load(Ordering::Relaxed))
    }

    /// All of it, by key, as the API shows it.
    pub fn report(&self, limits: &Limits) -> BTreeMap<String, BudgetUse> {
        let one = |budget: Budget| {
            let last = self
                .used(budget)
                .map_or(0, |used| used.last.load(Ordering::Relaxed));
            let shown = BudgetUse {
                last,
                max: self.max(budget),
                limit: limits.of(budget),
                unit: match budget.unit() {
                    Unit::Bytes => "bytes",
                    Unit::Microseconds => "microseconds",
                    Unit::Count => "count",
                }
                .to_owned(),
            };
            (budget.key().to_owned(), shown)
        };
        Budget::ALL.into_iter().map(one).collect()
    }
}

/// An amount in what metrics are shown in: seconds, bytes or a number.
pub(super) fn in_metrics(budget: Budget, amount: u64) -> f64 {
    match budget.unit() {
        Unit::Microseconds => amount as f64 / 1e6,
        _ => amount as f64,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn every_budget_has_a_key_of_its_own_and_a_place_of_its_own() {
        let mut keys: Vec<_> = Budget::ALL.iter().map(|budget| budget.key()).collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), Budget::ALL.len());
        for (place, budget) in Budget::ALL.into_iter().enumerate() {
            assert_eq!(budget as usize, place);
            assert!(Limits::DEFAULT.of(budget) > 0);
        }
    }

    #[test]
    fn limits_are_the_same_after_the_way_over_their_keys() {
        let mut limits = Limits {
            block_time: Duration::from_millis(7),
            query_answer: 9,
            ..Limits::DEFAULT
        };
        let keys = |limits: &Limits| {
            let all = Budget::ALL.into_iter();
            all.map(|budget| (budget.key().to_owned(), limits.of(budget)))
                .collect()
        };
        assert_eq!(Limits::from_keys(&keys(&limits)), limits);
        limits.tables += 1;
        assert_eq!(Limits::from_keys(&keys(&limits)), limits);
    }

    #[test]
    fn the_last_and_the_largest_use_are_kept() {
        let usage = Usage::default();
        assert!(usage.note(Budget::BlockKeys, 7));
        assert!(!usage.note(Budget::BlockKeys, 3));
        let report = usage.report(&Limits::DEFAULT);
        let keys = &report["block_keys_limit"];
        assert_eq!((keys.last, keys.max, keys.limit), (3, 7, 2_000_000));
        assert_eq!(report["block_time_limit"].limit, 30_000_000);
        assert_eq!(report["block_time_limit"].unit, "microseconds");
    }
}
