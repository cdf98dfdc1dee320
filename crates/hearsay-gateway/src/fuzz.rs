//! The request of a stranger, for fuzzing: everything that reads it, with what it promises.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use crate::{
    origin,
    request::{self, NoRoute, Query, Route},
};

/// Longest reason that is told, in bytes: it quotes little of what came.
const LONGEST_REASON: usize = 1_024;

/// The first line is method and target, the others are headers. What the HTTP parser would refuse is not looked at.
///
/// # Panics
/// When a promise is broken.
pub fn handshake(data: &[u8]) {
    let mut lines = data.split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let (method, target) = first.split_at(first.iter().position(|byte| *byte == b' ').unwrap_or(0));
    let Ok(method) = Method::from_bytes(method) else { return };
    let target = target.get(1..).unwrap_or_default();
    if target.len() > request::MAX_TARGET {
        return;
    }
    let Ok(uri) = Uri::try_from(target) else { return };
    let mut headers = HeaderMap::new();
    for line in lines.take(32) {
        let (name, value) = line.split_at(line.iter().position(|byte| *byte == b':').unwrap_or(0));
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }

    match Route::of(&method, &uri) {
        Ok(Route::Socket { meeting, .. }) => assert!(!meeting.as_str().is_empty()),
        Ok(_) => {}
        Err(NoRoute::Method { got, accepted }) => assert_ne!(got, accepted),
        Err(error) => assert!(error.to_string().len() < LONGEST_REASON, "{error}"),
    }
    let query = Query::of(&uri);
    if let Err(error) = &query {
        assert!(error.len() < LONGEST_REASON, "{error}");
    }
    let token = request::token(&headers, &query.unwrap_or_default());
    assert!(token.is_none_or(|token| !token.reveal().is_empty() || headers.contains_key("authorization")));
    if let Some(offered) = request::offered_subprotocol(&headers) {
        // It is sent back in a header.
        assert!(HeaderValue::from_str(offered).is_ok());
    }
    if let Err(error) = origin::allowed(&["https://app.example.org".to_owned()], &headers) {
        assert!(error.len() < LONGEST_REASON, "{error}");
    }
}
