//! `blockmill plugin build`: from a folder with source to a `.wasm` file.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use serde_json::Value;
use wasm_toolchain::{Source, TARGET, WasmToolchain, cargo, place};

use super::inspect::{Inspected, inspect};
use super::{field, size};

/// The profile that a workspace may have for its plugins.
const WORKSPACE_PROFILE: &str = "plugin";

#[derive(Args, Debug)]
pub(in crate::cli) struct Build {
    /// The plugin's folder
    #[arg(default_value = ".")]
    path: PathBuf,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A compiled plugin.
pub(super) struct Built {
    /// The file to be loaded.
    pub file: PathBuf,
}

#[derive(Serialize)]
struct Answer<'a> {
    wasm: &'a Path,
    #[serde(flatten)]
    inspected: &'a Inspected,
}

impl Build {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        let built = build(&self.path)?;
        let inspected = inspect(&built.file)?;
        if self.json {
            let answer = Answer {
                wasm: &built.file,
                inspected: &inspected,
            };
            super::super::line(out, &serde_json::to_string(&answer)?)?;
        } else {
            field(out, "wasm", built.file.display())?;
            field(out, "size", size(inspected.size()))?;
            inspected.print_imports(out)?;
        }
        match inspected.refused() {
            Some(why) => bail!("it was built, but the host would refuse it: {why}"),
            None => Ok(()),
        }
    }
}

/// Where cargo would put what, and what it would call it.
struct Package {
    name: String,
    /// The name of the compiled library, without `.wasm`.
    library: String,
    target: PathBuf,
    profile: &'static str,
}

/// Compiles the plugin in a folder. What the compiler says goes to standard error.
pub(super) fn build(folder: &Path) -> Result<Built> {
    if !folder.exists() {
        bail!("there is no folder {}", folder.display());
    }
    if !folder.is_dir() {
        bail!(
            "{} is a file: give the folder of the plugin's source, with its Cargo.toml",
            folder.display()
        );
    }
    if !folder.join("Cargo.toml").is_file() {
        bail!(
            "{} has no Cargo.toml: it is no plugin's folder",
            folder.display()
        );
    }
    let package = package(folder)?;
    let toolchain = WasmToolchain::find(Source::Auto)?;
    // Apart from the folder of native builds: the compiler may be another, and neither shall make the other start again.
    let target = package.target.join("wasm");
    let status = toolchain
        .cargo_build(folder)
        .env("CARGO_TARGET_DIR", &target)
        .args(["--lib", "--profile", package.profile])
        .stdout(Stdio::from(std::io::stderr()))
        .status()
        .context("failed to start cargo")?;
    if !status.success() {
        bail!("the plugin in {} did not compile", folder.display());
    }
    let profile = package.profile;
    let built = target
        .join(TARGET)
        .join(profile)
        .join(format!("{}.wasm", package.library));
    let file = package
        .target
        .join("plugins")
        .join(format!("{}.wasm", package.name));
    place(&built, &file, false)?;
    Ok(Built { file })
}

fn package(folder: &Path) -> Result<Package> {
    let folder = folder
        .canonicalize()
        .with_context(|| format!("failed to find {}", folder.display()))?;
    let output = cargo(&folder)
        .args(["metadata", "--no-deps", "--format-version", "1"])
        .stderr(Stdio::inherit())
        .output()
        .context("failed to start cargo: a plugin is built with Rust, from https://rustup.rs or the packages of the system")?;
    if !output.status.success() {
        bail!(
            "cargo does not understand {}",
            folder.join("Cargo.toml").display()
        );
    }
    let metadata: Value = serde_json::from_slice(&output.stdout)
        .context("failed to read what cargo metadata said")?;
    let path = |key: &str| metadata.get(key).and_then(Value::as_str).map(PathBuf::from);
    let target = path("target_directory").context("cargo names no target folder")?;
    let root = path("workspace_root").context("cargo names no workspace")?;
    let manifest = folder.join("Cargo.toml");
    let packages = metadata.get("packages").and_then(Value::as_array);
    let package = packages
        .into_iter()
        .flatten()
        .find(|package| {
            package
                .get("manifest_path")
                .and_then(Value::as_str)
                .map(Path::new)
                == Some(&manifest)
        })
        .with_context(|| format!("{} names no package", manifest.display()))?;
    let library = package
        .get("targets")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .find(|target| {
            let kinds = target.get("kind").and_then(Value::as_array);
            kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind == "cdylib"))
        })
        .with_context(|| {
            format!(
                "{} makes no plugin: its [lib] needs crate-type = [\"cdylib\", \"rlib\"]",
                manifest.display()
            )
        })?;
    let name = |value: &Value| value.get("name").and_then(Value::as_str).map(str::to_owned);
    Ok(Package {
        name: name(package).context("the package has no name")?,
        library: name(library)
            .context("the library has no name")?
            .replace('-', "_"),
        profile: match has_profile(&root) {
            true => WORKSPACE_PROFILE,
            false => "release",
        },
        target,
    })
}

/// Whether a workspace says how its plugins are compiled.
fn has_profile(root: &Path) -> bool {
    let text = std::fs::read_to_string(root.join("Cargo.toml")).unwrap_or_default();
    let manifest: Option<toml::Table> = toml::from_str(&text).ok();
    let profiles = manifest
        .as_ref()
        .and_then(|manifest| manifest.get("profile"));
    profiles
        .and_then(|profiles| profiles.get(WORKSPACE_PROFILE))
        .is_some()
}
