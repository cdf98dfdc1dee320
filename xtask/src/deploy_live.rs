//! `cargo xtask deploy-check --live` and `--charts`: a small cluster under load, and every query of dashboards and rules
//! asked of a Prometheus that scrapes it.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::Path,
    process::Command,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{deploy, deploy_cluster::Cluster, deploy_sink, shell::root};

/// For every query to have data; live speech goes on all the while.
const DATA_WITHIN: Duration = Duration::from_secs(150);
/// In the middle of what the first one says.
const SECOND_AFTER: Duration = Duration::from_secs(20);
const ASK_EVERY: Duration = Duration::from_secs(2);
/// What a chart shows.
const SHOWN: u64 = 75;
/// Panels that show nothing but zero while all is well; so may queries that end in `or vector(0)`.
const STILL: [&str; 13] = [
    "Ladder",
    "Draining",
    "What a drain waits for",
    "Drains",
    "Slow readers",
    "Refused",
    "Refused and repeated",
    "Calls failed and repeated",
    "Failures",
    "Feeds behind",
    "Conversations behind",
    "Attempts",
    "Held back",
];
const RECORDED: [&str; 5] = [
    "hearsay:recognizer_fill:ratio",
    "hearsay:final_seconds:p95",
    "hearsay:redis_call_seconds:p99",
    "hearsay:socket_seconds:p99",
    "hearsay:analyst_lag_seconds:p99",
];

pub(crate) fn check(hearsay: &Path, charts: bool) -> Result<()> {
    // However slow the machine is at the moment, it takes three streams.
    let mut cluster = Cluster::start(hearsay, "deploy-live", "64mb", &[("HEARSAY__RECOGNIZER__RATED", "8")])?;
    cluster.start_actions("live", deploy_sink::open("204 No Content")?)?;
    cluster.start_prometheus(&root().join("deploy/prometheus/rules.yml"), None)?;

    // Listeners at one gateway, speakers at the other, over and over: one meeting in which somebody always speaks, and one
    // that ends and begins anew.
    let _listeners = cluster.listen("live", 1, 50)?;
    let mut speakers = vec![("live", cluster.speak("live", 0)?), ("other", cluster.speak("other", 0)?)];

    let mut asked = deploy::expressions()?;
    asked.extend(RECORDED.map(|name| (name.to_owned(), name.to_owned())));
    let count = asked.len();
    let begun = Instant::now();
    let until = if charts { Duration::from_secs(SHOWN) } else { Duration::ZERO };
    while (!asked.is_empty() && begun.elapsed() < DATA_WITHIN) || begun.elapsed() < until {
        sleep(ASK_EVERY);
        if speakers.len() == 2 && begun.elapsed() > SECOND_AFTER {
            speakers.push(("live", cluster.speak("live", 0)?));
        }
        for (meeting, speaker) in &mut speakers {
            if speaker.is_done()? {
                *speaker = cluster.speak(meeting, 0)?;
            }
        }
        let mut without = Vec::new();
        for (place, text) in asked {
            if !has_data(&cluster, &place, &text).with_context(|| format!("{place}: {text}"))? {
                without.push((place, text));
            }
        }
        asked = without;
    }
    let without: Vec<_> = asked.iter().map(|(place, text)| format!("{place}: {text}")).collect();
    if charts {
        draw(&cluster)?;
    }
    ensure!(
        without.is_empty(),
        "no data, or zero, within {DATA_WITHIN:?} for {} of {count}:\n{}",
        without.len(),
        without.join("\n")
    );
    let firing = cluster.query("ALERTS{alertstate=\"firing\"}")?;
    ensure!(
        firing["data"]["result"].as_array().is_some_and(Vec::is_empty),
        "alerts of a cluster that is well: {firing}"
    );
    println!("== deployment: {count} queries have data from a real cluster that moves, and no alert fires");
    Ok(())
}

fn has_data(cluster: &Cluster, place: &str, text: &str) -> Result<bool> {
    let answer = cluster.query(text)?;
    ensure!(answer["status"] == "success", "{answer}");
    let still = text.ends_with("or vector(0)") || STILL.iter().any(|title| place.ends_with(&format!(": {title}")));
    let result = answer["data"]["result"].as_array().context("no result")?;
    // Quantiles of nothing are no numbers.
    let values = result.iter().filter_map(|sample| sample["value"][1].as_str()?.parse::<f64>().ok());
    Ok(values.into_iter().any(|value| !value.is_nan() && (still || value != 0.0)))
}

/// A page for each dashboard, its panels where Grafana would put them, and a picture of each page where there is a Chromium.
fn draw(cluster: &Cluster) -> Result<()> {
    for (file, dashboard) in deploy::files()? {
        let mut page = String::from("<body style='font:12px sans-serif;margin:0;background:#fff'>");
        let mut bottom = 0;
        for panel in dashboard["panels"].as_array().into_iter().flatten() {
            let at = |key: &str| {
                panel["gridPos"][key].as_u64().unwrap_or_default() * if matches!(key, "x" | "w") { 60 } else { 26 }
            };
            let (x, y, w, h) = (at("x"), at("y"), at("w"), at("h"));
            bottom = bottom.max(y + h);
            let title = panel["title"].as_str().unwrap_or_default();
            let _ = write!(
                page,
                "<div style='position:absolute;left:{x}px;top:{y}px;width:{w}px;height:{h}px;overflow:hidden'><b>{title}</b>"
            );
            if panel["type"] != "row" {
                page += &chart(cluster, panel, w, h).with_context(|| format!("{file}: {title}"))?;
            }
            page += "</div>";
        }
        let html = cluster.folder().join(&file).with_extension("html");
        fs::write(&html, page)?;
        let png = html.with_extension("png");
        let mut picture = Command::new("chromium");
        picture.args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]);
        picture.arg(format!("--screenshot={}", png.display())).arg(format!("--window-size=1440,{bottom}")).arg(&html);
        let drawn = picture.output().is_ok_and(|output| output.status.success());
        println!("== deployment: {}", if drawn { png.display() } else { html.display() });
    }
    Ok(())
}

const COLOURS: [&str; 8] = ["#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f"];

fn chart(cluster: &Cluster, panel: &Value, w: u64, h: u64) -> Result<String> {
    let mut lines = Vec::new();
    for query in panel["targets"].as_array().into_iter().flatten() {
        let text = deploy::filled(query["expr"].as_str().unwrap_or_default());
        let answer = cluster.query_range(&text, SHOWN)?;
        for series in answer["data"]["result"].as_array().into_iter().flatten() {
            let mut legend = query["legendFormat"].as_str().unwrap_or_default().to_owned();
            for (label, value) in series["metric"].as_object().into_iter().flatten() {
                legend = legend.replace(&format!("{{{{{label}}}}}"), value.as_str().unwrap_or_default());
            }
            ensure!(!legend.contains("{{"), "a series without the label of its legend: {legend}");
            let points = series["values"].as_array().into_iter().flatten();
            let points = points.filter_map(|point| Some((point[0].as_f64()?, point[1].as_str()?.parse::<f64>().ok()?)));
            let points: Vec<_> = points.filter(|(_, value)| value.is_finite()).collect();
            lines.push((legend, points));
        }
    }
    let unit = panel["fieldConfig"]["defaults"]["unit"].as_str().unwrap_or_default();
    let all = || lines.iter().flat_map(|(_, points)| points);
    let top = all().map(|(_, value)| *value).fold(0.0, f64::max);
    let (first, last) = all().fold((f64::MAX, f64::MIN), |(first, last), (at, _)| (first.min(*at), last.max(*at)));
    let (wide, high) = (w as f64 - 70.0, h as f64 - 60.0);
    let mut svg = format!(
        "<br><span style='color:#888'>0 to {} {unit}</span><svg width='{w}' height='{}' style='display:block'>\
         <rect x='5' y='0' width='{wide}' height='{high}' fill='#f7f7f7'/>",
        short(top),
        high + 2.0
    );
    let mut legends = BTreeSet::new();
    for (n, (legend, points)) in lines.iter().enumerate() {
        let colour = COLOURS[n % COLOURS.len()];
        let place = points.iter().map(|(at, value)| {
            let x = 5.0 + (at - first) / (last - first).max(1.0) * wide;
            let y = high - value / if top > 0.0 { top } else { 1.0 } * (high - 4.0) - 1.0;
            format!("{x:.0},{y:.0} ")
        });
        let _ = write!(
            svg,
            "<polyline fill='none' stroke='{colour}' stroke-width='1.5' points='{}'/>",
            place.collect::<String>()
        );
        let now = points.last().map_or("no data".to_owned(), |(_, value)| short(*value));
        legends.insert(format!("<span style='color:{colour}'>{legend} {now}</span> "));
    }
    svg += "</svg>";
    if lines.is_empty() {
        svg += "<b style='color:red'>no data</b>";
    }
    svg += &legends.into_iter().collect::<String>();
    Ok(svg)
}

fn short(value: f64) -> String {
    match value.abs() {
        large if large >= 1e6 => format!("{:.1}M", value / 1e6),
        large if large >= 1e4 => format!("{:.1}k", value / 1e3),
        small if small > 0.0 && small < 0.01 => format!("{value:.5}"),
        _ => format!("{value:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_short() {
        assert_eq!([0.0, 0.004_2, 1.5, 20_000.0, 3.2e6].map(short), ["0.000", "0.00420", "1.500", "20.0k", "3.2M"]);
    }
}
