//! Peers that we chose and that never show as much as we have: they make room for others (Core's `ConsiderEviction`).

use std::time::Duration;

use bitcoin::Work;

use super::{ConnectionKind, DropReason, PeerId, Sync};
use crate::wire::Moment;

/// This many peers that once showed our tip are kept whatever they show later: whoever starves us of blocks must not be able to
/// have all others dropped for having less than a branch that only they and we know.
const PROTECTED: usize = 4;
/// From the question for its headers to the end.
const LAST_WORD: Duration = Duration::from_secs(2 * 60);
/// Times that a peer which claims more than it shows is asked; then its claim counts for nothing.
const BELIEVED: u32 = 3;

/// Since when a peer shows less than our tip.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lag {
    since: Moment,
    /// What our tip had then: whoever reaches that has moved.
    work: Work,
    /// It was asked once more.
    asked: bool,
}

/// What is known of a peer's keeping up.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeepingUp {
    lag: Option<Lag>,
    protected: bool,
    /// Answers in a row that did not show what it said at the handshake.
    empty_claims: u32,
}

impl KeepingUp {
    /// Its headers ended below the height that it claims.
    pub(super) fn claim_was_empty(&mut self) {
        self.empty_claims = self.empty_claims.saturating_add(1);
    }

    /// The height that a peer claims, as long as that is believed.
    pub(super) fn claimed(&self, start_height: u32) -> u32 {
        match self.empty_claims < BELIEVED {
            true => start_height,
            false => 0,
        }
    }
}

impl Sync {
    pub(super) fn drop_lagging_peers(&mut self, now: Moment) {
        let tip = self.tree.node(self.tree.tip_id()).work;
        let mut protected = self
            .peers
            .values()
            .filter(|s| s.keeping_up.protected)
            .count();
        let (mut asked, mut dropped): (Vec<PeerId>, Vec<PeerId>) = (Vec::new(), Vec::new());
        for (id, session) in &mut self.peers {
            let ours = matches!(
                session.life.kind,
                ConnectionKind::Full | ConnectionKind::BlockOnly
            );
            if !ours || !session.peer.is_ready() || session.keeping_up.protected {
                continue;
            }
            let shown = session.best.map(|best| self.tree.node(best).work);
            let fresh = Lag {
                since: now,
                work: tip,
                asked: false,
            };
            let lag = &mut session.keeping_up.lag;
            match lag {
                _ if shown >= Some(tip) => {
                    *lag = None;
                    if self.caught_up && protected < PROTECTED {
                        session.keeping_up.protected = true;
                        protected += 1;
                    }
                }
                None => *lag = Some(fresh),
                Some(behind) if shown >= Some(behind.work) => *lag = Some(fresh),
                Some(behind) if behind.asked && now.since(behind.since) >= LAST_WORD => {
                    dropped.push(*id);
                }
                Some(behind)
                    if !behind.asked && now.since(behind.since) >= self.config.lag_timeout =>
                {
                    behind.asked = true;
                    behind.since = now;
                    asked.push(*id);
                }
                Some(_) => {}
            }
        }
        for id in asked {
            self.ask_for_headers_below_tip(id, now);
        }
        for id in dropped {
            self.drop_peer(id, DropReason::Lagging(self.config.lag_timeout), now);
        }
    }
}
