//! A state that knows only what a capsule holds: what was read when the call failed, under what the call writes now.

use super::recorder::{KnownRange, Recording};
use crate::store::{ArgumentError, Keys, ScanPage, ValueColumn, check_key, check_value};
use std::collections::BTreeMap;
use std::ops::Bound;
use thiserror::Error;

/// Why the state has no answer.
#[derive(Debug, Error)]
pub enum CapsuleStateError {
    /// The call reads what was not read when it failed.
    #[error("reads state that the capsule does not hold: {0}")]
    Missing(String),
    /// The plugin's mistake.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
}

/// The state of a call that is run again.
#[derive(Debug, Default)]
pub struct CapsuleState {
    base: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    ranges: Vec<KnownRange>,
    /// What the call has written; none is a removal.
    written: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

/// A key as a message shows it: text where it is text.
fn shown(key: &[u8]) -> String {
    match std::str::from_utf8(key) {
        Ok(text) if text.chars().all(|c| c.is_ascii_graphic()) => format!("{text:?}"),
        _ => key.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

impl CapsuleState {
    /// The state before the call.
    pub fn new(recording: Recording) -> Self {
        Self {
            base: recording.values,
            ranges: recording.ranges,
            written: BTreeMap::new(),
        }
    }

    /// Keys that the call has set, and keys that it has removed.
    pub fn changes(&self) -> (usize, usize) {
        let set = self.written.values().flatten().count();
        (set, self.written.len() - set)
    }

    fn range_with(&self, key: &[u8]) -> Option<&KnownRange> {
        let holds = |range: &&KnownRange| {
            range.from.as_slice() <= key && range.to.as_deref().is_none_or(|to| key < to)
        };
        // Of several, the one that reaches furthest.
        self.ranges.iter().filter(holds).max_by_key(|range| {
            let end = range.to.clone();
            (end.is_none(), end)
        })
    }

    /// The value of a key.
    ///
    /// # Errors
    ///
    /// When the capsule does not say.
    pub fn get(&self, key: &[u8]) -> Result<Option<&[u8]>, CapsuleStateError> {
        if let Some(value) = self.written.get(key).or_else(|| self.base.get(key)) {
            return Ok(value.as_deref());
        }
        check_key(key)?;
        match self.range_with(key) {
            Some(_) => Ok(None),
            None => Err(CapsuleStateError::Missing(shown(key))),
        }
    }

    /// Sets a key.
    ///
    /// # Errors
    ///
    /// When the host's own state would not take it either.
    pub fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), CapsuleStateError> {
        check_key(key)?;
        check_value(value)?;
        self.written.insert(key.to_vec(), Some(value.to_vec()));
        Ok(())
    }

    /// Removes a key.
    ///
    /// # Errors
    ///
    /// As [`CapsuleState::put`].
    pub fn delete(&mut self, key: &[u8]) -> Result<(), CapsuleStateError> {
        check_key(key)?;
        self.written.insert(key.to_vec(), None);
        Ok(())
    }

    /// Removes a key and gives what it held.
    ///
    /// # Errors
    ///
    /// As [`CapsuleState::get`].
    pub fn take(&mut self, key: &[u8]) -> Result<Option<Vec<u8>>, CapsuleStateError> {
        let value = self.get(key)?.map(<[u8]>::to_vec);
        self.delete(key)?;
        Ok(value)
    }

    /// The values of keys.
    ///
    /// # Errors
    ///
    /// As [`CapsuleState::get`].
    pub fn get_many(&self, keys: Keys<'_>, out: &mut ValueColumn) -> Result<(), CapsuleStateError> {
        keys.check()?;
        keys.iter()
            .try_for_each(|key| Ok(out.push(self.get(key)?)?))
    }

    /// Removes keys and gives what they held.
    ///
    /// # Errors
    ///
    /// As [`CapsuleState::get`].
    pub fn take_many(
        &mut self,
        keys: Keys<'_>,
        out: &mut ValueColumn,
    ) -> Result<(), CapsuleStateError> {
        keys.check()?;
        keys.iter()
            .try_for_each(|key| Ok(out.push(self.take(key)?.as_deref())?))
    }

    /// Sets keys.
    ///
    /// # Errors
    ///
    /// When there are not as many values.
    pub fn put_many(&mut self, keys: Keys<'_>, values: Keys<'_>) -> Result<(), CapsuleStateError> {
        keys.check()?;
        values.check()?;
        if keys.len() != values.len() {
            return Err(ArgumentError::Counts {
                keys: keys.len(),
                values: values.len(),
            }
            .into());
        }
        keys.iter()
            .zip(values.iter())
            .try_for_each(|(key, value)| self.put(key, value))
    }

    /// Removes keys.
    ///
    /// # Errors
    ///
    /// When the column is none.
    pub fn delete_many(&mut self, keys: Keys<'_>) -> Result<(), CapsuleStateError> {
        keys.check()?;
        keys.iter().try_for_each(|key| self.delete(key))
    }

    /// A page of the entries whose keys begin with `prefix`, as the host's own state gives it.
    ///
    /// # Errors
    ///
    /// When the capsule does not say what lies there.
    pub fn scan(
        &self,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit_entries: usize,
        limit_bytes: usize,
    ) -> Result<ScanPage, CapsuleStateError> {
        let mut page = ScanPage::default();
        let mut from = match after {
            Some(after) if after >= prefix => [after, &[0]].concat(),
            _ => prefix.to_vec(),
        };
        while from.starts_with(prefix) {
            let known = self.range_with(&from);
            let missing = || CapsuleStateError::Missing(format!("keys from {} on", shown(&from)));
            let known = known.ok_or_else(missing)?;
            let to = known.to.as_deref();
            for (key, value) in self.merged(&from, to) {
                if !key.starts_with(prefix) {
                    return Ok(page);
                }
                if !page.push(key, value, limit_entries, limit_bytes)? {
                    return Ok(page);
                }
            }
            let Some(to) = to else {
                return Ok(page);
            };
            if page.len() >= limit_entries && known.continues {
                page.more = true;
                return Ok(page);
            }
            from = to.to_vec();
        }
        Ok(page)
    }

    /// What keys hold, from one on, below another.
    fn merged<'a>(
        &'a self,
        from: &'a [u8],
        to: Option<&'a [u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        let bounds = (
            Bound::Included(from),
            to.map_or(Bound::Unbounded, Bound::Excluded),
        );
        let base = self.base.range::<[u8], _>(bounds);
        let mut all: BTreeMap<&[u8], Option<&[u8]>> = base
            .map(|(key, value)| (key.as_slice(), value.as_deref()))
            .collect();
        let written = self.written.range::<[u8], _>(bounds);
        all.extend(written.map(|(key, value)| (key.as_slice(), value.as_deref())));
        all.into_iter()
            .filter_map(|(key, value)| Some((key, value?)))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::super::recorder::Recorder;
    use super::*;

    fn page(entries: &[(&[u8], &[u8])], more: bool) -> ScanPage {
        let mut page = ScanPage::default();
        for (key, value) in entries {
            page.push(key, value, usize::MAX, usize::MAX).unwrap();
        }
        page.more = more;
        page
    }

    fn state(record: impl FnOnce(&Recorder)) -> CapsuleState {
        let recorder = Recorder::default();
        recorder.arm(1 << 20);
        record(&recorder);
        CapsuleState::new(recorder.take().unwrap())
    }

    fn keys(page: &ScanPage) -> Vec<Vec<u8>> {
        page.iter().map(|(key, _)| key.to_vec()).collect()
    }

    #[test]
    fn what_was_not_read_is_named_and_what_was_written_covers_what_was_read() {
        let mut state = state(|recorder| {
            recorder.read(b"a", Some(b"1"));
            recorder.read(b"b", None);
        });
        assert_eq!(state.get(b"a").unwrap(), Some(&b"1"[..]));
        assert_eq!(state.get(b"b").unwrap(), None);
        let missing = state.get(b"c").unwrap_err().to_string();
        assert_eq!(missing, "reads state that the capsule does not hold: \"c\"");
        state.put(b"c", b"2").unwrap();
        assert_eq!(state.take(b"c").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(state.get(b"c").unwrap(), None);
        assert_eq!(state.changes(), (0, 1));
    }

    #[test]
    fn a_scan_is_answered_within_what_was_scanned_with_what_was_written_since() {
        let mut state = state(|recorder| {
            recorder.scanned(b"p", None, &page(&[(b"p1", b"a"), (b"p3", b"b")], true));
            recorder.scanned(b"p", Some(b"p3"), &page(&[(b"p5", b"c")], false));
        });
        state.put(b"p2", b"new").unwrap();
        state.delete(b"p3").unwrap();
        let all = state.scan(b"p", None, 100, 1_000).unwrap();
        assert_eq!(keys(&all), [b"p1", b"p2", b"p5"]);
        assert!(!all.more);
        let first = state.scan(b"p", None, 1, 1_000).unwrap();
        assert_eq!(keys(&first), [b"p1"]);
        assert!(first.more);
        assert!(state.scan(b"q", None, 100, 1_000).is_err());
        assert_eq!(state.get(b"p4").unwrap(), None, "it is in a known range");
    }

    #[test]
    fn a_page_that_ended_before_the_last_entry_says_so_again() {
        let state = state(|recorder| {
            recorder.scanned(b"p", None, &page(&[(b"p1", b"a"), (b"p2", b"b")], true));
        });
        let same = state.scan(b"p", None, 2, 1_000).unwrap();
        assert_eq!((same.len(), same.more), (2, true));
        let longer = state.scan(b"p", None, 3, 1_000).unwrap_err().to_string();
        assert!(longer.contains("does not hold"), "{longer}");
    }
}
