//! `cargo xtask bench`: builds what is measured, finds a chain to measure on, and runs the `blockmill-bench` program.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{plugins, programs, workspace};
use wasm_toolchain::WasmToolchain;

/// The programs that it takes.
const PROGRAMS: [&str; 3] = ["blockmill", "devnet", "blockmill-bench"];
/// Blocks, transactions a block and transactions in the pool of the chain that is made: the arguments for which the hashes
/// of Bitcoin Core are known.
const CHAIN: [&str; 3] = ["700", "1700", "20000"];

/// Builds everything in the release profile and runs the measurements; `only` and `runs` go to the program as they are.
///
/// # Errors
///
/// When something does not compile, or a measurement fails.
pub fn run(
    root: &Path,
    toolchain: &WasmToolchain,
    only: &[String],
    blocks: Option<&Path>,
    runs: usize,
) -> Result<bool> {
    plugins::build(root, toolchain)?;
    programs::build_release(root, &PROGRAMS)?;
    let target = workspace::target(root);
    let mut command = Command::new(target.join("release/blockmill-bench"));
    command
        .current_dir(root)
        .arg("--target")
        .arg(&target)
        .args(["--runs", &runs.to_string()]);
    for part in only {
        command.args(["--only", part]);
    }
    let chainless = ["walk", "budgets", "pool"];
    if only.is_empty() || !only.iter().all(|part| chainless.contains(&part.as_str())) {
        let blocks = match blocks {
            Some(blocks) => Some(
                blocks
                    .canonicalize()
                    .with_context(|| format!("no file {}", blocks.display()))?,
            ),
            None => large_chain(root)?,
        };
        if let Some(blocks) = blocks {
            command.arg("--blocks").arg(blocks);
        }
    }
    let status = command
        .status()
        .context("failed to start the measurements")?;
    Ok(status.success())
}

/// The large chain in `target/bench`, made when its generator is beside the workspace and can run; none otherwise, and the
/// devnet then mines a smaller one.
fn large_chain(root: &Path) -> Result<Option<PathBuf>> {
    let folder = workspace::target(root).join("bench");
    let chain = folder.join("regtest-main.dat");
    if chain.is_file() {
        return Ok(Some(chain));
    }
    let generator = root.join("../shared/tools/make_chain.py");
    if !generator.is_file() {
        return Ok(None);
    }
    let can_run = Command::new("python3")
        .args(["-c", "import coincurve"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !can_run {
        println!("{} needs python3 with coincurve", generator.display());
        return Ok(None);
    }
    println!("making the chain, once: this takes some minutes");
    // Under another name until it is whole.
    let partial = folder.join("partial");
    let status = Command::new("python3")
        .arg(&generator)
        .arg(&partial)
        .args(CHAIN)
        .status()
        .context("failed to start python3")?;
    if !status.success() {
        bail!("{} failed", generator.display());
    }
    std::fs::rename(partial.join("regtest-main.dat"), &chain)
        .with_context(|| format!("failed to make {}", chain.display()))?;
    let _ = std::fs::remove_dir_all(&partial);
    Ok(Some(chain))
}
