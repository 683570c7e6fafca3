//! Plugins: compiling, describing and calling them. What they see of the host is `wit/plugin.wit`.

mod bindings;
mod budget;
mod capsule;
mod capsule_state;
mod capsules;
mod descriptor;
mod engine;
mod error;
mod gauges;
mod host;
mod instance;
mod interfaces;
mod parts;
mod pool_columns;
mod recorder;
mod replay;
mod runtime_settings;
mod volatile;

pub use budget::{Budget, Limits, Usage};
pub use capsule::{Capsule, Given, Header as CapsuleHeader, PoolHeader};
pub use capsules::{Capsules, Failure};
pub use descriptor::{COINS, Descriptor, WantedColumns, is_plugin_name};
pub use engine::{Compiled, MAX_PLUGIN_SIZE, PluginEngine, hash_of};
pub use error::{CallError, FailureClass};
pub use gauges::Gauges;
pub use host::{LaneSpace, Surroundings, Watched};
pub use instance::{BlockInput, Instance, MempoolInput, Place, QueryError};
pub use interfaces::Interfaces;
pub use recorder::{HeaderSource, KnownHeader, Recorder, Recording};
pub use replay::{Replayed, replay};
pub use runtime_settings::RuntimeSettings;
pub use volatile::Volatile;
