//! Block after block with all that a plugin may ask for, and the pool beside them.

use std::sync::Arc;

use anyhow::{Context, Result};

use super::bed::Given;
use super::blocks::BlockList;
use super::pool::{AHEAD, Pool};
use super::spent::Coins;
use super::twin::twin;

/// Gives the blocks of a list, with what they spend when that is wanted.
pub(super) struct Feeder<'a> {
    list: &'a BlockList,
    coins: Option<Coins>,
    pool: Option<Pool>,
    next: usize,
    /// The first block whose transactions have not arrived in the pool.
    told: usize,
}

impl<'a> Feeder<'a> {
    /// `pool` says that there is a pool to be told of; without the coins that its transactions spend there is none.
    pub(super) fn new(list: &'a BlockList, spent: bool, pool: bool) -> Self {
        Self {
            list,
            coins: (spent || pool).then(Coins::default),
            pool: pool.then(Pool::new),
            next: 0,
            told: 1,
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

    /// What the pool tells, where a plugin is told of it.
    pub(super) fn pool(&self) -> Option<&Pool> {
        self.pool.as_ref()
    }

    /// Brings the pool to the last block that was given: its transactions leave, those of a coming one arrive.
    pub(super) fn follow(&mut self, given: &Given) -> Result<()> {
        let (Some(pool), Some(coins)) = (&mut self.pool, &self.coins) else {
            return Ok(());
        };
        pool.follow(&[], std::slice::from_ref(given), coins)?;
        while self.told < (self.next + AHEAD).min(self.list.len()) {
            let coming = self.list.frame(self.told)?;
            pool.arrive(&coming, given, coins)?;
            self.told += 1;
        }
        if self.next == self.list.len() {
            pool.arrive_last(given, coins)?;
        }
        pool.publish(given.position.height);
        Ok(())
    }

    /// A branch beside the last blocks given: a twin for each of `old`, which are the ones before the last `above` that
    /// were given. The last twin has half of its block's transactions. The pool, which is at the last of `old`, goes to
    /// the branch; [`Feeder::back`] has to follow.
    pub(super) fn branch(&mut self, old: &[Given], above: &[Given]) -> Result<Vec<Given>> {
        self.disconnect(old.len() + above.len())?;
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
        self.turn(old, &branch)?;
        Ok(branch)
    }

    /// Leaves a branch for the blocks in whose place it came.
    pub(super) fn back(&mut self, branch: &[Given], old: &[Given], above: &[Given]) -> Result<()> {
        self.disconnect(branch.len())?;
        self.connect(old)?;
        self.turn(branch, old)?;
        self.connect(above)
    }

    /// The pool goes from one branch to another, the last of which the coins are at.
    fn turn(&mut self, left: &[Given], came: &[Given]) -> Result<()> {
        if let (Some(pool), Some(coins), Some(last)) = (&mut self.pool, &self.coins, came.last()) {
            pool.follow(left, came, coins)?;
            pool.publish(last.position.height);
        }
        Ok(())
    }

    fn connect(&mut self, blocks: &[Given]) -> Result<()> {
        if let Some(coins) = &mut self.coins {
            for given in blocks {
                coins.connect(&given.frame, given.position.height)?;
            }
        }
        Ok(())
    }

    fn disconnect(&mut self, blocks: usize) -> Result<()> {
        if let Some(coins) = &mut self.coins {
            for _ in 0..blocks {
                coins.disconnect()?;
            }
        }
        Ok(())
    }
}
