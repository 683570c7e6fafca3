//! One client: what it said of itself, and answers to what it asks.

use std::collections::HashSet;
use std::io::{BufReader, Cursor, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};
use bitcoin::p2p::address::Address;
use bitcoin::p2p::message::NetworkMessage;
use bitcoin::p2p::message_blockdata::{GetHeadersMessage, Inventory};
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::p2p::{Magic, ServiceFlags};
use bitcoin::{BlockHash, Transaction, Witness, Wtxid};

use super::encrypted::{self, Sealer, V1_VERSION};
use super::outbox::{Body, Outgoing, Paced};
use super::{Behaviour, Shared, compact, frame, lock, outbox};
use crate::blockfile::RawBlock;
use crate::miner;
use crate::pool::MIN_FEE_RATE;
use crate::state::News;

/// The protocol version that came with `wtxidrelay` (BIP339).
const PROTOCOL_VERSION: u32 = 70_016;
/// More new blocks than these are announced by `inv` of the last one (Core: `MAX_BLOCKS_TO_ANNOUNCE`).
const MAX_ANNOUNCED_HEADERS: usize = 8;
/// Entries of one `inv` (Core: `MAX_INV_SZ`).
const MAX_INV: usize = 50_000;

/// How a connection that we make begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dial {
    /// With version 1 of the transport.
    V1,
    /// With version 2.
    V2,
}

/// A connection and what the client said of itself.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    addr: SocketAddr,
    outbox: Mutex<Option<Sender<Outgoing>>>,
    user_agent: Mutex<String>,
    ready: AtomicBool,
    wtxid_relay: AtomicBool,
    send_headers: AtomicBool,
    /// Whether it wants transactions at all (BIP37's flag in `version`).
    relay: AtomicBool,
    /// Sat per 1,000 virtual bytes, below which it wants to hear of no transaction (BIP133).
    fee_filter: AtomicU64,
    blocks_served: AtomicU64,
    /// We connected to it, with this version of the transport.
    dialled: Option<Dial>,
    /// Set once version 2 of the transport is agreed on.
    sealer: Mutex<Option<Sealer>>,
    /// The session id of version 2.
    session_id: Mutex<Option<[u8; 32]>>,
    /// Transactions that it told us of and need not be told of.
    told_us: Mutex<HashSet<Wtxid>>,
}

impl Client {
    /// A client, and the receiving end of its outbox.
    pub fn new(stream: TcpStream, dialled: Option<Dial>) -> Result<(Self, Receiver<Outgoing>)> {
        stream.set_nodelay(true)?;
        let addr = stream.peer_addr()?;
        let (sender, receiver) = channel();
        let client = Self {
            stream,
            addr,
            outbox: Mutex::new(Some(sender)),
            user_agent: Mutex::new(String::new()),
            ready: AtomicBool::new(false),
            wtxid_relay: AtomicBool::new(false),
            send_headers: AtomicBool::new(false),
            relay: AtomicBool::new(true),
            fee_filter: AtomicU64::new(0),
            blocks_served: AtomicU64::new(0),
            dialled,
            sealer: Mutex::new(None),
            session_id: Mutex::new(None),
            told_us: Mutex::new(HashSet::new()),
        };
        Ok((client, receiver))
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn user_agent(&self) -> String {
        lock(&self.user_agent).clone()
    }

    /// The session id, if the transport is version 2.
    pub fn session_id(&self) -> Option<[u8; 32]> {
        *lock(&self.session_id)
    }

    /// Whether the handshake is over.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    pub fn disconnect(&self) {
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    fn send(&self, latency: Duration, body: Body) {
        let due = (!latency.is_zero()).then(|| Instant::now() + latency);
        if let Some(outbox) = &*lock(&self.outbox) {
            // Fails only when the writer has ended, and then the reader ends as well.
            let _ = outbox.send(Outgoing { due, body });
        }
    }

    /// Tells it what has changed, in the form that it asked for.
    pub fn announce(&self, magic: Magic, latency: Duration, news: &[News]) {
        if !self.is_ready() {
            return;
        }
        let mut inventory = Vec::new();
        for one in news {
            match one {
                News::Transaction {
                    txid,
                    wtxid,
                    fee_rate,
                } => {
                    if self.relay.load(Ordering::Relaxed)
                        && !lock(&self.told_us).contains(wtxid)
                        && *fee_rate >= self.fee_filter.load(Ordering::Relaxed)
                    {
                        inventory.push(if self.wtxid_relay.load(Ordering::Relaxed) {
                            Inventory::WTx(*wtxid)
                        } else {
                            Inventory::Transaction(*txid)
                        });
                    }
                }
                News::Blocks(headers) => {
                    let by_headers = self.send_headers.load(Ordering::Relaxed)
                        && headers.len() <= MAX_ANNOUNCED_HEADERS;
                    if by_headers && !headers.is_empty() {
                        self.send_inventory(magic, latency, &mut inventory);
                        let message = NetworkMessage::Headers(headers.clone());
                        self.send(latency, Body::Message(frame::encode(magic, message)));
                    } else if let Some(last) = headers.last() {
                        inventory.push(Inventory::Block(last.block_hash()));
                    }
                }
            }
        }
        self.send_inventory(magic, latency, &mut inventory);
    }

    fn send_inventory(&self, magic: Magic, latency: Duration, inventory: &mut Vec<Inventory>) {
        let all = std::mem::take(inventory);
        for part in all.chunks(MAX_INV) {
            let message = NetworkMessage::Inv(part.to_vec());
            self.send(latency, Body::Message(frame::encode(magic, message)));
        }
    }
}

/// Serves a client until it goes.
pub fn serve(shared: &Arc<Shared>, client: &Arc<Client>, outgoing: Receiver<Outgoing>) {
    let served = std::thread::scope(|scope| {
        let stream = &client.stream;
        let rate = || shared.behaviour().bytes_per_second;
        scope.spawn(move || {
            let stream = Paced::new(stream, &rate);
            outbox::write_all(stream, &outgoing, &client.sealer);
        });
        let served = Session { shared, client }.run();
        client.ready.store(false, Ordering::SeqCst);
        // Without senders the writer ends, and a socket that is shut down frees it from a write.
        lock(&client.outbox).take();
        client.disconnect();
        served
    });
    if let Err(error) = served {
        eprintln!("devnet: dropped {}: {error:#}", client.addr);
    }
}

pub(super) struct Session<'a> {
    pub(super) shared: &'a Arc<Shared>,
    client: &'a Arc<Client>,
}

impl Session<'_> {
    fn run(&self) -> Result<()> {
        let mut reader = BufReader::new(&self.client.stream);
        match self.client.dialled {
            Some(Dial::V1) => {
                self.introduce(rand::random())?;
                return self.listen(&mut reader, None);
            }
            Some(Dial::V2) => {
                let inbound = self.encrypt(&mut reader, bip324::Role::Initiator)?;
                self.introduce(rand::random())?;
                return self.listen(&mut reader, Some(inbound));
            }
            None => {}
        }
        let mut first = [0; 16];
        if reader.read_exact(&mut first).is_err() {
            return Ok(());
        }
        let behaviour = self.shared.behaviour();
        let v1 = first == *[&self.magic().to_bytes()[..], V1_VERSION].concat();
        let mut reader = Cursor::new(first).chain(reader);
        if v1 {
            ensure!(!behaviour.only_v2, "speaks version 1");
            return self.listen(&mut reader, None);
        }
        if behaviour.no_v2 {
            bail!("wrong magic");
        }
        let mut stream = &self.client.stream;
        if behaviour.half_handshake {
            stream.write_all(&[7; 40])?;
            std::io::copy(&mut reader, &mut std::io::sink())?;
            return Ok(());
        }
        if behaviour.endless_garbage {
            loop {
                stream.write_all(&[7; 1_000])?;
            }
        }
        let inbound = self.encrypt(&mut reader, bip324::Role::Responder)?;
        self.listen(&mut reader, Some(inbound))
    }

    /// Agrees on version 2 of the transport; the key for what comes.
    fn encrypt(&self, reader: &mut impl Read, role: bip324::Role) -> Result<bip324::InboundCipher> {
        let cipher = encrypted::shake_hands(reader, &self.client.stream, self.magic(), role)?;
        *lock(&self.client.session_id) = Some(*cipher.id());
        let (inbound, outbound) = cipher.into_split();
        *lock(&self.client.sealer) = Some(Sealer::new(outbound, self.magic()));
        Ok(inbound)
    }

    /// Reads and handles messages until the client goes.
    fn listen(
        &self,
        reader: &mut impl Read,
        mut inbound: Option<bip324::InboundCipher>,
    ) -> Result<()> {
        loop {
            let message = match &mut inbound {
                Some(cipher) => encrypted::read_message(reader, cipher, self.magic())?,
                None => frame::read(reader, self.magic())?,
            };
            let Some(message) = message else {
                return Ok(());
            };
            self.handle(message)?;
        }
    }

    fn magic(&self) -> Magic {
        self.shared.config.magic
    }

    pub(super) fn send(&self, message: NetworkMessage) {
        let latency = self.shared.behaviour().latency();
        self.client
            .send(latency, Body::Message(frame::encode(self.magic(), message)));
    }

    fn handle(&self, message: NetworkMessage) -> Result<()> {
        let client = self.client;
        match message {
            NetworkMessage::Version(version) => {
                if !client.user_agent().is_empty() {
                    bail!("second version message");
                }
                client.relay.store(version.relay, Ordering::Relaxed);
                self.greet(&version)?;
                let agent = match version.user_agent.as_str() {
                    "" => "/unnamed/".to_owned(),
                    agent => agent.to_owned(),
                };
                *lock(&client.user_agent) = agent;
            }
            NetworkMessage::WtxidRelay if !client.is_ready() => {
                client.wtxid_relay.store(true, Ordering::Relaxed);
            }
            NetworkMessage::Verack => {
                if client.user_agent().is_empty() {
                    bail!("verack before version");
                }
                self.welcome();
            }
            NetworkMessage::Ping(nonce) => self.send(NetworkMessage::Pong(nonce)),
            _ if !client.is_ready() => {}
            NetworkMessage::SendHeaders => client.send_headers.store(true, Ordering::Relaxed),
            NetworkMessage::FeeFilter(rate) => {
                let rate = u64::try_from(rate).unwrap_or_default();
                client.fee_filter.store(rate, Ordering::Relaxed);
            }
            NetworkMessage::GetHeaders(wanted) => self.headers(&wanted),
            NetworkMessage::GetData(wanted) => self.data(&wanted)?,
            NetworkMessage::GetBlockTxn(request) => {
                self.block_transactions(&request.txs_request)?
            }
            NetworkMessage::Inv(offered) => self.offered(&offered),
            NetworkMessage::Tx(tx) => {
                lock(&client.told_us).insert(tx.compute_wtxid());
                self.shared.node.hear(tx);
            }
            // BIP35 needs NODE_BLOOM, which we do not offer; Core disconnects as well.
            NetworkMessage::MemPool => bail!("mempool message without bloom filters"),
            _ => {}
        }
        Ok(())
    }

    /// Says who we are.
    fn introduce(&self, nonce: u64) -> Result<()> {
        let mut services = ServiceFlags::NETWORK | ServiceFlags::WITNESS;
        let behaviour = self.shared.behaviour();
        if !behaviour.no_v2 || behaviour.claims_v2 {
            services |= ServiceFlags::P2P_V2;
        }
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("clock before 1970")?;
        let height = self.shared.node.state().chain().height();
        self.send(NetworkMessage::Version(VersionMessage {
            version: PROTOCOL_VERSION,
            services,
            timestamp: i64::try_from(now.as_secs())?,
            receiver: Address::new(&self.client.addr, ServiceFlags::NONE),
            sender: Address::new(&self.shared.config.listen, services),
            nonce,
            user_agent: self.shared.config.user_agent.clone(),
            start_height: i32::try_from(height)?,
            relay: true,
        }));
        Ok(())
    }

    fn greet(&self, theirs: &VersionMessage) -> Result<()> {
        if self.client.dialled.is_none() {
            self.introduce(theirs.nonce.wrapping_add(1))?;
        }
        if theirs.version >= PROTOCOL_VERSION {
            self.send(NetworkMessage::WtxidRelay);
            self.send(NetworkMessage::SendAddrV2);
        }
        self.send(NetworkMessage::Verack);
        Ok(())
    }

    fn welcome(&self) {
        self.send(NetworkMessage::SendHeaders);
        self.send(compact::offer());
        self.send(NetworkMessage::FeeFilter(
            i64::try_from(MIN_FEE_RATE).unwrap_or(0),
        ));
        self.send(NetworkMessage::Ping(1));
        self.shared.node.register(self.client, self.shared);
    }

    fn headers(&self, wanted: &GetHeadersMessage) {
        let behaviour = self.shared.behaviour();
        let mut headers = self
            .shared
            .node
            .state()
            .chain()
            .headers_after(&wanted.locator_hashes, wanted.stop_hash);
        if behaviour.empty_headers {
            headers.clear();
        }
        if behaviour.bad_pow_header
            && let Some(last) = headers.last_mut()
        {
            *last = miner::without_work(last);
        }
        self.send(NetworkMessage::Headers(headers));
    }

    fn data(&self, wanted: &[Inventory]) -> Result<()> {
        let mut missing = Vec::new();
        for item in wanted {
            let found = match item {
                Inventory::WitnessBlock(hash) => self.block(*hash, true)?,
                Inventory::Block(hash) => self.block(*hash, false)?,
                // Whoever misbehaves does so with a whole block; that is an answer too.
                Inventory::CompactBlock(hash) if self.spoils() => self.block(*hash, true)?,
                Inventory::CompactBlock(hash) => self.compact_block(*hash)?,
                Inventory::Transaction(txid) => {
                    let tx = self.pooled(|pool| pool.get(txid).map(|entry| entry.tx.clone()));
                    self.transaction(tx.map(without_witnesses))
                }
                Inventory::WitnessTransaction(txid) => {
                    self.transaction(self.pooled(|pool| Some(pool.get(txid)?.tx.clone())))
                }
                Inventory::WTx(wtxid) => {
                    self.transaction(self.pooled(|pool| Some(pool.get_by_wtxid(wtxid)?.tx.clone())))
                }
                _ => false,
            };
            if !found {
                missing.push(*item);
            }
        }
        if !missing.is_empty() {
            self.send(NetworkMessage::NotFound(missing));
        }
        Ok(())
    }

    fn pooled(
        &self,
        get: impl FnOnce(&crate::pool::Pool) -> Option<Transaction>,
    ) -> Option<Transaction> {
        get(self.shared.node.state().pool())
    }

    fn transaction(&self, tx: Option<Transaction>) -> bool {
        let found = tx.is_some();
        if let Some(tx) = tx {
            self.send(NetworkMessage::Tx(tx));
        }
        found
    }

    fn spoils(&self) -> bool {
        let served = self.client.blocks_served.load(Ordering::Relaxed);
        self.shared.behaviour().spoils_blocks(served)
    }

    /// Sends a block with whatever is wrong with it, and says whether there is one.
    fn block(&self, hash: BlockHash, witnesses: bool) -> Result<bool> {
        let behaviour = self.shared.behaviour();
        let served = self.client.blocks_served.load(Ordering::Relaxed);
        let spoil = behaviour.spoils_blocks(served);
        if spoil && behaviour.stall {
            return Ok(true);
        }
        let Some(mut block) = self.shared.node.state().chain().block(hash).cloned() else {
            return Ok(false);
        };
        if !witnesses {
            let mut stripped = block.decode()?;
            stripped.txdata = stripped.txdata.into_iter().map(without_witnesses).collect();
            block = RawBlock::from_block(&stripped)?;
        }
        let body = if spoil {
            self.spoiled(block, &behaviour)?
        } else {
            Body::Block(frame::block_head(self.magic(), &block), block)
        };
        self.client.send(behaviour.latency(), body);
        self.client
            .blocks_served
            .store(served.saturating_add(1), Ordering::Relaxed);
        Ok(true)
    }

    fn spoiled(&self, mut block: RawBlock, behaviour: &Behaviour) -> Result<Body> {
        if behaviour.mutated_block
            && let Some(mutated) = miner::mutate(&block.decode()?)
        {
            block = RawBlock::from_block(&mutated)?;
        }
        let magic = match behaviour.wrong_magic {
            true => Magic::from_bytes(self.magic().to_bytes().map(|byte| !byte)),
            false => self.magic(),
        };
        let mut head = frame::block_head(magic, &block);
        if let (Some(length), Some(field)) = (behaviour.oversized_length, head.get_mut(16..20)) {
            field.copy_from_slice(&length.to_le_bytes());
        }
        if behaviour.wrong_checksum
            && let Some(byte) = head.last_mut()
        {
            *byte = !*byte;
        }
        Ok(match behaviour.disconnect_mid_block {
            true => Body::HalfBlock(head, block),
            false => Body::Block(head, block),
        })
    }

    /// Asks for the transactions that are new to us.
    fn offered(&self, items: &[Inventory]) {
        let wanted: Vec<Inventory> = {
            let state = self.shared.node.state();
            let unknown = |item: &Inventory| match item {
                Inventory::WTx(wtxid) => state
                    .pool()
                    .get_by_wtxid(wtxid)
                    .is_none()
                    .then_some(Inventory::WTx(*wtxid)),
                Inventory::Transaction(txid) | Inventory::WitnessTransaction(txid) => state
                    .pool()
                    .get(txid)
                    .is_none()
                    .then_some(Inventory::WitnessTransaction(*txid)),
                _ => None,
            };
            items.iter().filter_map(unknown).collect()
        };
        if !wanted.is_empty() {
            self.send(NetworkMessage::GetData(wanted));
        }
    }
}

fn without_witnesses(mut tx: Transaction) -> Transaction {
    for input in &mut tx.input {
        input.witness = Witness::new();
    }
    tx
}

/// Marks the end of a handshake. Called with the node's state locked, so that no news falls between it and the first
/// announcement.
pub(crate) fn make_ready(client: &Client) {
    client.ready.store(true, Ordering::SeqCst);
}
