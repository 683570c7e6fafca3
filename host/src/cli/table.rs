//! What commands print for people.

use std::{
    io::Write,
    time::{Duration, UNIX_EPOCH},
};

use anyhow::Result;

use super::CheckedPlugin;
use crate::{
    config::Config,
    progress::coarse,
    status::{Peer, Peers, Plugin, ReloadState, Status, TxOutSet},
};

/// Digits of a hash that tell files apart well enough for people.
const SHORT_HASH: usize = 12;

/// The longest error in a table; the whole one is in the JSON and in the log.
const MAX_ERROR: usize = 100;

/// The longest reason for which the host does not follow the chain: what helps stands at its end.
const MAX_REASON: usize = 400;

/// Which side a column's cells are put to.
#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

pub(super) fn checked(
    out: &mut dyn Write,
    config: &Config,
    plugins: &[CheckedPlugin],
) -> Result<()> {
    writeln!(out, "network   {}", config.network)?;
    writeln!(out, "data      {}", config.network_dir().display())?;
    writeln!(
        out,
        "plugins   {} in {}",
        plugins.len(),
        config.plugins_dir().display()
    )?;
    let rows: Vec<_> = plugins
        .iter()
        .map(|plugin| {
            vec![
                plugin.name.clone(),
                plugin.version.clone(),
                short(&plugin.sha256),
                plugin.description.clone(),
            ]
        })
        .collect();
    if !rows.is_empty() {
        writeln!(out)?;
        let columns = [
            ("PLUGIN", Side::Left),
            ("VERSION", Side::Left),
            ("SHA256", Side::Left),
            ("WHAT IT DOES", Side::Left),
        ];
        table(out, &columns, &rows)?;
    }
    writeln!(out, "\nall right")?;
    Ok(())
}

pub(super) fn status(out: &mut dyn Write, status: &Status) -> Result<()> {
    let up = coarse(Duration::from_secs(status.uptime_seconds));
    let state = if status.synced { "synced" } else { "syncing" };
    writeln!(
        out,
        "network   {}, blockmill {}, up {up}",
        status.network, status.version
    )?;
    writeln!(
        out,
        "tip       {} of {}, {}, {state}",
        status.tip.height,
        status.headers.height,
        time(status.tip.time.into())
    )?;
    writeln!(out, "          {}", clean(&status.tip.hash))?;
    if let Some(why) = &status.not_following {
        writeln!(out, "health    not following: {}", cut(why, MAX_REASON))?;
    }
    writeln!(
        out,
        "mempool   {} transactions, {} vB, {} sat of fees",
        status.mempool.txs, status.mempool.vbytes, status.mempool.fees_sats
    )?;
    if let Some(last) = &status.mempool.last_block {
        let percent = |of: &crate::status::PoolCoverage| match of.percent() {
            Some(percent) => format!("{percent} %"),
            None => "nothing".to_owned(),
        };
        writeln!(
            out,
            "          {} of the last block was known before, {} of the last {}; {} suspicious",
            percent(last),
            percent(&status.mempool.coverage),
            status.mempool.coverage.blocks,
            status.mempool.suspicious
        )?;
    }
    if let Some(source) = &status.source {
        let looked = match (&source.error, source.scanned) {
            (Some(error), _) => cut(error, MAX_ERROR),
            (None, true) => format!("{} files", source.files),
            (None, false) => format!("{} of {} files", source.files_read, source.files),
        };
        writeln!(
            out,
            "source    {}: {looked}, {} blocks taken, {} to be checked",
            clean(&source.path),
            source.blocks_taken,
            source.blocks_waiting
        )?;
        if source.files_missing > 0 || source.blocks_unconnected > 0 {
            writeln!(
                out,
                "          {} files before the first are missing, {} blocks have no parent yet",
                source.files_missing, source.blocks_unconnected
            )?;
        }
    }
    if let Some(error) = &status.config_error {
        writeln!(
            out,
            "config    wrong, the one before is in force: {}",
            cut(error, MAX_ERROR)
        )?;
    }
    if !status.needs_restart.is_empty() {
        let keys = status.needs_restart.join(", ");
        writeln!(
            out,
            "config    changed, needs a restart: {}",
            cut(&keys, MAX_ERROR)
        )?;
    }
    writeln!(out)?;
    if status.peers.is_empty() {
        writeln!(out, "no peers")?;
    } else {
        let rows: Vec<_> = status
            .peers
            .iter()
            .map(|peer| {
                vec![
                    peer.addr.clone(),
                    peer.user_agent.clone(),
                    peer.height.to_string(),
                    time(peer.since),
                    peer.services.join(" "),
                ]
            })
            .collect();
        let columns = [
            ("PEER", Side::Left),
            ("USER AGENT", Side::Left),
            ("HEIGHT", Side::Right),
            ("SINCE", Side::Left),
            ("SERVICES", Side::Left),
        ];
        table(out, &columns, &rows)?;
    }
    writeln!(out)?;
    plugins(out, &status.plugins)
}

pub(super) fn peers(out: &mut dyn Write, peers: &Peers) -> Result<()> {
    if peers.peers.is_empty() {
        writeln!(out, "no peers")?;
    } else {
        let rows: Vec<_> = peers.peers.iter().map(peer_row).collect();
        let columns = [
            ("ID", Side::Right),
            ("PEER", Side::Left),
            ("KIND", Side::Left),
            ("TRANSPORT", Side::Left),
            ("PING MS", Side::Right),
            ("IN", Side::Right),
            ("OUT", Side::Right),
            ("BLOCKS", Side::Right),
            ("IN FLIGHT", Side::Right),
            ("HEIGHT", Side::Right),
            ("MISBEHAVIOUR", Side::Right),
            ("SINCE", Side::Left),
            ("USER AGENT", Side::Left),
        ];
        table(out, &columns, &rows)?;
    }
    if !peers.bans.is_empty() {
        writeln!(out)?;
        let rows: Vec<_> = peers
            .bans
            .iter()
            .map(|ban| {
                vec![
                    ban.subnet.clone(),
                    ban.until.map_or("for good".to_owned(), time),
                    ban.by.clone(),
                    ban.offences.to_string(),
                    cut(&ban.reason, MAX_ERROR),
                ]
            })
            .collect();
        let columns = [
            ("BANNED", Side::Left),
            ("UNTIL", Side::Left),
            ("BY", Side::Left),
            ("OFFENCES", Side::Right),
            ("REASON", Side::Left),
        ];
        table(out, &columns, &rows)?;
    }
    writeln!(
        out,
        "\npeer book: {} addresses heard of, {} connected to before",
        peers.book.new, peers.book.tried
    )?;
    Ok(())
}

fn peer_row(peer: &Peer) -> Vec<String> {
    let bytes = |bytes: u64| bytesize::ByteSize(bytes).display().si_short().to_string();
    vec![
        peer.id.to_string(),
        peer.addr.clone(),
        peer.kind.clone(),
        peer.transport.clone(),
        peer.ping_ms.map_or("-".to_owned(), |ms| ms.to_string()),
        bytes(peer.bytes_in),
        bytes(peer.bytes_out),
        peer.blocks.to_string(),
        peer.in_flight.to_string(),
        peer.height.to_string(),
        peer.misbehaviour.to_string(),
        time(peer.since),
        peer.user_agent.clone(),
    ]
}

pub(super) fn plugins(out: &mut dyn Write, plugins: &[Plugin]) -> Result<()> {
    if plugins.is_empty() {
        writeln!(out, "no plugins")?;
        return Ok(());
    }
    let rows: Vec<_> = plugins
        .iter()
        .map(|plugin| {
            vec![
                plugin.name.clone(),
                plugin.version.clone(),
                short(&plugin.sha256),
                plugin.state.name().to_owned(),
                plugin
                    .height
                    .map_or("-".to_owned(), |height| height.to_string()),
                plugin.lag.to_string(),
                plugin
                    .last_error
                    .as_deref()
                    .map_or("-".to_owned(), |why| cut(why, MAX_ERROR)),
            ]
        })
        .collect();
    let columns = [
        ("PLUGIN", Side::Left),
        ("VERSION", Side::Left),
        ("SHA256", Side::Left),
        ("STATE", Side::Left),
        ("HEIGHT", Side::Right),
        ("LAG", Side::Right),
        ("LAST ERROR", Side::Left),
    ];
    table(out, &columns, &rows)?;
    for plugin in plugins {
        if let Some(waiting) = &plugin.waiting_for {
            writeln!(out, "{}: {waiting}", plugin.name)?;
        }
        // What went well shows in the table.
        if let Some(reload) = &plugin.reload
            && matches!(reload.state, ReloadState::Building | ReloadState::Refused)
        {
            let (state, message) = (reload.state.name(), cut(&reload.message, MAX_ERROR));
            let sha256 = short(&reload.sha256);
            writeln!(
                out,
                "{}: change to {sha256} {state}: {message}",
                plugin.name
            )?;
        }
    }
    Ok(())
}

pub(super) fn txoutset(out: &mut dyn Write, set: &TxOutSet) -> Result<()> {
    writeln!(out, "height             {}", set.height)?;
    writeln!(out, "bestblock          {}", set.bestblock)?;
    writeln!(out, "txouts             {}", set.txouts)?;
    writeln!(out, "total_sats         {}", set.total_sats)?;
    writeln!(out, "muhash             {}", set.muhash)?;
    writeln!(out, "hash_serialized_3  {}", set.hash_serialized_3)?;
    Ok(())
}

fn table(out: &mut dyn Write, columns: &[(&str, Side)], rows: &[Vec<String>]) -> Result<()> {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| clean(cell)).collect())
        .collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(column, (title, _))| {
            let cells = rows
                .iter()
                .filter_map(|row| row.get(column))
                .map(|cell| cell.chars().count());
            cells.chain([title.len()]).max().unwrap_or_default()
        })
        .collect();
    let titles: Vec<String> = columns
        .iter()
        .map(|(title, _)| (*title).to_owned())
        .collect();
    for row in std::iter::once(&titles).chain(&rows) {
        let mut line = String::new();
        for ((cell, (_, side)), width) in row.iter().zip(columns).zip(&widths) {
            match side {
                Side::Left => line.push_str(&format!("{cell:<width$}  ")),
                Side::Right => line.push_str(&format!("{cell:>width$}  ")),
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// Text from peers and plugins, without what could move a terminal's cursor.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars()
        .take(most.saturating_sub(1))
        .chain(['…'])
        .collect()
}

fn short(hash: &str) -> String {
    hash.chars().take(SHORT_HASH).collect()
}

fn time(unix: u64) -> String {
    // a year past 9999 has no such text
    let time = UNIX_EPOCH + Duration::from_secs(unix.min(253_402_300_799));
    humantime::format_rfc3339_seconds(time)
        .to_string()
        .replace('T', " ")
        .replace('Z', " UTC")
}
