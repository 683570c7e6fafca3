//! What `blockmill plugin new` begins with: the source of plugins that are built and tested here, with another name.

/// The template that is used when none is asked for.
pub(super) const DEFAULT: &str = "minimal";

/// A plugin to begin with.
pub(super) struct Template {
    /// Its name, which is that of the plugin it is made from.
    pub name: &'static str,
    /// What it shows, for the README.
    pub shows: &'static str,
    /// The manifest of that plugin, for what it depends on.
    pub manifest: &'static str,
    /// Its tables whose names do not begin with the plugin's own.
    pub tables: &'static [&'static str],
    /// The files below `src/`.
    pub files: &'static [(&'static str, &'static str)],
}

/// The source of a plugin of this repository as a template: its folder, its files, what it shows.
macro_rules! template {
    ($name:literal, $folder:literal, [$($file:literal),+], $shows:literal, [$($table:literal),*]) => {
        Template {
            name: $name,
            shows: $shows,
            manifest: include_str!(concat!("../../../../", $folder, "/Cargo.toml")),
            tables: &[$($table),*],
            files: &[$(($file, include_str!(concat!("../../../../", $folder, "/src/", $file)))),+],
        }
    };
}

/// Every template. One more is one more line: the plugin's test, when it is in a file of its own, is replaced by a short one.
pub(super) const TEMPLATES: &[Template] = &[
    template!(
        "minimal",
        "tests/plugins/minimal",
        ["lib.rs"],
        "one table, two numbers in the state, one query",
        []
    ),
    template!(
        "block-stats",
        "plugins/block-stats",
        ["lib.rs"],
        "rows per block and per day, percentiles, queries with parameters",
        ["day_stats"]
    ),
    template!(
        "watch",
        "plugins/watch",
        [
            "lib.rs",
            "definition.rs",
            "follow.rs",
            "query.rs",
            "tables.rs"
        ],
        "scripts that are watched, confirmed and in the pool, and settings that a query changes",
        []
    ),
];

/// In place of a test that needs this repository's data.
const TEST: &str = "use super::*;
use blockmill_sdk::testing::Harness;

#[test]
fn it_starts_without_settings() {
    let harness = Harness::<PLUGIN>::new(json!({}));
    assert_eq!(harness.height(), None);
}
";

/// Types that the standard library brings into every scope, and macros may rely on.
const STANDARD: [&str; 14] = [
    "Box", "Clone", "Copy", "Default", "Drop", "Err", "From", "Into", "Iterator", "Ok", "Option",
    "Result", "String", "Vec",
];

impl Template {
    /// The template of this name.
    pub(super) fn find(name: &str) -> Option<&'static Template> {
        TEMPLATES.iter().find(|template| template.name == name)
    }

    /// The files below `src/` for a plugin of another name.
    pub(super) fn source(&self, name: &str) -> Vec<(&'static str, String)> {
        let (old_type, new_type) = (camel(self.name), self.type_name(name));
        let (old_snake, new_snake) = (self.name.replace('-', "_"), name.replace('-', "_"));
        let rename = |text: &str| {
            let text = text.replace(&format!("\"{}\"", self.name), &format!("\"{name}\""));
            // Tables and the like: their names are the host's, and two plugins cannot have the same.
            let text = text.replace(&format!("\"{old_snake}_"), &format!("\"{new_snake}_"));
            let text = self.tables.iter().fold(text, |text, table| {
                replace_word(&text, table, &format!("{new_snake}_{table}"))
            });
            let text = match old_snake == self.name {
                true => text,
                false => text.replace(&format!("\"{old_snake}\""), &format!("\"{new_snake}\"")),
            };
            replace_word(&text, &old_type, &new_type)
        };
        let files = self.files.iter();
        let mut files: Vec<(&str, String)> =
            files.map(|(file, text)| (*file, rename(text))).collect();
        let declares = |text: &str| text.trim_end().ends_with("mod tests;");
        if files
            .iter()
            .any(|(file, text)| *file == "lib.rs" && declares(text))
        {
            files.push(("tests.rs", TEST.replace("PLUGIN", &new_type)));
        }
        files
    }

    /// What it depends on beside the SDK, as lines of a manifest.
    pub(super) fn dependencies(&self) -> Vec<String> {
        let manifest: toml::Table = toml::from_str(self.manifest).unwrap_or_default();
        let dependencies = manifest.get("dependencies").and_then(toml::Value::as_table);
        dependencies
            .into_iter()
            .flatten()
            .filter(|(name, _)| *name != "blockmill-sdk")
            .map(|(name, value)| format!("{name} = {value}"))
            .collect()
    }

    /// The plugin's type for a name, apart from every other type that the source speaks of.
    fn type_name(&self, name: &str) -> String {
        let plain = camel(name);
        let taken = STANDARD.contains(&plain.as_str())
            || self
                .files
                .iter()
                .any(|(_, text)| replace_word(text, &plain, "") != *text);
        match taken && plain != camel(self.name) {
            true => format!("{plain}Plugin"),
            false => plain,
        }
    }
}

/// A plugin's name as a type's: `my-index` becomes `MyIndex`.
fn camel(name: &str) -> String {
    name.split('-')
        .flat_map(|word| {
            let mut letters = word.chars();
            let first = letters.next().map(|first| first.to_ascii_uppercase());
            first.into_iter().chain(letters)
        })
        .collect()
}

/// Replaces an identifier where it stands alone.
fn replace_word(text: &str, word: &str, with: &str) -> String {
    let part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut out = String::with_capacity(text.len());
    let mut before = None;
    for (at, found) in text.match_indices(word) {
        let end = at + found.len();
        let (left, right) = (
            text.get(..at).unwrap_or_default(),
            text.get(end..).unwrap_or_default(),
        );
        out.push_str(text.get(before.unwrap_or(0)..at).unwrap_or_default());
        let alone = !left.ends_with(part) && !right.starts_with(part);
        out.push_str(if alone { with } else { found });
        before = Some(end);
    }
    out.push_str(text.get(before.unwrap_or(0)..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use crate::plugin::is_plugin_name;

    #[test]
    fn an_identifier_is_replaced_where_it_stands_alone() {
        assert_eq!(
            replace_word("Watch WatchRow <Watch> a_Watch Watch", "Watch", "Own"),
            "Own WatchRow <Own> a_Watch Own"
        );
        assert_eq!(replace_word("none", "Watch", "Own"), "none");
    }

    /// The names of the tables that a source declares: text behind the kind of a table, or among the arguments of a macro
    /// that has one.
    fn tables(source: &str) -> Vec<&str> {
        source
            .lines()
            .filter(|line| {
                line.contains("Anchored \"")
                    || line.contains("Volatile \"")
                    || line.contains("Table, ")
            })
            .filter_map(|line| line.split('"').nth(1))
            .collect()
    }

    #[test]
    fn every_template_takes_another_name_and_keeps_nothing_of_its_own() {
        assert!(Template::find(DEFAULT).is_some());
        for template in TEMPLATES {
            assert!(is_plugin_name(template.name), "{}", template.name);
            let files = template.source("my-own-index");
            let all: String = files.iter().map(|(_, text)| text.as_str()).collect();
            assert!(all.contains("Descriptor::new("), "{}", template.name);
            assert!(all.contains("\"my-own-index\""), "{}", template.name);
            assert!(
                all.contains("export_plugin!(MyOwnIndex)"),
                "{}",
                template.name
            );
            assert!(all.contains("#[test]"), "{} has no test", template.name);
            for table in tables(&all) {
                assert!(table.starts_with("my_own_index"), "{table}");
            }
            assert!(
                !all.contains(&format!("\"{}\"", template.name)),
                "{}",
                template.name
            );
            assert!(
                !all.contains("env!(\"CARGO_MANIFEST_DIR\")"),
                "{}",
                template.name
            );
            // Each module that is declared is there.
            for (file, text) in &files {
                let folder = file.trim_end_matches("lib.rs").trim_end_matches(".rs");
                for module in text.lines().filter_map(|line| {
                    let line = line.strip_prefix("pub ").unwrap_or(line);
                    line.strip_prefix("mod ")?.strip_suffix(';')
                }) {
                    let path = match folder {
                        "" => format!("{module}.rs"),
                        folder => format!("{folder}/{module}.rs"),
                    };
                    let there = files.iter().any(|(file, _)| *file == path);
                    assert!(there, "{}: {path}", template.name);
                }
            }
            for line in template.dependencies() {
                assert!(
                    !line.contains("workspace") && !line.contains("path"),
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn a_name_that_is_a_type_of_the_source_becomes_another_type() {
        let template = Template::find(DEFAULT).unwrap();
        for (name, expected) in [
            ("block", "BlockPlugin"),
            ("string", "StringPlugin"),
            ("my-1st", "My1st"),
        ] {
            assert_eq!(template.type_name(name), expected);
        }
    }
}
