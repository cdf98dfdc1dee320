//! One track of contiguous positions: the checker every listener carries.

use hearsay_protocol::{Epoch, Position};

use super::report::Report;

/// What one subscriber has seen.
#[derive(Debug, Default)]
pub(crate) struct Run {
    at: Option<Position>,
    /// Highest offset of the epoch, for telling repetition from disorder.
    missing: Vec<u64>,
}

/// Holes remembered to tell an event that comes late from one that comes twice.
const HOLES: usize = 1_024;

impl Run {
    pub(crate) fn at(&self) -> Option<Position> {
        self.at
    }

    /// An event came with this position.
    pub(crate) fn event(&mut self, position: Position, report: &mut Report) {
        let Some(at) = self.at else {
            self.at = Some(position);
            (report.sent, report.delivered) = (report.sent + 1, report.delivered + 1);
            return;
        };
        if position.epoch != at.epoch {
            // Another history goes on behind what both share: a hole is told as a gap, which moves us first.
            self.branched(position.epoch);
            return self.event(position, report);
        }
        let next = at.offset.0 + 1;
        if position.offset.0 >= next {
            let skipped = position.offset.0 - next;
            report.lost += skipped;
            report.sent += skipped + 1;
            report.delivered += 1;
            self.missing.extend((next..position.offset.0).take(HOLES.saturating_sub(self.missing.len())));
            self.at = Some(position);
        } else if let Some(index) = self.missing.iter().position(|&offset| offset == position.offset.0) {
            self.missing.swap_remove(index);
            report.lost -= 1;
            report.delivered += 1;
            report.reordered += 1;
        } else {
            report.duplicated += 1;
        }
    }

    /// The server says how far it is, without an event.
    pub(crate) fn mark(&mut self, position: Position, report: &mut Report) {
        if let Some(at) = self.at
            && at.epoch == position.epoch
            && position.offset > at.offset
        {
            let skipped = position.offset.0 - at.offset.0;
            report.lost += skipped;
            report.sent += skipped;
        }
        if self.at.is_none_or(|at| at.epoch == position.epoch && position.offset > at.offset) {
            self.at = Some(position);
        }
    }

    /// The server says that nothing up to `to` will come.
    pub(crate) fn gap(&mut self, to: Position, report: &mut Report) {
        if let Some(at) = self.at {
            report.told += to.offset.0.saturating_sub(at.offset.0);
        }
        self.missing.clear();
        self.at = Some(to);
    }

    fn branched(&mut self, epoch: Epoch) {
        self.missing.clear();
        if let Some(at) = &mut self.at {
            at.epoch = epoch;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(steps: &str) -> (u64, u64, u64, u64, u64, u64) {
        let (mut run, mut report) = (Run::default(), Report::default());
        for step in steps.split(' ') {
            let (kind, position) = step.split_at(1);
            let (epoch, offset) = position.split_once(':').unwrap();
            let position: Position = format!("{:08x}:{offset}", epoch.parse::<u32>().unwrap()).parse().unwrap();
            match kind {
                "e" => run.event(position, &mut report),
                "m" => run.mark(position, &mut report),
                "g" => run.gap(position, &mut report),
                other => panic!("{other}"),
            }
        }
        (report.sent, report.delivered, report.lost, report.duplicated, report.reordered, report.told)
    }

    #[test]
    fn every_kind_of_disorder_is_counted_as_what_it_is() {
        assert_eq!(check("e1:5 e1:6 e1:7"), (3, 3, 0, 0, 0, 0));
        assert_eq!(check("e1:5 e1:8"), (4, 2, 2, 0, 0, 0));
        assert_eq!(check("e1:5 e1:6 e1:6 e1:5"), (2, 2, 0, 2, 0, 0));
        assert_eq!(check("e1:5 e1:7 e1:6"), (3, 3, 0, 0, 1, 0));
        assert_eq!(check("e1:5 g1:9 e1:10"), (2, 2, 0, 0, 0, 4));
        // A branch: at its point, and below what was seen, with and without a word.
        assert_eq!(check("e1:5 e2:6"), (2, 2, 0, 0, 0, 0));
        assert_eq!(check("e1:5 g2:3 e2:4 e2:5"), (3, 3, 0, 0, 0, 0));
        assert_eq!(check("e1:5 e2:4"), (1, 1, 0, 1, 0, 0));
        assert_eq!(check("e1:5 e2:8"), (4, 2, 2, 0, 0, 0));
        assert_eq!(check("e1:5 m1:5 m1:7 e1:8"), (4, 2, 2, 0, 0, 0));
    }
}
