//! Finds a compiler that can make wasm out of a plugin.
//!
//! Three places are tried: the ordinary `rustc`, when its standard library for the target is there; `rustup target add`,
//! which needs a network; and Debian's packages of a newer `rustc` with the source of the standard library, unpacked into a
//! cache folder and not installed ([`debian`]).

//!
//! `cargo xtask` and `blockmill plugin build` both compile plugins, and both do it here. What is done is said on standard
//! error: standard output belongs to what was asked for.

pub mod debian;
mod limit;
mod names;
mod place;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

pub use limit::run_within;
pub use place::place;

/// What plugins are compiled for: wasm with no system below it, so that a plugin can import only what the host offers.
pub const TARGET: &str = "wasm32-unknown-unknown";

/// How long `rustup target add` may take: without a network it fails at once or never ends.
const RUSTUP_LIMIT: Duration = Duration::from_secs(120);

/// Where the compiler may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Source {
    /// The ordinary rustc, else rustup, else Debian's packages
    Auto,
    /// The ordinary rustc, its target added with rustup if need be
    Rustup,
    /// Debian's packages, even when the ordinary rustc would do
    Debian,
}

/// A compiler for [`TARGET`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WasmToolchain {
    /// The `rustc` that builds everything else.
    Ordinary,
    /// A `rustc` unpacked from Debian's packages, which compiles the standard library itself.
    Unpacked {
        /// The folder that holds the package's `usr`.
        root: PathBuf,
        /// The program that links wasm.
        linker: PathBuf,
    },
}

impl WasmToolchain {
    /// Finds a compiler, fetching one where needed and allowed; says in a line or two what it does.
    ///
    /// # Errors
    ///
    /// When there is none and none can be fetched: the message says what to install.
    pub fn find(source: Source) -> Result<Self> {
        let sysroot = sysroot()?;
        if source != Source::Debian {
            if has_target(&sysroot) {
                return Ok(Self::Ordinary);
            }
            // Fetched before means that rustup failed before: it is not asked again each time.
            if source == Source::Auto
                && let Some(root) = debian::cached()?
            {
                return Self::unpacked(root, &sysroot);
            }
            match add_target() {
                Ok(()) if has_target(&sysroot) => return Ok(Self::Ordinary),
                Ok(()) => eprintln!("rustup added {TARGET}, but not to {}", sysroot.display()),
                Err(error) => eprintln!("{error:#}"),
            }
            if source == Source::Rustup {
                bail!(
                    "the ordinary rustc cannot compile for {TARGET}: run rustup target add {TARGET}"
                );
            }
        }
        let root = match debian::cached()? {
            Some(root) => root,
            None => debian::fetch().with_context(|| {
                format!(
                    "no compiler for {TARGET}: with rustup and a network `rustup target add {TARGET}` is all it takes; \
                     on Debian, `apt-get update` and the packages of rustc-web"
                )
            })?,
        };
        Self::unpacked(root, &sysroot)
    }

    fn unpacked(root: PathBuf, sysroot: &Path) -> Result<Self> {
        let linker = linker(sysroot).with_context(|| {
            format!(
                "no linker for wasm: neither rust-lld in {} nor wasm-ld in PATH; install the package lld",
                sysroot.display()
            )
        })?;
        Ok(Self::Unpacked { root, linker })
    }

    /// `cargo build` for [`TARGET`] in a folder; packages, profile and target folder are the caller's to add.
    pub fn cargo_build(&self, folder: &Path) -> Command {
        let mut command = cargo(folder);
        command.args(["build", "--target", TARGET]);
        if let Self::Unpacked { root, linker } = self {
            command
                .arg("-Zbuild-std=std,panic_abort")
                .env("RUSTC", root.join("usr/bin/rustc"))
                // Building the standard library is not a stable feature of cargo; this lets the stable one do it.
                .env("RUSTC_BOOTSTRAP", "1")
                .env("LD_LIBRARY_PATH", debian::library_path(root))
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", linker);
        }
        command
    }
}

/// The `cargo` that runs this program, or the one that is installed, in `folder`.
pub fn cargo(folder: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(folder);
    command
}

/// The ordinary compiler.
fn rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// What `command` prints, without white space at the ends.
fn printed(command: &mut Command) -> Result<String> {
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("failed to start {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!(
            "{} failed: {}",
            command.get_program().display(),
            output.status
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn sysroot() -> Result<PathBuf> {
    Ok(printed(rustc().args(["--print", "sysroot"]))?.into())
}

/// Whether the standard library for [`TARGET`] is in `sysroot`.
fn has_target(sysroot: &Path) -> bool {
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    libraries.read_dir().is_ok_and(|entries| {
        entries
            .flatten()
            .any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"))
    })
}

fn add_target() -> Result<()> {
    eprintln!("rustc has no standard library for {TARGET}: trying rustup target add {TARGET}");
    let mut command = Command::new("rustup");
    command.args(["target", "add", TARGET]);
    match run_within("rustup", &mut command, RUSTUP_LIMIT)? {
        Some(status) if status.success() => Ok(()),
        Some(_) => bail!("rustup could not add {TARGET}"),
        None => bail!(
            "rustup did not add {TARGET} within {} s",
            RUSTUP_LIMIT.as_secs()
        ),
    }
}

/// The linker that comes with an ordinary toolchain, or one that is installed.
fn linker(sysroot: &Path) -> Option<PathBuf> {
    let bundled = sysroot.join("lib/rustlib").read_dir().ok()?.flatten();
    let installed = std::env::var_os("PATH").unwrap_or_default();
    bundled
        .map(|entry| entry.path().join("bin/rust-lld"))
        .chain(std::env::split_paths(&installed).map(|folder| folder.join("wasm-ld")))
        .find(|path| path.is_file())
}

/// The folder for what is fetched once for all clones.
fn cache() -> Result<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
    let base = match (set("XDG_CACHE_HOME"), set("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, Some(home)) => Path::new(&home).join(".cache"),
        (None, None) => bail!("neither XDG_CACHE_HOME nor HOME is set: no place for a compiler"),
    };
    Ok(base.join("blockmill").join("wasm-toolchain"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use std::fs;

    use super::*;

    #[test]
    fn a_sysroot_has_the_target_only_with_its_standard_library() {
        let sysroot = tempfile::tempdir().unwrap();
        assert!(!has_target(sysroot.path()));
        let libraries = sysroot.path().join("lib/rustlib").join(TARGET).join("lib");
        fs::create_dir_all(&libraries).unwrap();
        fs::write(libraries.join("libcore-1.rlib"), b"").unwrap();
        assert!(!has_target(sysroot.path()));
        fs::write(libraries.join("libstd-1.rlib"), b"").unwrap();
        assert!(has_target(sysroot.path()));
    }

    #[test]
    fn an_unpacked_compiler_is_told_to_cargo_whole() {
        let toolchain = WasmToolchain::Unpacked {
            root: "/unpacked".into(),
            linker: "/bin/rust-lld".into(),
        };
        let command = toolchain.cargo_build(Path::new("/workspace"));
        let env = |name: &str| {
            let (_, value) = command.get_envs().find(|(key, _)| *key == name).unwrap();
            value.unwrap().to_str().unwrap().to_owned()
        };
        assert_eq!(env("RUSTC"), "/unpacked/usr/bin/rustc");
        assert_eq!(env("RUSTC_BOOTSTRAP"), "1");
        assert!(env("LD_LIBRARY_PATH").starts_with("/unpacked/usr/lib"));
        assert_eq!(
            env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER"),
            "/bin/rust-lld"
        );
        assert!(
            command
                .get_args()
                .any(|arg| arg == "-Zbuild-std=std,panic_abort")
        );
    }
}
