//! The conversation log as configured: in the memory of this process, or in Redis.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, bail};
use hearsay_bus::{
    Bus, MemoryBus, SystemClock,
    drive::{self, Compactor},
    redis::{ConnectError, RedisBus, RedisConfig},
};
use hearsay_conversation::{Conversation, Record};
use hearsay_runtime::{Readiness, Tasks};
use tokio::time::{Instant, sleep};

use crate::config::{BusConfig, ConfigError};

/// How often deadlines of conversations are looked at.
const ROUND_EVERY: Duration = Duration::from_secs(1);
/// Between tries to reach the log at start.
const TRY_EVERY: Duration = Duration::from_secs(1);

/// Opens the log and keeps the lives in it going. The condition `log` of `readiness` follows whether it is in reach.
///
/// # Errors
/// When Redis cannot be reached within `bus.connect`, or cannot hold the log.
pub(crate) async fn open(config: &BusConfig, readiness: &Readiness, tasks: &Tasks) -> anyhow::Result<Arc<dyn Bus>> {
    let reached = readiness.condition("log");
    let bus: Arc<dyn Bus> = match redis(config)? {
        None => {
            reached.set(true);
            Arc::new(MemoryBus::new(config.limits(), Arc::new(SystemClock::default())))
        }
        Some(redis) => {
            let bus = connect(&redis, config, tasks).await?;
            let (mut health, drain) = (bus.health(), tasks.drain());
            tasks.spawn_background("log health", async move {
                loop {
                    reached.set(*health.borrow_and_update());
                    tokio::select! {
                        changed = health.changed() => if changed.is_err() { return },
                        () = drain.finished() => return,
                    }
                }
            });
            Arc::new(bus)
        }
    };
    drive_lifecycles(Arc::clone(&bus), tasks);
    Ok(bus)
}

/// For what is a process among others: a log that they share is configured.
///
/// # Errors
/// Says what is missing.
pub(crate) fn shared(config: &BusConfig, command: &str) -> Result<RedisConfig, ConfigError> {
    if let Some(redis) = redis(config)? {
        return Ok(redis);
    }
    Err(ConfigError::Contradiction(format!(
        "bus.url is not set, and a log in memory is not shared with other processes: `hearsay {command}` takes \
         --redis redis://HOST, or HEARSAY__BUS__URL. `hearsay dev` runs everything in one process without Redis"
    )))
}

fn redis(config: &BusConfig) -> Result<Option<RedisConfig>, ConfigError> {
    let parsed = config.url.as_ref().map(|url| url.parse()).transpose();
    parsed.map_err(|error| ConfigError::Contradiction(format!("bus.url: {error}")))
}

/// Everything may be started at the same time, in any order: what is not there yet is waited for.
async fn connect(redis: &RedisConfig, config: &BusConfig, tasks: &Tasks) -> anyhow::Result<RedisBus> {
    let (until, drain) = (Instant::now() + config.connect.get(), tasks.drain());
    loop {
        let error = match RedisBus::connect(redis.clone(), config.limits(), tasks).await {
            Ok(bus) => return Ok(bus),
            Err(error) => error,
        };
        let absent = matches!(
            error,
            ConnectError::Unreachable { .. } | ConnectError::NoNode(_) | ConnectError::NoPrimary { .. }
        );
        if !absent || Instant::now() + TRY_EVERY > until {
            return Err(error).context("the log in Redis (bus.url)");
        }
        tracing::warn!(%error, "the log is not in reach; trying again");
        tokio::select! {
            () = sleep(TRY_EVERY) => {}
            () = drain.cancelled() => bail!("ended before the log was in reach"),
        }
    }
}

/// Ends what is over: joins, leaves and ends that only time brings.
fn drive_lifecycles(bus: Arc<dyn Bus>, tasks: &Tasks) {
    let drain = tasks.drain();
    let compactor: Compactor = Arc::new(|_, entries| {
        let mut conversation = Conversation::default();
        entries.iter().for_each(|entry| conversation.apply(entry));
        Record::of(&conversation).to_bytes().into()
    });
    tasks.spawn_background("lifecycles", async move {
        loop {
            if let Err(error) = drive::round(&*bus, &compactor).await {
                tracing::warn!(%error, "deadlines wait");
            }
            tokio::select! {
                // Processes that were started together do not come together for long.
                () = sleep(ROUND_EVERY.mul_f64(rand::random_range(0.8..1.2))) => {}
                () = drain.finished() => return,
            }
        }
    });
}
