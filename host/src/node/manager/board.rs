//! What is known of plugins beside their lanes: those that do not run, and how the last change of each went.

use crate::status::{Reload, ReloadState};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Why a plugin of the configuration has no lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Idle {
    /// The configuration switches it off.
    Disabled,
    /// It is on, and cannot run.
    Failed(String),
}

#[derive(Default)]
pub(crate) struct Notes {
    pub(crate) idle: BTreeMap<String, Idle>,
    pub(crate) reloads: BTreeMap<String, Reload>,
    /// The component before, by plugin.
    pub(crate) previous: BTreeMap<String, String>,
    /// Why the configuration file that is there now is not in force.
    pub(crate) config_error: Option<String>,
    /// Keys that were changed in the file and take a restart.
    pub(crate) needs_restart: Vec<String>,
    /// Plugins that are being made anew.
    pub(crate) building: usize,
}

/// Written by the manager, read by the API.
#[derive(Default)]
pub(crate) struct Board(Mutex<Notes>);

impl Board {
    pub(crate) fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says how far the change of a plugin is.
    pub(super) fn say(&self, plugin: &str, state: ReloadState, sha256: &str, message: String) {
        let at = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |time| time.as_secs());
        let reload = Reload {
            state,
            sha256: sha256.to_owned(),
            message,
            at,
        };
        self.notes().reloads.insert(plugin.to_owned(), reload);
    }
}
