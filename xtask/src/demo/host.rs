//! The host of the demo: a child process, its log and its API.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use ureq::Agent;

use super::devnet::CoinSet;
use crate::process::Process;

/// Where pages and habit expect the API.
pub const USUAL_PORT: u16 = 3080;
/// How long one call to the API may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to end: the project promises 5 s.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Lines without a shape that are kept, to say why it ended.
const LAST_WORDS: usize = 20;

/// The plugins of the demo, in the order in which they are shown.
pub const PLUGINS: [&str; 3] = ["utxo-tracker", "tx-writer", "fee-estimator"];

/// A host that runs until it is dropped.
pub struct Host {
    process: Process,
    api: SocketAddr,
    agent: Agent,
    events: Receiver<Value>,
    reader: Option<JoinHandle<Vec<String>>>,
}

/// The configuration of the demo's host.
fn configuration(data: &Path, plugins: &Path, peer: &str, api: SocketAddr) -> String {
    format!(
        "# Written by cargo xtask demo. Every other key has its default: see config/blockmill.toml.\n\
         network = \"regtest\"\n\
         data_dir = {data:?}\n\
         \n\
         [peers]\n\
         connect = [\"{peer}\"]\n\
         \n\
         [api]\n\
         listen = \"{api}\"\n\
         \n\
         [plugins]\n\
         dir = {plugins:?}\n\
         \n\
         [plugins.utxo-tracker.settings]\n\
         # Coins and balances by address, beside coins by outpoint.\n\
         index = true\n\
         \n\
         [plugins.tx-writer.settings]\n\
         # Rows of every output and input, beside those of blocks and transactions.\n\
         outputs = true\n\
         inputs = true\n\
         \n\
         [plugins.fee-estimator]\n\
         enabled = true\n"
    )
}

impl Host {
    /// Starts a host in `folder`, connected to `peer`, with its API at `api`; its log goes to `blockmill.log` there, and comes out of
    /// [`event`](Self::event).
    ///
    /// # Errors
    ///
    /// When it cannot be started. When it ends by itself, [`event`](Self::event) says so.
    pub fn start(
        program: &Path,
        folder: &Path,
        plugins: &Path,
        peer: &str,
        api: SocketAddr,
    ) -> Result<Self> {
        let config = config_path(folder);
        let text = configuration(&folder.join("data"), plugins, peer, api);
        fs::write(&config, text)
            .with_context(|| format!("failed to write {}", config.display()))?;
        let mut command = Command::new(program);
        for (name, _) in std::env::vars_os() {
            // The host reads every such variable as a key of its configuration or as a log filter.
            if name.to_string_lossy().starts_with("BLOCKMILL_") || name == "RUST_LOG" {
                command.env_remove(name);
            }
        }
        command
            .args(["run", "--log-format", "json", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let log = log_path(folder);
        let log =
            File::create(&log).with_context(|| format!("failed to make {}", log.display()))?;
        let mut process = Process::spawn("the host", &mut command)?;
        let stderr = process.take_stderr().context("the host has no log")?;
        let (sender, events) = mpsc::channel();
        let reader = thread::spawn(move || read_log(BufReader::new(stderr), log, &sender));
        let agent = Agent::config_builder()
            .timeout_global(Some(CALL_LIMIT))
            .http_status_as_error(false)
            .build()
            .new_agent();
        Ok(Self {
            process,
            api,
            agent,
            events,
            reader: Some(reader),
        })
    }

    /// The address of its API.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// The next event of its log, if there is one.
    ///
    /// # Errors
    ///
    /// When the host has ended.
    pub fn event(&mut self) -> Result<Option<Value>> {
        match self.events.try_recv() {
            Ok(event) => Ok(Some(event)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => {
                let last = self.reader.take().and_then(|reader| reader.join().ok());
                let status = self.process.wait(STOP_LIMIT)?;
                let status =
                    status.map_or("no exit code yet".to_owned(), |status| status.to_string());
                bail!(
                    "the host ended with {status}\n{}",
                    last.unwrap_or_default().join("\n")
                )
            }
        }
    }

    /// `GET /api/v1/…`, or `None` while it does not answer with success.
    ///
    /// # Errors
    ///
    /// When the answer is no JSON.
    pub fn get(&self, path: &str) -> Result<Option<Value>> {
        let call = self
            .agent
            .get(format!("http://{}/api/v1/{path}", self.api))
            .call();
        let Ok(mut answer) = call else {
            return Ok(None);
        };
        if !answer.status().is_success() {
            return Ok(None);
        }
        let answer = answer.body_mut().read_json();
        answer
            .map(Some)
            .with_context(|| format!("the host's answer to {path} cannot be read"))
    }

    /// Its coin set, counted and hashed; `None` before the first block.
    ///
    /// # Errors
    ///
    /// When the answer cannot be read.
    pub fn coin_set(&self) -> Result<Option<CoinSet>> {
        let answer = self.get("txoutset")?;
        answer.as_ref().map(CoinSet::read).transpose()
    }

    /// Rows of blocks that it has written since its start.
    ///
    /// # Errors
    ///
    /// When the metrics cannot be read.
    pub fn rows_written(&self) -> Result<u64> {
        let text = self
            .agent
            .get(format!("http://{}/metrics", self.api))
            .call()
            .and_then(|mut answer| answer.body_mut().read_to_string())
            .context("failed to read the metrics of the host")?;
        Ok(sum_of(&text, "blockmill_plugin_rows_total"))
    }

    /// Ends it as a service manager would.
    ///
    /// # Errors
    ///
    /// When it does not end in time, or not with exit code 0.
    pub fn stop(mut self) -> Result<()> {
        let status = self.process.stop(STOP_LIMIT)?;
        let last = self.reader.take().and_then(|reader| reader.join().ok());
        if !status.success() {
            bail!(
                "the host ended with {status}\n{}",
                last.unwrap_or_default().join("\n")
            );
        }
        Ok(())
    }
}

/// The sum of all series of a metric, in Prometheus' text.
fn sum_of(text: &str, metric: &str) -> u64 {
    let series = text.lines().filter(|line| line.starts_with(metric));
    series
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

/// Copies the log to `file` and sends its events on, until the host ends. Returns the last lines that were no events: what it
/// says before its log has begun, and after.
fn read_log(log: impl BufRead, mut file: File, events: &mpsc::Sender<Value>) -> Vec<String> {
    let mut last = Vec::new();
    for line in log.lines().map_while(Result::ok) {
        // The log goes on being shown when it cannot be kept.
        let _ = writeln!(file, "{line}");
        match serde_json::from_str::<Value>(&line) {
            // Nobody may be listening any more.
            Ok(event) => drop(events.send(event)),
            Err(_) => {
                if last.len() == LAST_WORDS {
                    last.remove(0);
                }
                last.push(line);
            }
        }
    }
    last
}

/// Its configuration file.
pub fn config_path(folder: &Path) -> PathBuf {
    folder.join("blockmill.toml")
}

/// Its log.
pub fn log_path(folder: &Path) -> PathBuf {
    folder.join("blockmill.log")
}

/// Its database.
pub fn database_path(folder: &Path) -> PathBuf {
    folder.join("data/regtest/blockmill.sqlite")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn the_series_of_one_metric_are_summed() {
        let text = "# HELP a b\nrows_total{plugin=\"a\"} 12\nrows_total{plugin=\"b\"} 3\nrows_seconds 4\n# EOF\n";
        assert_eq!(sum_of(text, "rows_total"), 15);
        assert_eq!(sum_of(text, "none"), 0);
    }

    #[test]
    fn lines_that_are_no_events_are_the_last_words() {
        let log = "{\"message\":\"block\",\"height\":5}\nerror: the port is in use\n";
        let (sender, events) = mpsc::channel();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let last = read_log(log.as_bytes(), File::create(&path).unwrap(), &sender);
        assert_eq!(last, ["error: the port is in use"]);
        assert_eq!(events.recv().unwrap()["height"], 5);
        assert_eq!(fs::read_to_string(path).unwrap(), log);
    }
}
