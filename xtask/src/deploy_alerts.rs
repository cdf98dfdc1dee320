//! `cargo xtask deploy-check --alerts`: what an alert watches is broken in a real cluster, and a webhook behind a real
//! Alertmanager hears that it fires, and after the repair that it is resolved. The rules are the shipped ones with
//! windows and patience of seconds.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{
    deploy_cluster::{Cluster, Running, answers, free_port, server_of},
    shell::root,
};

/// For an alert to fire after the break, and to be resolved after the repair.
const HEARD_WITHIN: Duration = Duration::from_secs(90);
/// What nobody can break from outside: it takes a bug, a receiver of messages that stays away for days, or a processor that is too slow.
const NOT_BROKEN: [&str; 4] = ["HearsayLogBug", "HearsayActionsGivenUp", "HearsayInsightsLate", "HearsayListenersCut"];
/// Small enough that a test fills it.
const SETTINGS: [(&str, &str); 5] = [
    ("HEARSAY__RECOGNIZER__RATED", "2"),
    ("HEARSAY__RECOGNIZER__STREAMS", "4"),
    ("HEARSAY__GATEWAY__CONNECTIONS", "60"),
    ("HEARSAY__UPLINK__BUDGET_BYTES", "2000000"),
    ("HEARSAY__UPLINK__UNACKNOWLEDGED_BYTES", "1100000"),
];

/// What is heard of each alert, newest last.
type Heard = Arc<Mutex<BTreeMap<String, Vec<String>>>>;

/// One break: the alerts that must hear of it, how it is done, and how it is undone.
struct Break {
    alerts: &'static [&'static str],
    how: fn(&mut Cluster) -> Result<Vec<Running>>,
    repair: fn(&mut Cluster) -> Result<()>,
}

const BREAKS: &[Break] = &[
    Break {
        alerts: &["HearsayProcessDown"],
        how: |cluster| {
            cluster.gateways[1] = None;
            Ok(Vec::new())
        },
        repair: |cluster| cluster.start_gateway(1),
    },
    Break {
        alerts: &["HearsayNoGateway"],
        how: |cluster| {
            cluster.gateways = [None, None];
            Ok(Vec::new())
        },
        repair: |cluster| {
            cluster.start_gateway(0)?;
            cluster.start_gateway(1)
        },
    },
    Break {
        alerts: &["HearsayNoRecognizer"],
        how: |cluster| {
            cluster.recognizer = None;
            Ok(Vec::new())
        },
        repair: Cluster::start_recognizer,
    },
    Break {
        alerts: &["HearsayRecognizersFull"],
        how: |cluster| Ok(vec![cluster.speak("full", 0)?, cluster.speak("full", 1)?]),
        repair: |_| Ok(()),
    },
    Break {
        alerts: &["HearsayConnectionsRefused"],
        how: |cluster| Ok(vec![cluster.listen("crowd", 0, 400)?]),
        repair: |_| Ok(()),
    },
    Break {
        alerts: &["HearsayLogOutOfReach", "HearsayRingFilling"],
        how: |cluster| {
            let speaking = vec![cluster.speak("unreached", 0)?, cluster.speak("unreached", 0)?];
            sleep(Duration::from_secs(3));
            cluster.redis.as_ref().context("no Redis")?.signal("STOP")?;
            Ok(speaking)
        },
        repair: |cluster| cluster.redis.as_ref().context("no Redis")?.signal("CONT"),
    },
    Break {
        alerts: &["HearsayLogSlow", "HearsayFinalsLate"],
        how: |cluster| Ok(vec![cluster.speak("slow", 0)?, cluster.stutter(Stutter::Log)?]),
        // It may have ended while the log stood still.
        repair: |cluster| cluster.redis.as_ref().context("no Redis")?.signal("CONT"),
    },
    Break {
        alerts: &["HearsaySocketsBehind"],
        how: |cluster| {
            Ok(vec![cluster.listen("held", 1, 5)?, cluster.speak("held", 0)?, cluster.stutter(Stutter::Gateway)?])
        },
        repair: |cluster| cluster.gateways[1].as_ref().context("no gateway")?.signal("CONT"),
    },
    Break {
        alerts: &["HearsayLogFilling"],
        how: |cluster| {
            let used = redis(cluster, &["INFO", "memory"])?;
            let used = used.lines().find_map(|line| line.strip_prefix("used_memory:")).context("no used_memory")?;
            let limit = used.trim().parse::<u64>()? * 5 / 4;
            redis(cluster, &["CONFIG", "SET", "maxmemory", &limit.to_string()]).map(|_| Vec::new())
        },
        repair: |cluster| redis(cluster, &["CONFIG", "SET", "maxmemory", "64mb"]).map(drop),
    },
    Break {
        alerts: &["HearsayHistoryLost"],
        how: |cluster| {
            let speaking = vec![cluster.speak("lost", 0)?];
            sleep(Duration::from_secs(8));
            // It comes back empty: what a failover loses at worst.
            cluster.redis = None;
            cluster.start_redis()?;
            Ok(speaking)
        },
        repair: |_| Ok(()),
    },
];

/// Who stands still for a while, again and again.
#[derive(Clone, Copy)]
pub(crate) enum Stutter {
    Log,
    Gateway,
}

impl Cluster {
    /// Until it is dropped, in a process of its own.
    fn stutter(&self, who: Stutter) -> Result<Running> {
        let (stopped, pause, goes) = match who {
            Stutter::Log => (&self.redis, 2.2, 0.3),
            Stutter::Gateway => (&self.gateways[1], 3.0, 1.0),
        };
        let id = stopped.as_ref().context("nobody to stop")?.id();
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("while kill -STOP {id}; do sleep {pause}; kill -CONT {id}; sleep {goes}; done")]);
        server_of(shell, &self.folder().join("stutter.log"))
    }
}

fn redis(cluster: &Cluster, words: &[&str]) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", cluster.redis_port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut request = format!("*{}\r\n", words.len());
    for word in words {
        request += &format!("${}\r\n{word}\r\n", word.len());
    }
    stream.write_all(request.as_bytes())?;
    let mut answer = vec![0; 64 * 1024];
    let read = stream.read(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer[..read]).into_owned())
}

pub(crate) fn check(hearsay: &Path) -> Result<()> {
    let rules = fs::read_to_string(root().join("deploy/prometheus/rules.yml"))?;
    let (quick, names) = quickened(&rules)?;
    let broken: Vec<_> = BREAKS.iter().flat_map(|it| it.alerts).chain(&NOT_BROKEN).collect();
    let unknown: Vec<_> = names.iter().filter(|name| !broken.contains(&&name.as_str())).collect();
    ensure!(unknown.is_empty(), "alerts that nothing is broken for: {unknown:?}");

    let mut cluster = Cluster::start(hearsay, "deploy-alerts", &SETTINGS)?;
    let (heard, webhook) = receiver()?;
    let alertmanager = free_port()?;
    let config = json!({
        "route": {"receiver": "webhook", "group_by": ["alertname"], "group_wait": "1s", "group_interval": "1s", "repeat_interval": "1h"},
        "receivers": [{"name": "webhook", "webhook_configs": [
            {"url": format!("http://127.0.0.1:{webhook}/"), "send_resolved": true},
        ]}],
    });
    let folder = cluster.folder().to_owned();
    fs::write(folder.join("alertmanager.yml"), config.to_string())?;
    let mut server = Command::new("prometheus-alertmanager");
    server.arg(format!("--config.file={}", folder.join("alertmanager.yml").display()));
    server.arg(format!("--storage.path={}", folder.join("alerts").display()));
    server.arg(format!("--web.listen-address=127.0.0.1:{alertmanager}")).arg("--cluster.listen-address=");
    let _alertmanager = server_of(server, &folder.join("alertmanager.log"))?;
    answers(alertmanager)?;
    let file = folder.join("rules.yml");
    fs::write(&file, quick)?;
    cluster.start_prometheus(&file, Some(alertmanager))?;
    sleep(Duration::from_secs(5));

    let mut missed = Vec::new();
    for Break { alerts, how, repair } in BREAKS {
        // What the break before left firing is none of this one.
        for name in *alerts {
            ensure!(quiet(&heard, name), "{name} still fires before anything is broken for it");
        }
        let begun = Instant::now();
        let under_way = how(&mut cluster).with_context(|| alerts.join(", "))?;
        let fired = alerts.iter().map(|name| wait(&heard, name, "firing")).collect::<Vec<_>>();
        let after = begun.elapsed();
        drop(under_way);
        repair(&mut cluster).with_context(|| alerts.join(", "))?;
        for (name, fired) in alerts.iter().zip(fired) {
            let resolved = fired && wait(&heard, name, "resolved");
            println!(
                "== alerts: {name}: {} after {:.0} s, {} after {:.0} s",
                if fired { "fires" } else { "DOES NOT FIRE" },
                after.as_secs_f64(),
                if resolved { "resolved" } else { "NOT RESOLVED" },
                begun.elapsed().as_secs_f64()
            );
            if !resolved {
                missed.push(*name);
            }
        }
    }
    ensure!(missed.is_empty(), "not heard to fire and be resolved: {}", missed.join(", "));
    println!(
        "== alerts: {} fire and are resolved; left to promtool: {}",
        names.len() - NOT_BROKEN.len(),
        NOT_BROKEN.join(", ")
    );
    Ok(())
}

fn wait(heard: &Heard, name: &str, wanted: &str) -> bool {
    until(heard, name, |newest| newest == Some(wanted))
}

/// It was never heard of, or is over.
fn quiet(heard: &Heard, name: &str) -> bool {
    until(heard, name, |newest| newest != Some("firing"))
}

fn until(heard: &Heard, name: &str, wanted: impl Fn(Option<&str>) -> bool) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < HEARD_WITHIN {
        let newest = heard.lock().unwrap_or_else(PoisonError::into_inner).get(name).and_then(|all| all.last().cloned());
        if wanted(newest.as_deref()) {
            return true;
        }
        sleep(Duration::from_millis(200));
    }
    false
}

/// The shipped rules with seconds for minutes, and the names of their alerts.
fn quickened(rules: &str) -> Result<(String, Vec<String>)> {
    let mut names = Vec::new();
    let mut quick = String::new();
    for line in rules.lines() {
        if let Some((_, name)) = line.split_once("- alert: ") {
            names.push(name.trim().to_owned());
        }
        let place = line.len() - line.trim_start().len();
        let line = match line.trim_start() {
            patience if patience.starts_with("for: ") => format!("{}for: 2s", &line[..place]),
            interval if interval.starts_with("interval: ") => format!("{}interval: 1s", &line[..place]),
            _ => line.replace("[5m]", "[8s]").replace("[15m]", "[8s]"),
        };
        quick += &line;
        quick.push('\n');
    }
    ensure!(!quick.contains("m]"), "a window that is not made short");
    Ok((quick, names))
}

/// Takes what Alertmanager sends, and remembers the state of each alert.
fn receiver() -> Result<(Heard, u16)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let heard = Heard::default();
    let taken = Arc::clone(&heard);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // Of a message that is none, nothing is remembered, and who waits for it fails.
            let _ = take(stream, &taken);
        }
    });
    Ok((heard, port))
}

fn take(mut stream: TcpStream, heard: &Heard) -> Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut bytes = Vec::new();
    let mut piece = [0; 16 * 1024];
    let body = loop {
        let read = stream.read(&mut piece)?;
        ensure!(read > 0, "cut off");
        bytes.extend_from_slice(&piece[..read]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        if body.len() >= length.unwrap_or(0) {
            break body.to_owned();
        }
    };
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")?;
    let told: Value = serde_json::from_str(&body)?;
    // Of several of one name, the group's state: firing while any is.
    let (name, state) = (told["groupLabels"]["alertname"].as_str(), told["status"].as_str());
    if let (Some(name), Some(state)) = (name, state) {
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.entry(name.to_owned()).or_default().push(state.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_become_seconds_and_nothing_else_changes() {
        let rules = "    interval: 15s\n      - alert: A\n        expr: rate(x[5m]) > 1\n        for: 10m\n        labels: {a: b}\n";
        let (quick, names) = quickened(rules).unwrap();
        assert_eq!(names, ["A"]);
        assert_eq!(
            quick,
            "    interval: 1s\n      - alert: A\n        expr: rate(x[8s]) > 1\n        for: 2s\n        labels: {a: b}\n"
        );
    }
}
