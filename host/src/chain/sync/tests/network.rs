//! A network in a test: our machine, a shell that checks blocks when it pleases, and small peers that behave or not.
//! Everything that is left to chance comes from a seed.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bitcoin::bip152::{BlockTransactions, BlockTransactionsRequest, HeaderAndShortIds, ShortId};
use bitcoin::block::Header;
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::{Block, BlockHash, Transaction};
use bytes::Bytes;

use crate::chain::block_check::{BadBlock, BlockContext, check_block};
use crate::chain::fixtures::{self, View};
use crate::chain::header_tree::{HeaderTree, TipChange};
use crate::chain::sync::{DropReason, Output, PeerId, StreamStart, Sync, SyncConfig};
use crate::network::{Network, Params};
use crate::wire::codec::Decoder;
use crate::wire::message::{Locator, Message, PROTOCOL_VERSION, Version, unspecified};
use crate::wire::{Moment, RawMessage};

pub(super) const MAGIC: [u8; 4] = [0xfa, 0xbf, 0xb5, 0xda];

/// SplitMix64: enough chance for a test, and the same from the same seed everywhere.
#[derive(Clone, Debug)]
pub(super) struct Chance(pub(super) u64);

impl Chance {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// What a peer does wrong.
#[derive(Clone, Debug, Default)]
pub(super) struct Faults {
    /// Answers no `getdata`.
    pub(super) stalls: bool,
    /// Answers no `getheaders` with an empty message, like bcoin.
    pub(super) silent_when_empty: bool,
    /// Answers no `getheaders` at all.
    pub(super) hides_headers: bool,
    /// Sends blocks without their last transaction.
    pub(super) mutates: bool,
    /// Spoils the checksum of blocks.
    pub(super) spoils_checksums: bool,
    /// Puts a header without proof of work after the last true one.
    pub(super) forges_header: bool,
    /// Closes the connection in the middle of its nth block.
    pub(super) cuts_block: Option<u32>,
    /// Says that it has not got blocks.
    pub(super) not_found: bool,
    /// Sends a compact block with the short ids of other transactions.
    pub(super) wrong_short_ids: bool,
    /// Answers no `getblocktxn`.
    pub(super) hides_transactions: bool,
    /// Answers `getblocktxn` with one transaction too few.
    pub(super) short_blocktxn: bool,
    /// Answers with blocks in any order.
    pub(super) shuffles: bool,
}

/// A peer: a chain, a pool, and its faults.
pub(super) struct FakePeer {
    pub(super) addr: SocketAddr,
    pub(super) services: ServiceFlags,
    pub(super) start_height: Option<i32>,
    pub(super) chain: Vec<Block>,
    pub(super) pool: BTreeMap<[u8; 32], Transaction>,
    pub(super) faults: Faults,
    pub(super) reachable: bool,
    /// It sends compact blocks.
    pub(super) compact: bool,
    /// The place that it gives the coinbase of a compact block.
    pub(super) prefilled_at: Option<u16>,
    connection: Option<PeerId>,
    /// It connected to us, so its version came first.
    dialed: bool,
    decoder: Decoder,
    to_host: VecDeque<u8>,
    cut: bool,
    blocks_sent: u32,
    /// Bytes a second that it sends, and how long what the host says takes to it; no bound without.
    pub(super) line: Option<(u64, Duration)>,
    /// Thousandths of bytes that it may send by now.
    credit: u64,
    on_the_way: VecDeque<(Moment, Bytes)>,
    /// Every message that the host sent, over all connections.
    pub(super) heard: Vec<Message>,
}

impl FakePeer {
    pub(super) fn new(port: u16, chain: Vec<Block>) -> FakePeer {
        FakePeer {
            addr: SocketAddr::from(([127, 0, 0, 1], port)),
            services: ServiceFlags::NETWORK | ServiceFlags::WITNESS,
            start_height: None,
            chain,
            pool: BTreeMap::new(),
            faults: Faults::default(),
            reachable: true,
            compact: false,
            prefilled_at: None,
            connection: None,
            dialed: false,
            decoder: Decoder::new(MAGIC),
            to_host: VecDeque::new(),
            cut: false,
            blocks_sent: 0,
            line: None,
            credit: 0,
            on_the_way: VecDeque::new(),
            heard: Vec::new(),
        }
    }

    pub(super) fn with(mut self, faults: Faults) -> FakePeer {
        self.faults = faults;
        self
    }

    pub(super) fn say(&mut self, message: &Message) {
        self.say_bytes(&message.encode(MAGIC));
    }

    pub(super) fn say_bytes(&mut self, bytes: &[u8]) {
        // Nothing comes after the place where the connection breaks.
        if !self.cut {
            self.to_host.extend(bytes);
        }
    }

    pub(super) fn announce(&mut self, count: usize) {
        let headers = self
            .chain
            .iter()
            .rev()
            .take(count)
            .rev()
            .map(|block| block.header)
            .collect();
        self.say(&Message::Headers(headers));
    }

    pub(super) fn blocks_asked(&self) -> Vec<BlockHash> {
        let mut asked = Vec::new();
        for message in &self.heard {
            if let Message::GetData(items) = message {
                asked.extend(items.iter().filter_map(|item| match item {
                    Inventory::WitnessBlock(hash) | Inventory::Block(hash) => Some(*hash),
                    _ => None,
                }));
            }
        }
        asked
    }

    pub(super) fn transactions_asked(&self) -> Vec<Inventory> {
        let mut asked = Vec::new();
        for message in &self.heard {
            if let Message::GetData(items) = message {
                asked.extend(items.iter().filter(|item| {
                    matches!(
                        item,
                        Inventory::WTx(_)
                            | Inventory::WitnessTransaction(_)
                            | Inventory::Transaction(_)
                    )
                }));
            }
        }
        asked
    }

    fn version(&self, nonce: u64) -> Message {
        Message::Version(Box::new(Version {
            version: PROTOCOL_VERSION,
            services: self.services,
            timestamp: 0,
            receiver: unspecified(ServiceFlags::NONE),
            sender: unspecified(ServiceFlags::NONE),
            nonce,
            user_agent: b"/fake:1/".to_vec(),
            start_height: self.start_height.unwrap_or(self.chain.len() as i32),
            relay: true,
        }))
    }

    fn connected(&mut self, id: PeerId) {
        self.connection = Some(id);
        self.decoder = Decoder::new(MAGIC);
        self.to_host.clear();
        self.on_the_way.clear();
        self.cut = false;
    }

    fn hear(&mut self, bytes: &[u8], chance: &mut Chance) {
        self.decoder.feed(bytes);
        while let Some(raw) = self.decoder.next().unwrap() {
            let message = Message::read(raw).unwrap();
            self.answer(&message, chance);
            self.heard.push(message);
        }
    }

    fn answer(&mut self, message: &Message, chance: &mut Chance) {
        match message {
            Message::Version(_) => {
                let version = self.version(chance.next());
                if !self.dialed {
                    self.say(&version);
                }
                self.say(&Message::WtxidRelay);
                self.say(&Message::Verack);
            }
            Message::Ping(nonce) => self.say(&Message::Pong(*nonce)),
            Message::GetHeaders(locator) => self.answer_headers(locator),
            Message::GetData(items) => self.answer_data(items, chance),
            Message::SendCmpct { version: 2, .. } if self.compact => {
                self.say(&Message::SendCmpct {
                    announce: false,
                    version: 2,
                });
            }
            Message::GetBlockTxn(request) => self.answer_transactions(request),
            _ => {}
        }
    }

    fn answer_headers(&mut self, locator: &Locator) {
        if self.faults.hides_headers {
            return;
        }
        let start = locator
            .hashes
            .iter()
            .find_map(|hash| {
                self.chain
                    .iter()
                    .position(|block| block.block_hash() == *hash)
            })
            .map_or(0, |position| position + 1);
        let mut headers: Vec<Header> = self.chain[start..]
            .iter()
            .take(2000)
            .map(|block| block.header)
            .collect();
        if self.faults.forges_header && headers.len() < 2000 {
            let parent = self.chain.last().map(|block| block.header).unwrap();
            let mut forged = fixtures::mine_header(&parent, |_| {});
            while forged.target().is_met_by(forged.block_hash()) {
                forged.nonce += 1;
            }
            headers.push(forged);
        }
        if !headers.is_empty() || !self.faults.silent_when_empty {
            self.say(&Message::Headers(headers));
        }
    }

    fn answer_data(&mut self, items: &[Inventory], chance: &mut Chance) {
        if self.faults.stalls {
            return;
        }
        let mut items = items.to_vec();
        if self.faults.shuffles {
            for n in (1..items.len()).rev() {
                items.swap(n, chance.below(n + 1));
            }
        }
        for item in items {
            match item {
                Inventory::WitnessBlock(hash) | Inventory::Block(hash) => {
                    self.answer_block(item, hash)
                }
                Inventory::CompactBlock(hash) => self.answer_compact(hash, chance),
                _ => match self.pool.get(&item.network_hash().unwrap()) {
                    Some(tx) => {
                        let raw = Bytes::from(bitcoin::consensus::serialize(tx));
                        self.say(&Message::Tx(raw));
                    }
                    None => self.say(&Message::NotFound(vec![item])),
                },
            }
        }
    }

    fn answer_compact(&mut self, hash: BlockHash, chance: &mut Chance) {
        let known = self.chain.iter().find(|block| block.block_hash() == hash);
        let mut compact =
            HeaderAndShortIds::from_block(known.unwrap(), chance.next(), 2, &[]).unwrap();
        if self.faults.wrong_short_ids {
            for id in &mut compact.short_ids {
                *id = ShortId::with_siphash_keys(&[7; 32], (1, 2));
            }
        }
        if let Some(place) = self.prefilled_at {
            compact.prefilled_txs[0].idx = place;
        }
        self.say(&Message::CmpctBlock(Box::new(compact)));
    }

    fn answer_transactions(&mut self, request: &BlockTransactionsRequest) {
        if self.faults.hides_transactions {
            return;
        }
        let known = |block: &&Block| block.block_hash() == request.block_hash;
        let block = self.chain.iter().find(known).unwrap();
        let mut answer = BlockTransactions::from_request(request, block).unwrap();
        if self.faults.short_blocktxn {
            answer.transactions.pop();
        }
        self.say(&Message::BlockTxn(Box::new(answer)));
    }

    fn answer_block(&mut self, item: Inventory, hash: BlockHash) {
        let known = self
            .chain
            .iter()
            .find(|block| block.block_hash() == hash)
            .cloned();
        let Some(mut block) = known.filter(|_| !self.faults.not_found) else {
            self.say(&Message::NotFound(vec![item]));
            return;
        };
        self.blocks_sent += 1;
        if self.faults.mutates {
            block.txdata.pop();
        }
        let mut frame = Message::Block(Bytes::from(fixtures::raw(&block)))
            .encode(MAGIC)
            .to_vec();
        if self.faults.spoils_checksums {
            frame[20] ^= 1;
        }
        if self.faults.cuts_block == Some(self.blocks_sent) {
            frame.truncate(frame.len() / 2);
        }
        self.say_bytes(&frame);
        self.cut |= self.faults.cuts_block == Some(self.blocks_sent);
    }
}

/// A block that the shell holds.
pub(super) struct Waiting {
    pub(super) hash: BlockHash,
    raw: Bytes,
    context: BlockContext,
    again: bool,
}

/// The whole network.
pub(super) struct Sim {
    pub(super) sync: Sync,
    pub(super) now: Moment,
    pub(super) chance: Chance,
    pub(super) peers: Vec<FakePeer>,
    /// The shell checks no blocks while this is set.
    pub(super) busy: bool,
    /// It checks every block as soon as it has come.
    pub(super) checks_at_once: bool,
    /// How far above the tip it lets blocks be asked for.
    pub(super) ahead: Option<u32>,
    /// What the shell's own coins refuse.
    pub(super) verdicts: BTreeMap<BlockHash, BadBlock>,
    pub(super) waiting: Vec<Waiting>,
    /// Blocks that come in pieces.
    streams: BTreeMap<BlockHash, (StreamStart, Vec<u8>)>,
    /// How many pieces came, and how many blocks ended before they were whole.
    pub(super) pieces: usize,
    pub(super) broken: usize,
    next_id: u64,
    last_tick: Moment,
    /// Frames in the shell, as a socket task would.
    pub(super) frames_itself: bool,
    decoders: BTreeMap<PeerId, Decoder>,
    pub(super) headers: Vec<Header>,
    pub(super) blocks: Vec<(BlockHash, u32)>,
    pub(super) from_source: Vec<(BlockHash, u32)>,
    /// Blocks that came once more and were good.
    pub(super) again: Vec<(BlockHash, u32)>,
    pub(super) tips: Vec<TipChange>,
    pub(super) dropped: Vec<(SocketAddr, DropReason)>,
    pub(super) transactions: Vec<(PeerId, bitcoin::Txid)>,
    pub(super) announced: Vec<(PeerId, Vec<[u8; 32]>)>,
    pub(super) connects: Vec<(SocketAddr, Moment)>,
    pub(super) events: Vec<String>,
    /// What the shell's pool holds.
    pub(super) pool: Vec<Transaction>,
    /// What the shell's pool answers whatever is looked for.
    pub(super) impostor: Option<Transaction>,
    /// The hidden services that a proxy was to connect to.
    pub(super) names: Vec<String>,
    /// The DNS seeds that were asked, and when.
    pub(super) resolved: Vec<(String, Moment)>,
}

pub(super) fn params() -> &'static Params {
    Network::Regtest.params()
}

/// Seconds since the epoch at which the simulations begin: after the times of the chains made here.
pub(super) const START: Moment = Moment::from_secs(1_400_000_000);

impl Sim {
    pub(super) fn new(
        seed: u64,
        peers: Vec<FakePeer>,
        configure: impl FnOnce(&mut SyncConfig),
    ) -> Sim {
        println!("seed {seed}");
        let mut config = SyncConfig::new(params());
        config.connect = peers.iter().map(|peer| peer.addr).collect();
        configure(&mut config);
        let sync = Sync::new(config, params(), HeaderTree::new(params()), seed, START);
        Sim {
            sync,
            now: START,
            chance: Chance(seed),
            peers,
            busy: false,
            checks_at_once: false,
            ahead: None,
            verdicts: BTreeMap::new(),
            waiting: Vec::new(),
            streams: BTreeMap::new(),
            pieces: 0,
            broken: 0,
            next_id: 0,
            last_tick: START,
            frames_itself: false,
            decoders: BTreeMap::new(),
            headers: Vec::new(),
            blocks: Vec::new(),
            from_source: Vec::new(),
            again: Vec::new(),
            tips: Vec::new(),
            dropped: Vec::new(),
            transactions: Vec::new(),
            announced: Vec::new(),
            connects: Vec::new(),
            events: Vec::new(),
            pool: Vec::new(),
            impostor: None,
            names: Vec::new(),
            resolved: Vec::new(),
        }
    }

    /// One step: some time passes, some bytes arrive, the shell does some of its work.
    pub(super) fn step(&mut self) {
        let before = self.now;
        self.now = self.now + Duration::from_millis(5 + self.chance.below(20) as u64);
        let passed = self.now.since(before);
        self.lines(passed);
        if let Some(ahead) = self.ahead {
            let limit = self.sync.tip().0 + ahead;
            self.sync.set_download_limit(Some(limit), self.now);
            self.settle();
        }
        while self.checks_at_once && !self.waiting.is_empty() {
            let waiting = self.waiting.swap_remove(0);
            self.check(&waiting);
            self.settle();
        }
        if self.now.since(self.last_tick) >= Duration::from_millis(100) {
            self.last_tick = self.now;
            self.sync.tick(self.now);
            self.settle();
        }
        for _ in 0..self.peers.len() {
            let peer = self.chance.below(self.peers.len());
            self.deliver(peer);
        }
        if !self.busy && !self.waiting.is_empty() && self.chance.below(3) > 0 {
            let waiting = self
                .waiting
                .swap_remove(self.chance.below(self.waiting.len()));
            self.check(&waiting);
        }
        self.settle();
    }

    /// What comes over lines with a speed: to the peers what was said long enough ago, from them what the time allows.
    fn lines(&mut self, passed: Duration) {
        for index in 0..self.peers.len() {
            let fake = &mut self.peers[index];
            let Some((rate, _)) = fake.line else { continue };
            while let Some((_, bytes)) = fake.on_the_way.pop_front_if(|(at, _)| *at <= self.now) {
                fake.hear(&bytes, &mut self.chance);
            }
            fake.credit += rate * passed.as_millis() as u64;
            let count = ((fake.credit / 1_000) as usize).min(fake.to_host.len());
            // An idle line saves nothing up.
            fake.credit = match fake.to_host.len() > count {
                true => fake.credit - count as u64 * 1_000,
                false => 0,
            };
            let bytes: Vec<u8> = fake.to_host.drain(..count).collect();
            if let Some(id) = fake.connection.filter(|_| !bytes.is_empty()) {
                self.sync.received(id, &bytes, self.now);
                self.settle();
            }
        }
    }

    pub(super) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.step();
        }
    }

    /// As [`run_for`](Self::run_for) in steps of a second, for hours in which little happens.
    pub(super) fn coast(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            self.now = self.now + Duration::from_secs(1);
            self.last_tick = self.now;
            self.sync.tick(self.now);
            self.settle();
            for peer in 0..self.peers.len() {
                while self.peers[peer].connection.is_some() && !self.peers[peer].to_host.is_empty()
                {
                    self.deliver(peer);
                }
            }
            while let Some(waiting) = self.waiting.pop() {
                self.check(&waiting);
                self.settle();
            }
        }
    }

    /// Steps until a fact holds; fails when it does not within a simulated time.
    pub(super) fn run_until(&mut self, what: &str, limit: Duration, fact: impl Fn(&Sim) -> bool) {
        let end = self.now + limit;
        while !fact(self) {
            let reasons: Vec<String> = self
                .dropped
                .iter()
                .map(|(_, reason)| reason.to_string())
                .collect();
            assert!(
                self.now < end,
                "not within {limit:?}: {what}; tip {:?}, dropped {reasons:?}",
                self.sync.tip()
            );
            self.step();
        }
    }

    pub(super) fn run_to_tip(&mut self, block: &Block) {
        let hash = block.block_hash();
        self.run_until("the tip", Duration::from_secs(300), |sim| {
            sim.sync.tip().1 == hash && sim.waiting.is_empty()
        });
    }

    /// The clock jumps, and the machine notices.
    pub(super) fn sleep(&mut self, duration: Duration) {
        self.now = self.now + duration;
        self.last_tick = self.now;
        self.sync.tick(self.now);
        self.settle();
    }

    pub(super) fn id_of(&self, peer: usize) -> Option<PeerId> {
        self.peers[peer].connection
    }

    pub(super) fn held(&self) -> usize {
        self.waiting.len()
    }

    fn deliver(&mut self, index: usize) {
        let peer = &mut self.peers[index];
        if peer.line.is_some() {
            return;
        }
        let Some(id) = peer.connection else { return };
        if peer.to_host.is_empty() {
            if peer.cut {
                peer.connection = None;
                self.sync.disconnected(id, self.now);
                self.settle();
            }
            return;
        }
        // Whole messages, single bytes, and everything between.
        let most = [1, 30, 1_000, 100_000][self.chance.below(4)];
        let count = (1 + self.chance.below(most)).min(peer.to_host.len());
        let bytes: Vec<u8> = peer.to_host.drain(..count).collect();
        if self.frames_itself {
            let decoder = self
                .decoders
                .entry(id)
                .or_insert_with(|| Decoder::new(MAGIC));
            decoder.feed(&bytes);
            loop {
                match decoder.next() {
                    Ok(Some(raw)) => self.sync.received_raw(id, raw, self.now),
                    Ok(None) => break,
                    Err(error) => {
                        self.sync.failed(id, error.into(), self.now);
                        break;
                    }
                }
            }
        } else {
            self.sync.received(id, &bytes, self.now);
        }
        self.settle();
    }

    fn check(&mut self, waiting: &Waiting) {
        let result = match (
            self.verdicts.get(&waiting.hash),
            deserialize::<Block>(&waiting.raw),
        ) {
            (Some(verdict), _) => Err(verdict.clone()),
            (None, Ok(block)) => check_block(&View::new(block), &waiting.context),
            (None, Err(_)) => Err(BadBlock::Mutated(
                crate::chain::block_check::Mutation::Undecodable,
            )),
        };
        if !waiting.again {
            self.sync.block_checked(waiting.hash, result, self.now);
            return;
        }
        if result.is_ok() {
            self.again.push((waiting.hash, waiting.context.height));
        }
        self.sync
            .block_again_checked(waiting.hash, result, self.now);
    }

    /// Does what the machine asks for.
    pub(super) fn settle(&mut self) {
        while let Some(output) = self.sync.next_output() {
            match output {
                Output::Send { peer, bytes } => {
                    if let Some(fake) = self
                        .peers
                        .iter_mut()
                        .find(|fake| fake.connection == Some(peer))
                    {
                        match fake.line {
                            Some((_, latency)) => {
                                fake.on_the_way.push_back((self.now + latency, bytes));
                            }
                            None => fake.hear(&bytes, &mut self.chance),
                        }
                    }
                }
                Output::Disconnect { peer, reason } => {
                    if let Some(fake) = self
                        .peers
                        .iter_mut()
                        .find(|fake| fake.connection == Some(peer))
                    {
                        fake.connection = None;
                        self.dropped.push((fake.addr, reason));
                    }
                }
                Output::Connect { addr, name } => {
                    self.names.extend(name);
                    self.connect(addr);
                }
                Output::Resolve { name, .. } => self.resolved.push((name, self.now)),
                Output::Headers(headers) => self.headers.extend(headers),
                Output::Block {
                    hash,
                    height,
                    context,
                    raw,
                    announced_at,
                    ..
                } => {
                    assert!(announced_at <= self.now);
                    assert_eq!(context.height, height);
                    self.blocks.push((hash, height));
                    self.waiting.push(Waiting {
                        hash,
                        raw,
                        context,
                        again: false,
                    });
                }
                Output::BlockAgain {
                    hash,
                    height,
                    context,
                    raw,
                } => {
                    assert_eq!(context.height, height);
                    self.waiting.push(Waiting {
                        hash,
                        raw,
                        context,
                        again: true,
                    });
                }
                Output::Compact { peer, hash, wanted } => {
                    let found = wanted.ids.iter().map(|id| {
                        let same = |tx: &&Transaction| {
                            ShortId::with_siphash_keys(&tx.compute_wtxid(), wanted.keys) == *id
                        };
                        let tx = self.pool.iter().find(same);
                        let tx = self.impostor.as_ref().or(tx);
                        tx.map(|tx| Bytes::from(bitcoin::consensus::serialize(tx)))
                    });
                    let found = found.collect();
                    self.sync.compact_found(peer, hash, found, self.now);
                }
                Output::SourceBlock { hash, height, .. } => self.from_source.push((hash, height)),
                Output::BlockPiece {
                    hash,
                    start,
                    bytes,
                    last,
                    again,
                    ..
                } => {
                    if let Some(start) = start {
                        assert!(start.announced_at <= self.now);
                        let before = self.streams.insert(hash, (start, Vec::new()));
                        assert!(before.is_none(), "a block comes twice at once");
                    }
                    let (start, raw) = self.streams.get_mut(&hash).expect("it has begun");
                    raw.extend_from_slice(&bytes);
                    self.pieces += 1;
                    if last {
                        assert_eq!(raw.len() as u64, start.length);
                        let (start, raw) = self.streams.remove(&hash).unwrap();
                        if !again {
                            self.blocks.push((hash, start.height));
                        }
                        self.waiting.push(Waiting {
                            hash,
                            raw: raw.into(),
                            context: start.context,
                            again,
                        });
                    }
                }
                Output::StreamBroken { hash } => {
                    self.broken += 1;
                    assert!(self.streams.remove(&hash).is_some());
                }
                Output::Tip(change) => {
                    assert_eq!(self.sync.height_of(&change.hash), Some(change.height));
                    self.tips.push(change);
                }
                Output::Announced { peer, hashes } => self.announced.push((peer, hashes)),
                Output::Transaction { peer, txid, .. } => self.transactions.push((peer, txid)),
                Output::Event(event) => self
                    .events
                    .push(format!("{} {}", event.event, event.details)),
            }
        }
    }

    /// The longest that a tick may be late.
    pub(super) fn config_late_tick(&self) -> Duration {
        SyncConfig::new(params()).late_tick
    }

    /// A peer connects to us.
    pub(super) fn connect_inbound(&mut self, peer: usize) {
        let id = PeerId(self.next_id);
        self.next_id += 1;
        let version = self.peers[peer].version(self.chance.next());
        let fake = &mut self.peers[peer];
        fake.connected(id);
        fake.dialed = true;
        fake.say(&version);
        self.sync.connected(id, fake.addr, false, self.now);
        self.settle();
    }

    fn connect(&mut self, addr: SocketAddr) {
        self.connects.push((addr, self.now));
        let id = PeerId(self.next_id);
        self.next_id += 1;
        match self
            .peers
            .iter_mut()
            .find(|fake| fake.addr == addr && fake.reachable)
        {
            Some(fake) => {
                fake.connected(id);
                self.sync.connected(id, addr, true, self.now);
            }
            None => self.sync.connect_failed(addr, self.now),
        }
    }

    /// What must hold after every run: headers parents first and once each, tips that follow one another.
    pub(super) fn check_outputs(&self) {
        let mut tree = HeaderTree::new(params());
        for header in &self.headers {
            assert_eq!(
                tree.insert(*header, u64::MAX),
                Ok(crate::chain::Inserted::New)
            );
        }
        let mut height = 0;
        for tip in &self.tips {
            assert!(
                tip.fork_height <= height,
                "a tip forks above the one before"
            );
            height = tip.height;
        }
        assert_eq!(height, self.sync.tip().0);
    }
}

/// A chain of regtest blocks from the genesis.
pub(super) fn chain(count: u32) -> Vec<Block> {
    fixtures::chain(&params().genesis_header, 0, count, 0)
}

/// The chain with everything above `keep` replaced by `count` other blocks.
pub(super) fn fork(chain: &[Block], keep: usize, count: u32, salt: u32) -> Vec<Block> {
    let mut forked = chain[..keep].to_vec();
    let parent = chain[keep - 1].header;
    forked.extend(fixtures::chain(&parent, keep as u32, count, salt));
    forked
}

pub(super) fn raw_message(message: &Message) -> RawMessage {
    let mut decoder = Decoder::new(MAGIC);
    decoder.feed(&message.encode(MAGIC));
    decoder.next().unwrap().unwrap()
}

pub(super) fn txid_bytes(tx: &Transaction) -> [u8; 32] {
    tx.compute_txid().to_byte_array()
}
