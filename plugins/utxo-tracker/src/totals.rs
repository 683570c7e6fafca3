//! Sums over the whole chain, kept up block by block.

use blockmill_sdk::prelude::*;
use blockmill_sdk::{Object, record};

/// Where the totals lie in the state.
pub const TOTALS: Single<Totals> = Single::new(b"T");

macro_rules! totals {
    ($($(#[$doc:meta])* $field:ident),+ $(,)?) => {
        record! {
            /// Sums over the chain so far. All but the first are sat.
            #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
            pub struct Totals: Value {
                $($(#[$doc])* pub $field: u64,)+
            }
        }

        impl Totals {
            /// For people.
            pub fn json(&self) -> Json {
                [$((stringify!($field).into(), self.$field.into()),)+].into_iter().collect::<Object>().into()
            }
        }
    };
}

totals! {
    /// Number of coins.
    txouts,
    /// Value of all coins.
    total_sats,
    /// Paid by transactions to miners.
    fees_sats,
    /// In outputs that nobody can spend.
    unspendable_script_sats,
    /// The genesis block's coinbase, which is not in the set.
    unspendable_genesis_sats,
    /// In coinbases whose txid came again while they were unspent.
    unspendable_bip30_sats,
    /// Subsidy and fees that miners did not take.
    unclaimed_sats,
}
