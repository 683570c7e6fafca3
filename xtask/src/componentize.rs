//! The plugin in Python of `tests/plugins-foreign/python/`, and componentize-py, which makes a component of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::workspace;

/// How long pip may take: 17 MB are fetched, and without a network it tries again for a while.
const PIP_LIMIT: Duration = Duration::from_secs(300);
/// How long the build of a plugin may take; 10 s on a machine with nothing else to do.
const BUILD_LIMIT: Duration = Duration::from_secs(600);

/// What became of [`build`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Built {
    /// The component.
    Yes(PathBuf),
    /// There is none, because the toolchain cannot be had, and why.
    No(String),
}

/// Builds `clockwork.py` with the componentize-py that `requirements.txt` names, which is installed into `target/` by pip
/// when it is not there. What was built of the same sources is not built again.
///
/// # Errors
///
/// When files cannot be written, or the toolchain is there and does not build the plugin.
pub fn build(root: &Path) -> Result<Built> {
    let from = root.join("tests/plugins-foreign/python");
    let folder = workspace::target(root).join("componentize-py");
    if let Some(reason) = install(&from, &folder)? {
        return Ok(Built::No(reason));
    }
    let component = folder.join("clockwork.wasm");
    // Written last, so that it says that the build came to its end, and of what.
    let stamp = folder.join("built.txt");
    let mut sources = Vec::new();
    for source in [
        from.join("clockwork.py"),
        from.join("requirements.txt"),
        root.join("wit/plugin.wit"),
    ] {
        let bytes =
            fs::read(&source).with_context(|| format!("failed to read {}", source.display()))?;
        sources.extend_from_slice(&bytes);
    }
    if component.is_file() && fs::read(&stamp).is_ok_and(|there| there == sources) {
        return Ok(Built::Yes(component));
    }
    // A copy, so that Python leaves nothing beside the source.
    fs::copy(from.join("clockwork.py"), folder.join("clockwork.py"))
        .context("failed to copy the plugin")?;
    let mut command = Command::new(tool(&folder, "componentize-py"));
    command
        .current_dir(&folder)
        .arg("--wit-path")
        .arg(root.join("wit"))
        .args([
            "--world",
            "plugin",
            "--quiet",
            "componentize",
            "clockwork",
            "--output",
        ])
        .arg(&component)
        .stdin(Stdio::null());
    let status = wasm_toolchain::run_within("componentize-py", &mut command, BUILD_LIMIT)?;
    anyhow::ensure!(
        status.is_some_and(|status| status.success()),
        "componentize-py did not build the plugin: {status:?}"
    );
    fs::write(&stamp, sources).with_context(|| format!("failed to write {}", stamp.display()))?;
    Ok(Built::Yes(component))
}

/// Installs what is required, unless it is there; says why it cannot be had.
fn install(from: &Path, folder: &Path) -> Result<Option<String>> {
    let requirements = from.join("requirements.txt");
    let wanted = fs::read(&requirements).context("failed to read requirements.txt")?;
    let stamp = folder.join("installed.txt");
    if fs::read(&stamp).is_ok_and(|there| there == wanted) {
        return Ok(None);
    }
    let found = Command::new("python3")
        .args(["-c", "import venv, ensurepip"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !found.is_ok_and(|status| status.success()) {
        return Ok(Some(
            "python3 with venv and pip is not installed".to_owned(),
        ));
    }
    fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv", "--clear"])
        .arg(folder.join("venv"));
    let mut pip = Command::new(tool(folder, "python"));
    pip.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-input",
        "--disable-pip-version-check",
        "--only-binary=:all:",
        "--require-hashes",
        "--requirement",
    ])
    .arg(&requirements);
    for (name, command) in [("python3 -m venv", &mut venv), ("pip", &mut pip)] {
        command.stdin(Stdio::null());
        match wasm_toolchain::run_within(name, command, PIP_LIMIT)? {
            Some(status) if status.success() => {}
            Some(status) => return Ok(Some(format!("{name} failed: {status}"))),
            None => {
                let limit = PIP_LIMIT.as_secs();
                return Ok(Some(format!("{name} took longer than {limit} s")));
            }
        }
    }
    fs::write(&stamp, wanted).with_context(|| format!("failed to write {}", stamp.display()))?;
    Ok(None)
}

fn tool(folder: &Path, name: &str) -> PathBuf {
    folder.join("venv/bin").join(name)
}
