//! Signatures by the rules of Standard Webhooks: HMAC-SHA256 over id, time and body, under a secret that both sides have.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

const PREFIX: &str = "whsec_";
/// Bytes of a secret.
const SHORTEST: usize = 24;
const LONGEST: usize = 64;
/// Secrets in one file: the new one and those it replaces.
const MOST: usize = 8;
/// Largest file that is read.
const MAX_FILE: u64 = 16 * 1024;

/// The secrets of one receiver.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    keys: Vec<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error("{}: {error}", path.display())]
    Read { path: PathBuf, error: io::Error },
    /// What was read is not repeated: it may be a secret with a slip.
    #[error(
        "line {line} of {} is no secret: whsec_ and 24 to 64 bytes in base64 are accepted, one a line, up to {MOST}",
        path.display()
    )]
    Malformed { path: PathBuf, line: usize },
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.keys.len())
    }
}

impl Secret {
    /// # Errors
    /// When the file cannot be read, or holds something else.
    pub async fn read(path: &Path) -> Result<Self, SecretError> {
        let unreadable = |error| SecretError::Read { path: path.to_owned(), error };
        let metadata = tokio::fs::metadata(path).await.map_err(unreadable)?;
        if metadata.len() > MAX_FILE {
            return Err(SecretError::Malformed { path: path.to_owned(), line: 1 });
        }
        let text = tokio::fs::read_to_string(path).await.map_err(unreadable)?;
        Self::parse(&text).map_err(|line| SecretError::Malformed { path: path.to_owned(), line })
    }

    /// Or else the line that is wrong.
    fn parse(text: &str) -> Result<Self, usize> {
        let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
        let keys = lines.map(|(index, line)| {
            let key = line.trim().strip_prefix(PREFIX).and_then(|key| STANDARD.decode(key).ok());
            let key = key.filter(|key| (SHORTEST..=LONGEST).contains(&key.len()));
            key.filter(|_| index < MOST).ok_or(index + 1)
        });
        let keys: Vec<_> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(1) } else { Ok(Self { keys }) }
    }

    /// The value of `webhook-signature`; `at` in seconds since the Unix epoch.
    pub(crate) fn sign(&self, id: &str, at: u64, body: &[u8]) -> String {
        let signatures: Vec<_> = self
            .keys
            .iter()
            .filter_map(|key| {
                let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
                mac.update(format!("{id}.{at}.").as_bytes());
                mac.update(body);
                Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
            })
            .collect();
        signatures.join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_example_of_the_standard_has_its_signature() {
        let secret = Secret::parse(ONE).unwrap();
        let signed = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn secrets_are_one_a_line_and_told_of_by_line() {
        let two = Secret::parse(&format!("\n {ONE}\r\n\n{ONE}\n")).unwrap();
        assert_eq!(two.keys.len(), 2);
        assert_eq!(two.sign("a", 1, b"b").split(' ').count(), 2);
        assert_eq!(format!("{two:?}"), "Secret(2)");
        assert_eq!(Secret::parse(""), Err(1));
        assert_eq!(Secret::parse(&format!("{ONE}\nwhsec_short")), Err(2));
        assert_eq!(Secret::parse("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), Err(1));
        assert_eq!(Secret::parse(&format!("{ONE}\n").repeat(9)), Err(9));
    }
}
