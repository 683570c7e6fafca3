//! Capsules of a lane's failures, and of its queries'.

use super::active_chain::Position;
use super::status::LaneShared;
use crate::plugin::{Budget, CallError, Capsule, CapsuleHeader, Failure, Given, Recording};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

impl LaneShared {
    /// Writes a capsule of a failure, unless there is one that says as much, and gives its place. A capsule that cannot be
    /// written is one line in the log: the lane has other things to do.
    pub(super) fn capsule_of(
        &self,
        error: &CallError,
        cursor: Option<Position>,
        given: Given,
        recording: Option<Recording>,
    ) -> Option<PathBuf> {
        let program = self.program();
        let capsules = self.surroundings.watched.capsules.as_ref()?;
        let cursor_hash = || cursor.map_or("none".to_owned(), |at| at.hash.to_string());
        let next = cursor.map_or(0, |at| at.height + 1);
        let (what, height) = match &given {
            Given::Block { position, .. } => (position.hash.to_string(), Some(position.height)),
            Given::Query { path, .. } => (format!("query {path}"), None),
            other => (format!("{} {}", other.kind(), cursor_hash()), Some(next)),
        };
        let failure = Failure {
            plugin: self.name().to_owned(),
            component: program.compiled.sha256.to_string(),
            class: error.class().as_str().to_owned(),
            cause: error.cause(),
            given: what,
            height,
        };
        let says_enough = match capsules.known(&failure) {
            Some(recorded) => recorded || recording.is_none(),
            None => false,
        };
        if says_enough {
            return Some(capsules.path(&failure));
        }
        let limits = Budget::ALL
            .into_iter()
            .map(|budget| (budget.key().to_owned(), program.limits.of(budget)));
        let mut header = CapsuleHeader {
            host: env!("CARGO_PKG_VERSION").to_owned(),
            written: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |t| t.as_secs()),
            network: self.surroundings.params.name.to_owned(),
            plugin: self.name().to_owned(),
            version: program.descriptor.version.clone(),
            component: program.compiled.sha256.to_string(),
            component_bytes: program.compiled.size,
            settings: self.runtime.merged(&program.settings),
            limits: limits.collect(),
            cursor: cursor.map(Into::into),
            recorded: recording.is_some(),
            ..CapsuleHeader::default()
        };
        header.failed(error);
        let capsule = Capsule {
            header,
            wasm: program.compiled.wasm().cloned(),
            given,
            reads: recording.unwrap_or_default(),
        };
        match capsules.keep(&failure, &capsule) {
            Ok(path) => Some(path),
            Err(error) => {
                tracing::warn!(
                    plugin = self.name(),
                    error = format!("{error:#}"),
                    "a capsule was not written"
                );
                None
            }
        }
    }
}
