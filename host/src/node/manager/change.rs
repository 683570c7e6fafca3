//! One plugin given another component or other settings.

use super::Manager;
use crate::config::EnabledPlugin;
use crate::lane::{LaneShared, Order, Program};
use crate::node::lanes;
use crate::node::open;
use crate::plugin::{Instance, MAX_PLUGIN_SIZE, hash_of};
use crate::status::ReloadState;
use crate::store::PluginNote;
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a lane may take to come to the end of a block.
const SWAP_LIMIT: Duration = Duration::from_secs(240);

/// The answer when all is as it should be.
pub(super) const NOTHING: &str = "nothing to change";

/// What came of a change.
enum Outcome {
    /// There was nothing to change.
    Same,
    /// It runs; more of it for people.
    Swapped(String),
    /// Its data are being made anew.
    Building(String),
    /// What runs goes on, and nothing else is made ready.
    Kept(String),
}

impl Manager {
    /// A plugin's file, or its part of the configuration, changed: brings what runs in line with it, and says how that went.
    pub(super) fn file_changed(&mut self, plugin: &EnabledPlugin, began: Instant) {
        let _ = self.bring_in_line(plugin, false, began);
    }

    /// As [`file_changed`](Self::file_changed), with the answer; `asked` for what the operator asked for by name.
    pub(super) fn bring_in_line(
        &mut self,
        plugin: &EnabledPlugin,
        asked: bool,
        began: Instant,
    ) -> Result<String> {
        let name = &plugin.name;
        let mut sha256 = String::new();
        let outcome = self.try_change(plugin, asked, &mut sha256);
        let took = began.elapsed();
        match &outcome {
            Ok(Outcome::Same) => {}
            Ok(Outcome::Swapped(message)) => {
                tracing::info!(plugin = name, sha256, ?took, message, "plugin replaced");
                self.start.metrics.count_reload(name, "swapped", took);
                self.board
                    .say(name, ReloadState::Swapped, &sha256, message.clone());
                self.forget_components();
            }
            Ok(Outcome::Building(message)) => {
                tracing::info!(
                    plugin = name,
                    sha256,
                    message,
                    "plugin is made anew beside the running one"
                );
                self.board
                    .say(name, ReloadState::Building, &sha256, message.clone());
            }
            Ok(Outcome::Kept(message)) => {
                tracing::info!(plugin = name, sha256, message, "plugin goes on as it is");
                self.board
                    .say(name, ReloadState::Reverted, &sha256, message.clone());
                self.forget_components();
            }
            Err(error) if !asked && self.files.is_changing(&plugin.file) => {
                tracing::debug!(
                    plugin = name,
                    error = format!("{error:#}"),
                    "a file was read while it was written: it is read again"
                );
            }
            Err(error) => self.refused(name, &sha256, error),
        }
        match outcome? {
            Outcome::Same => Ok(NOTHING.to_owned()),
            Outcome::Swapped(message) | Outcome::Building(message) | Outcome::Kept(message) => {
                Ok(message)
            }
        }
    }

    pub(super) fn refused(&self, name: &str, sha256: &str, error: &anyhow::Error) {
        let reason = format!("{error:#}");
        tracing::error!(
            plugin = name,
            sha256,
            error = reason,
            "change of a plugin refused: it goes on as it was"
        );
        self.start
            .metrics
            .count_reload(name, "refused", Duration::ZERO);
        self.board.say(name, ReloadState::Refused, sha256, reason);
    }

    fn try_change(
        &mut self,
        plugin: &EnabledPlugin,
        asked: bool,
        sha256: &mut String,
    ) -> Result<Outcome> {
        let bytes = read(&plugin.file)?;
        let hash = hash_of(&bytes);
        *sha256 = hash.to_string();
        plugin.check_pin(sha256).map_err(anyhow::Error::msg)?;
        let Some(lane) = self.start.lanes.find(&plugin.name) else {
            return self.switch_on(plugin, &bytes).map(Outcome::Swapped);
        };
        let current = lane.program();
        let note = self.note(&plugin.name)?;
        let serves = hash == current.compiled.sha256;
        let made = self.building(&plugin.name);
        if let Some(made) = made.filter(|made| !serves && made.compiled.sha256 == hash) {
            if made.compiled.wasi == plugin.wasi && made.settings == plugin.settings {
                return Ok(Outcome::Same);
            }
        } else if serves || (note.set_aside.as_ref() == Some(sha256) && !asked) {
            // Of a file that was taken back only the settings may have changed.
            let outcome = self.other_settings(plugin, &lane, &current, note)?;
            return self.bring_building_in_line(plugin, &lane, outcome);
        }
        let program = self.load(plugin, &bytes)?;
        self.components.keep(sha256, &bytes)?;
        if program.descriptor.state_version != note.state_version {
            return self
                .begin_building(&lane, program, &note, true)
                .map(Outcome::Building);
        }
        for table in &program.descriptor.tables {
            let known = current.descriptor.tables.iter().any(|old| {
                old.name == table.name
                    && old.kind == table.kind
                    && old.columns == table.columns
                    && old.key == table.key
            });
            ensure!(
                known,
                "its table {} is new or has another shape: such a component needs another state-version than {}",
                table.name,
                note.state_version
            );
        }
        let rehearsal = self.rehearse(&lane, &current, &program)?;
        tracing::info!(plugin = plugin.name, sha256, "rehearsal: {rehearsal}");
        if plugin.require_identical && rehearsal.difference.is_some() {
            bail!(
                "it does not leave the same as the old one, and require_identical is set: {rehearsal}"
            );
        }
        let before = current.compiled.sha256.to_string();
        self.abandon_building(&plugin.name)?;
        let note = PluginNote {
            sha256: sha256.clone(),
            previous_sha256: Some(before),
            set_aside: None,
            ..self.note(&plugin.name)?
        };
        self.order(&lane, Order::Replace(program, note))?;
        Ok(Outcome::Swapped(format!("rehearsal: {rehearsal}")))
    }

    /// What the component that runs on means for data that are being made: those for another component are not wanted any
    /// more, and those for this one are made with its settings.
    fn bring_building_in_line(
        &mut self,
        plugin: &EnabledPlugin,
        lane: &Arc<LaneShared>,
        outcome: Outcome,
    ) -> Result<Outcome> {
        let Some(made) = self.building(&plugin.name) else {
            return Ok(outcome);
        };
        let current = lane.program();
        if made.compiled.sha256 != current.compiled.sha256 {
            self.abandon_building(&plugin.name)?;
            return Ok(Outcome::Kept(
                "the file that runs is back: what was being made for another is dropped".to_owned(),
            ));
        }
        if made.settings == current.settings && made.compiled.wasi == current.compiled.wasi {
            return Ok(outcome);
        }
        let note = self.note(&plugin.name)?;
        self.begin_building(lane, current, &note, false)
            .map(Outcome::Building)
    }

    /// The same component with what the configuration says now.
    fn other_settings(
        &mut self,
        plugin: &EnabledPlugin,
        lane: &Arc<LaneShared>,
        current: &Arc<Program>,
        note: PluginNote,
    ) -> Result<Outcome> {
        let compiled = if plugin.wasi == current.compiled.wasi {
            current.compiled.clone()
        } else {
            let bytes = self.components.get(&current.compiled.sha256.to_string())?;
            self.start.engine.compile(&bytes, plugin.wasi)?
        };
        let program = lanes::program(plugin, compiled, current.descriptor.clone());
        if program.settings == current.settings
            && program.limits == current.limits
            && program.compiled.wasi == current.compiled.wasi
        {
            return Ok(Outcome::Same);
        }
        Instance::check(
            &self.start.engine,
            &program.compiled,
            &program.settings,
            program.limits,
        )?;
        self.order(lane, Order::Replace(program, note))?;
        Ok(Outcome::Swapped("other settings or budgets".to_owned()))
    }

    /// Compiles a component and checks that it is one for this plugin and fits the others.
    pub(super) fn load(&self, plugin: &EnabledPlugin, bytes: &[u8]) -> Result<Arc<Program>> {
        let engine = &self.start.engine;
        let compiled = engine
            .compile(bytes, plugin.wasi)
            .with_context(|| format!("the plugin {} cannot be used", plugin.file.display()))?;
        engine.keep(&compiled);
        let descriptor = Instance::describe(engine, &compiled)?;
        ensure!(
            descriptor.name == plugin.name,
            "{} is the plugin {:?}",
            plugin.file.display(),
            descriptor.name
        );
        Instance::check(engine, &compiled, &plugin.settings, open::limits(plugin))?;
        if let Some(lane) = self.start.lanes.find(&plugin.name) {
            let coins = lane.program().descriptor.coins;
            ensure!(
                coins == descriptor.coins,
                "it {} the role \"coins\", unlike the component that runs: such a change takes a restart",
                if coins { "lacks" } else { "has" }
            );
        } else {
            ensure!(
                !descriptor.coins,
                "it has the role \"coins\": to switch it on takes a restart"
            );
        }
        let coins = self.start.lanes.coins();
        ensure!(
            !descriptor.columns.spent || coins.is_some(),
            "it asks for what blocks spend, and no plugin with the role \"coins\" runs"
        );
        for other in self.start.lanes.serving() {
            if other.name() == plugin.name {
                continue;
            }
            let theirs = &other.program().descriptor.tables;
            let twin = descriptor
                .tables
                .iter()
                .find(|table| theirs.iter().any(|their| their.name == table.name));
            if let Some(twin) = twin {
                bail!(
                    "the table {} is declared by {} too",
                    twin.name,
                    other.name()
                );
            }
        }
        if descriptor.columns.raw || descriptor.columns.witnesses {
            self.start.feed.set_keep_raw();
        }
        Ok(lanes::program(plugin, compiled, descriptor))
    }

    fn rehearse(
        &self,
        lane: &LaneShared,
        old: &Arc<Program>,
        new: &Arc<Program>,
    ) -> Result<super::rehearsal::Rehearsal> {
        let name = lane.name();
        let slot = self.note(name)?.slot;
        let stage = super::rehearsal::Stage {
            engine: &self.start.engine,
            state: &self.start.stores.state,
            feed: &self.start.feed,
            surroundings: &|| self.private_surroundings(name),
            lane: &slot.lane(name),
        };
        stage.rehearse(old, new, self.config.plugins.rehearse_blocks)
    }

    pub(super) fn note(&self, name: &str) -> Result<PluginNote> {
        self.start
            .stores
            .rows
            .note(name)?
            .with_context(|| format!("nothing is noted of the data of {name}"))
    }

    /// Gives a lane an order, and waits until it is carried out. After an error it is not, and will not be.
    pub(super) fn order(&self, lane: &LaneShared, order: Order) -> Result<()> {
        let feed = &self.start.feed;
        lane.carry_out(order, || feed.wake(), SWAP_LIMIT, || feed.stopping())
    }

    /// The plugin as the configuration wants it, if it is on.
    pub(super) fn wanted(&self, name: &str) -> Result<EnabledPlugin> {
        let mut plugins = self.config.enabled_plugins().into_iter();
        plugins
            .find(|plugin| plugin.name == name)
            .with_context(|| format!("no plugin {name:?} is switched on"))
    }

    pub(super) fn running(&self, name: &str) -> Result<Arc<LaneShared>> {
        let lane = self.start.lanes.find(name);
        lane.with_context(|| format!("no plugin {name:?} runs"))
    }

    /// The file as it is now, also when it was taken back before.
    pub(super) fn reload_now(&mut self, name: &str) -> Result<String> {
        // What was changed in the configuration a moment ago counts too.
        let read = self.read_config()?;
        let plugin = self.wanted(name)?;
        let done = self.bring_in_line(&plugin, true, Instant::now())?;
        Ok(if done == NOTHING { read } else { done })
    }

    /// A fresh instance at once, whatever went wrong before.
    pub(super) fn retry(&mut self, name: &str) -> Result<String> {
        let lane = self.running(name)?;
        let note = self.note(name)?;
        self.order(&lane, Order::Replace(lane.program(), note))?;
        Ok("tried again".to_owned())
    }

    /// Back to the component before, and to its data when they are of another state version.
    pub(super) fn revert(&mut self, name: &str) -> Result<String> {
        let lane = self.running(name)?;
        let plugin = self.wanted(name)?;
        let note = self.note(name)?;
        let previous = note.previous_sha256.clone().with_context(|| {
            format!("{name} has run no other component: there is nothing to go back to")
        })?;
        plugin.check_pin(&previous).map_err(anyhow::Error::msg)?;
        let bytes = self.components.get(&previous)?;
        let program = self.load(&plugin, &bytes)?;
        self.abandon_building(name)?;
        let mut after = PluginNote {
            sha256: previous.clone(),
            previous_sha256: Some(note.sha256.clone()),
            set_aside: Some(note.sha256.clone()),
            ..self.note(name)?
        };
        let version = program.descriptor.state_version;
        if version == note.state_version {
            self.order(&lane, Order::Replace(program, after))?;
        } else {
            let other = after
                .other
                .filter(|other| other.whole && other.state_version == version);
            let mut other = other.with_context(|| {
                format!("the state of version {version} is not kept any more: use `plugin rebuild` with the old file")
            })?;
            other.state_version = std::mem::replace(&mut after.state_version, version);
            after.other = Some(other);
            after.slot = after.slot.other();
            self.order(&lane, Order::Exchange(program, after))?;
        }
        let message =
            format!("the component {previous} runs again; the file is set aside until it changes");
        tracing::info!(plugin = name, sha256 = previous, "plugin reverted");
        self.start
            .metrics
            .count_reload(name, "reverted", Duration::ZERO);
        self.board
            .say(name, ReloadState::Reverted, &previous, message.clone());
        Ok(message)
    }
}

/// The bytes of a plugin's file.
fn read(file: &Path) -> Result<Vec<u8>> {
    let shown = file.display();
    let size = std::fs::metadata(file)
        .with_context(|| format!("failed to read the plugin {shown}"))?
        .len();
    ensure!(
        size <= MAX_PLUGIN_SIZE,
        "the plugin {shown} has {size} bytes, at most {MAX_PLUGIN_SIZE} are read"
    );
    std::fs::read(file).with_context(|| format!("failed to read the plugin {shown}"))
}
