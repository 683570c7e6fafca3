//! A new component tried on the last blocks, on a fork of the state, before it takes over.

use crate::compare::{Difference, Outcome};
use crate::lane::{Feed, Position, Program};
use crate::plugin::{BlockInput, Instance, LaneSpace, PluginEngine, Surroundings};
use crate::store::{LaneState, RowBuffer, StateStore};
use anyhow::{Context, Result, ensure};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a rehearsal went.
#[derive(Debug, Default)]
pub(super) struct Rehearsal {
    /// Heights of the first and the last block; none when there was nothing to try.
    pub blocks: Option<(u32, u32)>,
    /// The first block after which the two had left something else, and what.
    pub difference: Option<(u32, Difference)>,
    /// Time that the old and the new component took.
    pub took: (Duration, Duration),
}

impl std::fmt::Display for Rehearsal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some((first, last)) = self.blocks else {
            return f.write_str("no block to try it on");
        };
        write!(f, "blocks {first} to {last}: ")?;
        match &self.difference {
            None => f.write_str("identical")?,
            Some((height, difference)) => {
                let text = difference.named("old", "new").to_string();
                write!(f, "different from block {height} on: {}", text.trim_end())?;
            }
        }
        write!(
            f,
            " ({:.1} ms before, {:.1} ms now)",
            self.took.0.as_secs_f64() * 1e3,
            self.took.1.as_secs_f64() * 1e3
        )
    }
}

/// One of the two on its fork.
struct Run {
    instance: Instance,
    program: Arc<Program>,
    took: Duration,
}

/// What both are tried on.
pub(super) struct Stage<'a> {
    pub engine: &'a PluginEngine,
    pub state: &'a StateStore,
    pub feed: &'a Feed,
    /// Instances here log and count under the plugin's name, and share nothing else with its lane.
    pub surroundings: &'a dyn Fn() -> Arc<Surroundings>,
    /// The plugin's state in the state store.
    pub lane: &'a str,
}

impl Stage<'_> {
    /// Tries `new` beside `old` on up to `blocks` blocks: the last ones of the plugin's state where they can be taken back,
    /// else the next ones.
    ///
    /// # Errors
    ///
    /// When the new component fails in a way that the old one does not, or the stores do.
    pub(super) fn rehearse(
        &self,
        old: &Arc<Program>,
        new: &Arc<Program>,
        blocks: u32,
    ) -> Result<Rehearsal> {
        let mut rehearsal = Rehearsal::default();
        let first = self.state.fork(self.lane)?;
        let second = self.state.fork(self.lane)?;
        let Some(cursor) = first.cursor().filter(|_| blocks > 0) else {
            return Ok(rehearsal);
        };
        // A state whose branch was left is no place to begin.
        if !self.feed.chain().contains(cursor.into()) {
            return Ok(rehearsal);
        }
        // The lane may have flushed between the two forks.
        let lowest = first.undoable(blocks).min(second.undoable(blocks));
        let begin = cursor.height - lowest;
        let mut old = self.run(old, first, begin)?;
        let mut new = self.run(new, second, begin)?;
        for height in begin + 1..=begin + blocks {
            let Some(hash) = self.feed.chain().hash_at(height) else {
                break;
            };
            let position = Position { height, hash };
            let left = self.give(&mut old, position)?;
            let Some((was, is)) = left.zip(self.give(&mut new, position)?) else {
                break;
            };
            let begun = rehearsal.blocks.map_or(height, |(first, _)| first);
            rehearsal.blocks = Some((begun, height));
            rehearsal.took = (old.took, new.took);
            if let (None, Some(error)) = (&was.error, &is.error) {
                anyhow::bail!("it fails at block {height}, where the old one does not: {error}");
            }
            if let Some(difference) = was.difference(&is) {
                rehearsal.difference.get_or_insert((height, difference));
            }
            if was.error.is_some() || is.error.is_some() {
                // Nothing can follow.
                break;
            }
        }
        Ok(rehearsal)
    }

    fn run(&self, program: &Arc<Program>, mut state: LaneState, begin: u32) -> Result<Run> {
        let cursor = state.rewind(begin)?;
        ensure!(
            cursor.is_some_and(|cursor| cursor.height == begin),
            "the state cannot be taken back to block {begin}"
        );
        let rows = RowBuffer::new(&program.descriptor.tables);
        let instance = Instance::for_lane(
            self.engine,
            &program.compiled,
            (self.surroundings)(),
            Box::new(LaneSpace { state, rows }),
            &program.settings,
            cursor.map(Position::from),
            program.limits,
        )
        .map_err(|(error, _)| error)?;
        Ok(Run {
            instance,
            program: program.clone(),
            took: Duration::ZERO,
        })
    }

    /// What a block leaves; none when what it needs is not there any more, or not yet.
    fn give(&self, run: &mut Run, position: Position) -> Result<Option<Outcome>> {
        let wanted = run.program.descriptor.columns;
        let spent = match wanted.spent {
            true => match self.feed.spent(position)? {
                Some(spent) => Some(spent),
                None => return Ok(None),
            },
            false => None,
        };
        let Ok((frame, _)) = self.feed.frame(position, wanted) else {
            return Ok(None);
        };
        let Some((_, median_time)) = self.feed.chain().header_at(position.height) else {
            return Ok(None);
        };
        let input = BlockInput {
            position,
            frame: &frame,
            median_time,
            spent: spent.as_deref(),
        };
        let LaneSpace { state, rows } = run.instance.space_mut();
        state.begin_block();
        rows.begin_block();
        let began = Instant::now();
        let answer = run.instance.on_block(&input, wanted);
        run.took += began.elapsed();
        let space = run.instance.space_mut();
        let outcome = Outcome::of(space, &answer).context("failed to read what a block left")?;
        match answer {
            Ok(_) => {
                space.state.commit_block(position.into(), false)?;
                space.rows.clear();
            }
            Err(_) => space.state.abort_block(),
        }
        Ok(Some(outcome))
    }
}
