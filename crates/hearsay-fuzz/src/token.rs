//! Tokens, as anybody writes them and as only we sign them.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hearsay_auth::{Auth, Grant, Keys, Permission, Permissions, Resume};
use hearsay_protocol::{
    AccountId, ConversationId, Epoch, MeetingId, MeetingKey, Offset, Position, StreamId, Timestamp,
};
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use uuid::Uuid;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW: Timestamp = Timestamp(1_900_000_000_000_000);

fn auth() -> Auth {
    let keys = Keys::new(SECRET).unwrap_or_else(|error| panic!("{error}"));
    Auth::new(keys, Vec::new(), Duration::from_secs(3_600))
}

fn grant() -> Grant {
    Grant {
        account: AccountId::dev(),
        permissions: Permissions::of_an_app(),
        meeting: MeetingId::new("stand-up").ok(),
        name: Some("Ana ~ Zoë".to_owned()),
    }
}

fn resume() -> Resume {
    let meeting = MeetingId::new("stand-up").unwrap_or_else(|error| panic!("{error}"));
    let meeting = MeetingKey { account: AccountId::dev(), meeting };
    Resume {
        account: meeting.account,
        meeting: meeting.meeting,
        conversation: ConversationId::from_random(7),
        stream: StreamId(Uuid::from_u128(7)),
        began: Position { epoch: Epoch(7), offset: Offset(17) },
        expires_at: NOW + Duration::from_secs(60),
    }
}

/// A token with this payload and the header and signature of one of ours.
fn signed(like: &str, payload: &[u8]) -> String {
    let header = like.split('.').next().unwrap_or_default();
    let mut token = format!("{header}.{}", URL_SAFE_NO_PAD.encode(payload));
    let keyed = Hmac::<Sha256>::new_from_slice(SECRET).unwrap_or_else(|error| panic!("{error}"));
    let signature = keyed.chain_update(&token).finalize().into_bytes();
    token.push('.');
    token.push_str(&URL_SAFE_NO_PAD.encode(signature));
    token
}

/// The bytes as a token, which nobody may be let in by, and as a payload that we signed.
pub(crate) fn run(data: &[u8]) {
    let auth = auth();
    let text = String::from_utf8_lossy(data);
    assert!(auth.verify(&text, NOW).is_err() || is_ours(&text), "let in by {text:?}");
    assert!(auth.verify_resume(&text, NOW).is_err() || is_ours(&text), "resumed by {text:?}");

    let issued = auth.issue(&grant(), NOW).access_token;
    let resumed = auth.issue_resume(&resume());
    // One kind of token is never taken for the other.
    assert!(auth.verify(&signed(&resumed, data), NOW).is_err());
    assert!(auth.verify_resume(&signed(&issued, data), NOW).is_err());
    if let Ok(claims) = auth.verify(&signed(&issued, data), NOW) {
        assert!(claims.expires_at > NOW);
        let grant = Grant {
            account: claims.account.clone(),
            permissions: claims.permissions,
            meeting: claims.meeting.clone(),
            name: claims.name.clone(),
        };
        if let Ok(issued) = auth.narrow(&claims, &grant, None, NOW) {
            let narrowed = auth.verify(&issued.access_token, NOW);
            assert!(narrowed.as_ref().is_ok_and(|narrowed| narrowed.expires_at <= claims.expires_at), "{narrowed:?}");
            assert!(narrowed.is_ok_and(|narrowed| narrowed.permissions == claims.permissions));
        }
        for permission in [Permission::Publish, Permission::Subscribe, Permission::Admin] {
            let allowed = claims.allows(permission).is_ok();
            assert_eq!(allowed, claims.permissions.contains(permission));
        }
    }
    if let Ok(resume) = auth.verify_resume(&signed(&resumed, data), NOW) {
        assert_eq!(auth.verify_resume(&auth.issue_resume(&resume), NOW).as_ref(), Ok(&resume));
    }
}

/// Signed with our key, and so known to the one who knows the key: the seeds are.
fn is_ours(token: &str) -> bool {
    let payload = token.split('.').nth(1).and_then(|payload| URL_SAFE_NO_PAD.decode(payload).ok());
    payload.is_some_and(|payload| signed(token, &payload) == token)
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let auth = auth();
    let tokens = [auth.issue(&grant(), NOW).access_token, auth.issue_resume(&resume())];
    let payload = |token: &String| URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap_or_default()).ok();
    let payloads: Vec<Vec<u8>> = tokens.iter().filter_map(payload).collect();
    tokens.into_iter().map(String::into_bytes).chain(payloads).collect()
}
