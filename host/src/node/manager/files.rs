//! Files that may change while the host runs, and when a change is over.
//!
//! A file that somebody still writes is never read. The system says when a file is opened for writing and closed again, or
//! renamed; where it does not say so, a file counts as whole when it has not changed for [`UNCLOSED`].

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant, SystemTime};

/// A closed file is read when nothing has happened to it for so long: editors and linkers write in several steps.
const SETTLED: Duration = Duration::from_millis(60);
/// A file that nobody was seen to close is read after so long without a change.
const UNCLOSED: Duration = Duration::from_secs(3);
/// How often files are looked at, for systems and file systems that do not say when one changes.
const LOOK: Duration = Duration::from_secs(1);

/// Enough to see that a file is another one than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Self {
            size: metadata.len(),
            modified: metadata.modified().ok(),
        })
    }
}

/// A change that may not be over.
#[derive(Debug, Clone, Copy)]
struct Change {
    last: Instant,
    /// Somebody has the file open for writing, as far as we were told.
    open: bool,
}

/// The files that are watched.
pub(super) struct Files {
    events: Receiver<notify::Result<Event>>,
    watcher: Option<RecommendedWatcher>,
    folders: BTreeSet<PathBuf>,
    stamps: BTreeMap<PathBuf, Option<Stamp>>,
    changes: BTreeMap<PathBuf, Change>,
    looked: Instant,
}

impl Files {
    /// No files yet.
    pub(super) fn new() -> Self {
        let (sender, events) = channel();
        let watcher = notify::recommended_watcher(move |event| {
            // Nobody listens any more when the host ends.
            let _ = sender.send(event);
        });
        if let Err(error) = &watcher {
            tracing::warn!(%error, "the system does not tell of changed files: they are looked at every second");
        }
        Self {
            events,
            watcher: watcher.ok(),
            folders: BTreeSet::new(),
            stamps: BTreeMap::new(),
            changes: BTreeMap::new(),
            looked: Instant::now(),
        }
    }

    /// Watches these files, and no others. They are as they were read last.
    pub(super) fn watch(&mut self, paths: impl IntoIterator<Item = PathBuf>) {
        let paths: BTreeSet<PathBuf> = paths.into_iter().collect();
        self.stamps.retain(|path, _| paths.contains(path));
        self.changes.retain(|path, _| paths.contains(path));
        for path in paths {
            self.stamps
                .entry(path)
                .or_insert_with_key(|path| Stamp::of(path));
        }
        // The folders are watched, because editors and compilers rename a new file over the old one.
        let folders: BTreeSet<PathBuf> = self
            .stamps
            .keys()
            .filter_map(|path| path.parent().map(Path::to_owned))
            .collect();
        let Some(watcher) = &mut self.watcher else {
            return;
        };
        for gone in self.folders.difference(&folders) {
            let _ = watcher.unwatch(gone);
        }
        for new in folders.difference(&self.folders) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::debug!(folder = %new.display(), %error, "cannot be watched, looked at instead");
            }
        }
        self.folders = folders;
    }

    /// The files whose change is over, since the last call; waits up to `timeout` for something to happen.
    pub(super) fn changed(&mut self, timeout: Duration) -> Vec<PathBuf> {
        if let Ok(event) = self.events.recv_timeout(timeout) {
            self.note(event);
        }
        while let Ok(event) = self.events.try_recv() {
            self.note(event);
        }
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            self.look();
        }
        let over: Vec<PathBuf> = self
            .changes
            .iter()
            .filter(|(_, change)| {
                let quiet = if change.open { UNCLOSED } else { SETTLED };
                change.last.elapsed() >= quiet
            })
            .map(|(path, _)| path.clone())
            .collect();
        for path in &over {
            self.changes.remove(path);
            self.stamps.insert(path.clone(), Stamp::of(path));
        }
        over
    }

    /// Whether a file that was just read is being written: what was read may be a part of it. Then it is among the changed ones
    /// again when that is over.
    pub(super) fn is_changing(&mut self, path: &Path) -> bool {
        let end = Instant::now() + SETTLED;
        while let Ok(event) = self
            .events
            .recv_timeout(end.saturating_duration_since(Instant::now()))
        {
            self.note(event);
        }
        self.look();
        self.changes.contains_key(path)
    }

    fn note(&mut self, event: notify::Result<Event>) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                tracing::debug!(%error, "the system lost track of files");
                return self.look();
            }
        };
        let open = match event.kind {
            EventKind::Create(_) | EventKind::Modify(ModifyKind::Data(_)) => true,
            EventKind::Access(AccessKind::Close(AccessMode::Write))
            | EventKind::Modify(ModifyKind::Name(
                RenameMode::To | RenameMode::Both | RenameMode::Any,
            ))
            | EventKind::Remove(_) => false,
            _ => return,
        };
        for path in event.paths {
            if self.stamps.contains_key(&path) {
                let last = Instant::now();
                self.changes.insert(path, Change { last, open });
            }
        }
    }

    /// Finds changes that nobody told us of. Whether somebody still writes is not known then.
    fn look(&mut self) {
        for (path, stamp) in &mut self.stamps {
            let now = Stamp::of(path);
            if now != *stamp {
                *stamp = now;
                let last = Instant::now();
                let change = self.changes.entry(path.clone());
                change
                    .and_modify(|change| change.last = last)
                    .or_insert(Change { last, open: true });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;
    use std::fs;
    use std::io::Write;

    fn wait(files: &mut Files, limit: Duration) -> Vec<PathBuf> {
        let began = Instant::now();
        while began.elapsed() < limit {
            let changed = files.changed(Duration::from_millis(10));
            if !changed.is_empty() {
                return changed;
            }
        }
        Vec::new()
    }

    #[test]
    fn a_slow_copy_is_read_once_and_only_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("plugin.wasm");
        fs::write(&path, "old").unwrap();
        let mut files = Files::new();
        files.watch([path.clone()]);
        let mut slow = fs::File::create(&path).unwrap();
        for piece in 0..6 {
            slow.write_all(b"piece").unwrap();
            let seen = wait(&mut files, SETTLED * 3);
            assert!(seen.is_empty(), "after piece {piece}");
        }
        drop(slow);
        assert_eq!(wait(&mut files, UNCLOSED * 2), std::slice::from_ref(&path));
        assert!(wait(&mut files, LOOK * 2).is_empty(), "only once");
    }

    #[test]
    fn a_file_that_is_written_after_it_was_seen_whole_is_changing_until_that_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap().join("plugin.wasm");
        fs::write(&path, "old").unwrap();
        let mut files = Files::new();
        files.watch([path.clone()]);
        assert!(!files.is_changing(&path));
        fs::write(&path, "new").unwrap();
        assert_eq!(wait(&mut files, UNCLOSED * 2), std::slice::from_ref(&path));
        assert!(!files.is_changing(&path));
        let newer = fs::File::create(&path).unwrap();
        assert!(files.is_changing(&path), "there is nothing in it yet");
        (&newer).write_all(b"newer").unwrap();
        drop(newer);
        assert_eq!(wait(&mut files, UNCLOSED * 2), std::slice::from_ref(&path));
        assert!(!files.is_changing(&path));
    }

    #[test]
    fn a_file_that_is_renamed_over_another_or_deleted_is_seen() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        let path = folder.join("blockmill.toml");
        fs::write(&path, "old").unwrap();
        let mut files = Files::new();
        files.watch([path.clone()]);
        fs::write(folder.join("other"), "never asked for").unwrap();
        fs::write(folder.join("blockmill.toml.swp"), "new").unwrap();
        fs::rename(folder.join("blockmill.toml.swp"), &path).unwrap();
        assert_eq!(wait(&mut files, UNCLOSED * 2), std::slice::from_ref(&path));
        fs::remove_file(&path).unwrap();
        assert_eq!(wait(&mut files, UNCLOSED * 2), [path]);
    }
}
