//! The signals that end the program.

use std::io;

use tokio::{
    runtime::Runtime,
    signal::unix::{Signal, SignalKind, signal},
    sync::oneshot,
};

/// Exit code of a program that a second Ctrl-C ended: 128 + SIGINT, as shells expect.
const INTERRUPTED: i32 = 130;

/// Listens for SIGTERM and SIGINT (Ctrl-C) from now on, and returns a future that is ready at the first of them. The second
/// one ends the program at once, for a person who will not wait.
///
/// The listening is done on a thread of its own, so that the second signal works however stuck the rest is.
///
/// # Errors
/// When the system refuses the thread or the handlers.
pub fn shutdown_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut terminate, mut interrupt) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
        )
    };
    let (first, received) = oneshot::channel();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || listen(&runtime, &mut terminate, &mut interrupt, first))?;
    Ok(async {
        // the thread ends only with the program
        let _ = received.await;
    })
}

fn listen(
    runtime: &Runtime,
    terminate: &mut Signal,
    interrupt: &mut Signal,
    first: oneshot::Sender<()>,
) {
    let name = runtime.block_on(next(terminate, interrupt));
    tracing::info!(signal = name, "stopping; once more stops at once");
    // nobody may wait any more, when the host ends by itself
    let _ = first.send(());
    let name = runtime.block_on(next(terminate, interrupt));
    tracing::warn!(signal = name, "stopped at once");
    std::process::exit(INTERRUPTED);
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use std::{
        io::{BufRead, BufReader},
        process::{Child, ChildStdout, Command, Stdio},
    };

    use super::*;

    /// Tells the test below that it is the child: `graceful` ends by itself after the first signal, `stuck` never does.
    const ROLE: &str = "BLOCKMILL_TEST_SIGNALS";

    /// Not a test by itself: the program that the other tests send signals to.
    #[test]
    fn child() {
        let Ok(role) = std::env::var(ROLE) else {
            return;
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            let shutdown = shutdown_signal().unwrap();
            println!("listening");
            shutdown.await;
            println!("stopping");
            if role == "stuck" {
                // not even the runtime's thread is free
                loop {
                    std::thread::park();
                }
            }
        });
        println!("ended");
    }

    fn start(role: &str) -> (Child, impl Iterator<Item = String> + use<>) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["signals::tests::child", "--exact", "--nocapture"])
            .env(ROLE, role)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = |out: ChildStdout| BufReader::new(out).lines().map(|line| line.unwrap());
        let out = child.stdout.take().unwrap();
        (child, lines(out))
    }

    fn send(child: &Child, signal: &str) {
        let status = Command::new("kill")
            .args([signal, &child.id().to_string()])
            .status()
            .unwrap();
        assert!(status.success());
    }

    #[test]
    fn the_first_signal_asks_for_the_end_and_leaves_it_to_the_program() {
        for signal in ["-TERM", "-INT"] {
            let (mut child, mut lines) = start("graceful");
            assert!(lines.any(|line| line.ends_with("listening")));
            send(&child, signal);
            assert_eq!(lines.next().as_deref(), Some("stopping"));
            assert_eq!(lines.next().as_deref(), Some("ended"));
            lines.for_each(drop);
            assert!(child.wait().unwrap().success(), "{signal}");
        }
    }

    #[test]
    fn the_second_signal_ends_a_program_that_is_stuck() {
        let (mut child, mut lines) = start("stuck");
        assert!(lines.any(|line| line.ends_with("listening")));
        send(&child, "-INT");
        assert_eq!(lines.next().as_deref(), Some("stopping"));
        send(&child, "-INT");
        lines.for_each(drop);
        assert_eq!(child.wait().unwrap().code(), Some(INTERRUPTED));
    }
}
