//! What the status and the API say of the pool.

use crate::mempool::{Class, Coverage, Entry, Figures, Mempool, SUSPICIOUS_AFTER};
use crate::status::{self, Family, PoolCoverage, PoolTransaction, Sighting};
use bitcoin::Txid;

/// The figures of the pool at `now`, in unix seconds.
pub(super) fn pool_status(pool: &Mempool, now: u64) -> status::Mempool {
    let info = pool.info(now);
    let heard = pool.heard(now);
    let last = heard.last.map(|(height, _)| height);
    status::Mempool {
        txs: info.txs as u64,
        vbytes: info.vbytes,
        fees_sats: info.fees_sats,
        min_fee_rate: info.min_fee_rate.ceil() as u64,
        orphans: info.orphans as u64,
        suspicious: info.suspicious as u64,
        secondary: info.secondary as u64,
        listening_seconds: heard.since.map_or(0, |since| now.saturating_sub(since)),
        peers: heard.peers as u64,
        last_block: heard.last.map(|(_, block)| coverage(last, block)),
        coverage: coverage(last, heard.recent),
    }
}

fn coverage(height: Option<u32>, of: Coverage) -> PoolCoverage {
    PoolCoverage {
        height,
        blocks: of.blocks,
        txs: of.txs,
        seen: of.seen,
        weight: of.weight,
        seen_weight: of.seen_weight,
    }
}

/// All that is known of an entry.
pub(super) fn pool_transaction(pool: &Mempool, txid: &Txid) -> Option<PoolTransaction> {
    let entry = pool.get(txid)?;
    let passed_over = pool.passed_over(txid);
    let family = |figures: Figures| Family {
        txs: figures.count,
        vsize: figures.vsize,
        fees_sats: figures.fees,
    };
    let Entry {
        ancestors,
        descendants,
        ..
    } = *entry;
    Some(PoolTransaction {
        txid: entry.txid.to_string(),
        wtxid: entry.wtxid.to_string(),
        fee_sats: entry.fee,
        vsize: entry.vsize,
        weight: entry.weight,
        sigop_cost: entry.sigop_cost,
        class: match pool.class(&entry) {
            Class::Primary => "primary",
            Class::Secondary => "secondary",
        }
        .to_owned(),
        first_seen: entry.first_seen,
        seen_from: pool
            .sightings(txid)
            .iter()
            .map(|sighting| Sighting {
                peer: sighting.peer.to_string(),
                at: sighting.at,
            })
            .collect(),
        depends: entry.depends.iter().map(Txid::to_string).collect(),
        ancestors: family(ancestors),
        descendants: family(descendants),
        passed_over: passed_over.into(),
        suspicious: passed_over >= SUSPICIOUS_AFTER,
    })
}
