//! How durations and sizes are written in the configuration: `"2m"`, `"300 MB"`.

/// Durations as text: `"2s"`, `"20m"`, `"336h"`, `"1m 30s"`.
pub mod span {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Reads a duration; a bare number is refused, because nobody can tell whether it means seconds.
    ///
    /// # Errors
    /// When the value is no text or no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_duration(&text).map_err(|why| {
            D::Error::custom(format!(
                "\"{text}\" is not a duration such as \"2s\" or \"20m\" ({why})"
            ))
        })
    }

    /// Writes a duration as it is read.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&humantime::format_duration(*span).to_string())
    }
}

/// A duration that may be absent.
pub mod maybe_span {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    /// Reads a duration that is there.
    ///
    /// # Errors
    /// As [`super::span::deserialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        super::span::deserialize(from).map(Some)
    }

    /// Writes a duration as it is read, or none.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(span: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        match span {
            Some(span) => super::span::serialize(span, to),
            None => to.serialize_none(),
        }
    }
}

/// An address that may be absent, as an empty text.
pub mod maybe_address {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Reads an address with its port, or nothing from an empty text.
    ///
    /// # Errors
    /// When the value is no text, or neither.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| {
            let problem = format!("\"{text}\" is no address and port such as \"127.0.0.1:9050\"");
            D::Error::custom(problem)
        })
    }

    /// Writes an address as it is read.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(addr: &Option<SocketAddr>, to: S) -> Result<S::Ok, S::Error> {
        let text = addr.map(|addr| addr.to_string()).unwrap_or_default();
        to.serialize_str(&text)
    }
}

/// Sizes in bytes as text: `"300 MB"` (10^6), `"512 MiB"` (2^20).
pub mod size {
    use bytesize::ByteSize;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    const UNITS: [(&str, u64); 6] = [
        ("GiB", 1 << 30),
        ("GB", 1_000_000_000),
        ("MiB", 1 << 20),
        ("MB", 1_000_000),
        ("KiB", 1 << 10),
        ("kB", 1_000),
    ];

    /// A size in bytes from its text.
    ///
    /// # Errors
    /// When the text is no size with a unit.
    pub fn parse(text: &str) -> Result<u64, String> {
        let wrong = || format!("\"{text}\" is not a size such as \"300 MB\" or \"2 GiB\"");
        if !text.ends_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(wrong());
        }
        text.parse::<ByteSize>()
            .map(|size| size.as_u64())
            .map_err(|_| wrong())
    }

    /// The text of a size, exact: [`parse`] gives the same number back.
    pub fn format(bytes: u64) -> String {
        match UNITS
            .iter()
            .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit))
        {
            Some((name, unit)) => format!("{} {name}", bytes / unit),
            None => format!("{bytes} B"),
        }
    }

    /// Reads a size; a bare number is refused, because nobody can tell whether it means bytes or megabytes.
    ///
    /// # Errors
    /// When the value is no text or no size.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        parse(&String::deserialize(from)?).map_err(D::Error::custom)
    }

    /// Writes a size as it is read.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(bytes: &u64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format(*bytes))
    }
}

/// A size that may be absent.
pub mod maybe_size {
    use serde::{Deserializer, Serializer};

    /// Reads a size that is there.
    ///
    /// # Errors
    /// As [`super::size::deserialize`].
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
        super::size::deserialize(from).map(Some)
    }

    /// Writes a size as it is read, or none.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(bytes: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => super::size::serialize(bytes, to),
            None => to.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::size;

    #[test]
    fn a_size_is_written_as_it_is_read() {
        for bytes in [
            0,
            1,
            999,
            1_000,
            1_024,
            16_000_000,
            256 << 20,
            10_000_000_000,
            123_456_789,
        ] {
            assert_eq!(
                size::parse(&size::format(bytes)),
                Ok(bytes),
                "{}",
                size::format(bytes)
            );
        }
        assert_eq!(size::parse("300 MB"), Ok(300_000_000));
        assert_eq!(size::parse("1.5GiB"), Ok(3 << 29));
    }

    #[test]
    fn a_size_needs_its_unit() {
        for text in ["300", "", "MB", "-1 MB", "10 GX", "all"] {
            assert!(size::parse(text).is_err(), "{text}");
        }
    }
}
