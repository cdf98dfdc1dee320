//! Listeners that send a new token: whether it is good for what they listen to, and for how long.

use std::time::Duration;

use hearsay_auth::{Auth, AuthError, Claims, Permission};
use hearsay_fanout::Renewals;
use hearsay_protocol::{
    MeetingKey,
    client::{ClientError, ErrorCode, Secret},
};

use crate::shared::wall;

/// What a token that came in-band says.
///
/// # Errors
/// What the client is told.
pub(crate) fn renewed(
    auth: &Auth,
    meeting: &MeetingKey,
    token: &Secret,
    permission: Permission,
) -> Result<Claims, ClientError> {
    let claims = auth.verify(token.reveal(), wall()).map_err(|error| {
        let code = if error == AuthError::Expired { ErrorCode::TokenExpired } else { ErrorCode::Forbidden };
        ClientError::new(code, format!("access_token: {error}; a good one for this meeting is accepted"))
    })?;
    if claims.account != meeting.account {
        let details = "access_token is for another account; one for this meeting's is accepted";
        return Err(ClientError::new(ErrorCode::Forbidden, details));
    }
    claims
        .require(permission, &meeting.meeting)
        .map_err(|error| ClientError::new(ErrorCode::Forbidden, format!("access_token: {error}")))?;
    Ok(claims)
}

/// How long a listener may stay by this token.
pub(crate) fn good_for(auth: &Auth, meeting: &MeetingKey, token: &Secret) -> Result<Duration, ClientError> {
    Ok(renewed(auth, meeting, token, Permission::Subscribe)?.remaining(wall()))
}

/// For the rows of listeners, which know no tokens.
pub(crate) struct Clerk {
    pub(crate) auth: Auth,
}

impl Renewals for Clerk {
    fn renew(&self, meeting: &MeetingKey, token: &Secret) -> Result<Duration, ClientError> {
        good_for(&self.auth, meeting, token)
    }
}
