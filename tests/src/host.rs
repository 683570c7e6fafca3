//! A running host: the real program, on regtest and on loopback, with a data folder of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;
use ureq::Agent;
use xtask::process::Process;
use xtask::programs::{self, Profile};
use xtask::workspace;

/// How long one call to its API may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);
/// How long it may take to end: the project promises 5 s.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// How often a waiting function looks.
const POLL: Duration = Duration::from_millis(100);

/// The program, as `cargo xtask test` builds it; the environment's `BLOCKMILL_BIN` names another.
///
/// # Errors
///
/// When it was not built.
pub fn program() -> Result<PathBuf> {
    let path = match std::env::var_os("BLOCKMILL_BIN") {
        Some(path) => PathBuf::from(path),
        None => programs::path(&workspace::root(), "blockmill", Profile::Debug),
    };
    ensure!(
        path.is_file(),
        "{} is missing: run `cargo xtask test --only programs`",
        path.display()
    );
    Ok(path)
}

/// The program, without what our own environment would tell it: it reads every `BLOCKMILL_` variable as a key of its
/// configuration, and refuses those of the tests.
fn command() -> Result<Command> {
    let mut command = Command::new(program()?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BLOCKMILL_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// A host that runs until it is dropped.
#[derive(Debug)]
pub struct Host {
    process: Process,
    api: SocketAddr,
    agent: Agent,
    // Dropped last: the host writes into it until it ends.
    folder: TempDir,
}

impl Host {
    /// Starts a host with an empty data folder, these plugins of `plugins/`, and these peers.
    ///
    /// # Errors
    ///
    /// When the program or a plugin was not built, or the host does not come up.
    pub fn start(peers: &[SocketAddr], plugins: &[&str]) -> Result<Self> {
        let tables: String = plugins
            .iter()
            .map(|plugin| format!("\n[plugins.{plugin}]\nenabled = true\n"))
            .collect();
        Self::start_with(peers, &tables)
    }

    /// As [`start`](Self::start), with the tables of the plugins in TOML; a key that comes before the first of them belongs to
    /// `[plugins]`.
    ///
    /// # Errors
    ///
    /// As [`start`](Self::start).
    pub fn start_with(peers: &[SocketAddr], plugins: &str) -> Result<Self> {
        let folder = tempfile::tempdir().context("failed to make a folder for the host")?;
        let root = workspace::root();
        let peers: Vec<String> = peers.iter().map(|peer| format!("\"{peer}\"")).collect();
        let api = crate::free_address()?;
        let config = format!(
            "network = \"regtest\"\ndata_dir = \"{}\"\n\n[peers]\nconnect = [{}]\n\n[api]\nlisten = \"{api}\"\n\n\
             [plugins]\ndir = \"{}\"\n{plugins}",
            folder.path().join("data").display(),
            peers.join(", "),
            xtask::plugins::folder(&root, false).display(),
        );
        let path = config_path(folder.path());
        fs::write(&path, config).with_context(|| format!("failed to write {}", path.display()))?;
        let log = log_path(folder.path());
        let log =
            File::create(&log).with_context(|| format!("failed to make {}", log.display()))?;
        let process = Process::spawn(
            "blockmill",
            command()?
                .arg("run")
                .arg("--config")
                .arg(&path)
                .stdin(Stdio::null())
                .stderr(log.try_clone().context("failed to share a log")?)
                .stdout(log),
        )?;
        let agent = Agent::config_builder()
            .timeout_global(Some(CALL_LIMIT))
            .http_status_as_error(false)
            .build()
            .new_agent();
        let mut host = Self {
            process,
            api,
            agent,
            folder,
        };
        // Compiling the plugins comes before the first answer.
        host.wait_for("its first answer", Duration::from_secs(120), |status| {
            status.get("version").is_some().then_some(())
        })?;
        Ok(host)
    }

    /// `GET /api/v1/…`, the answer as JSON, errors too.
    ///
    /// # Errors
    ///
    /// When there is no answer, or one that is no JSON.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.agent
            .get(format!("http://{}/api/v1/{path}", self.api))
            .call()
            .and_then(|mut response| response.body_mut().read_json())
            .with_context(|| format!("failed to get {path} of the host"))
    }

    /// Asks for the status until `wanted` finds in it what is waited for; `what` names that.
    ///
    /// # Errors
    ///
    /// When the host ends, or `limit` is over: with its last status and its log.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&Value) -> Option<T>,
    ) -> Result<T> {
        let start = Instant::now();
        loop {
            let status = self.get("status");
            if let Some(found) = status.as_ref().ok().and_then(&mut wanted) {
                return Ok(found);
            }
            if let Some(ended) = self.process.status()? {
                bail!("the host ended with {ended}:\n{}", self.log());
            }
            if start.elapsed() > limit {
                bail!(
                    "the host did not come to {what} within {limit:?}; status {status:?}, log:\n{}",
                    self.log()
                );
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until the chain and every plugin are at `height`.
    ///
    /// # Errors
    ///
    /// As [`wait_for`](Self::wait_for).
    pub fn wait_for_height(&mut self, height: u32, limit: Duration) -> Result<()> {
        self.wait_for(&format!("height {height}"), limit, |status| {
            let at = |value: Option<&Value>| value.and_then(Value::as_u64) == Some(height.into());
            let plugins = status.get("plugins")?.as_array()?;
            let all = plugins.iter().all(|plugin| at(plugin.get("height")));
            (at(status.pointer("/tip/height")) && all && !plugins.is_empty()).then_some(())
        })
    }

    /// What `blockmill txoutset --json` says of it.
    ///
    /// # Errors
    ///
    /// When the command fails.
    pub fn txoutset(&self) -> Result<Value> {
        let output = command()?
            .args(["txoutset", "--json", "--config"])
            .arg(config_path(self.folder.path()))
            .output()
            .context("failed to start blockmill txoutset")?;
        ensure!(
            output.status.success(),
            "blockmill txoutset failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).context("blockmill txoutset gave no JSON")
    }

    /// What it has logged until now.
    pub fn log(&self) -> String {
        fs::read_to_string(log_path(self.folder.path())).unwrap_or_default()
    }

    /// Stops it as a service manager would.
    ///
    /// # Errors
    ///
    /// When it does not end in time, or not with exit code 0.
    pub fn stop(mut self) -> Result<()> {
        let status = self.process.stop(STOP_LIMIT)?;
        ensure!(
            status.success(),
            "the host ended with {status}:\n{}",
            self.log()
        );
        Ok(())
    }
}

fn config_path(folder: &Path) -> PathBuf {
    folder.join("blockmill.toml")
}

fn log_path(folder: &Path) -> PathBuf {
    folder.join("blockmill.log")
}
