//! Runs targets without libFuzzer, and writes the seeds of their corpora.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use blockmill_fuzz::{Target, Verdict, corpus, seeds};
use clap::Parser;

/// Runs a fuzz target on files, or on its corpus; without a target it writes the seeds of all corpora anew, and leaves what
/// else is in them.
#[derive(Parser)]
#[command(
    after_help = "Example: cargo run -p blockmill-fuzz -- block target/fuzz/artifacts/block/crash-1234"
)]
struct Args {
    /// The target
    target: Option<String>,
    /// Files to run it on, instead of its corpus
    files: Vec<PathBuf>,
}

fn main() -> Result<()> {
    let args = Args::parse();
    match args.target {
        Some(name) => {
            let target = Target::find(&name).context("there is no such target")?;
            match args.files.as_slice() {
                [] => run_corpus(target)?,
                files => run(target, files)?,
            }
        }
        None => write_seeds()?,
    }
    blockmill_fuzz::clean_up();
    Ok(())
}

fn run(target: Target, files: &[PathBuf]) -> Result<()> {
    for path in files {
        let data =
            std::fs::read(path).with_context(|| format!("failed to read {}", path.display()))?;
        println!("{}: {:?}", path.display(), target.run(&data));
    }
    Ok(())
}

/// Each file, and each with a few changes. Their names are said before: what takes too much memory ends the process.
fn run_corpus(target: Target) -> Result<()> {
    let (mut taken, mut bytes) = (0, 0);
    let files = corpus::files(target.name)?;
    for (path, data) in &files {
        println!("{}", path.display());
        taken += usize::from(target.run(data) == Verdict::Taken);
        bytes += data.len();
        // Cut anywhere and bent anywhere it may be refused, but no more than that.
        for at in (0..data.len()).step_by(data.len().div_ceil(6).max(1)) {
            println!("{} changed at {at}", path.display());
            let mut bent = data.clone();
            if let Some(byte) = bent.get_mut(at) {
                *byte ^= 0x81;
            }
            let _ = target.run(&bent);
            bent.truncate(at);
            let _ = target.run(&bent);
        }
    }
    ensure!(taken > 0, "it takes no file of its corpus");
    ensure!(files.len() > 1, "its corpus is too small");
    ensure!(
        bytes <= corpus::MOST_BYTES,
        "its corpus has {bytes} bytes, at most {}: it is kept with the source",
        corpus::MOST_BYTES
    );
    Ok(())
}

fn write_seeds() -> Result<()> {
    for (target, name, bytes) in seeds::all() {
        let folder = corpus::folder().join(target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}
