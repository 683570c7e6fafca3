//! `blockmill plugin new`: a folder with a plugin that builds.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;

use super::field;
use super::template::{DEFAULT, TEMPLATES, Template};
use crate::plugin::is_plugin_name;

/// The environment variable that names the SDK's folder.
const SDK: &str = "BLOCKMILL_SDK";
/// The SDK's folder in a checkout of the repository.
const IN_CHECKOUT: &str = "plugins/sdk";
/// Names that cargo or rustc keep for themselves, of those that are plugin names otherwise.
const RESERVED: [&str; 57] = [
    "abstract",
    "alloc",
    "as",
    "async",
    "await",
    "become",
    "blockmill-sdk",
    "box",
    "break",
    "build",
    "const",
    "continue",
    "core",
    "crate",
    "deps",
    "do",
    "dyn",
    "else",
    "enum",
    "examples",
    "extern",
    "false",
    "final",
    "fn",
    "for",
    "gen",
    "if",
    "impl",
    "in",
    "incremental",
    "let",
    "loop",
    "macro",
    "match",
    "mod",
    "move",
    "mut",
    "override",
    "priv",
    "proc-macro",
    "pub",
    "ref",
    "return",
    "self",
    "static",
    "std",
    "struct",
    "super",
    "test",
    "trait",
    "true",
    "try",
    "type",
    "unsafe",
    "use",
    "where",
    "while",
];

#[derive(Args, Debug)]
pub(in crate::cli) struct New {
    /// The plugin's name: 1 to 32 lower-case letters, digits and '-', a letter first
    #[arg(value_parser = name)]
    name: String,
    /// What to begin with
    #[arg(long, default_value = DEFAULT, value_parser = templates())]
    template: String,
    /// The folder of the SDK, plugins/sdk in a checkout of Blockmill
    #[arg(long, value_name = "PATH")]
    sdk: Option<PathBuf>,
    /// Where to make it [default: a folder of the plugin's name, here]
    #[arg(long, value_name = "FOLDER")]
    path: Option<PathBuf>,
}

fn templates() -> PossibleValuesParser {
    PossibleValuesParser::new(TEMPLATES.iter().map(|template| template.name))
}

fn name(text: &str) -> Result<String, String> {
    if !is_plugin_name(text) {
        return Err(
            "a plugin's name has 1 to 32 lower-case letters, digits and '-', and begins with a letter".to_owned(),
        );
    }
    if RESERVED.contains(&text) {
        return Err("Rust keeps this name for itself".to_owned());
    }
    Ok(text.to_owned())
}

impl New {
    pub(super) fn run(&self, out: &mut dyn Write) -> Result<()> {
        let template = Template::find(&self.template).context("there is no such template")?;
        let sdk = find_sdk(self.sdk.as_deref())?;
        let folder = self
            .path
            .clone()
            .unwrap_or_else(|| PathBuf::from(&self.name));
        make(&self.name, template, &sdk, &folder)?;
        field(
            out,
            "made",
            format!("{}, from the template {}", folder.display(), template.name),
        )?;
        field(out, "SDK", sdk.display())?;
        writeln!(
            out,
            "\nNext:\n  cd {folder}\n  cargo test               its test, native\n  blockmill plugin build   the .wasm\n  \
             blockmill plugin test .  over made-up blocks, with restarts and cut calls",
            folder = folder.display()
        )?;
        Ok(())
    }
}

/// The folder of the SDK.
fn find_sdk(given: Option<&Path>) -> Result<PathBuf> {
    let checked = |path: &Path, said: &str| {
        let whole = path
            .canonicalize()
            .with_context(|| format!("{said} {}, which cannot be found", path.display()))?;
        if !is_sdk(&whole) {
            bail!("{said} {}, which is not the SDK", path.display());
        }
        Ok(whole)
    };
    if let Some(path) = given {
        return checked(path, "--sdk names");
    }
    if let Some(path) = std::env::var_os(SDK).filter(|path| !path.is_empty()) {
        return checked(Path::new(&path), &format!("{SDK} names"));
    }
    let here = std::env::current_dir().context("failed to find the current folder")?;
    let mut places = here.ancestors().map(|folder| folder.join(IN_CHECKOUT));
    // The checkout that this program was compiled in, when it is still there.
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(IN_CHECKOUT);
    places
        .find(|path| is_sdk(path))
        .or_else(|| Some(own).filter(|path| is_sdk(path)))
        .and_then(|path| path.canonicalize().ok())
        .with_context(|| {
            format!("the SDK is not found: give --sdk, or set {SDK}, with the folder {IN_CHECKOUT} of a checkout of Blockmill")
        })
}

fn is_sdk(folder: &Path) -> bool {
    let text = fs::read_to_string(folder.join("Cargo.toml")).unwrap_or_default();
    let manifest: toml::Table = toml::from_str(&text).unwrap_or_default();
    let name = manifest
        .get("package")
        .and_then(|package| package.get("name"));
    name.and_then(toml::Value::as_str) == Some("blockmill-sdk")
}

/// Writes the plugin into a folder that does not exist or is empty.
fn make(name: &str, template: &Template, sdk: &Path, folder: &Path) -> Result<()> {
    let taken = match folder.read_dir() {
        Ok(mut entries) => entries.next().is_some(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
        Err(error) => {
            return Err(error).with_context(|| format!("{} cannot be used", folder.display()));
        }
    };
    if taken {
        bail!(
            "{} exists and is not empty: nothing was written",
            folder.display()
        );
    }
    let write = |file: &str, text: &str| {
        let path = folder.join(file);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all);
        made.and_then(|()| fs::write(&path, text))
            .with_context(|| format!("failed to write {}", path.display()))
    };
    for (file, text) in template.source(name) {
        write(&format!("src/{file}"), &text)?;
    }
    let folder = folder
        .canonicalize()
        .with_context(|| format!("failed to find {}", folder.display()))?;
    let checkout = sdk.parent().and_then(Path::parent).unwrap_or(sdk);
    // A folder right below these is a package of the checkout's workspace.
    let member = ["plugins", "tests/plugins"]
        .iter()
        .any(|plugins| folder.parent() == Some(&checkout.join(plugins)));
    write("Cargo.toml", &manifest(name, template, sdk, member))?;
    write("README.md", &readme(name, template))?;
    if !member {
        write(".gitignore", "/target\n")?;
        // The versions that the SDK is tested with, which are here already.
        if let Ok(lock) = fs::read_to_string(checkout.join("Cargo.lock")) {
            write("Cargo.lock", &lock)?;
        }
    }
    Ok(())
}

fn manifest(name: &str, template: &Template, sdk: &Path, member: bool) -> String {
    let sdk = toml::Value::String(sdk.display().to_string());
    let dependencies: String = template
        .dependencies()
        .iter()
        .map(|line| format!("{line}\n"))
        .collect();
    let mut text = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\npublish = false\n\n[lib]\n\
         # cdylib is the plugin, rlib is for its tests.\ncrate-type = [\"cdylib\", \"rlib\"]\n\n[dependencies]\n\
         blockmill-sdk = {{ path = {sdk} }}\n{dependencies}"
    );
    if !member {
        text.push_str(
            "\n[profile.release]\nlto = \"fat\"\ncodegen-units = 1\npanic = \"abort\"\n\
             # Keeps the names of functions, for the message of a trap.\nstrip = \"debuginfo\"\n\n\
             # Stands alone, wherever it lies.\n[workspace]\n",
        );
    }
    text
}

fn readme(name: &str, template: &Template) -> String {
    format!(
        "# {name}\n\nA plugin for Blockmill, made from the template `{template}`: {shows}.\n\n\
         \u{20}   cargo test                 its test, native, against a host in memory\n\
         \u{20}   blockmill plugin build     leaves target/plugins/{name}.wasm\n\
         \u{20}   blockmill plugin test .    in the real runtime, over made-up blocks, with restarts, crashes and cut calls\n\n\
         To run it, copy the `.wasm` into the plugins' folder and add to `blockmill.toml`:\n\n\
         ```toml\n[plugins.{name}]\nenabled = true\n```\n\n\
         How plugins work is in `docs/plugins.md` of Blockmill.\n",
        template = template.name,
        shows = template.shows
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    #[test]
    fn names_that_no_plugin_can_have_are_refused() {
        for good in ["a", "my-index", "x1", "a-very-long-name-of-32-character"] {
            assert_eq!(name(good).unwrap(), good);
        }
        for bad in [
            "",
            "1x",
            "My",
            "a_b",
            "a b",
            "../x",
            "fn",
            "test",
            "blockmill-sdk",
            &"a".repeat(33),
        ] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_folder_has_all_that_is_needed_and_one_that_is_taken_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let sdk = find_sdk(None).unwrap();
        let template = Template::find(DEFAULT).unwrap();
        let folder = place.path().join("my-index");
        make("my-index", template, &sdk, &folder).unwrap();
        let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap();
        let manifest: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
        assert_eq!(manifest["package"]["name"].as_str(), Some("my-index"));
        let path = manifest["dependencies"]["blockmill-sdk"]["path"].as_str();
        assert_eq!(path.unwrap(), sdk.to_str().unwrap());
        assert!(manifest.contains_key("workspace"));
        assert!(read("src/lib.rs").contains("export_plugin!(MyIndex);"));
        assert!(read("src/lib.rs").contains("\"my_index_block\""));
        assert!(read("README.md").contains("[plugins.my-index]"));

        fs::write(folder.join("src/lib.rs"), "mine").unwrap();
        let refused = make("my-index", template, &sdk, &folder).unwrap_err();
        assert!(refused.to_string().contains("not empty"), "{refused}");
        assert_eq!(
            fs::read_to_string(folder.join("src/lib.rs")).unwrap(),
            "mine"
        );
    }

    #[test]
    fn a_folder_that_is_not_the_sdk_is_refused() {
        let place = tempfile::tempdir().unwrap();
        for path in [place.path(), &place.path().join("missing")] {
            let error = format!("{:#}", find_sdk(Some(path)).unwrap_err());
            assert!(error.contains("--sdk names"), "{error}");
        }
    }
}
