//! Settings that a query changes while the plugin runs.
//!
//! They are beside those of the configuration, as `runtime` in [`Settings`](crate::Settings), and reach the plugin as those
//! do: `start` is given them, on a fresh instance. Only the host's owner can change them: `POST`, or
//! `blockmill plugin query --change`. Anybody else's query ends at the first change, and is answered with 403.

#[cfg(target_arch = "wasm32")]
use crate::bindings::blockmill::plugin::settings as host;
#[cfg(not(target_arch = "wasm32"))]
use crate::testing::host::settings as host;

use crate::Json;

/// Sets a setting. All changes of a query count together, once it has answered without an error and `start` took them.
pub fn set(name: &str, value: &Json) {
    host::change(name, Some(&value.to_string()));
}

/// Removes a setting.
pub fn remove(name: &str) {
    host::change(name, None);
}
