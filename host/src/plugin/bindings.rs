//! What `wasmtime` makes of `wit/plugin.wit`.
//!
//! Columns go into the guest from borrowed slices, in one copy a list.

#![allow(
    missing_docs,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used
)]

wasmtime::component::bindgen!({
    path: "../wit",
    world: "plugin",
    ownership: Borrowing { duplicate_if_necessary: true },
    imports: { default: trappable },
});
