//! What a request asks for: its path, its query, its token. Pure; nothing here is logged.

use hearsay_fanout::History;
use hearsay_protocol::{ConversationId, MeetingId, Position, TraceContext, client::Secret};
use http::{HeaderMap, Method, Uri, header};

use uuid::Uuid;

use crate::assets::Asset;

/// Longest path and query together, in bytes: a meeting's id and a token with room to spare.
pub(crate) const MAX_TARGET: usize = 16 * 1024;

/// What a path leads to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Route {
    Socket {
        kind: SocketKind,
        meeting: MeetingId,
    },
    /// Sends back what it is sent, where the configuration wants that.
    Echo,
    GenerateToken,
    RefreshToken,
    RevokeToken,
    Conversation {
        id: ConversationId,
        part: Part,
    },
    /// A file of the page.
    Asset(&'static Asset),
}

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SocketKind {
    Speak,
    Listen,
    /// The older variant, with `transcript_response` beside each result.
    ListenTelephony,
}

/// What of a conversation is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    Messages,
    Members,
    Topics,
    Questions,
    ActionItems,
    FollowUps,
    Insights,
    Intents,
    Entities,
    Trackers,
    Analytics,
    Summary,
    /// What was sent to others because of it.
    Actions,
    /// What is known of a member from other conversations.
    History(Uuid),
}

impl Part {
    /// By its name in a path.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "messages" => Self::Messages,
            "members" => Self::Members,
            "topics" => Self::Topics,
            "questions" => Self::Questions,
            "action-items" => Self::ActionItems,
            "follow-ups" => Self::FollowUps,
            "insights" => Self::Insights,
            "intents" => Self::Intents,
            "entities" => Self::Entities,
            // SDKs ask for the first, documents name the second.
            "trackers" | "trackers-detected" => Self::Trackers,
            "analytics" => Self::Analytics,
            "summary" => Self::Summary,
            "actions" => Self::Actions,
            _ => {
                let member = name.strip_prefix("members/")?.strip_suffix("/history")?;
                return Uuid::try_parse(member).ok().map(Self::History);
            }
        })
    }
}

/// Why there is no route.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoRoute {
    #[error("there is nothing at this path")]
    Unknown,
    #[error("this path does not take {got}; {accepted} is accepted")]
    Method { got: Method, accepted: Method },
    #[error("{0}")]
    Invalid(String),
    /// As documented for conversations.
    #[error("The conversationId is either invalid or does not exist.")]
    Conversation,
}

/// Streaming under its two names, then the two for listening.
const SOCKETS: [(&str, SocketKind); 4] = [
    ("/v1/realtime/insights/", SocketKind::Speak),
    ("/v1/streaming/", SocketKind::Speak),
    ("/v1/subscribe/", SocketKind::Listen),
    ("/session/subscribe/", SocketKind::ListenTelephony),
];

impl Route {
    /// Finds the route of a request.
    ///
    /// # Errors
    /// See [`NoRoute`].
    pub(crate) fn of(method: &Method, uri: &Uri) -> Result<Self, NoRoute> {
        let path = uri.path();
        let only = |accepted: Method, route: Self| {
            if *method == accepted { Ok(route) } else { Err(NoRoute::Method { got: method.clone(), accepted }) }
        };
        for (prefix, kind) in SOCKETS {
            // Everything behind the prefix is the meeting's id, slashes too.
            let Some(raw) = path.strip_prefix(prefix) else { continue };
            let text = decode(raw).ok_or_else(|| NoRoute::Invalid("the meeting id is not UTF-8".to_owned()))?;
            let meeting = MeetingId::new(&text).map_err(|error| NoRoute::Invalid(error.to_string()))?;
            return only(Method::GET, Self::Socket { kind, meeting });
        }
        if let Some(asset) = Asset::at(path) {
            // Answered alike: the connection leaves the body of a HEAD out.
            return if *method == Method::HEAD {
                Ok(Self::Asset(asset))
            } else {
                only(Method::GET, Self::Asset(asset))
            };
        }
        match path {
            "/echo" => return only(Method::GET, Self::Echo),
            "/oauth2/token:generate" => return only(Method::POST, Self::GenerateToken),
            "/oauth2/token:refresh" => return only(Method::POST, Self::RefreshToken),
            "/oauth2/token:revoke" => return only(Method::DELETE, Self::RevokeToken),
            _ => {}
        }
        let Some(rest) = path.strip_prefix("/v1/conversations/") else { return Err(NoRoute::Unknown) };
        let (id, part) = match rest.split_once('/') {
            None => (rest, Part::Whole),
            Some((id, name)) => (id, Part::named(name).ok_or(NoRoute::Unknown)?),
        };
        let id = id.parse().map_err(|_| NoRoute::Conversation)?;
        only(Method::GET, Self::Conversation { id, part })
    }
}

/// Which client a socket says it is: a hint and a metrics label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Source {
    Web,
    Js,
    Python,
    #[default]
    Other,
}

impl Source {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Web => "web_sdk",
            Self::Js => "js_sdk",
            Self::Python => "python_sdk",
            Self::Other => "other",
        }
    }
}

/// A query, as far as we know its keys. The first of a repeated key counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Query {
    pub(crate) access_token: Option<Secret>,
    pub(crate) source: Source,
    pub(crate) since: Option<Position>,
    pub(crate) history: History,
    pub(crate) view_all: bool,
    /// Who comes, goes and speaks; speakers ask for it in their start request.
    pub(crate) presence: bool,
    /// Words with each message.
    pub(crate) verbose: bool,
    /// How each message feels.
    pub(crate) sentiment: bool,
    /// A summary that is made anew.
    pub(crate) refresh: bool,
    /// The trace the client is in, and whether it is sampled. Web pages cannot send the header.
    pub(crate) trace: Option<(TraceContext, bool)>,
}

impl Query {
    /// # Errors
    /// Names the key, what came and what is accepted.
    pub(crate) fn of(uri: &Uri) -> Result<Self, String> {
        let mut query = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        for pair in uri.query().unwrap_or_default().split('&') {
            let (key, raw) = pair.split_once('=').unwrap_or((pair, ""));
            if seen.contains(&key) || seen.len() > 32 {
                continue;
            }
            seen.push(key);
            let value = || decode(raw).ok_or_else(|| format!("{key} is not UTF-8"));
            match key {
                "access_token" => {
                    query.access_token = Some(value()?).filter(|token| !token.is_empty()).map(Secret::new)
                }
                "source" => {
                    query.source = match raw {
                        "web_sdk" => Source::Web,
                        "js_sdk" => Source::Js,
                        "python_sdk" => Source::Python,
                        _ => Source::Other,
                    }
                }
                "since" => query.since = Some(value()?.parse().map_err(|error| format!("since: {error}"))?),
                "history" => {
                    query.history = match value()?.as_str() {
                        "none" => History::None,
                        "snapshot" => History::Snapshot,
                        "all" => History::All,
                        other => {
                            return Err(format!("history is {:?}; none, snapshot or all is accepted", short(other)));
                        }
                    }
                }
                "view" => match value()?.as_str() {
                    "all" => query.view_all = true,
                    "default" | "" => {}
                    other => return Err(format!("view is {:?}; all is accepted", short(other))),
                },
                "presence" => {
                    query.presence = match value()?.as_str() {
                        "true" => true,
                        "false" | "" => false,
                        other => return Err(format!("presence is {:?}; true or false is accepted", short(other))),
                    }
                }
                "traceparent" => query.trace = TraceContext::of_traceparent(raw),
                "verbose" => query.verbose = raw == "true",
                "sentiment" => query.sentiment = raw == "true",
                "refresh" => query.refresh = raw == "true",
                _ => {}
            }
        }
        Ok(query)
    }
}

/// The client's place in a trace, by its header.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<(TraceContext, bool)> {
    TraceContext::of_traceparent(headers.get("traceparent")?.to_str().ok()?)
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

/// The token, from wherever the client put it.
pub(crate) fn token(headers: &HeaderMap, query: &Query) -> Option<Secret> {
    let header = |name: &str| headers.get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty());
    query
        .access_token
        .clone()
        .or_else(|| header("x-api-key").map(|token| Secret::new(token.to_owned())))
        .or_else(|| bearer(header(header::AUTHORIZATION.as_str())?))
        .or_else(|| offered_subprotocol(headers).map(|token| Secret::new(token.to_owned())))
}

fn bearer(value: &str) -> Option<Secret> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token.trim().to_owned()))
}

/// The first subprotocol a client offers; it must be echoed, or the client fails the handshake.
pub(crate) fn offered_subprotocol(headers: &HeaderMap) -> Option<&str> {
    let offered = headers.get(header::SEC_WEBSOCKET_PROTOCOL)?.to_str().ok()?;
    let first = offered.split(',').next()?.trim();
    (!first.is_empty()).then_some(first)
}

/// Decodes percent escapes once. What is no escape stays as it is. None: not UTF-8.
fn decode(raw: &str) -> Option<String> {
    let bytes = raw.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let escape = bytes.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let digit = |byte: u8| char::from(byte).to_digit(16);
        match escape.and_then(|pair| Some((digit(pair[0])? * 16 + digit(pair[1])?) as u8)) {
            Some(byte) => {
                decoded.push(byte);
                at += 3;
            }
            None => {
                decoded.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    fn socket(uri: &str) -> Result<(SocketKind, String), NoRoute> {
        match Route::of(&Method::GET, &uri.parse().unwrap())? {
            Route::Socket { kind, meeting } => Ok((kind, meeting.to_string())),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn everything_behind_the_prefix_names_the_meeting() {
        for (uri, kind, meeting) in [
            ("/v1/realtime/insights/abc?source=web_sdk", SocketKind::Speak, "abc"),
            ("/v1/streaming/abc", SocketKind::Speak, "abc"),
            ("/v1/subscribe/abc", SocketKind::Listen, "abc"),
            ("/session/subscribe/abc", SocketKind::ListenTelephony, "abc"),
            ("/v1/streaming/dXNlckBleGFtcGxlLmNvbQ==", SocketKind::Speak, "dXNlckBleGFtcGxlLmNvbQ=="),
            ("/v1/streaming/dXNlckBleGFtcGxlLmNvbQ%3D%3D", SocketKind::Speak, "dXNlckBleGFtcGxlLmNvbQ=="),
            ("/v1/streaming/-wAmKVF9z8gEKXuVl28dOQ", SocketKind::Speak, "-wAmKVF9z8gEKXuVl28dOQ"),
            ("/v1/streaming/a/b+c=/d", SocketKind::Speak, "a/b+c=/d"),
            ("/v1/streaming/%2525", SocketKind::Speak, "%25"),
            ("/v1/streaming/50%", SocketKind::Speak, "50%"),
            ("/v1/streaming/%zz", SocketKind::Speak, "%zz"),
        ] {
            assert_eq!(socket(uri), Ok((kind, meeting.to_owned())), "{uri}");
        }
        for uri in ["/v1/streaming/", "/v1/streaming/%00", "/v1/streaming/%ff"] {
            assert!(matches!(socket(uri), Err(NoRoute::Invalid(_))), "{uri}");
        }
        assert!(matches!(socket(&format!("/v1/streaming/{}", "x".repeat(257))), Err(NoRoute::Invalid(_))));
    }

    #[test]
    fn other_paths_and_methods_are_told_apart() {
        let route = |method: &str, uri: &str| Route::of(&method.parse().unwrap(), &uri.parse().unwrap());
        assert_eq!(route("POST", "/oauth2/token:generate"), Ok(Route::GenerateToken));
        assert_eq!(route("DELETE", "/oauth2/token:revoke"), Ok(Route::RevokeToken));
        let id: ConversationId = "5098141190283264".parse().unwrap();
        let of = |part| Ok(Route::Conversation { id, part });
        assert_eq!(route("GET", "/v1/conversations/5098141190283264"), of(Part::Whole));
        assert_eq!(route("GET", "/v1/conversations/5098141190283264/messages"), of(Part::Messages));
        assert_eq!(route("GET", "/v1/conversations/5098141190283264/summary?refresh=true"), of(Part::Summary));
        assert_eq!(route("GET", "/v1/conversations/x/messages"), Err(NoRoute::Conversation));
        assert_eq!(route("GET", "/v1/conversations/5098141190283264/nonsense"), Err(NoRoute::Unknown));
        for path in ["/", "/?meeting=stand-up&name=Ana", "/hearsay.js", "/page.css"] {
            assert!(matches!(route("GET", path), Ok(Route::Asset(_))), "{path}");
            assert!(matches!(route("HEAD", path), Ok(Route::Asset(_))), "{path}");
            assert!(matches!(route("POST", path), Err(NoRoute::Method { .. })), "{path}");
        }
        assert_eq!(route("GET", "/nothing"), Err(NoRoute::Unknown));
        assert!(matches!(route("GET", "/oauth2/token:generate"), Err(NoRoute::Method { .. })));
        assert!(matches!(route("POST", "/v1/streaming/x"), Err(NoRoute::Method { .. })));
    }

    #[test]
    fn queries_are_read_and_refused_by_name() {
        let query = |text: &str| Query::of(&format!("/x?{text}").parse().unwrap());
        let read = query(
            "source=python_sdk&since=0badcafe:17&history=snapshot&view=all&presence=true&other=1&access_token=a.b.c",
        )
        .unwrap();
        assert_eq!((read.source, read.history, read.view_all), (Source::Python, History::Snapshot, true));
        assert!(read.presence);
        assert_eq!(read.since.unwrap().to_string(), "0badcafe:17");
        assert_eq!(query("since=0badcafe%3A17").unwrap().since, read.since);
        assert_eq!(read.access_token.unwrap().reveal(), "a.b.c");
        for (text, error) in [
            ("history=some", "history is \"some\"; none, snapshot or all is accepted"),
            ("presence=some", "presence is \"some\"; true or false is accepted"),
            ("view=some", "view is \"some\"; all is accepted"),
        ] {
            assert_eq!(query(text).unwrap_err(), error);
        }
        assert!(query("since=17").unwrap_err().starts_with("since: "));
        assert_eq!(query("").unwrap(), Query::default());
    }

    #[test]
    fn a_token_is_taken_from_any_place() {
        let with = |name: &'static str, value: &str| {
            HeaderMap::from_iter([(http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
        };
        let none = Query::default();
        for headers in [
            with("x-api-key", "a.b.c"),
            with("authorization", "Bearer a.b.c"),
            with("authorization", "bearer a.b.c"),
            with("sec-websocket-protocol", "a.b.c"),
            with("sec-websocket-protocol", "a.b.c, other"),
        ] {
            assert_eq!(token(&headers, &none).unwrap().reveal(), "a.b.c", "{headers:?}");
        }
        let query = Query { access_token: Some(Secret::new("q".to_owned())), ..Query::default() };
        assert_eq!(token(&with("x-api-key", "a"), &query).unwrap().reveal(), "q");
        assert!(token(&with("authorization", "Basic a.b.c"), &none).is_none());
        assert!(token(&HeaderMap::new(), &none).is_none());
    }

    proptest! {
        #[test]
        fn arbitrary_targets_never_panic(path in "/[ -~]{0,80}", raw in ".{0,40}") {
            let _ = decode(&raw);
            if let Ok(uri) = path.parse::<Uri>() {
                let _ = Route::of(&Method::GET, &uri);
                let _ = Query::of(&uri);
            }
        }

        #[test]
        fn every_meeting_id_survives_being_escaped(id in "[^\\p{Cc}]{1,60}") {
            let escaped: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(socket(&format!("/v1/streaming/{escaped}")), Ok((SocketKind::Speak, id)));
        }
    }
}
