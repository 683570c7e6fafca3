//! One connection: bytes in, bytes out.

use super::gate::Gate;
use super::proxy::{Proxy, Target};
use crate::chain::sync::PeerId;
use crate::chain::sync::book::NetAddress;
use bytes::Bytes;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Bytes that are read from a socket at once.
const READ: usize = 256 << 10;

/// How long a socket is not read before it is looked again whether its pieces were checked.
const GATE_PAUSE: Duration = Duration::from_millis(5);

/// Bytes that may wait to be sent before the peer is not read any more: it gets no more answers than it takes (Core's
/// `DEFAULT_MAXSENDBUFFER`).
const PAUSE_ABOVE: usize = 1_000_000;
/// Bytes that may wait to be sent at all. What was read before the pause is still answered, and the longest message has
/// half of this.
const MAX_QUEUED: usize = 8_000_000;

/// What happens on a connection.
pub(super) enum SocketEvent {
    /// Nothing of it is read before it is known.
    Connected {
        peer: PeerId,
        addr: SocketAddr,
        stream: TcpStream,
    },
    ConnectFailed {
        addr: SocketAddr,
        error: String,
    },
    Received {
        peer: PeerId,
        bytes: Bytes,
    },
    /// Either end of the connection failed or ended; may come twice.
    Closed {
        peer: PeerId,
    },
    /// A peer connected to us.
    Accepted {
        stream: TcpStream,
        addr: SocketAddr,
    },
    /// A name from the configuration has an address.
    Resolved {
        address: NetAddress,
        /// Whether it is of `peers.add`, not of `peers.connect`.
        added: bool,
    },
    /// A DNS seed has addresses.
    Seeded {
        name: String,
        addrs: Vec<SocketAddr>,
    },
}

/// Our end of a connection; dropping it closes the socket.
pub(super) struct Connection {
    /// The peer's.
    pub(super) addr: SocketAddr,
    /// What of it waits to be checked.
    pub(super) gate: Arc<Gate>,
    outgoing: mpsc::UnboundedSender<Bytes>,
    /// Bytes in `outgoing`, the piece that is being written included.
    queued: Arc<AtomicUsize>,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

impl Connection {
    /// Queues bytes; a closed connection swallows them. False when too many wait: they are not queued, and the
    /// connection is of no use any more.
    pub(super) fn send(&self, bytes: Bytes) -> bool {
        let length = bytes.len();
        if self.queued.fetch_add(length, Ordering::AcqRel) + length > MAX_QUEUED {
            return false;
        }
        let _ = self.outgoing.send(bytes);
        true
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
        self.writer.abort();
    }
}

/// Connects to what `addr` stands for and says how it went.
pub(super) async fn connect(
    peer: PeerId,
    addr: SocketAddr,
    target: Target,
    proxy: Option<Proxy>,
    timeout: Duration,
    events: mpsc::Sender<SocketEvent>,
) {
    let event = match tokio::time::timeout(timeout, target.connect(proxy)).await {
        Ok(Ok(stream)) => SocketEvent::Connected { peer, addr, stream },
        Ok(Err(error)) => SocketEvent::ConnectFailed {
            addr,
            error: format!("{error:#}"),
        },
        Err(_) => SocketEvent::ConnectFailed {
            addr,
            error: format!("no answer within {timeout:?}"),
        },
    };
    let _ = events.send(event).await;
}

/// Reads and writes on a connection.
pub(super) fn open(
    peer: PeerId,
    addr: SocketAddr,
    stream: TcpStream,
    events: mpsc::Sender<SocketEvent>,
) -> Connection {
    let _ = stream.set_nodelay(true);
    let (mut read, mut write) = stream.into_split();
    let (outgoing, mut queue) = mpsc::unbounded_channel::<Bytes>();
    let gate = Arc::new(Gate::default());
    let held_back = gate.clone();
    let queued = Arc::new(AtomicUsize::new(0));
    let (unsent, written) = (queued.clone(), queued.clone());
    let lost = events.clone();
    let reader = tokio::spawn(async move {
        let mut buffer = bytes::BytesMut::with_capacity(READ);
        loop {
            while held_back.is_full() || unsent.load(Ordering::Acquire) > PAUSE_ABOVE {
                tokio::time::sleep(GATE_PAUSE).await;
            }
            buffer.reserve(READ);
            match read.read_buf(&mut buffer).await {
                Ok(1..) => {
                    let bytes = buffer.split().freeze();
                    // A full queue holds the socket back: the peer waits, not our memory.
                    if events
                        .send(SocketEvent::Received { peer, bytes })
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
                Ok(0) | Err(_) => break,
            }
        }
        let _ = events.send(SocketEvent::Closed { peer }).await;
    });
    let writer = tokio::spawn(async move {
        while let Some(bytes) = queue.recv().await {
            if write.write_all(&bytes).await.is_err() {
                // The reader says so too, but not while it waits for what can never be sent.
                let _ = lost.send(SocketEvent::Closed { peer }).await;
                return;
            }
            written.fetch_sub(bytes.len(), Ordering::AcqRel);
        }
    });
    Connection {
        addr,
        gate,
        outgoing,
        queued,
        reader,
        writer,
    }
}

#[cfg(test)]
mod tests;
