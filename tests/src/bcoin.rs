//! A running bcoin, a full node in JavaScript, on regtest and on loopback.
//!
//! It is the peer that nobody here wrote. It speaks version 1 of the protocol only, sends no empty `headers`, and knows no
//! taproot. On regtest its segwit is not active before block 432, so blocks and coins here are legacy ones.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use bitcoin::hashes::Hash;
use bitcoin::{
    Amount, Block, BlockHash, Network, PubkeyHash, Transaction, Txid, base58, consensus,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;
use xtask::process::Process;
use xtask::workspace;

/// The network of every [`Bcoin`].
pub const NETWORK: Network = Network::Regtest;

/// How long the node may take from its start to the first answer.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How often it is started again when somebody else took one of its ports in between.
const START_ATTEMPTS: u32 = 3;
/// How long one call may take; mining a hundred blocks takes seconds.
const CALL_LIMIT: Duration = Duration::from_secs(120);
/// How long a transaction may take into the pool.
const SEND_LIMIT: Duration = Duration::from_secs(10);
/// How long the node may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// The byte before a key's hash in an address. That of bcoin's regtest is another than Core's.
const ADDRESS_PREFIX: u8 = 0x3c;

const API_KEY: &str = "blockmill";
/// User `x`, password [`API_KEY`].
const AUTHORIZATION: &str = "Basic eDpibG9ja21pbGw=";

/// What the node says about its coin set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CoinTotals {
    /// The height of the last block in it.
    pub height: u32,
    /// The last block in it.
    pub best: BlockHash,
    /// How many coins there are.
    pub txouts: u64,
    /// Their sum.
    pub total: Amount,
}

/// A bcoin that runs until it is dropped.
#[derive(Debug)]
pub struct Bcoin {
    process: Process,
    peer: SocketAddr,
    rpc: SocketAddr,
    agent: Agent,
    // Dropped last: the node writes into it until it ends.
    folder: TempDir,
}

impl Bcoin {
    /// Starts a node with an empty regtest chain on free ports; `None`, with a line that says so, where bcoin is not installed.
    ///
    /// # Errors
    ///
    /// When it is installed and does not come up.
    pub fn start() -> Result<Option<Self>> {
        let Some(program) = xtask::bcoin::program(&workspace::root()) else {
            crate::skipped(
                "bcoin is not in target/bcoin (`cargo xtask test --only bcoin` puts it there, with npm)",
            );
            return Ok(None);
        };
        let mut attempt = 1;
        loop {
            match Self::start_once(&program, crate::free_address()?, crate::free_address()?) {
                Ok(node) => return Ok(Some(node)),
                Err(error) if attempt == START_ATTEMPTS => return Err(error),
                Err(_) => attempt += 1,
            }
        }
    }

    /// Stops it and starts one at the same addresses. It keeps everything in memory, since its database is a compiled part: its chain
    /// is gone, and [`submit`](Self::submit) gives it back.
    ///
    /// # Errors
    ///
    /// When it does not end, or does not come up again.
    pub fn restart(self) -> Result<Self> {
        let (peer, rpc) = (self.peer, self.rpc);
        self.stop()?;
        let program =
            xtask::bcoin::program(&workspace::root()).context("bcoin is there no more")?;
        Self::start_once(&program, peer, rpc)
    }

    fn start_once(program: &Path, peer: SocketAddr, rpc: SocketAddr) -> Result<Self> {
        let folder = tempfile::tempdir().context("failed to make a folder for bcoin")?;
        let log = log_path(folder.path());
        let log =
            File::create(&log).with_context(|| format!("failed to make {}", log.display()))?;
        let process = Process::spawn(
            "bcoin",
            Command::new("node")
                .arg(program)
                .args([
                    "--network=regtest",
                    "--memory=true",
                    "--no-wallet=true",
                    "--workers=false",
                ])
                .args(["--listen=true", "--bip37=true", "--max-outbound=1"])
                .arg(format!("--host={}", peer.ip()))
                .arg(format!("--port={}", peer.port()))
                .arg(format!("--http-host={}", rpc.ip()))
                .arg(format!("--http-port={}", rpc.port()))
                .arg(format!("--api-key={API_KEY}"))
                .arg(format!("--prefix={}", folder.path().display()))
                // The native backend is a compiled one, which was not compiled.
                .env("NODE_BACKEND", "js")
                .stdin(Stdio::null())
                .stderr(log.try_clone().context("failed to share a log")?)
                .stdout(log),
        )?;
        let agent = Agent::config_builder()
            .timeout_global(Some(CALL_LIMIT))
            .http_status_as_error(false)
            .build()
            .new_agent();
        let mut node = Self {
            process,
            peer,
            rpc,
            agent,
            folder,
        };
        node.wait_until_up()?;
        Ok(node)
    }

    fn wait_until_up(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            // The port for peers opens last.
            if self.call("getblockcount", json!([])).is_ok()
                && TcpStream::connect(self.peer).is_ok()
            {
                return Ok(());
            }
            if let Some(status) = self.process.status()? {
                bail!("bcoin ended with {status}:\n{}", self.log());
            }
            if start.elapsed() > START_LIMIT {
                bail!(
                    "bcoin did not answer within {START_LIMIT:?}:\n{}",
                    self.log()
                );
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// Where it listens for peers.
    pub fn peer_address(&self) -> SocketAddr {
        self.peer
    }

    /// Mines `blocks` blocks with what its pool holds; the reward goes to the p2pkh script of `key`.
    ///
    /// # Errors
    ///
    /// When the node refuses.
    pub fn generate(&self, blocks: u32, key: &PubkeyHash) -> Result<Vec<BlockHash>> {
        let mut address = vec![ADDRESS_PREFIX];
        address.extend_from_slice(key.as_byte_array());
        let address = base58::encode_check(&address);
        let hashes = self.call("generatetoaddress", json!([blocks, address]))?;
        let hashes = hashes
            .as_array()
            .context("generatetoaddress gave no list")?;
        hashes.iter().map(|hash| parsed(Some(hash))).collect()
    }

    /// The block `hash`.
    ///
    /// # Errors
    ///
    /// When the node does not have it.
    pub fn block(&self, hash: &BlockHash) -> Result<Block> {
        let block = self.call("getblock", json!([hash.to_string(), false]))?;
        let hex = block.as_str().context("getblock gave no text")?;
        consensus::encode::deserialize_hex(hex).context("failed to decode a block of bcoin")
    }

    /// Hands over the block that follows its tip.
    ///
    /// # Errors
    ///
    /// When the node does not take it.
    pub fn submit(&self, block: &Block) -> Result<()> {
        let hex = consensus::encode::serialize_hex(block);
        match self.call("submitblock", json!([hex]))? {
            Value::Null => Ok(()),
            why => bail!("bcoin did not take block {}: {why}", block.block_hash()),
        }
    }

    /// Connects to another node, and follows its chain where that has more work.
    ///
    /// # Errors
    ///
    /// When the node does not answer.
    pub fn join(&self, other: &Self) -> Result<()> {
        self.call("addnode", json!([other.peer.to_string(), "onetry"]))
            .map(drop)
    }

    /// Hands over a transaction and waits until it is in the pool.
    ///
    /// # Errors
    ///
    /// When the node does not take it into its pool.
    pub fn send(&self, transaction: &Transaction) -> Result<Txid> {
        let hex = consensus::encode::serialize_hex(transaction);
        let txid = parsed(Some(&self.call("sendrawtransaction", json!([hex]))?))?;
        // The node answers before it has checked the transaction, and never says that it refused one.
        let start = Instant::now();
        while !self.mempool()?.contains(&txid) {
            if start.elapsed() > SEND_LIMIT {
                bail!("bcoin did not take {txid} into its pool:\n{}", self.log());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(txid)
    }

    /// Hands over transactions and waits until the pool has grown to `pool`, for as long as it grows.
    ///
    /// # Errors
    ///
    /// When the node stops taking them.
    pub fn send_all(&self, transactions: &[Transaction], pool: usize) -> Result<()> {
        for transaction in transactions {
            let hex = consensus::encode::serialize_hex(transaction);
            self.call("sendrawtransaction", json!([hex]))?;
        }
        let mut last = (0, Instant::now());
        loop {
            let size: usize = number(self.call("getmempoolinfo", json!([]))?.get("size"))?;
            if size >= pool {
                return Ok(());
            }
            if size != last.0 {
                last = (size, Instant::now());
            } else if last.1.elapsed() > SEND_LIMIT {
                bail!("bcoin stopped at {size} transactions of {pool}");
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The height of its tip.
    ///
    /// # Errors
    ///
    /// When the node does not answer.
    pub fn height(&self) -> Result<u32> {
        number(Some(&self.call("getblockcount", json!([]))?))
    }

    /// What it says about its coin set.
    ///
    /// # Errors
    ///
    /// When the node does not answer.
    pub fn coin_totals(&self) -> Result<CoinTotals> {
        let info = self.call("gettxoutsetinfo", json!([]))?;
        let total = info.get("total_amount").and_then(Value::as_f64);
        Ok(CoinTotals {
            height: number(info.get("height"))?,
            best: parsed(info.get("bestblock"))?,
            txouts: number(info.get("txouts"))?,
            total: Amount::from_btc(total.context("gettxoutsetinfo gave no total")?)
                .context("gettxoutsetinfo gave an impossible total")?,
        })
    }

    /// What its pool holds.
    ///
    /// # Errors
    ///
    /// When the node does not answer.
    pub fn mempool(&self) -> Result<BTreeSet<Txid>> {
        let txids = self.call("getrawmempool", json!([]))?;
        let txids = txids.as_array().context("getrawmempool gave no list")?;
        txids.iter().map(|txid| parsed(Some(txid))).collect()
    }

    /// Makes a block of the active branch invalid, so that the node goes back to the one before it.
    ///
    /// # Errors
    ///
    /// When the node refuses.
    pub fn invalidate(&self, hash: &BlockHash) -> Result<()> {
        self.call("invalidateblock", json!([hash.to_string()]))
            .map(drop)
    }

    /// Calls a method of its JSON-RPC; `params` is a list.
    ///
    /// # Errors
    ///
    /// When the node does not answer, or answers with an error.
    pub fn call(&self, method: &str, params: Value) -> Result<Value> {
        let mut answer: Value = self
            .agent
            .post(format!("http://{}/", self.rpc))
            .header("Authorization", AUTHORIZATION)
            .send_json(json!({"method": method, "params": params, "id": 1}))
            .and_then(|mut response| {
                response
                    .body_mut()
                    .with_config()
                    .limit(64 << 20)
                    .read_json()
            })
            .with_context(|| format!("failed to call {method} of bcoin"))?;
        match answer.get("error") {
            None | Some(Value::Null) => {}
            Some(error) => bail!("bcoin refused {method}: {error}"),
        }
        answer
            .get_mut("result")
            .map(Value::take)
            .with_context(|| format!("bcoin gave no result to {method}"))
    }

    /// What it has logged until now.
    pub fn log(&self) -> String {
        fs::read_to_string(log_path(self.folder.path())).unwrap_or_default()
    }

    /// Stops it.
    ///
    /// # Errors
    ///
    /// When it did not end by itself and had to be killed.
    pub fn stop(mut self) -> Result<()> {
        self.process.stop(STOP_LIMIT).map(drop)
    }
}

fn log_path(folder: &Path) -> PathBuf {
    folder.join("bcoin.log")
}

fn parsed<T>(value: Option<&Value>) -> Result<T>
where
    T: std::str::FromStr<Err: std::error::Error + Send + Sync + 'static>,
{
    let text = value
        .and_then(Value::as_str)
        .context("bcoin gave no hash")?;
    text.parse()
        .with_context(|| format!("bcoin gave a bad hash: {text}"))
}

fn number<T: TryFrom<u64>>(value: Option<&Value>) -> Result<T> {
    let number = value
        .and_then(Value::as_u64)
        .context("bcoin gave no number")?;
    T::try_from(number)
        .ok()
        .context("bcoin gave an impossible number")
}
