//! The task that owns the network machine.

use super::checker::{BlockFrom, Checked, Checker, ToCheck, ToFill, Verdict};
use super::connection::{Connection, SocketEvent, connect};
use super::event_log::EventLog;
use super::large::Piece;
use super::listener;
use super::names::Names;
use super::peer_changes::{Asked, Changes};
use super::peers_file::PeersFile;
use super::proxy::{Proxy, Target};
use crate::chain::sync::bans::{Ban, Subnet};
use crate::chain::sync::{Base, PeerId, PoolVerdict};
use crate::chain::{HeaderTree, Output, Sync, SyncConfig, TipChange};
use crate::headers_file::HeadersFile;
use crate::lane::{Feed, Position};
use crate::metrics::Metrics;
use crate::network::Params;
use crate::source::SourceEvent;
use crate::wire::Moment;
use bitcoin::BlockHash;
use bitcoin::block::Header;
use bytes::Bytes;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};

mod connecting;
mod keeping;
mod view;

use keeping::keep;
pub use view::{NetHandle, NetView};

/// How often the machine looks at its timers.
const TICK: Duration = Duration::from_millis(100);
/// Chunks of received bytes that may wait for the machine.
const WAITING_CHUNKS: usize = 64;
/// How often the peers in the status are brought up to date.
const VIEW: Duration = Duration::from_millis(500);

/// Takes the transactions that peers send.
pub trait TransactionSink: Send {
    /// A transaction, not checked, from a peer. False when there is no room for it now.
    fn transaction(&mut self, peer: PeerId, addr: SocketAddr, raw: Bytes) -> bool;
    /// A peer announced transactions: by txid or wtxid, internal byte order.
    fn announced(&mut self, addr: SocketAddr, hashes: Vec<[u8; 32]>);
}

/// What the shell needs beside the machine's own settings.
pub struct NetConfig {
    pub params: &'static Params,
    pub sync: SyncConfig,
    /// Names and ports of peers: only these are connected to.
    pub connect: Vec<(String, u16)>,
    /// Names and ports of peers that are connected to beside others.
    pub add: Vec<(String, u16)>,
    /// How often the peer book is written.
    pub save_interval: Duration,
    /// What all connections go through; then no name is looked up here.
    pub proxy: Option<Proxy>,
    pub stop_at: Option<u32>,
    /// Bytes of raw blocks that may wait for the coins lane.
    pub ahead_bytes: usize,
    /// Whether there is a coins lane to wait for.
    pub coins: bool,
    /// The block of a snapshot that is not in the tree yet.
    pub base: Option<Base>,
}

/// The shell.
pub struct Net {
    machine: Sync,
    config: NetConfig,
    feed: Arc<Feed>,
    metrics: Arc<Metrics>,
    headers: HeadersFile,
    events: Option<EventLog>,
    sink: Option<Box<dyn TransactionSink>>,
    checker: Checker,
    verdicts: mpsc::UnboundedReceiver<Checked>,
    source: Option<mpsc::Receiver<SourceEvent>>,
    pool_verdicts: mpsc::UnboundedReceiver<PoolVerdict>,
    view: Arc<Mutex<NetView>>,
    connections: HashMap<PeerId, Connection>,
    sockets: mpsc::Sender<SocketEvent>,
    incoming: mpsc::Receiver<SocketEvent>,
    next_peer: u64,
    names: Names,
    /// Raw bytes and number of blocks that came, for the mean size.
    blocks: (u64, u64),
    reorgs: u64,
    viewed: Instant,
    gone: (u64, u64),
    dropped: u64,
    /// Blocks that the disk did not take, until they are asked for again.
    unkept: Vec<BlockHash>,
    /// Blocks that this host cannot take, and why.
    untakable: HashMap<BlockHash, String>,
    /// Headers that the disk did not take yet.
    unwritten: Vec<Header>,
    headers_wait: bool,
    kept_again: Instant,
    changes: mpsc::Receiver<Asked>,
    file: PeersFile,
    /// When the book was last written, and the bans that were in it.
    saved: (Instant, u64),
    writes: u64,
    /// The bans as they are shown, and of which change they are.
    bans: (u64, Arc<Vec<(Subnet, Ban)>>),
    listener: Option<TcpListener>,
}

/// What the shell works with.
pub struct NetParts {
    /// The headers that are known, and which of their blocks.
    pub tree: HeaderTree,
    pub feed: Arc<Feed>,
    pub metrics: Arc<Metrics>,
    /// Where new headers go.
    pub headers: HeadersFile,
    /// Where events of peers go.
    pub events: Option<EventLog>,
    /// Where transactions go.
    pub sink: Option<Box<dyn TransactionSink>>,
    /// Where blocks go, and where its verdicts come from.
    pub checker: Checker,
    pub verdicts: mpsc::UnboundedReceiver<Checked>,
    /// Where the source says what it has, if there is one beside the peers.
    pub source: Option<mpsc::Receiver<SourceEvent>>,
    /// What the pool says of the transactions that went to `sink`.
    pub pool_verdicts: mpsc::UnboundedReceiver<PoolVerdict>,
    /// Where the peer book is kept.
    pub file: PeersFile,
    /// Where others connect to us.
    pub listener: Option<TcpListener>,
}

impl Net {
    /// A shell around a machine over this header tree.
    pub fn new(config: NetConfig, parts: NetParts) -> (Self, NetHandle) {
        let NetParts {
            tree,
            feed,
            metrics,
            headers,
            events,
            sink,
            checker,
            verdicts,
            source,
            pool_verdicts,
            file,
            listener,
        } = parts;
        // What peers must not foresee hangs on it. Where there is no randomness at all, the time is better than nothing.
        let seed = getrandom::u64().unwrap_or_else(|_| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |t| t.as_nanos() as u64)
                ^ u64::from(std::process::id())
        });
        let mut machine = Sync::new(config.sync.clone(), config.params, tree, seed, now());
        if source.is_some() {
            machine.expect_source();
        }
        if let Some(base) = config.base {
            machine.set_base(base);
        }
        if let Some(kept) = file.read() {
            machine.restore_book(kept);
        }
        let saved = (Instant::now(), machine.bans().changes());
        let view = Arc::new(Mutex::new(NetView::default()));
        let (asking, changes) = Changes::new();
        let handle = NetHandle {
            view: view.clone(),
            changes: asking,
        };
        let (sockets, incoming) = mpsc::channel(WAITING_CHUNKS);
        let net = Self {
            machine,
            config,
            feed,
            metrics,
            headers,
            events,
            sink,
            checker,
            verdicts,
            source,
            pool_verdicts,
            view,
            connections: HashMap::new(),
            sockets,
            incoming,
            next_peer: 0,
            names: Names::default(),
            blocks: (0, 0),
            reorgs: 0,
            viewed: Instant::now(),
            gone: (0, 0),
            dropped: 0,
            unkept: Vec::new(),
            untakable: HashMap::new(),
            unwritten: Vec::new(),
            headers_wait: false,
            kept_again: Instant::now(),
            changes,
            file,
            saved,
            writes: 0,
            bans: Default::default(),
            listener,
        };
        (net, handle)
    }

    /// Runs until `stop` says so, then closes every connection.
    ///
    /// # Errors
    ///
    /// When headers cannot be kept at the end.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.resolve();
        let accepting = self.listener.take().map(|listener| {
            let sockets = self.sockets.clone();
            tokio::spawn(listener::accept(listener, sockets))
        });
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                Some(event) = self.incoming.recv() => self.socket(event),
                Some(checked) = self.verdicts.recv() => self.verdict(checked),
                Some(event) = next_of(&mut self.source) => self.source(event),
                Some(verdict) = self.pool_verdicts.recv() => self.machine.pool_verdict(verdict, now()),
                Some(asked) = self.changes.recv() => self.change(asked),
                _ = ticks.tick() => self.tick(),
            }
            self.outputs();
        }
        if let Some(accepting) = accepting {
            accepting.abort();
        }
        // Before the connections close: the anchors are those that are connected.
        self.writes += 1;
        keep(&self.file, self.writes, &self.machine.book_file());
        self.connections.clear();
        self.checker.stop();
        if let Some(events) = &mut self.events {
            events.flush();
        }
        self.headers.append(&self.unwritten)?;
        self.headers.sync()
    }

    /// Makes a change of the operator, and keeps it.
    fn change(&mut self, asked: Asked) {
        let made = self.machine.change_peers(asked.change, now());
        if made.is_ok() {
            self.save_later();
            self.viewed = Instant::now();
            let (best, _) = self.machine.best_header();
            self.show(best, self.machine.synced(now()));
        }
        // Whoever asked may have gone away.
        let _ = asked.answer.try_send(made);
    }

    fn verdict(&mut self, checked: Checked) {
        let superseded = |peer| self.machine.is_superseded(&checked.hash, peer);
        if checked.in_pieces_of.is_some_and(superseded) {
            return;
        }
        if checked.again {
            let result = match checked.verdict {
                Verdict::Bad(bad) => Err(bad),
                _ => Ok(()),
            };
            self.machine
                .block_again_checked(checked.hash, result, now());
            return self.fetch_again();
        }
        match checked.verdict {
            Verdict::Good => self.machine.block_checked(checked.hash, Ok(()), now()),
            Verdict::Bad(bad) => self.machine.block_checked(checked.hash, Err(bad), now()),
            Verdict::Found { peer, transactions } => {
                self.machine
                    .compact_found(peer, checked.hash, transactions, now());
            }
            Verdict::NotKept => self.unkept.push(checked.hash),
            Verdict::Untakable(why) => {
                self.machine.block_untakable(checked.hash, now());
                self.untakable.insert(checked.hash, why);
            }
            Verdict::Lost => self.machine.source_lost(checked.hash, now()),
        }
    }

    fn source(&mut self, event: SourceEvent) {
        match event {
            SourceEvent::Found(blocks) => self.machine.source_found(blocks, now()),
            SourceEvent::Scanned => self.machine.source_scanned(now()),
        }
    }

    fn tick(&mut self) {
        let now = now();
        for (peer, connection) in &self.connections {
            if connection.gate.is_full() {
                self.machine.held_back(*peer, TICK, now);
            }
        }
        self.machine.tick(now);
        self.keep_again(now);
        for refusal in self.feed.take_refusals() {
            self.machine
                .block_refused_by_coins(refusal.position.hash, refusal.reason, now);
        }
        self.limit_download(now);
        self.fetch_again();
        let (best, _) = self.machine.best_header();
        let synced = self.machine.synced(now);
        self.feed.set_best(best, synced);
        if self.viewed.elapsed() >= VIEW {
            self.viewed = Instant::now();
            self.show(best, synced);
            self.save_when_due();
            if let Some(events) = &mut self.events {
                events.flush();
            }
        }
    }

    /// Lanes that need blocks which were pruned get them from peers.
    fn fetch_again(&mut self) {
        let wanted = self.feed.wanted_again();
        self.machine.set_refetch(&wanted.blocks, wanted.room, now());
        self.feed
            .set_unavailable(self.machine.refetch_unavailable());
    }

    /// Blocks are checked twice: here, and by the coins lane. The first check does not run ahead of the second by more
    /// than a number of bytes, so that blocks wait for the lanes in memory and not on disk.
    fn limit_download(&mut self, now: Moment) {
        let mut limit = self.config.stop_at;
        if self.config.coins {
            let mean = self
                .blocks
                .0
                .checked_div(self.blocks.1)
                .unwrap_or(0)
                .max(1_000);
            let ahead = (self.config.ahead_bytes as u64 / mean).clamp(8, 4_096) as u32;
            let coins = self.feed.coins().map_or(0, |position| position.height);
            limit = Some(limit.unwrap_or(u32::MAX).min(coins.saturating_add(ahead)));
        }
        self.machine.set_source_limit(limit, now);
        self.machine.set_download_limit(limit, now);
    }

    fn outputs(&mut self) {
        while let Some(output) = self.machine.next_output() {
            match output {
                Output::Send { peer, bytes } => {
                    self.gone.1 += bytes.len() as u64;
                    if let Some(connection) = self.connections.get(&peer)
                        && !connection.send(bytes)
                    {
                        self.machine.does_not_read(peer, now());
                    }
                }
                Output::Disconnect { peer, reason } => {
                    let connection = self.connections.remove(&peer);
                    let addr =
                        connection.map(|connection| tracing::field::display(connection.addr));
                    if reason.is_fault() {
                        self.dropped += 1;
                        self.metrics.peers_dropped.inc();
                        tracing::warn!(addr, %reason, "peer dropped");
                    } else {
                        tracing::debug!(addr, %reason, "peer dropped");
                    }
                }
                Output::Resolve { name, port } => self.ask_seed(name, port),
                Output::Connect { addr, name } => {
                    let peer = PeerId(self.next_peer);
                    self.next_peer += 1;
                    let timeout = self.config.sync.connect_timeout;
                    let target = match name {
                        Some(name) => Target::Name(name, addr.port()),
                        None => self.names.target(addr),
                    };
                    let proxy = self.config.proxy;
                    let sockets = self.sockets.clone();
                    tokio::spawn(connect(peer, addr, target, proxy, timeout, sockets));
                }
                Output::Headers(headers) => {
                    self.unwritten.extend(headers);
                    if !self.headers_wait {
                        self.write_headers();
                    }
                }
                Output::Block {
                    hash,
                    height,
                    context,
                    raw,
                    announced_at,
                    ..
                } => {
                    self.blocks.0 += raw.len() as u64;
                    self.blocks.1 += 1;
                    let announced = Instant::now()
                        .checked_sub(now().since(announced_at))
                        .unwrap_or_else(Instant::now);
                    self.checker.check(ToCheck {
                        hash,
                        height,
                        context,
                        from: BlockFrom::Peer(raw),
                        announced: Some(announced),
                    });
                }
                Output::SourceBlock {
                    hash,
                    height,
                    bytes,
                    context,
                } => {
                    self.blocks.0 += u64::from(bytes);
                    self.blocks.1 += 1;
                    self.checker.check(ToCheck {
                        hash,
                        height,
                        context,
                        from: BlockFrom::Source,
                        announced: None,
                    });
                }
                Output::Compact { peer, hash, wanted } => {
                    self.checker.fill(ToFill { peer, hash, wanted });
                }
                Output::BlockAgain {
                    hash,
                    height,
                    context,
                    raw,
                } => self.checker.check(ToCheck {
                    hash,
                    height,
                    context,
                    from: BlockFrom::Again(raw),
                    announced: None,
                }),
                Output::BlockPiece {
                    peer,
                    hash,
                    start,
                    bytes,
                    last,
                    again,
                } => {
                    if let Some(start) = start
                        && !again
                    {
                        self.blocks.0 += start.length;
                        self.blocks.1 += 1;
                    }
                    let connection = self.connections.get(&peer);
                    let waiting = connection.map(|to| to.gate.enter(bytes.len()));
                    self.checker.piece(Piece {
                        peer,
                        hash,
                        start,
                        bytes,
                        last,
                        again,
                        _waiting: waiting,
                    });
                }
                Output::StreamBroken { hash } => self.checker.broken(hash),
                Output::Tip(change) => self.tip(&change),
                Output::Transaction {
                    peer,
                    raw,
                    txid,
                    wtxid,
                } => {
                    let connection = self.connections.get(&peer);
                    let taken = match (&mut self.sink, connection) {
                        (Some(sink), Some(connection)) => {
                            sink.transaction(peer, connection.addr, raw)
                        }
                        _ => false,
                    };
                    if !taken {
                        let verdict = PoolVerdict::NotTaken { txid, wtxid };
                        self.machine.pool_verdict(verdict, now());
                    }
                }
                Output::Announced { peer, hashes } => {
                    if let (Some(sink), Some(connection)) =
                        (&mut self.sink, self.connections.get(&peer))
                    {
                        sink.announced(connection.addr, hashes);
                    }
                }
                Output::Event(event) => {
                    match event.event {
                        "ready" => {
                            tracing::info!(addr = %event.addr, details = event.details, "peer")
                        }
                        name => {
                            tracing::debug!(addr = %event.addr, event = name, details = event.details, "peer")
                        }
                    }
                    if let Some(events) = &mut self.events {
                        events.write(&event);
                    }
                }
            }
        }
    }

    fn tip(&mut self, change: &TipChange) {
        let old = self.feed.chain().tip();
        let Some(blocks) = branch(&self.machine, change) else {
            return;
        };
        let reorg = old.is_some_and(|old| change.fork_height < old.height);
        if reorg {
            self.reorgs += 1;
            self.metrics.reorgs.inc();
            tracing::info!(
                fork = change.fork_height,
                from = old.map(|old| old.height),
                to = change.height,
                hash = %change.hash,
                "reorg"
            );
        }
        self.feed.set_chain(
            Some(change.fork_height),
            blocks.iter().map(|(hash, header)| (*hash, header)),
        );
        self.metrics.blocks_height.set(i64::from(change.height));
    }
}

/// The next event of a source; never, where there is none or it has ended.
async fn next_of(source: &mut Option<mpsc::Receiver<SourceEvent>>) -> Option<SourceEvent> {
    match source {
        Some(source) => source.recv().await,
        None => None,
    }
}

/// The blocks above a fork, up to the tip.
fn branch(machine: &Sync, change: &TipChange) -> Option<Vec<(BlockHash, Header)>> {
    (change.fork_height + 1..=change.height)
        .map(|height| {
            let hash = machine.hash_at(height)?;
            Some((hash, machine.header(&hash)?))
        })
        .collect()
}

/// The chain that a tree knows, from genesis to the tip.
pub fn chain_of(tree: &HeaderTree) -> Vec<(Position, Header)> {
    let (tip, _) = tree.tip();
    (0..=tip)
        .map_while(|height| {
            let hash = tree.hash_at(height)?;
            Some((Position { height, hash }, tree.header(&hash)?))
        })
        .collect()
}

/// Wall-clock time, for the machine.
pub fn now() -> Moment {
    Moment(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |t| t.as_millis() as u64),
    )
}
