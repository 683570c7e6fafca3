//! Opening a lane's stores, and changing what the lane runs on between two blocks.

use super::{Lane, LaneKind, Seat, Worker};
use crate::lane::orders::Order;
use crate::lane::status::Program;
use crate::plugin::LaneSpace;
use crate::store::{PluginNote, Reconciled, Recovery, Slot, other_rows, reconcile};
use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::mpsc::Sender;

impl Lane {
    /// The name under which this lane's rows are noted.
    pub(super) fn rows_name(&self) -> String {
        match self.kind {
            LaneKind::Serving => self.shared.name().to_owned(),
            LaneKind::Building => other_rows(self.shared.name()),
        }
    }

    fn note(&self) -> Result<Option<PluginNote>> {
        let note = self.stores.rows.note(self.shared.name());
        note.context("failed to read what the data of the plugin were made with")
    }

    /// Opens the stores at the start of a lane. Data of another state version are dropped: the plugin begins anew.
    pub(super) fn first_stores(&self, program: &Program) -> Result<LaneSpace> {
        if self.kind == LaneKind::Building {
            return self.current_stores(program);
        }
        let name = self.shared.name();
        let is = program.descriptor.state_version;
        let sha256 = program.compiled.sha256.to_string();
        let fresh = PluginNote {
            slot: Slot::First,
            state_version: is,
            sha256: sha256.clone(),
            previous_sha256: None,
            other: None,
            set_aside: None,
        };
        let note = match self.note()? {
            None => fresh,
            Some(note) if note.state_version != is => {
                tracing::warn!(
                    plugin = name,
                    was = note.state_version,
                    is,
                    "another state version: built anew from the first block"
                );
                self.stores.rows.reset(name)?;
                self.drop_other(note.slot)?;
                self.stores.state.lane(&note.slot.lane(name))?.reset()?;
                PluginNote {
                    slot: note.slot,
                    ..fresh
                }
            }
            Some(mut note) => {
                if note.other.is_some_and(|other| !other.whole) {
                    tracing::info!(
                        plugin = name,
                        "what was being made anew when the host ended is begun again"
                    );
                    self.drop_other(note.slot)?;
                    note.other = None;
                }
                if note.sha256 != sha256 {
                    note.previous_sha256 = Some(std::mem::replace(&mut note.sha256, sha256));
                }
                note
            }
        };
        self.stores.rows.set_note(name, &note)?;
        let space = self.current_stores(program)?;
        self.stores.rows.clear_volatile(name)?;
        Ok(space)
    }

    /// Drops the set that is not `current`.
    fn drop_other(&self, current: Slot) -> Result<()> {
        let name = self.shared.name();
        self.stores.rows.reset(&other_rows(name))?;
        self.stores.state.remove(&current.other().lane(name))?;
        Ok(())
    }

    /// Opens the stores that the note names, and brings them to one block.
    pub(super) fn current_stores(&self, program: &Program) -> Result<LaneSpace> {
        let (name, tables) = (self.shared.name(), &program.descriptor.tables);
        let slot = self.note()?.map_or(Slot::First, |note| note.slot);
        let (slot, rows) = match self.kind {
            LaneKind::Serving => (slot, self.stores.rows.register(name, tables)?),
            LaneKind::Building => (slot.other(), self.stores.rows.register_other(name, tables)?),
        };
        let mut state = self.stores.state.lane(&slot.lane(name))?;
        state.set_undo_depth(self.settings.undo_depth);
        match reconcile(&mut state, &self.stores.rows, &self.rows_name())? {
            Reconciled {
                recovery: Recovery::Agreed,
                ..
            } => {}
            Reconciled { recovery, .. } => {
                tracing::warn!(
                    plugin = name,
                    ?recovery,
                    "state and rows were at different blocks"
                );
            }
        }
        Ok(LaneSpace { state, rows })
    }
}

impl Worker {
    /// Carries out an order and tells who gave it; says whether the lane ends.
    pub(super) fn obey(&mut self, order: Order, asker: &Sender<Result<()>>) -> bool {
        let (ends, done) = match order {
            Order::End => (true, Ok(())),
            Order::Replace(program, note) => (false, self.replace(program, &note)),
            Order::Exchange(program, note) => (false, self.exchange(program, &note)),
        };
        if done.is_ok() && !ends {
            let mut status = self.lane.shared.lock();
            status.last_error = None;
        }
        // Nobody waits any more when the host ends.
        let _ = asker.send(done);
        ends
    }

    /// Another program on the same state.
    fn replace(&mut self, program: Arc<Program>, note: &PluginNote) -> Result<()> {
        self.vacate();
        self.flush()?;
        let before = std::mem::replace(&mut self.program, program);
        let begun = self.begin(note);
        if begun.is_err() {
            self.vacate();
            self.program = before;
        }
        begun
    }

    fn begin(&mut self, note: &PluginNote) -> Result<()> {
        // Other indexes may be wanted now.
        let rows = self.lane.stores.rows.clone();
        rows.register(self.lane.shared.name(), &self.program.descriptor.tables)?;
        self.indexes_built = false;
        self.instance()?;
        rows.set_note(self.lane.shared.name(), note)?;
        self.publish()
    }

    /// Another program on the other set of data.
    fn exchange(&mut self, program: Arc<Program>, note: &PluginNote) -> Result<()> {
        let now = self
            .lane
            .note()?
            .context("nothing is noted of the plugin")?;
        self.vacate();
        self.flush()?;
        let before = self.program.clone();
        let done = self.exchange_stores(program, note);
        if let Err(error) = &done {
            tracing::debug!(
                plugin = self.name(),
                error = format!("{error:#}"),
                "going back to the data before"
            );
            self.vacate();
            self.exchange_stores(before, &now)
                .context("failed to go back to the data before")?;
        }
        done
    }

    fn exchange_stores(&mut self, program: Arc<Program>, note: &PluginNote) -> Result<()> {
        let rows = self.lane.stores.rows.clone();
        // The stores are closed before they change places.
        self.seat = Seat::Moving;
        let slot = self.lane.note()?.map(|note| note.slot);
        if slot != Some(note.slot) {
            rows.exchange(self.lane.shared.name(), note)?;
        }
        self.program = program;
        self.recent.clear();
        self.indexes_built = false;
        let space = self.lane.current_stores(&self.program)?;
        self.seat = Seat::Empty(Box::new(space));
        self.instance()?;
        self.publish()
    }
}
