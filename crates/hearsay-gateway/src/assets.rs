//! The page and the client module, part of the binary: no build step, no other host.
//!
//! Nothing here is secret and nothing is given away: the page brings no token. It takes one from its address's fragment
//! (which no server sees; `hearsay dev` prints such a link for whoever started it), from its visitor, or for an app id and
//! secret. So whichever page of another origin, or name rebound to this machine, asks for these files learns nothing.
//!
//! Answers are revalidated by each load, so that a page never meets a module of another version.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::LazyLock,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::answer::Answer;

/// One file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asset {
    path: &'static str,
    media_type: &'static str,
    body: &'static str,
    reach: Reach,
}

/// Who may use a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// A document of ours, with the policy for what it may load.
    Page,
    /// Our page.
    Own,
    /// Pages of any origin: it is a library.
    Everybody,
}

static ASSETS: [Asset; 5] = [
    Asset {
        path: "/",
        media_type: "text/html; charset=utf-8",
        body: include_str!("../assets/index.html"),
        reach: Reach::Page,
    },
    Asset {
        path: "/page.css",
        media_type: "text/css; charset=utf-8",
        body: include_str!("../assets/page.css"),
        reach: Reach::Own,
    },
    Asset {
        path: "/page.js",
        media_type: "text/javascript; charset=utf-8",
        body: include_str!("../assets/page.js"),
        reach: Reach::Own,
    },
    Asset {
        path: "/favicon.svg",
        media_type: "image/svg+xml",
        body: include_str!("../assets/favicon.svg"),
        reach: Reach::Own,
    },
    Asset {
        path: "/hearsay.js",
        media_type: "text/javascript; charset=utf-8",
        body: include_str!("../assets/hearsay.js"),
        reach: Reach::Everybody,
    },
];

/// The version of each, in the same order.
static TAGS: LazyLock<[String; ASSETS.len()]> = LazyLock::new(|| {
    ASSETS.each_ref().map(|asset| {
        let mut hasher = DefaultHasher::new();
        asset.body.hash(&mut hasher);
        format!("\"{:016x}\"", hasher.finish())
    })
});

impl Asset {
    /// The file at a path.
    pub(crate) fn at(path: &str) -> Option<&'static Self> {
        ASSETS.iter().find(|asset| asset.path == path)
    }

    fn tag(&self) -> &'static str {
        ASSETS.iter().position(|asset| asset.path == self.path).map_or("", |index| TAGS[index].as_str())
    }

    /// Answers a GET, or a HEAD, whose body the connection leaves out.
    pub(crate) fn answer(&self, request: &HeaderMap) -> Answer {
        let mut answer = Response::new(Full::new(Bytes::from_static(self.body.as_bytes())));
        if held(request, self.tag()) {
            *answer.body_mut() = Full::default();
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
        }
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        headers.insert(header::ETAG, HeaderValue::from_static(self.tag()));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        let resource_policy = if self.reach == Reach::Everybody { "cross-origin" } else { "same-origin" };
        headers.insert("cross-origin-resource-policy", HeaderValue::from_static(resource_policy));
        match self.reach {
            Reach::Page => {
                headers.insert(header::CONTENT_SECURITY_POLICY, policy(request));
                headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
                headers.insert(
                    "permissions-policy",
                    HeaderValue::from_static("microphone=(self), camera=(), geolocation=()"),
                );
            }
            Reach::Own => {}
            Reach::Everybody => {
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            }
        }
        answer
    }
}

/// The client has this version already.
fn held(request: &HeaderMap, tag: &str) -> bool {
    let tags = request.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    // A proxy that compresses makes a strong tag a weak one.
    tags.flat_map(|list| list.split(',')).any(|held| held.trim().trim_start_matches("W/") == tag || held.trim() == "*")
}

/// The page runs its own scripts and talks to the gateway it came from; nothing else, and in nobody's frame.
fn policy(request: &HeaderMap) -> HeaderValue {
    const RULES: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; \
                         form-action 'none'; frame-ancestors 'none'; connect-src 'self'";
    // Not every browser takes 'self' for sockets of the same host.
    let host = request.get(header::HOST).and_then(|host| host.to_str().ok()).filter(|host| {
        host.len() <= 255 && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".:-[]".contains(&byte))
    });
    let sockets = host.map(|host| format!(" ws://{host} wss://{host}")).unwrap_or_default();
    HeaderValue::from_str(&format!("{RULES}{sockets}")).unwrap_or(HeaderValue::from_static(RULES))
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn with(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn every_file_is_served_as_what_it_is_and_nothing_else() {
        for asset in &ASSETS {
            let answer = Asset::at(asset.path).unwrap().answer(&HeaderMap::new());
            let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(
                (header("content-type"), header("x-content-type-options")),
                (asset.media_type.into(), "nosniff".into())
            );
            assert_eq!((header("cache-control"), header("referrer-policy")), ("no-cache".into(), "no-referrer".into()));
            let open = answer.headers().contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            assert_eq!(open, asset.path == "/hearsay.js", "{}", asset.path);
        }
        assert!(Asset::at("/index.html").is_none());
        assert!(Asset::at("/../page.js").is_none());
    }

    #[test]
    fn who_holds_a_version_is_not_sent_it_again() {
        let module = Asset::at("/hearsay.js").unwrap();
        let tag = module.tag();
        for held in [tag.to_owned(), format!("W/{tag}"), format!("\"other\", {tag}"), "*".to_owned()] {
            let answer = module.answer(&with(header::IF_NONE_MATCH, &held));
            assert_eq!(answer.status(), StatusCode::NOT_MODIFIED, "{held}");
            assert_eq!(answer.headers()[header::ETAG], tag);
        }
        let other = Asset::at("/page.js").unwrap().tag();
        assert_ne!(other, tag);
        assert_eq!(module.answer(&with(header::IF_NONE_MATCH, other)).status(), StatusCode::OK);
    }

    #[test]
    fn the_page_reaches_its_own_gateway_only() {
        let policy = |host: &str| policy(&with(header::HOST, host)).to_str().unwrap().to_owned();
        let good = policy("127.0.0.1:8080");
        assert!(good.ends_with("connect-src 'self' ws://127.0.0.1:8080 wss://127.0.0.1:8080"), "{good}");
        assert!(good.starts_with("default-src 'none'; script-src 'self';"), "{good}");
        assert!(policy("[::1]:8080").ends_with("wss://[::1]:8080"));
        for host in ["a; script-src *", "a b", "a,b", "ä.example", ""] {
            assert!(!policy(host).contains("script-src *"), "{host}");
        }
        assert!(policy("a; script-src *").ends_with("connect-src 'self'"));
    }

    #[test]
    fn the_page_names_only_files_that_are_served() {
        let page = Asset::at("/").unwrap().body;
        let values = [" href=\"", " src=\""].into_iter().flat_map(|key| page.split(key).skip(1));
        let named: Vec<_> =
            values.filter_map(|rest| rest.split('"').next()).filter(|path| path.starts_with('/')).collect();
        assert!(named.len() >= 3, "{named:?}");
        for path in named {
            assert!(Asset::at(path).is_some(), "{path}");
        }
        // Inline scripts and styles are what the policy forbids.
        assert!(!page.contains("<style") && !page.contains(" style=") && !page.contains(" onclick="));
    }
}
