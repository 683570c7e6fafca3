//! A running host: the real program, on regtest and on loopback, with a data folder of its own.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
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
///
/// # Errors
///
/// As [`program`].
pub fn command() -> Result<Command> {
    let mut command = Command::new(program()?);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BLOCKMILL_") {
            command.env_remove(name);
        }
    }
    Ok(command)
}

/// The tables of the two plugins that keep everything: the coins, and every table of rows.
pub const ALL_ROWS: &str = "\n[plugins.utxo-tracker]\n\n[plugins.tx-writer]\n\n[plugins.tx-writer.settings]\n\
                            inputs = true\noutputs = true\n";

/// A configuration, a data folder and a log, which outlive the hosts that run on them. Clones are the same installation.
#[derive(Debug, Clone)]
pub struct Installation {
    // Gone with the last clone.
    folder: Arc<TempDir>,
    network: &'static str,
    /// The chain file that describes it, where it is none that is built in.
    chain: Option<PathBuf>,
    sections: Vec<(&'static str, String)>,
    plugins: String,
}

impl Installation {
    /// An empty one for a network, with these peers and no plugin. Pauses before another try are short, so that tests are.
    ///
    /// # Errors
    ///
    /// When there is no folder for it.
    pub fn new(network: &'static str, peers: &[SocketAddr]) -> Result<Self> {
        let folder = tempfile::tempdir().context("failed to make a folder for the host")?;
        let installation = Self {
            folder: Arc::new(folder),
            network,
            chain: None,
            sections: Vec::new(),
            plugins: String::new(),
        };
        Ok(installation.peers(peers))
    }

    /// With these peers instead.
    pub fn peers(self, peers: &[SocketAddr]) -> Self {
        let peers: Vec<String> = peers.iter().map(|peer| format!("\"{peer}\"")).collect();
        self.key("peers", &format!("connect = [{}]", peers.join(", ")))
    }

    /// On the chain that this file, in TOML, describes; its `name` must be the network's.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn chain_file(mut self, text: &str) -> Result<Self> {
        let path = self.folder().join("chain.toml");
        fs::write(&path, text).with_context(|| format!("failed to write {}", path.display()))?;
        self.chain = Some(path);
        Ok(self)
    }

    /// With a line more in a section of the configuration, `key = value` in TOML. A key that is there is replaced.
    pub fn key(mut self, section: &'static str, line: &str) -> Self {
        let key = line.split('=').next();
        self.sections
            .retain(|(other, there)| *other != section || there.split('=').next() != key);
        self.sections.push((section, line.to_owned()));
        self
    }

    /// With these tables of plugins in TOML.
    pub fn plugins(mut self, tables: &str) -> Self {
        self.plugins.push_str(tables);
        self
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of the network's data.
    pub fn data(&self) -> PathBuf {
        self.folder().join("data").join(self.network)
    }

    /// The database of its rows.
    pub fn database(&self) -> PathBuf {
        self.data().join("blockmill.sqlite")
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        config_path(self.folder())
    }

    /// Writes the configuration file, with this address for the API.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write_config(&self, api: SocketAddr) -> Result<()> {
        let mut config = format!(
            "network = \"{}\"\ndata_dir = \"{}\"\n",
            match &self.chain {
                Some(path) => path.display().to_string(),
                None => self.network.to_owned(),
            },
            self.folder().join("data").display()
        );
        let mut names: Vec<&str> = self.sections.iter().map(|(name, _)| *name).collect();
        names.extend(["api", "plugins"]);
        names.sort_unstable();
        names.dedup();
        // The tables of plugins come after all others.
        names.sort_by_key(|name| *name == "plugins");
        for name in names {
            config.push_str(&format!("\n[{name}]\n"));
            let lines = self.sections.iter().filter(|(section, _)| *section == name);
            let keys: Vec<&str> = lines.map(|(_, line)| line.as_str()).collect();
            let given = |key: &str| keys.iter().any(|line| line.starts_with(key));
            if name == "api" && !given("listen") {
                config.push_str(&format!("listen = \"{api}\"\n"));
            }
            if name == "plugins" && !given("dir") {
                let folder = xtask::plugins::folder(&workspace::root(), false);
                config.push_str(&format!("dir = \"{}\"\n", folder.display()));
            }
            for line in keys {
                config.push_str(line);
                config.push('\n');
            }
        }
        config.push_str(&self.plugins);
        let path = self.config();
        fs::write(&path, config).with_context(|| format!("failed to write {}", path.display()))
    }

    /// Starts a host and does not wait for anything.
    ///
    /// # Errors
    ///
    /// When the program was not built, or does not start.
    pub fn spawn(&self, args: &[&str]) -> Result<Host> {
        let api = crate::free_address()?;
        self.write_config(api)?;
        let log = log_path(self.folder());
        let log = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("failed to make {}", log.display()))?;
        let process = Process::spawn(
            "blockmill",
            command()?
                .arg("run")
                .arg("--config")
                .arg(self.config())
                .args(args)
                .stdin(Stdio::null())
                .stderr(log.try_clone().context("failed to share a log")?)
                .stdout(log),
        )?;
        let agent = Agent::config_builder()
            .timeout_global(Some(CALL_LIMIT))
            .http_status_as_error(false)
            .build()
            .new_agent();
        Ok(Host {
            process,
            api,
            agent,
            installation: self.clone(),
        })
    }

    /// Starts a host and waits until it answers.
    ///
    /// # Errors
    ///
    /// When the program or a plugin was not built, or the host does not come up.
    pub fn start(&self) -> Result<Host> {
        let mut host = self.spawn(&[])?;
        // Compiling the plugins comes before the first answer.
        host.wait_for("its first answer", Duration::from_secs(120), |status| {
            status.get("version").is_some().then_some(())
        })?;
        Ok(host)
    }

    /// Runs a host until every plugin has the block at `height` on disk.
    ///
    /// # Errors
    ///
    /// When it does not get there within `limit`, or ends with another exit code than 0.
    pub fn run_to_height(&self, height: u32, limit: Duration) -> Result<()> {
        let mut host = self.spawn(&["--stop-at-height", &height.to_string()])?;
        let status = host.process.wait(limit)?;
        ensure!(
            status.is_some_and(|status| status.success()),
            "the host did not stop by itself at {height}: {status:?}\n{}",
            self.log()
        );
        Ok(())
    }

    /// Runs the program to its end, with `--config` and these arguments.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn command(&self, args: &[&str]) -> Result<Output> {
        command()?
            .args(args)
            .arg("--config")
            .arg(self.config())
            .stdin(Stdio::null())
            .output()
            .context("failed to run blockmill")
    }

    /// What `blockmill txoutset --json` says of the data while no host runs on them.
    ///
    /// # Errors
    ///
    /// When the command fails.
    pub fn txoutset(&self) -> Result<Value> {
        let mut command = command()?;
        // Somebody else may listen where the host did.
        command.env("BLOCKMILL_API__ENABLED", "false");
        txoutset(&mut command, &self.config())
    }

    /// What all hosts on it have logged until now.
    pub fn log(&self) -> String {
        fs::read_to_string(log_path(self.folder())).unwrap_or_default()
    }
}

fn txoutset(command: &mut Command, config: &Path) -> Result<Value> {
    let output = command
        .args(["txoutset", "--json", "--config"])
        .arg(config)
        .output()
        .context("failed to start blockmill txoutset")?;
    ensure!(
        output.status.success(),
        "blockmill txoutset failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("blockmill txoutset gave no JSON")
}

/// A host that runs until it is dropped.
#[derive(Debug)]
pub struct Host {
    process: Process,
    api: SocketAddr,
    agent: Agent,
    // Dropped last: the host writes into it until it ends.
    installation: Installation,
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
        Installation::new("regtest", peers)?
            .plugins(plugins)
            .start()
    }

    /// What it runs on.
    pub fn installation(&self) -> &Installation {
        &self.installation
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where its API listens.
    pub fn api(&self) -> SocketAddr {
        self.api
    }

    /// `GET` of a path of the API: status code and body.
    ///
    /// # Errors
    ///
    /// When there is no answer.
    pub fn get_text(&self, path: &str) -> Result<(u16, String)> {
        let mut response = self
            .agent
            .get(format!("http://{}{path}", self.api))
            .call()
            .with_context(|| format!("failed to get {path} of the host"))?;
        let text = response.body_mut().read_to_string();
        let text = text.with_context(|| format!("failed to read {path} of the host"))?;
        Ok((response.status().as_u16(), text))
    }

    /// Asks a plugin as the host's owner, with the token of its data folder or another: status code and answer.
    ///
    /// # Errors
    ///
    /// When there is no answer, or one that is no JSON.
    pub fn change(&self, question: &str, token: Option<&str>) -> Result<(u16, Value)> {
        let ours = fs::read_to_string(self.installation.data().join("owner-token"))
            .context("the host has left no token")?;
        let mut response = self
            .agent
            .post(format!("http://{}/api/v1/plugins/{question}", self.api))
            .header(
                "authorization",
                format!("Bearer {}", token.unwrap_or(&ours)),
            )
            .send_empty()
            .with_context(|| format!("failed to post {question} to the host"))?;
        let answer = response.body_mut().read_json();
        let answer = answer.with_context(|| format!("failed to read {question} of the host"))?;
        Ok((response.status().as_u16(), answer))
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
        txoutset(&mut command()?, &self.installation.config())
    }

    /// What it has logged until now.
    pub fn log(&self) -> String {
        self.installation.log()
    }

    /// Waits until the chain and every plugin are at the block with this hash.
    ///
    /// # Errors
    ///
    /// As [`wait_for`](Self::wait_for).
    pub fn wait_for_tip(&mut self, hash: &str, limit: Duration) -> Result<()> {
        self.wait_for(&format!("block {hash}"), limit, |status| {
            let at = |value: Option<&Value>| value.and_then(Value::as_str) == Some(hash);
            let plugins = status.get("plugins")?.as_array()?;
            let all = plugins.iter().all(|plugin| at(plugin.get("hash")));
            (at(status.pointer("/tip/hash")) && all && !plugins.is_empty()).then_some(())
        })
    }

    /// Waits until the chain and every plugin are at the block with this hash, and the coins of that block are on disk: what
    /// [`txoutset`](Self::txoutset) says of them.
    ///
    /// # Errors
    ///
    /// As [`wait_for`](Self::wait_for).
    pub fn coins_at(&mut self, hash: &str, limit: Duration) -> Result<Value> {
        self.wait_for_tip(hash, limit)?;
        let start = Instant::now();
        loop {
            // Before the first flush there is no answer.
            let coins = self.txoutset();
            match coins {
                Ok(coins) if coins.get("bestblock").and_then(Value::as_str) == Some(hash) => {
                    return Ok(coins);
                }
                _ if start.elapsed() < limit => {}
                _ => bail!("the coins stay behind {hash}: {coins:?}\n{}", self.log()),
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until the log of the installation has `count` lines with `text`.
    ///
    /// # Errors
    ///
    /// As [`wait_for`](Self::wait_for).
    pub fn wait_for_lines(&mut self, text: &str, count: u32, limit: Duration) -> Result<()> {
        let start = Instant::now();
        loop {
            let log = self.log();
            if log.matches(text).count() >= count as usize {
                return Ok(());
            }
            if let Some(ended) = self.process.status()? {
                bail!("the host ended with {ended} before it logged {text}:\n{log}");
            }
            if start.elapsed() > limit {
                bail!("the host did not log {text} within {limit:?}:\n{log}");
            }
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until it has logged a line in which `wanted` finds what is waited for.
    ///
    /// # Errors
    ///
    /// As [`wait_for`](Self::wait_for).
    pub fn wait_for_log(
        &mut self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<String> {
        let start = Instant::now();
        loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| wanted(line)) {
                return Ok(line.to_owned());
            }
            if let Some(ended) = self.process.status()? {
                bail!("the host ended with {ended} before it logged {what}:\n{log}");
            }
            if start.elapsed() > limit {
                bail!("the host did not log {what} within {limit:?}:\n{log}");
            }
            thread::sleep(POLL);
        }
    }

    /// Kills it at once, as a power cut would (SIGKILL).
    ///
    /// # Errors
    ///
    /// When it cannot be killed.
    pub fn kill9(mut self) -> Result<()> {
        self.process.kill().map(drop)
    }

    /// Waits for its end by itself; `None` when it goes on after `limit`.
    ///
    /// # Errors
    ///
    /// When it cannot be waited for.
    pub fn wait_for_end(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        self.process.wait(limit)
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
