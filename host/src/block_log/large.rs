//! Payloads that are too long to be held: written as they come, and read in pieces.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use super::catalog::Place;
use super::error::{BlockLogError, io_error};
use super::frames::Frames;
use super::index_file::Record;
use super::segment_log::{FRAME_HEADER_BYTES, SegmentLog, Writer, lock, read, segment_path, write};

/// A payload that is being written. Nothing of it can be found before [`commit`](Self::commit); dropped without, it is cut off
/// again.
#[derive(Debug)]
pub struct LargeAppend<'l, F: Frames> {
    log: &'l SegmentLog<F>,
    record: Record,
    written: u64,
    crc: crc32fast::Hasher,
    /// Which of the writer's appends this is: another one between two pieces ends it.
    append: u64,
    done: bool,
}

impl<F: Frames> SegmentLog<F> {
    /// Begins a payload of `length` bytes that come in pieces; none when the log already holds the hash.
    ///
    /// # Errors
    ///
    /// As [`append`](Self::append).
    pub fn append_large(
        &self,
        hash: &[u8; 32],
        height: u32,
        length: u64,
    ) -> Result<Option<LargeAppend<'_, F>>, BlockLogError> {
        let mut writer = lock(&self.writer);
        if self.contains(hash) {
            return Ok(None);
        }
        let length = u32::try_from(length).map_err(|_| BlockLogError::TooLarge {
            bytes: usize::try_from(length).unwrap_or(usize::MAX),
        })?;
        if writer.end > 0
            && writer.end + FRAME_HEADER_BYTES + u64::from(length) > self.max_segment_bytes
        {
            self.roll(&mut writer)?;
        }
        writer.appends += 1;
        let record = Record {
            hash: *hash,
            height,
            segment: writer.segment,
            offset: writer.end + FRAME_HEADER_BYTES,
            length,
            crc: 0,
        };
        let append = writer.appends;
        let started = self.write_at(
            &mut writer,
            record.offset - FRAME_HEADER_BYTES,
            &[&self.magic[..], &length.to_le_bytes()].concat(),
        );
        drop(writer);
        let mut large = LargeAppend {
            log: self,
            record,
            written: 0,
            crc: crc32fast::Hasher::new(),
            append,
            done: false,
        };
        if let Err(error) = started {
            large.cut();
            return Err(error);
        }
        Ok(Some(large))
    }

    fn write_at(
        &self,
        writer: &mut Writer,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), BlockLogError> {
        // Whatever is beyond the end is not part of the log: the next ordinary append cuts it off first.
        writer.disturbed = true;
        writer.file.write_all_at(bytes, offset).map_err(|error| {
            io_error(
                "append to",
                &segment_path(&self.dir, F::PREFIX, writer.segment),
            )(error)
        })
    }

    /// The length of a hash's payload.
    pub fn length_of(&self, hash: &[u8; 32]) -> Option<u64> {
        let place = read(&self.catalog).places.get(hash).copied()?;
        Some(u64::from(place.length).saturating_sub(F::ENVELOPE_BYTES as u64))
    }

    /// Reads a hash's payload in pieces.
    ///
    /// # Errors
    ///
    /// When its segment cannot be opened.
    pub fn pieces(&self, hash: &[u8; 32]) -> Result<Option<Pieces<'_, F>>, BlockLogError> {
        let Some(place) = read(&self.catalog).places.get(hash).copied() else {
            return Ok(None);
        };
        let path = segment_path(&self.dir, F::PREFIX, place.segment);
        let file = match self.reader(place.segment, &path) {
            Ok(file) => file,
            Err(_) if !self.contains(hash) => return Ok(None),
            Err(error) => return Err(io_error("open", &path)(error)),
        };
        Ok(Some(Pieces {
            log: self,
            hash: *hash,
            place,
            path,
            file,
            at: 0,
            crc: crc32fast::Hasher::new(),
        }))
    }
}

impl<F: Frames> LargeAppend<'_, F> {
    /// Writes the next piece.
    ///
    /// # Errors
    ///
    /// When the disk is full, more comes than was announced, or something else was appended meanwhile.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlockLogError> {
        let after = self.written + bytes.len() as u64;
        if after > u64::from(self.record.length) {
            return Err(BlockLogError::TooLarge {
                bytes: usize::try_from(after).unwrap_or(usize::MAX),
            });
        }
        let mut writer = lock(&self.log.writer);
        if writer.appends != self.append {
            return Err(BlockLogError::Interrupted);
        }
        let offset = self.record.offset + self.written;
        self.log.write_at(&mut writer, offset, bytes)?;
        self.crc.update(bytes);
        self.written = after;
        Ok(())
    }

    /// The payload is whole and good: from now on it is found, and it is durable.
    ///
    /// # Errors
    ///
    /// When bytes are missing, something else was appended meanwhile, or it cannot be made durable.
    pub fn commit(mut self) -> Result<(), BlockLogError> {
        self.record.crc = std::mem::take(&mut self.crc).finalize();
        {
            let mut writer = lock(&self.log.writer);
            if writer.appends != self.append || self.written != u64::from(self.record.length) {
                return Err(BlockLogError::Interrupted);
            }
            let frame = FRAME_HEADER_BYTES + self.written;
            writer.end += frame;
            writer.pending.push(self.record);
            let mut catalog = write(&self.log.catalog);
            catalog.insert(&self.record);
            catalog.grow(self.record.segment, frame);
            self.done = true;
        }
        // A start after a kill would have to hold it whole to know it again.
        self.log.sync()
    }

    fn cut(&mut self) {
        if std::mem::replace(&mut self.done, true) {
            return;
        }
        let writer = lock(&self.log.writer);
        if writer.appends == self.append {
            let _ = writer.file.set_len(writer.end);
        }
    }
}

impl<F: Frames> Drop for LargeAppend<'_, F> {
    fn drop(&mut self) {
        self.cut();
    }
}

/// A payload that is being read.
#[derive(Debug)]
pub struct Pieces<'l, F: Frames> {
    log: &'l SegmentLog<F>,
    hash: [u8; 32],
    place: Place,
    path: PathBuf,
    file: Arc<File>,
    at: u32,
    crc: crc32fast::Hasher,
}

impl<F: Frames> Pieces<'_, F> {
    /// Bytes of the whole payload.
    pub fn length(&self) -> u64 {
        u64::from(self.place.length)
    }

    /// Up to `most` further bytes; none at the end. What was read counts only when the end was reached.
    ///
    /// # Errors
    ///
    /// As [`SegmentLog::get`]: that the bytes are damaged shows at the end.
    pub fn next(&mut self, most: usize) -> Result<Option<Vec<u8>>, BlockLogError> {
        let left = self.place.length - self.at;
        if left == 0 {
            return match std::mem::take(&mut self.crc).finalize() == self.place.crc {
                true => Ok(None),
                false => Err(self.damaged()),
            };
        }
        let count = u32::try_from(most).unwrap_or(u32::MAX).min(left);
        let mut bytes = vec![0; count as usize];
        let offset = u64::from(self.place.offset) + u64::from(self.at);
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(self.damaged());
            }
            Err(error) => return Err(io_error("read", &self.path)(error)),
        }
        self.crc.update(&bytes);
        self.at += count;
        Ok(Some(bytes))
    }

    fn damaged(&self) -> BlockLogError {
        let mut catalog = write(&self.log.catalog);
        if catalog.places.get(&self.hash) == Some(&self.place) {
            catalog.forget(&self.hash);
        }
        BlockLogError::Damaged {
            height: self.place.height,
            path: self.path.clone(),
            offset: u64::from(self.place.offset),
        }
    }
}
