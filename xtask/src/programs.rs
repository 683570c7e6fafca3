//! The native programs of the workspace: the host, the devnet.

use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Builds the program of the package `package`, for use; returns its path.
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
    finish(&mut command, package)?;
    Ok(path(root, package, profile))
}

/// Builds all programs of the workspace, for tests, in the debug profile.
///
/// Not one package after the other: dependencies would be compiled once with the features that each needs, and once more
/// with those that the tests of the whole workspace need.
///
/// # Errors
///
/// When one does not compile.
pub fn build_all(root: &Path) -> Result<()> {
    finish(
        workspace::cargo(root).args(["build", "--workspace", "--bins"]),
        "a program",
    )
}

/// Builds the programs of these packages for use, in one go: together they need the features of each.
///
/// # Errors
///
/// When one does not compile.
pub fn build_release(root: &Path, packages: &[&str]) -> Result<()> {
    let mut command = workspace::cargo(root);
    command.args(["build", "--release", "--bins"]);
    for package in packages {
        command.args(["--package", package]);
    }
    finish(&mut command, "a program")
}

fn finish(command: &mut Command, what: &str) -> Result<()> {
    let status = command.status().context("failed to start cargo")?;
    if !status.success() {
        bail!("{what} did not compile");
    }
    Ok(())
}
