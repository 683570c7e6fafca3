//! What `wit-bindgen` makes of `wit/plugin.wit`. The rest of the SDK is what a plugin is written with; these are the
//! types underneath.
//!
//! `unsafe` is allowed here and nowhere else: the generated code reads and writes the memory that it shares with the host.
#![allow(
    unsafe_code,
    missing_docs,
    clippy::all,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing
)]

wit_bindgen::generate!({
    path: "../../wit",
    world: "blockmill:plugin/whole-plugin",
    pub_export_macro: true,
    export_macro_name: "export_processor",
    default_bindings_module: "blockmill_sdk::bindings",
    additional_derives: [Clone, PartialEq],
});
