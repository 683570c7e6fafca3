#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]
use blockmill_sdk::json;
use blockmill_sdk::testing::{Harness, blocks};

use crate::UtxoTracker;

#[test]
fn mainnet_to_4312_has_cores_number_of_coins_and_total() {
    let Some(data) = blocks::data() else { return };
    let mut harness = Harness::<UtxoTracker>::on("mainnet", json!({}));
    for (height, block) in blocks::read_framed(&data.join("blocks/mainnet-0-4312.dat"))
        .iter()
        .enumerate()
    {
        harness.block(block).unwrap();
        let totals = harness.plugin().totals();
        match height {
            170 => assert_eq!(
                (totals.txouts, totals.total_sats),
                (171, 8_500 * 100_000_000)
            ),
            255 => assert_eq!(
                (totals.txouts, totals.total_sats),
                (260, 12_750 * 100_000_000)
            ),
            1_000 => assert_eq!(
                (totals.txouts, totals.total_sats),
                (998, 50_000 * 100_000_000)
            ),
            4_312 => assert_eq!(
                (totals.txouts, totals.total_sats),
                (4_149, 215_600 * 100_000_000)
            ),
            _ => {}
        }
    }
    assert_eq!(harness.height(), Some(4_312));
    assert_eq!(
        harness.state().keys().filter(|key| key[0] == b'C').count(),
        4_149
    );
}
