//! What sentences do: ask, promise, want something done. Each is judged when it is said, and again when the next one is:
//! what follows tells much of what was meant. What was told and does not hold is taken back or put right.

use std::{collections::VecDeque, sync::Arc};

use hearsay_protocol::{
    EventId,
    event::{Evidence, Insight, InsightBody, Participant},
};
use uuid::Uuid;

use crate::{
    acts::{self, Acts, Neighbour, Turn},
    grammar::Hint,
    reply::{Reply, reply},
};

/// How sure a rule is of what it found.
pub(crate) const BY_RULE: f32 = 0.8;
/// Sentences that a later one may change.
const RECENT: usize = 4;
/// Sentences that are looked at when the next one is judged.
const AROUND: usize = 6;
/// What is suggested, or half a task, is one when somebody takes it.
const HALF: f32 = 0.3;

/// Which of them somebody asked for.
#[derive(Default, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) questions: bool,
    pub(crate) actions: bool,
    pub(crate) follow_ups: bool,
    pub(crate) intents: bool,
}

/// A sentence as the rules read it.
#[derive(Debug, Clone)]
pub(crate) struct Deed {
    pub(crate) message: Uuid,
    pub(crate) from: Arc<Participant>,
    pub(crate) text: String,
    pub(crate) hint: Hint,
    pub(crate) assignee: Option<Arc<Participant>>,
    /// RFC 3339.
    pub(crate) due: Option<String>,
    /// The last date it names, as something of its own that may be put right.
    pub(crate) date: Option<Insight>,
    /// RFC 3339, of that date.
    pub(crate) dated: Option<String>,
}

/// The latest sentences.
#[derive(Default)]
pub(crate) struct Deeds {
    recent: VecDeque<Done>,
}

struct Done {
    deed: Deed,
    /// With what followed, if that is known.
    acts: Acts,
    settled: bool,
    /// It agreed to a task, which is told as that one's.
    agreed: bool,
    /// What was told of it; taken back or not.
    told: Vec<Insight>,
}

/// What follows from a sentence.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) insights: Vec<Insight>,
    /// Its date is the right one of an earlier sentence, and is told as that.
    pub(crate) corrected: bool,
}

impl Deed {
    fn evidence(&self) -> Evidence {
        Evidence { message: self.message, start: 0, end: self.text.chars().count() as u32 }
    }

    fn insight(&self, kind: &str, confidence: f32, body: InsightBody) -> Insight {
        Insight {
            id: EventId::of_insight(self.message, kind, 0),
            revision: 0,
            retracted: false,
            confidence,
            text: self.text.clone(),
            from: Some(Arc::clone(&self.from)),
            evidence: vec![self.evidence()],
            body,
        }
    }

    fn action(&self, confidence: f32) -> Insight {
        let body = InsightBody::ActionItem { assignee: self.assignee.clone(), due: self.due.clone() };
        self.insight("action_item", confidence, body)
    }

    /// What it does, as far as somebody wants to know: judged as the heads are measured, or by a rule that is surer.
    fn does(&self, acts: &Acts, wanted: Wanted) -> Vec<Insight> {
        let mut does = Vec::new();
        let by_rule = matches!(self.hint, Hint::Action | Hint::FollowUp);
        // The recognizer writes how it was said; "And now?" asks by its tone alone.
        let asks = !by_rule && self.text.trim_end().ends_with('?');
        if wanted.questions && (asks || acts.question >= 0.5) {
            let confidence = if asks { acts.question.max(BY_RULE) } else { acts.question };
            does.push(self.insight("question", confidence, InsightBody::Question));
        }
        match self.hint {
            Hint::FollowUp if wanted.follow_ups => {
                let body = InsightBody::FollowUp { assignee: self.assignee.clone(), due: self.due.clone() };
                does.push(self.insight("follow_up", acts.action.max(BY_RULE), body));
            }
            Hint::FollowUp => {}
            Hint::Action if wanted.actions => does.push(self.action(acts.action.max(BY_RULE))),
            _ if wanted.actions && acts.action >= 0.5 => does.push(self.action(acts.action)),
            _ => {}
        }
        if wanted.intents {
            does.extend(self.intends(acts, asks));
        }
        does
    }

    /// What it is said for, each as an intent.
    fn intends(&self, acts: &Acts, asks: bool) -> impl Iterator<Item = Insight> {
        let by_rule = |is: bool, score: f32| if is { score.max(BY_RULE) } else { score };
        let own = self.assignee.as_ref().is_some_and(|it| it.id == self.from.id);
        let task = by_rule(self.hint == Hint::Action, acts.action);
        let intents = [
            ("question", by_rule(asks, acts.question)),
            (if own { "commitment" } else { "directive" }, task),
            ("suggestion", acts.suggestion),
            ("follow_up", by_rule(self.hint == Hint::FollowUp, 0.0)),
        ];
        intents.into_iter().filter(|it| it.1 >= 0.5).map(|(intent, score)| {
            self.insight(&format!("intent {intent}"), score, InsightBody::Intent { intent: intent.to_owned() })
        })
    }
}

impl Done {
    fn task(&mut self) -> Option<&mut Insight> {
        self.told.iter_mut().find(|it| is_task(it) && !it.retracted)
    }

    /// Told anew, because of what a later sentence says.
    fn again(&mut self, wanted: Wanted, next: &Deed) -> Vec<Insight> {
        let mut now = self.deed.does(&self.acts, wanted);
        if self.agreed {
            now.retain(|it| !is_task(it));
        }
        let mut changes = Vec::new();
        for told in &mut self.told {
            let holds = now.iter().any(|it| it.id == told.id);
            if !holds && !told.retracted {
                changes.push(taken_back(told, next));
            }
        }
        for it in now {
            if !self.told.iter().any(|told| told.id == it.id) {
                changes.push(it.clone());
                self.told.push(it);
            }
        }
        changes
    }
}

fn is_task(it: &Insight) -> bool {
    matches!(it.body, InsightBody::ActionItem { .. } | InsightBody::FollowUp { .. })
}

fn revised(told: &mut Insight, by: &Deed) -> Insight {
    told.revision += 1;
    told.evidence.push(by.evidence());
    told.clone()
}

fn taken_back(told: &mut Insight, by: &Deed) -> Insight {
    told.retracted = true;
    revised(told, by)
}

impl Deeds {
    /// What follows from the next sentence. `next` is what was said after it, where that is known.
    pub(crate) fn hear(&mut self, deed: Deed, next: Option<Neighbour<'_>>, wanted: Wanted) -> Told {
        let mut told = Told::default();
        let mut turns = self.turns(&deed);
        let at = turns.len() - 1;
        let answered = self.recent.back().filter(|it| !it.settled).map(|_| acts::judge_in(&turns, at - 1));
        turns.extend(next.map(|it| Turn {
            text: it.text,
            by: if it.same_speaker { turns[at].by } else { turns.len() },
            times: None,
        }));
        let acts = acts::judge_in(&turns, at);
        if let (Some(acts), Some(last)) = (answered, self.recent.back_mut()) {
            last.acts = acts;
            last.settled = true;
            told.insights.extend(last.again(wanted, &deed));
        }
        let mut own = deed.does(&acts, wanted);
        let mut agreed = false;
        match reply(&deed.text) {
            Some(Reply::Agrees) => {
                if let Some(change) = self.agreed(&deed, wanted) {
                    // What was agreed to is the task, and not that it was.
                    own.retain(|it| !is_task(it));
                    agreed = true;
                    told.insights.extend(change);
                }
            }
            Some(Reply::TakesBack) => told.insights.extend(self.taken_back(&deed)),
            Some(Reply::Corrects) if deed.hint == Hint::None => {
                told.insights.extend(self.corrected(&deed, &mut told.corrected));
            }
            Some(Reply::Corrects) | None => {}
        }
        told.insights.extend(own.iter().cloned());
        if self.recent.len() >= AROUND {
            self.recent.pop_front();
        }
        self.recent.push_back(Done { deed, acts, settled: next.is_some(), agreed, told: own });
        told
    }

    /// What was said of late, and a sentence behind it, as the heads read them.
    fn turns<'a>(&'a self, deed: &'a Deed) -> Vec<Turn<'a>> {
        let said: Vec<&Deed> = self.recent.iter().map(|it| &it.deed).chain([deed]).collect();
        let by = |who: &Participant| said.iter().position(|it| it.from.id == who.id).unwrap_or_default();
        said.iter().map(|it| Turn { text: &it.text, by: by(&it.from), times: None }).collect()
    }

    /// Those that a later sentence may change, the latest first.
    fn open(&mut self) -> impl Iterator<Item = &mut Done> {
        self.recent.iter_mut().rev().take(RECENT)
    }

    /// Somebody will do what another wanted. None: nobody wanted anything.
    fn agreed(&mut self, by: &Deed, wanted: Wanted) -> Option<Option<Insight>> {
        let others = self.open().filter(|it| it.deed.from.id != by.from.id);
        for done in others {
            let taken = Some(Arc::clone(&by.from));
            if let Some(task) = done.task() {
                let (InsightBody::ActionItem { assignee, due } | InsightBody::FollowUp { assignee, due }) =
                    &mut task.body
                else {
                    continue;
                };
                if assignee.as_ref().map(|it| it.id) == Some(by.from.id) {
                    return Some(None);
                }
                *assignee = taken;
                *due = due.take().or_else(|| by.due.clone());
                task.confidence = task.confidence.max(BY_RULE);
                return Some(Some(revised(task, by)));
            }
            let half = done.acts.suggestion >= HALF || done.acts.action >= HALF;
            if half && wanted.actions {
                let mut task = done.deed.action(BY_RULE);
                let due = done.deed.due.clone().or_else(|| by.due.clone());
                task.body = InsightBody::ActionItem { assignee: taken, due };
                task.evidence.push(by.evidence());
                if let Some(known) = done.told.iter_mut().find(|it| it.id == task.id) {
                    task.revision = known.revision + 1;
                    *known = task.clone();
                } else {
                    done.told.push(task.clone());
                }
                return Some(Some(task));
            }
        }
        None
    }

    /// Somebody need not do it after all.
    fn taken_back(&mut self, by: &Deed) -> Option<Insight> {
        self.open().find_map(|done| {
            let own = done.deed.from.id == by.from.id;
            let task = done.task()?;
            let assignee = match &task.body {
                InsightBody::ActionItem { assignee, .. } | InsightBody::FollowUp { assignee, .. } => assignee,
                _ => return None,
            };
            let theirs = own || assignee.as_ref().is_some_and(|it| it.id == by.from.id);
            theirs.then(|| taken_back(task, by))
        })
    }

    /// The date meant is another: of the nearest task, and of the nearest date.
    fn corrected(&mut self, by: &Deed, date: &mut bool) -> Vec<Insight> {
        let mut changes = Vec::new();
        let Some(right) = &by.dated else { return changes };
        for done in self.open() {
            if let Some(task) = done.task()
                && let InsightBody::ActionItem { due, .. } | InsightBody::FollowUp { due, .. } = &mut task.body
                && due.as_ref().is_some_and(|it| it != right)
            {
                *due = Some(right.clone());
                changes.push(revised(task, by));
                break;
            }
        }
        if let Some(other) = &by.date
            && let Some(wrong) = self.open().find_map(|it| it.deed.date.as_mut())
        {
            wrong.text.clone_from(&other.text);
            wrong.body = other.body.clone();
            wrong.revision += 1;
            wrong.evidence.extend(other.evidence.iter().cloned());
            changes.push(wrong.clone());
            *date = true;
        }
        changes
    }
}
