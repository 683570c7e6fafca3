//! Each interface of WASI 0.2 under its names, with answers that say nothing.

use super::names::{FILES, LOOKUPS, TCP, UDP};
use super::{
    Datetime, Descriptor, InputStream, IoError, Network, Nothing, OutputStream, Pollable, STDERR,
    STDOUT, StreamError, WRITE_PERMIT,
};
use crate::plugin::host::{Host, rule};
use wasmtime::component::{Linker, LinkerInstance, Resource, ResourceType, Val};
use wasmtime::{Result, StoreContextMut};

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
