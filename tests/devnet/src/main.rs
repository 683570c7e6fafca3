//! The devnet as a program. See the library for what it does.

use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use bitcoin::Network;
use clap::Parser;
use devnet::{Config, Control, Devnet, Mining};
use serde_json::json;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::pipe;

/// A small Bitcoin node for tests and demonstrations: mines from a seed, serves block files, reorganises on demand.
///
/// Prints one line {"p2p":"ADDR","control":"ADDR"} when it is ready, and ends on SIGTERM, on Ctrl-C, or when the control
/// socket is told {"do":"stop"}.
///
/// Example: devnet --seed 7 --blocks 110
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Decides keys, payments and everything else that is random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// bitcoin, testnet, testnet4, signet or regtest; blocks are mined on regtest only
    #[arg(long, default_value = "regtest")]
    network: Network,
    /// Address of the peer-to-peer listener
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Address of the control socket
    #[arg(long, default_value = "127.0.0.1:0")]
    control: SocketAddr,
    /// Block file to serve, in blk*.dat framing; may be repeated
    #[arg(long, value_name = "FILE")]
    serve: Vec<PathBuf>,
    /// File with transactions for the pool, one a line in hex
    #[arg(long, value_name = "FILE")]
    mempool: Option<PathBuf>,
    /// Show no blocks above this height
    #[arg(long, value_name = "HEIGHT")]
    max_height: Option<u32>,
    /// Keep no coin set: large files load at once, but there is no mining, no pool and no hash
    #[arg(long)]
    no_coins: bool,
    /// Blocks to mine before it is ready
    #[arg(long, value_name = "N", default_value_t = 0)]
    blocks: u32,
    /// Payments written before each block that is mined
    #[arg(long, value_name = "N", default_value_t = 40)]
    txs_per_block: usize,
    /// Weight units of a block at most
    #[arg(long, value_name = "WU", default_value_t = 4_000_000)]
    block_weight: u64,
    /// Stamp blocks with simulated times that depend on nothing but the seed, instead of real ones
    #[arg(long)]
    simulated_time: bool,
    /// User agent
    #[arg(long, default_value = "/devnet:0.1/")]
    user_agent: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (mut ending, end) = UnixStream::pair().context("cannot make a socket pair")?;
    for signal in [SIGTERM, SIGINT] {
        pipe::register(signal, end.try_clone()?).context("cannot listen for signals")?;
    }

    let defaults = Config::default();
    let devnet = Devnet::start(Config {
        seed: args.seed,
        network: args.network,
        listen: args.listen,
        user_agent: args.user_agent,
        files: args.serve,
        max_height: args.max_height,
        keep_coins: !args.no_coins,
        mining: Mining {
            txs_per_block: args.txs_per_block,
            max_weight: args.block_weight,
            clock: defaults.mining.clock,
        },
        ..defaults
    })?;
    if args.simulated_time {
        devnet.mine(args.blocks)?;
    } else {
        devnet.mine_up_to_now(args.blocks, 600)?;
    }
    if let Some(file) = args.mempool {
        devnet.submit_file(file)?;
    }

    let devnet = Arc::new(devnet);
    let stop = move || {
        // The program ends anyway when nobody reads any more.
        let _ = std::io::Write::write_all(&mut &end, b"s");
    };
    let mut control = Control::start(Arc::clone(&devnet), args.control, stop)?;
    println!(
        "{}",
        json!({ "p2p": devnet.p2p_addr(), "control": control.addr() })
    );

    ending
        .read_exact(&mut [0])
        .context("cannot wait for the end")?;
    control.stop();
    devnet.stop();
    Ok(())
}
