//! bcoin, a full node in JavaScript, for the tests with a peer that nobody here wrote.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::workspace;

/// How long npm may take: 20 MB are fetched, and without a network it tries again for minutes.
const NPM_LIMIT: Duration = Duration::from_secs(300);

/// The files that say what is installed, in `tests/bcoin/`.
const MANIFESTS: [&str; 2] = ["package.json", "package-lock.json"];

/// What became of [`install`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installed {
    /// It is there.
    Yes,
    /// It is not, and why.
    No(String),
}

/// The folder into which bcoin is installed.
pub fn folder(root: &Path) -> PathBuf {
    workspace::target(root).join("bcoin")
}

/// The program that Node.js runs, when bcoin is installed.
pub fn program(root: &Path) -> Option<PathBuf> {
    let program = folder(root).join("node_modules/bcoin/bin/node");
    program.is_file().then_some(program)
}

/// Installs what `tests/bcoin/package-lock.json` names with npm, unless it is there.
///
/// No script of a package is run: the native parts that they would compile are not needed.
///
/// # Errors
///
/// When files cannot be written. A machine without npm, or an npm that fails, is [`Installed::No`].
pub fn install(root: &Path) -> Result<Installed> {
    let from = root.join("tests/bcoin");
    let folder = folder(root);
    // Written last, so that it says that the install came to its end, and of what.
    let stamp = folder.join("installed.json");
    let lock =
        fs::read(from.join("package-lock.json")).context("failed to read package-lock.json")?;
    if program(root).is_some() && fs::read(&stamp).is_ok_and(|there| there == lock) {
        return Ok(Installed::Yes);
    }
    for tool in ["node", "npm"] {
        let found = Command::new(tool)
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        if !found.is_ok_and(|status| status.success()) {
            return Ok(Installed::No(format!("{tool} is not installed")));
        }
    }
    fs::create_dir_all(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
    for name in MANIFESTS {
        fs::copy(from.join(name), folder.join(name))
            .with_context(|| format!("failed to copy {name}"))?;
    }
    let mut npm = Command::new("npm");
    npm.current_dir(&folder)
        .args([
            "ci",
            "--ignore-scripts",
            "--no-audit",
            "--no-fund",
            "--loglevel=error",
        ])
        .stdin(Stdio::null());
    match wasm_toolchain::run_within("npm", &mut npm, NPM_LIMIT)? {
        Some(status) if status.success() => {}
        Some(status) => return Ok(Installed::No(format!("npm failed: {status}"))),
        None => {
            let limit = NPM_LIMIT.as_secs();
            return Ok(Installed::No(format!("npm took longer than {limit} s")));
        }
    }
    if program(root).is_none() {
        bail!("npm installed no bcoin into {}", folder.display());
    }
    fs::write(&stamp, lock).with_context(|| format!("failed to write {}", stamp.display()))?;
    Ok(Installed::Yes)
}
