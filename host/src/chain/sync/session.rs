//! What the chain knows about one peer, beside its connection.

use super::compact::Partial;
use super::lagging::KeepingUp;
use super::life::{ConnectionKind, Life};
use super::presync::Presync;
use super::refetch::Portion;
use super::streams::{Shown, Stream};
use crate::chain::header_tree::Id;
use crate::wire::{Moment, Peer};

/// One peer.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) peer: Peer,
    /// What the connection is for, and how the peer behaves.
    pub(super) life: Life,
    /// The best header that it showed or announced.
    pub(super) best: Option<Id>,
    /// When it was asked for headers, while it has not answered.
    pub(super) headers_asked: Option<Moment>,
    /// Whether it shows what we have.
    pub(super) keeping_up: KeepingUp,
    /// A branch of it whose work is being measured.
    pub(super) presync: Option<Box<Presync>>,
    /// It was asked from below the height that it claims, since it knew nothing above ours.
    pub(super) probed: bool,
    /// It showed the end of its branch.
    pub(super) exhausted: bool,
    /// When it may be asked again, after its branch had too little work.
    pub(super) headers_retry: Moment,
    /// Messages of headers without a known parent, since the last with one.
    pub(super) unconnected: u32,
    /// Headers that it gave us that are no part of the best branch, since the last that was.
    pub(super) side_headers: usize,
    /// Blocks that it was asked for and has not sent, oldest first.
    pub(super) in_flight: Vec<Id>,
    /// How many it may have in flight.
    pub(super) in_flight_limit: usize,
    /// It sends compact blocks of version 2 when it is asked for them.
    pub(super) sends_compact: bool,
    /// A compact block of it that is being put together.
    pub(super) partial: Option<Box<Partial>>,
    /// When it last sent a block, or was first asked for one after a pause.
    pub(super) last_block: Moment,
    /// What a block took it lately, on a moving average; milliseconds.
    pub(super) pace: Option<u64>,
    /// Until then it is asked for blocks only where no other peer is: one that is faster took a block over from it.
    pub(super) slow_until: Moment,
    /// How often in a row that was so.
    pub(super) slow: u32,
    /// Since when it holds up the window.
    pub(super) stalling_since: Option<Moment>,
    /// Blocks of the active chain that it was asked for once more.
    pub(super) again: Portion,
    /// Blocks that it was asked for and that are not waited for any more: each may still come.
    pub(super) given_up: u32,
    /// Blocks that nobody asked it for.
    pub(super) unrequested_blocks: u32,
    /// The block that it is sending in pieces.
    pub(super) stream: Option<Stream>,
    /// How fast it sent one lately.
    pub(super) shown: Option<Shown>,
    /// It was asked for its whole pool.
    pub(super) pool_asked: bool,
    /// It gave us a header or a block that was good.
    pub(super) useful: bool,
}

impl Session {
    pub(super) fn new(peer: Peer, in_flight_limit: usize, now: Moment) -> Session {
        Session {
            life: Life::new(ConnectionKind::Manual, 0.0, now),
            peer,
            best: None,
            headers_asked: None,
            keeping_up: KeepingUp::default(),
            presync: None,
            probed: false,
            exhausted: false,
            headers_retry: now,
            unconnected: 0,
            side_headers: 0,
            in_flight: Vec::new(),
            in_flight_limit,
            sends_compact: false,
            partial: None,
            last_block: now,
            pace: None,
            slow_until: now,
            slow: 0,
            stalling_since: None,
            again: Portion::default(),
            given_up: 0,
            unrequested_blocks: 0,
            stream: None,
            shown: None,
            pool_asked: false,
            useful: false,
        }
    }

    /// Whether it is there to be asked for headers and blocks.
    pub(super) fn is_for_blocks(&self) -> bool {
        self.peer.is_ready() && self.life.kind != ConnectionKind::AddressFetch
    }

    /// The height that it says it has, while that is believed.
    pub(super) fn claimed_height(&self) -> u32 {
        self.keeping_up.claimed(self.peer.start_height())
    }
}
