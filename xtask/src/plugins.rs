//! Builds the plugins: every package right below `plugins/` and `tests/plugins/` that is a `cdylib`, each to one `.wasm`
//! file, `target/plugins/NAME.wasm` and `target/plugins/test/NAME.wasm`.
//!
//! They are compiled in a target folder of their own (`target/wasm`), because their compiler may be another than the host's,
//! and neither shall make the other start again.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use wasm_toolchain::{TARGET, WasmToolchain, place};

use crate::{programs, workspace};

/// The cargo profile of plugins, in the workspace's `Cargo.toml`.
const PROFILE: &str = "plugin";

/// A package that is compiled to a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plugin {
    /// The package's name, and that of the file.
    pub name: String,
    /// What cargo calls the package. A name alone may be that of a dependency too.
    id: String,
    /// The name cargo gives to the compiled library, without `.wasm`.
    pub library: String,
    /// Whether it is one of the plugins that only tests and measurements use, in `tests/plugins/`.
    pub test: bool,
}

impl Plugin {
    /// Where its compiled file is, or would be, after [`build`].
    pub fn path(&self, root: &Path) -> PathBuf {
        folder(root, self.test).join(format!("{}.wasm", self.name))
    }
}

/// The folder of the compiled plugins, or of those that only tests use.
pub fn folder(root: &Path, test: bool) -> PathBuf {
    let folder = workspace::target(root).join("plugins");
    if test { folder.join("test") } else { folder }
}

/// All plugins of the workspace, sorted by name.
///
/// # Errors
///
/// As [`workspace::packages`].
pub fn find(root: &Path) -> Result<Vec<Plugin>> {
    let mut plugins: Vec<Plugin> = workspace::packages(root)?
        .iter()
        .filter_map(|package| plugin(root, package))
        .collect();
    plugins.sort_by(|a, b| (a.test, &a.name).cmp(&(b.test, &b.name)));
    Ok(plugins)
}

/// `package`, as `cargo metadata` describes it, when it is a plugin.
fn plugin(root: &Path, package: &Value) -> Option<Plugin> {
    let manifest = Path::new(package.get("manifest_path")?.as_str()?);
    let parent = manifest.parent()?.parent()?.strip_prefix(root).ok()?;
    let test = parent == Path::new("tests/plugins");
    if !test && parent != Path::new("plugins") {
        return None;
    }
    let target = package.get("targets")?.as_array()?.iter().find(|target| {
        let kinds = target.get("kind").and_then(Value::as_array);
        kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "cdylib"))
    })?;
    Some(Plugin {
        name: package.get("name")?.as_str()?.to_owned(),
        id: package.get("id")?.as_str()?.to_owned(),
        library: target.get("name")?.as_str()?.replace('-', "_"),
        test,
    })
}

/// Whether these plugins are compiled and in their places, and nothing that they are made of has changed since.
pub fn are_fresh(root: &Path, plugins: &[Plugin]) -> bool {
    plugins.iter().all(|plugin| {
        programs::is_fresh(root, &built(root, plugin)) == Some(true) && plugin.path(root).exists()
    })
}

/// What cargo makes of a plugin.
fn built(root: &Path, plugin: &Plugin) -> PathBuf {
    target_dir(root)
        .join(TARGET)
        .join(PROFILE)
        .join(format!("{}.wasm", plugin.library))
}

fn target_dir(root: &Path) -> PathBuf {
    workspace::target(root).join("wasm")
}

/// Compiles every plugin of the workspace; see [`build_these`].
///
/// # Errors
///
/// When there are none, one does not compile, or a file cannot be written.
pub fn build(root: &Path, toolchain: &WasmToolchain) -> Result<Vec<Plugin>> {
    let plugins = find(root)?;
    if plugins.is_empty() {
        bail!("no plugins below {}", root.join("plugins").display());
    }
    build_these(root, toolchain, &plugins)?;
    Ok(plugins)
}

/// Compiles plugins, puts the files in their places and prints a line for each.
///
/// # Errors
///
/// When one does not compile or a file cannot be written.
pub fn build_these(root: &Path, toolchain: &WasmToolchain, plugins: &[Plugin]) -> Result<()> {
    let mut command = toolchain.cargo_build(root);
    command
        .env("CARGO_TARGET_DIR", target_dir(root))
        .args(["--profile", PROFILE, "--lib"]);
    for plugin in plugins {
        command.args(["--package", &plugin.id]);
    }
    let status = command.status().context("failed to start cargo")?;
    if !status.success() {
        bail!("a plugin did not compile");
    }
    for plugin in plugins {
        let path = plugin.path(root);
        let size = place(&built(root, plugin), &path, plugin.test)?;
        println!(
            "{}  {:.1} kB",
            workspace::shown(root, &path),
            size as f64 / 1000.0
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use std::fs;

    use super::*;

    #[test]
    fn every_plugin_folder_is_found_and_the_sdk_is_none() {
        let names: Vec<String> = find(&workspace::root())
            .unwrap()
            .into_iter()
            .filter(|plugin| !plugin.test)
            .map(|plugin| plugin.name)
            .collect();
        let mut folders: Vec<String> = fs::read_dir(workspace::root().join("plugins"))
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().join("Cargo.toml").exists())
            .map(|entry| entry.file_name().into_string().unwrap())
            .filter(|name| name != "sdk")
            .collect();
        folders.sort();
        assert_eq!(names, folders);
        assert!(names.contains(&"utxo-tracker".to_owned()));
    }
}
