//! WASI preview 2 with nothing behind it, for components whose toolchain imports it whether they use it or not.
//!
//! No files, no network, no environment, no arguments, an empty input. The clocks stand still at the block's time and
//! randomness comes from its hash, so that the same blocks still give the same state on every machine. What is written to
//! the output goes to the plugin's log.
//!
//! # Why not the `wasmtime-wasi` crate?
//!
//! Its sleeps wait in real time on a tokio runtime, and it brings the files and sockets that nobody shall have. Here most
//! functions cannot even be called: they take a handle (of a file, of a socket) that nobody is ever given.

mod linker;
mod names;

pub(in crate::plugin) use linker::add_to_linker;

use super::imports::MAX_LOG_BYTES;
use super::{Host, Phase, rule};
use crate::plugin::bindings::blockmill::plugin::log;
use bitcoin::hashes::Hash as _;
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit as _, StreamCipher as _};
use wasmtime::Result;
use wasmtime::component::{ComponentType, Lift, Lower, Resource};

/// Handles that one instance may hold. Each takes a few bytes of the host's memory.
const MAX_HANDLES: u32 = 10_000;
/// Random bytes of one call: they are made on the host's side, outside of the instance's memory limit.
const MAX_RANDOM: u64 = 1 << 20;
/// Bytes after which a line of output is one, ended or not.
const MAX_LINE: usize = 8 << 10;
/// Bytes that a plugin may write to an output at once.
const WRITE_PERMIT: u64 = 64 << 10;

/// The two outputs, which are also the numbers of their handles.
const STDOUT: u32 = 0;
const STDERR: u32 = 1;

/// What one instance has of WASI.
#[derive(Default)]
pub(super) struct Wasi {
    handles: u32,
    /// Restarts with each call.
    random: Option<ChaCha20>,
    /// Lines that have not ended: of the output, and of the errors.
    lines: [Vec<u8>; 2],
}

impl Wasi {
    pub(super) fn begin_call(&mut self) {
        self.random = None;
        self.lines.iter_mut().for_each(Vec::clear);
    }
}

enum InputStream {}
enum OutputStream {}
enum Pollable {}
enum IoError {}
enum Network {}
enum Descriptor {}
/// Stands for each resource of which there never is one.
enum Nothing {}

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum StreamError {
    #[allow(dead_code, reason = "part of the type, and never happens")]
    #[component(name = "last-operation-failed")]
    LastOperationFailed(Resource<IoError>),
    #[component(name = "closed")]
    Closed,
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct Datetime {
    seconds: u64,
    nanoseconds: u32,
}

impl Host {
    /// The time of the block that is being handled, or was handled last, in unix seconds; 0 before the first.
    fn block_time(&mut self) -> Result<u32> {
        let at = match (self.phase, self.position) {
            (Phase::Block { time, .. }, _) => return Ok(time),
            (Phase::Describe, _) | (_, None) => return Ok(0),
            (_, Some(at)) => at,
        };
        let time = self.surroundings()?.feed.time_of(at);
        time.ok_or_else(|| rule(format!("the time of block {} is not known here", at.height)))
    }

    /// Nanoseconds.
    fn monotonic_time(&mut self) -> Result<u64> {
        Ok(u64::from(self.block_time()?) * 1_000_000_000)
    }

    fn random(&mut self, out: &mut [u8]) -> Result<()> {
        let seed = match (self.phase, self.position) {
            (Phase::Describe, _) | (_, None) => [0; 32],
            (_, Some(at)) => at.hash.to_byte_array(),
        };
        let random = self
            .wasi
            .random
            .get_or_insert_with(|| ChaCha20::new(&seed.into(), &[0; 12].into()));
        random
            .try_apply_keystream(out)
            .map_err(|_| rule("no call needs so much randomness"))
    }

    fn random_bytes(&mut self, len: u64) -> Result<Vec<u8>> {
        if len > MAX_RANDOM {
            return Err(rule(format!(
                "{len} random bytes in one call, at most {MAX_RANDOM}"
            )));
        }
        let mut out = vec![0; usize::try_from(len)?];
        self.random(&mut out)?;
        Ok(out)
    }

    fn random_u64(&mut self) -> Result<u64> {
        let mut out = [0; 8];
        self.random(&mut out)?;
        Ok(u64::from_le_bytes(out))
    }

    fn handle<T: 'static>(&mut self, number: u32) -> Result<Resource<T>> {
        self.wasi.handles += 1;
        if self.wasi.handles > MAX_HANDLES {
            return Err(rule(format!("it holds more than {MAX_HANDLES} handles")));
        }
        Ok(Resource::new_own(number))
    }

    fn write_output(&mut self, stream: u32, bytes: &[u8]) -> Result<()> {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            let Some(line) = self.wasi.lines.get_mut(stream as usize) else {
                return Ok(());
            };
            line.extend_from_slice(text.get(..MAX_LOG_BYTES).unwrap_or(text));
            if ended || line.len() >= MAX_LINE {
                self.end_line(stream)?;
            }
        }
        Ok(())
    }

    fn end_line(&mut self, stream: u32) -> Result<()> {
        let Some(line) = self.wasi.lines.get_mut(stream as usize) else {
            return Ok(());
        };
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        line.clear();
        if text.is_empty() {
            return Ok(());
        }
        let level = match stream {
            STDERR => log::Level::Warn,
            _ => log::Level::Info,
        };
        self.write_log(level, &text);
        Ok(())
    }

    /// Writes lines that have not ended: the call has.
    pub(super) fn end_output(&mut self) {
        for stream in [STDOUT, STDERR] {
            // It fails on the plugin's side only, and its call is over.
            let _ = self.end_line(stream);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::lane::Position;
    use crate::plugin::budget::Limits;
    use crate::plugin::host::{Clock, Space};
    use bitcoin::BlockHash;

    fn host() -> Host {
        Host::new(None, Space::None, Limits::DEFAULT)
    }

    fn call(host: &mut Host, phase: Phase) {
        host.begin_call("on-block", phase, Clock::new(Limits::DEFAULT.block_time));
    }

    fn begin(host: &mut Host, block: u8) {
        host.position = Some(Position {
            height: 1,
            hash: BlockHash::from_byte_array([block; 32]),
        });
        let phase = Phase::Block {
            height: 1,
            time: 1_700_000_000,
        };
        call(host, phase);
    }

    #[test]
    fn randomness_is_that_of_the_block_and_begins_anew_with_each_call() {
        let mut host = host();
        begin(&mut host, 7);
        let first = host.random_bytes(40).unwrap();
        let next = host.random_u64().unwrap();
        assert_ne!(first[..8], next.to_le_bytes());
        begin(&mut host, 7);
        assert_eq!(host.random_bytes(40).unwrap(), first);
        assert_eq!(host.random_u64().unwrap(), next);
        begin(&mut host, 8);
        assert_ne!(host.random_bytes(40).unwrap(), first);
        assert!(host.random_bytes(MAX_RANDOM + 1).is_err());
    }

    #[test]
    fn time_is_that_of_the_block_and_none_before_the_first() {
        let mut host = host();
        call(&mut host, Phase::Start);
        assert_eq!(host.monotonic_time().unwrap(), 0);
        begin(&mut host, 7);
        assert_eq!(host.block_time().unwrap(), 1_700_000_000);
        assert_eq!(
            host.monotonic_time().unwrap(),
            1_700_000_000 * 1_000_000_000
        );
        call(&mut host, Phase::Describe);
        assert_eq!(host.block_time().unwrap(), 0);
    }

    #[test]
    fn output_is_cut_into_lines_and_counts_as_log() {
        let mut host = host();
        begin(&mut host, 7);
        host.write_output(STDOUT, b"one\ntwo\nthr").unwrap();
        host.write_output(STDERR, b"beside\n").unwrap();
        assert_eq!(host.meter.log_lines, 3);
        host.write_output(STDOUT, b"ee").unwrap();
        host.end_output();
        assert_eq!(host.meter.log_lines, 4);
        // What never ends is cut.
        host.write_output(STDOUT, &[b'x'; 2 * MAX_LINE]).unwrap();
        assert_eq!(host.meter.log_lines, 5);
        assert!(host.wasi.lines[0].is_empty());
        host.write_output(STDOUT, &[b'\n'; 10]).unwrap();
        host.write_output(STDOUT, "y\n".repeat(1_000).as_bytes())
            .unwrap();
        assert!(host.meter.log_dropped > 800);
    }

    #[test]
    fn handles_are_bounded() {
        let mut host = host();
        for _ in 0..MAX_HANDLES {
            host.handle::<Pollable>(0).unwrap();
        }
        assert!(host.handle::<Pollable>(0).is_err());
    }
}
