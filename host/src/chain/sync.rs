//! The whole network as one state machine: which peers to have, which headers and blocks to ask of whom, and which of
//! them to do without.
//!
//! The shell owns sockets, clock and files. It calls the inputs below with the time of the call, then takes the
//! [`Output`]s until there are none. Headers come first, from one peer until its branch ends and then from all; blocks
//! come from every peer that has them, inside a window above the active tip. A peer that sends something wrong is
//! dropped with its reason, and the rest goes on.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bitcoin::BlockHash;
use bitcoin::hashes::siphash24;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::message_blockdata::Inventory;

use super::block_check::BadBlock;
use super::header_tree::{HeaderTree, Id, TipChange};
use crate::network::Params;
use crate::wire::codec::HEADER_SIZE;
use crate::wire::message::Message;
use crate::wire::{Misbehaviour, Moment, Peer, PeerConfig, PeerStep, RawMessage, TransportKind};

mod addresses;
pub mod bans;
mod base;
mod blocks;
pub mod book;
mod chance;
mod compact;
mod config;
mod connections;
mod eviction;
mod gossip;
mod headers;
mod incoming;
mod lagging;
mod life;
mod operator;
mod outgoing;
mod output;
mod presync;
mod refetch;
mod session;
mod source;
mod status;
mod streams;
mod transactions;
mod transports;

use addresses::Addresses;
pub use base::Base;
use blocks::Downloads;
use compact::COMPACT_VERSION;
pub use compact::ShortIds;
pub use config::SyncConfig;
use connections::Connections;
pub use life::ConnectionKind;
use life::Life;
pub use operator::{MAX_ADDED, PeerChange, PeerChangeError, PeerRef};
pub use output::{DropReason, Output, PeerEvent, PeerId, PeerInfo, StreamStart};
pub use presync::Refusal;
use refetch::Refetch;
use session::Session;
use source::SourceBlocks;
pub use source::SourceView;
use streams::Streams;
pub use transactions::PoolVerdict;
use transactions::TxRequests;
use transports::Transports;
pub use transports::{KnownTransport, TransportPreference};

/// How many fresh announcements of blocks are remembered with their time.
const MAX_ANNOUNCED: usize = 64;

/// The network machine. See the module's page.
#[derive(Debug)]
pub struct Sync {
    config: SyncConfig,
    params: &'static Params,
    peer_config: Arc<PeerConfig>,
    tree: HeaderTree,
    peers: BTreeMap<PeerId, Session>,
    addresses: Addresses,
    /// The book, the bans, and what is being connected to.
    connections: Connections,
    /// For peers that are to tell us of blocks alone.
    block_only_config: Arc<PeerConfig>,
    downloads: Downloads,
    streams: Streams,
    refetch: Refetch,
    transactions: TxRequests,
    /// Blocks that were put together once, and are not asked for in their compact form again.
    whole_only: VecDeque<Id>,
    transports: Transports,
    source: SourceBlocks,
    base: Option<Base>,
    /// It was said that the base is on no branch that counts.
    base_missed: bool,
    outputs: VecDeque<Output>,
    /// The peer that is being asked for headers while we know of no end of the branch, and until when it may take.
    header_peer: Option<(PeerId, Moment)>,
    /// What the presyncs' keys are made of.
    seed: u64,
    /// Some peer showed the end of a branch with enough work.
    caught_up: bool,
    /// When a header last came that was new.
    last_header: Moment,
    /// Blocks heard of lately, and when.
    announced: VecDeque<(BlockHash, Moment)>,
    last_tick: Moment,
    /// When our chain was last known to be the network's.
    last_synced: Option<Moment>,
    was_synced: bool,
    said: Said,
}

/// What is said once.
#[derive(Debug, Default)]
struct Said {
    /// The header tree is full.
    tree_full: bool,
    /// There are blocks that are too long for us.
    huge_block: bool,
}

impl Sync {
    /// A machine that knows the headers of `tree`, whose blocks may be marked as checked already. `seed` is all the
    /// randomness there is.
    pub fn new(
        config: SyncConfig,
        params: &'static Params,
        tree: HeaderTree,
        seed: u64,
        now: Moment,
    ) -> Sync {
        let nonce = siphash24::Hash::hash_to_u64_with_keys(seed, now.0, b"version nonce");
        let peer_config = PeerConfig {
            user_agent: config.user_agent.clone(),
            minimum_version: config.minimum_version,
            required_services: config.required_services,
            services: config.transport.services(params),
            handshake_timeout: config.handshake_timeout,
            ping_interval: config.ping_interval,
            pong_timeout: config.pong_timeout,
            relay: config.transactions,
            verify_block_checksums: config.verify_block_checksums,
            segwit: params.segwit,
            extended_messages: params.extended_messages,
            protoconf: params.protoconf,
            largest_block: params.largest_block(),
            stream_above: config.stream_above,
            ..PeerConfig::new(params.magic, nonce)
        };
        let addresses = Addresses::new(
            &config.connect,
            config.reconnect_delay,
            config.max_reconnect_delay,
            config.connect_timeout,
        );
        let block_only_config = PeerConfig {
            relay: false,
            ..peer_config.clone()
        };
        Sync {
            connections: Connections::new(seed, tree.best_id(), now),
            block_only_config: Arc::new(block_only_config),
            downloads: Downloads::new(config.stall_timeout),
            streams: Streams::default(),
            refetch: Refetch::new(),
            transactions: TxRequests::new(
                seed,
                config.transactions_per_peer,
                config.transaction_timeout,
            ),
            transports: Transports::default(),
            config,
            params,
            peer_config: Arc::new(peer_config),
            tree,
            peers: BTreeMap::new(),
            addresses,
            whole_only: VecDeque::new(),
            source: SourceBlocks::default(),
            base: None,
            base_missed: false,
            outputs: VecDeque::new(),
            header_peer: None,
            seed,
            caught_up: false,
            last_header: now,
            announced: VecDeque::new(),
            last_tick: now,
            last_synced: None,
            was_synced: false,
            said: Said::default(),
        }
    }

    /// The next thing to do.
    pub fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Everything that there is to do.
    pub fn drain(&mut self) -> impl Iterator<Item = Output> + '_ {
        self.outputs.drain(..)
    }

    /// A connection was made, by us (`outbound`) or by the peer. `peer` must be new.
    pub fn connected(&mut self, peer: PeerId, addr: SocketAddr, outbound: bool, now: Moment) {
        let kind = match self.kind_of(addr, outbound, now) {
            Ok(kind) => kind,
            Err(reason) => {
                self.event(addr, "refused", reason.to_string());
                self.outputs.push_back(Output::Disconnect { peer, reason });
                return;
            }
        };
        let (height, _) = self.tree.tip();
        let config = match kind {
            ConnectionKind::BlockOnly | ConnectionKind::Feeler | ConnectionKind::AddressFetch => {
                &self.block_only_config
            }
            _ => &self.peer_config,
        };
        let config = Arc::clone(config);
        let opening = self.opening(addr, outbound, now);
        let connection = Peer::with_transport(config, addr, outbound, height, opening, now);
        let mut session = Session::new(connection, self.config.blocks_per_peer, now);
        let bytes = self.config.incoming_rate as f64 * incoming::BURST;
        session.life = Life::new(kind, bytes, now);
        self.peers.insert(peer, session);
        self.event(
            addr,
            "connected",
            match kind {
                ConnectionKind::Incoming => "inbound".to_owned(),
                ConnectionKind::Manual => "outbound".to_owned(),
                kind => format!("outbound {}", kind.name()),
            },
        );
        self.flush(peer);
    }

    /// A connection could not be made.
    pub fn connect_failed(&mut self, addr: SocketAddr, now: Moment) {
        self.addresses.lost(addr, now);
        self.note_failed(addr, now);
        self.event(addr, "connect-failed", String::new());
    }

    /// The peer closed the connection, or it broke. Nothing happens for a peer that was dropped before.
    pub fn disconnected(&mut self, peer: PeerId, now: Moment) {
        self.note_ended(peer, None, now);
        if let Some(session) = self.forget(peer, None, now) {
            self.event(session.peer.addr(), "disconnected", String::new());
            self.pump(now);
        }
    }

    /// Bytes of a peer, as they came from the socket.
    pub fn received(&mut self, peer: PeerId, bytes: &[u8], now: Moment) {
        let Some(session) = self.peers.get_mut(&peer) else {
            return;
        };
        session.peer.feed(bytes, now);
        session.life.unasked += bytes.len();
        let mut moved = false;
        // Gone, if the last message got it dropped.
        while let Some(session) = self.peers.get_mut(&peer) {
            match session.peer.next(now) {
                Ok(Some(step)) => self.step(peer, step, now),
                Ok(None) => break,
                Err(error) => self.drop_peer(peer, error.into(), now),
            }
            moved = true;
        }
        self.count_unasked(peer, now);
        self.flush(peer);
        if moved {
            self.pump(now);
        }
    }

    /// A message of a peer that the shell framed itself, in the task of its socket, instead of
    /// [`received`](Self::received).
    pub fn received_raw(&mut self, peer: PeerId, raw: RawMessage, now: Moment) {
        let Some(session) = self.peers.get_mut(&peer) else {
            return;
        };
        let length = HEADER_SIZE + raw.payload.len();
        session.life.unasked += length;
        let received = session.peer.receive(raw, now);
        match received {
            Ok(Some(step)) => self.step(peer, step, now),
            Ok(None) => {}
            Err(error) => self.drop_peer(peer, error.into(), now),
        }
        self.count_unasked(peer, now);
        self.flush(peer);
        self.pump(now);
    }

    /// The framing of a peer broke in the shell's own decoder.
    pub fn failed(&mut self, peer: PeerId, error: Misbehaviour, now: Moment) {
        self.drop_peer(peer, error.into(), now);
        self.pump(now);
    }

    /// Too much waits to be sent to a peer, which does not read it.
    pub fn does_not_read(&mut self, peer: PeerId, now: Moment) {
        self.drop_peer(peer, DropReason::DoesNotRead, now);
        self.pump(now);
    }

    /// Time passed. To be called about every 100 ms, and at least every second.
    pub fn tick(&mut self, now: Moment) {
        // A clock that was put back makes every timer as wrong as a sleep does.
        let late = now.since(self.last_tick).max(self.last_tick.since(now));
        self.last_tick = now;
        if late > self.config.late_tick {
            self.woke_up(late, now);
        }
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in ids {
            let Some(session) = self.peers.get_mut(&id) else {
                continue;
            };
            if let Err(error) = session.peer.tick(now) {
                self.drop_peer(id, error.into(), now);
            }
            self.flush(id);
        }
        self.tick_headers(now);
        self.drop_lagging_peers(now);
        self.tick_blocks(now);
        self.tick_again(now);
        self.tick_streams(now);
        self.transactions.tick(now);
        self.tick_connections(now);
        self.pump(now);
    }

    /// The result of checking a block that was given out as [`Output::Block`].
    pub fn block_checked(&mut self, hash: BlockHash, result: Result<(), BadBlock>, now: Moment) {
        if let Some(id) = self.tree.id(&hash) {
            self.source_done(id);
        }
        self.on_block_checked(hash, result, now);
        self.pump(now);
    }

    /// A block of the active chain that its coins refuse: it and its branch are condemned, and the active chain goes
    /// to the best of what is left.
    pub fn block_refused_by_coins(
        &mut self,
        hash: BlockHash,
        reason: impl Into<String>,
        now: Moment,
    ) {
        self.condemn(hash, reason.into(), now);
        self.pump(now);
    }

    /// A block that is not readable any more, or could not be kept when it was given out, and must be downloaded again.
    pub fn block_lost(&mut self, hash: BlockHash, now: Moment) {
        self.on_block_lost(hash, now);
        self.pump(now);
    }

    /// No block above this height is asked for: the shell is behind. Those on their way still come.
    pub fn set_download_limit(&mut self, height: Option<u32>, now: Moment) {
        if self.downloads.limit != height {
            self.downloads.limit = height;
            self.pump(now);
        }
    }

    /// The transaction is in the pool, or was refused by it: by txid or wtxid, internal byte order. It is not asked
    /// for when a peer announces it.
    pub fn tx_known(&mut self, hash: [u8; 32]) {
        self.transactions.know(hash);
    }

    fn step(&mut self, peer: PeerId, step: PeerStep, now: Moment) {
        match step {
            PeerStep::Ready => {
                self.note_transport(peer, now);
                self.on_ready(peer, now);
            }
            PeerStep::Message(message) => self.on_message(peer, message, now),
            PeerStep::Piece(piece) => self.on_piece(peer, piece, now),
        }
    }

    fn on_ready(&mut self, id: PeerId, now: Moment) {
        if self.takes_compact() {
            let low_bandwidth = Message::SendCmpct {
                announce: false,
                version: COMPACT_VERSION,
            };
            self.send(id, &low_bandwidth);
        }
        if let Some(session) = self.peers.get(&id) {
            let peer = &session.peer;
            let details = format!(
                "{} {} version {} services {} height {}",
                peer.user_agent(),
                peer.transport().map_or("-", TransportKind::name),
                peer.protocol_version(),
                peer.services(),
                peer.start_height()
            );
            self.event(peer.addr(), "ready", details);
        }
        self.note_ready(id, now);
    }

    fn on_message(&mut self, peer: PeerId, message: Message, now: Moment) {
        if self.config.message_events
            && let Some(session) = self.peers.get(&peer)
        {
            self.event(session.peer.addr(), "received", message.summary());
        }
        let session = self.peers.get(&peer);
        if session.is_some_and(|session| session.life.kind == ConnectionKind::AddressFetch)
            && !matches!(message, Message::Addr(_) | Message::AddrV2(_))
        {
            return;
        }
        let question = self.question_of(peer, &message);
        self.take_message(peer, message, now);
        self.count_answer(peer, question);
    }

    fn take_message(&mut self, peer: PeerId, message: Message, now: Moment) {
        match message {
            Message::Headers(headers) => {
                let work = self.tree.best_work();
                self.on_headers(peer, &headers, now);
                if self.tree.best_work() > work {
                    self.note_news(peer, true, now);
                }
            }
            Message::Addr(list) => self.on_addresses(peer, &list, now),
            Message::AddrV2(list) => self.on_addresses_v2(peer, &list, now),
            Message::GetAddr => self.on_get_addresses(peer, now),
            Message::Block(raw) => self.on_block(peer, raw, now),
            Message::CmpctBlock(compact) => self.on_compact_block(peer, &compact, now),
            Message::BlockTxn(answer) => self.on_block_transactions(peer, &answer, now),
            Message::SendCmpct { version, .. } => self.on_send_compact(peer, version),
            Message::Tx(raw) => self.on_transaction(peer, raw, now),
            Message::Inv(inventory) => self.on_inventory(peer, &inventory, now),
            Message::NotFound(inventory) => self.on_not_found(peer, &inventory, now),
            // We serve nothing, but a peer that waits for an answer might drop us.
            Message::GetHeaders(_) => self.send(peer, &Message::Headers(Vec::new())),
            Message::GetData(inventory) if !inventory.is_empty() => {
                self.send(peer, &Message::NotFound(inventory))
            }
            _ => {}
        }
    }

    fn on_inventory(&mut self, peer: PeerId, inventory: &[Inventory], now: Moment) {
        let blocks_only = self
            .peers
            .get(&peer)
            .is_some_and(|session| session.life.kind == ConnectionKind::BlockOnly);
        self.tell_announced(peer, inventory);
        let mut unknown = false;
        for item in inventory {
            match item {
                Inventory::Block(hash)
                | Inventory::WitnessBlock(hash)
                | Inventory::CompactBlock(hash) => {
                    unknown |= self.on_block_announced(peer, *hash, now);
                }
                Inventory::Transaction(_)
                | Inventory::WTx(_)
                | Inventory::WitnessTransaction(_)
                    if self.config.transactions && !blocks_only =>
                {
                    self.transactions.announced(peer, *item);
                }
                _ => {}
            }
        }
        if unknown {
            self.ask_for_announced(peer, now);
        }
    }

    fn on_not_found(&mut self, peer: PeerId, inventory: &[Inventory], now: Moment) {
        for item in inventory {
            match item {
                Inventory::Block(hash)
                | Inventory::WitnessBlock(hash)
                | Inventory::CompactBlock(hash) => {
                    self.block_not_found(peer, hash, now);
                }
                _ => self.transactions.not_found(peer, item),
            }
        }
    }

    /// Everything that may be possible now: headers to ask for, blocks, transactions.
    fn pump(&mut self, now: Moment) {
        self.connect_source(now);
        self.find_base(now);
        self.ask_for_headers(now);
        let waits = self.waits_for_base();
        if !waits {
            self.give_source_blocks();
        }
        if !waits && !self.source_is_scanning() {
            self.ask_for_blocks(now);
        }
        self.ask_again(now);
        let connected = self.anybody_there();
        if connected && self.at_the_end(now) {
            self.last_synced = Some(now);
        }
        let synced = self.synced(now);
        if synced != self.was_synced {
            self.was_synced = synced;
            tracing::debug!(synced, height = self.tree.tip().0, "following the tip");
        }
        if synced && self.config.transactions {
            self.ask_for_transactions(now);
        }
    }

    fn woke_up(&mut self, slept: Duration, now: Moment) {
        tracing::info!(
            seconds = slept.as_secs(),
            peers = self.peers.len(),
            "the machine slept; all peers are dropped"
        );
        let ids: Vec<PeerId> = self.peers.keys().copied().collect();
        // Those that have behaved for so long are worth more than others of the book.
        let had: Vec<_> = self
            .peers
            .values()
            .map(|session| (session.peer.addr(), session.life.kind))
            .collect();
        for id in ids {
            self.drop_peer(id, DropReason::Slept(slept), now);
        }
        self.addresses.reset(now);
        self.reset_outgoing(now);
        for (addr, kind) in had {
            self.connections.again(addr, kind);
        }
        self.caught_up = false;
        self.last_synced = None;
        self.last_header = now;
    }

    fn tip_changed(&mut self, change: Option<TipChange>, now: Moment) {
        if let Some(change) = change {
            self.downloads.tip_moved(&self.config, now);
            self.transactions.new_tip();
            self.outputs.push_back(Output::Tip(change));
        }
    }

    fn send(&mut self, id: PeerId, message: &Message) {
        let Some(session) = self.peers.get_mut(&id) else {
            return;
        };
        session.peer.send(message);
        if self.config.message_events {
            let addr = session.peer.addr();
            self.event(addr, "sent", message.summary());
        }
        self.flush(id);
    }

    fn flush(&mut self, id: PeerId) {
        let Some(session) = self.peers.get_mut(&id) else {
            return;
        };
        while let Some(bytes) = session.peer.pop_outbox() {
            self.outputs.push_back(Output::Send { peer: id, bytes });
        }
    }

    fn drop_peer(&mut self, id: PeerId, reason: DropReason, now: Moment) {
        self.note_ended(id, Some(&reason), now);
        let Some(session) = self.forget(id, Some(&reason), now) else {
            return;
        };
        let addr = session.peer.addr();
        if reason.is_huge_block() && !std::mem::replace(&mut self.said.huge_block, true) {
            tracing::warn!(peer = %addr, %reason, "blocks of 4 GiB and more are not taken");
        }
        tracing::debug!(peer = %addr, %reason, "peer dropped");
        self.event(addr, "dropped", reason.to_string());
        self.outputs
            .push_back(Output::Disconnect { peer: id, reason });
    }

    /// Takes a peer out of everything that refers to it.
    fn forget(&mut self, id: PeerId, reason: Option<&DropReason>, now: Moment) -> Option<Session> {
        let session = self.peers.remove(&id)?;
        for block in &session.in_flight {
            self.release(*block);
        }
        self.forget_again(&session);
        self.break_stream(&session);
        self.transactions.disconnected(id);
        if self.header_peer.is_some_and(|(peer, _)| peer == id) {
            self.header_peer = None;
        }
        if session.peer.is_outbound() {
            if session.useful {
                self.addresses.useful(session.peer.addr());
            }
            self.addresses.lost(session.peer.addr(), now);
            let (addr, lacked_v2) = (session.peer.addr(), session.peer.lacks_v2());
            if self.falls_back(addr, lacked_v2, reason, now) {
                self.addresses.again(addr, now);
                self.connections.again(addr, session.life.kind);
                self.event(addr, "fallback", "version 1 of the transport".to_owned());
            }
        }
        Some(session)
    }

    fn event(&mut self, addr: SocketAddr, event: &'static str, details: String) {
        self.outputs.push_back(Output::Event(PeerEvent {
            addr,
            event,
            details,
        }));
    }

    /// When a block was first heard of.
    fn announced_at(&self, hash: &BlockHash) -> Option<Moment> {
        self.announced
            .iter()
            .find(|(block, _)| block == hash)
            .map(|(_, at)| *at)
    }

    fn announce(&mut self, hash: BlockHash, now: Moment) {
        if self.announced_at(&hash).is_none() {
            if self.announced.len() >= MAX_ANNOUNCED {
                self.announced.pop_front();
            }
            self.announced.push_back((hash, now));
        }
    }

    /// The best header that `peer` is known to have.
    fn peer_has(&mut self, peer: PeerId, id: Id) {
        let work = self.tree.node(id).work;
        let Some(session) = self.peers.get_mut(&peer) else {
            return;
        };
        if session
            .best
            .is_none_or(|best| self.tree.node(best).work < work)
        {
            session.best = Some(id);
            if work >= self.tree.best_work() {
                self.note_news(peer, false, self.last_tick);
            }
        }
    }

    fn has_service(&self, peer: PeerId, service: ServiceFlags) -> bool {
        self.peers
            .get(&peer)
            .is_some_and(|session| session.peer.services().has(service))
    }
}

#[cfg(test)]
mod tests;
