//! A plugin's settings from the configuration file.

use crate::{Json, Object, StartInfo};

impl StartInfo {
    /// The settings, to be read one by one and then [finished](Settings::finish).
    pub fn settings(&self) -> Result<Settings, String> {
        let text = if self.settings.is_empty() {
            "{}"
        } else {
            self.settings.as_str()
        };
        match Json::parse(text) {
            Ok(Json::Object(left)) => Ok(Settings {
                left,
                known: Vec::new(),
            }),
            Ok(_) => Err("the settings are not a table".into()),
            Err(error) => Err(format!("the settings are not JSON: {error}")),
        }
    }
}

/// The settings that were not read yet.
#[derive(Debug)]
pub struct Settings {
    left: Object,
    known: Vec<&'static str>,
}

impl Settings {
    fn take(&mut self, key: &'static str) -> Option<Json> {
        self.known.push(key);
        self.left.remove(key)
    }

    /// The settings that queries changed, by name; see [`runtime`](crate::runtime). A plugin that never changes any need not
    /// read them.
    pub fn runtime(&mut self) -> Result<Object, String> {
        match self.take("runtime") {
            None => Ok(Object::new()),
            Some(Json::Object(changed)) => Ok(changed),
            Some(_) => Err("the setting `runtime` is the host's own".into()),
        }
    }

    /// Whatever is there, none where it is not set.
    pub fn json(&mut self, key: &'static str) -> Option<Json> {
        self.take(key)
    }

    /// A yes or no; `default` where it is not set.
    pub fn bool(&mut self, key: &'static str, default: bool) -> Result<bool, String> {
        match self.take(key) {
            None => Ok(default),
            Some(Json::Bool(value)) => Ok(value),
            Some(other) => Err(format!(
                "the setting `{key}` must be true or false, and is {other}"
            )),
        }
    }

    /// A whole number that is not negative; `default` where it is not set.
    pub fn number(&mut self, key: &'static str, default: u64) -> Result<u64, String> {
        match self.take(key) {
            None => Ok(default),
            Some(value) => value.as_u64().ok_or_else(|| {
                format!("the setting `{key}` must be a whole number that is not negative, and is {value}")
            }),
        }
    }

    /// A list of whole numbers; `default` where it is not set.
    pub fn numbers(&mut self, key: &'static str, default: &[u64]) -> Result<Vec<u64>, String> {
        match self.take(key) {
            None => Ok(default.to_vec()),
            Some(value) => value
                .as_array()
                .and_then(|list| list.iter().map(Json::as_u64).collect())
                .ok_or_else(|| {
                    format!("the setting `{key}` must be a list of whole numbers, and is {value}")
                }),
        }
    }

    /// A text; `default` where it is not set.
    pub fn text(&mut self, key: &'static str, default: &str) -> Result<String, String> {
        match self.take(key) {
            None => Ok(default.into()),
            Some(Json::String(value)) => Ok(value),
            Some(other) => Err(format!(
                "the setting `{key}` must be a text, and is {other}"
            )),
        }
    }

    /// Refuses what was set and not read: a slip of the pen is an error, not a default.
    pub fn finish(self) -> Result<(), String> {
        match self.left.iter().next().map(|(key, _)| key) {
            None => Ok(()),
            Some(key) if self.known.is_empty() => {
                Err(format!("unknown setting `{key}`: this plugin has none"))
            }
            Some(key) => Err(format!(
                "unknown setting `{key}`: there are {}",
                self.known.join(", ")
            )),
        }
    }
}
