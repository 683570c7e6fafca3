//! The control socket: one JSON request a line, one JSON answer a line.
//!
//! ```text
//! {"do":"mine","n":1}            {"height":111,"tip":"…","blocks":["…"]}
//! {"do":"fill","n":50}           {"added":50,"mempool":50}
//! {"do":"reorg","depth":3,"length":4}
//! {"do":"utxo"}                  {"height":…,"bestblock":"…","txouts":…,"total_sats":…,"muhash":"…","hash_serialized_3":"…"}
//! {"do":"nonsense"}              {"error":"…"}
//! ```

use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use bitcoin::consensus::encode::deserialize_hex;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::devnet::Devnet;
use crate::server::{Behaviour, lock};

/// What can be asked for.
#[derive(Debug, Deserialize)]
#[serde(tag = "do", rename_all = "lowercase", deny_unknown_fields)]
enum Request {
    /// Mines blocks, each after writing payments.
    Mine {
        #[serde(default = "one")]
        n: u32,
    },
    /// Mines one block from the pool as it is.
    Block {},
    /// Writes payments into the pool.
    Fill {
        #[serde(default = "many")]
        n: usize,
    },
    /// Replaces transactions of the pool by others that pay more.
    Replace {
        #[serde(default = "many")]
        n: usize,
    },
    /// Offers a transaction to the pool.
    Submit { hex: String },
    /// Leaves blocks for a longer branch.
    Reorg { depth: u32, length: u32 },
    /// Adds the blocks of a file.
    Load { file: PathBuf },
    /// Shows blocks up to a height only, or all.
    Limit { height: Option<u32> },
    /// Changes what a listener does wrong; without an address, the first.
    Behave {
        addr: Option<SocketAddr>,
        #[serde(default)]
        behaviour: Behaviour,
    },
    /// Listens on one more port as another peer.
    Listen {
        #[serde(default = "agent")]
        user_agent: String,
        #[serde(default)]
        behaviour: Behaviour,
    },
    /// Drops all clients.
    Disconnect {},
    /// Tells clients of the whole pool again.
    Announce {},
    /// Counts and hashes the coin set.
    Utxo {},
    /// Height, tip, pool, clients.
    Status {},
    /// Ends the program.
    Stop {},
}

fn one() -> u32 {
    1
}

fn many() -> usize {
    10
}

fn agent() -> String {
    "/devnet:0.1/".to_owned()
}

struct Shared {
    devnet: Arc<Devnet>,
    on_stop: Box<dyn Fn() + Send + Sync>,
    stopping: AtomicBool,
    connections: Mutex<Vec<(TcpStream, JoinHandle<()>)>>,
}

/// A control socket that listens.
pub struct Control {
    shared: Arc<Shared>,
    addr: SocketAddr,
    listener: Option<JoinHandle<()>>,
}

impl Control {
    /// Listens. `on_stop` is called when a client asks the program to end; ending it is up to the caller.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(
        devnet: Arc<Devnet>,
        listen: SocketAddr,
        on_stop: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self> {
        let listener = TcpListener::bind(listen)
            .with_context(|| format!("cannot listen on {listen} for control"))?;
        let addr = listener
            .local_addr()
            .context("cannot tell the control address")?;
        let shared = Arc::new(Shared {
            devnet,
            on_stop: Box::new(on_stop),
            stopping: AtomicBool::new(false),
            connections: Mutex::new(Vec::new()),
        });
        let accepting = Arc::clone(&shared);
        let listener = std::thread::Builder::new()
            .name("devnet-control".into())
            .spawn(move || accept(&accepting, &listener))
            .context("cannot start a thread")?;
        Ok(Self {
            shared,
            addr,
            listener: Some(listener),
        })
    }

    /// The address that it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops listening, drops all connections and waits for their threads.
    pub fn stop(&mut self) {
        let Some(listener) = self.listener.take() else {
            return;
        };
        self.shared.stopping.store(true, Ordering::SeqCst);
        // A connection of our own wakes the listener, which waits in accept().
        let _ = TcpStream::connect(self.addr);
        let _ = listener.join();
        for (stream, thread) in std::mem::take(&mut *lock(&self.shared.connections)) {
            let _ = stream.shutdown(Shutdown::Both);
            let _ = thread.join();
        }
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        self.stop();
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    for stream in listener.incoming() {
        if shared.stopping.load(Ordering::SeqCst) {
            break;
        }
        let Ok(stream) = stream else { continue };
        let Ok(ours) = stream.try_clone() else {
            continue;
        };
        let serving = Arc::clone(shared);
        let thread = std::thread::spawn(move || {
            // A client that goes in the middle of an answer is no concern of ours.
            let _ = converse(&serving, &stream);
        });
        let mut connections = lock(&shared.connections);
        connections.retain(|(_, thread)| !thread.is_finished());
        connections.push((ours, thread));
    }
}

fn converse(shared: &Shared, mut stream: &TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let request = serde_json::from_str::<Request>(&line).context("not a request");
        let stop = matches!(request, Ok(Request::Stop {}));
        let answer = request
            .and_then(|request| answer(&shared.devnet, request))
            .unwrap_or_else(|error| json!({ "error": format!("{error:#}") }));
        stream.write_all(format!("{answer}\n").as_bytes())?;
        if stop {
            (shared.on_stop)();
        }
    }
    Ok(())
}

fn answer(devnet: &Devnet, request: Request) -> Result<Value> {
    Ok(match request {
        Request::Mine { n } => mined(devnet, &devnet.mine(n)?),
        Request::Block {} => mined(devnet, &[devnet.mine_block()?]),
        Request::Fill { n } => {
            let added = devnet.fill_mempool(n).len();
            json!({ "added": added, "mempool": devnet.status().mempool })
        }
        Request::Replace { n } => {
            let pairs = devnet.replace(n);
            json!({ "replaced": pairs, "mempool": devnet.status().mempool })
        }
        Request::Submit { hex } => {
            let tx = deserialize_hex(&hex).context("cannot decode transaction")?;
            json!({ "txid": devnet.submit(tx)? })
        }
        Request::Reorg { depth, length } => serde_json::to_value(devnet.reorg(depth, length)?)?,
        Request::Load { file } => {
            devnet.load(file)?;
            serde_json::to_value(devnet.status())?
        }
        Request::Limit { height } => {
            devnet.limit_height(height)?;
            serde_json::to_value(devnet.status())?
        }
        Request::Behave { addr, behaviour } => {
            devnet.set_behaviour(addr.unwrap_or_else(|| devnet.p2p_addr()), behaviour)?;
            json!({})
        }
        Request::Listen {
            user_agent,
            behaviour,
        } => {
            json!({ "p2p": devnet.add_server(&user_agent, behaviour)? })
        }
        Request::Disconnect {} => {
            devnet.disconnect_clients();
            json!({})
        }
        Request::Announce {} => {
            devnet.announce_pool();
            json!({})
        }
        Request::Utxo {} => serde_json::to_value(devnet.utxo_set()?)?,
        Request::Status {} => serde_json::to_value(devnet.status())?,
        Request::Stop {} => json!({ "stopping": true }),
    })
}

fn mined(devnet: &Devnet, blocks: &[bitcoin::BlockHash]) -> Value {
    let status = devnet.status();
    json!({ "height": status.height, "tip": status.tip, "blocks": blocks })
}
