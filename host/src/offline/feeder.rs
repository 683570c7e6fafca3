//! Block after block with all that a plugin may ask for.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::bed::Given;
use super::blocks::BlockList;
use super::spent::Coins;
use super::twin::twin;

/// Gives the blocks of a list, with what they spend when that is wanted.
pub(super) struct Feeder<'a> {
    list: &'a BlockList,
    coins: Option<Coins>,
    next: usize,
}

impl<'a> Feeder<'a> {
    pub(super) fn new(list: &'a BlockList, spent: bool) -> Self {
        Self {
            list,
            coins: spent.then(Coins::default),
            next: 0,
        }
    }

    /// The next block; `None` after the last.
    pub(super) fn next(&mut self) -> Result<Option<Given>> {
        let Some(position) = self.list.position(self.next) else {
            return Ok(None);
        };
        let frame = self.list.frame(self.next)?;
        let spent = self.coins.as_mut();
        let spent = spent.map(|coins| coins.connect(&frame, position.height));
        let given = Given {
            position,
            spent: spent.transpose()?.map(Arc::new),
            frame: Arc::new(frame),
            median_time: self.list.median_time(self.next),
        };
        self.next += 1;
        Ok(Some(given))
    }

    /// A branch beside the last blocks given: a twin for each of `old`, which are the ones before the last `above` that
    /// were given. The last twin has half of its block's transactions.
    pub(super) fn branch(&mut self, old: &[Given], above: &[Given]) -> Result<Vec<Given>> {
        if let Some(coins) = &mut self.coins {
            for _ in old.iter().chain(above) {
                coins.disconnect()?;
            }
        }
        let mut branch = Vec::new();
        let first = old.first().context("a branch of no block")?;
        let mut parent = first.frame.header.prev_blockhash;
        for (index, given) in old.iter().enumerate() {
            let all = given.frame.tx_count();
            let keep = match index + 1 == old.len() {
                true => all.div_ceil(2),
                false => all,
            };
            let height = given.position.height;
            let frame = twin(&given.frame, parent, keep, self.list.params.subsidy(height))?;
            let spent = self.coins.as_mut();
            let spent = spent.map(|coins| coins.connect(&frame, height));
            parent = frame.hash;
            let mut position = given.position;
            position.hash = frame.hash;
            branch.push(Given {
                position,
                spent: spent.transpose()?.map(Arc::new),
                frame: Arc::new(frame),
                median_time: given.median_time,
            });
        }
        if let Some(coins) = &mut self.coins {
            for _ in &branch {
                coins.disconnect()?;
            }
            for given in old.iter().chain(above) {
                coins.connect(&given.frame, given.position.height)?;
            }
        }
        Ok(branch)
    }
}
