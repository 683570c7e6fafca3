//! The native programs of the workspace: the host, the devnet.

use std::fs;
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

/// The program `name`, if it was built and nothing that it is made of has changed since; the optimised one first.
///
/// Asking cargo would compile what is missing, and a person who has one of the two does not want to wait for the other.
pub fn fresh(root: &Path, name: &str) -> Option<PathBuf> {
    [Profile::Release, Profile::Debug]
        .into_iter()
        .map(|profile| path(root, name, profile))
        .find(|program| is_fresh(root, program) == Some(true))
}

/// Whether what cargo made is newer than its sources; `None` when it or one of them is not there.
pub fn is_fresh(root: &Path, program: &Path) -> Option<bool> {
    let modified = |path: &Path| fs::metadata(path).and_then(|meta| meta.modified()).ok();
    let built = modified(program)?;
    // Cargo writes beside each program what it was made of, as a rule of make.
    let rule = fs::read_to_string(program.with_extension("d")).ok()?;
    let (_, sources) = rule.lines().next()?.split_once(": ")?;
    let sources = sources.replace("\\ ", "\0");
    let sources = sources
        .split_whitespace()
        .map(|path| PathBuf::from(path.replace('\0', " ")));
    let lock = root.join("Cargo.lock");
    for source in sources.chain([lock]) {
        if modified(&source)? > built {
            return Some(false);
        }
    }
    Some(true)
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use std::fs::File;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_program_is_fresh_until_a_source_changes() {
        let root = tempfile::tempdir().unwrap();
        let place = |name: &str, age: u64| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let time = SystemTime::now() - Duration::from_secs(age);
            File::create(&path).unwrap().set_modified(time).unwrap();
            path
        };
        place("Cargo.lock", 50);
        let program = place("target/debug/a", 10);
        assert_eq!(
            fresh(root.path(), "a"),
            None,
            "what it is made of is not known"
        );
        let source = place("src/with space/main.rs", 20);
        let written = source.display().to_string().replace(' ', "\\ ");
        let rule = format!("{}: {written}\n", program.display());
        fs::write(program.with_extension("d"), rule).unwrap();
        assert_eq!(fresh(root.path(), "a"), Some(program));
        place("src/with space/main.rs", 5);
        assert_eq!(fresh(root.path(), "a"), None);
    }
}
