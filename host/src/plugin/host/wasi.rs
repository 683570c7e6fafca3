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

use super::imports::MAX_LOG_BYTES;
use super::{Host, Phase, rule};
use crate::plugin::bindings::blockmill::plugin::log;
use bitcoin::hashes::Hash as _;
use chacha20::ChaCha20;
use chacha20::cipher::{KeyIvInit as _, StreamCipher as _};
use wasmtime::component::{
    ComponentType, Lift, Linker, LinkerInstance, Lower, Resource, ResourceType, Val,
};
use wasmtime::{Result, StoreContextMut};

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

type Context<'a> = StoreContextMut<'a, Host>;

/// Defines every interface of WASI 0.2 but `wasi:http`.
pub(in crate::plugin) fn add_to_linker(linker: &mut Linker<Host>) -> Result<()> {
    // A component that was made for any other 0.2 finds them too.
    let mut interface = |name: &str, define: fn(&mut LinkerInstance<'_, Host>) -> Result<()>| {
        define(&mut linker.instance(&format!("wasi:{name}@0.2.0"))?)
    };
    interface("cli/environment", |it| {
        it.func_wrap("get-environment", |_: Context<'_>, (): ()| {
            Ok((Vec::<(String, String)>::new(),))
        })?;
        it.func_wrap("get-arguments", |_: Context<'_>, (): ()| {
            Ok((Vec::<String>::new(),))
        })?;
        it.func_wrap("initial-cwd", |_: Context<'_>, (): ()| {
            Ok((None::<String>,))
        })
    })?;
    interface("cli/exit", |it| {
        never(
            it,
            &["exit", "exit-with-code"],
            "a plugin that exits has failed",
        )
    })?;
    interface("cli/stdin", |it| {
        it.func_wrap("get-stdin", |mut host: Context<'_>, (): ()| {
            Ok((host.data_mut().handle::<InputStream>(0)?,))
        })
    })?;
    interface("cli/stdout", |it| {
        it.func_wrap("get-stdout", |mut host: Context<'_>, (): ()| {
            Ok((host.data_mut().handle::<OutputStream>(STDOUT)?,))
        })
    })?;
    interface("cli/stderr", |it| {
        it.func_wrap("get-stderr", |mut host: Context<'_>, (): ()| {
            Ok((host.data_mut().handle::<OutputStream>(STDERR)?,))
        })
    })?;
    interface("cli/terminal-input", |it| {
        resource::<TerminalInput>(it, "terminal-input")
    })?;
    interface("cli/terminal-output", |it| {
        resource::<TerminalOutput>(it, "terminal-output")
    })?;
    interface("cli/terminal-stdin", |it| {
        it.func_wrap("get-terminal-stdin", |_: Context<'_>, (): ()| {
            Ok((None::<Resource<TerminalInput>>,))
        })
    })?;
    interface("cli/terminal-stdout", |it| {
        it.func_wrap("get-terminal-stdout", |_: Context<'_>, (): ()| {
            Ok((None::<Resource<TerminalOutput>>,))
        })
    })?;
    interface("cli/terminal-stderr", |it| {
        it.func_wrap("get-terminal-stderr", |_: Context<'_>, (): ()| {
            Ok((None::<Resource<TerminalOutput>>,))
        })
    })?;
    interface("io/error", |it| {
        resource::<IoError>(it, "error")?;
        never(it, &["[method]error.to-debug-string"], NO_HANDLE)
    })?;
    interface("io/poll", poll)?;
    interface("io/streams", streams)?;
    interface("clocks/wall-clock", |it| {
        it.func_wrap("now", |mut host: Context<'_>, (): ()| {
            let seconds = u64::from(host.data_mut().block_time()?);
            Ok((Datetime {
                seconds,
                nanoseconds: 0,
            },))
        })?;
        it.func_wrap("resolution", |_: Context<'_>, (): ()| {
            Ok((Datetime {
                seconds: 1,
                nanoseconds: 0,
            },))
        })
    })?;
    interface("clocks/monotonic-clock", |it| {
        it.func_wrap("now", |mut host: Context<'_>, (): ()| {
            Ok((host.data_mut().monotonic_time()?,))
        })?;
        it.func_wrap("resolution", |_: Context<'_>, (): ()| {
            Ok((1_000_000_000u64,))
        })?;
        for name in ["subscribe-instant", "subscribe-duration"] {
            it.func_wrap(name, |mut host: Context<'_>, (_,): (u64,)| {
                Ok((host.data_mut().handle::<Pollable>(0)?,))
            })?;
        }
        Ok(())
    })?;
    interface("random/random", |it| {
        random(it, "get-random-bytes", "get-random-u64")
    })?;
    interface("random/insecure", |it| {
        random(it, "get-insecure-random-bytes", "get-insecure-random-u64")
    })?;
    interface("random/insecure-seed", |it| {
        it.func_wrap("insecure-seed", |mut host: Context<'_>, (): ()| {
            let host = host.data_mut();
            Ok(((host.random_u64()?, host.random_u64()?),))
        })
    })?;
    interface("filesystem/preopens", |it| {
        it.func_wrap("get-directories", |_: Context<'_>, (): ()| {
            Ok((Vec::<(Resource<Descriptor>, String)>::new(),))
        })
    })?;
    interface("filesystem/types", |it| {
        resource::<Descriptor>(it, "descriptor")?;
        resource::<Nothing>(it, "directory-entry-stream")?;
        never(it, FILES, NO_HANDLE)
    })?;
    interface("sockets/network", |it| {
        resource::<Network>(it, "network")?;
        never(it, &["network-error-code"], NO_HANDLE)
    })?;
    interface("sockets/instance-network", |it| {
        it.func_wrap("instance-network", |mut host: Context<'_>, (): ()| {
            Ok((host.data_mut().handle::<Network>(0)?,))
        })
    })?;
    interface("sockets/ip-name-lookup", |it| {
        resource::<Nothing>(it, "resolve-address-stream")?;
        denied(it, "resolve-addresses")?;
        never(it, LOOKUPS, NO_HANDLE)
    })?;
    interface("sockets/tcp-create-socket", |it| {
        denied(it, "create-tcp-socket")
    })?;
    interface("sockets/tcp", |it| {
        resource::<Tcp>(it, "tcp-socket")?;
        never(it, TCP, NO_HANDLE)
    })?;
    interface("sockets/udp-create-socket", |it| {
        denied(it, "create-udp-socket")
    })?;
    interface("sockets/udp", |it| {
        resource::<Udp>(it, "udp-socket")?;
        resource::<Nothing>(it, "incoming-datagram-stream")?;
        resource::<NothingOut>(it, "outgoing-datagram-stream")?;
        never(it, UDP, NO_HANDLE)
    })
}

enum TerminalInput {}
enum TerminalOutput {}
enum Tcp {}
enum Udp {}
enum NothingOut {}

/// All that one may wait for has happened: nothing here takes time.
fn poll(it: &mut LinkerInstance<'_, Host>) -> Result<()> {
    resource::<Pollable>(it, "pollable")?;
    it.func_wrap(
        "[method]pollable.ready",
        |_: Context<'_>, (_,): (Resource<Pollable>,)| Ok((true,)),
    )?;
    it.func_wrap(
        "[method]pollable.block",
        |_: Context<'_>, (_,): (Resource<Pollable>,)| Ok(()),
    )?;
    it.func_wrap(
        "poll",
        |_: Context<'_>, (all,): (Vec<Resource<Pollable>>,)| {
            let ready: Vec<u32> = (0..).take(all.len()).collect();
            match ready.is_empty() {
                true => Err(rule("poll of nothing")),
                false => Ok((ready,)),
            }
        },
    )
}

fn streams(it: &mut LinkerInstance<'_, Host>) -> Result<()> {
    type Input = Resource<InputStream>;
    type Output = Resource<OutputStream>;
    resource::<InputStream>(it, "input-stream")?;
    resource::<OutputStream>(it, "output-stream")?;
    for name in ["read", "blocking-read"] {
        it.func_wrap(
            &format!("[method]input-stream.{name}"),
            |_: Context<'_>, _: (Input, u64)| Ok((Err::<Vec<u8>, _>(StreamError::Closed),)),
        )?;
    }
    for name in ["skip", "blocking-skip"] {
        it.func_wrap(
            &format!("[method]input-stream.{name}"),
            |_: Context<'_>, _: (Input, u64)| Ok((Err::<u64, _>(StreamError::Closed),)),
        )?;
    }
    it.func_wrap(
        "[method]input-stream.subscribe",
        |mut host: Context<'_>, _: (Input,)| Ok((host.data_mut().handle::<Pollable>(0)?,)),
    )?;
    it.func_wrap(
        "[method]output-stream.subscribe",
        |mut host: Context<'_>, _: (Output,)| Ok((host.data_mut().handle::<Pollable>(0)?,)),
    )?;
    it.func_wrap(
        "[method]output-stream.check-write",
        |_: Context<'_>, _: (Output,)| Ok((Ok::<_, StreamError>(WRITE_PERMIT),)),
    )?;
    for name in ["write", "blocking-write-and-flush"] {
        it.func_wrap(
            &format!("[method]output-stream.{name}"),
            |mut host: Context<'_>, (stream, bytes): (Output, Vec<u8>)| {
                host.data_mut().write_output(stream.rep(), &bytes)?;
                Ok((Ok::<_, StreamError>(()),))
            },
        )?;
    }
    for name in ["flush", "blocking-flush"] {
        it.func_wrap(
            &format!("[method]output-stream.{name}"),
            |_: Context<'_>, _: (Output,)| Ok((Ok::<_, StreamError>(()),)),
        )?;
    }
    for name in ["write-zeroes", "blocking-write-zeroes-and-flush"] {
        // Zeros are no text, so no line has them.
        it.func_wrap(
            &format!("[method]output-stream.{name}"),
            |_: Context<'_>, _: (Output, u64)| Ok((Ok::<_, StreamError>(()),)),
        )?;
    }
    for name in ["splice", "blocking-splice"] {
        it.func_wrap(
            &format!("[method]output-stream.{name}"),
            |_: Context<'_>, _: (Output, Input, u64)| Ok((Err::<u64, _>(StreamError::Closed),)),
        )?;
    }
    Ok(())
}

fn random(it: &mut LinkerInstance<'_, Host>, bytes: &str, number: &str) -> Result<()> {
    it.func_wrap(bytes, |mut host: Context<'_>, (len,): (u64,)| {
        Ok((host.data_mut().random_bytes(len)?,))
    })?;
    it.func_wrap(number, |mut host: Context<'_>, (): ()| {
        Ok((host.data_mut().random_u64()?,))
    })
}

/// A resource that may be let go of.
fn resource<T: 'static>(it: &mut LinkerInstance<'_, Host>, name: &str) -> Result<()> {
    it.resource(name, ResourceType::host::<T>(), |mut host, _| {
        let handles = &mut host.data_mut().wasi.handles;
        *handles = handles.saturating_sub(1);
        Ok(())
    })
}

const NO_HANDLE: &str = "nobody was given such a handle";

/// Functions that end the call.
fn never(it: &mut LinkerInstance<'_, Host>, names: &[&str], why: &'static str) -> Result<()> {
    for name in names {
        let function = (*name).to_owned();
        it.func_new(name, move |_, _, _, _| {
            Err(rule(format!("{function} of WASI: {why}")))
        })?;
    }
    Ok(())
}

/// A function that answers with the error code `access-denied`.
fn denied(it: &mut LinkerInstance<'_, Host>, name: &str) -> Result<()> {
    it.func_new(name, |_, _, _, answer| {
        if let Some(answer) = answer.first_mut() {
            let code = Val::Enum("access-denied".to_owned());
            *answer = Val::Result(Err(Some(Box::new(code))));
        }
        Ok(())
    })
}

const FILES: &[&str] = &[
    "[method]descriptor.read-via-stream",
    "[method]descriptor.write-via-stream",
    "[method]descriptor.append-via-stream",
    "[method]descriptor.advise",
    "[method]descriptor.sync-data",
    "[method]descriptor.get-flags",
    "[method]descriptor.get-type",
    "[method]descriptor.set-size",
    "[method]descriptor.set-times",
    "[method]descriptor.read",
    "[method]descriptor.write",
    "[method]descriptor.read-directory",
    "[method]descriptor.sync",
    "[method]descriptor.create-directory-at",
    "[method]descriptor.stat",
    "[method]descriptor.stat-at",
    "[method]descriptor.set-times-at",
    "[method]descriptor.link-at",
    "[method]descriptor.open-at",
    "[method]descriptor.readlink-at",
    "[method]descriptor.remove-directory-at",
    "[method]descriptor.rename-at",
    "[method]descriptor.symlink-at",
    "[method]descriptor.unlink-file-at",
    "[method]descriptor.is-same-object",
    "[method]descriptor.metadata-hash",
    "[method]descriptor.metadata-hash-at",
    "[method]directory-entry-stream.read-directory-entry",
    "filesystem-error-code",
];
const LOOKUPS: &[&str] = &[
    "[method]resolve-address-stream.resolve-next-address",
    "[method]resolve-address-stream.subscribe",
];
const TCP: &[&str] = &[
    "[method]tcp-socket.start-bind",
    "[method]tcp-socket.finish-bind",
    "[method]tcp-socket.start-connect",
    "[method]tcp-socket.finish-connect",
    "[method]tcp-socket.start-listen",
    "[method]tcp-socket.finish-listen",
    "[method]tcp-socket.accept",
    "[method]tcp-socket.local-address",
    "[method]tcp-socket.remote-address",
    "[method]tcp-socket.is-listening",
    "[method]tcp-socket.address-family",
    "[method]tcp-socket.set-listen-backlog-size",
    "[method]tcp-socket.keep-alive-enabled",
    "[method]tcp-socket.set-keep-alive-enabled",
    "[method]tcp-socket.keep-alive-idle-time",
    "[method]tcp-socket.set-keep-alive-idle-time",
    "[method]tcp-socket.keep-alive-interval",
    "[method]tcp-socket.set-keep-alive-interval",
    "[method]tcp-socket.keep-alive-count",
    "[method]tcp-socket.set-keep-alive-count",
    "[method]tcp-socket.hop-limit",
    "[method]tcp-socket.set-hop-limit",
    "[method]tcp-socket.receive-buffer-size",
    "[method]tcp-socket.set-receive-buffer-size",
    "[method]tcp-socket.send-buffer-size",
    "[method]tcp-socket.set-send-buffer-size",
    "[method]tcp-socket.subscribe",
    "[method]tcp-socket.shutdown",
];
const UDP: &[&str] = &[
    "[method]udp-socket.start-bind",
    "[method]udp-socket.finish-bind",
    "[method]udp-socket.stream",
    "[method]udp-socket.local-address",
    "[method]udp-socket.remote-address",
    "[method]udp-socket.address-family",
    "[method]udp-socket.unicast-hop-limit",
    "[method]udp-socket.set-unicast-hop-limit",
    "[method]udp-socket.receive-buffer-size",
    "[method]udp-socket.set-receive-buffer-size",
    "[method]udp-socket.send-buffer-size",
    "[method]udp-socket.set-send-buffer-size",
    "[method]udp-socket.subscribe",
    "[method]incoming-datagram-stream.receive",
    "[method]incoming-datagram-stream.subscribe",
    "[method]outgoing-datagram-stream.check-send",
    "[method]outgoing-datagram-stream.send",
    "[method]outgoing-datagram-stream.subscribe",
];

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
