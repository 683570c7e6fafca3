//! The configuration file while the host runs: `[plugins.*]` is live, the rest takes a restart.

use super::change::NOTHING;
use super::{Idle, Manager};
use crate::config::{Config, ConfigError, EnabledPlugin};
use crate::lane::LaneKind;
use anyhow::{Result, ensure};
use std::path::Path;
use std::time::Instant;

/// Keys of `[plugins]` that take a restart; the others are live, as those of the single plugins are.
const FIXED: [&str; 5] = [
    "plugins.retry_pause",
    "plugins.retry_pause_max",
    "plugins.quarantine_after",
    "plugins.capsules",
    "plugins.capsule_size_limit",
];

impl Manager {
    /// Reads the configuration again and brings the plugins in line with it. One that is wrong changes nothing.
    pub(super) fn read_config(&mut self) -> Result<String> {
        self.take_config((self.source)())
    }

    /// As [`read_config`](Self::read_config), when the file was seen to change.
    pub(super) fn config_file_changed(&mut self, file: &Path) {
        let read = (self.source)();
        if self.files.is_changing(file) {
            tracing::debug!("the configuration was read while it was written: it is read again");
            return;
        }
        let _ = self.take_config(read);
    }

    fn take_config(&mut self, read: Result<Config, ConfigError>) -> Result<String> {
        let config = match read {
            Ok(config) => config,
            Err(error) => {
                tracing::error!(%error, "the configuration is wrong: nothing was changed");
                self.board.notes().config_error = Some(error.to_string());
                return Err(error.into());
            }
        };
        let mut restart = config.changed_keys(&self.config);
        restart.retain(|key| !key.starts_with("plugins.") || FIXED.contains(&key.as_str()));
        if !restart.is_empty() {
            let keys = restart.join(", ");
            tracing::warn!(keys, "changed in the configuration: needs a restart");
        }
        {
            let mut notes = self.board.notes();
            notes.config_error = None;
            notes.needs_restart = restart.clone();
        }
        let mut wanted = self.config.clone();
        wanted.plugin = config.plugin.clone();
        wanted.plugins = crate::config::Plugins {
            retry_pause: wanted.plugins.retry_pause,
            retry_pause_max: wanted.plugins.retry_pause_max,
            quarantine_after: wanted.plugins.quarantine_after,
            capsules: wanted.plugins.capsules,
            capsule_size_limit: wanted.plugins.capsule_size_limit,
            ..config.plugins
        };
        let mut said = self.apply(wanted);
        said.extend(
            restart
                .iter()
                .map(|key| format!("{key} was changed: needs a restart")),
        );
        Ok(match said.is_empty() {
            true => NOTHING.to_owned(),
            false => said.join("\n"),
        })
    }

    fn apply(&mut self, config: Config) -> Vec<String> {
        let before: Vec<String> = {
            let serving = self.start.lanes.serving();
            serving.iter().map(|lane| lane.name().to_owned()).collect()
        };
        self.config = config;
        self.watch_files();
        let wanted = self.config.enabled_plugins();
        let mut said = Vec::new();
        for name in before {
            if !wanted.iter().any(|plugin| plugin.name == name) {
                said.push(match self.switch_off(&name) {
                    Ok(()) => format!("{name}: switched off"),
                    Err(error) => {
                        self.refused(&name, "", &error);
                        format!("{name}: {error:#}")
                    }
                });
            }
        }
        for plugin in &wanted {
            match self.bring_in_line(plugin, false, Instant::now()) {
                Ok(done) if done == NOTHING => {}
                Ok(done) => said.push(format!("{}: {done}", plugin.name)),
                Err(error) => {
                    said.push(format!("{}: {error:#}", plugin.name));
                    if self.start.lanes.find(&plugin.name).is_none() {
                        let why = Idle::Failed(format!("{error:#}"));
                        self.board.notes().idle.insert(plugin.name.clone(), why);
                    }
                }
            }
        }
        let mut notes = self.board.notes();
        for (name, plugin) in &self.config.plugin {
            if !plugin.enabled && self.start.lanes.find(name).is_none() {
                notes.idle.insert(name.clone(), Idle::Disabled);
            }
        }
        let known = &self.config.plugin;
        notes.idle.retain(|name, _| known.contains_key(name));
        drop(notes);
        said
    }

    fn switch_off(&mut self, name: &str) -> Result<()> {
        let lane = self.running(name)?;
        ensure!(
            !lane.program().descriptor.coins,
            "it has the role \"coins\", on which other plugins and the mempool rest: to switch it off takes a restart"
        );
        self.abandon_building(name)?;
        self.start
            .lanes
            .end_one(name, LaneKind::Serving, &self.start.feed)?;
        if let Some(pool) = &self.start.pool {
            pool.unsubscribe(name);
        }
        self.board
            .notes()
            .idle
            .insert(name.to_owned(), Idle::Disabled);
        tracing::info!(plugin = name, "plugin switched off; its data are kept");
        Ok(())
    }

    /// Starts the lane of a plugin that was switched on: it takes in blocks at its own pace.
    pub(super) fn switch_on(&mut self, plugin: &EnabledPlugin, bytes: &[u8]) -> Result<String> {
        let program = self.load(plugin, bytes)?;
        self.components
            .keep(&program.compiled.sha256.to_string(), bytes)?;
        let spent = program.descriptor.columns.spent;
        let lane = self.start.start(LaneKind::Serving, program)?;
        self.board.notes().idle.remove(&plugin.name);
        let next = lane.status().cursor.map_or(0, |at| at.height + 1);
        let lacks = match spent {
            true => self.start.feed.lacks_spent(next),
            false => None,
        };
        Ok(match lacks {
            Some(waiting) => format!("switched on; {waiting}"),
            None => "switched on".to_owned(),
        })
    }
}
