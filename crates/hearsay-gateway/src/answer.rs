//! HTTP answers: JSON bodies, errors as `{"message"}`, and what browsers of other origins need to read them.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use serde_json::json;

pub(crate) type Answer = Response<Full<Bytes>>;

/// Symbl's own words.
pub(crate) const BAD_TOKEN: &str = "Token validation failed for provided token.";

pub(crate) fn json(status: StatusCode, body: &serde_json::Value) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body.to_string())));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    allow_origins(answer.headers_mut());
    answer
}

pub(crate) fn error(status: StatusCode, message: &str) -> Answer {
    json(status, &json!({ "message": message }))
}

/// The same, and when to try again.
pub(crate) fn error_for_now(status: StatusCode, message: &str, seconds: u64) -> Answer {
    let mut answer = error(status, message);
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    answer
}

/// The connection is of no more use to its client.
pub(crate) fn and_close(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}

/// For no page of another origin to read.
pub(crate) fn unreadable(mut answer: Answer) -> Answer {
    answer.headers_mut().remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    answer
}

/// Tokens travel in headers, never in cookies, so any page may ask.
fn allow_origins(headers: &mut HeaderMap) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
}

/// The answer to every preflight. A day is the longest browsers remember it.
pub(crate) fn preflight() -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::NO_CONTENT;
    let headers = answer.headers_mut();
    allow_origins(headers);
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, PATCH, DELETE"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "content-type, x-api-key, authorization, accept"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    answer
}
