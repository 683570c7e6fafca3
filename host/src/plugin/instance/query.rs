//! Queries, each to an instance of its own.

use super::{Instance, processor};
use crate::lane::Position;
use crate::plugin::budget::{Budget, Limits};
use crate::plugin::engine::{Compiled, PluginEngine};
use crate::plugin::error::CallError;
use crate::plugin::host::{Clock, Host, Phase, Space, Surroundings};
use crate::plugin::runtime_settings::Change;
use crate::store::StateSnapshot;
use std::sync::Arc;

/// Why a query has no answer.
#[derive(Debug)]
pub enum QueryError {
    NotFound(String),
    BadRequest(String),
    /// The plugin says that it failed.
    Failed(String),
    /// The call itself failed.
    Call(CallError),
}

impl Instance {
    /// Starts a plugin on a snapshot with other settings, to see whether it takes them.
    ///
    /// # Errors
    ///
    /// What the plugin says of its settings, or why the call failed.
    pub fn try_settings(
        engine: &PluginEngine,
        compiled: &Compiled,
        surroundings: Arc<Surroundings>,
        snapshot: StateSnapshot,
        settings: &str,
        limits: Limits,
    ) -> Result<(), CallError> {
        let position = snapshot.cursor().map(Position::from);
        let space = Space::Snapshot(Box::new(snapshot));
        let mut host = Host::new(Some(surroundings), space, limits);
        host.position = position;
        let mut instance = Self::new(engine, compiled, host).map_err(|(error, _)| error)?;
        match instance.start(settings, position, Clock::new(limits.block_time)) {
            // What it would write into its state is not written here.
            Err(CallError::Rule { .. }) => Ok(()),
            other => other,
        }
    }

    /// Answers a query on an instance of its own that sees a snapshot. Where the host's owner asks, what the plugin changes
    /// in its settings is put into `changes`.
    ///
    /// # Errors
    ///
    /// When the plugin says so, or the call fails.
    #[allow(clippy::too_many_arguments)]
    pub fn query(
        engine: &PluginEngine,
        compiled: &Compiled,
        surroundings: Arc<Surroundings>,
        snapshot: StateSnapshot,
        settings: &str,
        limits: Limits,
        path: &str,
        params: &[(&str, &str)],
        changes: Option<&mut Vec<Change>>,
    ) -> Result<String, QueryError> {
        let position = snapshot.cursor().map(Position::from);
        let space = Space::Snapshot(Box::new(snapshot));
        Self::ask(
            engine,
            compiled,
            surroundings,
            space,
            position,
            settings,
            limits,
            path,
            params,
            changes,
        )
    }

    #[allow(clippy::too_many_arguments)]
    pub(in crate::plugin) fn ask(
        engine: &PluginEngine,
        compiled: &Compiled,
        surroundings: Arc<Surroundings>,
        space: Space,
        position: Option<Position>,
        settings: &str,
        limits: Limits,
        path: &str,
        params: &[(&str, &str)],
        changes: Option<&mut Vec<Change>>,
    ) -> Result<String, QueryError> {
        let mut host = Host::new(Some(surroundings), space, limits);
        host.position = position;
        host.changes = changes.as_ref().map(|_| Vec::new());
        host.query = true;
        // One budget of time for the instance, its start and the question.
        let clock = Clock::new(limits.query_time);
        host.clock = clock;
        let mut instance =
            Self::new(engine, compiled, host).map_err(|(error, _)| QueryError::Call(error))?;
        instance
            .start(settings, position, clock)
            .map_err(QueryError::Call)?;
        let answer = instance
            .call("query", Phase::Query, clock, |plugin, store| {
                plugin
                    .blockmill_plugin_processor()
                    .call_query(store, path, params)
            })
            .map_err(QueryError::Call)?;
        if let (Some(to), Some(from)) = (changes, instance.store.data_mut().changes.take()) {
            *to = from;
        }
        match answer {
            Ok(json) => {
                let host = instance.store.data();
                host.note(&[(Budget::QueryAnswer, json.len() as u64)]);
                if json.len() > limits.query_answer {
                    return Err(QueryError::Call(CallError::Budget {
                        call: "query",
                        budget: Budget::QueryAnswer,
                        wanted: json.len() as u64,
                        limit: limits.query_answer as u64,
                        backtrace: String::new(),
                    }));
                }
                Ok(json)
            }
            Err(processor::QueryError::NotFound(message)) => Err(QueryError::NotFound(message)),
            Err(processor::QueryError::BadRequest(message)) => Err(QueryError::BadRequest(message)),
            Err(processor::QueryError::Failed(message)) => Err(QueryError::Failed(message)),
        }
    }
}
