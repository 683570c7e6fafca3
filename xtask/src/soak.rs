//! `cargo xtask soak`: what takes an hour and finds what the tests do not.

use std::num::NonZero;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::thread;

use anyhow::{Context, Result};
use wasm_toolchain::WasmToolchain;

use crate::plugins;
use crate::programs::{self, Profile};

/// Simulated networks from the seeds `first` on, shared out over the cores; `false` when one went wrong.
///
/// A simulation measures what is allocated in its process, so that each core has a process of its own.
///
/// # Errors
///
/// When the program does not compile or cannot be started.
pub fn networks(root: &Path, first: u64, seeds: u64) -> Result<bool> {
    let program = programs::build(root, "netsim", Profile::Release)?;
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let mut running = Vec::new();
    for share in shares(first, seeds, cores as u64) {
        let child = Command::new(&program)
            .args(["--first", &share.start.to_string()])
            .args(["--seeds", &(share.end - share.start).to_string()])
            .spawn()
            .context("failed to start the simulated networks")?;
        running.push(child);
    }
    let mut good = true;
    for mut child in running {
        good &= child.wait()?.success();
    }
    Ok(good)
}

/// The seeds in as many pieces as there are cores, none empty.
fn shares(first: u64, seeds: u64, cores: u64) -> Vec<Range<u64>> {
    let end = first.saturating_add(seeds);
    let length = seeds.div_ceil(cores.max(1)).max(1);
    (first..end)
        .step_by(usize::try_from(length).unwrap_or(usize::MAX))
        .map(|start| start..end.min(start.saturating_add(length)))
        .collect()
}

/// A gigabyte in one block; `false` when it went wrong.
///
/// # Errors
///
/// When something does not compile or cannot be started.
pub fn large_block(root: &Path, toolchain: &WasmToolchain) -> Result<bool> {
    plugins::build(root, toolchain)?;
    let host = programs::build(root, "blockmill", Profile::Release)?;
    let status = Command::new("cargo")
        .current_dir(root)
        .args(["test", "--workspace", "--test", "large_blocks"])
        .args(["--", "--ignored", "--nocapture"])
        .env("BLOCKMILL_BIN", host)
        .status()?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_in_one_share() {
        for (first, seeds, cores) in [(1, 1_000, 2), (7, 1, 8), (5, 10, 3), (1, 0, 2), (3, 8, 8)] {
            let shares = shares(first, seeds, cores);
            let all: Vec<u64> = shares.iter().cloned().flatten().collect();
            assert_eq!(all, (first..first + seeds).collect::<Vec<u64>>());
            assert!(shares.len() as u64 <= cores && shares.iter().all(|share| !share.is_empty()));
        }
        assert!(shares(u64::MAX, 5, 2).is_empty());
    }
}
