//! Connections through a SOCKS5 proxy, such as Tor's: no address is looked up here, and none is connected to directly.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use bitcoin::hex::DisplayHex;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_socks::tcp::Socks5Stream;

/// A SOCKS5 proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proxy {
    /// Where it listens.
    pub addr: SocketAddr,
}

/// What a connection is to: an address, or a name that only the proxy may look up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An address.
    Addr(SocketAddr),
    /// A name and a port.
    Name(String, u16),
}

impl Proxy {
    /// A connection to `target` through the proxy.
    pub(super) async fn connect(self, target: &Target) -> Result<TcpStream> {
        let connected = async {
            let stream = TcpStream::connect(self.addr).await?;
            Self::connect_over(stream, target).await
        };
        connected
            .await
            .with_context(|| format!("the proxy {} failed", self.addr))
    }

    /// A connection to `target` over one to a proxy. Each has credentials of its own, so that Tor takes a circuit of its own
    /// for it, as Core does (`-proxyrandomize`).
    ///
    /// # Errors
    ///
    /// When the proxy does not connect, or does not speak SOCKS5.
    pub async fn connect_over<S>(stream: S, target: &Target) -> Result<S>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut random = [0; 32];
        getrandom::fill(&mut random).context("no random numbers")?;
        let (user, password) = random.split_at(16);
        let (user, password) = (user.to_lower_hex_string(), password.to_lower_hex_string());
        let connected = match target {
            Target::Addr(addr) => {
                Socks5Stream::connect_with_password_and_socket(stream, *addr, &user, &password)
                    .await
            }
            Target::Name(name, port) => {
                let target = (name.as_str(), *port);
                Socks5Stream::connect_with_password_and_socket(stream, target, &user, &password)
                    .await
            }
        };
        Ok(connected?.into_inner())
    }
}

impl Target {
    /// A connection, directly for an address without a proxy.
    pub(super) async fn connect(&self, proxy: Option<Proxy>) -> Result<TcpStream> {
        match (proxy, self) {
            (Some(proxy), target) => proxy.connect(target).await,
            (None, Target::Addr(addr)) => Ok(TcpStream::connect(addr).await?),
            (None, Target::Name(name, _)) => anyhow::bail!("{name} needs a proxy"),
        }
    }
}
