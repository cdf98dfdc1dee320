//! The recorder behind every crate's `metrics.rs`, the buckets of all histograms, and this crate's own metrics.
//!
//! Each crate lists its names in one file of its own and describes them there; a name's ending chooses its buckets.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::Tasks;

const TASKS: &str = "hearsay_tasks";
const TASKS_FAILED: &str = "hearsay_tasks_failed_total";
const SPANS: &str = "hearsay_trace_spans_total";
const EXPORT_TIME: &str = "hearsay_trace_export_seconds";
const BUILD_INFO: &str = "hearsay_build_info";
const DRAINING: &str = "hearsay_draining";
const DRAIN_LASTED: &str = "hearsay_drain_seconds";
const DRAIN_LEFT: &str = "hearsay_drain_tasks_left";
const RESIDENT: &str = "process_resident_memory_bytes";
const CPU: &str = "process_cpu_seconds_total";
const OPEN_FILES: &str = "process_open_fds";

/// For names in `_seconds`. The edges 0.45 and 0.8 are what a final promises (half of them, nearly all of them), 1.0 what
/// the first partial does, 1.5 the stall of a takeover, 10 the longest stall before a client is told.
const SECONDS: [f64; 20] = [
    0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.8, 1.0, 1.5, 2.5, 5.0,
    10.0, 30.0,
];
/// For names in `_bytes`: from a small frame to a stream's whole ring.
const BYTES: [f64; 8] = [256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];
/// For names in `_ratio`: shares of one, and speeds in multiples of real time.
const RATIO: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.5, 2.0, 5.0, 10.0, 30.0];
/// For names in `_count`: sizes of batches, pages and rooms.
const COUNT: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 500.0, 1_000.0, 10_000.0];

/// Histograms keep what was recorded since the last scrape; without scrapes this often empties them.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);
/// How often a drain tells how far it is.
const DRAIN_TOLD_EVERY: Duration = Duration::from_millis(250);

/// Makes this process's metrics readable. The recorder is one per process: every call answers the same handle.
pub fn install() -> MetricsHandle {
    static INSTALLED: OnceLock<MetricsHandle> = OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let recorder = builder().build_recorder();
            let handle = MetricsHandle { handle: recorder.handle() };
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another metrics recorder is installed; /metrics will be empty");
            }
            describe();
            handle
        })
        .clone()
}

fn builder() -> PrometheusBuilder {
    let sets: [(&str, &[f64]); 4] =
        [("_seconds", &SECONDS), ("_bytes", &BYTES), ("_ratio", &RATIO), ("_count", &COUNT)];
    sets.into_iter().fold(PrometheusBuilder::new(), |builder, (suffix, buckets)| {
        builder
            .set_buckets_for_metric(Matcher::Suffix(suffix.to_owned()), buckets)
            .unwrap_or_else(|_| unreachable!("no set of buckets is empty"))
    })
}

fn describe() {
    describe_gauge!(TASKS, "Tasks that are open, by name.");
    describe_counter!(TASKS_FAILED, "Tasks that ended in a panic, by name.");
    describe_counter!(
        SPANS,
        "Spans of traces, by what became of them: exported, dropped when the queue was full, failed at the collector."
    );
    describe_histogram!(EXPORT_TIME, Unit::Seconds, "Calls of the trace collector.");
    describe_gauge!(
        BUILD_INFO,
        "Always 1; the labels tell the version, the commit it was built from (unknown outside of images), the features it \
         was built with, and what the process is: dev, gateway, recognizer, actions."
    );
    describe_gauge!(DRAINING, "1 from the beginning of a drain on.");
    describe_gauge!(DRAIN_LASTED, Unit::Seconds, "How long the drain has lasted.");
    describe_gauge!(
        DRAIN_LEFT,
        "Tasks the drain waits for. The sockets and streams among them are hearsay_gateway_connections and \
         hearsay_recognizer_streams."
    );
    describe_gauge!(RESIDENT, Unit::Bytes, "Resident memory of the process.");
    describe_counter!(CPU, Unit::Seconds, "Processor time the process has used.");
    describe_gauge!(OPEN_FILES, "Open file descriptors of the process.");
}

/// What a process is, and what it was built from.
#[derive(Debug, Clone, Copy)]
pub struct Build {
    pub role: &'static str,
    pub version: &'static str,
    pub commit: &'static str,
    /// With commas between them.
    pub features: &'static str,
}

pub(crate) fn spans(outcome: &'static str, count: usize) {
    counter!(SPANS, "outcome" => outcome).increment(count as u64);
}

pub(crate) fn exported(took: Duration) {
    histogram!(EXPORT_TIME).record(took);
}

/// Reads what the process has recorded. Cheap to clone.
#[derive(Clone)]
pub struct MetricsHandle {
    handle: PrometheusHandle,
}

impl MetricsHandle {
    /// The Prometheus text exposition.
    pub fn render(&self) -> String {
        process();
        self.handle.render()
    }

    /// Tells what this process is.
    pub fn built(&self, build: Build) {
        let Build { role, version, commit, features } = build;
        gauge!(BUILD_INFO, "role" => role, "version" => version, "commit" => commit, "features" => features).set(1.0);
    }

    /// Keeps histograms small while nobody scrapes, and tells how far a drain is.
    pub fn keep_up(&self, tasks: &Tasks) {
        let (watched, drain) = (tasks.clone(), tasks.drain());
        gauge!(DRAINING).set(0.0);
        gauge!(DRAIN_LASTED).set(0.0);
        gauge!(DRAIN_LEFT).set(0.0);
        tasks.spawn_background("drain progress", async move {
            drain.cancelled().await;
            let begun = Instant::now();
            gauge!(DRAINING).set(1.0);
            while !drain.is_finished() {
                gauge!(DRAIN_LASTED).set(begun.elapsed().as_secs_f64());
                gauge!(DRAIN_LEFT).set(watched.work_left() as f64);
                tokio::select! {
                    () = tokio::time::sleep(DRAIN_TOLD_EVERY) => {}
                    () = drain.finished() => return,
                }
            }
        });
        let (handle, drain) = (self.handle.clone(), tasks.drain());
        tasks.spawn_background("metrics upkeep", async move {
            loop {
                tokio::select! {
                    () = tokio::time::sleep(UPKEEP_EVERY) => handle.run_upkeep(),
                    () = drain.finished() => return,
                }
            }
        });
    }
}

/// What the system says of this process. On systems without `/proc` these metrics stay away.
fn process() {
    let page = rustix::param::page_size() as f64;
    if let Ok(statm) = std::fs::read_to_string("/proc/self/statm")
        && let Some(pages) = statm.split_whitespace().nth(1).and_then(|field| field.parse::<f64>().ok())
    {
        gauge!(RESIDENT).set(pages * page);
    }
    // Fields are counted behind the command's name, which may hold spaces: utime and stime are the 12th and 13th there.
    if let Ok(stat) = std::fs::read_to_string("/proc/self/stat")
        && let Some((_, fields)) = stat.rsplit_once(')')
    {
        let ticks: f64 = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        // A counter takes whole numbers: Prometheus sees seconds, rounded down.
        counter!(CPU).absolute((ticks / rustix::param::clock_ticks_per_second() as f64) as u64);
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        gauge!(OPEN_FILES).set(files.count() as f64);
    }
}

pub(crate) fn task_started(name: &'static str) -> GaugeGuard {
    // An alert counts its rise: a series that begins at 1 has not risen.
    counter!(TASKS_FAILED, "task" => name).increment(0);
    GaugeGuard::rise(gauge!(TASKS, "task" => name))
}

pub(crate) fn task_failed(name: &'static str) {
    counter!(TASKS_FAILED, "task" => name).increment(1);
}

/// A gauge raised while this lives.
#[must_use = "the gauge falls when this is dropped"]
pub struct GaugeGuard {
    gauge: metrics::Gauge,
    by: f64,
}

impl GaugeGuard {
    /// Raises the gauge by one.
    pub fn rise(gauge: metrics::Gauge) -> Self {
        Self::rise_by(gauge, 1.0)
    }

    pub fn rise_by(gauge: metrics::Gauge, by: f64) -> Self {
        gauge.increment(by);
        Self { gauge, by }
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.gauge.decrement(self.by);
    }
}

#[cfg(test)]
mod tests {
    use metrics::{histogram, with_local_recorder};

    use super::*;

    #[test]
    fn a_gauge_falls_when_its_guard_is_dropped() {
        let recorder = builder().build_recorder();
        let handle = recorder.handle();
        with_local_recorder(&recorder, || {
            let one = GaugeGuard::rise(gauge!("open"));
            let two = GaugeGuard::rise_by(gauge!("open"), 2.0);
            assert!(handle.render().contains("open 3"));
            drop(one);
            drop(two);
            assert!(handle.render().contains("open 0"));
        });
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_tells_how_far_it_is() {
        let (metrics, tasks) = (install(), Tasks::new());
        metrics.keep_up(&tasks);
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        tasks.spawn("held open", async move { drop(ended.await) });
        let value = |name: &str| {
            let text = install().render();
            let found = text.lines().find_map(|line| line.strip_prefix(&format!("{name} "))?.parse::<f64>().ok());
            found.unwrap_or_else(|| panic!("{name}: {text}"))
        };
        assert_eq!(value(DRAINING), 0.0);
        let look = async {
            tokio::time::sleep(DRAIN_TOLD_EVERY * 2).await;
            assert_eq!((value(DRAINING), value(DRAIN_LEFT)), (1.0, 1.0));
            end.send(()).unwrap();
        };
        let (ended, ()) = tokio::join!(tasks.finish(Duration::from_secs(60)), look);
        ended.unwrap();
    }

    #[test]
    fn a_histogram_gets_its_buckets_by_its_name() {
        let recorder = builder().build_recorder();
        let handle = recorder.handle();
        with_local_recorder(&recorder, || {
            histogram!("final_latency_seconds").record(0.4);
            histogram!("frame_bytes").record(300.0);
        });
        let text = handle.render();
        assert!(text.contains(r#"final_latency_seconds_bucket{le="0.45"} 1"#), "{text}");
        assert!(text.contains(r#"final_latency_seconds_bucket{le="0.3"} 0"#), "{text}");
        assert!(text.contains(r#"frame_bytes_bucket{le="1024"} 1"#), "{text}");
    }

    #[test]
    fn the_process_tells_of_itself() {
        let text = install().render();
        let build = Build { role: "gateway", version: "1.2.3", commit: "abc", features: "none" };
        install().built(build);
        let told = install().render();
        let line = told.lines().find(|line| line.starts_with("hearsay_build_info{")).unwrap();
        for label in ["role=\"gateway\"", "version=\"1.2.3\"", "commit=\"abc\"", "features=\"none\""] {
            assert!(line.contains(label), "{line}");
        }
        assert!(text.contains("process_resident_memory_bytes "), "{text}");
        assert!(install().render().contains("process_open_fds "));
    }
}
