//! The native programs of the workspace: the host, the devnet.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::workspace;

/// How a program is compiled, and so in which folder it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// `target/debug`
    Debug,
    /// `target/release`
    Release,
}

impl Profile {
    fn folder(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Release => "release",
        }
    }
}

/// Where the program `name` is, or would be, after [`build`].
pub fn path(root: &Path, name: &str, profile: Profile) -> PathBuf {
    workspace::target(root).join(profile.folder()).join(name)
}

/// Builds the programs of the package `package`; returns the path of the one that has its name.
///
/// # Errors
///
/// When it does not compile.
pub fn build(root: &Path, package: &str, profile: Profile) -> Result<PathBuf> {
    let mut command = workspace::cargo(root);
    command.args(["build", "--package", package, "--bins"]);
    if profile == Profile::Release {
        command.arg("--release");
    }
    let status = command.status().context("failed to start cargo")?;
    if !status.success() {
        bail!("{package} did not compile");
    }
    Ok(path(root, package, profile))
}
