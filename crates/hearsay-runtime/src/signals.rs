//! The first SIGTERM or SIGINT begins the drain; a second one ends the process at once.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::Tasks;

/// Exit code of a process ended by signal `n`, as shells tell it: 128 + n.
const INTERRUPTED: i32 = 130;
const TERMINATED: i32 = 143;

/// Watches for signals from here on. Inside a runtime.
///
/// # Errors
/// When the system refuses the handlers.
pub fn listen(tasks: &Tasks) -> io::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (tasks, drain) = (tasks.clone(), tasks.drain());
    let watch = tasks.clone();
    tasks.spawn_background("signals", async move {
        let both = async {
            let (name, _) = next(&mut interrupt, &mut terminate).await;
            tracing::info!(signal = name, "draining; a second signal ends the process at once");
            watch.begin_drain();
            let (name, code) = next(&mut interrupt, &mut terminate).await;
            tracing::warn!(signal = name, open = ?watch.names(), "ended by a second signal");
            std::process::exit(code);
        };
        tokio::select! {
            () = both => {}
            () = drain.finished() => {}
        }
    });
    Ok(())
}

async fn next(interrupt: &mut Signal, terminate: &mut Signal) -> (&'static str, i32) {
    tokio::select! {
        _ = interrupt.recv() => ("SIGINT", INTERRUPTED),
        _ = terminate.recv() => ("SIGTERM", TERMINATED),
    }
}
