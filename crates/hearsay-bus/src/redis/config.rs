//! Where the log's Redis is, as one URL.

use std::{fmt, path::PathBuf, time::Duration};

use percent_encoding::percent_decode_str;

/// Where Redis (or Valkey) is and how to reach it. From a URL:
///
/// | URL | what |
/// |---|---|
/// | `redis://HOST[:PORT][/DB]` | one server, or one address that always leads to the primary |
/// | `redis+sentinel://HOST[:PORT][,HOST…]/SERVICE` | a primary that Sentinels name; ports are the Sentinels', 26379 unless given |
/// | `redis+cluster://HOST[:PORT][,HOST…]` | a Redis Cluster, found by any of these nodes |
///
/// `rediss` in the place of `redis` speaks TLS. `USER:PASSWORD@` or `:PASSWORD@` may stand before the first host, with
/// reserved characters percent-encoded. Options follow a `?`: `ca=FILE` (PEM; the system's roots unless given),
/// `cert=FILE&key=FILE` (client certificate), `replicas=N` (an append is answered when so many replicas have it, or after
/// a second as unavailable).
#[derive(Clone, PartialEq, Eq)]
pub struct RedisConfig {
    pub topology: RedisTopology,
    /// Host and port. At least one.
    pub addresses: Vec<(String, u16)>,
    pub username: Option<String>,
    pub password: Option<String>,
    pub tls: Option<RedisTls>,
    pub database: i64,
    /// Replicas that must have an append before it is answered.
    pub replicas: u32,
    /// How long one call may take, retries of redirected ones included.
    pub call_deadline: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RedisTopology {
    Single,
    Sentinel { service: String },
    Cluster,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RedisTls {
    pub ca: Option<PathBuf>,
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// What is wrong with a URL. Never shows its password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Redis URL: {0}")]
pub struct RedisUrlError(String);

/// Without the password.
impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("topology", &self.topology)
            .field("addresses", &self.addresses)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "<redacted>"))
            .field("tls", &self.tls)
            .field("database", &self.database)
            .field("replicas", &self.replicas)
            .field("call_deadline", &self.call_deadline)
            .finish()
    }
}

fn wrong<T>(what: impl Into<String>) -> Result<T, RedisUrlError> {
    Err(RedisUrlError(what.into()))
}

impl RedisConfig {
    /// # Errors
    /// For anything but the forms above; the message says which part and what is accepted.
    pub fn parse(url: &str) -> Result<Self, RedisUrlError> {
        let Some((scheme, rest)) = url.split_once("://") else {
            return wrong("has no scheme; redis://, redis+sentinel:// and redis+cluster:// are accepted");
        };
        let (secure, kind) = match scheme.split_once('+').map_or((scheme, ""), |(scheme, kind)| (scheme, kind)) {
            ("redis" | "valkey", kind) => (false, kind),
            ("rediss" | "valkeys", kind) => (true, kind),
            _ => {
                return wrong(format!(
                    "scheme {scheme:?} is not known; redis, rediss, and either with +sentinel or +cluster are accepted"
                ));
            }
        };
        let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
        let (username, password) = match user {
            None => (None, None),
            Some(user) => {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                (decoded("user", name)?, decoded("password", password)?)
            }
        };
        let mut config = Self {
            topology: match kind {
                "" => RedisTopology::Single,
                "cluster" => RedisTopology::Cluster,
                "sentinel" => match decoded("service", path)? {
                    Some(service) => RedisTopology::Sentinel { service },
                    None => return wrong("names no service; redis+sentinel://HOST/SERVICE is expected"),
                },
                other => return wrong(format!("kind {other:?} is not known; sentinel and cluster are")),
            },
            addresses: Vec::new(),
            username,
            password,
            tls: secure.then(RedisTls::default),
            database: 0,
            replicas: 0,
            call_deadline: Duration::from_secs(3),
        };
        let default_port = if matches!(config.topology, RedisTopology::Sentinel { .. }) { 26_379 } else { 6_379 };
        for host in hosts.split(',') {
            config.addresses.push(address(host, default_port)?);
        }
        match config.topology {
            RedisTopology::Single if config.addresses.len() > 1 => {
                return wrong("names several hosts; that takes redis+sentinel:// or redis+cluster://");
            }
            RedisTopology::Single if !path.is_empty() => match path.parse() {
                Ok(database) if (0..1_000_000).contains(&database) => config.database = database,
                _ => return wrong(format!("database {path:?} is not a number")),
            },
            RedisTopology::Cluster if !path.is_empty() => return wrong("a cluster has no databases to choose from"),
            _ => {}
        }
        config.options(options)?;
        Ok(config)
    }

    fn options(&mut self, options: &str) -> Result<(), RedisUrlError> {
        let (mut certificate, mut key) = (None, None);
        for option in options.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            let Some(value) = decoded(name, value)? else { return wrong(format!("option {name} has no value")) };
            match (name, &mut self.tls) {
                ("ca", Some(tls)) => tls.ca = Some(value.into()),
                ("cert", Some(_)) => certificate = Some(PathBuf::from(value)),
                ("key", Some(_)) => key = Some(PathBuf::from(value)),
                ("ca" | "cert" | "key", None) => return wrong(format!("option {name} takes a rediss:// URL")),
                ("replicas", _) => match value.parse() {
                    Ok(replicas) if replicas <= 16 => self.replicas = replicas,
                    _ => return wrong(format!("replicas is {value:?}; 0 to 16 are accepted")),
                },
                _ => return wrong(format!("option {name:?} is not known; ca, cert, key and replicas are accepted")),
            }
        }
        match (certificate, key) {
            (None, None) => {}
            (Some(certificate), Some(key)) => {
                if let Some(tls) = &mut self.tls {
                    tls.certificate = Some((certificate, key));
                }
            }
            _ => return wrong("cert and key go together"),
        }
        Ok(())
    }
}

fn decoded(what: &str, text: &str) -> Result<Option<String>, RedisUrlError> {
    match percent_decode_str(text).decode_utf8() {
        Ok(text) => Ok((!text.is_empty()).then(|| text.into_owned())),
        Err(_) => wrong(format!("{what} is not UTF-8 after percent-decoding")),
    }
}

fn address(text: &str, default_port: u16) -> Result<(String, u16), RedisUrlError> {
    // An IPv6 address stands in brackets.
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, "")) => (host, None),
        Some((host, port)) => (host, port.strip_prefix(':')),
        None => text.split_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return wrong(format!("host {text:?} is empty or malformed; HOST, HOST:PORT and [IPV6]:PORT are accepted"));
    }
    let port = match port.map(str::parse) {
        None => default_port,
        Some(Ok(port)) if port > 0 => port,
        Some(_) => return wrong(format!("port of {text:?} is not a number of 1 to 65535")),
    };
    Ok((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_every_topology() {
        let single = RedisConfig::parse("redis://localhost").expect("valid");
        assert_eq!(single.addresses, [("localhost".to_owned(), 6_379)]);
        assert_eq!((single.topology, single.tls, single.database), (RedisTopology::Single, None, 0));

        let full = RedisConfig::parse("rediss://me:p%40ss@[::1]:7000/3?ca=/etc/ca.pem&replicas=1").expect("valid");
        assert_eq!(full.addresses, [("::1".to_owned(), 7_000)]);
        assert_eq!((full.username.as_deref(), full.password.as_deref()), (Some("me"), Some("p@ss")));
        assert_eq!((full.database, full.replicas), (3, 1));
        assert_eq!(full.tls.clone().and_then(|tls| tls.ca), Some(PathBuf::from("/etc/ca.pem")));
        assert!(!format!("{full:?}").contains("p@ss"), "the password is not shown");

        let sentinel = RedisConfig::parse("redis+sentinel://:pw@a,b:7001/main").expect("valid");
        assert_eq!(sentinel.topology, RedisTopology::Sentinel { service: "main".to_owned() });
        assert_eq!(sentinel.addresses, [("a".to_owned(), 26_379), ("b".to_owned(), 7_001)]);
        assert_eq!((sentinel.username, sentinel.password.as_deref()), (None, Some("pw")));

        let cluster = RedisConfig::parse("redis+cluster://a:1,b:2,c:3").expect("valid");
        assert_eq!((cluster.topology, cluster.addresses.len()), (RedisTopology::Cluster, 3));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (url, says) in [
            ("localhost:6379", "no scheme"),
            ("http://localhost", "scheme"),
            ("redis+ring://a", "kind"),
            ("redis://", "host"),
            ("redis://a:0", "port"),
            ("redis://a:b", "port"),
            ("redis://a,b", "several hosts"),
            ("redis://a/x", "database"),
            ("redis+cluster://a/1", "databases"),
            ("redis+sentinel://a", "service"),
            ("redis://a?ca=x", "rediss"),
            ("rediss://a?cert=x", "go together"),
            ("redis://a?replicas=99", "0 to 16"),
            ("redis://a?colour=red", "not known"),
            ("redis://%ff@a", "UTF-8"),
        ] {
            let error = RedisConfig::parse(url).expect_err(url).to_string();
            assert!(error.contains(says), "{url}: {error}");
        }
    }
}
