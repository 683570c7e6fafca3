//! The handle that tests and the program hold.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bitcoin::consensus::encode::deserialize_hex;
use bitcoin::p2p::Magic;
use bitcoin::{BlockHash, Network, Transaction, Txid};
use serde::Serialize;

use crate::node::Node;
use crate::server::{Behaviour, Dial, Server, ServerConfig, lock};
use crate::signet::Signet;
use crate::state::{Clock, Mining, Reorg, State};
use crate::utxo::UtxoSet;

/// How often [`Devnet::wait_for_clients`] looks.
const POLL: Duration = Duration::from_millis(5);

/// Everything that can be chosen.
#[derive(Clone, Debug)]
pub struct Config {
    /// Decides keys, payments, fees, simulated times: all that is random.
    pub seed: u64,
    /// Whose genesis block and magic to use. Blocks are mined on regtest, and on a signet with a `signet` of its own.
    pub network: Network,
    /// Another magic than the network's own.
    pub magic: Option<Magic>,
    /// Who signs blocks of the network `Signet`; its magic follows from this.
    pub signet: Option<Signet>,
    /// Where to listen; port 0 for any that is free.
    pub listen: SocketAddr,
    /// User agent (BIP14).
    pub user_agent: String,
    /// Block files to begin with, in `blk*.dat` framing.
    pub files: Vec<PathBuf>,
    /// Show no blocks above this height.
    pub max_height: Option<u32>,
    /// Keep the coin set. Without it blocks are served unchecked, and there is no mining and no pool.
    pub keep_coins: bool,
    /// How blocks are made.
    pub mining: Mining,
    /// Tell clients that connect of the whole pool, which Bitcoin Core would not do.
    pub announce_pool: bool,
    /// What the first listener does wrong.
    pub behaviour: Behaviour,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            network: Network::Regtest,
            magic: None,
            signet: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            user_agent: "/devnet:0.1/".to_owned(),
            files: Vec::new(),
            max_height: None,
            keep_coins: true,
            mining: Mining {
                // The first day of 2025.
                clock: Clock::Simulated {
                    start: 1_735_689_600,
                    interval: 600,
                },
                txs_per_block: 40,
                max_weight: 4_000_000,
            },
            announce_pool: true,
            behaviour: Behaviour::default(),
        }
    }
}

/// What a devnet says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Height of the tip.
    pub height: u32,
    /// Hash of the tip.
    pub tip: BlockHash,
    /// Time of the tip, unix seconds.
    pub time: u32,
    /// Transactions in the pool.
    pub mempool: usize,
    /// Clients that have shaken hands, as user agents.
    pub clients: Vec<String>,
}

/// A running node. Dropping it stops it.
#[derive(Debug)]
pub struct Devnet {
    node: Arc<Node>,
    magic: Magic,
    config: Config,
    servers: Mutex<Vec<Server>>,
    addr: SocketAddr,
}

impl Devnet {
    /// A regtest node at the genesis block, with everything else as [`Config::default`] has it.
    ///
    /// # Errors
    /// When no port is free.
    pub fn new(seed: u64) -> Result<Self> {
        Self::start(Config {
            seed,
            ..Config::default()
        })
    }

    /// A node that serves a block file.
    ///
    /// # Errors
    /// When the file is unreadable or its blocks do not fit the network or the coin set.
    pub fn serve_file(path: impl Into<PathBuf>, network: Network) -> Result<Self> {
        Self::start(Config {
            network,
            files: vec![path.into()],
            ..Config::default()
        })
    }

    /// Loads the block files and listens.
    ///
    /// # Errors
    /// When a file is unreadable, blocks do not fit, or the address cannot be bound.
    pub fn start(config: Config) -> Result<Self> {
        let own = config.signet.as_ref().map(Signet::magic);
        let magic = config.magic.or(own);
        let magic = magic.unwrap_or_else(|| config.network.magic());
        let mut state = State::new(
            config.network,
            config.seed,
            config.keep_coins,
            config.mining.clone(),
        )?;
        state.sign_with(config.signet.clone());
        state.limit_height(config.max_height)?;
        for file in &config.files {
            state.load(file, magic)?;
        }
        let _ = state.take_news();
        let node = Arc::new(Node::new(state));
        let server = Server::start(
            Arc::clone(&node),
            ServerConfig {
                listen: config.listen,
                user_agent: config.user_agent.clone(),
                magic,
                announce_pool: config.announce_pool,
                behaviour: config.behaviour.clone(),
            },
        )?;
        let addr = server.addr();
        Ok(Self {
            node,
            magic,
            config,
            servers: Mutex::new(vec![server]),
            addr,
        })
    }

    /// The address of the first listener.
    pub fn p2p_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Listens on one more free port of the same host, as another peer with the same chain and faults of its own.
    ///
    /// # Errors
    /// When no port is free.
    pub fn add_server(&self, user_agent: &str, behaviour: Behaviour) -> Result<SocketAddr> {
        let server = Server::start(
            Arc::clone(&self.node),
            ServerConfig {
                listen: SocketAddr::new(self.config.listen.ip(), 0),
                user_agent: user_agent.to_owned(),
                magic: self.magic,
                announce_pool: self.config.announce_pool,
                behaviour,
            },
        )?;
        let addr = server.addr();
        lock(&self.servers).push(server);
        Ok(addr)
    }

    /// Changes what the listener at `addr` does wrong.
    ///
    /// # Errors
    /// When there is no such listener.
    pub fn set_behaviour(&self, addr: SocketAddr, behaviour: Behaviour) -> Result<()> {
        let servers = lock(&self.servers);
        let server = servers.iter().find(|server| server.addr() == addr);
        server
            .with_context(|| format!("no listener at {addr}"))?
            .set_behaviour(behaviour);
        Ok(())
    }

    /// Connects from the first listener's node to another, which is then a client like the others.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn dial(&self, addr: SocketAddr, dial: Dial) -> Result<()> {
        let servers = lock(&self.servers);
        servers.first().context("no listener")?.dial(addr, dial)
    }

    /// The session ids of the clients that have shaken hands, at all listeners; nothing for those with version 1 of the
    /// transport.
    pub fn session_ids(&self) -> Vec<Option<[u8; 32]>> {
        let servers = lock(&self.servers);
        servers.iter().flat_map(Server::session_ids).collect()
    }

    /// Drops all clients. The listeners go on.
    pub fn disconnect_clients(&self) {
        for server in lock(&self.servers).iter() {
            server.disconnect_clients();
        }
    }

    /// Waits until `count` clients have shaken hands.
    ///
    /// # Errors
    /// When they have not in time.
    pub fn wait_for_clients(&self, count: usize, timeout: Duration) -> Result<()> {
        let end = Instant::now() + timeout;
        while self.status().clients.len() < count {
            ensure!(
                Instant::now() < end,
                "fewer than {count} clients after {timeout:?}"
            );
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Adds the blocks of a file, and moves to the branch with the most work.
    ///
    /// # Errors
    /// When the file is unreadable or its blocks do not fit.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<()> {
        self.node
            .change(|state| state.load(path.as_ref(), self.magic))
    }

    /// Shows blocks up to `height` only, or all.
    ///
    /// # Errors
    /// When a block on the way to the new tip does not fit the coin set.
    pub fn limit_height(&self, height: Option<u32>) -> Result<()> {
        self.node.change(|state| state.limit_height(height))
    }

    /// Mines blocks, each after writing [`Mining::txs_per_block`] payments.
    ///
    /// # Errors
    /// Off regtest, and without a coin set.
    pub fn mine(&self, count: u32) -> Result<Vec<BlockHash>> {
        // Block by block, so that clients hear of each.
        (0..count)
            .map(|_| {
                let made = self.node.change(|state| state.mine(1))?;
                made.into_iter().next().context("no block was mined")
            })
            .collect()
    }

    /// Mines one block from the pool as it is.
    ///
    /// # Errors
    /// Off regtest, and without a coin set.
    pub fn mine_block(&self) -> Result<BlockHash> {
        self.node.change(State::mine_block)
    }

    /// Mines `count` blocks as if one had come every `interval` seconds up to now, and stamps later ones with real time.
    ///
    /// # Errors
    /// Off regtest, and without a coin set.
    pub fn mine_up_to_now(&self, count: u32, interval: u32) -> Result<()> {
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)?
            .as_secs();
        let past = u64::from(count) * u64::from(interval);
        let start = u32::try_from(now.saturating_sub(past))?;
        // Random intervals would pass now; a clock of its own for each block does not.
        for past in 0..count {
            let start = start.saturating_add(past.saturating_mul(interval));
            self.node.change(|state| {
                state.mining_mut().clock = Clock::Fixed(start);
                state.mine(1)
            })?;
        }
        self.node
            .change(|state| state.mining_mut().clock = Clock::Real);
        Ok(())
    }

    /// Changes how blocks are made.
    pub fn set_mining(&self, mining: Mining) {
        self.node.change(|state| *state.mining_mut() = mining);
    }

    /// Writes up to `count` payments into the pool, announcing each. Returns their txids: fewer when there is nothing more to
    /// spend, as before height 101.
    pub fn fill_mempool(&self, count: usize) -> Vec<Txid> {
        let mut txids = Vec::new();
        while txids.len() < count {
            let made = self.node.change(|state| state.fill(1));
            if made.is_empty() {
                break;
            }
            txids.extend(made);
        }
        txids
    }

    /// Replaces up to `count` transactions of the pool by others that pay more. Returns pairs of old and new txid.
    pub fn replace(&self, count: usize) -> Vec<(Txid, Txid)> {
        self.node.change(|state| state.replace(count))
    }

    /// Offers a transaction to the pool and announces it.
    ///
    /// # Errors
    /// When the pool refuses it.
    pub fn submit(&self, tx: Transaction) -> Result<Txid> {
        let txid = tx.compute_txid();
        self.node
            .change(|state| state.submit(tx))
            .with_context(|| format!("transaction {txid} refused"))?;
        Ok(txid)
    }

    /// Offers the transactions of a file, one a line in hex, and announces them. Returns their txids.
    ///
    /// # Errors
    /// When the file is unreadable, or the pool refuses one.
    pub fn submit_file(&self, path: impl AsRef<Path>) -> Result<Vec<Txid>> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read {}", path.display()))?;
        (1..)
            .zip(text.lines())
            .map(|(line, hex)| {
                let tx = deserialize_hex(hex.trim()).with_context(|| {
                    format!("no transaction on line {line} of {}", path.display())
                })?;
                self.submit(tx)
            })
            .collect()
    }

    /// Tells clients of the whole pool again.
    pub fn announce_pool(&self) {
        self.node.change(State::announce_pool);
    }

    /// Leaves the last `depth` blocks for `length` new ones.
    ///
    /// # Errors
    /// When `length` is not above `depth`, the chain is too short, or nothing can be mined.
    pub fn reorg(&self, depth: u32, length: u32) -> Result<Reorg> {
        self.node.change(|state| state.reorg(depth, length))
    }

    /// The coin set at the tip, counted and hashed.
    ///
    /// # Errors
    /// When no coins are kept.
    pub fn utxo_set(&self) -> Result<UtxoSet> {
        // Hashing takes long, and clients need not wait for it.
        let snapshot = self.node.state().snapshot()?;
        Ok(UtxoSet::of(&snapshot))
    }

    /// Height, tip, pool, clients.
    pub fn status(&self) -> Status {
        let clients = lock(&self.servers)
            .iter()
            .flat_map(Server::clients)
            .map(|(_, user_agent)| user_agent)
            .collect();
        let state = self.node.state();
        let chain = state.chain();
        Status {
            height: chain.height(),
            tip: chain.tip(),
            time: chain
                .block(chain.tip())
                .map_or(0, |block| block.header().time),
            mempool: state.pool().len(),
            clients,
        }
    }

    /// The node behind the listeners, for a closer look.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// Stops listening, drops all clients, and waits for all threads.
    pub fn stop(&self) {
        let servers = std::mem::take(&mut *lock(&self.servers));
        drop(servers);
    }
}
