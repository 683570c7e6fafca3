//! What pruned blocks spend, made again for the plugins that wait for it.

use super::Manager;
use crate::lane::Waiting;
use crate::status::ReloadState;
use std::time::{Duration, Instant};

/// How often it is looked whether a plugin waits.
const LOOK: Duration = Duration::from_millis(500);
/// How long a plugin that still waits for the same is left waiting after that was tried.
const AGAIN: Duration = Duration::from_secs(3_600);

/// What the plugin with the role `coins` was sent through the chain for.
#[derive(Default)]
pub(super) struct Remaking {
    looked: Option<Instant>,
    /// The plugin that waited, the block it waited for, and when it was tried.
    last: Option<(String, u32, Instant)>,
}

impl Manager {
    /// Sends the plugin with the role `coins` through the chain once more when another one waits for what pruned blocks spend.
    /// Its second set of data takes as much disk as the first while it goes: without room for that it is not begun.
    pub(super) fn make_spent_again(&mut self) {
        let due = |at: &Instant| at.elapsed() >= LOOK;
        if !self.remaking.looked.as_ref().is_none_or(due) {
            return;
        }
        self.remaking.looked = Some(Instant::now());
        let lanes = self.start.lanes.all();
        let waits = lanes.iter().find_map(|lane| match lane.status().waiting? {
            Waiting::Spent { height } => Some((lane.name().to_owned(), height)),
            _ => None,
        });
        let (Some((plugin, height)), Some(coins)) = (waits, self.start.lanes.coins()) else {
            return;
        };
        let tried = self.remaking.last.as_ref();
        let tried = tried.is_some_and(|(name, at, when)| {
            *name == plugin && *at == height && when.elapsed() < AGAIN
        });
        if tried || self.building.contains_key(coins.name()) {
            return;
        }
        self.remaking.last = Some((plugin.clone(), height, Instant::now()));
        let state = &self.start.stores.state;
        let room = state.disk_bytes().map_err(anyhow::Error::from);
        let begun = room
            .and_then(|bytes| Ok(self.start.feed.check_room(bytes)?))
            .and_then(|()| self.rebuild(coins.name()));
        match begun {
            Ok(_) => tracing::info!(
                plugin = coins.name(),
                waiting = plugin,
                height,
                "goes through the chain once more: another plugin waits for what pruned blocks spend"
            ),
            Err(error) => {
                let sha256 = coins.program().compiled.sha256.to_string();
                let message = format!(
                    "{plugin} waits for what block {height} spends, and a second set of data for that cannot be begun: {error:#}"
                );
                tracing::warn!(plugin = coins.name(), waiting = plugin, height, "{message}");
                self.board
                    .say(coins.name(), ReloadState::Refused, &sha256, message);
            }
        }
    }
}
