//! The page of all metrics, made from the `metrics.rs` of each crate: names, kinds, words and labels.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, ensure};

use crate::shell::root;

/// Where the page is.
pub(crate) const PAGE: &str = "docs/metrics.md";

/// One metric as the code describes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Metric {
    pub(crate) kind: &'static str,
    pub(crate) words: String,
    pub(crate) labels: BTreeSet<String>,
}

/// By crate, then by name.
pub(crate) type Metrics = BTreeMap<String, BTreeMap<String, Metric>>;

/// Reads all crates.
///
/// # Errors
/// When a name is used that is described nowhere.
pub(crate) fn read() -> Result<Metrics> {
    let mut all = Metrics::new();
    for entry in fs::read_dir(root().join("crates"))? {
        let folder = entry?.path();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut of_crate = BTreeMap::new();
        let mut files = Vec::new();
        sources(&folder.join("src"), &mut files)?;
        for file in files {
            if file.file_name().is_some_and(|name| name == "metrics.rs") {
                let text = fs::read_to_string(&file)?;
                of_crate.extend(parse(&text).with_context(|| file.display().to_string())?);
            }
        }
        if !of_crate.is_empty() {
            all.insert(name, of_crate);
        }
    }
    Ok(all)
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            sources(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

/// Of one `metrics.rs`: `const NAME: &str = "…"`, `describe_KIND!(NAME, …, "words")` and `KIND!(NAME, "label" => …)`.
fn parse(text: &str) -> Result<BTreeMap<String, Metric>> {
    let mut names = BTreeMap::new();
    for line in text.lines() {
        if let Some((name, rest)) = line.strip_prefix("const ").and_then(|rest| rest.split_once(": &str = \""))
            && let Some((value, _)) = rest.split_once('"')
        {
            names.insert(name, value);
        }
    }
    let mut metrics = BTreeMap::new();
    for kind in ["counter", "gauge", "histogram"] {
        for call in calls(text, &format!("describe_{kind}!(")) {
            let Some((name, rest)) = call.split_once(',') else { continue };
            let Some(value) = names.get(name.trim()) else { continue };
            let words = unescaped(rest.split_once('"').context("no words")?.1);
            metrics.insert((*value).to_owned(), Metric { kind, words, labels: BTreeSet::new() });
        }
    }
    for kind in ["counter", "gauge", "histogram"] {
        for call in calls(text, &format!("{kind}!(")) {
            let (name, rest) = call.split_once(',').unwrap_or((call, ""));
            let Some(value) = names.get(name.trim()) else { continue };
            let metric = metrics.get_mut(*value).with_context(|| format!("{value} is recorded and not described"))?;
            // What follows the last arrow is a value.
            let parts: Vec<_> = rest.split("=>").collect();
            for part in &parts[..parts.len() - 1] {
                if let Some(label) = part.trim_end().strip_suffix('"').and_then(|part| part.rsplit('"').next()) {
                    metric.labels.insert(label.to_owned());
                }
            }
        }
    }
    for (name, value) in names {
        let named = value.starts_with("hearsay_") || value.starts_with("process_");
        ensure!(!named || metrics.contains_key(value), "{name} ({value}) is described nowhere");
    }
    Ok(metrics)
}

/// What stands between the brackets of each call of a macro; `describe_gauge!` is none of `gauge!`.
fn calls<'a>(text: &'a str, head: &str) -> Vec<&'a str> {
    let starts = text
        .match_indices(head)
        .filter(|(at, _)| !text[..*at].ends_with(|before: char| before.is_ascii_alphanumeric() || before == '_'));
    let inside = starts.filter_map(|(at, _)| {
        let rest = &text[at + head.len()..];
        let (mut depth, mut quoted, mut escaped) = (1, false, false);
        rest.char_indices().find_map(|(at, c)| {
            match c {
                _ if escaped => escaped = false,
                '\\' if quoted => escaped = true,
                '"' => quoted = !quoted,
                '(' if !quoted => depth += 1,
                ')' if !quoted => depth -= 1,
                _ => {}
            }
            (depth == 0).then(|| &rest[..at])
        })
    });
    inside.collect()
}

/// A string up to its closing quote, lines that are continued joined.
fn unescaped(text: &str) -> String {
    let mut words = String::new();
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' => break,
            '\\' if rest.peek() == Some(&'\n') => while rest.next_if(|c| c.is_whitespace()).is_some() {},
            '\\' => words.extend(rest.next()),
            c => words.push(c),
        }
    }
    words
}

/// The page.
pub(crate) fn page(all: &Metrics) -> String {
    let mut page = String::from(
        "# Metrics\n\nEvery metric of every process, as the code describes it (`cargo xtask deploy-check --write` makes this page). \
         A histogram `x` has\nthe series `x_bucket`, `x_sum` and `x_count`. A series appears with its first event. Labels are words of the \
         code, never of clients:\ntheir number is fixed.\n",
    );
    for (name, metrics) in all {
        let _ = write!(page, "\n## {name}\n\n| metric | kind | labels | what it tells |\n| --- | --- | --- | --- |\n");
        for (name, metric) in metrics {
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            let words = metric.words.replace('|', "\\|");
            let _ = writeln!(page, "| `{name}` | {} | {} | {words} |", metric.kind, labels.join(", "));
        }
    }
    page
}

/// The series that Prometheus knows of all this.
pub(crate) fn series(all: &Metrics) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (name, metric) in all.values().flatten() {
        if metric.kind == "histogram" {
            names.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        } else {
            names.insert(name.clone());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_that_of_the_code() {
        let page = page(&read().unwrap());
        let kept = fs::read_to_string(root().join(PAGE)).unwrap();
        assert!(page == kept, "{PAGE} is out of date: cargo xtask deploy-check --write");
    }

    #[test]
    fn names_words_and_labels_are_found() {
        let text = r#"
const ENDED: &str = "hearsay_x_ended_total";
const TIME: &str = "hearsay_x_seconds";
fn describe() {
    describe_counter!(ENDED, "Ended, by \"why\" \
        and (how).");
    describe_histogram!(TIME, Unit::Seconds, "Time.");
}
fn ended(why: &'static str) {
    counter!(ENDED, "why" => why, "how" => other(1)).increment(1);
    counter!(ENDED, "why" => "first", "how" => if late { "late" } else { "early" }).increment(1);
    counter!(ENDED, "why" => "last").increment(1);
    histogram!(TIME).record(1.0);
}
"#;
        let metrics = parse(text).unwrap();
        let ended = &metrics["hearsay_x_ended_total"];
        assert_eq!(ended.words, "Ended, by \"why\" and (how).");
        assert_eq!(ended.labels.iter().map(String::as_str).collect::<Vec<_>>(), ["how", "why"]);
        assert_eq!(
            (metrics["hearsay_x_seconds"].kind, metrics["hearsay_x_seconds"].words.as_str()),
            ("histogram", "Time.")
        );
        let error = parse(&text.replace("describe_histogram!(TIME", "describe_histogram!(OTHER")).unwrap_err();
        assert!(error.to_string().contains("hearsay_x_seconds"), "{error}");
    }
}
