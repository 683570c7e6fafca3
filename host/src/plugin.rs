//! Plugins: compiling, describing and calling them. What they see of the host is `wit/plugin.wit`.

mod bindings;
mod descriptor;
mod engine;
mod error;
mod gauges;
mod host;
mod instance;
mod pool_columns;
mod runtime_settings;
mod volatile;

pub use descriptor::{COINS, Descriptor, WantedColumns, is_plugin_name};
pub use engine::{Compiled, PluginEngine};
pub use error::CallError;
pub use gauges::Gauges;
pub use host::{LaneSpace, Surroundings};
pub use instance::{BlockInput, Instance, Limits, MempoolInput, QueryError};
pub use runtime_settings::RuntimeSettings;
pub use volatile::Volatile;
