//! A block that is too large to be held, given in parts.

use super::{CallError, LaneStage, Position, Refusal, Step, Worker, coin_keys};
use crate::lane::Waiting;
use crate::plugin::{BlockInput, LaneSpace, Place};
use crate::store::{COIN_KEY_LEN, Keys};
use anyhow::{Context, Result};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CALL: &str = "on-part";

impl Worker {
    /// Gives the block in parts if it is large and the plugin takes parts; nothing is done otherwise.
    ///
    /// # Errors
    ///
    /// When it fails; and when the block is too large to be given whole to a plugin that takes no parts.
    pub(super) fn large_block(&mut self, position: Position) -> Result<Option<Step>> {
        let Some(bytes) = self.lane.feed.large(position) else {
            return Ok(None);
        };
        self.lane.feed.needs_still(&self.lane.rows_name(), position);
        if self.program.descriptor.parts {
            return self.parts(position).map(Some);
        }
        let limit = self.lane.feed.large_blocks().whole;
        if bytes > limit {
            let message = format!(
                "a block of {bytes} bytes; this plugin takes no parts, and whole blocks up to {limit} bytes \
                 (chain.whole_block_limit)"
            );
            let call = "on-block";
            return Err(CallError::Failed { call, message }.into());
        }
        Ok(None)
    }

    fn parts(&mut self, position: Position) -> Result<Step> {
        let wanted = self.program.descriptor.columns;
        let name = self.lane.rows_name();
        if wanted.spent {
            self.lane.feed.need_spent(&name, position);
            if !self.lane.feed.coins_are_past(position) {
                self.flush_if_due(false)?;
                return Ok(Step::Idle(LaneStage::Waiting));
            }
            // Pruned with the block, while another lane may make it again.
            if self.lane.feed.spent_of_part(position, 0)?.is_none()
                && self.lane.feed.spent(position)?.is_none()
            {
                let height = position.height;
                return self.wait(Some(Waiting::Spent { height }));
            }
        }
        let makes_coins_anew = self.makes_coins_anew();
        if makes_coins_anew && let Some(waiting) = self.lane.feed.spent_ahead(position) {
            return self.wait(Some(waiting));
        }
        let Some((_, median_time)) = self.lane.feed.chain().header_at(position.height) else {
            return Ok(Step::Moved);
        };
        let journal =
            position.height + self.lane.settings.undo_depth >= self.lane.feed.best_height();
        let (coins, gives_coins) = (self.program.descriptor.coins, self.gives_coins());
        let prefetch = self.lane.metrics.prefetch.clone();
        let feed = self.lane.feed.clone();
        let most = feed.large_blocks().changes;
        let before = {
            let LaneSpace { state, rows } = self.instance()?.space_mut();
            state.begin_block();
            rows.begin_block();
            state.dirty_bytes() + rows.bytes()
        };
        let mut took = Duration::ZERO;
        let mut parts = feed.parts(position)?;
        let mut whole = None;
        while let Some(part) = parts.next()? {
            if feed.stopping() {
                self.vacate();
                return Ok(Step::Idle(LaneStage::Syncing));
            }
            let first = part.run.first;
            feed.needs_still(&name, position);
            let spent = match wanted.spent {
                true => {
                    let kept = match feed.spent_of_part(position, first)? {
                        Some(kept) => Some(kept),
                        // The coins lane's plugin took the block whole.
                        None => {
                            if whole.is_none() {
                                whole = feed.spent(position)?;
                            }
                            let inputs = part.run.frame.columns.inputs.prev_vouts.len();
                            whole.as_mut().and_then(|whole| {
                                let rest = Arc::make_mut(whole);
                                rest.take_front(inputs).map(Arc::new)
                            })
                        }
                    };
                    let height = position.height;
                    Some(kept.with_context(|| {
                        format!("what block {height} spends is not kept any more")
                    })?)
                }
                false => None,
            };
            let input = BlockInput {
                position,
                frame: &part.run.frame,
                median_time,
                spent: spent.as_deref(),
            };
            let place = Place {
                first,
                transactions: part.run.of,
                last: part.run.last,
                size: part.size,
                weight: part.weight,
            };
            let instance = self.instance()?;
            let LaneSpace { state, .. } = instance.space_mut();
            if coins {
                let began = Instant::now();
                let keys = coin_keys(&part.run.frame, usize::from(first == 0));
                state.prefetch(Keys::fixed(COIN_KEY_LEN, &keys))?;
                prefetch.observe(began.elapsed());
            }
            let began = Instant::now();
            let answer = instance.on_part(&input, &place, wanted);
            took += began.elapsed();
            match answer {
                Ok(spent) if gives_coins => {
                    let spent = spent.ok_or_else(CallError::no_spent)?;
                    feed.keep_spent_of_part(position, first, &spent)?;
                }
                Ok(spent) if makes_coins_anew => {
                    let spent = spent.ok_or_else(CallError::no_spent)?;
                    feed.give_spent_of_part_again(position, first, &spent)?;
                }
                Ok(_) => {}
                Err(CallError::Invalid(reason)) if gives_coins => {
                    self.refuse(position, reason);
                    return Ok(Step::Idle(LaneStage::Waiting));
                }
                Err(error) => return Err(error.into()),
            }
            let LaneSpace { state, rows } = self.instance()?.space_mut();
            let left = (state.dirty_bytes() + rows.bytes()).saturating_sub(before);
            if left > most {
                let message = format!(
                    "the parts of the block leave {left} bytes of state and rows so far, more than {most} \
                     (chain.large_block_changes)"
                );
                return Err(CallError::Failed {
                    call: CALL,
                    message,
                }
                .into());
            }
        }
        self.lane.metrics.call.observe(took);
        let memory = self.instance()?.memory();
        if gives_coins {
            feed.set_coins(Some(position));
        }
        self.block_done(position, journal, None, took, memory)
    }

    /// The coins lane's plugin says that the block is not valid.
    pub(super) fn refuse(&mut self, position: Position, reason: String) {
        self.vacate();
        self.refused = Some(position);
        let text = format!(
            "block {} ({}) is not valid: {reason}",
            position.height, position.hash
        );
        tracing::warn!(plugin = self.name(), height = position.height, hash = %position.hash, reason, "block refused");
        self.lane.shared.lock().last_error = Some(text);
        self.lane.feed.refuse(Refusal { position, reason });
    }
}
