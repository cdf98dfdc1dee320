//! Conversations over REST: the record of a finished one, or the log of a live one folded into the same.
//!
//! Cost: a live conversation is read whole, in pages; at most [`MAX_READERS`] at once on a gateway.

use std::{collections::HashMap, time::Duration};

use hearsay_bus::{Bus, Error, Read, Refusal};
use hearsay_conversation::{
    Conversation, Record, RecordedEvidence, RecordedInsight, RecordedMember, RecordedMessage, SUMMARY_WORDS, Sending,
    Talk, summary as choose,
};
use hearsay_protocol::{ConversationId, ConversationKey, Seen, Timestamp, event::InsightBody, wire::Sentiment};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{request::Query, summarizer::Written};

/// Conversations read at once; more wait their turn.
pub(crate) const MAX_READERS: usize = 8;
/// Entries in one read.
const PAGE: usize = 500;

/// What was said and inferred so far. None: the conversation was deleted.
///
/// # Errors
/// When the log does not answer.
pub(crate) async fn load(bus: &dyn Bus, key: &ConversationKey) -> Result<Option<Record>, Error> {
    match read(bus, key).await {
        Err(Error::Refused(Refusal::Gone)) => Ok(None),
        answer => answer.map(Some),
    }
}

async fn read(bus: &dyn Bus, key: &ConversationKey) -> Result<Record, Error> {
    if let Some(bytes) = bus.record(key).await? {
        return Record::parse(&bytes).map_err(|error| Error::Unavailable(error.to_string()));
    }
    let mut conversation = Conversation::default();
    let mut after = Seen::NOTHING;
    loop {
        match bus.read(key, after, PAGE).await? {
            Read::Page(page) => {
                for entry in &page.entries {
                    conversation.apply(entry);
                    after = Seen { epoch: Some(page.epoch), offset: entry.offset, check: Some(entry.check) };
                }
                if page.entries.is_empty() || after.offset >= page.top.offset {
                    return Ok(Record::of(&conversation));
                }
            }
            // Compacted meanwhile, or beyond its retention: what can still be given is.
            Read::Gap { resume, .. } if resume.offset > after.offset => after = resume,
            Read::Gap { .. } => return Ok(Record::of(&conversation)),
        }
    }
}

/// `GET /v1/conversations/{id}`.
pub(crate) fn metadata(id: ConversationId, record: &Record) -> Value {
    let mut metadata = json!({
        "id": id.to_string(),
        "type": "meeting",
        "name": record.title,
        "startTime": iso(record.started_us),
        "members": record.members.iter().map(member).collect::<Vec<_>>(),
        "metadata": {},
    });
    // Absent rather than null while it goes on: strict decoders parse what is there as a time.
    if let Some(ended) = record.ended_us {
        metadata["endTime"] = iso(ended).into();
    }
    metadata
}

/// `GET /v1/conversations/{id}/messages`.
pub(crate) fn messages(id: ConversationId, record: &Record, query: &Query) -> Value {
    let messages: Vec<_> = record.messages.iter().map(|said| message(id, record, said, query)).collect();
    json!({ "messages": messages })
}

fn message(id: ConversationId, record: &Record, said: &RecordedMessage, query: &Query) -> Value {
    let from = record.members.iter().find(|member| member.id == said.from);
    let mut message = json!({
        "id": said.id,
        "text": said.text,
        "from": from.map_or_else(|| json!({ "id": said.from, "name": "" }), member),
        "startTime": iso(said.start_us),
        "endTime": iso(said.end_us),
        "timeOffset": seconds(record.started_us, said.start_us),
        "duration": seconds(said.start_us, said.end_us),
        "conversationId": id.to_string(),
        "phrases": [],
    });
    if query.verbose {
        let words = said.words.iter().map(|word| {
            json!({
                "word": word.0,
                "startTime": iso(word.1),
                "endTime": iso(word.2),
                "score": f64::from(word.3) / 100.0,
                "timeOffset": seconds(record.started_us, word.1),
                "duration": seconds(word.1, word.2),
            })
        });
        message["words"] = words.collect();
    }
    if let Some(score) = said.sentiment.filter(|_| query.sentiment) {
        message["sentiment"] = json!(Sentiment::of(f32::from(score) / 100.0));
    }
    message
}

/// `GET …/members`.
pub(crate) fn members(record: &Record) -> Value {
    json!({ "members": record.members.iter().map(member).collect::<Vec<_>>() })
}

/// `GET …/topics`.
pub(crate) fn topics(record: &Record) -> Value {
    let topic = |it: &RecordedInsight| {
        json!({
            "id": it.id,
            "text": it.text,
            "type": "topic",
            "score": score(it),
            "messageIds": message_ids(it),
            "entities": [],
            "parentRefs": [],
        })
    };
    json!({ "topics": of_kind(record, "topic").map(topic).collect::<Vec<_>>() })
}

/// `GET …/questions`.
pub(crate) fn questions(record: &Record) -> Value {
    json!({ "questions": of_kind(record, "question").map(|it| question(record, it)).collect::<Vec<_>>() })
}

/// `GET …/action-items`.
pub(crate) fn action_items(record: &Record) -> Value {
    json!({ "actionItems": of_kind(record, "action_item").map(|it| task(record, it)).collect::<Vec<_>>() })
}

/// `GET …/follow-ups`.
pub(crate) fn follow_ups(record: &Record) -> Value {
    json!({ "followUps": of_kind(record, "follow_up").map(|it| task(record, it)).collect::<Vec<_>>() })
}

/// `GET …/insights`: questions, action items and follow-ups in one list.
pub(crate) fn insights(record: &Record) -> Value {
    let insights = in_order(record).into_iter().filter_map(|it| match it.kind.as_str() {
        "question" => Some(question(record, it)),
        "action_item" | "follow_up" => Some(task(record, it)),
        _ => None,
    });
    json!({ "insights": insights.collect::<Vec<_>>() })
}

/// `GET …/intents`: what each sentence is said for, as far as that was told while it was.
pub(crate) fn intents(record: &Record) -> Value {
    let intent = |it: &RecordedInsight| {
        let evidence = it
            .evidence
            .iter()
            .map(|RecordedEvidence(message, start, end)| json!({ "messageId": message, "start": start, "end": end }));
        json!({
            "id": it.id,
            "intent": it.name,
            "text": it.text,
            "score": score(it),
            "messageIds": message_ids(it),
            "messageReference": it.evidence.first().map(|first| json!({ "id": first.0 })),
            "evidence": evidence.collect::<Vec<_>>(),
            "from": from(record, it.from),
        })
    };
    json!({ "intents": of_kind(record, "intent").map(intent).collect::<Vec<_>>() })
}

/// `GET …/entities`: each value once, with every place where it was said, in the older shape and the newer one.
pub(crate) fn entities(record: &Record) -> Value {
    let said = Said::of(record);
    let mut entities: Vec<(&RecordedInsight, Vec<Value>)> = Vec::new();
    let mut index = HashMap::new();
    for it in of_kind(record, "entity") {
        let at = *index.entry((&it.name, &it.value)).or_insert_with(|| {
            entities.push((it, Vec::new()));
            entities.len() - 1
        });
        entities[at].1.extend(it.evidence.iter().map(|evidence| said.message_ref(evidence)));
    }
    let entity = |(it, messages): (&RecordedInsight, Vec<Value>)| {
        let kind = it.name.as_deref().unwrap_or_default();
        let custom = InsightBody::custom_type(kind);
        let value = it.value.as_deref().unwrap_or(&it.text);
        let mut entity = json!({
            "type": if custom.is_some() { "custom" } else { kind },
            "subType": custom.unwrap_or(kind),
            "category": if custom.is_some() { "Custom" } else { "General" },
            "value": value,
            "text": it.text,
            "messageRefs": messages,
            "matches": [{ "detectedValue": value, "messageRefs": messages }],
        });
        if let Some(custom) = custom {
            entity["customType"] = custom.into();
        }
        entity
    };
    json!({ "entities": entities.into_iter().map(entity).collect::<Vec<_>>() })
}

/// `GET …/trackers`: a bare list, each tracker once, each of its phrases once, with every place.
pub(crate) fn trackers(record: &Record) -> Value {
    let said = Said::of(record);
    let mut trackers: Vec<Value> = Vec::new();
    let mut known: HashMap<&str, (usize, HashMap<&str, usize>)> = HashMap::new();
    for it in of_kind(record, "tracker") {
        let name = it.name.as_deref().unwrap_or_default();
        let value = it.value.as_deref().unwrap_or(&it.text);
        let (at, phrases) = known.entry(name).or_insert_with(|| {
            trackers.push(json!({ "id": it.id, "name": name, "matches": [] }));
            (trackers.len() - 1, HashMap::new())
        });
        let Some(matches) = trackers[*at]["matches"].as_array_mut() else { continue };
        let phrase = *phrases.entry(value).or_insert_with(|| {
            matches.push(json!({ "type": "vocabulary", "value": value, "messageRefs": [], "insightRefs": [] }));
            matches.len() - 1
        });
        for evidence in &it.evidence {
            if let Some(messages) = matches[phrase]["messageRefs"].as_array_mut() {
                messages.push(said.message_ref(evidence));
            }
            if let Some(insights) = matches[phrase]["insightRefs"].as_array_mut() {
                insights.extend(said.insight_refs(evidence));
            }
        }
    }
    trackers.into()
}

/// `GET …/analytics`: seconds, and percent of the conversation; a member's percent is of all speech.
pub(crate) fn analytics(record: &Record) -> Value {
    let found = Talk::of(record).analytics(Timestamp(record.started_us), record.ended_us.map(Timestamp));
    let secs = |us: u64| Duration::from_micros(us).as_secs_f64();
    let percent = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    let metric =
        |kind: &str, us: u64| json!({ "type": kind, "percent": percent(us, found.whole_us), "seconds": secs(us) });
    let of = |id: Uuid| record.members.iter().find(|it| it.id == id).map_or_else(|| json!({ "id": id }), member);
    let members = found.speakers.iter().map(|it| {
        let listened = found.talk_us - it.talk_us;
        let with = it.with.iter().map(|(other, us)| {
            let mut other = of(*other);
            other["percent"] = percent(*us, found.whole_us).into();
            other["seconds"] = secs(*us).into();
            other
        });
        let mut one = of(it.id);
        one["pace"] = json!({ "wpm": it.words_a_minute().round() });
        one["talkTime"] = json!({ "percentage": percent(it.talk_us, found.talk_us), "seconds": secs(it.talk_us) });
        one["listenTime"] = json!({ "percentage": percent(listened, found.talk_us), "seconds": secs(listened) });
        one["overlap"] =
            json!({ "overlapDuration": secs(it.overlap_us), "overlappingMembers": with.collect::<Vec<_>>() });
        one["interruptions"] = it.interruptions.into();
        one
    });
    json!({
        "metrics": [
            metric("total_silence", found.silence_us),
            metric("total_talk_time", found.talk_us),
            metric("total_overlap", found.overlap_us),
        ],
        "members": members.collect::<Vec<_>>(),
    })
}

/// `GET …/summary`: as a model elsewhere wrote it, or the sentences that say most of what was said, as they were said, each
/// with the message that it is. `origin` tells which, and `fallback` why the other is not there.
pub(crate) fn summary(id: ConversationId, record: &Record, elsewhere: Option<(&str, Written)>) -> Value {
    let fallback = match elsewhere {
        Some((model, Ok(written))) => {
            let one =
                |(at, text): (usize, &String)| json!({ "id": format!("{id}-{at}"), "text": text, "messageRefs": [] });
            let summary: Vec<_> = written.iter().enumerate().map(one).collect();
            return json!({ "summary": summary, "origin": "external", "model": model });
        }
        Some((_, Err(failed))) => Some(failed),
        None => None,
    };
    let chosen = choose(record, SUMMARY_WORDS).into_iter().filter_map(|at| record.messages.get(at));
    let one = |said: &RecordedMessage| json!({ "id": said.id, "text": said.text, "messageRefs": [{ "id": said.id }] });
    let mut summary = json!({ "summary": chosen.map(one).collect::<Vec<_>>(), "origin": "local" });
    if let Some(failed) = fallback {
        summary["fallback"] = failed.to_string().into();
    }
    summary
}

/// `GET …/actions`: what was sent to others because of it, or is to be, latest first.
pub(crate) fn actions(sendings: impl Iterator<Item = Sending>) -> Value {
    let mut sendings: Vec<_> = sendings.collect();
    sendings.sort_by_key(|it| (std::cmp::Reverse(it.put_us), it.event));
    let action = |it: &Sending| {
        let attempts = it.latest.iter().map(|tried| {
            json!({ "at": iso(tried.at_us), "ms": tried.took_ms, "status": tried.status, "answer": tried.answer })
        });
        json!({
            "eventId": it.event,
            "event": it.kind,
            "type": it.way.name(),
            "rule": it.rule,
            "to": it.shown_to(),
            "since": iso(it.put_us),
            "state": it.state.name(),
            "nextAttempt": it.next_us.map(iso),
            "attempts": it.attempts,
            "latest": attempts.collect::<Vec<_>>(),
        })
    };
    json!({ "actions": sendings.iter().map(action).collect::<Vec<_>>() })
}

/// In the order of what they were inferred from.
fn in_order(record: &Record) -> Vec<&RecordedInsight> {
    let place: HashMap<Uuid, usize> = record.messages.iter().enumerate().map(|(at, said)| (said.id, at)).collect();
    let mut insights: Vec<_> = record.insights.iter().collect();
    insights.sort_by_key(|it| {
        it.evidence.first().map(|RecordedEvidence(message, start, _)| (place.get(message).copied(), *start))
    });
    insights
}

fn of_kind<'a>(record: &'a Record, kind: &'a str) -> impl Iterator<Item = &'a RecordedInsight> {
    in_order(record).into_iter().filter(move |it| it.kind == kind)
}

fn question(record: &Record, it: &RecordedInsight) -> Value {
    json!({
        "id": it.id,
        "text": it.text,
        "type": it.kind,
        "score": score(it),
        "messageIds": message_ids(it),
        "from": from(record, it.from),
    })
}

/// An action item or a follow-up. What is not known is absent: strict decoders parse what is there.
fn task(record: &Record, it: &RecordedInsight) -> Value {
    let mut task = question(record, it);
    // A strict client reads a whole number there.
    if it.kind == "follow_up" {
        task["score"] = u8::from(it.confidence >= 500).into();
    }
    let mut entities = Vec::new();
    if let Some(due) = &it.due {
        task["dueBy"] = due.clone().into();
        entities.push(json!({ "type": "date", "text": due, "offset": 0, "value": due }));
    }
    if let Some(id) = it.assignee {
        let mut assignee = from(record, Some(id));
        task["assignee"] = assignee.clone();
        assignee["assignee"] = true.into();
        entities.push(json!({ "type": "person", "text": assignee["name"], "offset": 0, "value": assignee }));
    }
    task["definitive"] = it.assignee.is_some().into();
    task["entities"] = entities.into();
    task["phrases"] = json!([{ "type": "action_phrase", "text": it.text }]);
    task
}

fn from(record: &Record, id: Option<Uuid>) -> Value {
    let known = id.and_then(|id| record.members.iter().find(|it| it.id == id));
    known.map_or_else(|| json!({ "id": id, "name": "" }), member)
}

fn score(it: &RecordedInsight) -> f64 {
    f64::from(it.confidence) / 1_000.0
}

fn message_ids(it: &RecordedInsight) -> Vec<Uuid> {
    let mut ids: Vec<_> = it.evidence.iter().map(|RecordedEvidence(message, ..)| *message).collect();
    ids.dedup();
    ids
}

/// Messages by their ids, and the questions and tasks inferred from each.
struct Said<'a> {
    texts: HashMap<Uuid, &'a str>,
    insights: HashMap<Uuid, Vec<&'a RecordedInsight>>,
}

impl<'a> Said<'a> {
    fn of(record: &'a Record) -> Self {
        let mut insights: HashMap<Uuid, Vec<_>> = HashMap::new();
        for it in &record.insights {
            if matches!(it.kind.as_str(), "question" | "action_item" | "follow_up") {
                for RecordedEvidence(message, ..) in &it.evidence {
                    insights.entry(*message).or_default().push(it);
                }
            }
        }
        Self { texts: record.messages.iter().map(|said| (said.id, said.text.as_str())).collect(), insights }
    }

    fn message_ref(&self, &RecordedEvidence(message, start, _): &RecordedEvidence) -> Value {
        json!({ "id": message, "text": self.texts.get(&message).unwrap_or(&""), "offset": start })
    }

    fn insight_refs(&self, &RecordedEvidence(message, start, _): &RecordedEvidence) -> impl Iterator<Item = Value> {
        let same = self.insights.get(&message).into_iter().flatten();
        same.map(move |it| json!({ "id": it.id, "type": it.kind, "text": it.text, "offset": start }))
    }
}

fn member(member: &RecordedMember) -> Value {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    json!({
        "id": member.id,
        "name": text(&member.name),
        "email": text(&member.email),
        "userId": text(&member.user_id),
    })
}

fn iso(micros: u64) -> String {
    Timestamp(micros).iso8601()
}

fn seconds(from_us: u64, to_us: u64) -> f64 {
    Duration::from_micros(to_us.saturating_sub(from_us)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hearsay_bus::{Body, Entry};
    use hearsay_protocol::{
        EventId, Offset, ParticipantId, PublisherId, StreamId, StreamTime, UtteranceId,
        event::{Event, Evidence, Final, Insight, InsightBody, Participant, Started},
    };

    use super::*;
    use crate::summarizer::Failed;

    /// Anna asks, Bob is to do it.
    fn record() -> Record {
        let person = |n: u128, name: &str| {
            let id = ParticipantId(Uuid::from_u128(n));
            Arc::new(Participant { id, user_id: Some(name.to_lowercase()), name: Some(name.to_owned()), email: None })
        };
        let (anna, bob) = (person(1, "Anna"), person(2, "Bob"));
        let stream = StreamId(Uuid::from_u128(1));
        let says = |who: &Arc<Participant>, second: u64, text: &str| Final {
            sentiment: Vec::new(),
            trace: None,
            stream,
            utterance: UtteranceId::after_cut(stream, StreamTime(second)),
            participant: Arc::clone(who),
            origin: Timestamp(0),
            start: StreamTime(second * 1_000_000),
            end: StreamTime((second + 4) * 1_000_000),
            text: text.to_owned(),
            language: "en-US".to_owned(),
            confidence: 0.9,
            words: Vec::new(),
        };
        let (first, second) = (says(&anna, 1, "Can Bob buy a boat by Friday?"), says(&bob, 4, "A boat, why not?"));
        let found = |said: &Final, span: (u32, u32), text: &str, body: InsightBody| {
            let message = said.utterance.sentence(0);
            Event::Insight(Arc::new(Insight {
                id: EventId::of_insight(message, body.name(), u64::from(span.0)),
                revision: 0,
                retracted: false,
                confidence: 0.75,
                text: text.to_owned(),
                from: Some(Arc::clone(&said.participant)),
                evidence: vec![Evidence { message, start: span.0, end: span.1 }],
                body,
            }))
        };
        let tracker = || InsightBody::Tracker { tracker: "Boats".to_owned(), value: "boat".to_owned() };
        let due = Some("2026-03-13T00:00:00Z".to_owned());
        let events = [
            Event::Started(Started { at: Timestamp(0), title: "Weekly".to_owned() }),
            Event::Final(Arc::new(second.clone())),
            Event::Final(Arc::new(first.clone())),
            found(&second, (2, 6), "boat", tracker()),
            found(&first, (14, 18), "boat", tracker()),
            found(
                &first,
                (0, 29),
                "Can Bob buy a boat by Friday?",
                InsightBody::ActionItem { assignee: Some(Arc::clone(&bob)), due: due.clone() },
            ),
            found(&second, (0, 16), "A boat, why not?", InsightBody::Question),
            found(&second, (1, 16), "A boat, why not?", InsightBody::FollowUp { assignee: None, due: None }),
            found(
                &first,
                (22, 28),
                "Friday",
                InsightBody::Entity { kind: "date".to_owned(), value: "2026-03-13".to_owned() },
            ),
            found(
                &first,
                (14, 18),
                "boat",
                InsightBody::Entity { kind: "custom:Vessel".to_owned(), value: "Ada".to_owned() },
            ),
            found(&second, (0, 16), "A boat, why not?", InsightBody::Intent { intent: "question".to_owned() }),
        ];
        let entry = |(index, event)| Entry {
            offset: Offset(index as u64 + 1),
            check: 0,
            at: Timestamp::ZERO,
            id: EventId(Uuid::from_u128(1_000 + index as u128)),
            sequence: 0,
            publisher: PublisherId::Analyst,
            body: Body::Event(event),
        };
        let log: Vec<_> = events.into_iter().enumerate().map(entry).collect();
        Record::of(&log.iter().collect())
    }

    #[test]
    fn what_was_inferred_has_the_shapes_clients_parse() {
        let record = Record::parse(&record().to_bytes()).unwrap();
        let texts = |list: &Value| {
            list.as_array().unwrap().iter().map(|it| it["text"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let tasks = action_items(&record);
        let task = &tasks["actionItems"][0];
        assert_eq!((task["assignee"]["name"].as_str(), task["definitive"].as_bool()), (Some("Bob"), Some(true)));
        assert_eq!((task["dueBy"].as_str(), task["score"].as_f64()), (Some("2026-03-13T00:00:00Z"), Some(0.75)));
        assert_eq!(task["from"]["userId"], "anna");
        let later = &follow_ups(&record)["followUps"][0];
        assert!(later["score"].is_u64() && later.get("dueBy").is_none() && later.get("assignee").is_none(), "{later}");
        assert_eq!(texts(&questions(&record)["questions"]), ["A boat, why not?"]);
        assert_eq!(
            texts(&insights(&record)["insights"]),
            ["Can Bob buy a boat by Friday?", "A boat, why not?", "A boat, why not?"],
            "in the order of what was said"
        );

        let trackers = trackers(&record);
        let [tracker] = &trackers.as_array().unwrap()[..] else { panic!("{trackers}") };
        let [matched] = &tracker["matches"].as_array().unwrap()[..] else { panic!("{trackers}") };
        assert_eq!((tracker["name"].as_str(), matched["value"].as_str()), (Some("Boats"), Some("boat")));
        assert_eq!(texts(&matched["messageRefs"]), ["Can Bob buy a boat by Friday?", "A boat, why not?"]);
        assert_eq!(matched["messageRefs"][1]["offset"], 2);
        assert_eq!(matched["insightRefs"].as_array().unwrap().len(), 3);

        let intents = intents(&record);
        assert_eq!(texts(&intents["intents"]), ["A boat, why not?"]);
        let intent = &intents["intents"][0];
        assert_eq!((intent["intent"].as_str(), intent["from"]["name"].as_str()), (Some("question"), Some("Bob")));
        assert_eq!((intent["messageIds"].as_array().unwrap().len(), &intent["evidence"][0]["end"]), (1, &json!(16)));

        let entities = entities(&record);
        let of = |kind: &str| {
            entities["entities"].as_array().unwrap().iter().find(|it| it["type"] == kind).cloned().unwrap()
        };
        let custom = of("custom");
        assert_eq!((&custom["customType"], &custom["value"]), (&json!("Vessel"), &json!("Ada")));
        let entity = of("date");
        assert_eq!(entity["value"], "2026-03-13");
        assert_eq!(entity["messageRefs"], entity["matches"][0]["messageRefs"]);
        assert_eq!(topics(&record), json!({ "topics": [] }));
        assert_eq!(members(&record)["members"][1]["name"], "Bob");
    }

    #[test]
    fn talk_is_counted_in_seconds_and_percent() {
        let found = analytics(&record());
        let metric = |name: &str| {
            let metrics = found["metrics"].as_array().unwrap();
            metrics.iter().find(|it| it["type"] == name).unwrap()["seconds"].as_f64().unwrap()
        };
        assert_eq!((metric("total_silence"), metric("total_talk_time"), metric("total_overlap")), (1.0, 7.0, 1.0));
        let [anna, bob] = &found["members"].as_array().unwrap()[..] else { panic!("{found}") };
        assert_eq!((anna["talkTime"]["seconds"].as_f64(), anna["pace"]["wpm"].as_f64()), (Some(4.0), Some(105.0)));
        assert_eq!(bob["listenTime"]["seconds"], 3.0);
        assert_eq!((bob["interruptions"].as_u64(), anna["interruptions"].as_u64()), (Some(1), Some(0)));
        assert_eq!(anna["overlap"]["overlappingMembers"][0]["userId"], "bob");
        assert!(analytics(&Record::of(&Conversation::default()))["members"].as_array().unwrap().is_empty());
    }

    #[test]
    fn a_summary_is_what_was_said_with_its_messages() {
        let record = record();
        let id = ConversationId::from_random(7);
        let found = summary(id, &record, None);
        let told = found["summary"].as_array().unwrap();
        assert_eq!(
            (told[0]["text"].as_str(), &found["origin"]),
            (Some("Can Bob buy a boat by Friday?"), &json!("local"))
        );
        assert_eq!(told[0]["messageRefs"], json!([{ "id": record.messages[0].id }]));
        let nothing = Record::of(&Conversation::default());
        assert_eq!(summary(id, &nothing, None), json!({ "summary": [], "origin": "local" }));
        let failed = summary(id, &record, Some(("small", Err(Failed::Late))));
        assert_eq!((&failed["summary"], &failed["fallback"]), (&found["summary"], &json!("late")));
        let written = Arc::new(vec!["Bob buys a boat.".to_owned()]);
        let external = summary(id, &record, Some(("small", Ok(written))));
        assert_eq!((&external["origin"], &external["model"]), (&json!("external"), &json!("small")));
        assert_eq!(external["summary"][0]["text"], "Bob buys a boat.");
    }

    #[test]
    fn what_was_sent_is_shown_without_addresses_and_contents() {
        use hearsay_conversation::{Attempt, SendingState, Way};
        let mut later = Sending {
            event: Uuid::from_u128(1),
            kind: "conversation.ended".to_owned(),
            way: Way::Mail,
            rule: "minutes".to_owned(),
            to: "anna@example.com".to_owned(),
            put_us: 2_000_000,
            state: SendingState::Waiting,
            next_us: None,
            attempts: 0,
            latest: Vec::new(),
            body: Some("what was said".to_owned()),
        };
        let earlier = Sending { put_us: 1_000_000, rule: "other".to_owned(), ..later.clone() };
        let attempt = Attempt { at_us: 3_000_000, took_ms: 7, status: Some(451), answer: "later".to_owned() };
        later.tried(attempt, SendingState::Waiting, Some(4_000_000));
        let shown = actions([earlier, later].into_iter());
        assert_eq!(
            shown["actions"][0],
            json!({
                "eventId": Uuid::from_u128(1), "event": "conversation.ended", "type": "mail", "rule": "minutes",
                "to": "a***@example.com", "since": "1970-01-01T00:00:02.000Z", "state": "waiting",
                "nextAttempt": "1970-01-01T00:00:04.000Z", "attempts": 1,
                "latest": [{ "at": "1970-01-01T00:00:03.000Z", "ms": 7, "status": 451, "answer": "later" }],
            })
        );
        assert_eq!(shown["actions"][1]["rule"], "other");
        assert!(!shown.to_string().contains("what was said"));
    }
}
