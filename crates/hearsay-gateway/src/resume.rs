//! What a returning client shows to go on with its stream: a signed token that names stream and conversation and allows
//! nothing else.
//!
//! It is one of our tokens without any permission, whose account is no account but the stream's name. Whoever shows it
//! proves who they are with a token of their own, and the conversation is looked for among their meetings; so a stolen one
//! is of no use in another account.

use hearsay_auth::{Auth, Grant, Permissions};
use hearsay_protocol::{AccountId, ConversationKey, StreamId, Timestamp};

/// None never happens: the name is short and printable.
pub(crate) fn token(auth: &Auth, key: &ConversationKey, stream: StreamId, now: Timestamp) -> Option<String> {
    let account = AccountId::new(&format!("resume:{}:{}", stream.0, key.conversation)).ok()?;
    let grant = Grant { account, permissions: Permissions::NONE, meeting: Some(key.meeting.meeting.clone()) };
    Some(auth.issue(&grant, now).access_token)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use hearsay_auth::{Keys, Permission};
    use hearsay_protocol::{ConversationId, MeetingId, MeetingKey};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn it_names_its_stream_and_opens_nothing() {
        let auth = Auth::new(Keys::new(&[7; 32]).unwrap(), Vec::new(), Duration::from_secs(60));
        let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("m").unwrap() };
        let key = ConversationKey { meeting, conversation: ConversationId::from_random(1) };
        let now = Timestamp(1_900_000_000_000_000);
        let stream = StreamId(Uuid::from_u128(7));
        let claims = auth.verify(&token(&auth, &key, stream, now).unwrap(), now).unwrap();
        assert_eq!(claims.account.as_str(), format!("resume:{}:{}", stream.0, key.conversation));
        for permission in Permission::ALL {
            assert!(claims.require(permission, &key.meeting.meeting).is_err());
        }
    }
}
