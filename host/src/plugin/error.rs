//! What can go wrong in a call into a plugin.

use super::budget::Budget;
use crate::store::RowError;
use thiserror::Error;

/// Why a call into a plugin did not give an answer. The lane rolls the block back for each of them.
#[derive(Debug, Error)]
pub enum CallError {
    /// The plugin wanted more of a budget than its limit. Amounts are in the budget's unit.
    #[error("{call} {}, {} = {}: a higher {} in the plugin's table would allow it",
        budget.excess(*wanted), budget.key(), budget.amount(*limit), budget.key())]
    Budget {
        call: &'static str,
        budget: Budget,
        wanted: u64,
        limit: u64,
        /// Where the code was, with the names of functions; empty when that is not known.
        backtrace: String,
    },
    /// The plugin used the host against the rules of `wit/plugin.wit`.
    #[error("{call} broke a rule of the host's interface: {rule}")]
    Rule {
        call: &'static str,
        rule: String,
        /// As that of `Budget`.
        backtrace: String,
    },
    /// The code trapped: unreachable, a panic, a division by zero, a stack overflow, …
    #[error("{call} trapped: {message}")]
    Trap {
        call: &'static str,
        message: String,
        /// As that of `Budget`.
        backtrace: String,
    },
    /// The plugin says that it could not do it.
    #[error("{call} failed: {message}")]
    Failed { call: &'static str, message: String },
    /// The plugin with the role `coins` says that the block breaks a rule of consensus.
    #[error("the block is not valid: {0}")]
    Invalid(String),
    /// A query would change settings, and not the host's owner asks.
    #[error(
        "only the host's owner may ask this: POST with the owner's token, or `blockmill plugin query --change`"
    )]
    NotOwner,
    /// The answer is not one that the host can use.
    #[error("{call} gave an answer that cannot be used: {reason}")]
    Answer { call: &'static str, reason: String },
    /// The call succeeded, and the database refuses the rows that it left.
    #[error("{call} left rows that cannot be stored: {why}")]
    Rows { call: &'static str, why: String },
    /// Not the plugin's fault: the host's stores failed.
    #[error("the host failed in {call}")]
    Host {
        call: &'static str,
        #[source]
        source: anyhow::Error,
    },
}

/// The kinds of failures, by which one is told from another. The names are part of capsules and their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureClass {
    Budget,
    Rule,
    Trap,
    Failed,
    Invalid,
    Answer,
    Rows,
    Host,
}

impl FailureClass {
    /// One word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Budget => "budget",
            Self::Rule => "rule",
            Self::Trap => "trap",
            Self::Failed => "failed",
            Self::Invalid => "invalid",
            Self::Answer => "answer",
            Self::Rows => "rows",
            Self::Host => "host",
        }
    }
}

impl CallError {
    /// What kind of failure it is.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Budget { .. } => FailureClass::Budget,
            Self::Rule { .. } | Self::NotOwner => FailureClass::Rule,
            Self::Trap { .. } => FailureClass::Trap,
            Self::Failed { .. } => FailureClass::Failed,
            Self::Invalid(_) => FailureClass::Invalid,
            Self::Answer { .. } => FailureClass::Answer,
            Self::Rows { .. } => FailureClass::Rows,
            Self::Host { .. } => FailureClass::Host,
        }
    }

    /// A plugin with the role `coins` did not do its part.
    pub fn no_spent() -> Self {
        Self::Answer {
            call: "on-block",
            reason: "a plugin with the role coins says what the block spends".to_owned(),
        }
    }

    /// The database refused what a call left.
    pub fn rows(call: &'static str, refused: &RowError) -> Self {
        let mut why = refused.to_string();
        let mut cause = std::error::Error::source(refused);
        while let Some(error) = cause {
            why.push_str(&format!(": {error}"));
            cause = error.source();
        }
        Self::Rows { call, why }
    }

    /// Whether the host's stores failed, and not the plugin.
    pub fn is_hosts_fault(&self) -> bool {
        matches!(self, Self::Host { .. })
    }

    /// Where the code was when the call ended, innermost first, a function a line; empty when that is not known.
    pub fn backtrace(&self) -> &str {
        match self {
            Self::Budget { backtrace, .. }
            | Self::Rule { backtrace, .. }
            | Self::Trap { backtrace, .. } => backtrace,
            _ => "",
        }
    }

    /// What two failures of one cause have in common: the message, or the key of the budget, of which an instance that
    /// has run for long may want another amount than a fresh one.
    pub fn cause(&self) -> String {
        match self {
            Self::Budget { call, budget, .. } => format!("{call} {}", budget.key()),
            other => other.to_string(),
        }
    }
}

/// Ends a call from inside an import: the plugin broke a rule.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct RuleBroken(pub String);

/// Ends a query from inside an import: whoever asks may not change settings.
#[derive(Debug, Error)]
#[error("only the host's owner may change settings")]
pub(super) struct NotOwner;

/// Ends a call from inside an import: the host failed.
#[derive(Debug, Error)]
#[error("the host's store failed")]
pub(super) struct HostFault;

/// Ends a call that wanted more than its budget.
#[derive(Debug, Error)]
#[error("{} reached", budget.key())]
pub(super) struct BudgetBroken {
    pub budget: Budget,
    /// What it would have had.
    pub wanted: u64,
}
