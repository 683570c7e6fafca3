//! Outpoints to pick from at random, in an order that depends on nothing but what was put in and taken out.

use std::collections::HashMap;

use bitcoin::OutPoint;
use rand::{Rng, RngExt};

/// How many of the last ones count as recent.
const RECENT: usize = 50;

/// A set with a random pick.
#[derive(Debug, Default)]
pub struct Purse {
    items: Vec<OutPoint>,
    places: HashMap<OutPoint, usize>,
}

impl Purse {
    pub fn len(&self) -> usize {
        self.items.len()
    }

    pub fn insert(&mut self, outpoint: OutPoint) {
        if !self.places.contains_key(&outpoint) {
            self.places.insert(outpoint, self.items.len());
            self.items.push(outpoint);
        }
    }

    pub fn remove(&mut self, outpoint: &OutPoint) {
        if let Some(place) = self.places.remove(outpoint) {
            self.items.swap_remove(place);
            if let Some(moved) = self.items.get(place) {
                self.places.insert(*moved, place);
            }
        }
    }

    /// One of those that came last, as far as removals have left the order alone.
    pub fn pick_recent(&self, rng: &mut impl Rng) -> Option<OutPoint> {
        let recent = self.items.len().saturating_sub(RECENT)..self.items.len();
        if recent.is_empty() {
            return None;
        }
        self.items.get(rng.random_range(recent)).copied()
    }

    pub fn pick(&self, rng: &mut impl Rng) -> Option<OutPoint> {
        if self.items.is_empty() {
            return None;
        }
        self.items
            .get(rng.random_range(0..self.items.len()))
            .copied()
    }
}
