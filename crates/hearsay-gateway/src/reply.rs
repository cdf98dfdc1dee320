//! A session's replies as the JSON clients read.

use std::borrow::Cow;

use hearsay_protocol::{TraceId, wire};
use hearsay_uplink::{Health, Signal, SignalKind};
use serde_json::json;

use crate::session::{Ack, Reply};

pub(crate) fn text(reply: &Reply) -> Cow<'static, str> {
    match reply {
        Reply::StartedListening => wire::started_listening().into(),
        Reply::ConversationCreated(conversation) => wire::conversation_created(*conversation).into(),
        Reply::RecognitionStarted(conversation) => wire::recognition_started(*conversation).into(),
        Reply::RecognitionStopped => wire::recognition_stopped().into(),
        Reply::ConversationCompleted(conversation) => wire::conversation_completed(*conversation, None).into(),
        Reply::SessionModified(format) => wire::session_modified(format.encoding.name(), format.rate.get()).into(),
        Reply::Pong => wire::PONG.into(),
        Reply::Error { error, retry_after } => {
            let retry_after = retry_after.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
            wire::error(error.code, &error.details, retry_after).into()
        }
        Reply::AudioAck(Ack { chunk, restart, through }) => wire::audio_ack(*chunk, *restart, *through).into(),
        Reply::ResumeToken { token, stream } => wire::resume_token(token, *stream).into(),
        Reply::Resumed { chunk } => wire::resumed(*chunk).into(),
        Reply::Finalized { id, position } => wire::finalized(id, *position).into(),
        Reply::Health { health, trace } => stream_health(health, *trace).into(),
        Reply::Signal(signal) => speech_signal(signal).into(),
    }
}

fn stream_health(health: &Health, trace: TraceId) -> String {
    let (heard, covered) = (health.heard.millis(), health.covered.millis());
    let ladder = match health.ladder {
        0 => "full",
        1 => "slower_partials",
        2 => "no_partials",
        _ => "refusing",
    };
    wire::stream_health(&wire::StreamHealth {
        received_ms: heard,
        acked_ms: covered,
        backlog_ms: heard.saturating_sub(covered),
        realtime_factor: health.realtime_factor,
        speech: health.speech,
        ladder: ladder.into(),
        trace: trace.to_string().into(),
    })
}

fn speech_signal(signal: &Signal) -> String {
    let kind = match signal.kind {
        SignalKind::SpeechStart => "speech_start",
        SignalKind::Stable => "stable",
        SignalKind::Pause => "pause",
        SignalKind::UtteranceEnd => "utterance_end",
    };
    let utterance = signal.utterance.0.to_string();
    json!({ "type": "speech_signal", "kind": kind, "ms": signal.at.millis(), "utterance": utterance }).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hearsay_protocol::{
        AudioFormat, ChunkNumber, ConversationId, Position, StreamId, StreamTime, UtteranceId,
        client::{ClientError, ErrorCode},
    };
    use serde_json::Value;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn every_reply_but_the_pong_is_json_with_a_type() {
        let conversation = ConversationId::from_random(1);
        let stream = StreamId(Uuid::from_u128(1));
        let error = ClientError::new(ErrorCode::Overloaded, "full");
        let health = Health {
            heard: StreamTime(3_000_000),
            covered: StreamTime(1_000_000),
            speech: 0.5,
            ladder: 1,
            realtime_factor: 9.0,
        };
        let utterance = UtteranceId(Uuid::from_u128(2));
        let position: Position = "0badcafe:17".parse().unwrap();
        for reply in [
            Reply::StartedListening,
            Reply::ConversationCreated(conversation),
            Reply::RecognitionStarted(conversation),
            Reply::RecognitionStopped,
            Reply::ConversationCompleted(conversation),
            Reply::SessionModified(AudioFormat::default()),
            Reply::Error { error, retry_after: Some(Duration::from_secs(5)) },
            Reply::AudioAck(Ack { chunk: ChunkNumber(3), restart: ChunkNumber(1), through: StreamTime(60_000) }),
            Reply::Resumed { chunk: ChunkNumber(3) },
            Reply::ResumeToken { token: "t".to_owned(), stream },
            Reply::Finalized { id: "a".to_owned(), position },
            Reply::Health { health, trace: TraceId::of_stream(stream) },
            Reply::Signal(Signal { kind: SignalKind::Pause, at: StreamTime(5_000), utterance }),
        ] {
            let value: Value = serde_json::from_str(&text(&reply)).unwrap();
            assert!(value["type"].is_string(), "{value}");
            assert!(value["type"] != "message" || value["message"].is_object(), "{value}");
        }
        assert_eq!(text(&Reply::Pong), "__PONG__");
        let told: Value = serde_json::from_str(&stream_health(&health, TraceId::of_stream(stream))).unwrap();
        assert_eq!(told["trace"], "00000000000000000000000000000001");
        assert_eq!((told["backlogMs"].as_u64(), told["ladder"].as_str()), (Some(2_000), Some("slower_partials")));
    }
}
