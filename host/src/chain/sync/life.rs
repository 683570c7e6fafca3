//! What a connection is for, and how the peer behaves on it.

use crate::wire::Moment;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConnectionKind {
    /// Named by the configuration or the operator.
    Manual,
    /// Chosen from the book, for everything.
    Full,
    /// Chosen from the book for blocks alone: no transactions and no addresses, so that nobody sees who is connected.
    BlockOnly,
    /// Only to see whether somebody is there.
    Feeler,
    /// Only to be told addresses: whom a proxy finds under the name of a DNS seed.
    AddressFetch,
    /// The peer connected to us.
    Incoming,
}

impl ConnectionKind {
    /// As it is shown.
    pub fn name(self) -> &'static str {
        match self {
            ConnectionKind::Manual => "manual",
            ConnectionKind::Full => "full",
            ConnectionKind::BlockOnly => "block-only",
            ConnectionKind::Feeler => "feeler",
            ConnectionKind::AddressFetch => "address-fetch",
            ConnectionKind::Incoming => "incoming",
        }
    }
}

/// Something that refills with time up to a limit, and is taken from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Allowance {
    left: f64,
    refilled: Moment,
}

impl Allowance {
    pub(super) fn new(left: f64, now: Moment) -> Allowance {
        Allowance {
            left,
            refilled: now,
        }
    }

    /// `rate` a second, up to `most`; more, once granted, stays.
    pub(super) fn refill(&mut self, rate: f64, most: f64, now: Moment) {
        let more = now.since(self.refilled).as_secs_f64() * rate;
        if self.left < most {
            self.left = (self.left + more).min(most);
        }
        self.refilled = now;
    }

    pub(super) fn grant(&mut self, more: f64) {
        self.left += more;
    }

    /// Takes, if there is so much.
    pub(super) fn take(&mut self, much: f64) -> bool {
        let enough = self.left >= much;
        if enough {
            self.left -= much;
        }
        enough
    }

    pub(super) fn is_full(&self, most: f64) -> bool {
        self.left >= most
    }
}

/// How a peer behaves.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) kind: ConnectionKind,
    /// Blocks that it was asked for and sent.
    pub(super) blocks: u64,
    /// When it last sent such a block.
    pub(super) last_block: Moment,
    /// When it last sent a transaction.
    pub(super) last_transaction: Moment,
    /// When its chain was last news.
    pub(super) last_news: Moment,
    /// Addresses that it may tell us.
    pub(super) addresses: Allowance,
    /// Addresses that were passed over, being too many.
    pub(super) addresses_over: u64,
    /// When it was last asked for addresses.
    pub(super) addresses_asked: Option<Moment>,
    /// It was told addresses.
    pub(super) addresses_told: bool,
    /// Bytes that it may send unasked.
    pub(super) bytes: Allowance,
    /// Bytes that came and answer nothing so far.
    pub(super) unasked: usize,
    /// Offences that are too small to be dropped for: of a peer that connected to us, since those we chose are not held to a rate.
    pub(super) misbehaviour: u32,
}

impl Life {
    /// So many of the bytes that came were asked for.
    pub(super) fn answered(&mut self, bytes: usize) {
        self.unasked = self.unasked.saturating_sub(bytes);
    }

    /// It sent a block that was asked for, whole, in pieces or in its compact form.
    pub(super) fn gave_block(&mut self, now: Moment) {
        self.blocks += 1;
        self.last_block = now;
    }

    pub(super) fn new(kind: ConnectionKind, bytes: f64, now: Moment) -> Life {
        Life {
            kind,
            blocks: 0,
            last_block: Moment(0),
            last_transaction: Moment(0),
            last_news: Moment(0),
            addresses: Allowance::new(1.0, now),
            addresses_over: 0,
            addresses_asked: None,
            addresses_told: false,
            bytes: Allowance::new(bytes, now),
            unasked: 0,
            misbehaviour: 0,
        }
    }
}
