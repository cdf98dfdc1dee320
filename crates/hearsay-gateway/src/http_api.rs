//! What each HTTP request is answered: handshakes, tokens, operators' questions.

use std::{net::IpAddr, sync::Arc, time::Duration};

use hearsay_auth::{AuthError, Claims, Grant, Permission, Permissions};
use hearsay_conversation::{Record, Sending};
use hearsay_protocol::{
    ConversationId, ConversationKey, MeetingId, ParticipantId,
    client::Secret,
    event::{History, Participant},
    wire,
};
use http::{HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    accept::Since,
    answer::{self, Answer, BAD_TOKEN},
    history, metrics, origin, records,
    request::{MAX_TARGET, NoRoute, Part, Query, Route, SocketKind, offered_subprotocol, token, traceparent},
    shared::{Shared, hold, wall},
    socket::{Upgrading, handshake},
};

/// Largest body of a token request.
const MAX_BODY: usize = 16 * 1024;
/// How long a body may take.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection that is to become a socket.
pub(crate) struct Upgrade {
    pub(crate) upgrading: Upgrading,
    pub(crate) purpose: Purpose,
}

/// What a socket is there for.
pub(crate) enum Purpose {
    Meeting { kind: SocketKind, meeting: MeetingId, claims: Box<Claims>, query: Box<Query> },
    Echo,
}

pub(crate) async fn answer(
    shared: &Shared,
    request: Request<Incoming>,
    address: IpAddr,
    since: Since,
) -> (Answer, Option<Upgrade>) {
    match origin::allowed(&shared.config.origins, request.headers()) {
        Ok(allowed) => {
            let (mut answer, upgrade) = answer_any(shared, request, address, since).await;
            allowed.mark(&mut answer);
            (answer, upgrade)
        }
        Err(message) => {
            metrics::origin_refused();
            (answer::unreadable(answer::error(StatusCode::FORBIDDEN, &message)), None)
        }
    }
}

async fn answer_any(
    shared: &Shared,
    mut request: Request<Incoming>,
    address: IpAddr,
    since: Since,
) -> (Answer, Option<Upgrade>) {
    if request.method() == Method::OPTIONS {
        return (answer::preflight(), None);
    }
    if let Some(answer) = shared.admin.as_ref().and_then(|admin| admin.answer(&request)) {
        return (answer, None);
    }
    if since == Since::Drain {
        return (going_away(), None);
    }
    let size = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    if size > MAX_TARGET {
        return (answer::error(StatusCode::URI_TOO_LONG, "path and query are too long"), None);
    }
    let route = match Route::of(request.method(), request.uri()) {
        Ok(route) => route,
        Err(error) => return (no_route(&error), None),
    };
    let answered = match route {
        Route::Socket { kind, meeting } => match open_socket(shared, &mut request, kind, meeting) {
            Ok((answer, upgrade)) => return (answer, Some(upgrade)),
            Err(refused) => Err(refused),
        },
        Route::Echo if shared.config.echo => match upgrade(&mut request) {
            Ok((answer, upgrading)) => return (answer, Some(Upgrade { upgrading, purpose: Purpose::Echo })),
            Err(refused) => Err(refused),
        },
        Route::Echo => Ok(no_route(&NoRoute::Unknown)),
        Route::GenerateToken => generate(shared, request).await,
        Route::RefreshToken => refresh(shared, request).await,
        Route::RevokeToken => Ok(answer::error(
            StatusCode::NOT_IMPLEMENTED,
            "tokens carry their own end and cannot be revoked; ask for short-lived ones with expiresIn, and for guests with \
             type \"meeting\" (token:generate)",
        )),
        Route::Asset(asset) => Ok(asset.answer(request.headers())),
        Route::Conversation { id, part } => conversation(shared, &request, id, part).await,
    };
    match answered {
        Ok(answer) => (answer, None),
        Err(Refused::Answer(answer)) => (*answer, None),
        Err(Refused::Auth(error)) => {
            metrics::token_refused(error.name());
            hold(shared, address).await;
            let answer = if error.is_forbidden() {
                answer::error(StatusCode::FORBIDDEN, &error.to_string())
            } else if error == AuthError::Credentials {
                answer::error(StatusCode::UNAUTHORIZED, &error.to_string())
            } else {
                answer::error(StatusCode::UNAUTHORIZED, BAD_TOKEN)
            };
            (answer::and_close(answer), None)
        }
    }
}

fn going_away() -> Answer {
    let answer = answer::error_for_now(StatusCode::SERVICE_UNAVAILABLE, "this gateway is going away", 1);
    answer::and_close(answer)
}

/// Why a request gets something else than it asked for.
enum Refused {
    /// Answered after a while: see [`crate::refusal`].
    Auth(AuthError),
    Answer(Box<Answer>),
}

impl From<AuthError> for Refused {
    fn from(error: AuthError) -> Self {
        Self::Auth(error)
    }
}

fn refused(status: StatusCode, message: &str) -> Refused {
    Refused::Answer(Box::new(answer::error(status, message)))
}

fn no_route(error: &NoRoute) -> Answer {
    let status = match error {
        NoRoute::Unknown | NoRoute::Conversation => StatusCode::NOT_FOUND,
        NoRoute::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
        NoRoute::Invalid(_) => StatusCode::BAD_REQUEST,
    };
    let mut answer = answer::error(status, &error.to_string());
    if let NoRoute::Method { accepted, .. } = error
        && let Ok(accepted) = HeaderValue::from_str(accepted.as_str())
    {
        answer.headers_mut().insert(header::ALLOW, accepted);
    }
    answer
}

fn verified<B>(shared: &Shared, request: &Request<B>, query: &Query) -> Result<Claims, AuthError> {
    let token = token(request.headers(), query).ok_or(AuthError::Missing)?;
    shared.auth.verify(token.reveal(), wall())
}

fn open_socket(
    shared: &Shared,
    request: &mut Request<Incoming>,
    kind: SocketKind,
    meeting: MeetingId,
) -> Result<(Answer, Upgrade), Refused> {
    let mut query = Query::of(request.uri()).map_err(|error| refused(StatusCode::BAD_REQUEST, &error))?;
    query.trace = traceparent(request.headers()).or(query.trace);
    let claims = verified(shared, request, &query)?;
    let permission = if kind == SocketKind::Speak { Permission::Publish } else { Permission::Subscribe };
    claims.require(permission, &meeting)?;
    if shared.tasks.drain().is_draining() {
        return Err(Refused::Answer(Box::new(going_away())));
    }
    let subprotocol = offered_subprotocol(request.headers()).and_then(|first| HeaderValue::from_str(first).ok());
    let (mut answer, upgrading) = upgrade(request)?;
    if let Some(mut echoed) = subprotocol {
        // It may be the token.
        echoed.set_sensitive(true);
        answer.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, echoed);
    }
    // The token has done its part and is not carried further.
    let query = Box::new(Query { access_token: None, ..query });
    let purpose = Purpose::Meeting { kind, meeting, claims: Box::new(claims), query };
    Ok((answer, Upgrade { upgrading, purpose }))
}

fn upgrade(request: &mut Request<Incoming>) -> Result<(Answer, Upgrading), Refused> {
    handshake(request).map_err(|missing| {
        let mut answer = answer::error(StatusCode::UPGRADE_REQUIRED, missing);
        answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        answer.headers_mut().insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        Refused::Answer(Box::new(answer))
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credentials {
    #[serde(rename = "type")]
    kind: Option<String>,
    app_id: Option<String>,
    app_secret: Option<String>,
    #[serde(flatten)]
    narrow: Narrow,
}

/// What a token for one meeting is to be.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Narrow {
    meeting: Option<String>,
    permissions: Option<Vec<String>>,
    name: Option<String>,
    expires_in: Option<u64>,
}

async fn generate(shared: &Shared, request: Request<Incoming>) -> Result<Answer, Refused> {
    let presented = token(request.headers(), &Query::default());
    let credentials: Credentials = body(request).await?;
    match credentials.kind.as_deref() {
        None | Some("application") => {}
        Some("meeting") => return narrow(shared, presented, credentials.narrow),
        Some(kind) => {
            let kind: String = kind.chars().take(40).collect();
            let message = format!("type is {kind:?}; \"application\" and \"meeting\" are accepted");
            return Err(refused(StatusCode::BAD_REQUEST, &message));
        }
    }
    let (Some(id), Some(secret)) = (credentials.app_id, credentials.app_secret) else {
        return Err(refused(StatusCode::BAD_REQUEST, "appId and appSecret are needed, both strings"));
    };
    let issued = shared.auth.generate(&id, &secret, wall())?;
    Ok(answer::json(StatusCode::OK, &json!({ "accessToken": issued.access_token, "expiresIn": issued.expires_in })))
}

/// Shortest life that may be asked for, in seconds: long enough to connect with.
const SHORTEST: u64 = 60;

/// Who may enter gives somebody else a token for one meeting, with as much of their own rights as they say.
fn narrow(shared: &Shared, presented: Option<Secret>, wanted: Narrow) -> Result<Answer, Refused> {
    let now = wall();
    let held = shared.auth.verify(presented.ok_or(AuthError::Missing)?.reveal(), now)?;
    let invalid = |message: &str| refused(StatusCode::BAD_REQUEST, message);
    let meeting = wanted.meeting.ok_or_else(|| invalid("meeting is missing; the id of a meeting is accepted"))?;
    let meeting = MeetingId::new(&meeting).map_err(|error| invalid(&format!("meeting: {error}")))?;
    let permissions = match wanted.permissions {
        // To be in the meeting is what somebody is invited to, as far as their host may.
        None => [Permission::Publish, Permission::Subscribe]
            .into_iter()
            .filter(|&permission| held.permissions.contains(permission))
            .collect(),
        Some(names) => names.iter().map(|name| permission(name)).collect::<Result<Permissions, _>>()?,
    };
    if permissions.iter().next().is_none() {
        return Err(invalid("permissions are empty; publish, listen and conversations are accepted"));
    }
    if wanted.name.as_ref().is_some_and(|name| name.chars().count() > Grant::MAX_NAME) {
        return Err(invalid(&format!("name is longer than {} characters; shorter ones are accepted", Grant::MAX_NAME)));
    }
    let name = wanted.name.filter(|name| !name.trim().is_empty());
    if wanted.expires_in.is_some_and(|seconds| seconds < SHORTEST) {
        return Err(invalid(&format!("expiresIn is below {SHORTEST}; seconds, from {SHORTEST} on, are accepted")));
    }
    let lifetime = wanted.expires_in.map(Duration::from_secs);
    let grant = Grant { account: held.account.clone(), permissions, meeting: Some(meeting), name };
    let issued = shared.auth.narrow(&held, &grant, lifetime, now)?;
    Ok(answer::json(StatusCode::OK, &json!({ "accessToken": issued.access_token, "expiresIn": issued.expires_in })))
}

/// By its name in tokens, or `listen`, which people say.
fn permission(name: &str) -> Result<Permission, Refused> {
    let name = if name == "listen" { Permission::Subscribe.as_str() } else { name };
    Permission::ALL.into_iter().find(|permission| permission.as_str() == name).ok_or_else(|| {
        let name: String = name.chars().take(40).collect();
        let message =
            format!("permissions has {name:?}; publish, listen, publish:recorded and conversations are accepted");
        refused(StatusCode::BAD_REQUEST, &message)
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Refresh {
    refresh_token: Option<String>,
    /// As the generated clients misspell it.
    refersh_token: Option<String>,
}

/// A token that is still good is exchanged for one of the same rights that is good for longer; one for a single meeting ends
/// when it would have.
async fn refresh(shared: &Shared, request: Request<Incoming>) -> Result<Answer, Refused> {
    let presented = token(request.headers(), &Query::default());
    let body: Refresh = body(request).await?;
    let named = body.refresh_token.or(body.refersh_token).map(Secret::new);
    let token = named.or(presented).ok_or(AuthError::Missing)?;
    let now = wall();
    let claims = shared.auth.verify(token.reveal(), now)?;
    let Claims { account, permissions, meeting, name, .. } = claims.clone();
    let issued = shared.auth.narrow(&claims, &Grant { account, permissions, meeting, name }, None, now)?;
    Ok(answer::json(StatusCode::OK, &json!({ "accessToken": issued.access_token, "expiresIn": issued.expires_in })))
}

async fn body<T: for<'de> Deserialize<'de>>(request: Request<Incoming>) -> Result<T, Refused> {
    let collected = timeout(BODY_TIMEOUT, Limited::new(request.into_body(), MAX_BODY).collect()).await;
    let bytes = match collected {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return Err(refused(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large or broke off")),
        Err(_) => return Err(refused(StatusCode::REQUEST_TIMEOUT, "the body took too long")),
    };
    // The message of a parser may quote what it read, which is a secret here.
    serde_json::from_slice(&bytes)
        .map_err(|_| refused(StatusCode::BAD_REQUEST, "the body is not the JSON object that this path takes"))
}

async fn conversation<B>(
    shared: &Shared,
    request: &Request<B>,
    id: ConversationId,
    part: Part,
) -> Result<Answer, Refused> {
    let query = Query::of(request.uri()).map_err(|error| refused(StatusCode::BAD_REQUEST, &error))?;
    let claims = verified(shared, request, &query)?;
    claims.allows(Permission::Conversations)?;
    let unknown = || Refused::Answer(Box::new(no_route(&NoRoute::Conversation)));
    let key = shared.bus.find(&claims.account, id).await.map_err(|error| unavailable(&error))?.ok_or_else(unknown)?;
    claims.require(Permission::Conversations, &key.meeting.meeting)?;
    // Never closed while requests are served.
    let turn = shared.readers.acquire().await.map_err(|_| unknown())?;
    let record = records::load(&*shared.bus, &key).await.map_err(|error| unavailable(&error))?.ok_or_else(unknown)?;
    drop(turn);
    let body = match part {
        Part::Whole => records::metadata(id, &record),
        Part::Messages => records::messages(id, &record, &query),
        Part::Members => records::members(&record),
        Part::Topics => records::topics(&record),
        Part::Questions => records::questions(&record),
        Part::ActionItems => records::action_items(&record),
        Part::FollowUps => records::follow_ups(&record),
        Part::Insights => records::insights(&record),
        Part::Intents => records::intents(&record),
        Part::Entities => records::entities(&record),
        Part::Trackers => records::trackers(&record),
        Part::Analytics => records::analytics(&record),
        Part::Summary => {
            let elsewhere = match &shared.summarizer {
                Some(it) => it.summary(id, &record, query.refresh).await.map(|answer| (it.model(), answer)),
                None => None,
            };
            records::summary(id, &record, elsewhere)
        }
        Part::Actions => {
            let errands = shared.bus.errands().all(&key).await.map_err(|error| unavailable(&error))?;
            records::actions(errands.iter().filter_map(|(_, what)| Sending::parse(what)))
        }
        Part::History(member) => return member_history(shared, &claims, &key, &record, member).await,
    };
    Ok(answer::json(StatusCode::OK, &body))
}

/// `GET …/members/{id}/history`: for who may read any conversation of the account.
async fn member_history(
    shared: &Shared,
    claims: &Claims,
    key: &ConversationKey,
    record: &Record,
    member: Uuid,
) -> Result<Answer, Refused> {
    if !history::allowed(claims) {
        let message = "this token is good for one meeting, and others are asked about";
        return Err(refused(StatusCode::FORBIDDEN, message));
    }
    let known = record.members.iter().find(|it| it.id == member);
    let known = known.ok_or_else(|| refused(StatusCode::NOT_FOUND, "the conversation has no such member"))?;
    let participant = Arc::new(Participant {
        id: ParticipantId(known.id),
        user_id: known.user_id.clone(),
        name: known.name.clone(),
        email: known.email.clone(),
    });
    let history = match &known.user_id {
        Some(user) => history::of(shared, key, &participant, user).await.map_err(|error| unavailable(&error))?,
        None => History { participant, conversations: Vec::new() },
    };
    Ok(answer::json(StatusCode::OK, &wire::earlier_conversations(&history)))
}

fn unavailable(error: &hearsay_bus::Error) -> Refused {
    tracing::warn!(%error, "a conversation could not be read");
    let answer = answer::error_for_now(StatusCode::SERVICE_UNAVAILABLE, "the log does not answer", 1);
    Refused::Answer(Box::new(answer))
}
