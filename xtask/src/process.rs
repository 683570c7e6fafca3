//! Child processes that do not outlive whoever started them, and Ctrl-C.
//!
//! A child is always signalled through its own id, never by its name.

use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGTERM};

/// How long a child that is dropped may take to end after SIGTERM before it is killed.
const DROP_GRACE: Duration = Duration::from_secs(5);
/// How often a waiting function looks.
const POLL: Duration = Duration::from_millis(20);

/// A running child process; dropping it stops it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts `command` in a process group of its own, so that Ctrl-C on the terminal reaches us first and the children are
    /// stopped in the order we choose.
    ///
    /// # Errors
    ///
    /// When the program cannot be started; `name` is what messages call it.
    pub fn spawn(name: impl Into<String>, command: &mut Command) -> Result<Self> {
        let name = name.into();
        let child = command
            .process_group(0)
            .spawn()
            .with_context(|| format!("failed to start {name}"))?;
        Ok(Self { name, child })
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The read end of its standard output, once, when it was piped.
    pub fn take_stdout(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// The read end of its standard error, once, when it was piped.
    pub fn take_stderr(&mut self) -> Option<ChildStderr> {
        self.child.stderr.take()
    }

    /// How it ended, or `None` while it runs.
    ///
    /// # Errors
    ///
    /// When the operating system does not tell.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("failed to look after {}", self.name))
    }

    /// Waits at most `limit` for it to end by itself; `None` when it still runs then.
    ///
    /// # Errors
    ///
    /// When the operating system does not tell.
    pub fn wait(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let start = Instant::now();
        loop {
            let status = self.status()?;
            if status.is_some() || start.elapsed() >= limit {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
    }

    /// Asks it to end (SIGTERM); returns at once.
    ///
    /// # Errors
    ///
    /// When the signal cannot be sent. A child that has ended already is no error.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Asks it to end and waits; a child that takes longer than `grace` is killed, and that is an error.
    ///
    /// # Errors
    ///
    /// When it had to be killed, or could not be signalled.
    pub fn stop(&mut self, grace: Duration) -> Result<ExitStatus> {
        self.terminate()?;
        match self.wait(grace)? {
            Some(status) => Ok(status),
            None => {
                self.kill()?;
                bail!("{} did not end within {grace:?} and was killed", self.name)
            }
        }
    }

    /// Kills it (SIGKILL) and waits for it to be gone.
    ///
    /// # Errors
    ///
    /// When it cannot be killed or waited for.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::KILL)?;
        self.child
            .wait()
            .with_context(|| format!("failed to wait for {}", self.name))
    }

    fn signal(&mut self, signal: Signal) -> Result<()> {
        // Until it was waited for, the id belongs to the child even when it has ended: no other process can be hit.
        if self.status()?.is_some() {
            return Ok(());
        }
        let pid = i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .with_context(|| format!("{} has no process id", self.name))?;
        kill_process(pid, signal).with_context(|| format!("failed to signal {}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.stop(DROP_GRACE).is_err() {
            // Nothing is left to try when even this fails.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Whether somebody asked this process to end.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// From now on Ctrl-C and SIGTERM are noted instead of ending the process; a second one ends it with code 130.
    ///
    /// # Errors
    ///
    /// When the operating system refuses the handler.
    pub fn install() -> Result<Self> {
        let noted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The order counts: the first handler sees the flag as it was before this signal.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&noted))
                .context("failed to install a signal handler")?;
            signal_hook::flag::register(signal, Arc::clone(&noted))
                .context("failed to install a signal handler")?;
        }
        Ok(Self(noted))
    }

    /// From now on Ctrl-C and SIGTERM are noted, however often they come: for whoever then ends soon by himself, and has
    /// children that would go on alone if he did not.
    ///
    /// # Errors
    ///
    /// When the operating system refuses the handler.
    pub fn note_only() -> Result<Self> {
        let noted = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&noted))
                .context("failed to install a signal handler")?;
        }
        Ok(Self(noted))
    }

    /// Whether Ctrl-C or SIGTERM came.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Sleeps for `time` or until Ctrl-C or SIGTERM; `true` when it was the signal.
    pub fn sleep(&self, time: Duration) -> bool {
        let start = Instant::now();
        while !self.requested() {
            let left = time.saturating_sub(start.elapsed());
            if left.is_zero() {
                return false;
            }
            thread::sleep(left.min(POLL));
        }
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn gone(pid: u32) -> bool {
        !std::path::Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn a_dropped_child_is_gone() {
        let process = Process::spawn("sleep", Command::new("sleep").arg("60")).unwrap();
        let pid = process.id();
        assert!(!gone(pid));
        drop(process);
        assert!(gone(pid));
    }

    #[test]
    fn a_child_that_ignores_sigterm_is_killed_and_said_to_be() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "trap '' TERM; echo ready; while :; do sleep 0.1; done",
        ]);
        let mut process =
            Process::spawn("deaf", command.stdout(std::process::Stdio::piped())).unwrap();
        let mut line = String::new();
        let mut stdout = std::io::BufReader::new(process.take_stdout().unwrap());
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        let error = process.stop(Duration::from_millis(200)).unwrap_err();
        assert!(error.to_string().contains("deaf"), "{error}");
        assert!(gone(process.id()));
    }

    #[test]
    fn a_stopped_child_tells_how_it_ended() {
        let mut process = Process::spawn("sleep", Command::new("sleep").arg("60")).unwrap();
        let status = process.stop(Duration::from_secs(5)).unwrap();
        assert_eq!(status.signal(), Some(SIGTERM));
        assert_eq!(process.stop(Duration::ZERO).unwrap(), status);
    }
}
