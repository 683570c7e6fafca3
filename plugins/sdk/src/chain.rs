//! The chain as this plugin has seen it: up to the block that is being handled, or was handled last.

#[cfg(target_arch = "wasm32")]
use crate::bindings::blockmill::plugin::chain as host;
use crate::block::Header;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::host::chain as host;

/// `mainnet`, `testnet3`, `testnet4`, `signet` or `regtest`.
pub fn network() -> String {
    host::network()
}

/// New coins that a block of this height may make, in sat, without fees.
pub fn subsidy(height: u32) -> u64 {
    host::subsidy(height)
}

/// The header at a height of this plugin's chain, none above its own height. `size` and `weight` are 0 in it.
pub fn header(height: u32) -> Option<Header> {
    Header::new(&host::header(height)?).ok()
}
