//! `blockmill plugin inspect`: what a file is, and whether the host would take it.

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use bitcoin::hashes::{Hash, sha256};
use clap::Args;
use serde::Serialize;

use super::{field, size};
use crate::config::Wasi;
use crate::plugin::{COINS, Compiled, Descriptor, Instance, PluginEngine};
use crate::store::{TableKind, TableSpec};

#[derive(Args, Debug)]
pub(in crate::cli) struct Inspect {
    /// The plugin file
    file: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What can be said of a file.
#[derive(Debug, Serialize)]
pub(super) struct Inspected {
    file: PathBuf,
    size: u64,
    sha256: String,
    /// "core module", "component" or "not WebAssembly".
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    package: Option<String>,
    imports: Vec<String>,
    exports: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin: Option<Described>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

/// What it says of itself.
#[derive(Debug, Serialize)]
struct Described {
    name: String,
    version: String,
    description: String,
    state_version: u32,
    roles: Vec<&'static str>,
    /// Columns beside the transactions, which everybody gets.
    columns: Vec<String>,
    mempool: bool,
    tables: Vec<TableSpec>,
}

impl Inspect {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        let found = inspect(&self.file)?;
        match self.json {
            true => super::super::line(out, &serde_json::to_string(&found)?)?,
            false => found.print(out)?,
        }
        match found.refused {
            Some(_) => Err(anyhow!("the host would refuse {}", self.file.display())),
            None => Ok(()),
        }
    }
}

/// Looks at a file as far as that is possible.
pub(super) fn inspect(file: &Path) -> Result<Inspected> {
    let bytes = std::fs::read(file)
        .with_context(|| format!("failed to read the plugin {}", file.display()))?;
    let mut found = Inspected {
        file: file.to_owned(),
        size: bytes.len() as u64,
        sha256: sha256::Hash::hash(&bytes).to_string(),
        kind: match bytes.get(..8) {
            Some([0, b'a', b's', b'm', _, _, 1, 0]) => "component",
            Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => "core module",
            _ => "not WebAssembly",
        },
        package: None,
        imports: Vec::new(),
        exports: Vec::new(),
        plugin: None,
        refused: None,
    };
    let engine = PluginEngine::new()?;
    match engine.load(file, Wasi::None) {
        Ok(compiled) => found.look(&engine, &compiled),
        // The file is named already.
        Err(error) => found.refused = Some(format!("{:#}", strip(error))),
    }
    Ok(found)
}

/// The error below the outermost one, which only names the file.
fn strip(error: anyhow::Error) -> anyhow::Error {
    let mut causes = error.chain().skip(1).map(ToString::to_string);
    match causes.next() {
        Some(first) => anyhow!(
            causes.fold(first, |text, cause| match text.ends_with(&cause) {
                true => text,
                false => format!("{text}: {cause}"),
            })
        ),
        None => error,
    }
}

impl Inspected {
    fn look(&mut self, engine: &PluginEngine, compiled: &Compiled) {
        let interfaces = compiled.interfaces();
        self.package = interfaces.package();
        self.imports = interfaces.imports;
        self.exports = interfaces.exports;
        match Instance::describe(engine, compiled) {
            Ok(descriptor) => {
                self.refused = refused_table(&descriptor.tables);
                self.plugin = Some(described(descriptor));
            }
            Err(error) => self.refused = Some(error.to_string()),
        }
    }

    fn print(&self, out: &mut dyn Write) -> Result<()> {
        field(out, "file", self.file.display())?;
        field(out, "size", size(self.size))?;
        field(out, "sha256", &self.sha256)?;
        match &self.package {
            Some(package) => field(out, "made for", format!("{package}, a {}", self.kind))?,
            None => field(out, "kind", self.kind)?,
        }
        self.print_imports(out)?;
        if let Some(plugin) = &self.plugin {
            plugin.print(out)?;
        }
        if let Some(why) = &self.refused {
            field(out, "refused", why)?;
        }
        Ok(())
    }

    /// The imports, without what all of them have in common.
    pub(super) fn print_imports(&self, out: &mut dyn Write) -> Result<()> {
        if self.package.is_none() {
            return Ok(());
        }
        let short: Vec<&str> = self
            .imports
            .iter()
            .map(|name| match name.strip_prefix("blockmill:plugin/") {
                Some(interface) => interface.split('@').next().unwrap_or(interface),
                None => name,
            })
            .collect();
        match short.is_empty() {
            true => field(out, "imports", "nothing"),
            false => field(out, "imports", short.join(", ")),
        }
    }

    pub(super) fn refused(&self) -> Option<&str> {
        self.refused.as_deref()
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }
}

/// What the row store would refuse.
fn refused_table(tables: &[TableSpec]) -> Option<String> {
    for (index, table) in tables.iter().enumerate() {
        if let Err(error) = table.check() {
            return Some(error.to_string());
        }
        if tables
            .iter()
            .take(index)
            .any(|other| other.name == table.name)
        {
            return Some(format!("table {} is declared twice", table.name));
        }
    }
    None
}

fn described(descriptor: Descriptor) -> Described {
    let columns = descriptor.columns.to_string();
    Described {
        name: descriptor.name,
        version: descriptor.version,
        description: descriptor.description,
        state_version: descriptor.state_version,
        roles: if descriptor.coins {
            vec![COINS]
        } else {
            vec![]
        },
        columns: match columns.as_str() {
            "none" => Vec::new(),
            names => names.split(", ").map(str::to_owned).collect(),
        },
        mempool: descriptor.mempool,
        tables: descriptor.tables,
    }
}

impl Described {
    fn print(&self, out: &mut dyn Write) -> Result<()> {
        let or_none = |names: &[&str]| match names {
            [] => "none".to_owned(),
            names => names.join(", "),
        };
        field(out, "plugin", format!("{} {}", self.name, self.version))?;
        field(out, "what it does", &self.description)?;
        field(out, "state", format!("version {}", self.state_version))?;
        field(out, "roles", or_none(&self.roles))?;
        let columns: Vec<&str> = self.columns.iter().map(String::as_str).collect();
        field(out, "columns", or_none(&columns))?;
        field(out, "mempool", if self.mempool { "yes" } else { "no" })?;
        if self.tables.is_empty() {
            field(out, "tables", "none")?;
        }
        for table in &self.tables {
            let kind = match table.kind {
                TableKind::Anchored => "anchored",
                TableKind::Volatile => "volatile",
            };
            field(out, "table", format!("{}, {kind}", table.name))?;
            for column in &table.columns {
                let kind = format!("{:?}", column.kind).to_lowercase();
                let null = if column.nullable { ", may be null" } else { "" };
                let key = match table.key.contains(&column.name) {
                    true => ", key",
                    false => "",
                };
                writeln!(out, "               {} {kind}{null}{key}", column.name)?;
            }
            for index in &table.indexes {
                writeln!(out, "               index on {}", index.join(", "))?;
            }
        }
        Ok(())
    }
}
