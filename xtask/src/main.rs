//! `cargo xtask`: the commands of this workspace.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{Args, Parser, Subcommand, ValueEnum};
use wasm_toolchain::{Source, WasmToolchain};
use xtask::demo::{self, Options};
use xtask::fuzz::Fuzz;
use xtask::programs::{self, Profile};
use xtask::test::{self, Step};
use xtask::{bench, plugins, soak, workspace};

/// Build, test and try Blockmill.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build the plugins to target/plugins/*.wasm and the host to target/release/blockmill
    #[command(after_help = "Example: cargo xtask build --debug-host")]
    Build {
        /// Build the host without optimisation, to target/debug/blockmill
        #[arg(long)]
        debug_host: bool,
        /// Build the plugins and nothing else
        #[arg(long, conflicts_with = "debug_host")]
        plugins_only: bool,
        #[command(flatten)]
        wasm: Wasm,
    },
    /// Run everything that has to pass: format, lints, plugin builds, tests
    #[command(
        after_help = "Examples:\n  cargo xtask test\n  cargo xtask test --only tests -- reorg"
    )]
    Test {
        /// Run this step and no other (may be given again)
        #[arg(long, value_name = "STEP", value_enum)]
        only: Vec<Step>,
        #[command(flatten)]
        wasm: Wasm,
        /// Handed to the test programs (a filter, --nocapture, …)
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// Watch the host follow a devnet: blocks, payments, reorgs
    #[command(
        long_about = "Build what is missing, start a devnet (a small regtest node) and the host with three plugins that follows \
                      it, say where to look, and print a line a block. At the end the coin set of the host is compared with the \
                      devnet's.",
        after_help = "Exit code: 0 when both coin sets hash the same, 1 when not.\n\n\
                      Examples:\n  cargo xtask demo\n  cargo xtask demo --for 30s --seed 7"
    )]
    Demo {
        /// End after so long, as 30s or 5m [default: with Ctrl-C]
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        limit: Option<Duration>,
        /// Decides keys, payments and fees
        #[arg(long, value_name = "N", default_value_t = 1)]
        seed: u64,
        /// Where configuration, data and logs go; emptied at the start [default: target/demo]
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
        #[command(flatten)]
        wasm: Wasm,
    },
    /// Run what takes long: simulated networks of hundreds of peers, good and bad, one a seed, a block of a gigabyte, and the fuzz
    /// targets
    #[command(
        long_about = "Run simulated networks of hundreds of peers, good and bad, one a seed; then a block of more than a \
                      gigabyte, as `cargo xtask large-block`, in 3 GB of disk; then the fuzz targets of tests/fuzz, a minute each, which takes a nightly compiler and cargo-fuzz.",
        after_help = "Examples:\n  cargo xtask soak\n  cargo xtask soak --only networks --first 17 --seeds 1\n  \
                      cargo xtask soak --only large-block\n  \
                      cargo xtask soak --only fuzz --fuzz-seconds 600\n  cargo xtask soak --target block --target sync"
    )]
    Soak {
        /// Run this part and no other
        #[arg(long, value_name = "PART", value_enum)]
        only: Option<SoakPart>,
        /// The first seed
        #[arg(long, value_name = "N", default_value_t = 1)]
        first: u64,
        /// How many seeds; 0 for none
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        seeds: u64,
        /// How long each fuzz target runs; 0 runs none
        #[arg(long, value_name = "N", default_value_t = 60)]
        fuzz_seconds: u64,
        /// Run this fuzz target and nothing else (may be given again)
        #[arg(long, value_name = "NAME", conflicts_with = "only")]
        target: Vec<String>,
    },
    /// Take a block of more than a gigabyte from a peer to the plugins, in less than 600 MB of memory
    #[command(after_help = "Takes 3 GB of disk in the folder for temporary files.")]
    LargeBlock {
        #[command(flatten)]
        wasm: Wasm,
    },
    /// Measure: a walk in wasm and natively, the plugins, a whole sync, memory, disk, budgets, several peers, Core's folder and the pool
    #[command(
        after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench --only sync --blocks chain.dat"
    )]
    Bench {
        /// Measure this part and no other (may be given again)
        #[arg(long, value_name = "PART", value_parser = ["walk", "plugins", "sync", "memory", "disk", "budgets", "peers", "source", "pool"])]
        only: Vec<String>,
        /// A regtest chain in blk*.dat framing; made or mined where none is given
        #[arg(long, value_name = "FILE")]
        blocks: Option<PathBuf>,
        /// How often a whole sync is measured
        #[arg(long, value_name = "N", default_value_t = 3)]
        runs: usize,
        #[command(flatten)]
        wasm: Wasm,
    },
}

/// The parts of a soak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SoakPart {
    /// Simulated networks
    Networks,
    /// A block of more than a gigabyte
    LargeBlock,
    /// Fuzz targets
    Fuzz,
}

#[derive(Args)]
struct Wasm {
    /// Where the compiler for the plugins comes from
    #[arg(long, value_name = "SOURCE", value_enum, default_value_t = Source::Auto)]
    toolchain: Source,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one command; `false` when it ran and found something wrong.
fn run(cli: Cli) -> Result<bool> {
    let root = workspace::root();
    match cli.command {
        Command::Build {
            debug_host,
            plugins_only,
            wasm,
        } => {
            let toolchain = WasmToolchain::find(wasm.toolchain)?;
            plugins::build(&root, &toolchain)?;
            if !plugins_only {
                let profile = if debug_host {
                    Profile::Debug
                } else {
                    Profile::Release
                };
                let host = programs::build(&root, "blockmill", profile)?;
                println!("{}", workspace::shown(&root, &host));
            }
            Ok(true)
        }
        Command::Demo {
            limit,
            seed,
            folder,
            wasm,
        } => demo::run(
            &root,
            &Options {
                limit,
                seed,
                folder,
                toolchain: wasm.toolchain,
            },
        ),
        Command::Bench {
            only,
            blocks,
            runs,
            wasm,
        } => {
            let toolchain = WasmToolchain::find(wasm.toolchain)?;
            bench::run(&root, &toolchain, &only, blocks.as_deref(), runs)
        }
        Command::Soak {
            only,
            first,
            seeds,
            fuzz_seconds,
            target,
        } => {
            let part = |part| only.is_none_or(|only| only == part);
            let networks = part(SoakPart::Networks) && target.is_empty() && seeds > 0;
            // What is missing is said before half an hour has passed.
            let large = if part(SoakPart::LargeBlock) && target.is_empty() {
                Some(WasmToolchain::find(Source::Auto)?)
            } else {
                None
            };
            let fuzz = if part(SoakPart::Fuzz) && fuzz_seconds > 0 {
                Some(Fuzz::prepare(&root, &target, fuzz_seconds)?)
            } else {
                None
            };
            let mut good = true;
            if networks {
                good &= soak::networks(&root, first, seeds)?;
            }
            if let Some(toolchain) = large {
                good &= soak::large_block(&root, &toolchain)?;
            }
            if let Some(fuzz) = fuzz {
                good &= fuzz.run()?;
            }
            Ok(good)
        }
        Command::LargeBlock { wasm } => {
            let toolchain = WasmToolchain::find(wasm.toolchain)?;
            soak::large_block(&root, &toolchain)
        }
        Command::Test { only, wasm, args } => test::run(&root, &only, wasm.toolchain, &args),
    }
}
