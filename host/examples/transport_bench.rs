//! What the transport costs: ten megabytes as blocks of several sizes, framed or encrypted by one side and read by the other.
//!
//! cargo run --release --example transport_bench

use std::hint::black_box;
use std::time::{Duration, Instant};

use blockmill::wire::transport::Secret;
use blockmill::wire::{Opening, Transport};

const MAGIC: [u8; 4] = [0xf9, 0xbe, 0xb4, 0xd9];
/// Bytes that are read from a socket at once.
const READ: usize = 256 << 10;
const ROUNDS: u32 = 20;

fn carry(from: &mut Transport, to: &mut Transport) -> anyhow::Result<usize> {
    let mut bytes = Vec::new();
    while let Some(piece) = from.pop() {
        bytes.extend_from_slice(&piece);
    }
    let mut messages = 0;
    for piece in bytes.chunks(READ) {
        to.feed(piece);
        while let Some(message) = to.next()? {
            black_box(message);
            messages += 1;
        }
    }
    Ok(messages)
}

fn measure(
    name: &str,
    mut a: Transport,
    mut b: Transport,
    size: usize,
    checksums: bool,
) -> anyhow::Result<()> {
    for transport in [&mut a, &mut b] {
        transport.set_verify_blocks(checksums);
    }
    for _ in 0..3 {
        carry(&mut a, &mut b)?;
        carry(&mut b, &mut a)?;
    }
    let count = (10_000_000 / size).max(1);
    let mut best = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        for _ in 0..count {
            a.send("block", vec![7; size]);
        }
        let sealed = began.elapsed();
        let began = Instant::now();
        let heard = carry(&mut a, &mut b)?;
        anyhow::ensure!(heard == count, "{heard} of {count} messages");
        best = (best.0.min(sealed), best.1.min(began.elapsed()));
    }
    let bytes = (count * size) as f64;
    let per_byte = |time: Duration| time.as_nanos() as f64 / bytes;
    println!(
        "{name:32} {size:8} bytes a block: {:6.2} ns/byte to send, {:6.2} ns/byte to receive",
        per_byte(best.0),
        per_byte(best.1)
    );
    Ok(())
}

fn main() -> anyhow::Result<()> {
    for size in [1_000, 100_000, 1_500_000] {
        let v1 = || Transport::new(MAGIC, Opening::V1);
        measure("version 1, checksums compared", v1(), v1(), size, true)?;
        measure("version 1, as the host does", v1(), v1(), size, false)?;
        let a = Transport::new(MAGIC, Opening::Initiator(Secret::new([1; 32])));
        let b = Transport::new(MAGIC, Opening::Responder(Secret::new([2; 32])));
        measure("version 2", a, b, size, false)?;
    }
    let began = Instant::now();
    for number in 0..100_u8 {
        let mut a = Transport::new(MAGIC, Opening::Initiator(Secret::new([number + 1; 32])));
        let mut b = Transport::new(MAGIC, Opening::Responder(Secret::new([number + 101; 32])));
        for _ in 0..3 {
            carry(&mut a, &mut b)?;
            carry(&mut b, &mut a)?;
        }
        anyhow::ensure!(
            a.session_id().is_some() && a.session_id() == b.session_id(),
            "no session"
        );
    }
    println!("handshake, both sides: {:?}", began.elapsed() / 100);
    Ok(())
}
