//! Where things are in the workspace, and how `cargo` is called in it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The folder of the workspace's `Cargo.toml`.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// The folder for everything that is built. It is always the workspace's own: pages and tests name the paths in it.
pub fn target(root: &Path) -> PathBuf {
    root.join("target")
}

/// The `cargo` that runs this program, in `root`, with `root/target` as its target folder.
pub fn cargo(root: &Path) -> Command {
    let mut command = wasm_toolchain::cargo(root);
    command.env("CARGO_TARGET_DIR", target(root));
    command
}

/// The packages of the workspace as `cargo metadata` gives them.
///
/// # Errors
///
/// When `cargo` cannot be started, refuses a manifest, or answers something else than a list of packages.
pub fn packages(root: &Path) -> Result<Vec<Value>> {
    let output = cargo(root)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .context("failed to start cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed");
    }
    let mut metadata: Value = serde_json::from_slice(&output.stdout)
        .context("failed to read what cargo metadata said")?;
    match metadata.get_mut("packages").map(Value::take) {
        Some(Value::Array(packages)) => Ok(packages),
        _ => bail!("cargo metadata named no packages"),
    }
}

/// `path` as a person in the workspace would write it.
pub fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root)
        .unwrap_or(path)
        .display()
        .to_string()
}
