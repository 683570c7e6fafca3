//! What can go wrong in a call into a plugin.

use std::time::Duration;
use thiserror::Error;

/// Why a call into a plugin did not give an answer. The lane rolls the block back for each of them.
#[derive(Debug, Error)]
pub enum CallError {
    /// The call took longer than it may.
    #[error("{call} ran longer than its limit of {limit:?}")]
    Deadline { call: &'static str, limit: Duration },
    /// The instance asked for more memory than it may have, in bytes.
    #[error("{call} asked for {wanted} bytes of memory, the limit is {limit}")]
    Memory {
        call: &'static str,
        wanted: usize,
        limit: usize,
    },
    /// The plugin used the host against the rules of `wit/plugin.wit`.
    #[error("{call} broke a rule of the host's interface: {rule}")]
    Rule { call: &'static str, rule: String },
    /// The code trapped: unreachable, a panic, a division by zero, a stack overflow, …
    #[error("{call} trapped: {message}")]
    Trap { call: &'static str, message: String },
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
    /// Not the plugin's fault: the host's stores failed.
    #[error("the host failed in {call}")]
    Host {
        call: &'static str,
        #[source]
        source: anyhow::Error,
    },
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

/// Ends a call from inside `memory.grow`.
#[derive(Debug, Error)]
#[error("memory limit reached")]
pub(super) struct MemoryRefused {
    /// Bytes that the instance would have had.
    pub wanted: usize,
}
