//! Settings of a plugin that were changed while it ran, in a file of their own in the data folder.
//!
//! They are no state: a reorg does not take them back, and a state that is built anew is built with them.

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Settings of one plugin.
const MAX_SETTINGS: usize = 1_000;
/// Bytes of a setting's name.
const MAX_NAME: usize = 255;
/// Bytes of all settings of one plugin.
const MAX_BYTES: usize = 1 << 20;
/// Where `start-info.settings` has them.
const KEY: &str = "runtime";

/// A setting's name and its new value, a JSON text; none removes it.
pub type Change = (String, Option<String>);

/// The settings of one plugin that were changed at run time.
#[derive(Debug)]
pub struct RuntimeSettings {
    /// None: they are kept in memory only.
    path: Option<PathBuf>,
    /// Held while a query may change them, so that two changes do not take each other back.
    changing: Mutex<()>,
    values: Mutex<Map<String, Value>>,
    version: AtomicU64,
}

impl RuntimeSettings {
    /// None, kept nowhere.
    pub fn in_memory() -> Self {
        Self {
            path: None,
            changing: Mutex::default(),
            values: Mutex::default(),
            version: AtomicU64::new(0),
        }
    }

    /// Those in a file, which need not be there.
    ///
    /// # Errors
    ///
    /// When it is there and cannot be read: what the owner changed is not forgotten silently.
    pub fn open(path: PathBuf) -> Result<Self> {
        let values = match std::fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .with_context(|| format!("{} is damaged", path.display()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Map::new(),
            Err(error) => {
                return Err(error).with_context(|| format!("failed to read {}", path.display()));
            }
        };
        Ok(Self {
            path: Some(path),
            values: Mutex::new(values),
            ..Self::in_memory()
        })
    }

    /// Grows with every change.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Waits for whoever is changing them.
    pub fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn values(&self) -> MutexGuard<'_, Map<String, Value>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a plugin is started with: the settings of the configuration, and these beside them.
    pub fn merged(&self, configured: &str) -> String {
        merge(configured, &self.values())
    }

    /// What would be there after these changes, and what a plugin would be started with.
    ///
    /// # Errors
    ///
    /// When that is not within the bounds, or a value is no JSON: the text is for the plugin's author.
    pub fn changed(&self, configured: &str, changes: Vec<Change>) -> Result<(Changed, String)> {
        let mut values = self.values().clone();
        for (name, value) in changes {
            if !(1..=MAX_NAME).contains(&name.len()) {
                bail!("a setting's name has 1 to {MAX_NAME} bytes");
            }
            match value {
                None => drop(values.remove(&name)),
                Some(text) => {
                    let value = serde_json::from_str(&text)
                        .with_context(|| format!("the new value of {name:?} is no JSON"))?;
                    values.insert(name, value);
                }
            }
        }
        if values.len() > MAX_SETTINGS {
            bail!("at most {MAX_SETTINGS} settings can be changed at run time");
        }
        let text = serde_json::to_vec_pretty(&values)?;
        if text.len() > MAX_BYTES {
            bail!("the settings changed at run time have at most {MAX_BYTES} bytes");
        }
        let merged = merge(configured, &values);
        Ok((Changed { values, text }, merged))
    }

    /// Keeps what [`changed`](Self::changed) made, on the disk first.
    ///
    /// # Errors
    ///
    /// When it cannot be written; nothing has changed then.
    pub fn keep(&self, changed: Changed) -> Result<()> {
        if let Some(path) = &self.path {
            let write = || -> std::io::Result<()> {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                crate::whole_file::replace(path, &changed.text)
            };
            write().with_context(|| format!("failed to write {}", path.display()))?;
        }
        *self.values() = changed.values;
        self.version.fetch_add(1, Ordering::Release);
        Ok(())
    }
}

/// Changes that were found to be within the bounds.
pub struct Changed {
    values: Map<String, Value>,
    text: Vec<u8>,
}

fn merge(configured: &str, values: &Map<String, Value>) -> String {
    if values.is_empty() {
        return configured.to_owned();
    }
    match serde_json::from_str(configured) {
        Ok(Value::Object(mut settings)) => {
            settings.insert(KEY.to_owned(), Value::Object(values.clone()));
            Value::Object(settings).to_string()
        }
        // The plugin says what is wrong with them.
        _ => configured.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    fn set(settings: &RuntimeSettings, name: &str, value: Option<&str>) -> Result<String> {
        let change = (name.to_owned(), value.map(str::to_owned));
        let (changed, merged) = settings.changed("{\"a\":1}", vec![change])?;
        settings.keep(changed)?;
        Ok(merged)
    }

    #[test]
    fn changes_are_beside_the_configured_settings_and_there_again_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runtime-settings/x.json");
        let settings = RuntimeSettings::open(path.clone()).unwrap();
        assert_eq!(settings.merged("{\"a\":1}"), "{\"a\":1}");
        let merged = set(&settings, "b", Some("[2]")).unwrap();
        assert_eq!(merged, r#"{"a":1,"runtime":{"b":[2]}}"#);
        assert_eq!(settings.version(), 1);
        let again = RuntimeSettings::open(path.clone()).unwrap();
        assert_eq!(again.merged("{\"a\":1}"), merged);
        assert_eq!(set(&again, "b", None).unwrap(), "{\"a\":1}");
        std::fs::write(&path, "{").unwrap();
        assert!(RuntimeSettings::open(path).is_err());
    }

    #[test]
    fn what_is_over_the_bounds_changes_nothing() {
        let settings = RuntimeSettings::in_memory();
        set(&settings, "b", Some("1")).unwrap();
        assert!(set(&settings, "", Some("1")).is_err());
        assert!(set(&settings, &"n".repeat(256), Some("1")).is_err());
        assert!(set(&settings, "c", Some("{")).is_err());
        let long = format!("\"{}\"", "x".repeat(MAX_BYTES));
        assert!(set(&settings, "c", Some(&long)).is_err());
        let many = (0..MAX_SETTINGS).map(|n| (n.to_string(), Some("1".to_owned())));
        assert!(settings.changed("{}", many.collect()).is_err());
        assert_eq!(settings.merged("{}"), r#"{"runtime":{"b":1}}"#);
        assert_eq!(settings.version(), 1);
    }
}
