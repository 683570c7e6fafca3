//! Changes plugins while the host runs: new files, new settings, and what the operator asks for.
//!
//! ```text
//! file changes ─► whole? hash ─► compile ─► world and descriptor ─► same state version: rehearse, swap between two blocks
//!                                                                └► new one: migrate or make anew beside, then exchange
//! ```
//!
//! All of it happens on one thread, one change after the other, so that two changes of one plugin cannot cross. Only
//! making data anew goes on beside it, in a lane of its own. Whatever fails leaves the running plugin as it was, and is said in the
//! log, in the API and in the metrics.

mod board;
mod building;
mod change;
mod components;
mod files;
mod live_config;
mod rehearsal;
mod request;
mod spent;

pub(super) use board::{Board, Idle};
pub(super) use components::Components;
pub(super) use request::{Asker, Request};

use self::building::Building;
use self::files::Files;
use self::spent::Remaking;
use super::lanes::LaneStart;
use crate::cli::ConfigSource;
use crate::config::Config;
use crate::plugin::Surroundings;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the manager waits for something to happen before it looks at what is going on.
const LOOK: Duration = Duration::from_millis(20);

/// The thread that changes plugins.
pub(super) struct Manager {
    start: LaneStart,
    config: Config,
    source: ConfigSource,
    components: Components,
    board: Arc<Board>,
    requests: Receiver<Request>,
    files: Files,
    building: BTreeMap<String, Building>,
    remaking: Remaking,
}

impl Manager {
    pub(super) fn new(
        start: LaneStart,
        config: Config,
        source: ConfigSource,
        folder: &Path,
        board: Arc<Board>,
        requests: Receiver<Request>,
    ) -> Self {
        Self {
            start,
            config,
            source,
            components: Components::new(folder),
            board,
            requests,
            files: Files::new(),
            building: BTreeMap::new(),
            remaking: Remaking::default(),
        }
    }

    /// Starts the thread; it ends when the feed stops.
    ///
    /// # Errors
    ///
    /// When the system gives no thread.
    pub(super) fn spawn(self) -> std::io::Result<JoinHandle<()>> {
        std::thread::Builder::new()
            .name("plugins".into())
            .spawn(move || self.run())
    }

    fn run(mut self) {
        self.watch_files();
        // A file may have changed while the host did not run, or could not be used before.
        for plugin in self.config.enabled_plugins() {
            self.keep_running(&plugin.name);
            self.file_changed(&plugin, Instant::now());
        }
        self.forget_components();
        while !self.start.feed.stopping() {
            for path in self.files.changed(LOOK) {
                let began = Instant::now();
                if self.config.file.as_ref() == Some(&path) {
                    self.config_file_changed(&path);
                }
                for plugin in self.config.enabled_plugins() {
                    if plugin.file == path {
                        self.file_changed(&plugin, began);
                    }
                }
            }
            while let Ok(request) = self.requests.try_recv() {
                self.answer(request);
            }
            self.look_at_buildings();
            self.make_spent_again();
        }
        // What is being made is begun again at the next start.
    }

    fn watch_files(&mut self) {
        let plugins = self.config.enabled_plugins();
        let files = plugins.into_iter().map(|plugin| plugin.file);
        self.files.watch(files.chain(self.config.file.clone()));
    }

    /// Keeps a copy of what runs, to go back to.
    fn keep_running(&self, name: &str) {
        let Some(lane) = self.start.lanes.find(name) else {
            return;
        };
        let sha256 = lane.program().compiled.sha256;
        let Some(plugin) = self
            .config
            .enabled_plugins()
            .into_iter()
            .find(|plugin| plugin.name == name)
        else {
            return;
        };
        // The file may be another one by now.
        if let Ok(bytes) = std::fs::read(&plugin.file)
            && crate::plugin::hash_of(&bytes) == sha256
            && let Err(error) = self.components.keep(&sha256.to_string(), &bytes)
        {
            tracing::warn!(
                plugin = name,
                error = format!("{error:#}"),
                "there will be no way back to this component"
            );
        }
    }

    /// Removes components that nothing runs and nobody can go back to.
    fn forget_components(&self) {
        let mut wanted = Vec::new();
        for name in self.config.plugin.keys() {
            match self.start.stores.rows.note(name) {
                Ok(Some(note)) => {
                    let before = note.previous_sha256.clone();
                    if let Some(before) = &before {
                        let name = name.clone();
                        self.board.notes().previous.insert(name, before.clone());
                    }
                    wanted.extend([Some(note.sha256), before, note.set_aside]);
                }
                Ok(None) => {}
                // Rather too many than too few.
                Err(_) => return,
            }
        }
        self.components
            .retain(|sha256| wanted.iter().flatten().any(|wanted| wanted == sha256));
    }

    /// What instances share that no lane and no query sees.
    fn private_surroundings(&self, name: &str) -> Arc<Surroundings> {
        self.start.surroundings(name, &format!("{name}-trial"))
    }
}
