//! Changes of the memory pool as columns.

use super::descriptor::WantedColumns;
use crate::frame::{Columns, Witnesses};
use crate::mempool::{MempoolChanges, Origin, RemoveReason};
use anyhow::Result;
use bitcoin::hashes::Hash;

/// The columns of `mempool-changes` in `wit/plugin.wit`.
#[derive(Default)]
pub(super) struct PoolColumns {
    pub removed: Vec<u8>,
    pub removed_reasons: Vec<u8>,
    pub columns: Columns,
    pub witnesses: Option<Witnesses>,
    pub fees: Vec<u64>,
    pub vsizes: Vec<u32>,
    pub first_seen: Vec<u64>,
    pub origins: Vec<u8>,
    pub parent_ends: Vec<u32>,
    pub parents: Vec<u8>,
    /// What `pool.sigop-costs` answers; none when an old capsule does not say.
    pub sigop_costs: Option<Vec<u32>>,
}

impl PoolColumns {
    /// Builds the columns.
    ///
    /// # Errors
    ///
    /// When the pool holds a transaction that cannot be decoded: a fault of the host.
    pub(super) fn new(changes: &MempoolChanges, wanted: WantedColumns) -> Result<Self> {
        let mut out = Self::default();
        for (txid, reason) in &changes.removed {
            out.removed.extend_from_slice(txid.as_byte_array());
            out.removed_reasons.push(match reason {
                RemoveReason::Confirmed { .. } => 0,
                RemoveReason::Conflicted { .. } => 1,
                RemoveReason::Replaced { .. } => 2,
                RemoveReason::Expired => 3,
                RemoveReason::Evicted => 4,
                RemoveReason::Reorg => 5,
            });
        }
        let raws = || changes.added.iter().map(|(entry, _)| entry.raw.as_ref());
        out.columns = Columns::of_transactions(raws())?;
        if wanted.witnesses {
            out.witnesses = Some(out.columns.witnesses(|index| {
                changes
                    .added
                    .get(index)
                    .map(|(entry, _)| entry.raw.as_ref())
            })?);
        }
        for (entry, origin) in &changes.added {
            out.fees.push(entry.fee);
            out.vsizes
                .push(u32::try_from(entry.vsize).unwrap_or(u32::MAX));
            out.first_seen.push(entry.first_seen);
            out.origins.push(match origin {
                Origin::New => 0,
                Origin::Returned => 1,
                Origin::Reloaded => 2,
            });
            for parent in &entry.depends {
                out.parents.extend_from_slice(parent.as_byte_array());
            }
            out.parent_ends.push((out.parents.len() / 32) as u32);
        }
        let costs = changes.added.iter().map(|(entry, _)| entry.sigop_cost);
        out.sigop_costs = costs.collect();
        Ok(out)
    }
}
