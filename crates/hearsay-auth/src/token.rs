//! Tokens: signed claims in the one form that every client can read.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hearsay_protocol::Timestamp;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::{
    AuthError, Claims, Resume,
    claims::{Payload, SECOND},
    resume,
};

/// `{"alg":"HS256","typ":"JWT"}`: what lets somebody in. Headers are compared and never parsed, so that no token passes
/// for one of the other kind.
const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";

/// `{"alg":"HS256","typ":"resume"}`: what names a stream to go on with.
const RESUME_HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6InJlc3VtZSJ9";

/// Longest token looked at: more than twice the longest one issued.
const MAX_TOKEN: usize = 8_192;

/// Shortest secret: the hash's own length, as RFC 7518 section 3.2 asks.
const MIN_SECRET: usize = 32;

/// The secret that signs tokens.
#[derive(Clone)]
pub struct Keys {
    keyed: Hmac<Sha256>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the signing secret has {got} bytes; at least {MIN_SECRET} are needed")]
pub struct WeakKey {
    got: usize,
}

impl Keys {
    /// # Errors
    /// With fewer than 32 bytes of secret.
    pub fn new(secret: &[u8]) -> Result<Self, WeakKey> {
        let weak = || WeakKey { got: secret.len() };
        if secret.len() < MIN_SECRET {
            return Err(weak());
        }
        Hmac::new_from_slice(secret).map(|keyed| Self { keyed }).map_err(|_| weak())
    }

    /// Signs claims: an unpadded base64url JWT with a numeric `exp`.
    ///
    /// Browsers' `atob`, which web-sdk applies to the raw payload, knows neither `-` nor `_`. Base64url writes them only
    /// for six bits of `62` or `63`, and in ASCII text those come only from `>`, `?`, `~` and DEL at the end of a group
    /// of three. So these four, and everything beyond ASCII, are written as JSON escapes.
    pub fn issue(&self, claims: &Claims) -> String {
        self.sign(HEADER, &serde_json::json!(Payload::from(claims)).to_string())
    }

    /// What the token says, if we signed it and it is still good. The signature is compared in constant time, before
    /// anything inside is read.
    ///
    /// # Errors
    /// [`AuthError::Malformed`], [`AuthError::Signature`], [`AuthError::Expired`].
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, AuthError> {
        let payload: Payload = serde_json::from_slice(&self.open(HEADER, token)?).map_err(|_| AuthError::Malformed)?;
        let claims = Claims::try_from(payload)?;
        good_at(claims.expires_at, now)?;
        Ok(claims)
    }

    /// Signs the name of a stream, which lets nobody in.
    pub fn issue_resume(&self, resume: &Resume) -> String {
        self.sign(RESUME_HEADER, &serde_json::json!(resume::Payload::from(resume)).to_string())
    }

    /// # Errors
    /// As [`Keys::verify`].
    pub fn verify_resume(&self, token: &str, now: Timestamp) -> Result<Resume, AuthError> {
        let opened = self.open(RESUME_HEADER, token)?;
        let payload: resume::Payload = serde_json::from_slice(&opened).map_err(|_| AuthError::Malformed)?;
        let resume = Resume::try_from(payload)?;
        good_at(resume.expires_at, now)?;
        Ok(resume)
    }

    fn sign(&self, header: &str, json: &str) -> String {
        let mut token = format!("{header}.{}", URL_SAFE_NO_PAD.encode(escape(json)));
        let signature = self.keyed.clone().chain_update(&token).finalize().into_bytes();
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        token
    }

    fn open(&self, header: &str, token: &str) -> Result<Vec<u8>, AuthError> {
        if token.len() > MAX_TOKEN {
            return Err(AuthError::Malformed);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(AuthError::Malformed)?;
        let (found, payload) = signed.split_once('.').ok_or(AuthError::Malformed)?;
        if found != header {
            return Err(AuthError::Malformed);
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| AuthError::Malformed)?;
        let expected = self.keyed.clone().chain_update(signed);
        expected.verify_slice(&signature).map_err(|_| AuthError::Signature)?;
        URL_SAFE_NO_PAD.decode(payload).map_err(|_| AuthError::Malformed)
    }
}

fn good_at(end: Timestamp, now: Timestamp) -> Result<(), AuthError> {
    if end.micros() / SECOND <= now.micros() / SECOND { Err(AuthError::Expired) } else { Ok(()) }
}

/// Outside strings, JSON holds none of these characters, so escaping every occurrence changes strings only.
fn escape(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && !matches!(c, '>' | '?' | '~' | '\u{7f}') {
            escaped.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::engine::general_purpose::STANDARD_NO_PAD;
    use hearsay_protocol::{AccountId, MeetingId};
    use proptest::prelude::*;

    use super::*;
    use crate::{Grant, Permission, Permissions};

    const NOW: Timestamp = Timestamp(1_900_000_000_000_000);

    fn keys() -> Keys {
        Keys::new(&[42; 32]).unwrap()
    }

    fn claims(account: &str, meeting: Option<&str>) -> Claims {
        let grant = Grant {
            account: AccountId::new(account).unwrap(),
            permissions: Permissions::of_an_app(),
            meeting: meeting.map(|meeting| MeetingId::new(meeting).unwrap()),
            name: meeting.map(|_| "Ana ~ né".to_owned()),
        };
        Claims::new(&grant, NOW, Duration::from_secs(60))
    }

    /// What symbl-js and web-sdk do: the middle part through `atob` and a JSON parser, then a numeric `exp`.
    fn as_a_browser_reads_it(token: &str) -> serde_json::Value {
        let parts: Vec<_> = token.split('.').collect();
        assert_eq!(parts.len(), 3);
        let json = STANDARD_NO_PAD.decode(parts[1]).expect("atob takes the standard alphabet only");
        serde_json::from_slice(&json).unwrap()
    }

    #[test]
    fn the_header_says_what_the_signature_is() {
        let header = |text| URL_SAFE_NO_PAD.decode(text).unwrap();
        assert_eq!(header(HEADER), br#"{"alg":"HS256","typ":"JWT"}"#);
        assert_eq!(header(RESUME_HEADER), br#"{"alg":"HS256","typ":"resume"}"#);
    }

    #[test]
    fn agrees_with_another_implementation() {
        // RFC 7515 appendix A.1: its header has other bytes than ours, so the signature alone is compared.
        let key = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";
        let signed = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let keys = Keys::new(&URL_SAFE_NO_PAD.decode(key).unwrap()).unwrap();
        let signature = keys.keyed.chain_update(signed).finalize().into_bytes();
        assert_eq!(URL_SAFE_NO_PAD.encode(signature), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    }

    #[test]
    fn short_secrets_are_refused() {
        let error = Keys::new(&[1; 31]).err().unwrap();
        assert_eq!(error.to_string(), "the signing secret has 31 bytes; at least 32 are needed");
    }

    #[test]
    fn other_keys_and_other_algorithms_are_refused() {
        let token = keys().issue(&claims("dev", None));
        assert_eq!(Keys::new(&[43; 32]).unwrap().verify(&token, NOW), Err(AuthError::Signature));
        let payload = token.split('.').nth(1).unwrap();
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        for forged in [format!("{none}.{payload}."), format!("{HEADER}.{payload}."), format!("{HEADER}.{payload}")] {
            assert!(keys().verify(&forged, NOW).is_err(), "{forged}");
        }
        for nonsense in ["", ".", "..", "a.b.c", "__PING__", &"a".repeat(MAX_TOKEN + 1)] {
            assert_eq!(keys().verify(nonsense, NOW), Err(AuthError::Malformed));
        }
    }

    #[test]
    fn a_permission_of_a_later_version_is_passed_over() {
        let payload = r#"{"sub":"dev","iat":1,"exp":99999999999,"permissions":["subscribe","fly"],"later":{}}"#;
        let signed = format!("{HEADER}.{}", URL_SAFE_NO_PAD.encode(payload));
        let signature = keys().keyed.chain_update(&signed).finalize().into_bytes();
        let claims = keys().verify(&format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)), NOW).unwrap();
        assert_eq!(claims.permissions, [Permission::Subscribe].into_iter().collect());
        assert_eq!(claims.allows(Permission::Publish), Err(AuthError::Forbidden(Permission::Publish)));
    }

    #[test]
    fn a_token_for_one_meeting_opens_no_other() {
        let claims = claims("dev", Some("standup"));
        assert_eq!(claims.require(Permission::Publish, &MeetingId::new("standup").unwrap()), Ok(()));
        let other = MeetingId::new("board").unwrap();
        assert_eq!(claims.require(Permission::Publish, &other), Err(AuthError::OtherMeeting));
    }

    proptest! {
        #[test]
        fn browsers_can_read_every_token(account in r"[\PC>?~]{1,60}", meeting in proptest::option::of(r"[\PC>?~]{1,60}")) {
            let claims = claims(&account, meeting.as_deref());
            let token = keys().issue(&claims);
            prop_assert!(token.len() < MAX_TOKEN / 2);
            let read = as_a_browser_reads_it(&token);
            prop_assert_eq!(read["exp"].as_u64(), Some(NOW.micros() / SECOND + 60));
            prop_assert_eq!(read["sub"].as_str(), Some(account.as_str()));
            prop_assert_eq!(keys().verify(&token, NOW), Ok(claims));
        }

        #[test]
        fn a_changed_token_is_refused(at in 0..4_000usize, to in "[A-Za-z0-9_.-]") {
            let token = keys().issue(&claims("dev", Some("standup")));
            let at = at % token.len();
            let mut changed = token.clone();
            changed.replace_range(at..=at, &to);
            prop_assume!(changed != token);
            prop_assert!(keys().verify(&changed, NOW).is_err());
        }

        #[test]
        fn nothing_a_stranger_sends_is_believed(text in r"\PC{0,300}") {
            prop_assert!(keys().verify(&text, NOW).is_err());
        }
    }
}
