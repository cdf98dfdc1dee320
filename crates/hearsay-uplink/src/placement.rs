//! Where a meeting's next stream goes: rendezvous hashing with bounded load.
//!
//! Knows no connection and no clock: [`order`] is a function of what is known of the recognizers.

use std::cmp::Reverse;

/// How far a recognizer may be above its part of all streams before meetings that prefer it go elsewhere.
const SLACK: f64 = 1.25;

/// The share of its capacity up to which a recognizer keeps what prefers it, whatever the others have: a pool with little
/// to do gains nothing by taking meetings apart.
const UNCROWDED: f64 = 0.25;

/// What a recognizer has said of its load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) streams: u32,
    /// Streams it takes at most.
    pub(crate) rated: u32,
    /// It would refuse a stream: it drains, or its engine is behind.
    pub(crate) refuses: bool,
}

/// What is known of one recognizer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Known {
    pub(crate) well: bool,
    /// How much the meeting prefers it.
    pub(crate) weight: u64,
    /// None: it has not said.
    pub(crate) load: Option<Load>,
}

/// Better ones first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Fit,
    /// It has more than its part.
    Crowded,
    /// It has said that it has no room, which may have changed.
    Full,
    /// It failed, and may have recovered since.
    Unwell,
}

/// All of them, best first: a meeting's own order among those that have no more than their part of all streams, then the
/// others.
pub(crate) fn order(known: &[Known]) -> Vec<usize> {
    let loads = known.iter().filter(|one| one.well).filter_map(|one| one.load);
    let (streams, rated) = loads
        .fold((1.0, 0.0), |(streams, rated), load| (streams + f64::from(load.streams), rated + f64::from(load.rated)));
    let class = |one: &Known| match one.load {
        _ if !one.well => Class::Unwell,
        Some(load) if load.refuses || load.streams >= load.rated => Class::Full,
        Some(load) => {
            let own = f64::from(load.rated);
            let most = (SLACK * streams * own / rated).ceil().max(UNCROWDED * own);
            if f64::from(load.streams) + 1.0 > most { Class::Crowded } else { Class::Fit }
        }
        None => Class::Fit,
    };
    let mut order: Vec<usize> = (0..known.len()).collect();
    order.sort_by_key(|&one| (class(&known[one]), Reverse(known[one].weight)));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Recognizers as `streams/rated`, `full` for one that refuses, `?` for one that has not said, `down`; in the order the
    /// meeting prefers them.
    fn check(known: &str, expected: &[usize]) {
        let parsed: Vec<Known> = known
            .split(' ')
            .rev()
            .enumerate()
            .map(|(weight, text)| {
                let load = text.split_once('/').map(|(streams, rated)| Load {
                    streams: streams.parse().unwrap(),
                    rated: rated.trim_end_matches('!').parse().unwrap(),
                    refuses: rated.ends_with('!'),
                });
                Known { well: text != "down", weight: weight as u64, load }
            })
            .collect();
        let parsed: Vec<Known> = parsed.into_iter().rev().collect();
        assert_eq!(order(&parsed), expected, "{known}");
    }

    #[test]
    fn a_meeting_goes_where_it_prefers_unless_that_one_has_too_much() {
        check("0/64 0/64 0/64", &[0, 1, 2]);
        // Little to do: nothing is taken apart.
        check("15/64 0/64 0/64", &[0, 1, 2]);
        // More than its part, and a quarter.
        check("20/64 0/64 0/64", &[1, 2, 0]);
        check("20/64 20/64 20/64", &[0, 1, 2]);
        check("30/64 20/64 25/64", &[0, 1, 2]);
        check("40/64 20/64 25/64", &[1, 2, 0]);
        // A part is measured by what a recognizer can.
        check("40/128 20/32 10/32", &[0, 2, 1]);
        // None has room but those that have not said.
        check("64/64 ? 3/64!", &[1, 0, 2]);
        check("64/64 64/64", &[0, 1]);
        check("0/0 1/64", &[1, 0]);
        check("down 64/64 60/64", &[2, 1, 0]);
        check("down down", &[0, 1]);
    }

    #[test]
    fn no_recognizer_gets_more_than_its_bound() {
        let mut streams = [0u32; 5];
        let rated = 40;
        for stream in 0..150u32 {
            let known: Vec<Known> = streams
                .iter()
                .enumerate()
                .map(|(n, &streams)| Known {
                    well: true,
                    // Everybody prefers the same ones.
                    weight: 5 - n as u64,
                    load: Some(Load { streams, rated, refuses: false }),
                })
                .collect();
            let chosen = order(&known)[0];
            streams[chosen] += 1;
            let most = (SLACK * f64::from(stream + 1) / 5.0).ceil().max(UNCROWDED * f64::from(rated));
            assert!(f64::from(streams[chosen]) <= most, "{streams:?} of {}", stream + 1);
        }
        assert_eq!(streams.iter().sum::<u32>(), 150);
        assert!(streams[..4].iter().all(|&streams| streams > 0), "{streams:?}");
    }
}
