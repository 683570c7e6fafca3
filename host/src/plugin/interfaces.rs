//! What a compiled plugin imports and exports.

use super::engine::Compiled;

/// The interfaces of a plugin, by name and version, such as `blockmill:plugin/state@0.1.0`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interfaces {
    /// What it asks of the host.
    pub imports: Vec<String>,
    /// What it offers.
    pub exports: Vec<String>,
}

impl Interfaces {
    /// The WIT package with its version that the plugin was made for.
    pub fn package(&self) -> Option<String> {
        let export = self.exports.first()?;
        let (package, rest) = export.split_once('/')?;
        let version = rest.split_once('@').map(|(_, version)| version);
        Some(match version {
            Some(version) => format!("{package}@{version}"),
            None => package.to_owned(),
        })
    }
}

impl Compiled {
    /// Its imports and exports. Interfaces that it uses for their types alone are imports too.
    pub fn interfaces(&self) -> Interfaces {
        let component = self.pre.instance_pre().component();
        let (described, engine) = (component.component_type(), component.engine());
        Interfaces {
            imports: described
                .imports(engine)
                .map(|(name, _)| name.to_owned())
                .collect(),
            exports: described
                .exports(engine)
                .map(|(name, _)| name.to_owned())
                .collect(),
        }
    }
}
