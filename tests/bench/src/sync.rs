//! Whole syncs: the release host with the three plugins, from a peer in a process of its own, over loopback.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bitcoin::hashes::{Hash, sha256};
use blockmill::store::{DataDir, OutPointKey, StateStore, coin_key, encode_coin};
use serde_json::Value;

use crate::blocks::Chain;
use crate::lane::empty;
use crate::process::{Peer, Usage, host, watch};
use crate::report::{Report, load};

/// The plugins of a measured host.
pub const PLUGINS: [&str; 3] = ["utxo-tracker", "tx-writer", "fee-estimator"];
/// What `measure_memory` gives the host: `[database]`.
const SMALL: &str = "[database]\nstate_cache = \"16 MB\"\nblock_cache = \"8 MB\"\n";

/// A host's folder, and how it is called.
pub struct Setup {
    program: PathBuf,
    folder: PathBuf,
    api: SocketAddr,
}

impl Setup {
    /// An empty folder.
    pub fn new(target: &Path, folder: &Path) -> Result<Self> {
        empty(folder)?;
        let api = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|listener| listener.local_addr())
            .context("failed to find a free port")?;
        Ok(Self {
            program: target.join("release/blockmill"),
            folder: folder.to_owned(),
            api,
        })
    }

    /// With another program than the release host.
    pub fn with_program(self, program: &Path) -> Self {
        Self {
            program: program.to_owned(),
            ..self
        }
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Its configuration with all plugins, and with `more` in it.
    pub fn config(&self, target: &Path, more: &str) -> Result<PathBuf> {
        self.config_with(target, more, &PLUGINS)
    }

    /// Its configuration with these plugins, and with `more` in it.
    pub fn config_with(&self, target: &Path, more: &str, plugins: &[&str]) -> Result<PathBuf> {
        let plugins: String = plugins
            .iter()
            .map(|plugin| format!("[plugins.{plugin}]\nenabled = true\n"))
            .collect();
        let text = format!(
            "network = \"regtest\"\ndata_dir = \"{}\"\n{more}[api]\nlisten = \"{}\"\n[plugins]\ndir = \"{}\"\n{plugins}",
            self.data().display(),
            self.api,
            target.join("plugins").display(),
        );
        let path = self.folder.join("blockmill.toml");
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        Ok(path)
    }

    /// Empties the data folder.
    pub fn forget(&self) -> Result<()> {
        let data = self.data();
        match data.exists() {
            true => fs::remove_dir_all(&data).context("failed to empty the data folder"),
            false => Ok(()),
        }
    }

    /// Syncs to `height` and ends.
    pub fn run(&self, config: &Path, peers: &[Peer], height: u32) -> Result<Usage> {
        let mut command = host(&self.program);
        command.arg("run").arg("--config").arg(config);
        for peer in peers {
            command.args(["--connect", &peer.address]);
        }
        command.args(["--stop-at-height", &height.to_string()]);
        watch(&mut command, self.api, &self.folder.join("host.log"))
    }

    /// Puts made-up coins among those of the stopped host: they are never spent, but they are in the way.
    fn fill(&self, coins: u64) -> Result<()> {
        let folder = DataDir::open_existing(&self.folder.join("data/regtest"), "regtest")?;
        let mut lane = StateStore::open(&folder.state(), 64 << 20)?.lane("utxo-tracker")?;
        lane.begin_block();
        let mut value = Vec::new();
        for number in 0..coins {
            let txid = sha256::Hash::hash(&number.to_le_bytes()).to_byte_array();
            value.clear();
            encode_coin(1, false, 1_000, &[0x51; 22], &mut value);
            lane.put(&coin_key(&OutPointKey { txid, vout: 0 }), &value)?;
        }
        lane.commit_start();
        lane.flush()?;
        Ok(())
    }

    /// What the stopped host's data hold.
    fn txoutset(&self, config: &Path) -> Result<Value> {
        let output = host(&self.program)
            .args(["txoutset", "--json", "--config"])
            .arg(config)
            .output()?;
        ensure!(
            output.status.success(),
            "blockmill txoutset failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).context("blockmill txoutset gave no JSON")
    }

    /// Checks the coins; returns their number and whether the hash was one that somebody else computed.
    pub fn check(&self, config: &Path, chain: &Chain, height: u32) -> Result<(u64, bool)> {
        let set = self.txoutset(config)?;
        let number = |field| set.get(field).and_then(Value::as_u64);
        ensure!(
            number("height") == Some(height.into()),
            "the coin set is not at height {height}: {set}"
        );
        let coins = number("txouts").context("no number of coins")?;
        match &chain.muhash {
            Some(expected) if height == chain.height() => {
                let found = set.get("muhash").and_then(Value::as_str);
                ensure!(
                    found == Some(expected),
                    "the coin set has the muhash {found:?}, not {expected}"
                );
                Ok((coins, true))
            }
            _ => Ok((coins, false)),
        }
    }
}

/// Syncs the chain `runs` times and prints what it took.
pub fn measure(
    target: &Path,
    folder: &Path,
    chain: &Chain,
    runs: usize,
    report: &mut Report,
) -> Result<()> {
    let peers = [Peer::start(&target.join("release/devnet"), &chain.path)?];
    let mut done: Vec<(Usage, String)> = Vec::new();
    let mut coins = (0, false);
    let setup = Setup::new(target, &folder.join("sync"))?;
    let config = setup.config(target, "")?;
    for _ in 0..runs.max(1) {
        setup.forget()?;
        let usage = setup.run(&config, &peers, chain.height())?;
        coins = setup.check(&config, chain, chain.height())?;
        done.push((usage, load()));
    }
    report.note(&format!(
        "sync: {} blocks, {} transactions, all three plugins, from the start of the process with uncompiled plugins to its end; {} coins, hash {}",
        chain.height(),
        chain.transactions,
        coins.0,
        if coins.1 { "as expected" } else { "not known from elsewhere" },
    ));
    report.table(&["run", "wall", "CPU", "peak memory", "load average"]);
    for (index, (usage, load)) in done.iter().enumerate() {
        report.row(&[
            (index + 1).to_string(),
            format!("{:.2} s", usage.wall),
            format!(
                "{:.2} s ({:.2} user, {:.2} system)",
                usage.cpu(),
                usage.user,
                usage.system
            ),
            format!("{:.0} MB", usage.peak as f64 / 1e6),
            load.clone(),
        ]);
    }
    done.sort_by(|a, b| a.0.wall.total_cmp(&b.0.wall));
    if let Some((usage, _)) = done.get(done.len() / 2) {
        stages(usage, chain, report);
    }
    disk(&setup.folder.join("data/regtest"), chain, coins.0, report)
}

/// Where the time of one run went.
fn stages(usage: &Usage, chain: &Chain, report: &mut Report) {
    report.note(
        "where the time of the run goes (stages run beside each other; wall seconds inside each)",
    );
    report.table(&["stage", "seconds", "blocks", "a block"]);
    let mut stages: Vec<_> = usage
        .stages
        .iter()
        .filter(|(_, (_, count))| *count > 0.0)
        .collect();
    stages.sort_by(|a, b| b.1.0.total_cmp(&a.1.0));
    for (name, (seconds, count)) in stages {
        report.row(&[
            name.clone(),
            format!("{seconds:.2}"),
            format!("{count:.0}"),
            format!("{:.2} ms", seconds / count * 1e3),
        ]);
    }
    report.table(&["thread", "CPU seconds"]);
    let mut threads: Vec<_> = usage
        .threads
        .iter()
        .filter(|(_, cpu)| **cpu >= 0.05)
        .collect();
    threads.sort_by(|a, b| b.1.total_cmp(a.1));
    for (name, cpu) in threads {
        report.row(&[name.clone(), format!("{cpu:.2}")]);
    }
    growth(usage, chain, report);
}

/// Time a transaction early and late in the sync, side by side: nothing may grow with what is there already.
fn growth(usage: &Usage, chain: &Chain, report: &mut Report) {
    let transactions = |height: u32| chain.until.get(height as usize).copied().unwrap_or(0);
    // The first transactions of all share their time with the compiling of plugins.
    let spans = [(0.05, 0.35), (0.35, 0.65), (0.65, 0.95)];
    report.table(&[
        "transactions there already",
        "wall a transaction",
        "CPU a transaction",
    ]);
    for (from, to) in spans {
        let at = |share: f64| {
            let wanted = (share * chain.transactions as f64) as usize;
            usage
                .samples
                .iter()
                .find(|sample| transactions(sample.plugins) >= wanted)
        };
        let (Some(first), Some(last)) = (at(from), at(to)) else {
            continue;
        };
        let count = transactions(last.plugins).saturating_sub(transactions(first.plugins));
        if count == 0 {
            continue;
        }
        report.row(&[
            format!(
                "{} to {}",
                transactions(first.plugins),
                transactions(last.plugins)
            ),
            format!("{:.2} µs", (last.at - first.at) / count as f64 * 1e6),
            format!("{:.2} µs", (last.cpu - first.cpu) / count as f64 * 1e6),
        ]);
    }
}

/// Bytes on disk.
fn disk(data: &Path, chain: &Chain, coins: u64, report: &mut Report) -> Result<()> {
    let mut state = 0;
    let mut journal = 0;
    let mut rows = 0;
    let mut blocks = 0;
    let mut spent = 0;
    for (path, bytes) in files(data)? {
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        if path.starts_with(data.join("state")) {
            match name.ends_with(".jnl") {
                true => journal += bytes,
                false => state += bytes,
            }
        } else if name.starts_with("blockmill.sqlite") {
            rows += bytes;
        } else if name.starts_with("blk") {
            blocks += bytes;
        } else if name.starts_with("spent") {
            spent += bytes;
        }
    }
    report.table(&["on disk after the sync", "bytes", "each"]);
    let mut line = |what: &str, bytes: u64, count: f64, unit: &str| {
        report.row(&[
            what.to_owned(),
            format!("{:.1} MB", bytes as f64 / 1e6),
            format!("{:.1} bytes a {unit}", bytes as f64 / count),
        ]);
    };
    let transactions = chain.transactions as f64;
    line(
        "state (coins, totals, undo records)",
        state,
        coins as f64,
        "coin",
    );
    line("state's journal, bounded", journal, coins as f64, "coin");
    line(
        "rows (SQLite, blocks and transactions)",
        rows,
        transactions,
        "transaction row",
    );
    line("block log", blocks, transactions, "transaction");
    line(
        "spent outputs beside the blocks",
        spent,
        transactions,
        "transaction",
    );
    Ok(())
}

/// Files below `folder` with the bytes that they take on disk.
pub fn files(folder: &Path) -> Result<Vec<(PathBuf, u64)>> {
    use std::os::unix::fs::MetadataExt;
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in
            fs::read_dir(&folder).with_context(|| format!("failed to read {}", folder.display()))?
        {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                folders.push(entry.path());
            } else {
                found.push((entry.path(), metadata.blocks() * 512));
            }
        }
    }
    Ok(found)
}

/// Coins that are there before the sync with little memory.
const THERE: u64 = 1_000_000;

/// The whole chain again, on top of a million coins that are on the disk already, with the default cache and a small one.
///
/// # Errors
///
/// When a program fails, or the coins at the end are not as many as there should be.
pub fn measure_memory(
    target: &Path,
    folder: &Path,
    chain: &Chain,
    report: &mut Report,
) -> Result<()> {
    let peers = [Peer::start(&target.join("release/devnet"), &chain.path)?];
    let mut rows = Vec::new();
    let mut alone = None;
    for (name, database, there) in [
        ("256 MB (default)", "", 0),
        ("256 MB (default)", "", THERE),
        ("16 MB", SMALL, THERE),
    ] {
        let setup = Setup::new(target, &folder.join("memory"))?;
        let config = setup.config(target, database)?;
        setup.run(&config, &peers, 0)?;
        setup.fill(there)?;
        let usage = setup.run(&config, &peers, chain.height())?;
        let coins = setup
            .txoutset(&config)?
            .get("txouts")
            .and_then(Value::as_u64)
            .context("no number of coins")?;
        let expected = *alone.get_or_insert(coins) + there;
        ensure!(coins == expected, "{coins} coins instead of {expected}");
        rows.push((name, there, coins, usage, load()));
    }
    report.note(&format!(
        "memory: blocks 1 to {} on top of coins that are on disk already",
        chain.height(),
    ));
    report.table(&[
        "state cache",
        "coins there before",
        "coins after",
        "wall",
        "CPU",
        "peak memory",
        "load average",
    ]);
    for (name, there, coins, usage, load) in &rows {
        report.row(&[
            (*name).to_owned(),
            there.to_string(),
            coins.to_string(),
            format!("{:.2} s", usage.wall),
            format!("{:.2} s", usage.cpu()),
            format!("{:.0} MB", usage.peak as f64 / 1e6),
            load.clone(),
        ]);
    }
    for (name, there, _, usage, _) in &rows {
        report.note(&format!("memory: {name}, {there} coins there before"));
        stages(usage, chain, report);
    }
    Ok(())
}
