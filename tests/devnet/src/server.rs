//! The peer-to-peer server: protocol version 1, any number of clients, one chain behind any number of listeners.
//!
//! Two threads a client: one reads and answers, one writes what the first and the node have put in its outbox.

mod behaviour;
mod client;
mod compact;
mod encrypted;
pub(crate) mod frame;
mod outbox;

use std::collections::BTreeMap;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use anyhow::{Context, Result};
use bitcoin::p2p::Magic;

pub use behaviour::Behaviour;
pub use client::Dial;
pub(crate) use client::{Client, make_ready};

use crate::node::Node;

/// How one listener presents itself.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen; port 0 for any that is free.
    pub listen: SocketAddr,
    /// User agent (BIP14).
    pub user_agent: String,
    /// Begins every message.
    pub magic: Magic,
    /// Whether a client that has shaken hands is told of the whole pool at once, which Bitcoin Core would not do.
    pub announce_pool: bool,
    /// What it does wrong.
    pub behaviour: Behaviour,
}

/// A client and the thread that serves it.
type Serving = (Arc<Client>, JoinHandle<()>);

/// What the threads of one listener share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) node: Arc<Node>,
    pub(crate) config: ServerConfig,
    behaviour: Mutex<Behaviour>,
    stopping: AtomicBool,
    next_client: AtomicU64,
    clients: Mutex<BTreeMap<u64, Serving>>,
}

impl Shared {
    pub(crate) fn behaviour(&self) -> Behaviour {
        lock(&self.behaviour).clone()
    }
}

/// A listener and its clients.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    addr: SocketAddr,
    listener: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start(node: Arc<Node>, config: ServerConfig) -> Result<Self> {
        let listener = TcpListener::bind(config.listen)
            .with_context(|| format!("cannot listen on {}", config.listen))?;
        let addr = listener
            .local_addr()
            .context("cannot tell the listening address")?;
        let shared = Arc::new(Shared {
            node,
            behaviour: Mutex::new(config.behaviour.clone()),
            config,
            stopping: AtomicBool::new(false),
            next_client: AtomicU64::new(0),
            clients: Mutex::new(BTreeMap::new()),
        });
        let accepting = Arc::clone(&shared);
        let listener = std::thread::Builder::new()
            .name("devnet-listen".into())
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

    /// Changes what it does wrong, for clients that are connected as well.
    pub fn set_behaviour(&self, behaviour: Behaviour) {
        *lock(&self.shared.behaviour) = behaviour;
    }

    /// Clients that have shaken hands, as address and user agent.
    pub fn clients(&self) -> Vec<(SocketAddr, String)> {
        lock(&self.shared.clients)
            .values()
            .filter(|(client, _)| client.is_ready())
            .map(|(client, _)| (client.addr(), client.user_agent()))
            .collect()
    }

    /// Connects to another node, which is a client like those that connect to us.
    ///
    /// # Errors
    /// When nobody listens there.
    pub fn dial(&self, addr: SocketAddr, dial: Dial) -> Result<()> {
        let stream =
            TcpStream::connect(addr).with_context(|| format!("cannot connect to {addr}"))?;
        welcome(&self.shared, &stream, Some(dial))
    }

    /// The session ids of clients that have shaken hands; nothing for those with version 1 of the transport.
    pub fn session_ids(&self) -> Vec<Option<[u8; 32]>> {
        lock(&self.shared.clients)
            .values()
            .filter(|(client, _)| client.is_ready())
            .map(|(client, _)| client.session_id())
            .collect()
    }

    /// Drops the clients that are connected; new ones are welcome.
    pub fn disconnect_clients(&self) {
        for (client, _) in lock(&self.shared.clients).values() {
            client.disconnect();
        }
    }

    /// Stops listening, drops all clients and waits for their threads.
    pub fn stop(&mut self) {
        let Some(listener) = self.listener.take() else {
            return;
        };
        self.shared.stopping.store(true, Ordering::SeqCst);
        // A connection of our own wakes the listener, which waits in accept().
        let _ = TcpStream::connect(self.addr);
        let _ = listener.join();
        let clients = std::mem::take(&mut *lock(&self.shared.clients));
        for (client, thread) in clients.into_values() {
            client.disconnect();
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
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
        reap(shared);
        if let Err(error) = welcome(shared, &stream, None) {
            eprintln!("devnet: cannot serve a client: {error:#}");
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn welcome(shared: &Arc<Shared>, stream: &TcpStream, dialled: Option<Dial>) -> Result<()> {
    let id = shared.next_client.fetch_add(1, Ordering::Relaxed);
    let (client, outgoing) = Client::new(stream.try_clone()?, dialled)?;
    let client = Arc::new(client);
    // Held while the thread starts, so that it finds itself registered.
    let mut clients = lock(&shared.clients);
    let serving = (Arc::clone(shared), Arc::clone(&client));
    let thread = std::thread::Builder::new()
        .name(format!("devnet-client-{id}"))
        .spawn(move || client::serve(&serving.0, &serving.1, outgoing))
        .context("cannot start a thread")?;
    clients.insert(id, (client, thread));
    Ok(())
}

/// Forgets clients whose threads have ended.
fn reap(shared: &Shared) {
    let mut clients = lock(&shared.clients);
    let ended: Vec<u64> = clients
        .iter()
        .filter(|(_, (_, thread))| thread.is_finished())
        .map(|(id, _)| *id)
        .collect();
    for id in ended {
        if let Some((_, thread)) = clients.remove(&id) {
            let _ = thread.join();
        }
    }
}

/// A lock whose holder panicked holds data that is as good as any in a test tool.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
