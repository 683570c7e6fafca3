//! Many plugins in one host: fifty lanes, each with its own instance, state and table, on whatever cores there are.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    missing_docs
)]

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use blockmill_tests::host::{Host, Installation};
use blockmill_tests::rows;
use devnet::Devnet;

const LIMIT: Duration = Duration::from_secs(600);
const LANES: usize = 50;
const BLOCKS: u32 = 200;
const REORG: u32 = 3;
/// Bytes that a lane more may cost. Half a megabyte was measured: the touched part of its instance's memory, its compiled
/// code, its stacks and its overlay. Four times that is room for another allocator and another page size, and far from what
/// a lane would cost that had an engine, a cache or a copy of the blocks of its own.
const MOST_A_LANE: u64 = 2 << 20;

/// The name of a lane: as long as the one in the file, and right for a plugin and for a table.
fn name(lane: usize) -> String {
    format!("lane{lane:02}")
}

/// The plugin under another name, as if it had been built with it.
fn renamed(plugin: &[u8], name: &str) -> Vec<u8> {
    let (old, new) = (b"lane00", name.as_bytes());
    assert_eq!(old.len(), new.len());
    let mut module = plugin.to_vec();
    for at in 0..module.len() - old.len() {
        if &plugin[at..at + old.len()] == old {
            module[at..at + old.len()].copy_from_slice(new);
        }
    }
    module
}

/// A number of `/proc/PID/status` in bytes, where there is such a file.
fn memory(process: u32, key: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find(|line| line.starts_with(key))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes << 10)
}

fn installation(devnet: &Devnet, plugins: &Path, lanes: usize) -> Installation {
    let tables: String = (0..lanes)
        .map(|lane| format!("\n[plugins.{}]\n", name(lane)))
        .collect();
    Installation::new("regtest", &[devnet.p2p_addr()])
        .unwrap()
        .key("plugins", &format!("dir = {plugins:?}"))
        .plugins(&tables)
}

/// Soon after the last lane has come to the tip it is healthy, and synced, which means that queries answer for that tip.
fn wait_until_synced(host: &mut Host) {
    host.wait_for("that all is on disk", LIMIT, |status| {
        (status.get("synced")? == true).then_some(())
    })
    .unwrap();
    let begin = Instant::now();
    loop {
        let (code, body) = host.get_text("/health").unwrap();
        if code == 200 {
            return;
        }
        assert!(begin.elapsed() < LIMIT, "{code}: {body}");
        thread::sleep(Duration::from_millis(100));
    }
}

/// Peak and address space in bytes of a host with so many lanes at the tip.
fn run(devnet: &Devnet, plugins: &Path, lanes: usize, reorg: bool) -> Option<(u64, u64)> {
    let installation = installation(devnet, plugins, lanes);
    let begin = Instant::now();
    let mut host = installation.spawn(&[]).unwrap();
    host.wait_for("its first answer", LIMIT, |status| {
        status.get("version").is_some().then_some(())
    })
    .unwrap();
    let started = begin.elapsed();
    let tip = devnet.status().tip.to_string();
    host.wait_for_tip(&tip, LIMIT).unwrap();
    let synced = begin.elapsed();
    wait_until_synced(&mut host);
    // Queries have instances of their own.
    for lane in 0..lanes {
        let path = format!("plugins/{}/query/calls", name(lane));
        assert_eq!(host.get(&path).unwrap()["calls"], BLOCKS + 1);
    }
    if reorg {
        devnet.reorg(REORG, REORG + 1).unwrap();
        let tip = devnet.status().tip.to_string();
        host.wait_for_tip(&tip, LIMIT).unwrap();
        wait_until_synced(&mut host);
    }
    let used = memory(host.id(), "VmHWM:").zip(memory(host.id(), "VmSize:"));
    host.stop().unwrap();
    println!(
        "{lanes} lanes: first answer after {started:?}, at {BLOCKS} after {synced:?}, peak and address space {used:?}"
    );
    let height = devnet.status().height;
    for lane in 0..lanes {
        let sql = format!(
            "SELECT count(*), min(height), max(height), sum(call <> height) FROM {}",
            name(lane)
        );
        let wanted = [height + 1, 0, height, 0].map(|number| number.to_string());
        assert_eq!(
            rows::query(&installation.database(), &sql).unwrap(),
            [wanted]
        );
    }
    used
}

#[test]
fn fifty_lanes_follow_the_tip_and_a_reorg_in_bounded_memory() {
    let target = xtask::workspace::target(&xtask::workspace::root());
    let plugin = fs::read(target.join("plugins/test/lane.wasm")).unwrap();
    let plugins = tempfile::tempdir().unwrap();
    for lane in 0..LANES {
        let file = plugins.path().join(format!("{}.wasm", name(lane)));
        fs::write(file, renamed(&plugin, &name(lane))).unwrap();
    }
    let devnet = Devnet::new(50).unwrap();
    devnet.mine(BLOCKS).unwrap();
    let one = run(&devnet, plugins.path(), 1, false);
    let many = run(&devnet, plugins.path(), LANES, true);
    let (Some((one, _)), Some((many, _))) = (one, many) else {
        blockmill_tests::skipped("the memory of fifty lanes: there is no /proc here");
        return;
    };
    let lane = many.saturating_sub(one) / (LANES as u64 - 1);
    println!("{lane} bytes a lane");
    assert!(
        lane <= MOST_A_LANE,
        "{lane} bytes a lane: {one} with one, {many} with {LANES}"
    );
}
