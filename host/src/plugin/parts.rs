//! What a component is made of, as its budget counts it.

use anyhow::{Context, Result};
use wasmparser::{Instance, Parser, Payload};
use wasmtime::component::Component;

/// Core instances, memories or tables of one instance of a component, of whichever there are most. A component within it
/// counts once, however often it is instantiated.
pub(super) fn largest(bytes: &[u8], component: &Component) -> Result<u64> {
    let mut instances = 0;
    for payload in Parser::new(0).parse_all(bytes) {
        let Payload::InstanceSection(section) = payload.context("it is damaged")? else {
            continue;
        };
        for instance in section {
            // The others only give names to what is there.
            let made = matches!(
                instance.context("it is damaged")?,
                Instance::Instantiate { .. }
            );
            instances += u64::from(made);
        }
    }
    let others = component
        .resources_required()
        .map_or(0, |needs| needs.num_memories.max(needs.num_tables));
    Ok(instances.max(others.into()))
}
