//! What the figures in the documentation come from: `cargo test --release -- --ignored --nocapture
//! measure`.

use super::*;

#[test]
#[ignore = "a measurement"]
fn entries_a_second_and_memory_an_entry() {
    let resident = || {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<usize>()
            .unwrap()
            * 4096
    };
    for count in [100_000u32, 200_000] {
        let (chain, coins) = Chain::with_coins(200, count, 1_000_000);
        let mut raws = Vec::new();
        // Half of them pairs of a parent and a child; a usual size.
        for pair in coins.chunks(2) {
            let mut parent = spend(
                &pair[..1],
                &[400_000, 500_000 + u64::from(pair[0].vout % 977)],
            );
            parent.input[0].witness = bitcoin::Witness::from_slice(&[vec![7; 72], vec![2; 33]]);
            let mut child = spend(
                &[pay(&parent), pair[1]],
                &[1_300_000, 1_000 + u64::from(pair[0].vout % 977)],
            );
            child.input[0].witness = bitcoin::Witness::from_slice(&[vec![7; 72], vec![2; 33]]);
            raws.push(raw(&parent));
            raws.push(raw(&child));
        }
        let mut pool = Mempool::new(MempoolConfig::default());
        let before = resident();
        let start = std::time::Instant::now();
        for raw in &raws {
            pool.accept(raw.clone(), NOW, &chain, chain.tip()).unwrap();
        }
        let time = start.elapsed();
        let info = pool.info(NOW);
        assert_eq!(info.txs, count as usize);
        println!(
            "{count} entries in {time:?}: {:.0} a second; {} bytes each by the estimate, {} resident before the changes are drained",
            f64::from(count) / time.as_secs_f64(),
            info.bytes / info.txs,
            (resident().saturating_sub(before)) / info.txs,
        );
        let start = std::time::Instant::now();
        let changes = pool.drain_changes();
        println!("drain of {}: {:?}", changes.added.len(), start.elapsed());
        drop(changes);
        let start = std::time::Instant::now();
        let snapshot = pool.snapshot();
        println!("snapshot: {:?}", start.elapsed());
        let dir = tempfile::tempdir().unwrap();
        let start = std::time::Instant::now();
        save(&dir.path().join("pool"), [0; 4], &snapshot).unwrap();
        println!("save: {:?}", start.elapsed());
        let start = std::time::Instant::now();
        let txs: Vec<_> = snapshot
            .iter()
            .take(4_000)
            .map(|entry| (entry.txid, entry.spends.clone()))
            .collect();
        pool.connect_block(201, txs);
        println!("a block of 4,000: {:?}", start.elapsed());
        let start = std::time::Instant::now();
        pool.expire(NOW + 336 * 3600);
        println!("expire all: {:?}", start.elapsed());
        assert_eq!(pool.info(NOW).txs, 0);
    }
}
