//! A rolling deploy under speech, at the settings that operators have: the figures of BENCHMARKS.md.
//!
//! `cargo bench -p hearsay-tests --bench rolling -- [ROUNDS] [SPEAKERS] [LISTENERS]`: every process of a cluster of two
//! gateways and two recognizers is replaced, one by one, while people speak and listen. Ends well when every listener
//! was told every final of an unbroken run, once and in order, and no conversation ended.

use std::time::Duration;

use anyhow::{Context, Result};
use hearsay_tests::rolling::{Plan, roll};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    // As `cargo test --all-targets` calls it.
    let Some(rounds) = arguments.first() else {
        println!("nothing measured: say how many rounds, for instance `-- 2`");
        return Ok(());
    };
    let number = |at: usize, default: usize| arguments.get(at).map_or(Ok(default), |text| text.parse());
    let plan = Plan {
        rounds: rounds.parse().context("the first argument is a number of rounds")?,
        speakers: number(1, 5)?,
        listeners: number(2, 50)?,
        meetings: 2,
        between: Duration::from_secs(5),
        speech: 30.0,
        settings: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(roll(&plan))?;
    println!(
        "{} processes replaced under {} speakers and {} listeners: {} finals, each told once to everybody; speakers \
         came back {} times, listeners {}",
        outcome.replaced,
        plan.speakers,
        plan.listeners,
        outcome.finals,
        outcome.speakers_returned,
        outcome.listeners_returned
    );
    for (what, took) in &outcome.drains {
        println!("{what}: ended {:.1} s after the signal", took.as_secs_f64());
    }
    println!("gateways handed streams over at: {:?}", outcome.handed_over);
    Ok(())
}
