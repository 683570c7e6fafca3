//! Child processes: the devnet that serves, the host that is measured, and what the system says of it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use devnet::Behaviour;
use serde_json::{Value, json};

/// How often a running host is looked at.
const POLL: Duration = Duration::from_millis(20);
/// Times in /proc are in hundredths of a second (USER_HZ, the same on every Linux that Rust runs on).
const TICKS: f64 = 100.0;

/// A devnet that serves blocks, ended when it is dropped.
pub struct Peer {
    child: Child,
    pub address: String,
    control: String,
}

impl Peer {
    /// Starts it and waits until it serves `blocks`.
    pub fn start(program: &Path, blocks: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .arg("--no-coins")
            .arg("--serve")
            .arg(blocks)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("failed to start {}", program.display()))?;
        let stdout = child.stdout.take().context("no output of the devnet")?;
        let mut peer = Self {
            child,
            address: String::new(),
            control: String::new(),
        };
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let ready: Value = serde_json::from_str(&line).context("the devnet did not come up")?;
        let address = |field| {
            let address = ready.get(field).and_then(Value::as_str);
            address
                .map(str::to_owned)
                .context("the devnet has no address")
        };
        peer.address = address("p2p")?;
        peer.control = address("control")?;
        Ok(peer)
    }

    /// Tells it how to behave from now on.
    pub fn behave(&self, behaviour: &Behaviour) -> Result<()> {
        let request = json!({"do": "behave", "behaviour": behaviour});
        let mut stream = TcpStream::connect(&self.control).context("no answer of the devnet")?;
        writeln!(stream, "{request}")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        ensure!(
            !answer.contains("\"error\""),
            "the devnet refuses {request}: {answer}"
        );
        Ok(())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        // It keeps nothing that a kill could spoil.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How far a host was at a time.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Seconds since its start.
    pub at: f64,
    /// Height of the plugin that is the furthest behind.
    pub plugins: u32,
    /// CPU seconds until now.
    pub cpu: f64,
}

/// What a host used from its start to its end.
#[derive(Debug, Default)]
pub struct Usage {
    /// Seconds, from the start of the process to its end.
    pub wall: f64,
    pub user: f64,
    pub system: f64,
    /// Largest resident set in bytes.
    pub peak: u64,
    /// CPU seconds by name of thread.
    pub threads: BTreeMap<String, f64>,
    /// Seconds and blocks by stage and plugin, as its metrics showed them last.
    pub stages: BTreeMap<String, (f64, f64)>,
    pub samples: Vec<Sample>,
}

impl Usage {
    /// CPU seconds.
    pub fn cpu(&self) -> f64 {
        self.user + self.system
    }
}

/// A command of the host, without what our own environment would tell it.
pub fn host(program: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("BLOCKMILL_") {
            command.env_remove(name);
        }
    }
    command
}

/// Runs a host to its end and watches it. `api` is where it listens.
pub fn watch(command: &mut Command, api: SocketAddr, log: &Path) -> Result<Usage> {
    let output = File::create(log).with_context(|| format!("failed to make {}", log.display()))?;
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output);
    let start = Instant::now();
    let mut child = command.spawn().context("failed to start the host")?;
    let watched = follow(child.id(), api, start);
    if watched.is_err() {
        let _ = child.kill();
    }
    let status = child.wait()?;
    let usage = watched?;
    if !status.success() {
        bail!(
            "the host ended with {status}:\n{}",
            fs::read_to_string(log).unwrap_or_default()
        );
    }
    Ok(usage)
}

fn follow(pid: u32, api: SocketAddr, start: Instant) -> Result<Usage> {
    let proc = Path::new("/proc").join(pid.to_string());
    let mut usage = Usage::default();
    let mut threads: BTreeMap<String, (String, f64)> = BTreeMap::new();
    for round in 0u32.. {
        // A process that has ended keeps its times until it is waited for.
        let stat = fs::read_to_string(proc.join("stat")).context("the host is gone")?;
        let (_, state, user, system) = stat_fields(&stat).context("unknown format of /proc")?;
        (usage.user, usage.system) = (user, system);
        if state == "Z" {
            usage.wall = start.elapsed().as_secs_f64();
            break;
        }
        let status = fs::read_to_string(proc.join("status")).unwrap_or_default();
        let peak = status.lines().find_map(|line| {
            line.strip_prefix("VmHWM:")?
                .trim()
                .strip_suffix(" kB")?
                .parse::<u64>()
                .ok()
        });
        usage.peak = usage.peak.max(peak.unwrap_or(0) * 1024);
        for task in fs::read_dir(proc.join("task"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            if let Some((name, _, user, system)) = stat_fields(&stat) {
                let id = task.file_name().to_string_lossy().into_owned();
                threads.insert(id, (name, user + system));
            }
        }
        if round % 5 == 4
            && let Some(text) = metrics(api)
        {
            usage.stages = stages(&text);
            let plugins = text
                .lines()
                .filter(|line| line.starts_with("blockmill_plugin_height{"))
                .filter_map(value)
                .fold(f64::INFINITY, f64::min);
            usage.samples.push(Sample {
                at: start.elapsed().as_secs_f64(),
                plugins: if plugins.is_finite() {
                    plugins as u32
                } else {
                    0
                },
                cpu: user + system,
            });
        }
        ensure!(
            start.elapsed() < Duration::from_secs(1_800),
            "the host did not end within half an hour"
        );
        std::thread::sleep(POLL);
    }
    for (name, cpu) in threads.into_values() {
        *usage.threads.entry(name).or_default() += cpu;
    }
    Ok(usage)
}

/// Name, state, CPU seconds of user and system out of a `stat` file.
fn stat_fields(stat: &str) -> Option<(String, String, f64, f64)> {
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    let mut fields = after.split_whitespace();
    let state = fields.next()?.to_owned();
    let user: f64 = fields.nth(10)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((name, state, user / TICKS, system / TICKS))
}

/// What the host tells Prometheus, if it answers at once.
fn metrics(api: SocketAddr) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&api, Duration::from_millis(200)).ok()?;
    stream
        .set_read_timeout(Some(Duration::from_millis(500)))
        .ok()?;
    stream
        .write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    Some(text)
}

fn value(line: &str) -> Option<f64> {
    line.rsplit_once(' ')?.1.parse().ok()
}

/// Sum and count of every stage, named `stage` or `stage plugin`.
fn stages(text: &str) -> BTreeMap<String, (f64, f64)> {
    let mut found: BTreeMap<String, (f64, f64)> = BTreeMap::new();
    for line in text.lines() {
        let Some(rest) = line.strip_prefix("blockmill_block_stage_seconds_") else {
            continue;
        };
        let label = |name: &str| {
            let (_, after) = rest.split_once(&format!("{name}=\""))?;
            Some(after.split_once('"')?.0.to_owned())
        };
        let (Some(stage), Some(number)) = (label("stage"), value(line)) else {
            continue;
        };
        let plugin = label("plugin").unwrap_or_default();
        let entry = found
            .entry(format!("{stage} {plugin}").trim().to_owned())
            .or_default();
        if rest.starts_with("sum") {
            entry.0 = number;
        } else if rest.starts_with("count") {
            entry.1 = number;
        }
    }
    found
}
