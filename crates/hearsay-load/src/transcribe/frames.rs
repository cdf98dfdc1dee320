//! What the server says, as far as a transcript needs it.

use serde_json::Value;

use super::audio::Acked;

/// One utterance that is done.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Final {
    pub speaker: String,
    pub text: String,
    /// Of the first word's begin and the last word's end, from the start of the speaker's stream.
    pub start_ms: u64,
    pub end_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Frame {
    /// Audio may be sent.
    Started,
    Partial {
        speaker: String,
        text: String,
    },
    Final(Final),
    Acknowledged(Acked),
    /// What a client shows to go on with its stream over another connection.
    Token(String),
    /// The stream goes on from this message.
    Resumed {
        chunk: u64,
    },
    /// One of the two end messages.
    Stopped,
    Completed,
    Error {
        code: String,
        details: String,
        retry_after_ms: Option<u64>,
    },
    Other,
}

impl Frame {
    /// Generous: what is not understood is [`Frame::Other`].
    pub(super) fn parse(text: &str) -> Self {
        let Ok(frame) = serde_json::from_str::<Value>(text) else { return Self::Other };
        let string = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match frame["type"].as_str() {
            Some("audio_ack") => frame["ms"].as_u64().map_or(Self::Other, |ms| {
                let restart = frame["restart"].as_u64().or_else(|| frame["chunk"].as_u64()).unwrap_or_default();
                Self::Acknowledged(Acked { ms, restart })
            }),
            Some("resume_token") => Self::Token(string(&frame["token"])),
            Some("resumed") => frame["chunk"].as_u64().map_or(Self::Other, |chunk| Self::Resumed { chunk }),
            Some("message") => {
                let message = &frame["message"];
                match message["type"].as_str() {
                    Some("started_listening") => Self::Started,
                    Some("recognition_result") => result(&frame, message),
                    Some("recognition_stopped") => Self::Stopped,
                    Some("conversation_completed") => Self::Completed,
                    Some("error") => Self::Error {
                        code: string(&message["code"]),
                        details: string(&message["details"]),
                        retry_after_ms: message["retryAfterMs"].as_u64(),
                    },
                    _ => Self::Other,
                }
            }
            Some("error") => {
                Self::Error { code: String::new(), details: string(&frame["details"]), retry_after_ms: None }
            }
            _ => Self::Other,
        }
    }
}

/// Where the event that a frame tells of stands on the log.
pub(super) fn position(text: &str) -> Option<String> {
    // Most frames have none, and are not worth reading twice.
    if !text.contains(r#""position":""#) {
        return None;
    }
    serde_json::from_str::<Value>(text).ok()?["position"].as_str().map(str::to_owned)
}

fn result(frame: &Value, message: &Value) -> Frame {
    let name = ["name", "userId", "id"].into_iter().filter_map(|key| message["user"][key].as_str());
    let speaker =
        name.filter(|name| !name.is_empty()).map(str::to_owned).next().unwrap_or_else(|| "Speaker".to_owned());
    let best = &message["payload"]["raw"]["alternatives"][0];
    let text = message["punctuated"]["transcript"].as_str().or_else(|| best["transcript"].as_str()).unwrap_or_default();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if message["isFinal"].as_bool() != Some(true) {
        return Frame::Partial { speaker, text };
    }
    let words = best["words"].as_array().map(Vec::as_slice).unwrap_or_default();
    let offset = frame["timeOffset"].as_f64().map_or(0, |ms| ms as u64);
    let start_ms = words.first().and_then(|word| millis(&word["startTime"])).unwrap_or(offset);
    let end_ms = words.last().and_then(|word| millis(&word["endTime"])).unwrap_or(start_ms).max(start_ms);
    Frame::Final(Final { speaker, text, start_ms, end_ms })
}

/// `{"seconds":"12","nanos":"400000000"}`.
fn millis(time: &Value) -> Option<u64> {
    let number = |value: &Value| value.as_str().and_then(|text| text.parse().ok()).or_else(|| value.as_u64());
    let seconds: u64 = number(&time["seconds"])?;
    let nanos: u64 = number(&time["nanos"]).unwrap_or(0);
    seconds.checked_mul(1_000)?.checked_add(nanos / 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_has_the_times_of_its_words() {
        let text = r#"{"type":"message","message":{"type":"recognition_result","isFinal":true,
            "payload":{"raw":{"alternatives":[{"transcript":"shall we start","confidence":0.87,"words":[
              {"word":"shall","startTime":{"seconds":"12","nanos":"400000000"},"endTime":{"seconds":"12","nanos":"700000000"}},
              {"word":"start","startTime":{"seconds":"13","nanos":"0"},"endTime":{"seconds":"13","nanos":"250000000"}}]}]}},
            "punctuated":{"transcript":"Shall we start?"},"user":{"id":"0f4f","name":"Ana"}},"timeOffset":12400}"#;
        let expected =
            Final { speaker: "Ana".to_owned(), text: "Shall we start?".to_owned(), start_ms: 12_400, end_ms: 13_250 };
        assert_eq!(Frame::parse(text), Frame::Final(expected));
    }

    #[test]
    fn a_final_without_words_or_name_still_has_a_line() {
        let text = r#"{"type":"message","message":{"type":"recognition_result","isFinal":true,
            "payload":{"raw":{"alternatives":[{"transcript":"two\nlines","words":[]}]}},"user":{}},"timeOffset":900}"#;
        let expected =
            Final { speaker: "Speaker".to_owned(), text: "two lines".to_owned(), start_ms: 900, end_ms: 900 };
        assert_eq!(Frame::parse(text), Frame::Final(expected));
    }

    #[test]
    fn the_position_is_the_frame_s_own() {
        assert_eq!(position(r#"{"type":"message_response","position":"0badcafe:17"}"#).unwrap(), "0badcafe:17");
        assert_eq!(position(r#"{"type":"x","inner":{"position":"0badcafe:17"}}"#), None);
        assert_eq!(position(r#"{"type":"x","follows":"0badcafe:17"}"#), None);
    }

    #[test]
    fn control_messages() {
        let cases = [
            (r#"{"type":"message","message":{"type":"started_listening"}}"#, Frame::Started),
            (r#"{"type":"message","message":{"type":"recognition_stopped"}}"#, Frame::Stopped),
            (r#"{"type":"message","message":{"type":"conversation_completed","data":{}}}"#, Frame::Completed),
            (
                r#"{"type":"audio_ack","chunk":4,"restart":3,"ms":12345}"#,
                Frame::Acknowledged(Acked { ms: 12_345, restart: 3 }),
            ),
            (r#"{"type":"resume_token","token":"t","stream":"0f4f"}"#, Frame::Token("t".to_owned())),
            (r#"{"type":"resumed","chunk":4}"#, Frame::Resumed { chunk: 4 }),
            (
                r#"{"type":"message","message":{"type":"error","code":"overloaded","details":"full","retryAfterMs":500}}"#,
                Frame::Error { code: "overloaded".to_owned(), details: "full".to_owned(), retry_after_ms: Some(500) },
            ),
            ("__PONG__", Frame::Other),
            (r#"{"type":"message_response","messages":[]}"#, Frame::Other),
            (r#"{"type":"message"}"#, Frame::Other),
        ];
        for (text, expected) in cases {
            assert_eq!(Frame::parse(text), expected, "{text}");
        }
    }
}
