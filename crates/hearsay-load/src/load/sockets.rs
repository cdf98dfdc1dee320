//! Many sockets on which nothing happens: what each costs the server, and how soon it answers a ping.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use hearsay_runtime::Tasks;
use tokio::time::sleep;

use super::{
    listen::{self, Listen, ListenError, Progress},
    report::Report,
};

const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug, thiserror::Error)]
pub enum SocketsError {
    #[error(transparent)]
    Listen(#[from] ListenError),
    #[error("--pid {pid}: no memory of this process can be read: {reason}")]
    Process { pid: u32, reason: String },
}

/// Runs the subscribers. With a process of this machine, the report says how much its memory grew with each of them, bytes.
///
/// # Errors
/// [`SocketsError`]; a single socket's trouble is a count of the report.
pub async fn sockets(
    options: Listen,
    pid: Option<u32>,
    progress: Arc<Progress>,
    tasks: &Tasks,
) -> Result<Report, SocketsError> {
    let before = pid.map(memory).transpose()?;
    let mut listening = std::pin::pin!(listen::listen(options, Arc::clone(&progress), tasks));
    // Most sockets at once, and what was used then.
    let (mut most, mut used) = (0, None);
    let mut report = loop {
        tokio::select! {
            report = &mut listening => break report?,
            () = sleep(LOOK) => {
                let connected = progress.connected.load(Ordering::Relaxed);
                if connected > 0 && connected >= most {
                    (most, used) = (connected, pid.map(memory).transpose()?);
                }
            }
        }
    };
    if let (Some(before), Some(used)) = (before, used) {
        report.more.push(("rss_bytes_per_socket", (used as f64 - before as f64) / most as f64));
    }
    Ok(report)
}

/// Resident memory, bytes.
fn memory(pid: u32) -> Result<u64, SocketsError> {
    let unread = |reason: String| SocketsError::Process { pid, reason };
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).map_err(|error| unread(error.to_string()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.map(|kib| kib * 1_024).ok_or_else(|| unread("it has ended".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_there_has_a_size() {
        assert!(memory(std::process::id()).unwrap() > 1_000_000);
        let error = memory(u32::MAX).unwrap_err().to_string();
        assert!(error.starts_with("--pid 4294967295: "), "{error}");
    }
}
