//! What leaves comes back the same; what means nothing is refused with the field's name, never with a panic.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use hearsay_protocol::{
    AccountId, AudioFormat, ChunkNumber, ConversationId, ConversationKey, Encoding, Epoch, Event, EventId, GatewayId,
    Generation, MeetingId, MeetingKey, Offset, ParticipantId, Position, Restart, Seen, StreamId, StreamTime, Timestamp,
    UtteranceId,
    event::{
        Analytics, ConfigChanged, CustomEntity, Earlier, EndReason, Ended, Ephemeral, Evidence, Final, History,
        Insight, InsightBody, OpenTask, Partial, Participant, Redaction, SpeakerConfig, SpokenWord, Started, StreamEnd,
        StreamEnded, StreamStarted, Talked, Tracked, Tracker, Warning,
    },
};
use hearsay_rpc::{Ack, Health, Marker, MarkerKind, Open, Request, Response, Signal, SignalKind, decode, encode, v1};
use proptest::{collection::vec, option, prelude::*};
use prost::Message;
use uuid::Uuid;

fn uuid() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(Uuid::from_u128)
}

fn text() -> impl Strategy<Value = String> {
    vec(any::<char>(), 0..6).prop_map(|chars| chars.into_iter().collect())
}

fn spoken() -> impl Strategy<Value = String> {
    vec(any::<char>(), 1..9).prop_map(|chars| chars.into_iter().collect())
}

fn name() -> impl Strategy<Value = String> {
    vec(any::<char>().prop_filter("printable", |it| !it.is_control()), 1..9)
        .prop_map(|chars| chars.into_iter().collect())
}

fn at() -> impl Strategy<Value = u64> {
    0..1_u64 << 60
}

fn time() -> impl Strategy<Value = StreamTime> {
    at().prop_map(StreamTime)
}

fn fraction() -> impl Strategy<Value = f32> {
    0.0..=1.0_f32
}

fn participant() -> impl Strategy<Value = Arc<Participant>> {
    (uuid(), option::of(text()), option::of(text()), option::of(text()))
        .prop_map(|(id, user_id, name, email)| Arc::new(Participant { id: ParticipantId(id), user_id, name, email }))
}

fn format() -> impl Strategy<Value = AudioFormat> {
    (0..4_usize, 8_000..=48_000_u32).prop_map(|(encoding, rate)| {
        let encoding = Encoding::ALL[encoding];
        let (low, high) = encoding.rates();
        AudioFormat::new(encoding, rate.clamp(low, high)).unwrap()
    })
}

fn config() -> impl Strategy<Value = SpeakerConfig> {
    let tracker = (option::of(text()), text(), vec(text(), 0..3)).prop_map(|(id, name, vocabulary)| Tracker {
        id,
        name,
        vocabulary,
    });
    let redaction = (any::<bool>(), any::<bool>(), text()).prop_map(|(identify, redact, replacement)| Redaction {
        identify,
        redact,
        replacement,
    });
    (
        (format(), text(), vec(text(), 0..3), vec(text(), 0..3), fraction(), any::<i32>()),
        (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>()),
        (vec(tracker, 0..3), option::of(redaction), option::of(text()), vec((text(), text(), text()), 0..3)),
    )
        .prop_map(
            |(
                (format, language, vocabulary, insight_types, threshold, zone),
                flags,
                (trackers, redaction, time_zone, entities),
            )| {
                let entity = |(custom_type, value, text)| CustomEntity { custom_type, value, text };
                SpeakerConfig {
                    format,
                    language,
                    vocabulary,
                    insight_types,
                    confidence_threshold: threshold,
                    timezone_offset_min: zone,
                    time_zone,
                    sentiment: flags.0,
                    detect_entities: flags.1,
                    entities: entities.into_iter().map(entity).collect(),
                    trackers,
                    tracker_interim_results: flags.2,
                    enable_all_trackers: flags.3,
                    redaction,
                }
            },
        )
}

fn insight() -> impl Strategy<Value = Insight> {
    let person = || option::of(participant());
    let body = prop_oneof![
        Just(InsightBody::Question),
        (person(), option::of(text())).prop_map(|(assignee, due)| InsightBody::ActionItem { assignee, due }),
        (person(), option::of(text())).prop_map(|(assignee, due)| InsightBody::FollowUp { assignee, due }),
        (text(), vec(text(), 0..3)).prop_map(|(phrase, root_words)| InsightBody::Topic { phrase, root_words }),
        (text(), text()).prop_map(|(tracker, value)| InsightBody::Tracker { tracker, value }),
        (text(), text()).prop_map(|(kind, value)| InsightBody::Entity { kind, value }),
        text().prop_map(|intent| InsightBody::Intent { intent }),
    ];
    let evidence =
        (uuid(), any::<u32>(), any::<u32>()).prop_map(|(message, start, end)| Evidence { message, start, end });
    ((uuid(), any::<u32>(), any::<bool>(), fraction(), text()), person(), vec(evidence, 0..3), body).prop_map(
        |((id, revision, retracted, confidence, text), from, evidence, body)| Insight {
            id: EventId(id),
            revision,
            retracted,
            confidence,
            text,
            from,
            evidence,
            body,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let started = (any::<u64>(), text()).prop_map(|(at, title)| Started { at: Timestamp(at), title });
    let stream_started = ((uuid(), participant(), uuid(), config()), (any::<u64>(), any::<bool>(), any::<u64>()))
        .prop_map(|((stream, participant, gateway, config), (origin, recorded, linger))| StreamStarted {
            stream: StreamId(stream),
            participant,
            gateway: GatewayId(gateway),
            config,
            origin: Timestamp(origin),
            recorded,
            no_connection_timeout: Duration::from_micros(linger),
        });
    let stream_ended = (uuid(), option::of(any::<u64>())).prop_map(|(stream, linger)| StreamEnded {
        stream: StreamId(stream),
        how: match linger {
            Some(linger) => StreamEnd::Stopped { linger: Duration::from_micros(linger) },
            None => StreamEnd::Lost,
        },
    });
    let word = (text(), any::<u64>(), any::<u64>(), fraction()).prop_map(|(text, start, end, confidence)| SpokenWord {
        text,
        start: StreamTime(start),
        end: StreamTime(end),
        confidence,
    });
    let spoken_final = (
        (uuid(), uuid(), participant()),
        (any::<u64>(), any::<u64>(), any::<u64>()),
        (spoken(), text(), fraction(), vec(word, 0..4)),
    )
        .prop_map(
            |((stream, utterance, participant), (origin, start, end), (text, language, confidence, words))| Final {
                sentiment: vec![confidence, -confidence],
                trace: None,
                stream: StreamId(stream),
                utterance: UtteranceId(utterance),
                participant,
                origin: Timestamp(origin),
                start: StreamTime(start),
                end: StreamTime(end),
                text,
                language,
                confidence,
                words,
            },
        );
    let reason = prop_oneof![Just(EndReason::Stopped), Just(EndReason::Abandoned), Just(EndReason::Silence)];
    prop_oneof![
        started.prop_map(Event::Started),
        participant().prop_map(Event::Joined),
        participant().prop_map(Event::Left),
        stream_started.prop_map(|it| Event::StreamStarted(Arc::new(it))),
        (uuid(), config())
            .prop_map(|(id, config)| Event::ConfigChanged(Arc::new(ConfigChanged { stream: StreamId(id), config }))),
        stream_ended.prop_map(Event::StreamEnded),
        spoken_final.prop_map(|it| Event::Final(Arc::new(it))),
        insight().prop_map(|it| Event::Insight(Arc::new(it))),
        (any::<u64>(), reason).prop_map(|(at, reason)| Event::Ended(Ended { at: Timestamp(at), reason })),
    ]
}

fn ephemeral() -> impl Strategy<Value = Ephemeral> {
    let partial = (
        (uuid(), uuid(), any::<u32>(), participant()),
        (any::<u64>(), any::<u64>(), any::<u64>()),
        (spoken(), any::<prop::sample::Index>(), fraction()),
    )
        .prop_map(
            |((stream, utterance, revision, participant), (origin, start, end), (text, stable, confidence))| {
                let mut stable = stable.index(text.len() + 1);
                while !text.is_char_boundary(stable) {
                    stable -= 1;
                }
                Partial {
                    stream: StreamId(stream),
                    utterance: UtteranceId(utterance),
                    revision,
                    participant,
                    origin: Timestamp(origin),
                    start: StreamTime(start),
                    end: StreamTime(end),
                    text,
                    stable,
                    confidence,
                }
            },
        );
    prop_oneof![
        partial.prop_map(|it| Ephemeral::Partial(Arc::new(it))),
        (participant(), uuid(), any::<bool>()).prop_map(|(participant, stream, speaking)| Ephemeral::Speaking {
            participant,
            stream: StreamId(stream),
            speaking
        }),
        (uuid(), any::<u32>()).prop_map(|(gateway, count)| Ephemeral::Listeners { gateway: GatewayId(gateway), count }),
        (vec((participant(), any::<u64>(), fraction(), fraction(), any::<u32>()), 0..4), any::<u64>(), any::<u64>())
            .prop_map(|(speakers, silence_ms, overlap_ms)| {
                let talked = |(participant, talk_ms, ratio, wpm, interruptions)| Talked {
                    participant,
                    talk_ms,
                    ratio,
                    wpm,
                    interruptions,
                };
                let speakers = speakers.into_iter().map(talked).collect();
                Ephemeral::Analytics(Arc::new(Analytics { speakers, silence_ms, overlap_ms }))
            }),
        (participant(), vec(earlier(), 0..4)).prop_map(|(participant, conversations)| {
            Ephemeral::History(Arc::new(History { participant, conversations }))
        }),
        (uuid(), text(), text(), text(), any::<u32>(), any::<u32>()).prop_map(
            |(utterance, tracker, value, text, start, end)| {
                let utterance = UtteranceId(utterance);
                Ephemeral::Tracked(Arc::new(Tracked { utterance, tracker, value, text, start, end }))
            }
        ),
        (uuid(), text()).prop_map(|(participant, details)| {
            Ephemeral::Warning(Arc::new(Warning { participant: ParticipantId(participant), details }))
        }),
    ]
}

fn earlier() -> impl Strategy<Value = Earlier> {
    let task = (text(), option::of(text()), option::of(text())).prop_map(|(text, assignee, due)| OpenTask {
        text,
        assignee,
        due,
    });
    (any::<u64>(), text(), any::<u64>(), vec(text(), 0..4), vec(text(), 0..4), vec(task, 0..4)).prop_map(
        |(conversation, title, started, topics, summary, open)| Earlier {
            conversation: ConversationId::from_random(conversation),
            title,
            started: Timestamp(started),
            topics,
            summary,
            open,
        },
    )
}

fn restart() -> impl Strategy<Value = Restart> {
    (any::<u64>(), time(), at(), format(), vec(any::<u8>(), 0..9)).prop_map(
        |(chunk, at, bytes_before, format, headers)| Restart {
            chunk: ChunkNumber(chunk),
            at,
            bytes_before,
            format,
            headers: headers.into(),
        },
    )
}

fn seen() -> impl Strategy<Value = Seen> {
    (option::of(any::<u32>()), any::<u64>(), option::of(any::<u64>())).prop_map(|(epoch, offset, check)| Seen {
        epoch: epoch.map(Epoch),
        offset: Offset(offset),
        check,
    })
}

fn open() -> impl Strategy<Value = Open> {
    (
        (name(), name(), any::<u64>(), uuid(), participant(), config()),
        (any::<u64>(), time(), option::of(restart()), at(), any::<bool>(), any::<bool>(), seen()),
    )
        .prop_map(
            |(
                (account, meeting, conversation, stream, participant, config),
                (generation, watermark, restart, origin, recorded, first, seen),
            )| Open {
                key: ConversationKey {
                    meeting: MeetingKey {
                        account: AccountId::new(&account).unwrap(),
                        meeting: MeetingId::new(&meeting).unwrap(),
                    },
                    conversation: ConversationId::from_random(conversation),
                },
                stream: StreamId(stream),
                participant,
                config,
                generation: Generation(generation),
                watermark,
                restart,
                origin: Timestamp(origin),
                recorded,
                first,
                seen,
            },
        )
}

fn request() -> impl Strategy<Value = Request> {
    let kind = prop_oneof![
        text().prop_map(MarkerKind::Finalize),
        config().prop_map(|it| MarkerKind::Config(Box::new(it))),
        time().prop_map(MarkerKind::Reanchor),
        Just(MarkerKind::End),
    ];
    prop_oneof![
        open().prop_map(|it| Request::Open(Box::new(it))),
        (any::<u64>(), vec(any::<u8>(), 0..9))
            .prop_map(|(number, data)| Request::Chunk { number: ChunkNumber(number), data: Bytes::from(data) }),
        (any::<u64>(), kind).prop_map(|(chunk, kind)| Request::Marker(Marker { chunk: ChunkNumber(chunk), kind })),
    ]
}

fn response() -> impl Strategy<Value = Response> {
    let position = || {
        (any::<u32>(), any::<u64>())
            .prop_map(|(epoch, offset)| Position { epoch: Epoch(epoch), offset: Offset(offset) })
    };
    let signal = prop_oneof![
        Just(SignalKind::Stable),
        Just(SignalKind::Pause),
        Just(SignalKind::UtteranceEnd),
        Just(SignalKind::SpeechStart),
    ];
    prop_oneof![
        Just(Response::Opened),
        (any::<u64>(), time(), restart(), seen(), any::<u64>(), option::of(time()), vec(event(), 0..3)).prop_map(
            |(chunk, through, restart, top, finals, from, events)| {
                Response::Ack(Ack { through_chunk: ChunkNumber(chunk), through, restart, top, finals, from, events })
            }
        ),
        (text(), position()).prop_map(|(id, position)| Response::Finalized { id, position }),
        position().prop_map(|position| Response::Ended { position }),
        (time(), time(), fraction(), any::<u32>(), 0.0..99.0_f32).prop_map(
            |(heard, covered, speech, ladder, factor)| {
                Response::Health(Health { heard, covered, speech, ladder, realtime_factor: factor })
            }
        ),
        (signal, time(), uuid()).prop_map(|(kind, at, id)| Response::Signal(Signal {
            kind,
            at,
            utterance: UtteranceId(id)
        })),
    ]
}

/// Through the bytes of the wire and back.
fn over_the_wire<Wire: Message + Default>(message: Wire) -> Wire {
    Wire::decode(message.encode_to_vec().as_slice()).unwrap()
}

proptest! {
    #[test]
    fn events_come_back_from_the_log(event in event()) {
        prop_assert_eq!(decode(&encode(&event)).unwrap(), event);
    }

    #[test]
    fn ephemerals_come_back(ephemeral in ephemeral()) {
        let back: Ephemeral = over_the_wire(v1::EphemeralEvent::from(&ephemeral)).try_into().unwrap();
        prop_assert_eq!(back, ephemeral);
    }

    #[test]
    fn requests_come_back(request in request()) {
        let back: Request = over_the_wire(v1::RecognizeRequest::from(request.clone())).try_into().unwrap();
        prop_assert_eq!(back, request);
    }

    #[test]
    fn responses_come_back(response in response()) {
        let back: Response = over_the_wire(v1::RecognizeResponse::from(response.clone())).try_into().unwrap();
        prop_assert_eq!(back, response);
    }

    /// Bytes of an event with some of them changed decode to something or are refused.
    #[test]
    fn damaged_bytes_never_panic(event in event(), open in open(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut stored = encode(&event).to_vec();
        let place = at.index(stored.len());
        stored[place] = byte;
        let _ = decode(&stored);
        let _ = decode(&stored[..place]);
        let mut request = v1::RecognizeRequest::from(Request::Open(Box::new(open))).encode_to_vec();
        let place = at.index(request.len());
        request[place] = byte;
        if let Ok(request) = v1::RecognizeRequest::decode(request.as_slice()) {
            let _ = Request::try_from(request);
        }
    }
}

#[test]
fn a_final_keeps_its_trace_and_loses_nothing_over_one_that_is_none() {
    let untraced = v1::Final {
        stream: vec![0; 16],
        utterance: vec![0; 16],
        participant: Some(v1::Participant { id: vec![0; 16], ..Default::default() }),
        text: "so".into(),
        ..Default::default()
    };
    let plain = Final::try_from(untraced.clone()).unwrap();
    assert_eq!(plain.trace, None);
    assert_eq!(
        v1::Final::from(&plain).encoded_len(),
        untraced.encoded_len(),
        "what is not traced stores nothing of it"
    );
    let bytes: Vec<u8> = (1..=24).collect();
    let traced = Final::try_from(v1::Final { trace: Some(bytes.clone()), ..untraced.clone() }).unwrap();
    assert_eq!(traced.trace.map(|trace| trace.to_bytes().to_vec()), Some(bytes.clone()));
    assert_eq!(v1::Final::from(&traced).trace, Some(bytes));
    for wrong in [Vec::new(), vec![1; 23], vec![0; 24]] {
        assert_eq!(Final::try_from(v1::Final { trace: Some(wrong), ..untraced.clone() }).unwrap(), plain);
    }
}

fn refused<T: std::fmt::Debug>(field: &str, result: Result<T, hearsay_rpc::Malformed>) {
    assert_eq!(result.unwrap_err().field, field);
}

#[test]
fn a_message_that_means_nothing_is_refused_with_the_field() {
    let spoken = v1::Final {
        stream: vec![0; 16],
        utterance: vec![0; 16],
        participant: Some(v1::Participant { id: vec![0; 16], ..Default::default() }),
        text: "so".into(),
        ..Default::default()
    };
    Final::try_from(spoken.clone()).unwrap();
    refused("Final.stream", Final::try_from(v1::Final { stream: vec![0; 15], ..spoken.clone() }));
    refused("Final.participant", Final::try_from(v1::Final { participant: None, ..spoken.clone() }));
    refused("Final.text", Final::try_from(v1::Final { text: String::new(), ..spoken.clone() }));
    refused("Final.confidence", Final::try_from(v1::Final { confidence: f32::NAN, ..spoken }));
    refused("LogEvent.event", Event::try_from(v1::LogEvent { event: None }));
    refused("RecognizeRequest.request", Request::try_from(v1::RecognizeRequest { request: None }));
    let format = v1::AudioFormat { encoding: 1, sample_rate_hz: 7 };
    refused("AudioFormat.sample_rate_hz", AudioFormat::try_from(format));
    refused("AudioFormat.encoding", AudioFormat::try_from(v1::AudioFormat { encoding: 9, sample_rate_hz: 16_000 }));
    let partial = v1::Partial {
        stream: vec![0; 16],
        utterance: vec![0; 16],
        participant: Some(v1::Participant { id: vec![0; 16], ..Default::default() }),
        text: "é".into(),
        stable_bytes: 1,
        ..Default::default()
    };
    refused("Partial.stable_bytes", Partial::try_from(partial));
    let headers = v1::Restart { headers: vec![0; 16 * 1024 + 1].into(), ..Default::default() };
    refused("Restart.headers", Restart::try_from(headers));
}
