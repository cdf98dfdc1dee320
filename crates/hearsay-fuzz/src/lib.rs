//! What strangers can send, as functions of bytes that panic when a promise is broken: for `fuzz/`, where a fuzzer looks for
//! such bytes, and for the tests, where beginnings of every kind and a fixed number of their mutations are tried.
//!
//! Audio inputs are records, see [`audio`]; everything else is taken as it is.

mod audio;
mod frames;
mod log;
mod seal;
mod token;
mod wav;

use hearsay_protocol::{
    AudioFormat,
    client::{ClientMessage, ErrorCode},
    wire,
};

/// One kind of input.
pub struct Target {
    /// Of the fuzz target, too.
    pub name: &'static str,
    pub run: fn(&[u8]),
    /// Inputs that reach far, to be mutated.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words of the format.
    pub words: &'static [&'static str],
}

/// All there are.
pub const TARGETS: [Target; 12] = [
    Target {
        name: "client_message",
        run: client_message,
        seeds: client_messages,
        words: &[
            "null",
            "true",
            "-1",
            "1e999",
            "[",
            "{}",
            "\"\"",
            "\\ud800",
            "\"type\":",
            "\"config\":",
            "\"speaker\":",
            "\"speechRecognition\":",
            "\"encoding\":",
            "\"sampleRateHertz\":",
            "\"hearsay\":",
            "\"trackers\":",
            "\"insightTypes\":",
            "stop_request",
            "modify_request",
            "update_request",
            "finalize",
            "__PING__",
        ],
    },
    Target {
        name: "handshake",
        run: hearsay_gateway::fuzz::handshake,
        seeds: handshakes,
        words: &[
            "%",
            "%00",
            "%ff",
            "%2525",
            "&",
            "=",
            "/",
            "\n",
            "\norigin: ",
            "\nhost: ",
            "\nauthorization: Bearer ",
            "\nsec-websocket-protocol: ",
            "since=",
            "history=",
            "view=",
            "presence=",
            "access_token=",
            "/v1/streaming/",
            "/v1/conversations/",
            "18446744073709551616",
        ],
    },
    Target {
        name: "frames",
        run: frames::run,
        seeds: frames::seeds,
        words: &["\u{1}", "\u{2}", "\0", "\u{7f}", "__PING__", "\"type\":", "{}", "stop_request"],
    },
    Target {
        name: "token",
        run: token::run,
        seeds: token::seeds,
        words: &["\"exp\":", "\"sub\":", "\"iat\":", "18446744073709551615", "-1", "null", ".", "=", "00000000:0"],
    },
    Target { name: "linear16", run: audio::linear16, seeds: audio::linear16_seeds, words: audio::WORDS },
    Target { name: "mulaw", run: audio::mulaw, seeds: audio::mulaw_seeds, words: audio::WORDS },
    Target { name: "flac", run: audio::flac, seeds: audio::flac_seeds, words: audio::WORDS },
    Target { name: "opus", run: audio::opus, seeds: audio::opus_seeds, words: audio::WORDS },
    Target { name: "ogg", run: audio::ogg, seeds: audio::ogg_seeds, words: audio::WORDS },
    Target { name: "webm", run: audio::webm, seeds: audio::webm_seeds, words: audio::WORDS },
    Target { name: "wav", run: wav::run, seeds: wav::seeds, words: wav::WORDS },
    Target { name: "log_event", run: log::run, seeds: log::seeds, words: &["\u{0}", "\u{7f}", "\n\n", "\u{12}\u{1}"] },
];

/// The function that a fuzz target runs.
///
/// # Panics
/// When a promise is broken, or there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let target =
        TARGETS.iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target is called {name}"));
    (target.run)(data);
}

/// Longest answer to a message that is not understood, in bytes: it quotes little of what came.
const LONGEST_ANSWER: usize = 4_096;

fn client_message(data: &[u8]) {
    // The socket answers what is not UTF-8 before anything is parsed.
    let Ok(text) = std::str::from_utf8(data) else { return };
    match ClientMessage::parse(text) {
        Ok(ClientMessage::Modify(modify)) => {
            if let Ok(format) = modify.applied_to(AudioFormat::default()) {
                let (low, high) = format.encoding.rates();
                assert!((low..=high).contains(&format.rate.get()), "{format:?}");
            }
        }
        Ok(ClientMessage::Start(start)) => {
            let format = start.config.format;
            let (low, high) = format.encoding.rates();
            assert!((low..=high).contains(&format.rate.get()), "{format:?}");
        }
        Ok(_) => {}
        Err(error) => {
            let answer = wire::error(error.code, &error.details, None);
            assert!(answer.len() < LONGEST_ANSWER, "{answer}");
            assert!(serde_json::from_str::<serde_json::Value>(&answer).is_ok(), "{answer}");
            assert!(error.code != ErrorCode::Internal, "a client's fault is called ours: {answer}");
        }
    }
}

fn client_messages() -> Vec<Vec<u8>> {
    [
        r#"{"type":"start_request","meetingTitle":"Stand-up","insightTypes":["question","action_item"],"config":{"confidenceThreshold":0.5,"languageCode":"en-US","speechRecognition":{"encoding":"LINEAR16","sampleRateHertz":44100}},"speaker":{"userId":"ana@example.org","name":"Ana"}}"#,
        r#"{"type":"start_request","config":{"encoding":"FLAC","sampleRateHertz":48000,"meetingTitle":"x","timezoneOffset":480},"trackers":[{"name":"Budget","vocabulary":["money","cost"]}],"customVocabulary":["hearsay"],"noConnectionTimeout":900,"disconnectOnStopRequest":false,"disconnectOnStopRequestTimeout":1800,"hearsay":{"ack":true,"health":true,"presence":true,"recorded":false,"resume":"a.b.c"},"redaction":{"identifyContent":true,"redactContent":true,"redactionString":"***"}}"#,
        r#"{"type":"modify_request","speechRecognition":{"encoding":"OPUS","sampleRateHertz":48000}}"#,
        r#"{"type":"update_request","trackers":[],"customVocabulary":["x"],"insightTypes":["follow_up"]}"#,
        r#"{"type":"finalize","id":"here"}"#,
        r#"{"type":"token","access_token":"a.b.c"}"#,
        r#"{"type":"stop_request"}"#,
        "{'type': 'stop_request'}",
        "__PING__",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}

fn handshakes() -> Vec<Vec<u8>> {
    [
        "GET /v1/realtime/insights/dXNlckBleGFtcGxlLmNvbQ==?source=web_sdk&access_token=a.b.c\nhost: 127.0.0.1:8080\norigin: http://127.0.0.1:8080",
        "GET /v1/subscribe/stand-up?since=0badcafe%3A17&history=snapshot&view=all&presence=true&verbose=true\nauthorization: Bearer a.b.c\norigin: https://app.example.org",
        "GET /session/subscribe/50%25?history=none\nsec-websocket-protocol: a.b.c, other",
        "POST /oauth2/token:generate\nx-api-key: a.b.c",
        "GET /v1/conversations/5098141190283264/messages",
        "HEAD /hearsay.js\norigin: null",
        "OPTIONS *",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect()
}
