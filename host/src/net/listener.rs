//! Where others connect to us.

use super::connection::SocketEvent;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;

/// Connections that may wait for us to take them.
const BACKLOG: u32 = 128;
/// After a connection that could not be taken: too many files are open, say.
const PAUSE: Duration = Duration::from_millis(500);

/// Listens for peers.
///
/// # Errors
///
/// When the address is taken, or not ours.
pub fn bind(address: SocketAddr) -> Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let listen = || {
        let socket = socket?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().with_context(|| format!("failed to listen for peers at {address}"))
}

/// Hands every connection over, until nobody takes them any more.
pub(super) async fn accept(listener: TcpListener, events: mpsc::Sender<SocketEvent>) {
    loop {
        let event = match listener.accept().await {
            Ok((stream, addr)) => SocketEvent::Accepted { stream, addr },
            Err(error) => {
                tracing::debug!(%error, "a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}
