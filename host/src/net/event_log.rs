//! What peers did, line by line in a CSV file: unix time, address, event, details.

use crate::chain::sync::PeerEvent;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// An open file of events.
pub struct EventLog {
    writer: csv::Writer<BufWriter<File>>,
    path: PathBuf,
    failed: bool,
}

impl EventLog {
    /// Opens the file to append to it; a new one gets its head line.
    ///
    /// # Errors
    ///
    /// When the file cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(path)
            .with_context(|| format!("failed to open the event log {}", path.display()))?;
        let empty = file.metadata().map_or(0, |meta| meta.len()) == 0;
        let mut writer = csv::Writer::from_writer(BufWriter::new(file));
        if empty {
            writer.write_record(["time", "address", "event", "details"])?;
        }
        Ok(Self {
            writer,
            path: path.to_owned(),
            failed: false,
        })
    }

    /// Writes an event. When the disk is full it says so once, and the host goes on.
    pub fn write(&mut self, event: &PeerEvent) {
        let time = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |t| t.as_secs_f64());
        let written = self
            .writer
            .write_record([
                format!("{time:.3}").as_str(),
                &event.addr.to_string(),
                event.event,
                &event.details,
            ])
            .map_err(anyhow::Error::from);
        self.said(written);
    }

    /// Hands what was written to the operating system.
    pub fn flush(&mut self) {
        let flushed = self.writer.flush().map_err(anyhow::Error::from);
        self.said(flushed);
    }

    fn said(&mut self, result: Result<()>) {
        match result {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                tracing::warn!(path = %self.path.display(), %error, "the event log cannot be written");
            }
            Err(_) => {}
        }
    }
}
