//! A sync from Bitcoin Core's own folder, as it is and masked, beside the same from a peer.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bitcoin::consensus;
use bitcoin::constants::genesis_block;
use bitcoin::p2p::Magic;

use crate::blocks::Chain;
use crate::lane::empty;
use crate::process::{Peer, Usage};
use crate::report::{Report, load};
use crate::sync::{PLUGINS, Setup, files};

/// Bytes of a file of Core's at most (`MAX_BLOCKFILE_SIZE`).
const FILE: u64 = 128 << 20;
/// What the masked files are masked with.
const KEY: [u8; 8] = [0x17, 0x2b, 0xc4, 0xff, 0x91, 0x04, 0xd2, 0x68];
/// What a log of ours has when it has nothing but the genesis block.
const NOTHING: u64 = 64 << 10;

/// Where the blocks come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// A peer over loopback.
    Peer,
    /// The folder, as it is.
    Folder,
    /// The folder, masked with the key in `xor.dat`.
    Masked,
}

impl From {
    const ALL: [Self; 3] = [Self::Peer, Self::Folder, Self::Masked];

    fn name(self) -> &'static str {
        match self {
            Self::Peer => "a peer",
            Self::Folder => "the folder",
            Self::Masked => "the folder, with xor.dat",
        }
    }
}

/// What the syncs of one kind took.
#[derive(Debug)]
pub struct Row {
    /// Where the blocks came from.
    pub from: From,
    /// How many plugins took them.
    pub plugins: usize,
    /// One a run, the quickest first.
    pub usages: Vec<Usage>,
    /// Bytes on disk that the host keeps of blocks itself.
    pub own_blocks: u64,
    /// Bytes on disk of its data folder.
    pub data: u64,
}

/// Syncs the chain from each in turns, `runs` times, with all plugins and with none, and prints what it took. `programs`
/// is the folder of the host and the devnet.
///
/// # Errors
///
/// When a program fails, the coins at the end are wrong, or blocks of the folder were stored once more.
pub fn measure(
    target: &Path,
    programs: &Path,
    folder: &Path,
    chain: &Chain,
    runs: usize,
    report: &mut Report,
) -> Result<Vec<Row>> {
    let peers = [Peer::start(&programs.join("devnet"), &chain.path)?];
    let setup =
        Setup::new(target, &folder.join("source"))?.with_program(&programs.join("blockmill"));
    let plain = folder.join("source/plain");
    let masked = folder.join("source/masked");
    write(chain, &plain, None)?;
    write(chain, &masked, Some(KEY))?;
    let mut rows = Vec::new();
    for plugins in [&PLUGINS[..], &[]] {
        for from in From::ALL {
            rows.push(Row {
                from,
                plugins: plugins.len(),
                usages: Vec::new(),
                own_blocks: 0,
                data: 0,
            });
        }
    }
    for _ in 0..runs.max(1) {
        for row in &mut rows {
            setup.forget()?;
            let source = match row.from {
                From::Peer => String::new(),
                From::Folder => section(&plain),
                From::Masked => section(&masked),
            };
            let plugins = PLUGINS.get(..row.plugins).unwrap_or_default();
            let config = setup.config_with(target, &source, plugins)?;
            let peers = match row.from {
                From::Peer => &peers[..],
                From::Folder | From::Masked => &[],
            };
            row.usages.push(setup.run(&config, peers, chain.height())?);
            if row.plugins > 0 {
                setup.check(&config, chain, chain.height())?;
            }
            row.look(&setup.data())?;
        }
    }
    for row in &mut rows {
        row.usages.sort_by(|a, b| a.wall.total_cmp(&b.wall));
    }
    print(chain, &rows, runs, report);
    fs::remove_dir_all(folder.join("source")).context("failed to remove the folders")?;
    Ok(rows)
}

impl Row {
    /// Looks what the stopped host left behind.
    fn look(&mut self, data: &Path) -> Result<()> {
        (self.own_blocks, self.data) = (0, 0);
        for (path, bytes) in files(data)? {
            self.data += bytes;
            let name = path.file_name().map(|name| name.to_string_lossy());
            if name.is_some_and(|name| name.starts_with("blk") && name.ends_with(".dat")) {
                self.own_blocks += bytes;
            }
        }
        ensure!(
            self.from == From::Peer || self.own_blocks <= NOTHING,
            "{} bytes of blocks were stored that are in the folder",
            self.own_blocks
        );
        Ok(())
    }
}

fn section(folder: &Path) -> String {
    format!(
        "[source]\nkind = \"blocks-dir\"\npath = \"{}\"\n",
        folder.display()
    )
}

fn print(chain: &Chain, rows: &[Row], runs: usize, report: &mut Report) {
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    report.note(&format!(
        "source: {} blocks, {} transactions, {}, in turns, median of {runs}, load {}; files are in the page cache",
        chain.height(),
        chain.transactions,
        megabytes(chain.bytes as u64),
        load()
    ));
    report.table(&[
        "blocks from",
        "plugins",
        "wall",
        "MB/s",
        "all runs",
        "CPU",
        "peak memory",
        "blocks stored",
        "data folder",
    ]);
    for row in rows {
        let Some(median) = row.usages.get(row.usages.len() / 2) else {
            continue;
        };
        let all: Vec<String> = row
            .usages
            .iter()
            .map(|usage| format!("{:.2}", usage.wall))
            .collect();
        report.row(&[
            row.from.name().to_owned(),
            row.plugins.to_string(),
            format!("{:.2} s", median.wall),
            format!("{:.1}", chain.bytes as f64 / 1e6 / median.wall),
            all.join(", "),
            format!("{:.2} s", median.cpu()),
            format!("{:.0} MB", median.peak as f64 / 1e6),
            megabytes(row.own_blocks),
            megabytes(row.data),
        ]);
    }
}

/// Writes the chain as Core keeps it: the genesis block first, in files of a bounded size, masked if there is a key.
fn write(chain: &Chain, folder: &Path, key: Option<[u8; 8]>) -> Result<()> {
    empty(folder)?;
    if let Some(key) = key {
        fs::write(folder.join("xor.dat"), key).context("failed to write xor.dat")?;
    }
    let genesis = consensus::serialize(&genesis_block(bitcoin::Network::Regtest));
    let blocks = std::iter::once(&genesis[..]).chain(chain.blocks.iter().map(AsRef::as_ref));
    let mut open: Option<(BufWriter<File>, u64)> = None;
    let mut number = 0;
    for block in blocks {
        let length = u32::try_from(block.len()).context("a block of 4 GiB")?;
        let mut frame = Vec::with_capacity(block.len() + 8);
        frame.extend_from_slice(&Magic::REGTEST.to_bytes());
        frame.extend_from_slice(&length.to_le_bytes());
        frame.extend_from_slice(block);
        let (mut file, at) = match open.take() {
            Some((file, at)) if at + frame.len() as u64 <= FILE => (file, at),
            full => {
                if let Some((mut file, _)) = full {
                    file.flush().context("failed to write the blocks")?;
                }
                let path: PathBuf = folder.join(format!("blk{number:05}.dat"));
                number += 1;
                let file = File::create(&path)
                    .with_context(|| format!("failed to make {}", path.display()))?;
                (BufWriter::new(file), 0)
            }
        };
        if let Some(key) = key {
            // The key goes on from the beginning of the file, whatever lies in it.
            let from = (at % key.len() as u64) as usize;
            let mask = key.iter().cycle().skip(from);
            for (byte, mask) in frame.iter_mut().zip(mask) {
                *byte ^= mask;
            }
        }
        file.write_all(&frame)
            .context("failed to write the blocks")?;
        open = Some((file, at + frame.len() as u64));
    }
    if let Some((mut file, _)) = open {
        file.flush().context("failed to write the blocks")?;
    }
    Ok(())
}
