//! An application's id and secret.

use std::fmt;

use subtle::ConstantTimeEq;

/// What web-sdk asks of an app id and an app secret before it sends them.
const ID_CHARACTERS: usize = 64;
const SECRET_CHARACTERS: usize = 128;
/// Longest id or secret taken from a configuration.
const MAX: usize = 1_024;

const ALPHANUMERICS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl serde::Serialize for Secret {
    /// Writes `***`: what is serialised is shown to people.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

impl<'de> serde::Deserialize<'de> for Secret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// An application's credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct App {
    id: String,
    secret: Secret,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the app {what} is {fault}; 1 to {MAX} printable ASCII characters are accepted")]
pub struct UnusableApp {
    what: &'static str,
    fault: &'static str,
}

impl App {
    /// # Errors
    /// When one is empty, too long, or not printable ASCII.
    pub fn new(id: String, secret: Secret) -> Result<Self, UnusableApp> {
        for (what, text) in [("id", id.as_str()), ("secret", secret.expose())] {
            let fault = match text {
                "" => "empty",
                text if text.len() > MAX => "too long",
                text if !text.bytes().all(|byte| byte.is_ascii_graphic()) => "not printable ASCII",
                _ => continue,
            };
            return Err(UnusableApp { what, fault });
        }
        Ok(Self { id, secret })
    }

    /// New credentials in the form every client accepts, from `fill`, a source of random bytes.
    pub fn generate(mut fill: impl FnMut(&mut [u8])) -> Self {
        let id = alphanumerics(ID_CHARACTERS, &mut fill);
        Self { id, secret: Secret(alphanumerics(SECRET_CHARACTERS, &mut fill)) }
    }

    pub fn id(&self) -> &str {
        &self.id
    }

    pub fn secret(&self) -> &Secret {
        &self.secret
    }

    /// Whether web-sdk takes them: it refuses others by itself, before it sends anything.
    pub fn suits_every_client(&self) -> bool {
        let suits = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        suits(&self.id, ID_CHARACTERS) && suits(self.secret.expose(), SECRET_CHARACTERS)
    }

    /// In constant time for credentials of the right length.
    pub fn accepts(&self, id: &str, secret: &str) -> bool {
        let id = self.id.as_bytes().ct_eq(id.as_bytes());
        let secret = self.secret.expose().as_bytes().ct_eq(secret.as_bytes());
        (id & secret).into()
    }
}

fn alphanumerics(length: usize, fill: &mut impl FnMut(&mut [u8])) -> String {
    // Bytes that would make some characters likelier than others are passed over.
    const EVEN: u8 = (256 / 62 * 62) as u8;
    let mut text = String::with_capacity(length);
    let mut bytes = [0; 64];
    while text.len() < length {
        fill(&mut bytes);
        let even = bytes.iter().filter(|&&byte| byte < EVEN);
        text.extend(even.map(|&byte| char::from(ALPHANUMERICS[usize::from(byte % 62)])).take(length - text.len()));
    }
    text
}

#[cfg(test)]
mod tests {
    use rand::RngCore;

    use super::*;

    #[test]
    fn generated_credentials_suit_every_client() {
        let app = App::generate(|bytes| rand::rng().fill_bytes(bytes));
        assert!(app.suits_every_client());
        let other = App::generate(|bytes| rand::rng().fill_bytes(bytes));
        assert_ne!(app.id(), other.id());
        assert!(app.accepts(app.id(), app.secret().expose()));
        assert!(!app.accepts(app.id(), other.secret().expose()));
        assert!(!app.accepts(other.id(), app.secret().expose()));
    }

    #[test]
    fn a_secret_is_never_printed() {
        let app = App::new("id".to_owned(), Secret::new("hidden".to_owned())).unwrap();
        assert!(!format!("{app:?}").contains("hidden"));
        assert_eq!(serde_json::to_string(app.secret()).unwrap(), r#""***""#);
    }

    #[test]
    fn unusable_credentials_are_refused_by_name() {
        let error = App::new("id".to_owned(), Secret::new(String::new())).unwrap_err();
        assert_eq!(error.to_string(), "the app secret is empty; 1 to 1024 printable ASCII characters are accepted");
        assert!(App::new("an id".to_owned(), Secret::new("s".to_owned())).is_err());
    }
}
