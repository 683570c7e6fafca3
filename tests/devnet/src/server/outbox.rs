//! What waits to be written to one client, and the thread that writes it.

use std::io::{self, IoSlice, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use super::encrypted::Sealer;
use super::frame::HEAD_LEN;
use super::lock;
use crate::blockfile::RawBlock;

/// Messages gathered into one write.
const BATCH: usize = 32;

/// Bytes to write.
#[derive(Debug)]
pub enum Body {
    /// A whole message.
    Message(Vec<u8>),
    /// A block, straight from where it is stored.
    Block([u8; HEAD_LEN], RawBlock),
    /// Half of a block, and then the connection is closed.
    HalfBlock([u8; HEAD_LEN], RawBlock),
}

/// A message and the moment before which it must not be written.
#[derive(Debug)]
pub struct Outgoing {
    pub due: Option<Instant>,
    pub body: Body,
}

/// A stream that takes so many bytes a second at most.
pub struct Paced<'a> {
    stream: &'a TcpStream,
    rate: &'a (dyn Fn() -> Option<u32> + Sync),
}

impl<'a> Paced<'a> {
    /// The rate is asked for at each write; none is no limit.
    pub fn new(stream: &'a TcpStream, rate: &'a (dyn Fn() -> Option<u32> + Sync)) -> Self {
        Self { stream, rate }
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(rate) = (self.rate)() else {
            return self.stream.write_vectored(slices);
        };
        let rate = rate.max(1);
        let some = slices.iter().find(|slice| !slice.is_empty());
        let some: &[u8] = some.map_or(&[], |slice| slice);
        let tenth = some.get(..(rate / 10).max(1) as usize).unwrap_or(some);
        let written = self.stream.write(tenth)?;
        std::thread::sleep(Duration::from_secs_f64(written as f64 / f64::from(rate)));
        Ok(written)
    }
}

/// Writes until all senders are gone, the client is, or a message says to hang up. Once there is a sealer, packets.
pub fn write_all(
    mut stream: Paced<'_>,
    outbox: &Receiver<Outgoing>,
    sealer: &Mutex<Option<Sealer>>,
) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = outbox.recv() {
        wait_until(first.due);
        batch.push(first.body);
        let mut held_back = None;
        while batch.len() < BATCH {
            match outbox.try_recv() {
                Ok(next) if next.due.is_some_and(|due| due > Instant::now()) => {
                    held_back = Some(next);
                    break;
                }
                Ok(next) => batch.push(next.body),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        let hang_up = batch.iter().any(|body| matches!(body, Body::HalfBlock(..)));
        let mut written = write(&mut stream, &seal(&mut batch, sealer));
        if let (Ok(()), Some(late)) = (&written, held_back) {
            wait_until(late.due);
            written = write(&mut stream, &seal(&mut vec![late.body], sealer));
        }
        if written.is_err() || hang_up {
            break;
        }
    }
    let _ = stream.stream.shutdown(Shutdown::Both);
}

fn wait_until(due: Option<Instant>) {
    if let Some(due) = due {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// The bodies as packets, if there is a sealer.
fn seal(batch: &mut Vec<Body>, sealer: &Mutex<Option<Sealer>>) -> Vec<Body> {
    let batch = batch.drain(..);
    let mut sealer = lock(sealer);
    let Some(sealer) = sealer.as_mut() else {
        return batch.collect();
    };
    let packets = batch.map(|body| match body {
        Body::Message(bytes) => {
            let (head, payload) = bytes.split_at_checked(HEAD_LEN).unwrap_or_default();
            sealer.seal(head, payload)
        }
        Body::Block(head, block) => sealer.seal(&head, block.bytes()),
        Body::HalfBlock(head, block) => {
            let mut packet = sealer.seal(&head, block.bytes());
            packet.truncate(packet.len() / 2);
            packet
        }
    });
    packets.map(Body::Message).collect()
}

/// One vectored write for the whole batch, as often as the socket takes only a part.
fn write(stream: &mut Paced<'_>, batch: &[Body]) -> io::Result<()> {
    let mut slices = Vec::with_capacity(batch.len() * 2);
    for body in batch {
        match body {
            Body::Message(bytes) => slices.push(IoSlice::new(bytes)),
            Body::Block(head, block) => {
                slices.push(IoSlice::new(head));
                slices.push(IoSlice::new(block.bytes()));
            }
            Body::HalfBlock(head, block) => {
                slices.push(IoSlice::new(head));
                let bytes = block.bytes();
                slices.push(IoSlice::new(
                    bytes.get(..bytes.len() / 2).unwrap_or_default(),
                ));
                break;
            }
        }
    }
    let mut left = slices.as_mut_slice();
    while !left.is_empty() {
        match stream.write(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut left, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
