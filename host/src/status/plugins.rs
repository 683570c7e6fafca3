//! Plugins, their state and what they may use.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A plugin and its lane. `GET /api/v1/plugins` is a list of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plugin {
    /// Its name.
    pub name: String,
    /// Its own version; empty as long as it could not be loaded.
    pub version: String,
    /// Hash of its file.
    pub sha256: String,
    /// What it is doing.
    pub state: PluginState,
    /// Height of the last block it was given; none before the first.
    pub height: Option<u32>,
    /// Hash of that block.
    pub hash: Option<String>,
    /// Blocks between that one and the tip.
    pub lag: u32,
    /// What it waits for before it can take its next block, if it does; for people.
    #[serde(default)]
    pub waiting_for: Option<String>,
    /// What went wrong last, if anything ever did since the start.
    pub last_error: Option<String>,
    /// The component that ran before, to which `plugin revert` goes back.
    #[serde(default)]
    pub previous_sha256: Option<String>,
    /// How the last change of its file or of its configuration went.
    #[serde(default)]
    pub reload: Option<Reload>,
    /// What it has used of its budgets, by their keys in the configuration.
    #[serde(default)]
    pub budgets: BTreeMap<String, BudgetUse>,
    /// Failures of one cause on one block, one after the other; 0 once the block was taken.
    #[serde(default)]
    pub attempts: u32,
    /// The capsule of the last failure: a path on the host's machine.
    #[serde(default)]
    pub capsule: Option<String>,
}

/// The change of a running plugin: another file, other settings, or a step back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// How far it is.
    pub state: ReloadState,
    /// Hash of the file that it is about.
    pub sha256: String,
    /// More of it, for people.
    pub message: String,
    /// Unix seconds.
    pub at: u64,
}

/// How far the change of a plugin is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReloadState {
    /// The data are made anew by the new component, while the old one serves.
    Building,
    /// The new component runs.
    Swapped,
    /// The component before runs again.
    Reverted,
    /// The old one goes on.
    Refused,
}

impl ReloadState {
    /// The word that stands for it in JSON and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Building => "building",
            Self::Swapped => "swapped",
            Self::Reverted => "reverted",
            Self::Refused => "refused",
        }
    }
}

/// What a plugin has used of a budget since it was loaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetUse {
    /// What the last call used.
    pub last: u64,
    /// The most that a call has used.
    pub max: u64,
    /// What a call may use.
    pub limit: u64,
    /// `bytes`, `microseconds` or `count`.
    pub unit: String,
}

/// What a plugin is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginState {
    /// Its file is being compiled, or its first instance started.
    Starting,
    /// It is behind the tip and takes in blocks.
    Syncing,
    /// It has the tip.
    Following,
    /// It waits for another plugin or for peers.
    Waiting,
    /// Its last block failed and is tried again after a pause.
    Retrying,
    /// It failed on the same block again and again: it stands still until it is asked to try again or is changed.
    Quarantined,
    /// The host's disk or database failed: it goes on by itself as soon as they do.
    #[serde(rename = "waiting-for-host")]
    WaitingForHost,
    /// It cannot run: its file or its settings are wrong.
    Failed,
    /// It has ended because the host ends.
    Stopped,
    /// The configuration switches it off.
    Disabled,
}

impl PluginState {
    /// The word that stands for it in JSON and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Syncing => "syncing",
            Self::Following => "following",
            Self::Waiting => "waiting",
            Self::Retrying => "retrying",
            Self::Quarantined => "quarantined",
            Self::WaitingForHost => "waiting-for-host",
            Self::Failed => "failed",
            Self::Stopped => "stopped",
            Self::Disabled => "disabled",
        }
    }
}
