//! Which web pages may use this gateway from a browser.
//!
//! Nothing here is ambient: there are no cookies, and a token travels only where a page puts it. So a page without a token
//! gets nothing, wherever it is from, a page with one was given it, and no request can be forged in a visitor's name. That
//! is why every origin is accepted by default, as the stock SDKs need, which run in other people's pages. A list narrows
//! it: then a token that leaked to another site is of no use to that site's pages. What is not a browser sends no `Origin`,
//! and is not concerned; what has it from this very host neither. The page itself is never readable from elsewhere.

use http::{HeaderMap, HeaderValue, Uri, header};

use crate::answer::Answer;

/// Every origin.
const ANY: &str = "*";

/// # Errors
/// Says what an origin looks like.
pub(crate) fn check(origin: &str) -> Result<(), String> {
    let wrong = || {
        Err(format!(
            "gateway.origins has {origin:?}; \"*\" and origins as browsers send them, for instance \"https://app.example.org\", are accepted"
        ))
    };
    if origin == ANY {
        return Ok(());
    }
    let Ok(uri) = origin.parse::<Uri>() else { return wrong() };
    let whole = uri.scheme().is_some() && uri.authority().is_some() && uri.path() == "/" && uri.query().is_none();
    if whole && !origin.ends_with('/') { Ok(()) } else { wrong() }
}

/// What the request's origin is answered with.
pub(crate) enum Allowed {
    /// No browser, or every origin is accepted.
    Any,
    /// This one is.
    This(HeaderValue),
}

/// # Errors
/// What is told to a page of an origin that is not accepted.
pub(crate) fn allowed(origins: &[String], headers: &HeaderMap) -> Result<Allowed, String> {
    let Some(value) = headers.get(header::ORIGIN) else { return Ok(Allowed::Any) };
    if origins.iter().any(|origin| origin == ANY) {
        return Ok(Allowed::Any);
    }
    let origin = value.to_str().unwrap_or_default();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let own = origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host));
    if own || origins.iter().any(|accepted| accepted.eq_ignore_ascii_case(origin)) {
        return Ok(Allowed::This(value.clone()));
    }
    let shown: String = origin.chars().take(100).collect();
    Err(format!("origin {shown:?} is not accepted here; this host and those in gateway.origins are"))
}

impl Allowed {
    /// Says who may read the answer, where it says that anybody may.
    pub(crate) fn mark(&self, answer: &mut Answer) {
        let Self::This(origin) = self else { return };
        let headers = answer.headers_mut();
        if headers.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN) {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        }
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(origins: &[&str], origin: Option<&str>, host: &str) -> Result<bool, String> {
        let origins: Vec<_> = origins.iter().map(|&origin| origin.to_owned()).collect();
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        allowed(&origins, &headers).map(|allowed| matches!(allowed, Allowed::This(_)))
    }

    #[test]
    fn pages_of_listed_origins_and_of_this_host_are_accepted() {
        let listed = ["https://app.example.org"];
        for (origin, named) in [
            (None, false),
            (Some("https://app.example.org"), true),
            (Some("https://APP.example.org"), true),
            (Some("http://hearsay.local:8080"), true),
        ] {
            assert_eq!(asks(&listed, origin, "hearsay.local:8080"), Ok(named), "{origin:?}");
        }
        for origin in [
            "https://app.example.org.evil.example",
            "https://app.example.org:444",
            "http://app.example.org",
            "http://hearsay.local",
            "null",
            "",
        ] {
            assert!(asks(&listed, Some(origin), "hearsay.local:8080").is_err(), "{origin}");
            assert_eq!(asks(&["*"], Some(origin), "hearsay.local:8080"), Ok(false));
        }
        assert!(asks(&[], Some("https://app.example.org"), "hearsay.local").is_err());
    }

    #[test]
    fn what_is_no_origin_is_told() {
        for good in ["*", "https://app.example.org", "http://127.0.0.1:3000"] {
            assert_eq!(check(good), Ok(()));
        }
        for bad in ["", "app.example.org", "https://app.example.org/", "https://app.example.org/page", "*.example.org"]
        {
            assert!(check(bad).unwrap_err().contains("gateway.origins"), "{bad}");
        }
    }
}
