//! Commands that may not take for ever.

use std::process::{Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How often a running command is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Runs `command` to its end, or kills it after `limit`; `None` when it took longer.
///
/// # Errors
///
/// When it cannot be started or waited for; `name` is what messages call it.
pub fn run_within(
    name: &str,
    command: &mut Command,
    limit: Duration,
) -> Result<Option<ExitStatus>> {
    let mut child = command
        .spawn()
        .with_context(|| format!("failed to start {name}"))?;
    let start = Instant::now();
    loop {
        let status = child
            .try_wait()
            .with_context(|| format!("failed to wait for {name}"))?;
        if status.is_some() {
            return Ok(status);
        }
        if start.elapsed() >= limit {
            child
                .kill()
                .with_context(|| format!("failed to end {name}"))?;
            child
                .wait()
                .with_context(|| format!("failed to wait for {name}"))?;
            return Ok(None);
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn a_command_over_its_limit_is_ended() {
        let start = Instant::now();
        let limit = Duration::from_millis(100);
        let status = run_within("sleep", Command::new("sleep").arg("60"), limit).unwrap();
        assert!(status.is_none());
        assert!(start.elapsed() < Duration::from_secs(10));
        let status =
            run_within("true", &mut Command::new("true"), Duration::from_secs(10)).unwrap();
        assert!(status.unwrap().success());
    }
}
