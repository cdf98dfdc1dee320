//! Going on with a stream whose connection was lost: what its client shows, and what the log knows of the stream.

use std::{sync::Arc, time::Duration};

use hearsay_auth::{Auth, AuthError, Resume};
use hearsay_bus::{Body, Bus, Error, Read, Refusal, State, append::patiently};
use hearsay_protocol::{
    ConversationKey, Event, MeetingKey, Offset, Position, Seen, StreamId, Timestamp,
    client::{ClientError, ErrorCode, Secret},
    event::StreamStarted,
};

use crate::session::StartFailure;

/// What the client shows when it returns. Good until `until`.
pub(crate) fn token(auth: &Auth, key: &ConversationKey, stream: StreamId, began: Position, until: Timestamp) -> String {
    auth.issue_resume(&Resume {
        account: key.meeting.account.clone(),
        meeting: key.meeting.meeting.clone(),
        conversation: key.conversation,
        stream,
        began,
        expires_at: until,
    })
}

/// The stream that a client of this meeting may go on with.
///
/// # Errors
/// [`StartFailure::NoResume`] says why not, and the client may begin a new one; [`StartFailure::Unavailable`] when the log
/// does not say.
pub(crate) async fn find(
    auth: &Auth,
    bus: &Arc<dyn Bus>,
    meeting: &MeetingKey,
    token: &Secret,
    now: Timestamp,
    patience: Duration,
) -> Result<(ConversationKey, Arc<StreamStarted>), StartFailure> {
    let named = auth.verify_resume(token.reveal(), now).map_err(|error| match error {
        AuthError::Expired => no(ErrorCode::InvalidRequest, "has expired"),
        AuthError::Signature => no(ErrorCode::Forbidden, "is not one of ours"),
        _ => no(ErrorCode::InvalidRequest, "is no token of a stream"),
    })?;
    if (&named.account, &named.meeting) != (&meeting.account, &meeting.meeting) {
        return Err(no(ErrorCode::Forbidden, "names a stream of another meeting"));
    }
    let key = ConversationKey { meeting: meeting.clone(), conversation: named.conversation };
    let unavailable = |error: Error| match error {
        Error::Refused(Refusal::Gone | Refusal::Ended) => ended(),
        error => StartFailure::Unavailable(error.to_string()),
    };
    let meta = patiently(patience, || bus.meta(&key)).await.map_err(unavailable)?;
    if !matches!(meta.state, State::Open | State::Lingering) {
        return Err(ended());
    }
    let Position { epoch, offset } = named.began;
    let before = Seen { epoch: Some(epoch), offset: Offset(offset.0.saturating_sub(1)), check: None };
    let read = patiently(patience, || bus.read(&key, before, 1)).await.map_err(unavailable)?;
    let Read::Page(page) = read else {
        return Err(no(ErrorCode::InvalidRequest, "names a stream that the log does not know any more"));
    };
    match page.entries.into_iter().next().map(|entry| entry.body) {
        Some(Body::Event(Event::StreamStarted(started))) if started.stream == named.stream => Ok((key, started)),
        // History branched before it: what stands there is something else.
        _ => Err(no(ErrorCode::InvalidRequest, "names a stream that the log does not know any more")),
    }
}

/// The conversation is over: there is nothing to go on with.
pub(crate) fn ended() -> StartFailure {
    no(ErrorCode::InvalidRequest, "names a stream of a conversation that has ended")
}

fn no(code: ErrorCode, why: &str) -> StartFailure {
    let details = format!(
        "hearsay.resume {why}; the token of a resume_token of this meeting is accepted, or none, which begins a new stream"
    );
    StartFailure::NoResume(ClientError::new(code, details))
}
