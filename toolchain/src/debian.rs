//! Debian's `rustc-web`, unpacked and not installed.
//!
//! It is the compiler Debian keeps new enough for Firefox. It has no standard library for wasm, but its source package does,
//! and `cargo` builds that. The packages are downloaded by `apt-get download`, which needs no root, and unpacked by
//! `dpkg -x` into `CACHE/VERSION`. The folder is made under another name and renamed when it is whole, so that a folder with
//! the right name is complete, and an interrupted run is done again.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{cache, printed};

const COMPILER: &str = "rustc-web";
const SOURCE: &str = "rust-web-src";

/// What the compiler depends on and every machine that can build the host has: a C compiler and the C library.
const EXPECTED: [&str; 5] = ["gcc", "binutils", "libc6", "libc6-dev", "libgcc-s1"];

/// What a folder that is not complete begins with; the id of the process that fills it follows.
const PARTIAL: &str = ".partial-";

/// The newest complete compiler in the cache.
pub(super) fn cached() -> Result<Option<PathBuf>> {
    newest(&cache()?)
}

fn newest(cache: &Path) -> Result<Option<PathBuf>> {
    let mut found: Vec<(Vec<u64>, PathBuf)> = match cache.read_dir() {
        Err(_) => return Ok(None),
        Ok(entries) => entries
            .flatten()
            .map(|entry| (numbers(&entry.file_name().to_string_lossy()), entry.path()))
            .filter(|(_, path)| {
                !path
                    .file_name()
                    .is_some_and(|name| name.to_string_lossy().starts_with('.'))
            })
            .filter(|(_, path)| path.join("usr/bin/rustc").is_file())
            .collect(),
    };
    found.sort();
    Ok(found.pop().map(|(_, path)| path))
}

/// The numbers in a version, to compare by.
fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// Downloads and unpacks the compiler; returns its folder.
///
/// # Errors
///
/// When this is no Debian, the packages are not offered, or the package lists are too old and may not be updated.
pub(super) fn fetch() -> Result<PathBuf> {
    for tool in ["apt-get", "apt-cache", "dpkg", "dpkg-query"] {
        let found = Command::new(tool)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if found.is_err() {
            bail!("{tool} is not here: only Debian and its kin offer the packages of {COMPILER}");
        }
    }
    let cache = cache()?;
    fs::create_dir_all(&cache).with_context(|| format!("failed to make {}", cache.display()))?;
    remove_abandoned(&cache);
    let partial = Partial::new(&cache)?;
    match fetch_into(&cache, &partial.0) {
        Ok(path) => Ok(path),
        Err(error) => {
            eprintln!("{error:#}: updating the package lists");
            update_lists()?;
            fetch_into(&cache, &partial.0)
        }
    }
}

/// Looks up, downloads and unpacks with the package lists as they are.
fn fetch_into(cache: &Path, partial: &Path) -> Result<PathBuf> {
    let version = candidate(COMPILER)?;
    let folder = cache.join(folder_name(&version));
    if folder.exists() {
        return Ok(folder);
    }
    let packages = packages()?;
    eprintln!(
        "fetching {COMPILER} {version} ({} packages) into {}, once",
        packages.len(),
        folder.display()
    );
    let downloads = partial.join("packages");
    let unpacked = partial.join("root");
    fs::create_dir_all(&downloads).context("failed to make a folder for packages")?;
    fs::create_dir_all(&unpacked).context("failed to make a folder for a compiler")?;
    // The sandbox user of apt cannot write into a home folder; root would be warned about it.
    run(Command::new("apt-get")
        .current_dir(&downloads)
        .args([
            "--quiet=2",
            "--option",
            "APT::Sandbox::User=root",
            "download",
        ])
        .args(&packages))?;
    for entry in downloads.read_dir().context("failed to list packages")? {
        let package = entry.context("failed to list packages")?.path();
        run(Command::new("dpkg").arg("-x").arg(&package).arg(&unpacked))?;
    }
    keep_library_source(&unpacked)?;
    printed(
        Command::new(unpacked.join("usr/bin/rustc"))
            .arg("--version")
            .env("LD_LIBRARY_PATH", library_path(&unpacked)),
    )
    .context("the unpacked compiler does not run")?;
    match fs::rename(&unpacked, &folder) {
        Ok(()) => Ok(folder),
        // Somebody else was faster, with the same packages.
        Err(_) if folder.join("usr/bin/rustc").is_file() => Ok(folder),
        Err(error) => Err(error).with_context(|| format!("failed to make {}", folder.display())),
    }
}

/// Folders of libraries below an unpacked compiler, for the loader.
pub(super) fn library_path(root: &Path) -> OsString {
    let libraries = root.join("usr/lib");
    let mut folders: Vec<PathBuf> = libraries
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.to_string_lossy().contains("-linux-"))
        .collect();
    folders.sort();
    folders.push(libraries);
    std::env::join_paths(folders).unwrap_or_default()
}

/// The version apt would install.
fn candidate(package: &str) -> Result<String> {
    let policy = printed(
        Command::new("apt-cache")
            .args(["policy", package])
            .env("LC_ALL", "C"),
    )?;
    policy
        .lines()
        .find_map(|line| line.trim().strip_prefix("Candidate:"))
        .map(str::trim)
        .filter(|version| *version != "(none)")
        .map(str::to_owned)
        .with_context(|| format!("the package lists do not name {package}"))
}

/// A version as a folder's name. (An epoch's colon would end an entry of `LD_LIBRARY_PATH`.)
fn folder_name(version: &str) -> String {
    version
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || ".+-~".contains(c) {
                c
            } else {
                '_'
            }
        })
        .collect()
}

/// The compiler, its source, and what they need that is not installed.
fn packages() -> Result<BTreeSet<String>> {
    let mut packages = BTreeSet::new();
    let mut open = vec![COMPILER.to_owned(), SOURCE.to_owned()];
    while let Some(package) = open.pop() {
        let listed = printed(
            Command::new("apt-cache")
                .args(["depends", "--important", &package])
                .env("LC_ALL", "C"),
        )?;
        packages.insert(package);
        for any_of in dependencies(&listed) {
            let covered = any_of.iter().any(|name| {
                EXPECTED.contains(&name.as_str()) || packages.contains(name) || installed(name)
            });
            if let Some(first) = any_of.into_iter().next()
                && !covered
            {
                open.push(first);
            }
        }
    }
    Ok(packages)
}

/// The dependencies in what `apt-cache depends` prints, each as the packages of which one is enough.
///
/// A `|` before a line says that the next one is an alternative. Virtual packages, in angle brackets, are left out: those of
/// a compiler are all about a C library.
fn dependencies(listed: &str) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    let mut any_of = Vec::new();
    for line in listed.lines() {
        let line = line.trim_start();
        let (more, line) = match line.strip_prefix('|') {
            Some(rest) => (true, rest),
            None => (false, line),
        };
        let name = line
            .strip_prefix("Depends: ")
            .or_else(|| line.strip_prefix("PreDepends: "));
        let Some(name) = name else { continue };
        if !name.starts_with('<') {
            any_of.push(name.trim().to_owned());
        }
        if !more && !any_of.is_empty() {
            all.push(std::mem::take(&mut any_of));
        }
    }
    all
}

fn installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["--show", "--showformat", "${db:Status-Abbrev}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.status.success() && output.stdout.starts_with(b"ii"))
}

/// Removes the source of everything but the standard library: nine tenths of it are the compiler's.
fn keep_library_source(unpacked: &Path) -> Result<()> {
    let sources = unpacked.join("usr/src");
    for version in sources
        .read_dir()
        .context("the source package holds no source")?
        .flatten()
    {
        for entry in version.path().read_dir().into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && entry.file_name() != "library" {
                fs::remove_dir_all(&path)
                    .with_context(|| format!("failed to remove {}", path.display()))?;
            }
        }
    }
    Ok(())
}

/// Runs `apt-get update`, as root or through a `sudo` that does not ask.
fn update_lists() -> Result<()> {
    let mut command = if rustix::process::geteuid().is_root() {
        Command::new("apt-get")
    } else {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "apt-get"]);
        sudo
    };
    run(command.args(["--quiet=2", "update"]))
        .context("the package lists are missing or too old: run apt-get update as root")
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("failed to start {program}"))?;
    if !status.success() {
        bail!("{program} failed: {status}");
    }
    Ok(())
}

/// A folder that is removed when it is dropped.
struct Partial(PathBuf);

impl Partial {
    fn new(cache: &Path) -> Result<Self> {
        let path = cache.join(format!("{PARTIAL}{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // What stays behind is removed by the next run.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes what processes that are gone have left in `cache`.
fn remove_abandoned(cache: &Path) {
    for entry in cache.read_dir().into_iter().flatten().flatten() {
        let name = entry.file_name();
        if let Some(pid) = name.to_string_lossy().strip_prefix(PARTIAL)
            && !Path::new("/proc").join(pid).exists()
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn dependencies_are_read_with_their_alternatives() {
        let listed = "libllvm22\n  PreDepends: dpkg\n  Depends: libc6\n |Depends: libedit2\n  Depends: libedit3\n  \
                      Depends: <libc-dev>\n    libc6-dev\n  Conflicts: <rustup>\n  Replaces: rustc\n";
        let expected = [vec!["dpkg"], vec!["libc6"], vec!["libedit2", "libedit3"]];
        assert_eq!(dependencies(listed), expected);
    }

    #[test]
    fn the_newest_complete_compiler_is_taken() {
        let cache = tempfile::tempdir().unwrap();
        assert_eq!(newest(&cache.path().join("missing")).unwrap(), None);
        let make = |name: &str, complete: bool| {
            let bin = cache.path().join(name).join("usr/bin");
            fs::create_dir_all(&bin).unwrap();
            if complete {
                fs::write(bin.join("rustc"), b"").unwrap();
            }
        };
        make("1.99.0", false);
        make(".partial-1", true);
        assert_eq!(newest(cache.path()).unwrap(), None);
        make("1.96.0+dfsg1-1~deb12u2", true);
        make("1.100.0+dfsg1-1", true);
        make("1.97.0+dfsg1-1", true);
        let found = newest(cache.path()).unwrap().unwrap();
        assert_eq!(found.file_name().unwrap(), "1.100.0+dfsg1-1");
    }

    #[test]
    fn what_a_dead_process_left_is_removed_and_what_a_live_one_fills_is_not() {
        let cache = tempfile::tempdir().unwrap();
        let ours = Partial::new(cache.path()).unwrap();
        // Process ids end at 2^22 on Linux.
        let dead = cache.path().join(format!("{PARTIAL}99999999"));
        fs::create_dir_all(&dead).unwrap();
        remove_abandoned(cache.path());
        assert!(ours.0.exists());
        assert!(!dead.exists());
    }

    #[test]
    fn a_version_becomes_one_name() {
        assert_eq!(
            folder_name("1:1.96.0+dfsg1-1~deb12u2"),
            "1_1.96.0+dfsg1-1~deb12u2"
        );
        assert_eq!(folder_name("../x"), ".._x");
    }
}
