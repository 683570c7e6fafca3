//! Named numbers for metrics and live views, kept in the host's memory only.

#[cfg(target_arch = "wasm32")]
use crate::bindings::blockmill::plugin::values as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::host::values as host;

/// Sets a gauge. Names have lower-case letters, digits and `_`, at most 64; there are at most 1,000 gauges a plugin.
pub fn set(name: &str, value: f64) {
    host::set(name, value);
}

/// Adds a point to a series at the block that is being handled; the last 1,000 points are kept.
pub fn push(name: &str, value: f64) {
    host::push(name, value);
}
