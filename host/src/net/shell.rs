//! The task that owns the network machine.

use super::checker::{Checked, Checker, ToCheck, Verdict};
use super::connection::{Connection, SocketEvent, connect};
use super::event_log::EventLog;
use super::large::Piece;
use crate::chain::sync::{PeerId, PeerInfo};
use crate::chain::{HeaderTree, Output, Sync, SyncConfig, TipChange};
use crate::headers_file::HeadersFile;
use crate::lane::{Feed, Position};
use crate::metrics::Metrics;
use crate::network::Params;
use crate::wire::Moment;
use bitcoin::BlockHash;
use bitcoin::block::Header;
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, watch};

/// How often the machine looks at its timers.
const TICK: Duration = Duration::from_millis(100);
/// Chunks of received bytes that may wait for the machine.
const WAITING_CHUNKS: usize = 64;
/// Addresses that are taken from one name.
const MAX_ADDRESSES: usize = 32;
/// How often the peers in the status are brought up to date.
const VIEW: Duration = Duration::from_millis(500);

/// Takes the transactions that peers send.
pub trait TransactionSink: Send {
    /// A transaction, not checked.
    fn transaction(&mut self, raw: Bytes);
}

/// What the shell needs beside the machine's own settings.
pub struct NetConfig {
    pub params: &'static Params,
    pub sync: SyncConfig,
    /// Names and ports of peers, and of seeds whose addresses are peers.
    pub connect: Vec<(String, u16)>,
    pub stop_at: Option<u32>,
    /// Bytes of raw blocks that may wait for the coins lane.
    pub ahead_bytes: usize,
    /// Whether there is a coins lane to wait for.
    pub coins: bool,
}

/// What others may know of the network.
#[derive(Debug, Clone, Default)]
pub struct NetView {
    pub peers: Vec<PeerInfo>,
    pub best_header: u32,
    pub synced: bool,
    pub reorgs: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub peers_dropped: u64,
}

/// The running network, from outside.
pub struct NetHandle {
    pub view: Arc<Mutex<NetView>>,
}

impl NetHandle {
    /// What is known now.
    pub fn view(&self) -> NetView {
        self.view
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
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
    view: Arc<Mutex<NetView>>,
    connections: HashMap<PeerId, Connection>,
    sockets: mpsc::Sender<SocketEvent>,
    incoming: mpsc::Receiver<SocketEvent>,
    next_peer: u64,
    /// Raw bytes and number of blocks that came, for the mean size.
    blocks: (u64, u64),
    reorgs: u64,
    viewed: Instant,
    gone: (u64, u64),
    dropped: u64,
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
        } = parts;
        let seed = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |t| t.as_nanos() as u64)
            ^ u64::from(std::process::id());
        let machine = Sync::new(config.sync.clone(), config.params, tree, seed, now());
        let view = Arc::new(Mutex::new(NetView::default()));
        let handle = NetHandle { view: view.clone() };
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
            view,
            connections: HashMap::new(),
            sockets,
            incoming,
            next_peer: 0,
            blocks: (0, 0),
            reorgs: 0,
            viewed: Instant::now(),
            gone: (0, 0),
            dropped: 0,
        };
        (net, handle)
    }

    /// Runs until `stop` says so, then closes every connection.
    ///
    /// # Errors
    ///
    /// When headers cannot be kept any more.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> anyhow::Result<()> {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        self.resolve();
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                Some(event) = self.incoming.recv() => self.socket(event),
                Some(checked) = self.verdicts.recv() => self.verdict(checked),
                _ = ticks.tick() => self.tick(),
            }
            self.outputs()?;
        }
        self.connections.clear();
        self.checker.stop();
        if let Some(events) = &mut self.events {
            events.flush();
        }
        self.headers.sync()
    }

    /// Turns names into addresses, in the background.
    fn resolve(&self) {
        for (name, port) in self.config.connect.clone() {
            let sockets = self.sockets.clone();
            tokio::spawn(async move {
                loop {
                    match tokio::net::lookup_host((name.as_str(), port)).await {
                        Ok(found) => {
                            for addr in found.take(MAX_ADDRESSES) {
                                let _ = sockets.send(SocketEvent::Resolved { addr }).await;
                            }
                            return;
                        }
                        Err(error) => {
                            tracing::warn!(name, %error, "the peer's name cannot be resolved")
                        }
                    }
                    tokio::time::sleep(Duration::from_secs(30)).await;
                }
            });
        }
    }

    fn socket(&mut self, event: SocketEvent) {
        let now = now();
        match event {
            SocketEvent::Resolved { addr } => self.machine.add_address(addr, now),
            SocketEvent::Connected {
                peer,
                addr,
                connection,
            } => {
                self.connections.insert(peer, connection);
                self.machine.connected(peer, addr, true, now);
            }
            SocketEvent::ConnectFailed { addr, error } => {
                tracing::debug!(%addr, error, "no connection");
                self.machine.connect_failed(addr, now);
            }
            SocketEvent::Received { peer, bytes } => {
                if self.connections.contains_key(&peer) {
                    self.gone.0 += bytes.len() as u64;
                    self.machine.received(peer, &bytes, now);
                }
            }
            SocketEvent::Closed { peer } => {
                if self.connections.remove(&peer).is_some() {
                    self.machine.disconnected(peer, now);
                }
            }
        }
    }

    fn verdict(&mut self, checked: Checked) {
        match checked.verdict {
            Verdict::Good => self.machine.block_checked(checked.hash, Ok(()), now()),
            Verdict::Bad(bad) => self.machine.block_checked(checked.hash, Err(bad), now()),
            Verdict::NotKept => self.machine.block_lost(checked.hash, now()),
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
        for refusal in self.feed.take_refusals() {
            self.machine
                .block_refused_by_coins(refusal.position.hash, refusal.reason, now);
        }
        self.limit_download(now);
        let (best, _) = self.machine.best_header();
        let synced = self.machine.synced(now);
        self.feed.set_best(best, synced);
        if self.viewed.elapsed() >= VIEW {
            self.viewed = Instant::now();
            self.show(best, synced);
            if let Some(events) = &mut self.events {
                events.flush();
            }
        }
    }

    fn show(&self, best_header: u32, synced: bool) {
        let peers: Vec<PeerInfo> = self
            .machine
            .peers()
            .into_iter()
            .filter(|peer| peer.ready)
            .collect();
        self.metrics.peers.set(peers.len() as i64);
        let view = NetView {
            peers,
            best_header,
            synced,
            reorgs: self.reorgs,
            bytes_in: self.gone.0,
            bytes_out: self.gone.1,
            peers_dropped: self.dropped,
        };
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = view;
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
        self.machine.set_download_limit(limit, now);
    }

    fn outputs(&mut self) -> anyhow::Result<()> {
        while let Some(output) = self.machine.next_output() {
            match output {
                Output::Send { peer, bytes } => {
                    self.gone.1 += bytes.len() as u64;
                    if let Some(connection) = self.connections.get(&peer) {
                        connection.send(bytes);
                    }
                }
                Output::Disconnect { peer, reason } => {
                    let connection = self.connections.remove(&peer);
                    self.dropped += 1;
                    self.metrics.peers_dropped.inc();
                    let addr =
                        connection.map(|connection| tracing::field::display(connection.addr));
                    tracing::warn!(addr, %reason, "peer dropped");
                }
                Output::Connect { addr } => {
                    let peer = PeerId(self.next_peer);
                    self.next_peer += 1;
                    let timeout = self.config.sync.connect_timeout;
                    tokio::spawn(connect(peer, addr, timeout, self.sockets.clone()));
                }
                Output::Headers(headers) => self.headers.append(&headers)?,
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
                        raw,
                        announced,
                    });
                }
                Output::BlockPiece {
                    peer,
                    hash,
                    start,
                    bytes,
                    last,
                } => {
                    if let Some(start) = start {
                        self.blocks.0 += start.length;
                        self.blocks.1 += 1;
                    }
                    let connection = self.connections.get(&peer);
                    let waiting = connection.map(|to| to.gate.enter(bytes.len()));
                    self.checker.piece(Piece {
                        hash,
                        start,
                        bytes,
                        last,
                        _waiting: waiting,
                    });
                }
                Output::StreamBroken { hash } => self.checker.broken(hash),
                Output::Tip(change) => self.tip(&change),
                Output::Transaction { raw, .. } => {
                    if let Some(sink) = &mut self.sink {
                        sink.transaction(raw);
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
        Ok(())
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
