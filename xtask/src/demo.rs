//! `cargo xtask demo`: a devnet and a host that follows it, for a person to watch.
//!
//! The devnet mines on regtest from a seed, writes payments into its pool and reorganises now and then; the host follows it
//! over the peer-to-peer protocol with the three plugins. At the end the coin set of the host, which its plugin built in the
//! sandbox, must hash as that of the devnet, which shares no code with it.

pub mod devnet;
pub mod host;
mod show;

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use wasm_toolchain::{Source, WasmToolchain};

use self::devnet::Devnet;
use self::host::{Host, PLUGINS};
use crate::process::Interrupt;
use crate::programs::{self, Profile};
use crate::{plugins, workspace};

/// Blocks that the devnet begins with: the first coinbase can be spent at 101, the rest holds payments.
const FIRST_BLOCKS: u32 = 130;
/// Small blocks, so that payments compete for them and a fee estimator has something to learn.
const BLOCK_WEIGHT: u64 = 60_000;
/// A block comes so often.
const BLOCK_EVERY: Duration = Duration::from_secs(4);
/// Payments come so often, by these numbers in turn.
const PAYMENTS_EVERY: Duration = Duration::from_secs(1);
const PAYMENTS: [u64; 5] = [9, 20, 13, 24, 4];
/// A payment is replaced by one that pays more so often.
const REPLACE_EVERY: Duration = Duration::from_secs(6);
/// The first reorg, and the time between two. A demo that ends sooner has one in its middle.
const FIRST_REORG: Duration = Duration::from_secs(30);
const REORG_EVERY: Duration = Duration::from_secs(60);
/// How many blocks are left behind, in turn.
const REORG_DEPTHS: [u64; 3] = [2, 1, 3];
/// How often the loop looks for news of the host.
const LOOK: Duration = Duration::from_millis(20);
/// How long the host may take to have the first blocks: it compiles the plugins before.
const START_LIMIT: Duration = Duration::from_secs(180);
/// How long the last transactions may take at the end to be in the host's pool.
const POOL_LIMIT: Duration = Duration::from_secs(3);
/// How long the host may take at the end to have the devnet's last block.
const END_LIMIT: Duration = Duration::from_secs(20);

/// What a person chooses.
#[derive(Debug, Clone)]
pub struct Options {
    /// End by itself after so long.
    pub limit: Option<Duration>,
    /// Decides the devnet's keys, payments and fees.
    pub seed: u64,
    /// Where configuration, data and logs go; `None` for `target/demo`.
    pub folder: Option<PathBuf>,
    /// Where the compiler for the plugins comes from.
    pub toolchain: Source,
}

/// Shows the demo; `false` when host and devnet did not agree at the end.
///
/// # Errors
///
/// When something does not build, start, answer or end.
pub fn run(root: &Path, options: &Options) -> Result<bool> {
    let folder = options
        .folder
        .clone()
        .unwrap_or_else(|| workspace::target(root).join("demo"));
    let folder = fs::create_dir_all(&folder)
        .and_then(|()| folder.canonicalize())
        .with_context(|| format!("failed to make {}", folder.display()))?;
    // Held until the end: a second demo would take the first one's data away.
    let _lock = take(&folder)?;
    let (host, devnet) = build(root, options.toolchain)?;

    let interrupt = Interrupt::note_only()?;
    let log = folder.join("devnet.log");
    println!(
        "starting  a devnet: regtest, seed {}, {FIRST_BLOCKS} blocks",
        options.seed
    );
    let p2p = UsualPort::take(root, devnet::USUAL_PORT)?;
    let devnet = Devnet::start(
        &devnet,
        p2p.address,
        options.seed,
        FIRST_BLOCKS,
        BLOCK_WEIGHT,
        &log,
    )?;
    println!(
        "starting  the host: {} plugins, empty data folder",
        PLUGINS.len()
    );
    let started = Instant::now();
    let program = host;
    let api = UsualPort::take(root, host::USUAL_PORT)?;
    let host = Host::start(
        &program,
        &folder,
        &plugins::folder(root, false),
        devnet.p2p(),
        api.address,
    )?;
    let mut demo = Demo {
        devnet,
        host,
        interrupt,
        started,
        blocks: BTreeMap::new(),
        rewound: Vec::new(),
        reorgs: 0,
        replaced: 0,
    };
    let arrived = demo.wait_until_level(START_LIMIT)?;
    if arrived {
        println!(
            "ready     the host has {FIRST_BLOCKS} blocks from the devnet after {:.1} s",
            started.elapsed().as_secs_f64()
        );
        show::where_to_look(root, &program, &folder, demo.host.api(), demo.devnet.p2p());
        show::table_head(options.limit);
        demo.started = Instant::now();
        demo.play(options.limit)?;
    }
    demo.finish(root, &folder)
}

/// Takes `folder` for this demo and empties it.
fn take(folder: &Path) -> Result<File> {
    let lock = folder.join("demo.lock");
    let mut entries =
        fs::read_dir(folder).with_context(|| format!("failed to read {}", folder.display()))?;
    ensure!(
        lock.exists() || entries.next().is_none(),
        "{} holds something else than an earlier demo: name an empty folder",
        folder.display()
    );
    let file = File::create(&lock).with_context(|| format!("failed to make {}", lock.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => bail!("another demo runs in {}", folder.display()),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("failed to lock {}", lock.display()));
        }
    }
    let data = folder.join("data");
    if data.exists() {
        fs::remove_dir_all(&data).with_context(|| format!("failed to empty {}", data.display()))?;
    }
    Ok(file)
}

/// Builds what is missing; returns the paths of the host and the devnet.
fn build(root: &Path, toolchain: Source) -> Result<(PathBuf, PathBuf)> {
    let mut needed = plugins::find(root)?;
    needed.retain(|plugin| !plugin.test && PLUGINS.contains(&plugin.name.as_str()));
    ensure!(
        needed.len() == PLUGINS.len(),
        "the workspace lacks one of the plugins {}",
        PLUGINS.join(", ")
    );
    if !plugins::are_fresh(root, &needed) {
        println!("building  the plugins");
        let toolchain = WasmToolchain::find(toolchain)?;
        plugins::build_these(root, &toolchain, &needed)?;
    }
    let host = match programs::fresh(root, "blockmill") {
        Some(path) => path,
        None => {
            println!(
                "building  the host and the devnet, for debugging (`cargo xtask build` makes the fast host)"
            );
            programs::build_all(root)?;
            programs::path(root, "blockmill", Profile::Debug)
        }
    };
    let devnet = match programs::fresh(root, "devnet") {
        Some(path) => path,
        None => {
            println!("building  the devnet");
            programs::build(root, "devnet", Profile::Debug)?
        }
    };
    for path in [&host, &devnet, &plugins::folder(root, false)] {
        println!("using     {}", workspace::shown(root, path));
    }
    Ok((host, devnet))
}

/// A port that people expect something at, for one demo at a time.
struct UsualPort {
    address: SocketAddr,
    /// Held until the end: between the look whether the port is free and its use, another demo could take it.
    _lock: Option<File>,
}

impl UsualPort {
    /// The loopback address with the port `usual`, or with a free one when somebody has that.
    fn take(root: &Path, usual: u16) -> Result<Self> {
        let path = workspace::target(root).join(format!("demo-port-{usual}.lock"));
        let lock =
            File::create(&path).with_context(|| format!("failed to make {}", path.display()))?;
        let lock = lock.try_lock().is_ok().then_some(lock);
        let first = if lock.is_some() { usual } else { 0 };
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, first))
            .or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))
            .and_then(|listener| listener.local_addr())
            .context("failed to find a free port")?;
        Ok(Self {
            address,
            _lock: lock,
        })
    }
}

/// Host and devnet, and what was seen of them.
struct Demo {
    // Dropped in this order: a host whose peer went first would complain.
    host: Host,
    devnet: Devnet,
    interrupt: Interrupt,
    started: Instant,
    /// Transactions and fees (sat) of the blocks that were shown and are on the chain, by height.
    blocks: BTreeMap<u64, (u64, u64)>,
    /// Plugins that the host has rewound, and not been shown yet.
    rewound: Vec<String>,
    reorgs: u64,
    /// Blocks that reorgs left behind.
    replaced: u64,
}

impl Demo {
    /// Waits until the host and all its plugins have the devnet's last block; `false` when Ctrl-C came first.
    fn wait_until_level(&mut self, limit: Duration) -> Result<bool> {
        let start = Instant::now();
        let tip = self.devnet.status()?;
        let tip = tip
            .get("tip")
            .and_then(Value::as_str)
            .context("the devnet has no tip")?;
        while !self.has(tip)? {
            self.show_news()?;
            ensure!(
                start.elapsed() < limit,
                "the host does not have the devnet's last block {tip} after {} s",
                limit.as_secs()
            );
            if self.interrupt.sleep(LOOK) && limit == START_LIMIT {
                return Ok(false);
            }
            thread::sleep(LOOK);
        }
        self.show_news()?;
        Ok(true)
    }

    /// Whether the host and all its plugins have this block last.
    fn has(&self, tip: &str) -> Result<bool> {
        let Some(status) = self.host.get("status")? else {
            return Ok(false);
        };
        let there = |value: Option<&Value>| value.and_then(Value::as_str) == Some(tip);
        let plugins = status.get("plugins").and_then(Value::as_array);
        let plugins = plugins.map_or(&[][..], Vec::as_slice);
        Ok(there(status.pointer("/tip/hash"))
            && plugins.len() == PLUGINS.len()
            && plugins.iter().all(|plugin| there(plugin.get("hash"))))
    }

    /// Payments, blocks and reorgs until `limit` or Ctrl-C.
    fn play(&mut self, limit: Option<Duration>) -> Result<()> {
        let first_reorg = limit.map_or(FIRST_REORG, |limit| FIRST_REORG.min(limit / 2));
        let mut payments = Times::new(Duration::ZERO, PAYMENTS_EVERY);
        let mut replacements = Times::new(REPLACE_EVERY, REPLACE_EVERY);
        let mut blocks = Times::new(BLOCK_EVERY / 2, BLOCK_EVERY);
        let mut reorgs = Times::new(first_reorg, REORG_EVERY);
        let mut sizes = PAYMENTS.iter().cycle();
        let mut depths = REORG_DEPTHS.iter().cycle();
        loop {
            let now = self.started.elapsed();
            if limit.is_some_and(|limit| now >= limit) {
                return Ok(());
            }
            if payments.due(now) {
                self.devnet.fill(sizes.next().copied().unwrap_or(1))?;
            }
            if replacements.due(now) {
                self.devnet.replace()?;
            }
            if reorgs.due(now) {
                let depth = depths.next().copied().unwrap_or(1);
                let what = self.devnet.reorg(depth)?;
                self.reorgs += 1;
                self.replaced += depth;
                show::reorg(self.started.elapsed(), &what);
            } else if blocks.due(now) {
                self.devnet.mine()?;
            }
            self.show_news()?;
            if self.interrupt.sleep(LOOK) {
                println!();
                return Ok(());
            }
        }
    }

    /// Shows what the host has logged since the last call.
    fn show_news(&mut self) -> Result<()> {
        while let Some(event) = self.host.event()? {
            let at = self.started.elapsed();
            let message = event
                .get("message")
                .and_then(Value::as_str)
                .unwrap_or_default();
            let number = |field: &str| event.get(field).and_then(Value::as_u64);
            let level = event
                .get("level")
                .and_then(Value::as_str)
                .unwrap_or_default();
            if message == "rewound for a reorg" {
                self.rewound.push(show::rewound(&event));
                if self.rewound.len() == PLUGINS.len() {
                    show::all_rewound(at, &self.rewound);
                    self.rewound.clear();
                }
            } else if message == "block"
                && let Some(height) = number("height")
                && (height > FIRST_BLOCKS.into() || self.reorgs > 0)
            {
                // Blocks of a branch that was left are above.
                self.blocks.split_off(&height);
                let figures = (number("txs").unwrap_or(0), number("fees_sat").unwrap_or(0));
                self.blocks.insert(height, figures);
                let pool = self.host.get("status")?;
                let pool = pool
                    .as_ref()
                    .and_then(|status| status.pointer("/mempool/txs")?.as_u64());
                show::block(at, &event, pool);
            } else if level == "WARN" || level == "ERROR" {
                show::trouble(at, &event);
            }
        }
        Ok(())
    }

    /// Compares, says so, and ends both.
    fn finish(mut self, root: &Path, folder: &Path) -> Result<bool> {
        let shown = self.started.elapsed();
        let level = self.wait_until_level(END_LIMIT);
        let ours = self.devnet.coin_set()?;
        let hosts = self.host.coin_set()?;
        let agree = hosts.as_ref() == Some(&ours);
        let summary = show::Summary {
            shown,
            height: ours.height,
            mined: ours.height.saturating_sub(FIRST_BLOCKS.into()),
            replaced: self.replaced,
            reorgs: self.reorgs,
            transactions: self
                .blocks
                .values()
                .map(|(transactions, _)| transactions)
                .sum(),
            fees: self.blocks.values().map(|(_, fees)| fees).sum(),
            rows: self.host.rows_written()?,
            database: workspace::shown(root, &host::database_path(folder)),
            pools: self.pools()?,
            estimate: self
                .host
                .get("plugins/fee-estimator/query/estimate?target=6")?,
        };
        summary.print();
        show::comparison(hosts.as_ref(), &ours);
        level?;

        let start = Instant::now();
        let Self { host, devnet, .. } = self;
        let host_ended = host.stop();
        let devnet_ended = devnet.stop();
        host_ended?;
        devnet_ended?;
        println!("both ended after {:.1} s", start.elapsed().as_secs_f64());
        Ok(agree)
    }

    /// Transactions in the pools of the host and of the devnet, once they are as many or the last ones had their time.
    fn pools(&mut self) -> Result<(u64, u64)> {
        let start = Instant::now();
        loop {
            let host = self.host.get("status")?;
            let host = host
                .as_ref()
                .and_then(|status| status.pointer("/mempool/txs")?.as_u64());
            let devnet = self.devnet.status()?;
            let devnet = devnet.get("mempool").and_then(Value::as_u64);
            let pools = (host.unwrap_or(0), devnet.unwrap_or(0));
            if pools.0 == pools.1 || start.elapsed() > POOL_LIMIT {
                return Ok(pools);
            }
            thread::sleep(LOOK);
        }
    }
}

/// When something is to happen again and again.
struct Times {
    next: Duration,
    every: Duration,
}

impl Times {
    fn new(first: Duration, every: Duration) -> Self {
        Self { next: first, every }
    }

    /// Whether it is to happen now. What was missed is not made up for.
    fn due(&mut self, now: Duration) -> bool {
        if now < self.next {
            return false;
        }
        while self.next <= now {
            self.next += self.every;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn what_was_missed_is_not_made_up_for() {
        let second = Duration::from_secs(1);
        let mut times = Times::new(second, second * 2);
        assert!(!times.due(Duration::ZERO));
        assert!(times.due(second));
        assert!(!times.due(second * 2));
        assert!(times.due(second * 9));
        assert!(!times.due(second * 10));
        assert!(times.due(second * 11));
    }

    #[test]
    fn a_folder_with_something_else_in_it_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        let error = take(folder.path()).unwrap_err();
        assert!(error.to_string().contains("something else"), "{error}");
        assert!(folder.path().join("data").exists());
    }

    #[test]
    fn one_demo_at_a_time_has_a_folder_and_the_next_begins_with_it_empty() {
        let folder = tempfile::tempdir().unwrap();
        let first = take(folder.path()).unwrap();
        fs::create_dir(folder.path().join("data")).unwrap();
        let error = take(folder.path()).unwrap_err();
        assert!(error.to_string().contains("another demo"), "{error}");
        drop(first);
        let _second = take(folder.path()).unwrap();
        assert!(!folder.path().join("data").exists());
    }
}
