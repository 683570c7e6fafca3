//! A plugin's data made anew, or taken over by `migrate`, in a second lane while the first goes on serving.

use super::Manager;
use crate::lane::{LaneKind, LaneShared, Order, Program, Waiting};
use crate::node::lanes;
use crate::plugin::{Instance, LaneSpace};
use crate::status::ReloadState;
use crate::store::{OtherSet, PluginNote, other_rows};
use anyhow::{Context, Result, ensure};
use std::sync::Arc;
use std::time::Instant;

/// Blocks that the new data may be behind the old ones when they take their place.
const LEVEL: u32 = 1;

/// A second lane at work.
pub(super) struct Building {
    lane: Arc<LaneShared>,
    program: Arc<Program>,
    began: Instant,
    /// What it said last that it waits for.
    waiting: Option<Waiting>,
}

impl Manager {
    /// Begins to make a plugin's data for `program`: out of those that are there when it `may_migrate` and can, else from the
    /// first block.
    pub(super) fn begin_building(
        &mut self,
        lane: &Arc<LaneShared>,
        program: Arc<Program>,
        note: &PluginNote,
        may_migrate: bool,
    ) -> Result<String> {
        let name = lane.name().to_owned();
        self.abandon_building(&name)?;
        let (state, rows) = (&self.start.stores.state, &self.start.stores.rows);
        rows.reset(&other_rows(&name))?;
        state.remove(&note.slot.other().lane(&name))?;
        let version = program.descriptor.state_version;
        let making = PluginNote {
            other: Some(OtherSet {
                state_version: version,
                whole: false,
            }),
            ..note.clone()
        };
        rows.set_note(&name, &making)?;
        let same_tables = program.descriptor.tables == lane.program().descriptor.tables;
        let from = match may_migrate && same_tables {
            true => self.migrate(&name, &program, note)?,
            false => None,
        };
        let spent = program.descriptor.columns.spent;
        let lane = self.start.start(LaneKind::Building, program.clone())?;
        let building = Building {
            lane,
            program,
            began: Instant::now(),
            waiting: None,
        };
        self.building.insert(name, building);
        self.board.notes().building = self.building.len();
        let message = match from {
            Some(height) => format!(
                "state version {version}: migrated at block {height}, the blocks after it are given again"
            ),
            None => format!(
                "state version {version}: made anew from the first block, while the old one serves"
            ),
        };
        let next = from.map_or(0, |height| height + 1);
        let lacks = match spent {
            true => self.start.feed.lacks_spent(next),
            false => None,
        };
        Ok(match lacks {
            Some(waiting) => format!("{message}; {waiting}"),
            None => message,
        })
    }

    /// Lets the new component take over a copy of the state; gives the block that the copy is at. The copy is as far below the
    /// tip as blocks can be taken back, so that what can be taken back later is all of the new version.
    fn migrate(
        &self,
        name: &str,
        program: &Arc<Program>,
        note: &PluginNote,
    ) -> Result<Option<u32>> {
        let (state, rows) = (&self.start.stores.state, &self.start.stores.rows);
        let mut old = state.fork(&note.slot.lane(name))?;
        let Some(cursor) = old.cursor() else {
            return Ok(None);
        };
        let depth = old.undoable(self.start.undo_depth());
        let Some(at) = old.rewind(cursor.height - depth)? else {
            return Ok(None);
        };
        let mut new = state.lane(&note.slot.other().lane(name))?;
        new.set_undo_depth(self.start.undo_depth());
        new.copy_from(&mut old)?;
        drop(old);
        let mut buffer = rows.register_other(name, &program.descriptor.tables)?;
        let space = LaneSpace {
            state: new,
            rows: crate::store::RowBuffer::new(&program.descriptor.tables),
        };
        let (done, mut space) = Instance::migrate(
            &self.start.engine,
            &program.compiled,
            self.private_surroundings(name),
            Box::new(space),
            note.state_version,
            program.limits,
        )?;
        if !done {
            space.state.reset()?;
            return Ok(None);
        }
        rows.copy_to_other(name, at.height)?;
        rows.flush(&other_rows(name), &mut buffer, Some(at))?;
        space.state.flush()?;
        Ok(Some(at.height))
    }

    /// What a plugin's data are being made for, if they are.
    pub(super) fn building(&self, name: &str) -> Option<Arc<Program>> {
        let building = self.building.get(name);
        building.map(|building| building.program.clone())
    }

    /// Ends what is being made of a plugin's data, if anything is.
    pub(super) fn abandon_building(&mut self, name: &str) -> Result<()> {
        if self.building.remove(name).is_none() {
            return Ok(());
        }
        self.board.notes().building = self.building.len();
        self.start
            .lanes
            .end_one(name, LaneKind::Building, &self.start.feed)?;
        self.drop_unfinished(name)
    }

    fn drop_unfinished(&self, name: &str) -> Result<()> {
        let (state, rows) = (&self.start.stores.state, &self.start.stores.rows);
        let note = self.note(name)?;
        rows.reset(&other_rows(name))?;
        state.remove(&note.slot.other().lane(name))?;
        Ok(rows.set_note(
            name,
            &PluginNote {
                other: None,
                ..note
            },
        )?)
    }

    /// Exchanges what is level with what serves, and ends what fails.
    pub(super) fn look_at_buildings(&mut self) {
        let names: Vec<String> = self.building.keys().cloned().collect();
        for name in names {
            let Some(building) = self.building.get_mut(&name) else {
                continue;
            };
            let status = building.lane.status();
            let sha256 = building.program.compiled.sha256.to_string();
            if status.failures > 0 {
                let why = status.last_error.unwrap_or_default();
                let error = anyhow::anyhow!("its data cannot be made: {why}");
                let ended = self.abandon_building(&name);
                self.refused(&name, &sha256, &ended.err().unwrap_or(error));
                continue;
            }
            if building.waiting != status.waiting {
                building.waiting = status.waiting;
                let message = match status.waiting {
                    Some(waiting) => waiting.to_string(),
                    None => "made anew, while the old data serve".to_owned(),
                };
                self.board
                    .say(&name, ReloadState::Building, &sha256, message);
            }
            let height = status.cursor.map(|at| at.height);
            let serving = self.start.lanes.find(&name);
            let target = serving.and_then(|lane| lane.status().cursor);
            let level = match (height, target) {
                (Some(height), Some(target)) => height + LEVEL >= target.height,
                _ => false,
            };
            if level {
                let began = building.began;
                match self.take_over(&name) {
                    Ok(()) => {
                        let took = began.elapsed();
                        let message = format!("its data were made in {:.1} s", took.as_secs_f64());
                        tracing::info!(
                            plugin = name,
                            sha256,
                            ?took,
                            "plugin replaced, with data of its own"
                        );
                        self.start.metrics.count_reload(&name, "swapped", took);
                        self.board
                            .say(&name, ReloadState::Swapped, &sha256, message);
                        self.forget_components();
                    }
                    Err(error) => self.refused(&name, &sha256, &error),
                }
            }
        }
    }

    fn take_over(&mut self, name: &str) -> Result<()> {
        let building = self.building.remove(name).context("nothing is made")?;
        self.board.notes().building = self.building.len();
        self.start
            .lanes
            .end_one(name, LaneKind::Building, &self.start.feed)?;
        let done = self.exchange(name, &building.program);
        if done.is_err() {
            self.drop_unfinished(name)?;
        }
        done
    }

    /// Lets the serving lane go on with the data that were made, as the configuration wants it now.
    fn exchange(&self, name: &str, made: &Arc<Program>) -> Result<()> {
        let plugin = self.wanted(name)?;
        let sha256 = made.compiled.sha256.to_string();
        plugin.check_pin(&sha256).map_err(anyhow::Error::msg)?;
        let program = lanes::program(&plugin, made.compiled.clone(), made.descriptor.clone());
        let lane = self.running(name)?;
        let note = self.note(name)?;
        let before = lane.program().compiled.sha256.to_string();
        let after = PluginNote {
            slot: note.slot.other(),
            state_version: program.descriptor.state_version,
            previous_sha256: match before == sha256 {
                true => note.previous_sha256.clone(),
                false => Some(before),
            },
            sha256,
            other: Some(OtherSet {
                state_version: note.state_version,
                whole: true,
            }),
            set_aside: None,
        };
        self.order(&lane, Order::Exchange(program, after))
    }

    /// Makes the data of a running plugin anew from the first block.
    pub(super) fn rebuild(&mut self, name: &str) -> Result<String> {
        let lane = self.running(name)?;
        let note = self.note(name)?;
        let program = lane.program();
        let sha256 = program.compiled.sha256.to_string();
        let message = self.begin_building(&lane, program, &note, false)?;
        self.board
            .say(name, ReloadState::Building, &sha256, message.clone());
        Ok(message)
    }

    /// Removes the data of a plugin that does not run, and gives the disk back.
    pub(super) fn purge(&mut self, name: &str) -> Result<String> {
        ensure!(
            self.start.lanes.find(name).is_none(),
            "{name} runs: switch it off first, with `plugin disable {name}`"
        );
        let (state, rows) = (&self.start.stores.state, &self.start.stores.rows);
        let note = rows.note(name)?;
        ensure!(
            note.is_some() || state.names().iter().any(|known| known == name),
            "there are no data of a plugin {name:?}"
        );
        let before = state.disk_bytes()?;
        for slot in [crate::store::Slot::First, crate::store::Slot::Second] {
            state.remove(&slot.lane(name))?;
        }
        rows.purge(name)?;
        self.forget_components();
        let freed = before.saturating_sub(state.disk_bytes()?);
        tracing::info!(plugin = name, state_bytes = freed, "data removed");
        Ok(format!("the data of {name} are removed"))
    }
}
