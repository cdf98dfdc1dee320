//! Who may do what: application credentials in, tokens out, claims back. No I/O, no clock, no randomness of its own:
//! `now` and random bytes are handed in.
//!
//! Tokens are JWTs with one fixed algorithm, HS256, written out here rather than taken from a general library: there is
//! no algorithm to choose, hence none to confuse, and no RSA or elliptic curve in the build. What existing clients do
//! with a token narrows its form further, see [`token`](Keys::issue).

mod claims;
mod credentials;
mod resume;
mod token;

use std::{sync::Arc, time::Duration};

use hearsay_protocol::{AccountId, Timestamp};

pub use claims::{Claims, Grant, Permission, Permissions};
pub use credentials::{App, Secret, UnusableApp};
pub use resume::Resume;
pub use token::{Keys, WeakKey};

/// Why somebody was not let in. Always the client's to repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    #[error("there is no token; send it as access_token, X-API-KEY, Authorization: Bearer or subprotocol")]
    Missing,
    #[error("the token is not one of ours")]
    Malformed,
    #[error("the token's signature does not match")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the combination of appId and appSecret is not valid")]
    Credentials,
    #[error("the token does not carry the permission {0}")]
    Forbidden(Permission),
    #[error("the token is for another meeting")]
    OtherMeeting,
}

impl AuthError {
    /// The caller is known, but may not do this: 403 and not 401.
    pub fn is_forbidden(self) -> bool {
        matches!(self, Self::Forbidden(_) | Self::OtherMeeting)
    }

    /// For metric labels.
    pub fn name(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Credentials => "credentials",
            Self::Forbidden(_) => "forbidden",
            Self::OtherMeeting => "other_meeting",
        }
    }
}

/// Everything a gateway needs to let clients in. Cheap to clone.
#[derive(Clone)]
pub struct Auth {
    inner: Arc<Inner>,
}

struct Inner {
    keys: Keys,
    apps: Vec<(App, AccountId)>,
    lifetime: Duration,
}

/// What `POST /oauth2/token:generate` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    pub access_token: String,
    /// In seconds.
    pub expires_in: u64,
}

impl Auth {
    /// Each application may speak for one account. `lifetime` is that of tokens, in whole seconds, at least one.
    pub fn new(keys: Keys, apps: Vec<(App, AccountId)>, lifetime: Duration) -> Self {
        Self { inner: Arc::new(Inner { keys, apps, lifetime: Duration::from_secs(lifetime.as_secs().max(1)) }) }
    }

    /// A token for these credentials, with every permission but `admin`.
    ///
    /// # Errors
    /// [`AuthError::Credentials`]. Takes the same time whichever part is wrong, and however much of it.
    pub fn generate(&self, app_id: &str, app_secret: &str, now: Timestamp) -> Result<Issued, AuthError> {
        let mut found = None;
        for (app, account) in &self.inner.apps {
            if app.accepts(app_id, app_secret) {
                found = Some(account);
            }
        }
        let account = found.ok_or(AuthError::Credentials)?.clone();
        Ok(self.issue(&Grant { account, permissions: Permissions::of_an_app(), meeting: None, name: None }, now))
    }

    /// A token for what is granted, with the configured life.
    pub fn issue(&self, grant: &Grant, now: Timestamp) -> Issued {
        let access_token = self.inner.keys.issue(&Claims::new(grant, now, self.inner.lifetime));
        Issued { access_token, expires_in: self.inner.lifetime.as_secs() }
    }

    /// A token with what its asker has, or less: see [`Claims::narrowed`]. It lives for `lifetime`, at most as long as the
    /// configured life.
    ///
    /// # Errors
    /// As [`Claims::narrowed`].
    pub fn narrow(
        &self,
        held: &Claims,
        grant: &Grant,
        lifetime: Option<Duration>,
        now: Timestamp,
    ) -> Result<Issued, AuthError> {
        let lifetime = lifetime.unwrap_or(self.inner.lifetime).min(self.inner.lifetime);
        let claims = held.narrowed(grant, now, lifetime)?;
        let expires_in = claims.remaining(claims.issued_at).as_secs();
        Ok(Issued { access_token: self.inner.keys.issue(&claims), expires_in })
    }

    /// The configured life of tokens.
    pub fn lifetime(&self) -> Duration {
        self.inner.lifetime
    }

    /// See [`Keys::issue_resume`].
    pub fn issue_resume(&self, resume: &Resume) -> String {
        self.inner.keys.issue_resume(resume)
    }

    /// # Errors
    /// As [`Auth::verify`].
    pub fn verify_resume(&self, token: &str, now: Timestamp) -> Result<Resume, AuthError> {
        self.inner.keys.verify_resume(token, now)
    }

    /// # Errors
    /// [`AuthError::Malformed`], [`AuthError::Signature`], [`AuthError::Expired`].
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, AuthError> {
        self.inner.keys.verify(token, now)
    }
}

#[cfg(test)]
mod tests {
    use hearsay_protocol::MeetingId;

    use super::*;

    const NOW: Timestamp = Timestamp(1_900_000_000_000_000);

    fn auth() -> (Auth, App) {
        let app = App::generate(|bytes| bytes.fill(7));
        let keys = Keys::new(b"0123456789abcdef0123456789abcdef").unwrap();
        let other = App::generate(|bytes| bytes.fill(8));
        let acme = AccountId::new("acme").unwrap();
        (Auth::new(keys, vec![(other, AccountId::dev()), (app.clone(), acme)], Duration::from_secs(86_400)), app)
    }

    #[test]
    fn credentials_become_a_token_for_their_account() {
        let (auth, app) = auth();
        let issued = auth.generate(app.id(), app.secret().expose(), NOW).unwrap();
        assert_eq!(issued.expires_in, 86_400);
        let claims = auth.verify(&issued.access_token, NOW).unwrap();
        assert_eq!(claims.account.as_str(), "acme");
        claims.require(Permission::PublishRecorded, &MeetingId::new("any").unwrap()).unwrap();
        assert!(!claims.permissions.contains(Permission::Admin));
    }

    #[test]
    fn wrong_credentials_are_refused_whichever_part_is_wrong() {
        let (auth, app) = auth();
        let (id, secret) = (app.id(), app.secret().expose());
        for (id, secret) in [(id, "x"), ("x", secret), (id, ""), ("", ""), (secret, id)] {
            assert_eq!(auth.generate(id, secret, NOW), Err(AuthError::Credentials));
        }
    }

    #[test]
    fn a_holder_gives_away_no_more_than_it_has() {
        let (auth, app) = auth();
        let held = auth.generate(app.id(), app.secret().expose(), NOW).unwrap();
        let held = auth.verify(&held.access_token, NOW).unwrap();
        let grant = |meeting: &str, permissions: &[Permission]| Grant {
            account: held.account.clone(),
            permissions: permissions.iter().copied().collect(),
            meeting: Some(MeetingId::new(meeting).unwrap()),
            name: Some("Guest".to_owned()),
        };
        let listen = [Permission::Subscribe];
        let issued = auth.narrow(&held, &grant("m", &listen), Some(Duration::from_secs(600)), NOW).unwrap();
        assert_eq!(issued.expires_in, 600);
        let guest = auth.verify(&issued.access_token, NOW).unwrap();
        assert_eq!(guest.name.as_deref(), Some("Guest"));
        let meeting = MeetingId::new("m").unwrap();
        assert_eq!(guest.require(Permission::Publish, &meeting), Err(AuthError::Forbidden(Permission::Publish)));
        assert_eq!(guest.require(Permission::Subscribe, &meeting), Ok(()));
        assert_eq!(guest.require(Permission::Subscribe, &MeetingId::new("n").unwrap()), Err(AuthError::OtherMeeting));
        // A guest makes no host, reaches no other meeting and does not live longer by it.
        let later = NOW + Duration::from_secs(500);
        let speak = [Permission::Publish];
        assert_eq!(
            auth.narrow(&guest, &grant("m", &speak), None, later),
            Err(AuthError::Forbidden(Permission::Publish))
        );
        assert_eq!(auth.narrow(&guest, &grant("n", &listen), None, later), Err(AuthError::OtherMeeting));
        assert_eq!(auth.narrow(&guest, &grant("m", &listen), None, later).unwrap().expires_in, 100);
        let admin = [Permission::Admin];
        assert_eq!(auth.narrow(&held, &grant("m", &admin), None, NOW), Err(AuthError::Forbidden(Permission::Admin)));
        let whole = auth.narrow(&held, &grant("m", &listen), Some(Duration::MAX), NOW).unwrap();
        assert_eq!(whole.expires_in, 86_400, "never longer than tokens live here");
    }

    #[test]
    fn a_token_lives_as_long_as_it_says() {
        let (auth, app) = auth();
        let token = auth.generate(app.id(), app.secret().expose(), NOW).unwrap().access_token;
        let end = NOW + Duration::from_secs(86_400);
        assert!(auth.verify(&token, Timestamp(end.0 - 1)).is_ok());
        assert_eq!(auth.verify(&token, end), Err(AuthError::Expired));
    }
}
