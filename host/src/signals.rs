//! The signals that end the program.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code of a program that a second Ctrl-C ended: 128 + SIGINT, as shells expect.
const INTERRUPTED: i32 = 130;

/// Listens for SIGTERM and SIGINT (Ctrl-C) from now on, and returns a future that is ready at the first of them. The second
/// one ends the program at once, for a person who will not wait.
///
/// # Errors
/// When the system refuses the handlers. Must be called inside a Tokio runtime.
pub fn shutdown_signal() -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        let name = next(&mut terminate, &mut interrupt).await;
        tracing::info!(signal = name, "stopping; once more stops at once");
        tokio::spawn(async move {
            let name = next(&mut terminate, &mut interrupt).await;
            tracing::warn!(signal = name, "stopped at once");
            std::process::exit(INTERRUPTED);
        });
    })
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}
