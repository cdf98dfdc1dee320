//! What a returning client shows to go on with its stream.

use hearsay_protocol::{AccountId, ConversationId, MeetingId, Position, StreamId, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{AuthError, claims::SECOND};

/// A stream that its client may go on with. Names it and opens nothing: whoever shows it proves who they are with a token of
/// their own, for the same account and meeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    pub account: AccountId,
    pub meeting: MeetingId,
    pub conversation: ConversationId,
    pub stream: StreamId,
    /// Where the log says that the stream began, and whose it is.
    pub began: Position,
    /// In whole seconds, as the token carries it.
    pub expires_at: Timestamp,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Payload {
    sub: String,
    meeting: String,
    conversation: String,
    stream: Uuid,
    began: String,
    exp: u64,
}

impl From<&Resume> for Payload {
    fn from(resume: &Resume) -> Self {
        Self {
            sub: resume.account.as_str().to_owned(),
            meeting: resume.meeting.as_str().to_owned(),
            conversation: resume.conversation.to_string(),
            stream: resume.stream.0,
            began: resume.began.to_string(),
            exp: resume.expires_at.micros() / SECOND,
        }
    }
}

impl TryFrom<Payload> for Resume {
    type Error = AuthError;

    fn try_from(payload: Payload) -> Result<Self, AuthError> {
        Ok(Self {
            account: AccountId::new(&payload.sub).map_err(|_| AuthError::Malformed)?,
            meeting: MeetingId::new(&payload.meeting).map_err(|_| AuthError::Malformed)?,
            conversation: payload.conversation.parse().map_err(|_| AuthError::Malformed)?,
            stream: StreamId(payload.stream),
            began: payload.began.parse().map_err(|_| AuthError::Malformed)?,
            expires_at: payload.exp.checked_mul(SECOND).map(Timestamp).ok_or(AuthError::Malformed)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Claims, Grant, Keys, Permissions};

    const NOW: Timestamp = Timestamp(1_900_000_000_000_000);

    #[test]
    fn it_names_its_stream_for_a_while_and_is_no_token_to_enter_with() {
        let keys = Keys::new(&[7; 32]).unwrap();
        let resume = Resume {
            account: AccountId::new("acmé").unwrap(),
            meeting: MeetingId::new("stand-up?").unwrap(),
            conversation: ConversationId::from_random(1),
            stream: StreamId(Uuid::from_u128(7)),
            began: "0badcafe:2".parse().unwrap(),
            expires_at: NOW + Duration::from_secs(60),
        };
        let token = keys.issue_resume(&resume);
        assert_eq!(keys.verify_resume(&token, NOW), Ok(resume.clone()));
        assert_eq!(keys.verify_resume(&token, resume.expires_at), Err(AuthError::Expired));
        assert_eq!(keys.verify(&token, NOW), Err(AuthError::Malformed), "it lets nobody in");
        assert_eq!(Keys::new(&[8; 32]).unwrap().verify_resume(&token, NOW), Err(AuthError::Signature));
        let grant = Grant { account: resume.account, permissions: Permissions::of_an_app(), meeting: None, name: None };
        let entrance = keys.issue(&Claims::new(&grant, NOW, Duration::from_secs(60)));
        assert_eq!(keys.verify_resume(&entrance, NOW), Err(AuthError::Malformed));
    }
}
