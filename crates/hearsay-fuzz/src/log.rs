//! Entries of the log, and what gateway and recognizer tell each other.

use std::time::Duration;

use bytes::Bytes;
use hearsay_protocol::{
    Event, StreamId, StreamTime, Timestamp,
    event::{Final, Participant, SpeakerConfig, SpokenWord, Started, StreamStarted},
};
use hearsay_rpc::{Request, Response, v1};
use prost::Message as _;
use uuid::Uuid;

pub(crate) fn run(data: &[u8]) {
    match hearsay_rpc::decode(data) {
        Ok(event) => {
            let again = hearsay_rpc::decode(&hearsay_rpc::encode(&event));
            assert_eq!(again.as_ref().ok(), Some(&event));
        }
        Err(error) => assert!(error.to_string().len() < 1_024, "{error}"),
    }
    if let Ok(request) = v1::RecognizeRequest::decode(data)
        && let Ok(request) = Request::try_from(request)
    {
        let again = Request::try_from(v1::RecognizeRequest::from(request.clone()));
        assert_eq!(again.as_ref().ok(), Some(&request));
    }
    if let Ok(response) = v1::RecognizeResponse::decode(data)
        && let Ok(response) = Response::try_from(response)
    {
        let again = Response::try_from(v1::RecognizeResponse::from(response.clone()));
        assert_eq!(again.as_ref().ok(), Some(&response));
    }
}

fn participant() -> std::sync::Arc<Participant> {
    std::sync::Arc::new(Participant {
        id: hearsay_protocol::ParticipantId(Uuid::from_u128(3)),
        user_id: Some("ana@example.org".to_owned()),
        name: Some("Ana".to_owned()),
        email: None,
    })
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let stream = StreamId(Uuid::from_u128(1));
    let origin = Timestamp(1_900_000_000_000_000);
    let word = |text: &str, start| SpokenWord {
        text: text.to_owned(),
        start: StreamTime(start),
        end: StreamTime(start + 300_000),
        confidence: 0.75,
    };
    let spoken = Final {
        sentiment: Vec::new(),
        trace: None,
        stream,
        utterance: hearsay_protocol::UtteranceId(Uuid::from_u128(2)),
        participant: participant(),
        origin,
        start: StreamTime(1_000_000),
        end: StreamTime(1_700_000),
        text: "Good morning.".to_owned(),
        language: "en-US".to_owned(),
        confidence: 0.75,
        words: vec![word("Good", 1_000_000), word("morning.", 1_400_000)],
    };
    let started = StreamStarted {
        stream,
        participant: participant(),
        gateway: hearsay_protocol::GatewayId(Uuid::from_u128(4)),
        config: SpeakerConfig::default(),
        origin,
        recorded: false,
        no_connection_timeout: Duration::from_secs(60),
    };
    let events = [
        Event::Started(Started { at: origin, title: "Stand-up".to_owned() }),
        Event::Joined(participant()),
        Event::StreamStarted(std::sync::Arc::new(started)),
        Event::Final(std::sync::Arc::new(spoken)),
    ];
    let mut seeds: Vec<Vec<u8>> = events.iter().map(|event| hearsay_rpc::encode(event).to_vec()).collect();
    let requests = [
        Request::Chunk { number: hearsay_protocol::ChunkNumber(7), data: Bytes::from_static(b"audio") },
        Request::Marker(hearsay_rpc::Marker {
            chunk: hearsay_protocol::ChunkNumber(7),
            kind: hearsay_rpc::MarkerKind::Config(Box::default()),
        }),
    ];
    seeds.extend(requests.map(|request| v1::RecognizeRequest::from(request).encode_to_vec()));
    seeds.push(v1::RecognizeResponse::from(Response::Health(hearsay_rpc::Health::default())).encode_to_vec());
    seeds
}
