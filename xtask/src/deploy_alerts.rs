//! `cargo xtask deploy-check --alerts`: what an alert watches is broken in a real cluster, and a webhook behind a real
//! Alertmanager hears that it fires, and after the repair that it is resolved. The rules are the shipped ones with
//! windows and patience of seconds.

use std::{
    collections::{BTreeMap, BTreeSet},
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
    deploy_sink,
    shell::root,
};

/// For an alert to fire after the break, and to be resolved after the repair.
const HEARD_WITHIN: Duration = Duration::from_secs(90);
/// Of the log: with room for what a torrent leaves there.
const MAX_MEMORY: &str = "256mb";
/// What a bug would do to the log: of all that is published, the last of it that the log knows of is forgotten.
const FORGET: &str = "for _, key in ipairs(redis.call('KEYS', '*:more')) do \
     for _, name in ipairs(redis.call('HKEYS', key)) do \
       if string.sub(name, 1, 2) == 'p:' then \
         local held = redis.call('HGET', key, name) \
         local through = struct.unpack('>I8', held, 13) \
         if through > 0 then \
           held = string.sub(held, 1, 12) .. struct.pack('>I8', through - 1) .. string.sub(held, 21) \
           redis.call('HSET', key, name, held) \
         end \
       end \
     end \
   end";
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
        repair: |cluster| redis(cluster, &["CONFIG", "SET", "maxmemory", MAX_MEMORY]).map(drop),
    },
    Break {
        alerts: &["HearsayHistoryLost"],
        how: |cluster| {
            let speaking = vec![cluster.speak("lost", 0)?];
            sleep(Duration::from_secs(8));
            redis(cluster, &["SAVE"])?;
            sleep(Duration::from_secs(4));
            // It comes back without its last seconds: what a failover loses.
            cluster.redis = None;
            cluster.start_redis()?;
            Ok(speaking)
        },
        repair: |_| Ok(()),
    },
    Break {
        alerts: &["HearsayLogRefusing"],
        how: |cluster| {
            let speaking = vec![cluster.speak("unwritten", 0)?];
            sleep(Duration::from_secs(3));
            // It answers, and takes no writes: as with a full disk, or without its replicas.
            redis(cluster, &["CONFIG", "SET", "min-replicas-to-write", "1"]).map(|_| speaking)
        },
        repair: |cluster| redis(cluster, &["CONFIG", "SET", "min-replicas-to-write", "0"]).map(drop),
    },
    Break {
        alerts: &["HearsayLogBug"],
        how: |cluster| {
            let speaking = vec![cluster.speak("forgotten", 0)?];
            sleep(Duration::from_secs(8));
            redis(cluster, &["EVAL", FORGET, "0"]).map(|_| speaking)
        },
        repair: |_| Ok(()),
    },
    Break {
        alerts: &["HearsayListenersCut"],
        how: |cluster| {
            let held = cluster.listen("torrent-0", 1, 50)?;
            sleep(Duration::from_secs(2));
            // They are there, and read nothing more.
            held.signal("STOP")?;
            Ok(vec![held, cluster.publish("torrent", &["--rate", "400", "--size", "8000", "--duration", "20s"])?])
        },
        repair: |_| Ok(()),
    },
    Break {
        alerts: &["HearsayInsightsLate"],
        how: |cluster| {
            // No recognizer hears it, so nobody analyses it, for as long as an analyst may be late and more.
            let published = cluster.publish("late", &["--rate", "5", "--insights", "0", "--duration", "70s"])?;
            // Meanwhile somebody else's insights come in time.
            let timely = cluster.speak("timely", 1)?;
            sleep(Duration::from_secs(35));
            Ok(vec![published, timely, cluster.speak("late-0", 0)?])
        },
        repair: |_| Ok(()),
    },
    Break {
        // Whoever receives them always says no.
        alerts: &["HearsayActionsGivenUp"],
        how: |cluster| Ok(vec![cluster.speak("refused", 0)?]),
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

/// All of them, or those whose names have `only` in them.
pub(crate) fn check(hearsay: &Path, only: &str) -> Result<()> {
    let rules = fs::read_to_string(root().join("deploy/prometheus/rules.yml"))?;
    let (quick, names) = quickened(&rules)?;
    let broken: Vec<_> = BREAKS.iter().flat_map(|it| it.alerts).collect();
    let unknown: Vec<_> = names.iter().filter(|name| !broken.contains(&&name.as_str())).collect();
    ensure!(unknown.is_empty(), "alerts that nothing is broken for: {unknown:?}");
    let breaks: Vec<_> = BREAKS.iter().filter(|it| it.alerts.iter().any(|name| name.contains(only))).collect();
    ensure!(!breaks.is_empty(), "there is no alert {only:?}");

    let mut cluster = Cluster::start(hearsay, "deploy-alerts", MAX_MEMORY, &SETTINGS)?;
    cluster.start_actions("refused", deploy_sink::open("503 Service Unavailable")?)?;
    let told = cluster.exposition()?;
    for name in counted(&rules) {
        // It would have to rise twice to be seen to rise.
        ensure!(told.contains(&format!("\n{name}")), "{name} is not there before it rises");
    }
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
    for Break { alerts, how, repair } in breaks {
        // What the break before left behind is none of this one.
        ensure!(quiet(&cluster, alerts)?, "{} before anything is broken for it", alerts.join(", "));
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
    if only.is_empty() {
        println!("== alerts: all {} fire when what they watch is broken, and are resolved by its repair", names.len());
    }
    Ok(())
}

/// Counters whose rise is watched.
fn counted(rules: &str) -> BTreeSet<String> {
    let words = rules.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words.filter(|word| word.starts_with("hearsay_") && word.ends_with("_total")).map(str::to_owned).collect()
}

fn wait(heard: &Heard, name: &str, wanted: &str) -> bool {
    let begun = Instant::now();
    while begun.elapsed() < HEARD_WITHIN {
        let newest = heard.lock().unwrap_or_else(PoisonError::into_inner).get(name).and_then(|all| all.last().cloned());
        if newest.as_deref() == Some(wanted) {
            return true;
        }
        sleep(Duration::from_millis(200));
    }
    false
}

/// None of them has been pending or firing for longer than what rules look back at.
fn quiet(cluster: &Cluster, names: &[&str]) -> Result<bool> {
    let asked = format!("last_over_time(ALERTS{{alertname=~\"{}\"}}[10s])", names.join("|"));
    let begun = Instant::now();
    while begun.elapsed() < HEARD_WITHIN {
        let answer = cluster.query(&asked)?;
        ensure!(answer["status"] == "success", "{answer}");
        if answer["data"]["result"].as_array().is_some_and(Vec::is_empty) {
            return Ok(true);
        }
        sleep(Duration::from_millis(500));
    }
    Ok(false)
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
    let body = deploy_sink::body(&mut stream)?;
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
    fn what_is_counted_is_found_in_rules() {
        let rules = "expr: sum(rate(hearsay_a_total{why=~\"b|c\"}[5m])) > 0 or hearsay_gauge > 1 # hearsay_a_total";
        assert_eq!(counted(rules).into_iter().collect::<Vec<_>>(), ["hearsay_a_total"]);
    }

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
