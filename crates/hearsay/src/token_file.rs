//! The token of a running `hearsay dev`, left where only the same user on the same machine finds it, so that `transcribe`
//! needs no copying.
#![cfg_attr(not(feature = "recognizer"), expect(dead_code, reason = "only `dev` leaves one"))]

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    net::IpAddr,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// A token that lies in the cache folder while this lives.
pub(crate) struct TokenFile {
    path: PathBuf,
}

impl TokenFile {
    /// Puts it there, in the place of one that a killed process left.
    pub(crate) fn leave(cache: &Path, port: u16, token: &str) -> io::Result<Self> {
        let path = path(cache, port);
        if let Some(folder) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(token.as_bytes())?;
        Ok(Self { path })
    }
}

impl Drop for TokenFile {
    fn drop(&mut self) {
        // Left behind, it is replaced by the next process or refused by it.
        let _ = fs::remove_file(&self.path);
    }
}

/// The token left by the server at this address, when it is on this machine.
pub(crate) fn find(cache: &Path, url: &http::Uri) -> Option<String> {
    let host = url.host()?.trim_matches(['[', ']']);
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let token = if here { fs::read_to_string(path(cache, url.port_u16().unwrap_or(80))).ok()? } else { return None };
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}

fn path(cache: &Path, port: u16) -> PathBuf {
    cache.join("dev").join(format!("{port}.token"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_token_is_found_on_this_machine_while_its_server_runs() {
        let cache = tempfile::tempdir().unwrap();
        let url = |text: &str| text.parse::<http::Uri>().unwrap();
        drop(TokenFile::leave(cache.path(), 8080, "old").unwrap());
        let left = TokenFile::leave(cache.path(), 8080, "a.b.c").unwrap();
        let _again = TokenFile::leave(cache.path(), 8081, "d.e.f").unwrap();
        for here in ["http://127.0.0.1:8080", "http://localhost:8080/", "http://[::1]:8080"] {
            assert_eq!(find(cache.path(), &url(here)).as_deref(), Some("a.b.c"), "{here}");
        }
        assert_eq!(find(cache.path(), &url("http://192.0.2.1:8080")), None);
        assert_eq!(find(cache.path(), &url("http://127.0.0.1")), None);
        let mode = fs::metadata(&left.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(left);
        assert_eq!(find(cache.path(), &url("http://127.0.0.1:8080")), None);
    }
}
