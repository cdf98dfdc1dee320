//! What a token says.

use std::{fmt, time::Duration};

use hearsay_protocol::{AccountId, MeetingId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::AuthError;

/// One thing a token may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Permission {
    /// Speak in meetings.
    #[serde(rename = "publish")]
    Publish,
    /// Listen to meetings.
    #[serde(rename = "subscribe")]
    Subscribe,
    /// Send a recorded file faster than real time.
    #[serde(rename = "publish:recorded")]
    PublishRecorded,
    /// Read, change and delete conversations over REST.
    #[serde(rename = "conversations")]
    Conversations,
    /// See and change what belongs to the operator.
    #[serde(rename = "admin")]
    Admin,
}

impl Permission {
    pub const ALL: [Self; 5] =
        [Self::Publish, Self::Subscribe, Self::PublishRecorded, Self::Conversations, Self::Admin];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Subscribe => "subscribe",
            Self::PublishRecorded => "publish:recorded",
            Self::Conversations => "conversations",
            Self::Admin => "admin",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Permissions(u8);

impl Permissions {
    pub const NONE: Self = Self(0);

    /// What an application's credentials give: everything but `admin`.
    pub fn of_an_app() -> Self {
        Permission::ALL.into_iter().filter(|&permission| permission != Permission::Admin).collect()
    }

    pub fn contains(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL.into_iter().filter(move |&permission| self.contains(permission))
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        Self(permissions.into_iter().fold(0, |bits, permission| bits | permission.bit()))
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter().map(Permission::as_str)).finish()
    }
}

/// What a token is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub account: AccountId,
    pub permissions: Permissions,
    /// Good for this meeting only.
    pub meeting: Option<MeetingId>,
    /// What its holder is called in meetings where they do not say it themselves; at most [`Grant::MAX_NAME`] characters.
    pub name: Option<String>,
}

impl Grant {
    /// Longest name, in characters: beside the longest ids the token stays one that is read.
    pub const MAX_NAME: usize = 64;
}

/// What a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    pub account: AccountId,
    pub permissions: Permissions,
    /// Good for this meeting only.
    pub meeting: Option<MeetingId>,
    /// What its holder is called where they do not say it themselves.
    pub name: Option<String>,
    /// In whole seconds, as the token carries them.
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

impl Claims {
    pub fn new(grant: &Grant, now: Timestamp, lifetime: Duration) -> Self {
        let issued = now.micros() / SECOND;
        let Grant { account, permissions, meeting, name } = grant.clone();
        Self {
            account,
            permissions,
            meeting,
            name,
            issued_at: Timestamp(issued * SECOND),
            expires_at: Timestamp((issued + lifetime.as_secs()) * SECOND),
        }
    }

    /// # Errors
    /// [`AuthError::Forbidden`] without the permission, [`AuthError::OtherMeeting`] when the token is for another one.
    pub fn require(&self, permission: Permission, meeting: &MeetingId) -> Result<(), AuthError> {
        self.allows(permission)?;
        match &self.meeting {
            Some(only) if only != meeting => Err(AuthError::OtherMeeting),
            _ => Ok(()),
        }
    }

    /// What remains of its life; none: it is over.
    pub fn remaining(&self, now: Timestamp) -> Duration {
        Duration::from_micros(self.expires_at.micros().saturating_sub(now.micros()))
    }

    /// The same rights again, or fewer: for one meeting, with some of the permissions. What is for one meeting only never
    /// outlives `self`, so that a guest's link cannot be renewed for ever.
    ///
    /// # Errors
    /// [`AuthError::Forbidden`] for a permission that `self` does not have, [`AuthError::OtherMeeting`].
    pub fn narrowed(&self, grant: &Grant, now: Timestamp, lifetime: Duration) -> Result<Self, AuthError> {
        for permission in grant.permissions.iter() {
            self.allows(permission)?;
        }
        if self.account != grant.account || (self.meeting.is_some() && self.meeting != grant.meeting) {
            return Err(AuthError::OtherMeeting);
        }
        let mut claims = Self::new(grant, now, lifetime);
        if self.meeting.is_some() {
            claims.expires_at = claims.expires_at.min(self.expires_at);
        }
        Ok(claims)
    }

    /// # Errors
    /// [`AuthError::Forbidden`].
    pub fn allows(&self, permission: Permission) -> Result<(), AuthError> {
        if self.permissions.contains(permission) { Ok(()) } else { Err(AuthError::Forbidden(permission)) }
    }
}

/// µs.
pub(crate) const SECOND: u64 = 1_000_000;

/// The payload of a token. Unknown keys are another version's: they are passed over, unknown permissions too.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Payload {
    sub: String,
    iat: u64,
    exp: u64,
    permissions: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    meeting: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

impl From<&Claims> for Payload {
    fn from(claims: &Claims) -> Self {
        Self {
            sub: claims.account.as_str().to_owned(),
            iat: claims.issued_at.micros() / SECOND,
            exp: claims.expires_at.micros() / SECOND,
            permissions: claims.permissions.iter().map(|permission| permission.as_str().to_owned()).collect(),
            meeting: claims.meeting.as_ref().map(|meeting| meeting.as_str().to_owned()),
            name: claims.name.clone(),
        }
    }
}

impl TryFrom<Payload> for Claims {
    type Error = AuthError;

    fn try_from(payload: Payload) -> Result<Self, AuthError> {
        let seconds = |seconds: u64| seconds.checked_mul(SECOND).map(Timestamp).ok_or(AuthError::Malformed);
        let known = |name: &String| Permission::ALL.into_iter().find(|permission| permission.as_str() == name);
        let meeting = payload.meeting.as_deref().map(MeetingId::new).transpose();
        Ok(Self {
            account: AccountId::new(&payload.sub).map_err(|_| AuthError::Malformed)?,
            permissions: payload.permissions.iter().filter_map(known).collect(),
            meeting: meeting.map_err(|_| AuthError::Malformed)?,
            name: payload.name,
            issued_at: seconds(payload.iat)?,
            expires_at: seconds(payload.exp)?,
        })
    }
}
