//! What pruned blocks spend, made again for the plugins that wait for it.

use super::Manager;
use crate::lane::Waiting;
use crate::status::ReloadState;
use std::time::{Duration, Instant};

/// How often it is looked whether a plugin waits.
const LOOK: Duration = Duration::from_millis(500);
/// How long a plugin that still waits for the same is left waiting after that was tried.
const AGAIN: Duration = Duration::from_secs(3_600);
/// How often it is looked whether there is room for it now.
const ROOM_AGAIN: Duration = Duration::from_secs(5);

/// What the plugin with the role `coins` was sent through the chain for.
#[derive(Default)]
pub(super) struct Remaking {
    looked: Option<Instant>,
    last: Option<Try>,
}

/// The last try.
struct Try {
    /// The plugin that waited, and the block it waited for.
    plugin: String,
    height: u32,
    at: Instant,
    /// There was room for it: it was begun, or failed for another reason.
    room: bool,
}

impl Try {
    fn is_for(&self, plugin: &str, height: u32) -> bool {
        self.plugin == plugin && self.height == height
    }
}

impl Remaking {
    /// Whether it is time to look.
    fn look(&mut self, now: Instant) -> bool {
        let due = |at: Instant| now.saturating_duration_since(at) >= LOOK;
        let due = self.looked.is_none_or(due);
        if due {
            self.looked = Some(now);
        }
        due
    }

    /// Whether it may be tried for this plugin, which waits for this block.
    fn may_try(&self, plugin: &str, height: u32, now: Instant) -> bool {
        self.last.as_ref().is_none_or(|last| {
            let pause = if last.room { AGAIN } else { ROOM_AGAIN };
            !last.is_for(plugin, height) || now.saturating_duration_since(last.at) >= pause
        })
    }

    /// It was tried. Whether what came of it is news.
    fn tried(&mut self, plugin: &str, height: u32, room: bool, now: Instant) -> bool {
        let last = self.last.replace(Try {
            plugin: plugin.to_owned(),
            height,
            at: now,
            room,
        });
        room || last.is_none_or(|last| last.room || !last.is_for(plugin, height))
    }
}

impl Manager {
    /// Sends the plugin with the role `coins` through the chain once more when another one waits for what pruned blocks spend.
    /// Its second set of data takes as much disk as the first while it goes: without room for that it is not begun before there
    /// is.
    pub(super) fn make_spent_again(&mut self) {
        let now = Instant::now();
        if !self.remaking.look(now) {
            return;
        }
        let lanes = self.start.lanes.all();
        let waits = lanes.iter().find_map(|lane| match lane.status().waiting? {
            Waiting::Spent { height } => Some((lane.name().to_owned(), height)),
            _ => None,
        });
        let (Some((plugin, height)), Some(coins)) = (waits, self.start.lanes.coins()) else {
            return;
        };
        if !self.remaking.may_try(&plugin, height, now) || self.building.contains_key(coins.name())
        {
            return;
        }
        let state = &self.start.stores.state;
        let room = state.disk_bytes().map_err(anyhow::Error::from);
        let room = room.and_then(|bytes| Ok(self.start.feed.check_room(bytes)?));
        let has_room = room.is_ok();
        let begun = room.and_then(|()| self.rebuild(coins.name()));
        let news = self.remaking.tried(&plugin, height, has_room, now);
        match begun {
            Ok(_) => tracing::info!(
                plugin = coins.name(),
                waiting = plugin,
                height,
                "goes through the chain once more: another plugin waits for what pruned blocks spend"
            ),
            Err(error) if news => {
                let sha256 = coins.program().compiled.sha256.to_string();
                let message = format!(
                    "{plugin} waits for what block {height} spends, and a second set of data for that cannot be begun: {error:#}"
                );
                tracing::warn!(plugin = coins.name(), waiting = plugin, height, "{message}");
                self.board
                    .say(coins.name(), ReloadState::Refused, &sha256, message);
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_one_plugin_at_one_block_it_is_begun_once_an_hour_whatever_comes_of_it() {
        let start = Instant::now();
        let mut remaking = Remaking::default();
        assert!(remaking.may_try("rows", 7, start));
        assert!(remaking.tried("rows", 7, true, start));
        let before = start + AGAIN - Duration::from_millis(1);
        assert!(!remaking.may_try("rows", 7, start + ROOM_AGAIN));
        assert!(!remaking.may_try("rows", 7, before));
        assert!(remaking.may_try("rows", 7, start + AGAIN));
        // Another block, or another plugin, is another matter.
        assert!(remaking.may_try("rows", 8, before));
        assert!(remaking.may_try("fees", 7, before));
        assert!(remaking.tried("rows", 8, true, before));
        assert!(!remaking.may_try("rows", 8, start + AGAIN));
    }

    #[test]
    fn without_room_it_is_said_once_and_looked_at_again_soon() {
        let mut now = Instant::now();
        let mut remaking = Remaking::default();
        assert!(remaking.tried("rows", 7, false, now));
        for _ in 0..3 {
            assert!(!remaking.may_try("rows", 7, now + ROOM_AGAIN / 2));
            now += ROOM_AGAIN;
            assert!(remaking.may_try("rows", 7, now));
            assert!(!remaking.tried("rows", 7, false, now), "it is no news");
        }
        now += ROOM_AGAIN;
        assert!(remaking.tried("rows", 7, true, now));
        assert!(!remaking.may_try("rows", 7, now + ROOM_AGAIN));
        // No room an hour later is news again.
        assert!(remaking.tried("rows", 7, false, now + AGAIN));
    }

    #[test]
    fn it_is_looked_now_and_then() {
        let start = Instant::now();
        let mut remaking = Remaking::default();
        assert!(remaking.look(start));
        assert!(!remaking.look(start + LOOK / 2));
        assert!(remaking.look(start + LOOK));
    }
}
