//! The parameters of a query.

use crate::{QueryError, hex};

/// What stands behind the `?` of a query.
#[derive(Clone, Debug, Default)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Names and values, in order.
    pub fn new(params: Vec<(String, String)>) -> Self {
        Params(params)
    }

    /// The first value with this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// All values with this name, in order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The value with this name, or a bad request that says it is missing.
    pub fn required(&self, name: &str) -> Result<&str, QueryError> {
        self.get(name)
            .ok_or_else(|| QueryError::BadRequest(format!("the parameter `{name}` is missing")))
    }

    /// A whole number that is not negative; a bad request where it is something else.
    pub fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, QueryError> {
        let Some(text) = self.get(name) else {
            return Ok(None);
        };
        let number = text.parse().map_err(|_| {
            QueryError::BadRequest(format!(
                "the parameter `{name}` is not a whole number in its range: `{text}`"
            ))
        })?;
        Ok(Some(number))
    }

    /// A hash as explorers show it, returned in internal order; a bad request where it is missing or something else.
    pub fn hash(&self, name: &str) -> Result<[u8; 32], QueryError> {
        let text = self.required(name)?;
        hex::parse_hash(text).ok_or_else(|| {
            QueryError::BadRequest(format!(
                "the parameter `{name}` is not a hash of 64 hexadecimal digits: `{text}`"
            ))
        })
    }

    /// Refuses parameters that are not among `known`, so that a slip of the pen is not silently ignored.
    pub fn only(&self, known: &[&str]) -> Result<(), QueryError> {
        match self
            .0
            .iter()
            .find(|(name, _)| !known.contains(&name.as_str()))
        {
            None => Ok(()),
            Some((name, _)) if known.is_empty() => Err(QueryError::BadRequest(format!(
                "unknown parameter `{name}`: there are none here"
            ))),
            Some((name, _)) => Err(QueryError::BadRequest(format!(
                "unknown parameter `{name}`: there are {}",
                known.join(", ")
            ))),
        }
    }
}
