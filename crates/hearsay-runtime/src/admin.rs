//! What operators ask a process: `/healthz` (does it run), `/readyz` (should it get traffic, and why not), `/metrics`.
//!
//! [`Admin::answer`] is a function, so that it serves beside other paths of one port; [`serve_admin`] gives it a port of
//! its own. Costs one small response per question; at most [`MAX_CONNECTIONS`] askers at once.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};

use crate::{MetricsHandle, Tasks};

/// Askers of an own admin port at once: scrapers and probes, with room to spare.
const MAX_CONNECTIONS: usize = 64;
/// An asker that has not sent its headers by then is dropped.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether this process should get traffic: conditions by name, all of which must hold. Cheap to clone.
#[derive(Clone)]
pub struct Readiness {
    conditions: watch::Sender<BTreeMap<&'static str, bool>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { conditions: watch::Sender::new(BTreeMap::new()) }
    }
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition, which does not hold until it is set. A second condition of the same name is the same one.
    pub fn condition(&self, name: &'static str) -> Condition {
        self.conditions.send_modify(|conditions| {
            conditions.entry(name).or_insert(false);
        });
        Condition { readiness: self.clone(), name }
    }

    /// Says whether a condition holds.
    pub fn set(&self, name: &'static str, holds: bool) {
        let changed = self.conditions.send_if_modified(|conditions| conditions.insert(name, holds) != Some(holds));
        if changed {
            tracing::debug!(condition = name, holds, "readiness");
        }
    }

    /// The conditions that do not hold.
    pub fn missing(&self) -> Vec<&'static str> {
        missing(&self.conditions.borrow())
    }

    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    /// Returns when all conditions hold.
    pub async fn ready(&self) {
        let mut conditions = self.conditions.subscribe();
        // The sender is `self`: it cannot be gone.
        let _ = conditions.wait_for(|conditions| missing(conditions).is_empty()).await;
    }
}

fn missing(conditions: &BTreeMap<&'static str, bool>) -> Vec<&'static str> {
    conditions.iter().filter(|&(_, &holds)| !holds).map(|(&name, _)| name).collect()
}

/// One condition of a [`Readiness`], in the hands of the component that knows.
#[derive(Clone)]
pub struct Condition {
    readiness: Readiness,
    name: &'static str,
}

impl Condition {
    pub fn set(&self, holds: bool) {
        self.readiness.set(self.name, holds);
    }
}

/// Answers operators' questions. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    readiness: Readiness,
    metrics: MetricsHandle,
}

impl Admin {
    pub fn new(readiness: Readiness, metrics: MetricsHandle) -> Self {
        Self { readiness, metrics }
    }

    /// The answer, if the path is one of ours.
    pub fn answer<B>(&self, request: &Request<B>) -> Option<Response<Full<Bytes>>> {
        let (status, kind, text) = match request.uri().path() {
            "/healthz" => (StatusCode::OK, PLAIN, "ok\n".to_owned()),
            "/readyz" => {
                let missing = self.readiness.missing();
                if missing.is_empty() {
                    (StatusCode::OK, PLAIN, "ready\n".to_owned())
                } else {
                    let list: String = missing.iter().map(|name| format!("not ready: {name}\n")).collect();
                    (StatusCode::SERVICE_UNAVAILABLE, PLAIN, list)
                }
            }
            "/metrics" => (StatusCode::OK, EXPOSITION, String::new()),
            _ => return None,
        };
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Some(respond(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "GET only\n".to_owned()));
        }
        let text = if kind == EXPOSITION { self.metrics.render() } else { text };
        Some(respond(status, kind, text))
    }
}

const PLAIN: &str = "text/plain; charset=utf-8";
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

fn respond(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(kind));
    response
}

/// Serves the admin paths on a port of their own until the last work of a drain has ended.
pub fn serve_admin(listener: TcpListener, admin: Admin, tasks: &Tasks) {
    let (owned, drain) = (tasks.clone(), tasks.drain());
    tasks.spawn_background("admin", async move {
        let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = drain.finished() => return,
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "admin port could not accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            // Full: the connection is closed at once, and the asker asks again.
            let Ok(permit) = Arc::clone(&permits).try_acquire_owned() else { continue };
            let (admin, drain) = (admin.clone(), drain.clone());
            owned.spawn_background("admin connection", async move {
                let _permit = permit;
                let service = service_fn(move |request| {
                    let answer = admin.answer(&request);
                    let answer =
                        answer.unwrap_or_else(|| respond(StatusCode::NOT_FOUND, PLAIN, "not found\n".to_owned()));
                    async move { Ok::<_, Infallible>(answer) }
                });
                let serving = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    ended = serving => if let Err(error) = ended {
                        tracing::debug!(%error, "admin connection");
                    },
                    () = drain.finished() => {}
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpStream,
    };

    use super::*;

    async fn ask(admin: &Admin, method: Method, path: &str) -> Option<(StatusCode, String)> {
        let request = Request::builder().method(method).uri(path).body(()).unwrap();
        let response = admin.answer(&request)?;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        Some((status, String::from_utf8(body.to_vec()).unwrap()))
    }

    #[tokio::test]
    async fn readyz_names_what_is_missing() {
        let readiness = Readiness::new();
        let (bus, pool) = (readiness.condition("bus"), readiness.condition("recognizers"));
        let admin = Admin::new(readiness.clone(), crate::metrics::install());
        let answer = ask(&admin, Method::GET, "/readyz").await.unwrap();
        let both = "not ready: bus\nnot ready: recognizers\n".to_owned();
        assert_eq!(answer, (StatusCode::SERVICE_UNAVAILABLE, both));
        bus.set(true);
        assert_eq!(readiness.missing(), ["recognizers"]);
        pool.set(true);
        readiness.ready().await;
        assert_eq!(ask(&admin, Method::GET, "/readyz").await.unwrap(), (StatusCode::OK, "ready\n".to_owned()));
        bus.set(false);
        assert!(!readiness.is_ready());
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_not_answered_as_if_they_were_ours() {
        let admin = Admin::new(Readiness::new(), crate::metrics::install());
        assert!(ask(&admin, Method::GET, "/v1/conversations").await.is_none());
        assert_eq!(ask(&admin, Method::POST, "/metrics").await.unwrap().0, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(ask(&admin, Method::GET, "/healthz").await.unwrap().0, StatusCode::OK);
        assert!(ask(&admin, Method::GET, "/metrics").await.unwrap().1.contains("process_open_fds"));
    }

    #[tokio::test]
    async fn an_own_port_serves_until_the_drain_is_finished() {
        let tasks = Tasks::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        serve_admin(listener, Admin::new(Readiness::new(), crate::metrics::install()), &tasks);
        tasks.begin_drain();
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("ready\n"), "{text}");
        tasks.finish(Duration::from_secs(10)).await.unwrap();
    }
}
