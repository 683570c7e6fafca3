//! What a plugin says of itself.

use crate::rows::Table;
use crate::{Descriptor, WantedColumns, WantedEvents};

impl Descriptor {
    /// A plugin with this name (lower-case letters, digits and `-`), version (semantic) and line for people. It wants
    /// nothing, has no tables, and its state has version 1.
    pub fn new(name: &str, version: &str, description: &str) -> Self {
        Descriptor {
            name: name.into(),
            version: version.into(),
            description: description.into(),
            state_version: 1,
            columns: WantedColumns::empty(),
            events: WantedEvents::empty(),
            tables: Vec::new(),
            roles: Vec::new(),
        }
    }

    /// Version of what the plugin keeps in its state: another number means that the state must be made anew.
    pub fn state_version(mut self, version: u32) -> Self {
        self.state_version = version;
        self
    }

    /// The columns that are to be built and copied for this plugin.
    pub fn wants(mut self, columns: WantedColumns) -> Self {
        self.columns |= columns;
        self
    }

    /// Changes of the memory pool are wanted.
    pub fn wants_mempool(mut self) -> Self {
        self.events |= WantedEvents::MEMPOOL;
        self
    }

    /// Adds a table that [`table!`](crate::table) made.
    pub fn table<T: Table>(mut self) -> Self {
        self.tables.push(T::declaration());
        self
    }

    /// What this plugin gives to others, such as `coins`.
    pub fn role(mut self, role: &str) -> Self {
        self.roles.push(role.into());
        self
    }
}
