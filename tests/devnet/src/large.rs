//! A peer with a block that is larger than anybody wants to hold: it is made while it is sent, and is the same each time.
//!
//! Its chain has no segregated witness: some small blocks, the large one, and one on top that spends an output of it. In the large
//! one are outputs with much data, and chains of small transactions. Scripts are `OP_TRUE`.

use std::io::{BufReader, BufWriter, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use bitcoin::absolute::LockTime;
use bitcoin::block::{Header, Version};
use bitcoin::consensus::{Encodable, serialize};
use bitcoin::constants::genesis_block;
use bitcoin::hashes::{Hash, HashEngine, sha256d};
use bitcoin::p2p::address::Address;
use bitcoin::p2p::message::NetworkMessage;
use bitcoin::p2p::message_blockdata::Inventory;
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::p2p::{Magic, ServiceFlags};
use bitcoin::script::Builder;
use bitcoin::{
    Amount, Block, BlockHash, CompactTarget, Network, OutPoint, ScriptBuf, Sequence, Transaction,
    TxIn, TxMerkleNode, TxOut, Txid, VarInt, Witness, transaction,
};

use crate::server::frame;

/// Small blocks before the large one: the coinbase of the first can be spent then.
const BEFORE: u32 = 110;
/// Outputs of the transaction that feeds the others.
const FED: u32 = 1_000;
/// Those that chains of small transactions begin at; the others feed the transactions with data.
const CHAINS: u32 = 50;
/// What each of these outputs has, in sat.
const FEED: u64 = 4_999_000;
/// Fees in sat.
const DATA_FEE: u64 = 5_000;
const SMALL_FEE: u64 = 10;

/// What is in the large block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recipe {
    /// Transactions with data, at most 950.
    pub data_transactions: u32,
    /// Bytes of the data of each.
    pub data_bytes: usize,
    /// Small transactions.
    pub small_transactions: u32,
}

impl Recipe {
    /// About so many bytes of data, and so many small transactions.
    pub fn of(bytes: usize, small_transactions: u32) -> Self {
        let data_transactions = bytes.div_ceil(1_500_000).clamp(1, (FED - CHAINS) as usize);
        Self {
            data_transactions: data_transactions as u32,
            data_bytes: bytes / data_transactions,
            small_transactions,
        }
    }
}

fn truth() -> ScriptBuf {
    ScriptBuf::from_bytes(vec![0x51])
}

fn pay(previous: OutPoint, output: Vec<TxOut>) -> Transaction {
    Transaction {
        version: transaction::Version::ONE,
        lock_time: LockTime::ZERO,
        input: vec![TxIn {
            previous_output: previous,
            script_sig: ScriptBuf::new(),
            sequence: Sequence::MAX,
            witness: Witness::new(),
        }],
        output,
    }
}

fn output(value: u64) -> TxOut {
    TxOut {
        value: Amount::from_sat(value),
        script_pubkey: truth(),
    }
}

fn coinbase(height: u32) -> Transaction {
    // Regtest halves it every 150 blocks.
    let subsidy = (50 * 100_000_000) >> (height / 150);
    let mut tx = pay(OutPoint::null(), vec![output(subsidy)]);
    let script = Builder::new()
        .push_int(i64::from(height))
        .push_slice(b"large");
    for input in &mut tx.input {
        input.script_sig = script.clone().into_script();
    }
    tx
}

/// The transactions of the large block, one after the other.
struct Transactions {
    recipe: Recipe,
    /// The coin that feeds them.
    coin: OutPoint,
    at: u32,
    feed: Txid,
    /// The last output of each chain, and its value.
    ends: Vec<(OutPoint, u64)>,
}

impl Transactions {
    fn new(recipe: Recipe, coin: OutPoint) -> Self {
        Self {
            recipe,
            coin,
            at: 0,
            feed: Txid::all_zeros(),
            ends: Vec::new(),
        }
    }

    fn total(&self) -> u32 {
        2 + self.recipe.data_transactions + self.recipe.small_transactions
    }
}

impl Iterator for Transactions {
    type Item = (Txid, Transaction);

    fn next(&mut self) -> Option<Self::Item> {
        let at = self.at;
        self.at += 1;
        let data = self.recipe.data_transactions;
        let tx = match at {
            0 => coinbase(BEFORE + 1),
            1 => pay(self.coin, (0..FED).map(|_| output(FEED)).collect()),
            at if at < 2 + data => {
                let vout = at - 2;
                let length = self.recipe.data_bytes as u32;
                let mut script = Vec::with_capacity(self.recipe.data_bytes + 8);
                script.extend([0x6a, 0x4e]);
                script.extend(length.to_le_bytes());
                // Not all the same, and cheap to make.
                let seed = u64::from(vout + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let words = (0..length.div_ceil(8))
                    .flat_map(|n| (seed ^ u64::from(n)).rotate_left(n % 61).to_le_bytes());
                script.extend(words.take(length as usize));
                let data = TxOut {
                    value: Amount::ZERO,
                    script_pubkey: ScriptBuf::from_bytes(script),
                };
                pay(
                    OutPoint::new(self.feed, vout),
                    vec![data, output(FEED - DATA_FEE)],
                )
            }
            at if at < self.total() => {
                let chain = ((at - 2 - data) % CHAINS) as usize;
                let (previous, value) = *self.ends.get(chain)?;
                pay(previous, vec![output(value - SMALL_FEE)])
            }
            _ => return None,
        };
        let txid = tx.compute_txid();
        if at == 1 {
            self.feed = txid;
            self.ends = (FED - CHAINS..FED)
                .map(|vout| (OutPoint::new(txid, vout), FEED))
                .collect();
        } else if at >= 2 + data
            && let Some(end) = self.ends.get_mut(((at - 2 - data) % CHAINS) as usize)
        {
            *end = (OutPoint::new(txid, 0), end.1 - SMALL_FEE);
        }
        Some((txid, tx))
    }
}

/// The root of a merkle tree from leaves that come one by one: one hash a row is kept.
#[derive(Default)]
struct Merkle(Vec<Option<[u8; 32]>>);

impl Merkle {
    fn pair(left: [u8; 32], right: [u8; 32]) -> [u8; 32] {
        sha256d::Hash::hash(&[left, right].concat()).to_byte_array()
    }

    fn push(&mut self, mut hash: [u8; 32]) {
        for row in &mut self.0 {
            match row.take() {
                Some(left) => hash = Self::pair(left, hash),
                None => {
                    *row = Some(hash);
                    return;
                }
            }
        }
        self.0.push(Some(hash));
    }

    fn root(self) -> [u8; 32] {
        let rows = self.0.len();
        let mut below = None;
        for (n, row) in self.0.into_iter().enumerate() {
            below = match (row, below) {
                (None, None) => None,
                (None, Some(hash)) => Some(Self::pair(hash, hash)),
                (Some(left), Some(right)) => Some(Self::pair(left, right)),
                (Some(hash), None) if n + 1 == rows => Some(hash),
                (Some(hash), None) => Some(Self::pair(hash, hash)),
            };
        }
        below.unwrap_or_default()
    }
}

fn header(parent: &Header, root: [u8; 32]) -> Header {
    let mut header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: parent.block_hash(),
        merkle_root: TxMerkleNode::from_byte_array(root),
        time: parent.time + 600,
        bits: CompactTarget::from_consensus(0x207f_ffff),
        nonce: 0,
    };
    while !header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    header
}

fn small_block(parent: &Header, transactions: Vec<Transaction>) -> Block {
    let mut merkle = Merkle::default();
    for tx in &transactions {
        merkle.push(tx.compute_txid().to_byte_array());
    }
    Block {
        header: header(parent, merkle.root()),
        txdata: transactions,
    }
}

/// What is known of the large block without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeBlock {
    /// Its hash.
    pub hash: BlockHash,
    /// Bytes.
    pub size: u64,
    /// Transactions.
    pub transactions: u32,
    /// Outputs that it leaves unspent, those that nobody can spend left out, less those of before that it spends.
    pub new_coins: u32,
}

struct Chain {
    magic: Magic,
    recipe: Recipe,
    coin: OutPoint,
    /// From genesis to the tip.
    headers: Vec<Header>,
    blocks: Vec<Block>,
    large: LargeBlock,
    large_header: Header,
    checksum: [u8; 4],
    /// The connection ends after so many bytes of the large block; 0 never.
    cut_after: AtomicU64,
    /// How often the large block was asked for.
    asked: AtomicU64,
    /// The large block comes with the extended header, to hosts that take it.
    extended: AtomicBool,
    /// How often it did.
    sent_extended: AtomicU64,
    stop: AtomicBool,
    streams: Mutex<Vec<TcpStream>>,
}

/// A peer that has the large block.
pub struct LargePeer {
    chain: Arc<Chain>,
    addr: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl LargePeer {
    /// Makes the chain (going over the large block once, for its hashes) and listens on a free port.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start(magic: [u8; 4], recipe: Recipe) -> Result<Self> {
        Self::start_below(magic, recipe, 0)
    }

    /// The same, with so many small blocks more on top.
    ///
    /// # Errors
    /// When no port is free.
    pub fn start_below(magic: [u8; 4], recipe: Recipe, more: u32) -> Result<Self> {
        let genesis = genesis_block(Network::Regtest);
        let mut blocks = vec![genesis];
        for height in 1..=BEFORE {
            let parent = blocks.last().context("no genesis")?.header;
            blocks.push(small_block(&parent, vec![coinbase(height)]));
        }
        let first = blocks.get(1).and_then(|block| block.txdata.first());
        let coin = OutPoint::new(first.context("no coinbase")?.compute_txid(), 0);
        let parent = blocks.last().context("no block")?.header;

        let mut transactions = Transactions::new(recipe, coin);
        let count = transactions.total();
        let mut merkle = Merkle::default();
        let mut size = 80 + VarInt::from(count).size() as u64;
        for (txid, tx) in transactions.by_ref() {
            merkle.push(txid.to_byte_array());
            size += tx.total_size() as u64;
        }
        let large_header = header(&parent, merkle.root());
        let (end, value) = *transactions.ends.first().context("no chain")?;
        let last = pay(end, vec![output(value - SMALL_FEE)]);
        let after = small_block(&large_header, vec![coinbase(BEFORE + 2), last]);
        let mut headers: Vec<Header> = blocks.iter().map(|block| block.header).collect();
        headers.extend([large_header, after.header]);
        blocks.push(after);
        for height in BEFORE + 3..BEFORE + 3 + more {
            let parent = blocks.last().context("no block")?.header;
            let block = small_block(&parent, vec![coinbase(height)]);
            headers.push(block.header);
            blocks.push(block);
        }

        let mut engine = Hashing(sha256d::Hash::engine());
        write_large(&mut engine, &large_header, recipe, coin)?;
        let [a, b, c, d, ..] = sha256d::Hash::from_engine(engine.0).to_byte_array();
        let chain = Arc::new(Chain {
            magic: Magic::from_bytes(magic),
            recipe,
            coin,
            headers,
            blocks,
            large: LargeBlock {
                hash: large_header.block_hash(),
                size,
                transactions: count,
                // The coinbase, and of the feeding transaction each output or what follows it, less the coin it spends.
                new_coins: 1 + FED - 1,
            },
            large_header,
            checksum: [a, b, c, d],
            cut_after: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            extended: AtomicBool::new(false),
            sent_extended: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let addr = listener.local_addr()?;
        let shared = Arc::clone(&chain);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.stop.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(copy) = stream.try_clone() {
                    shared
                        .streams
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(copy);
                }
                let shared = Arc::clone(&shared);
                // Ends when the other end, or `drop`, closes the stream.
                std::thread::spawn(move || {
                    let _ = shared.serve(&stream);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Ok(Self {
            chain,
            addr,
            thread: Some(thread),
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Its large block.
    pub fn large(&self) -> LargeBlock {
        self.chain.large
    }

    /// Height of the large block; at least one more block comes after it.
    pub fn large_height(&self) -> u32 {
        BEFORE + 1
    }

    /// Hash of the last block.
    pub fn tip(&self) -> BlockHash {
        self.chain
            .headers
            .last()
            .map_or(BlockHash::all_zeros(), Header::block_hash)
    }

    /// The next time the large block is asked for, the connection ends after so many bytes of it.
    pub fn cut_once_after(&self, bytes: u64) {
        self.chain.cut_after.store(bytes, Ordering::SeqCst);
    }

    /// From now on the large block has the extended header, as real nodes give blocks of 4 GiB and more: for hosts of protocol
    /// 70,016 that sent `protoconf`.
    pub fn frame_extended(&self) {
        self.chain.extended.store(true, Ordering::SeqCst);
    }

    /// How often the large block was sent so.
    pub fn sent_extended(&self) -> u64 {
        self.chain.sent_extended.load(Ordering::SeqCst)
    }

    /// How often the large block was asked for.
    pub fn asked(&self) -> u64 {
        self.chain.asked.load(Ordering::SeqCst)
    }
}

impl Drop for LargePeer {
    fn drop(&mut self) {
        self.chain.stop.store(true, Ordering::SeqCst);
        let streams = self.chain.streams.lock();
        for stream in streams.unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = stream.shutdown(Shutdown::Both);
        }
        // Wakes the listener.
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Hashing(bitcoin::hashes::sha256::HashEngine);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.input(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn write_large(
    to: &mut impl Write,
    header: &Header,
    recipe: Recipe,
    coin: OutPoint,
) -> std::io::Result<()> {
    let transactions = Transactions::new(recipe, coin);
    to.write_all(&serialize(header))?;
    to.write_all(&serialize(&VarInt::from(transactions.total())))?;
    let mut bytes = Vec::new();
    for (_, tx) in transactions {
        bytes.clear();
        tx.consensus_encode(&mut bytes)
            .map_err(std::io::Error::other)?;
        to.write_all(&bytes)?;
    }
    Ok(())
}

/// Writes so many bytes, and then no more.
struct Cut<W> {
    to: W,
    left: u64,
}

impl<W: Write> Write for Cut<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if self.left == 0 {
            self.to.flush()?;
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        let most = bytes
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let written = self.to.write(bytes.get(..most).unwrap_or_default())?;
        self.left -= written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.to.flush()
    }
}

impl Chain {
    fn serve(&self, stream: &TcpStream) -> Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        let mut writer = BufWriter::with_capacity(1 << 16, stream);
        // Whether the host takes the extended header: its version, and that it knows of such limits.
        let (mut version, mut protoconf) = (0, false);
        while let Some(message) = frame::read(&mut reader, self.magic)? {
            match &message {
                NetworkMessage::Version(theirs) => version = theirs.version,
                NetworkMessage::Unknown { command, .. } => {
                    protoconf |= command.as_ref() == "protoconf";
                }
                _ => {}
            }
            let extended = version >= 70_016 && protoconf && self.extended.load(Ordering::SeqCst);
            self.answer(message, extended, &mut writer)?;
            writer.flush()?;
        }
        Ok(())
    }

    fn answer(&self, message: NetworkMessage, extended: bool, to: &mut impl Write) -> Result<()> {
        let mut say = |message| to.write_all(&frame::encode(self.magic, message));
        match message {
            NetworkMessage::Version(theirs) => {
                say(NetworkMessage::Version(VersionMessage {
                    version: 70_016,
                    services: ServiceFlags::NETWORK,
                    timestamp: theirs.timestamp,
                    receiver: theirs.sender.clone(),
                    sender: Address::new(
                        &SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
                        ServiceFlags::NETWORK,
                    ),
                    nonce: theirs.nonce.wrapping_add(1),
                    user_agent: "/large:0.1/".to_owned(),
                    start_height: i32::try_from(self.headers.len().saturating_sub(1))?,
                    relay: false,
                }))?;
                say(NetworkMessage::Verack)?;
            }
            NetworkMessage::Ping(nonce) => say(NetworkMessage::Pong(nonce))?,
            NetworkMessage::GetHeaders(wanted) => {
                let known = |hash: &BlockHash| {
                    self.headers
                        .iter()
                        .position(|header| header.block_hash() == *hash)
                };
                let after = wanted.locator_hashes.iter().find_map(known).unwrap_or(0);
                let headers = self.headers.iter().skip(after + 1).copied().collect();
                say(NetworkMessage::Headers(headers))?;
            }
            NetworkMessage::GetData(wanted) => {
                for item in wanted {
                    if let Inventory::Block(hash) = item {
                        self.block(hash, extended, to)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn block(&self, hash: BlockHash, extended: bool, to: &mut impl Write) -> Result<()> {
        if hash == self.large.hash {
            self.asked.fetch_add(1, Ordering::SeqCst);
            to.write_all(&self.magic.to_bytes())?;
            if extended {
                self.sent_extended.fetch_add(1, Ordering::SeqCst);
                to.write_all(b"extmsg\0\0\0\0\0\0")?;
                to.write_all(&u32::MAX.to_le_bytes())?;
                to.write_all(&[0; 4])?;
                to.write_all(b"block\0\0\0\0\0\0\0")?;
                to.write_all(&self.large.size.to_le_bytes())?;
            } else {
                to.write_all(b"block\0\0\0\0\0\0\0")?;
                to.write_all(&u32::try_from(self.large.size)?.to_le_bytes())?;
                to.write_all(&self.checksum)?;
            }
            let left = match self.cut_after.swap(0, Ordering::SeqCst) {
                0 => u64::MAX,
                left => left,
            };
            write_large(
                &mut Cut { to, left },
                &self.large_header,
                self.recipe,
                self.coin,
            )?;
            return Ok(());
        }
        if let Some(block) = self.blocks.iter().find(|block| block.block_hash() == hash) {
            let message = NetworkMessage::Block(block.clone());
            to.write_all(&frame::encode(self.magic, message))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn the_large_block_is_what_it_says() {
        let recipe = Recipe {
            data_transactions: 3,
            data_bytes: 10_000,
            small_transactions: 333,
        };
        let peer = LargePeer::start([1, 2, 3, 4], recipe).unwrap();
        let mut bytes = Vec::new();
        write_large(
            &mut bytes,
            &peer.chain.large_header,
            recipe,
            peer.chain.coin,
        )
        .unwrap();
        let block: Block = bitcoin::consensus::deserialize(&bytes).unwrap();
        assert_eq!(block.block_hash(), peer.large().hash);
        assert!(block.check_merkle_root());
        assert_eq!(bytes.len() as u64, peer.large().size);
        assert_eq!(block.txdata.len() as u32, peer.large().transactions);
        let [a, b, c, d, ..] = sha256d::Hash::hash(&bytes).to_byte_array();
        assert_eq!([a, b, c, d], peer.chain.checksum);
        for header in peer.chain.headers.windows(2) {
            assert_eq!(header[1].prev_blockhash, header[0].block_hash());
        }
    }
}
