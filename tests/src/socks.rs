//! A SOCKS5 proxy for tests: it forwards every connection to one place, and writes down what it was asked for.

use std::io::{self, Read, Write};
use std::net::{Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// What a proxy does with who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Connects, to this address whatever the target is.
    Forward(SocketAddr),
    /// Says that the target refused (reply 5).
    Refuse,
    /// Says nothing.
    Hang,
}

/// One request, as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// `name:port` or `ip:port`.
    pub target: String,
    /// User name and password.
    pub credentials: (String, String),
}

#[derive(Debug)]
struct Shared {
    answer: Mutex<Answer>,
    requests: Mutex<Vec<Request>>,
    stopping: AtomicBool,
}

/// A running proxy. Dropping it stops it from taking more connections.
#[derive(Debug)]
pub struct Socks {
    shared: Arc<Shared>,
    addr: SocketAddr,
}

impl Socks {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub fn start(answer: Answer) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("failed to listen")?;
        let addr = listener.local_addr().context("no local address")?;
        let shared = Arc::new(Shared {
            answer: Mutex::new(answer),
            requests: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let serving = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if serving.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let shared = Arc::clone(&serving);
                // Ends with its connection.
                thread::spawn(move || serve(&shared, stream));
            }
        });
        Ok(Self { shared, addr })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on it answers so.
    pub fn set(&self, answer: Answer) {
        *self
            .shared
            .answer
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = answer;
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared
            .requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Socks {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.addr);
    }
}

fn serve(shared: &Shared, mut stream: TcpStream) -> Result<()> {
    let [version, methods] = read(&mut stream)?;
    ensure!(version == 5, "no SOCKS5");
    let methods = read_long(&mut stream, methods)?;
    ensure!(methods.contains(&2), "no user name and password offered");
    stream.write_all(&[5, 2])?;
    let [_, length] = read(&mut stream)?;
    let user = text(&mut stream, length)?;
    let [length] = read(&mut stream)?;
    let password = text(&mut stream, length)?;
    stream.write_all(&[1, 0])?;

    let [_, command, _, kind] = read(&mut stream)?;
    ensure!(command == 1, "only CONNECT");
    let host = match kind {
        1 => std::net::Ipv4Addr::from(read::<4>(&mut stream)?).to_string(),
        3 => {
            let [length] = read(&mut stream)?;
            text(&mut stream, length)?
        }
        4 => format!("[{}]", Ipv6Addr::from(read::<16>(&mut stream)?)),
        other => bail!("address of type {other}"),
    };
    let port = u16::from_be_bytes(read(&mut stream)?);
    let request = Request {
        target: format!("{host}:{port}"),
        credentials: (user, password),
    };
    shared
        .requests
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(request);
    let answer = *shared.answer.lock().unwrap_or_else(PoisonError::into_inner);
    match answer {
        Answer::Forward(target) => {
            let onward = TcpStream::connect(target)?;
            stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
            let (mut from, mut to) = (stream.try_clone()?, onward.try_clone()?);
            let upward = thread::spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Both);
            });
            let _ = io::copy(&mut &onward, &mut stream);
            let _ = stream.shutdown(Shutdown::Both);
            let _ = upward.join();
        }
        Answer::Refuse => stream.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0])?,
        // The client goes first.
        Answer::Hang => {
            stream.set_read_timeout(Some(Duration::from_secs(120)))?;
            let _ = stream.read(&mut [0]);
        }
    }
    Ok(())
}

fn read<const N: usize>(stream: &mut TcpStream) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_long(stream: &mut TcpStream, length: u8) -> Result<Vec<u8>> {
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn text(stream: &mut TcpStream, length: u8) -> Result<String> {
    Ok(String::from_utf8(read_long(stream, length)?)?)
}
