//! A script of inputs, and what must come of it. The answers to starts and stops come as the driver would give them.

use hearsay_protocol::{ChunkNumber, Epoch, Offset, StreamTime, UtteranceId};
use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A session, a clock, and somebody who carries out its effects.
struct Pair {
    session: Session,
    now: Instant,
    seen: Vec<String>,
    /// The next starts fail so.
    fail: Option<StartFailure>,
    /// Answers to starts and stops wait for `answer`.
    hold: bool,
    /// Recognizers do not keep up.
    incomplete: bool,
    waiting: VecDeque<Input>,
    streams: u64,
    /// The next starts go on so.
    resumed: Option<Resumed>,
}

impl Pair {
    fn new(rights: Rights, source: Source) -> Self {
        let limits = Limits {
            open_idle: 1_800 * SECOND,
            close_grace: SECOND,
            pace_burst: 30 * SECOND,
            requests_burst: 50,
            requests_per_second: 5,
            token_grace: 30 * SECOND,
            trackers: [Tracker { id: None, name: "Price".to_owned(), vocabulary: vec!["price".to_owned()] }].into(),
        };
        let now = Instant::now();
        let session = Session::new(limits, rights, source, now);
        Self {
            session,
            now,
            seen: Vec::new(),
            fail: None,
            hold: false,
            incomplete: false,
            waiting: VecDeque::new(),
            streams: 0,
            resumed: None,
        }
    }

    fn give(&mut self, input: Input) {
        let mut effects = VecDeque::new();
        self.session.handle(input, self.now, &mut effects);
        for effect in effects {
            self.carry_out(effect);
        }
        while !self.hold
            && let Some(answer) = self.waiting.pop_front()
        {
            self.give(answer);
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        self.seen.push(name(&effect));
        match effect {
            Effect::Start(_) => {
                self.streams += 1;
                let answer = match self.fail.clone() {
                    Some(failure) => Err(failure),
                    None => Ok(Started {
                        conversation: ConversationId::from_random(1),
                        stream: StreamId(Uuid::from_u128(self.streams.into())),
                        trace: TraceId([1; 16]),
                        resume: "token".to_owned(),
                        resumed: self.resumed,
                    }),
                };
                self.waiting.push_back(Input::Started(answer));
            }
            Effect::Finish(_) | Effect::Part => self.waiting.push_back(Input::Finished { complete: !self.incomplete }),
            _ => {}
        }
    }

    /// One step of a script.
    fn step(&mut self, step: &str) {
        let (word, rest) = step.split_once(' ').unwrap_or((step, ""));
        match word {
            "start" => {
                let extra = if rest.is_empty() { String::new() } else { format!(",{rest}") };
                self.text(&format!(r#"{{"type":"start_request"{extra}}}"#));
            }
            "text" => self.text(rest),
            "audio" => self.give(Input::Audio(Bytes::from(vec![0; rest.parse().unwrap()]))),
            "stop" => self.text("{'type': 'stop_request'}"),
            "ping" => self.text("__PING__"),
            "ws-ping" => self.give(Input::Ping(Bytes::from_static(b"x"))),
            "wait" => {
                self.now += Duration::from_millis(rest.parse().unwrap());
                if self.session.deadline().is_some_and(|deadline| deadline <= self.now) {
                    self.give(Input::Tick);
                }
            }
            "close" => self.give(Input::Closed(rest.parse().ok())),
            "lost" => self.give(Input::Lost),
            // In ten seconds at the latest.
            "drain" => self.give(Input::Drain { until: self.now + 10 * SECOND }),
            "speech" => self.give(Input::Stream(UplinkEvent::Signal(Signal {
                kind: match rest {
                    "starts" => SignalKind::SpeechStart,
                    "pauses" => SignalKind::Pause,
                    "ends" => SignalKind::UtteranceEnd,
                    other => panic!("{other}"),
                },
                at: StreamTime(0),
                utterance: UtteranceId(Uuid::from_u128(1)),
            }))),
            "ended" => self.give(Input::ConversationEnded),
            "oversize" => {
                let error = ClientError::new(ErrorCode::TooLarge, "");
                self.give(Input::Violation(CloseCode::TooLarge, error));
            }
            "full" => self.fail = Some(StartFailure::Overloaded { retry_after: SECOND }),
            "unavailable" => self.fail = Some(StartFailure::Unavailable(String::new())),
            "unsupported" => self.fail = Some(StartFailure::Unsupported(rest.to_owned())),
            "well" => self.fail = None,
            "hold" => self.hold = true,
            "behind" => self.incomplete = true,
            "resumes" => {
                let behind = Duration::from_secs(rest.parse().unwrap());
                let format = AudioFormat::new(Encoding::Linear16, 8_000).unwrap();
                self.resumed = Some(Resumed { chunk: ChunkNumber(7), format, behind });
            }
            "no-resume" => {
                self.fail = Some(StartFailure::NoResume(ClientError::new(ErrorCode::InvalidRequest, "hearsay.resume")));
            }
            "renewed" => self.give(Input::ResumeRenewed(String::new())),
            "good" => {
                let until = self.now + Duration::from_secs(rest.parse().unwrap());
                self.give(Input::TokenChecked(Ok(Rights { publish: true, recorded: true, until })));
            }
            "answer" => {
                self.hold = false;
                let answers: Vec<_> = self.waiting.drain(..).collect();
                answers.into_iter().for_each(|answer| self.give(answer));
            }
            "acked" => {
                let chunk = ChunkNumber(rest.parse().unwrap());
                let restart = ChunkNumber(chunk.0.saturating_sub(1));
                self.give(Input::Stream(UplinkEvent::Acked { chunk, restart, through: StreamTime(chunk.0 * 1_000) }));
            }
            "finalized" => {
                let position = Position { epoch: Epoch(1), offset: Offset(2) };
                self.give(Input::Stream(UplinkEvent::Finalized { id: rest.to_owned(), position }));
            }
            "health" => self.give(Input::Stream(UplinkEvent::Health(Health {
                heard: StreamTime(0),
                covered: StreamTime(0),
                speech: 0.0,
                ladder: rest.parse().unwrap(),
                realtime_factor: 0.0,
            }))),
            "failed" => self.give(Input::Stream(UplinkEvent::Failed(match rest {
                "stalled" => UplinkError::Stalled(SECOND),
                "fenced" => UplinkError::Fenced,
                "ended" => UplinkError::Refused(Refusal::Ended),
                "unsupported" => UplinkError::Unsupported("encoding FLAC".to_owned()),
                "misnamed" => UplinkError::Unsupported("audio is not FLAC: a WAV file came".to_owned()),
                _ => UplinkError::Broken(String::new()),
            }))),
            other => panic!("{other}"),
        }
    }

    fn text(&mut self, text: &str) {
        self.give(Input::Message(ClientMessage::parse(text)));
    }
}

fn name(effect: &Effect) -> String {
    match effect {
        Effect::Configure { config, told } => {
            let told: Vec<String> = told.iter().map(said).collect();
            format!("configure:{}({})", config.format, told.join(","))
        }
        Effect::Send(reply) => said(reply),
        Effect::Start(_) => "start".to_owned(),
        Effect::Join => "join".to_owned(),
        Effect::Opt(_) => "opt".to_owned(),
        Effect::Audio(chunk) => format!("audio{}", chunk.len()),
        Effect::Finalize(id) => format!("finalize:{id}"),
        Effect::Finish(StreamEnd::Stopped { linger }) => format!("finish:stopped:{}", linger.as_secs()),
        Effect::Finish(StreamEnd::Lost) => "finish:lost".to_owned(),
        Effect::Part => "part".to_owned(),
        Effect::CheckToken(_) => "check".to_owned(),
        Effect::Close(code) => format!("close:{}", code.code().map_or("empty".to_owned(), |code| code.to_string())),
        Effect::Hangup => "hangup".to_owned(),
        Effect::Pong(_) => "ws-pong".to_owned(),
    }
}

fn said(reply: &Reply) -> String {
    match reply {
        Reply::StartedListening => "listening".to_owned(),
        Reply::ConversationCreated(_) => "created".to_owned(),
        Reply::RecognitionStarted(_) => "recognizing".to_owned(),
        Reply::RecognitionStopped => "stopped".to_owned(),
        Reply::ConversationCompleted(_) => "completed".to_owned(),
        Reply::SessionModified(_) => "modified".to_owned(),
        Reply::Pong => "pong".to_owned(),
        Reply::Error { error, .. } => format!("error:{}", error.code.name()),
        Reply::AudioAck(ack) => format!("ack:{}", ack.chunk.0),
        Reply::Resumed { chunk } => format!("resumed:{}", chunk.0),
        Reply::ResumeToken { .. } => "resume".to_owned(),
        Reply::Finalized { id, .. } => format!("finalized:{id}"),
        Reply::Health { health, .. } => format!("health:{}", health.ladder),
        Reply::Signal(_) => "signal".to_owned(),
    }
}

/// For a day.
fn rights(publish: bool, recorded: bool) -> Rights {
    Rights { publish, recorded, until: Instant::now() + 86_400 * SECOND }
}

fn all() -> Rights {
    rights(true, true)
}

const START: &str = "start listening created recognizing join";

/// Runs a script of steps, each ended by `;`. In what is expected, `START` stands for everything a start brings.
#[track_caller]
fn check(script: &str, expected: &str) {
    check_as(all(), Source::Other, script, expected);
}

#[track_caller]
fn check_as(rights: Rights, source: Source, script: &str, expected: &str) {
    let mut pair = Pair::new(rights, source);
    for step in script.split(';') {
        pair.step(step.trim());
    }
    assert_eq!(pair.seen.join(" "), expected.replace("START", START), "{script}");
}

#[test]
fn who_asks_for_all_trackers_has_those_of_the_account() {
    let mut pair = Pair::new(all(), Source::Other);
    let own =
        r#"start "config":{"trackers":{"enableAllTrackers":true}},"trackers":[{"name":"Boat","vocabulary":["boat"]}]"#;
    pair.step(own);
    let named = |pair: &Pair| -> Vec<String> {
        let Phase::Listening(live) = &pair.session.phase else { panic!("{:?}", pair.session.phase) };
        live.start.config.trackers.iter().map(|it| it.name.clone()).collect()
    };
    assert_eq!(named(&pair), ["Boat", "Price"]);
    pair.step(r#"text {"type":"update_request","trackers":[{"name":"Price","vocabulary":["fee"]}]}"#);
    assert_eq!(named(&pair), ["Price"], "one's own before the account's");
    pair.step(r#"text {"type":"update_request","trackers":[]}"#);
    assert_eq!(named(&pair), ["Price"]);
}

#[test]
fn a_start_is_answered_by_the_three_messages_in_order() {
    check("start", "START");
    check(r#"start "hearsay":{"ack":true}"#, "start listening created recognizing resume join");
}

#[test]
fn a_second_start_changes_the_configuration_and_opens_nothing() {
    check("start; start", "START listening created recognizing");
    check(
        r#"start; start "config":{"speechRecognition":{"sampleRateHertz":8000}}"#,
        "START configure:LINEAR16@8000(listening,created,recognizing)",
    );
    check(r#"start; start "hearsay":{"presence":true}"#, "START opt listening created recognizing");
    check(r#"start; start "noConnectionTimeout":30"#, "START opt listening created recognizing");
    check(r#"start; start "hearsay":{"ack":true}; acked 3"#, "START opt listening created recognizing resume ack:3");
}

#[test]
fn audio_is_heard_from_the_start_request_on_and_dropped_before() {
    check("audio 7; start; audio 3; audio 0; audio 5", "START audio3 audio5");
    check("hold; start; audio 3; audio 4; stop; answer", "START audio3 audio4 finish:stopped:0 completed stopped");
}

#[test]
fn a_stop_flushes_then_ends_then_closes() {
    check("start; audio 3; stop", "START audio3 finish:stopped:0 completed stopped");
    check("behind; start; stop; wait 1000", "START finish:stopped:0 error:overloaded completed stopped close:1000");
    check("behind; start; lost", "START finish:lost hangup");
    check("start; stop; wait 999", "START finish:stopped:0 completed stopped");
    check("start; stop; wait 1000", "START finish:stopped:0 completed stopped close:1000");
    check("start; stop; close 1000; wait 1000", "START finish:stopped:0 completed stopped hangup");
    check("start; stop; ping; audio 3; stop; start", "START finish:stopped:0 completed stopped pong");
    check_as(all(), Source::Web, "start; stop", "START finish:stopped:0 stopped completed");
    check(
        r#"start "disconnectOnStopRequest":false,"disconnectOnStopRequestTimeout":0; stop"#,
        &["START finish:stopped:0 completed stopped"].concat(),
    );
}

#[test]
fn a_socket_that_stays_may_start_again() {
    check(
        r#"start "disconnectOnStopRequest":false,"disconnectOnStopRequestTimeout":20; stop; audio 3; ping; start; stop"#,
        "START finish:stopped:20 stopped completed pong START finish:stopped:0 completed stopped",
    );
    check(
        r#"start "disconnectOnStopRequest":false,"disconnectOnStopRequestTimeout":20; stop; wait 19999"#,
        "START finish:stopped:20 stopped completed",
    );
    check(
        r#"start "disconnectOnStopRequest":false,"disconnectOnStopRequestTimeout":20; stop; wait 20000"#,
        "START finish:stopped:20 stopped completed close:1000",
    );
    check(
        r#"start "disconnectOnStopRequest":false; stop; ended"#,
        "START finish:stopped:1800 stopped completed close:1000",
    );
}

#[test]
fn what_comes_out_of_order_is_refused_and_harms_nothing() {
    for text in [
        "stop",
        r#"text {"type":"modify_request","speechRecognition":{"sampleRateHertz":8000}}"#,
        r#"text {"type":"finalize","id":"a"}"#,
    ] {
        check(&format!("{text}; start"), "error:not_started START");
    }
    check("text garbage; text {}; start", "error:invalid_request error:invalid_request START");
    check("start; text garbage; audio 3", "START error:invalid_request audio3");
}

#[test]
fn formats_change_in_mid_stream() {
    check(
        r#"start; text {"type":"modify_request","speechRecognition":{"sampleRateHertz":8000}}; audio 3"#,
        "START configure:LINEAR16@8000(modified) audio3",
    );
    check(
        r#"start; text {"type":"modify_request","speechRecognition":{"sampleRateHertz":7}}; audio 3"#,
        "START error:invalid_sample_rate audio3",
    );
    check(
        r#"start; text {"type":"update_request","insightTypes":["topic"]}"#,
        "START configure:LINEAR16@16000(modified)",
    );
}

#[test]
fn starts_that_cannot_be_are_refused() {
    check(r#"start "config":{"speechRecognition":{"encoding":"MP3"}}; start"#, "error:unsupported_encoding START");
    check("unsupported encoding FLAC; start; well; start", "start error:unsupported_encoding START");
    check("unsupported language xx; start", "start error:unsupported_language");
    check("full; start", "start error:overloaded close:1013");
    check("unavailable; start", "start error:internal close:1013");
    check(r#"start "hearsay":{"timeZone":"Mars/Olympus"}; start"#, "error:invalid_request START");
    check(r#"start "hearsay":{"timeZone":"Asia/Kathmandu"}"#, "START");
    let listener = rights(false, false);
    check_as(listener, Source::Other, "start", "error:forbidden");
    let live = rights(true, false);
    check_as(live, Source::Other, r#"start "hearsay":{"recorded":true}; start"#, "error:forbidden START");
}

#[test]
fn audio_may_not_run_ahead_of_real_time() {
    let burst = format!("start; {}", vec!["audio 32000"; 31].join("; "));
    let heard = vec!["audio32000"; 30].join(" ");
    check(&burst, &format!("START {heard} error:too_fast finish:lost close:1008"));
    let recorded = burst.replace("start;", r#"start "hearsay":{"recorded":true};"#);
    check(&recorded, &format!("START {heard} audio32000"));
    let live = format!("start; {}", vec!["audio 32000; wait 1000"; 100].join("; "));
    check(&live, &format!("START {}", vec!["audio32000"; 100].join(" ")));
}

#[test]
fn floods_of_messages_are_cut() {
    let script = format!("start; {}", vec!["text x"; 50].join("; "));
    let errors = vec!["error:invalid_request"; 49].join(" ");
    check(&script, &format!("START {errors} error:too_fast finish:lost close:1008"));
    let script = format!("start; {}", vec!["ws-ping"; 50].join("; "));
    let pongs = vec!["ws-pong"; 49].join(" ");
    check(&script, &format!("START {pongs} error:too_fast finish:lost close:1008"));
}

#[test]
fn how_a_connection_ends_decides_what_the_log_is_told() {
    check("start; close 1000", "START finish:stopped:0 hangup");
    check("start; close 3006", "START finish:lost hangup");
    check("start; close", "START finish:lost hangup");
    check("start; lost", "START finish:lost hangup");
    check("start; drain", "START finish:lost close:empty");
    check("drain", "close:empty");
    check("close 1000", "hangup");
    check("wait 1800000", "close:1000");
    check("start; oversize", "START error:too_large finish:lost close:1009");
    check("start; ended; wait 1000", "START finish:stopped:0 completed stopped close:1000");
    check("hold; start; lost; answer", "START finish:lost hangup");
    check("hold; start; drain; answer", "START finish:lost close:empty");
    check("start; hold; stop; close 1000; answer", "START finish:stopped:0 completed stopped hangup");
    check("start; hold; stop; lost; answer", "START finish:stopped:0 hangup");
    check("start; hold; stop; drain; answer", "START finish:stopped:0 completed stopped");
    check("lost; start; audio 3; drain; lost", "hangup");
}

#[test]
fn a_drain_waits_for_the_end_of_an_utterance() {
    check("start; speech starts; drain; audio 3; wait 9999; audio 4", "START audio3 audio4");
    check("start; speech starts; drain; speech ends", "START finish:lost close:empty");
    check("start; speech starts; speech ends; drain", "START finish:lost close:empty");
    // A short pause does when time runs out, and at the end of it any moment.
    check("start; speech starts; drain; wait 4999; speech pauses", "START");
    check("start; speech starts; drain; wait 5000; speech pauses", "START finish:lost close:empty");
    check("start; speech starts; drain; wait 10000", "START finish:lost close:empty");
    check("start; speech starts; drain; lost", "START finish:lost hangup");
    check("start; speech starts; drain; stop; wait 1000", "START finish:stopped:0 completed stopped close:1000");
    check(
        r#"start "disconnectOnStopRequest":false; speech starts; drain; stop"#,
        "START finish:stopped:1800 close:empty",
    );
    const ACK: &str = r#"start "hearsay":{"ack":true}; speech starts; drain"#;
    const BEGUN: &str = "start listening created recognizing resume join";
    check(&format!("{ACK}; audio 3; speech ends; lost"), &format!("{BEGUN} audio3 close:empty part"));
    check(&format!("{ACK}; wait 10000"), &format!("{BEGUN} close:empty part"));
}

#[test]
fn a_broken_stream_is_told_apart() {
    check("start; failed stalled", "START error:overloaded finish:lost close:1013");
    check("start; failed fenced", "START error:fenced finish:lost close:1008");
    check("start; failed ended", "START finish:stopped:0 completed stopped");
    check("start; failed unsupported; start", "START error:unsupported_encoding finish:lost START");
    check("start; failed misnamed; start", "START error:invalid_request finish:lost START");
    check("start; failed", "START error:internal finish:lost close:1011");
}

#[test]
fn what_was_not_asked_for_is_not_sent() {
    check("start; acked 3; health 0; finalized a", "START finalized:a");
    check(r#"start; text {"type":"finalize","id":"a"}"#, "START finalize:a");
    check(r#"text {"type":"token","access_token":"x"}"#, "check");
}

#[test]
fn acknowledgements_come_at_most_four_times_a_second() {
    check(
        r#"start "hearsay":{"ack":true}; acked 1; acked 2; acked 3; wait 249; acked 4; wait 1; wait 250; acked 5"#,
        "start listening created recognizing resume join ack:1 ack:4 ack:5",
    );
    check(
        r#"start "hearsay":{"health":true}; health 0; health 1; speech starts; speech pauses"#,
        "START health:0 health:1 signal",
    );
}

#[test]
fn a_client_that_may_return_finds_its_stream_uncut() {
    const ACK: &str = r#"start "hearsay":{"ack":true}"#;
    const BEGUN: &str = "start listening created recognizing resume join";
    for (end, last) in [("lost", "hangup"), ("close 1001", "hangup"), ("close", "hangup"), ("drain", "close:empty")] {
        check(&format!("{ACK}; audio 3; {end}; lost; drain"), &format!("{BEGUN} audio3 {last} part"));
    }
    // Who stops, says goodbye or misbehaves does not return.
    check(&format!("{ACK}; close 1000"), &format!("{BEGUN} finish:stopped:0 hangup"));
    check(&format!("{ACK}; stop"), &format!("{BEGUN} finish:stopped:0 completed stopped"));
    check(&format!("{ACK}; oversize"), &format!("{BEGUN} error:too_large finish:lost close:1009"));
    check(&format!("{ACK}; failed fenced"), &format!("{BEGUN} error:fenced finish:lost close:1008"));
    check(&format!("{ACK}; renewed; stop; renewed"), &format!("{BEGUN} resume finish:stopped:0 completed stopped"));
    check("start; renewed", "START");
}

#[test]
fn a_stream_that_goes_on_says_where_and_in_what_format() {
    let resume = r#"start "hearsay":{"resume":"x","ack":true}"#;
    let modify = r#"text {"type":"modify_request","speechRecognition":{"encoding":"LINEAR16"}}"#;
    check(
        &format!("resumes 0; {resume}; {modify}"),
        "start listening created recognizing resume join resumed:7 configure:LINEAR16@8000(modified)",
    );
    check(&format!("no-resume; {resume}; well; start"), "start error:invalid_request START");
    check(&format!("start; {resume}"), "START error:invalid_request");
    // What its client kept comes at once: the burst of everybody (30 s of 16 000 bytes) and what the clock is behind.
    let burst = |seconds| vec!["audio 16000"; seconds].join("; ");
    let heard = |seconds| vec!["audio16000"; seconds].join(" ");
    let begun = "start listening created recognizing join resumed:7";
    check(
        &format!(r#"resumes 10; start "hearsay":{{"resume":"x"}}; {}"#, burst(41)),
        &format!("{begun} {} error:too_fast finish:lost close:1008", heard(40)),
    );
}

#[test]
fn a_token_that_expires_is_renewed_or_its_socket_closed() {
    let short = |seconds| Rights { until: Instant::now() + Duration::from_secs(seconds), ..all() };
    let expired = "START error:token_expired";
    check_as(short(60), Source::Other, "start; wait 61000; wait 28000", expired);
    check_as(short(60), Source::Other, "start; wait 61000; wait 31000", &format!("{expired} finish:lost close:1008"));
    check_as(short(60), Source::Other, "wait 61000; wait 31000", "error:token_expired close:1008");
    check_as(
        short(60),
        Source::Other,
        r#"start; wait 61000; text {"type":"token","access_token":"x"}; good 60; wait 59000; audio 3; wait 2000; audio 3"#,
        &format!("{expired} check audio3 error:token_expired audio3"),
    );
}

#[test]
fn tiny_chunks_count_as_small_ones() {
    let flood = format!("start; {}", vec!["audio 1"; 7_501].join("; "));
    let heard = vec!["audio1"; 7_500].join(" ");
    check(&flood, &format!("START {heard} error:too_fast finish:lost close:1008"));
}

fn arbitrary_step() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("start".to_owned()),
        2 => Just(r#"start "disconnectOnStopRequest":false,"disconnectOnStopRequestTimeout":20,"hearsay":{"ack":true}"#.to_owned()),
        2 => Just("stop".to_owned()),
        5 => (0_usize..70_000).prop_map(|bytes| format!("audio {bytes}")),
        2 => (0_u32..3_000).prop_map(|ms| format!("wait {ms}")),
        1 => (0_u64..9).prop_map(|chunk| format!("acked {chunk}")),
        1 => prop::sample::select(vec![
            "close 1000", "close", "lost", "drain", "ended", "oversize", "failed stalled", "failed unsupported",
            "failed fenced", "failed", "speech starts", "speech pauses", "speech ends",
        ]).prop_map(str::to_owned),
        2 => prop::sample::select(vec![
            "hold", "answer", "full", "well", "behind", "unsupported encoding", "ping", "ws-ping", "text x", "health 1", "finalized a",
            r#"text {"type":"modify_request","speechRecognition":{"sampleRateHertz":48000}}"#,
        ]).prop_map(str::to_owned),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Whatever comes in whatever order: streams begin and end in pairs, every finished stop is answered by exactly one
    /// pair of end messages, audio is for a stream under way, and after the close nothing is done.
    #[test]
    fn effects_are_wellformed(steps in prop::collection::vec(arbitrary_step(), 0..40), web in any::<bool>()) {
        let mut pair = Pair::new(all(), if web { Source::Web } else { Source::Js });
        for step in &steps {
            pair.step(step);
        }
        pair.step("answer");
        pair.step("lost");
        pair.step("answer");
        prop_assert!(pair.session.is_closed());
        let (mut live, mut starting, mut closed, mut ends, mut greeted) = (false, false, false, 0, 0);
        for (index, seen) in pair.seen.iter().enumerate() {
            // A stream whose connection is gone may wait for its client.
            prop_assert!(!closed || (live && seen == "part"), "{seen} after the close: {:?}", pair.seen);
            match seen.as_str() {
                "start" => {
                    prop_assert!(!live);
                    starting = true;
                }
                "listening" => {
                    prop_assert!(starting || live);
                    prop_assert_eq!(&pair.seen[index + 1..index + 3], ["created", "recognizing"]);
                    (live, starting, greeted) = (true, false, greeted + 1);
                }
                text if text.starts_with("audio") || text.starts_with("configure") => prop_assert!(live),
                text if text.starts_with("finish") || text == "part" => {
                    prop_assert!(live);
                    live = false;
                }
                "completed" | "stopped" => {
                    prop_assert!(!live && greeted > 0);
                    ends += 1;
                }
                "hangup" => closed = true,
                text if text.starts_with("close") => closed = true,
                _ => {}
            }
        }
        prop_assert!(closed && !live);
        prop_assert_eq!(ends % 2, 0);
        let finished = pair.seen.iter().filter(|seen| seen.starts_with("finish")).count();
        prop_assert!(ends / 2 <= finished);
    }
}
