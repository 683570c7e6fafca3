//! The devnet of the demo: a child process, told what to do through its control socket.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::process::Process;

/// Where every node of a regtest network listens.
pub const USUAL_PORT: u16 = 18444;
/// How long one request may take; mining the first blocks is not one.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// A devnet that runs until it is dropped.
pub struct Devnet {
    process: Process,
    p2p: String,
    control: BufReader<TcpStream>,
}

/// A coin set as the devnet or the host describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoinSet {
    /// Height of the last block in it.
    pub height: u64,
    /// That block's hash.
    pub bestblock: String,
    /// Number of coins.
    pub txouts: u64,
    /// Their value in sat.
    pub total_sats: u64,
    /// MuHash3072, displayed.
    pub muhash: String,
    /// SHA256d over the coins in order, displayed.
    pub hash_serialized_3: String,
}

impl CoinSet {
    /// Reads the answer of `GET /api/v1/txoutset`, or the devnet's, which has the same fields.
    ///
    /// # Errors
    ///
    /// When a field is missing.
    pub fn read(answer: &Value) -> Result<Self> {
        let number = |field: &str| answer.get(field).and_then(Value::as_u64);
        let text = |field: &str| answer.get(field).and_then(Value::as_str).map(str::to_owned);
        (|| {
            Some(Self {
                height: number("height")?,
                bestblock: text("bestblock")?,
                txouts: number("txouts")?,
                total_sats: number("total_sats")?,
                muhash: text("muhash")?,
                hash_serialized_3: text("hash_serialized_3")?,
            })
        })()
        .with_context(|| format!("{answer} describes no coin set"))
    }
}

impl Devnet {
    /// Starts a devnet at `listen` with `blocks` blocks, the last of which was found a moment ago; `log` gets what it complains about.
    ///
    /// # Errors
    ///
    /// When it does not start.
    pub fn start(
        program: &Path,
        listen: SocketAddr,
        seed: u64,
        blocks: u32,
        block_weight: u64,
        log: &Path,
    ) -> Result<Self> {
        let log = File::create(log).with_context(|| format!("failed to make {}", log.display()))?;
        let mut command = Command::new(program);
        command
            .args(["--listen", &listen.to_string()])
            .args(["--seed", &seed.to_string()])
            .args(["--blocks", &blocks.to_string()])
            .args(["--block-weight", &block_weight.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut process = Process::spawn("the devnet", &mut command)?;
        let stdout = process.take_stdout().context("the devnet has no output")?;
        let mut line = String::new();
        BufReader::new(stdout)
            .read_line(&mut line)
            .context("failed to read what the devnet says")?;
        let ready: Value = serde_json::from_str(&line).context("the devnet did not start")?;
        let address = |field: &str| {
            ready
                .get(field)
                .and_then(Value::as_str)
                .map(str::to_owned)
                .with_context(|| format!("the devnet did not say its address: {line}"))
        };
        let p2p = address("p2p")?;
        let control = TcpStream::connect(address("control")?)
            .context("failed to connect to the devnet's control socket")?;
        control.set_read_timeout(Some(ANSWER_LIMIT))?;
        control.set_nodelay(true)?;
        Ok(Self {
            process,
            p2p,
            control: BufReader::new(control),
        })
    }

    /// The address of its peer-to-peer listener.
    pub fn p2p(&self) -> &str {
        &self.p2p
    }

    /// Writes up to `count` payments into its pool.
    ///
    /// # Errors
    ///
    /// As [`status`](Self::status).
    pub fn fill(&mut self, count: u64) -> Result<()> {
        self.ask(&json!({ "do": "fill", "n": count })).map(drop)
    }

    /// Replaces a transaction of its pool by one that pays more.
    ///
    /// # Errors
    ///
    /// As [`status`](Self::status).
    pub fn replace(&mut self) -> Result<()> {
        self.ask(&json!({ "do": "replace", "n": 1 })).map(drop)
    }

    /// Mines a block of what is in the pool.
    ///
    /// # Errors
    ///
    /// As [`status`](Self::status).
    pub fn mine(&mut self) -> Result<()> {
        self.ask(&json!({ "do": "block" })).map(drop)
    }

    /// Leaves the last `depth` blocks for `depth + 1` others; says what became of their transactions.
    ///
    /// # Errors
    ///
    /// As [`status`](Self::status).
    pub fn reorg(&mut self, depth: u64) -> Result<Value> {
        self.ask(&json!({ "do": "reorg", "depth": depth, "length": depth + 1 }))
    }

    /// Its coin set, counted and hashed.
    ///
    /// # Errors
    ///
    /// As [`status`](Self::status).
    pub fn coin_set(&mut self) -> Result<CoinSet> {
        CoinSet::read(&self.ask(&json!({ "do": "utxo" }))?)
    }

    /// Its height, tip and pool.
    ///
    /// # Errors
    ///
    /// When it does not answer, or refuses.
    pub fn status(&mut self) -> Result<Value> {
        self.ask(&json!({ "do": "status" }))
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
        let answer = self
            .exchange(request)
            .with_context(|| format!("the devnet does not answer to {request}"))?;
        if let Some(error) = answer.get("error") {
            bail!("the devnet refuses {request}: {error}");
        }
        Ok(answer)
    }

    fn exchange(&mut self, request: &Value) -> Result<Value> {
        self.control
            .get_mut()
            .write_all(format!("{request}\n").as_bytes())?;
        let mut answer = String::new();
        self.control.read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    }

    /// Ends it.
    ///
    /// # Errors
    ///
    /// When it does not end in time, or not with exit code 0.
    pub fn stop(mut self) -> Result<()> {
        let status = self.process.stop(STOP_LIMIT)?;
        if !status.success() {
            bail!("the devnet ended with {status}");
        }
        Ok(())
    }
}
