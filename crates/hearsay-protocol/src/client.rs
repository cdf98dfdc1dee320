//! What clients send as text, parsed once into types that cannot be wrong.
//!
//! Generous where stock clients differ from each other (nulls, numbers in quotes, fields in two places, unknown
//! fields), strict about sizes. Every refusal names the field, what came and what is accepted.

use std::{fmt, time::Duration};

use serde_json::{Map, Value};

use crate::{
    AudioFormat, Encoding,
    audio::InvalidFormat,
    event::{CustomEntity, Redaction, SpeakerConfig, Tracker},
};

/// Longest time clients may ask a server to wait, in seconds (documented limit of all their time-outs).
const MAX_TIMEOUT_S: f64 = 1_800.0;
/// Names, titles, user ids and e-mail addresses, in characters.
const MAX_NAME: usize = 256;
/// One word or phrase of a vocabulary, in characters.
const MAX_PHRASE: usize = 128;
const MAX_VOCABULARY: usize = 1_000;
/// As many as the catalogue of an account may hold.
pub const MAX_TRACKERS: usize = 500;
/// As many as are looked for.
pub const MAX_TRACKER_PHRASES: usize = 256;
const MAX_ENTITIES: usize = 500;
/// Words that name an entity.
const MAX_ENTITY_WORDS: usize = 16;
/// The longest name of a time zone has 32.
const MAX_ZONE: usize = 64;
const MAX_INSIGHT_TYPES: usize = 32;
/// The longest BCP 47 tag registries recommend room for.
const MAX_LANGUAGE: usize = 35;
const MAX_REDACTION: usize = 16;
const MAX_MARKER_ID: usize = 128;
/// Tokens with claims stay far below.
const MAX_TOKEN: usize = 8_192;

/// One text message of a client.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientMessage {
    Start(Box<StartRequest>),
    Stop,
    Modify(ModifyRequest),
    /// The bare text `__PING__`, answered by `__PONG__`.
    Ping,
    /// Asks for all audio so far to be decoded and on the log.
    Finalize {
        id: String,
    },
    Update(Box<UpdateRequest>),
    /// Renews an expiring token.
    Token {
        token: Secret,
    },
}

/// `start_request`.
#[derive(Debug, Clone, PartialEq)]
pub struct StartRequest {
    /// None: the meeting's id stands in.
    pub title: Option<String>,
    pub config: SpeakerConfig,
    pub speaker: Speaker,
    /// The socket is closed after a stop.
    pub disconnect_on_stop: bool,
    /// How long a stopped socket that stays may idle.
    pub idle_timeout: Duration,
    /// How long the meeting outlives an unclean loss of its last speaker.
    pub no_connection_timeout: Duration,
    pub extension: Extension,
}

/// Who speaks, as its client says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Speaker {
    pub user_id: Option<String>,
    pub name: Option<String>,
    pub email: Option<String>,
}

/// The `hearsay` object of a `start_request`: more than stock clients ask for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extension {
    pub ack: bool,
    pub health: bool,
    pub presence: bool,
    /// A file sent faster than real time.
    pub recorded: bool,
    /// Goes on with an earlier connection's stream.
    pub resume: Option<Secret>,
}

/// `modify_request`: from here on the audio has another format. What is missing stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModifyRequest {
    pub encoding: Option<Encoding>,
    /// In Hz; checked against the encoding by [`ModifyRequest::applied_to`].
    pub rate: Option<u32>,
}

/// `update_request`: what is missing stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UpdateRequest {
    pub trackers: Option<Vec<Tracker>>,
    pub vocabulary: Option<Vec<String>>,
    pub insight_types: Option<Vec<String>>,
    pub entities: Option<Vec<CustomEntity>>,
}

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: String) -> Self {
        Self(text)
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What went wrong, in the word clients can act on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    InvalidRequest,
    NotStarted,
    UnsupportedEncoding,
    InvalidSampleRate,
    UnsupportedLanguage,
    Overloaded,
    TooLarge,
    TooFast,
    TokenExpired,
    Forbidden,
    SlowReader,
    Fenced,
    Internal,
}

impl ErrorCode {
    pub fn name(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::NotStarted => "not_started",
            Self::UnsupportedEncoding => "unsupported_encoding",
            Self::InvalidSampleRate => "invalid_sample_rate",
            Self::UnsupportedLanguage => "unsupported_language",
            Self::Overloaded => "overloaded",
            Self::TooLarge => "too_large",
            Self::TooFast => "too_fast",
            Self::TokenExpired => "token_expired",
            Self::Forbidden => "forbidden",
            Self::SlowReader => "slow_reader",
            Self::Fenced => "fenced",
            Self::Internal => "internal",
        }
    }
}

/// Why a message was refused. `details` names the field, what came and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {details}", .code.name())]
pub struct ClientError {
    pub code: ErrorCode,
    pub details: String,
}

impl ClientError {
    pub fn new(code: ErrorCode, details: impl Into<String>) -> Self {
        Self { code, details: details.into() }
    }

    fn invalid(details: impl Into<String>) -> Self {
        Self::new(ErrorCode::InvalidRequest, details)
    }

    /// `path` is the field the format was read from.
    fn format(path: &str, error: &InvalidFormat) -> Self {
        let code = match error {
            InvalidFormat::Encoding { .. } => ErrorCode::UnsupportedEncoding,
            InvalidFormat::Rate { .. } => ErrorCode::InvalidSampleRate,
        };
        Self::new(code, format!("{path}.{error}"))
    }
}

impl ClientMessage {
    /// Reads one text message.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub fn parse(text: &str) -> Result<Self, ClientError> {
        let text = text.trim();
        if text == "__PING__" {
            return Ok(Self::Ping);
        }
        let value: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(_) if is_python_stop(text) => return Ok(Self::Stop),
            Err(error) => {
                return Err(ClientError::invalid(format!(
                    "the message is not JSON ({error}); a JSON object with a type, or __PING__, is accepted"
                )));
            }
        };
        let Value::Object(map) = &value else {
            return Err(ClientError::invalid(format!(
                "the message is {}; a JSON object with a type is accepted",
                kind(&value)
            )));
        };
        let message = Object { path: String::new(), map: Some(map) };
        let name = message
            .text("type", 64)?
            .ok_or_else(|| ClientError::invalid(format!("type is missing; {ACCEPTED_TYPES} are accepted")))?;
        match name {
            "start_request" => StartRequest::read(&message).map(|start| Self::Start(Box::new(start))),
            "stop_request" | "stop_recognition" => Ok(Self::Stop),
            "modify_request" => ModifyRequest::read(&message).map(Self::Modify),
            "finalize" => {
                let id = message.text("id", MAX_MARKER_ID)?.filter(|id| !id.is_empty()).ok_or_else(|| {
                    ClientError::invalid(format!(
                        "id is missing; a string of 1 to {MAX_MARKER_ID} characters is accepted"
                    ))
                })?;
                Ok(Self::Finalize { id: id.to_owned() })
            }
            "update_request" => UpdateRequest::read(&message).map(|update| Self::Update(Box::new(update))),
            "token" => {
                let token = message
                    .text("access_token", MAX_TOKEN)?
                    .ok_or_else(|| ClientError::invalid("access_token is missing; a token is accepted"))?;
                Ok(Self::Token { token: Secret(token.to_owned()) })
            }
            other => Err(ClientError::invalid(format!("type {other:?} is not known; {ACCEPTED_TYPES} are accepted"))),
        }
    }
}

const ACCEPTED_TYPES: &str =
    "start_request, stop_request, stop_recognition, modify_request, update_request, finalize and token";

/// The Python client prints a dict where it means JSON: `{'type': 'stop_request'}`.
fn is_python_stop(text: &str) -> bool {
    if !text.starts_with('{') || text.len() > 256 {
        return false;
    }
    let Ok(Value::Object(map)) = serde_json::from_str(&text.replace('\'', "\"")) else { return false };
    matches!(map.get("type").and_then(Value::as_str), Some("stop_request" | "stop_recognition"))
}

impl StartRequest {
    fn read(message: &Object<'_>) -> Result<Self, ClientError> {
        let config = message.object("config")?;
        let options = config.object_or_list("trackers")?;
        let either = |key| Ok::<_, ClientError>(config.flag(key)?.or(message.flag(key)?));
        let mut trackers = message.trackers("trackers")?;
        if trackers.is_none() {
            trackers = config.trackers_if_list("trackers")?;
        }
        let title = match config.name("meetingTitle")? {
            Some(title) => Some(title),
            None => message.name("meetingTitle")?,
        };
        let speech = SpeechFields::read(&[
            &config.object("speechRecognition")?,
            &message.object("speechRecognition")?,
            &config,
            message,
        ])?;
        let speaker = message.object("speaker")?;
        let enable_all = match options.flag("enableAllTrackers")? {
            Some(all) => Some(all),
            None => either("enableAllTrackers")?,
        };
        Ok(Self {
            title,
            config: SpeakerConfig {
                format: speech.format()?,
                language: language(&config, message)?,
                vocabulary: match message.phrases("customVocabulary", MAX_VOCABULARY)? {
                    Some(words) => words,
                    None => config.phrases("customVocabulary", MAX_VOCABULARY)?.unwrap_or_default(),
                },
                insight_types: message.phrases("insightTypes", MAX_INSIGHT_TYPES)?.unwrap_or_default(),
                confidence_threshold: config.number("confidenceThreshold", 0.0, 1.0)?.unwrap_or(0.5) as f32,
                timezone_offset_min: config.number("timezoneOffset", -1_440.0, 1_440.0)?.unwrap_or(0.0) as i32,
                time_zone: message
                    .object("hearsay")?
                    .text("timeZone", MAX_ZONE)?
                    .filter(|it| !it.is_empty())
                    .map(str::to_owned),
                sentiment: either("sentiment")?.unwrap_or(false),
                detect_entities: either("detectEntities")?.unwrap_or(false),
                entities: match config.entities("entities")? {
                    Some(entities) => entities,
                    None => message.entities("entities")?.unwrap_or_default(),
                },
                trackers: trackers.unwrap_or_default(),
                tracker_interim_results: options.flag("interimResults")?.unwrap_or(false),
                enable_all_trackers: enable_all.unwrap_or(false),
                redaction: redaction(&config.object("redaction")?)?,
            },
            speaker: Speaker {
                user_id: speaker.name("userId")?,
                name: speaker.name("name")?,
                email: speaker.name("email")?,
            },
            disconnect_on_stop: message.flag("disconnectOnStopRequest")?.unwrap_or(true),
            idle_timeout: message
                .number("disconnectOnStopRequestTimeout", 0.0, MAX_TIMEOUT_S)?
                .map_or(Duration::from_secs(1_800), Duration::from_secs_f64),
            no_connection_timeout: no_connection_timeout(message)?,
            extension: Extension::read(&message.object("hearsay")?)?,
        })
    }
}

/// Seconds, or a boolean as one client has it: `true` is as long as may be asked for.
fn no_connection_timeout(message: &Object<'_>) -> Result<Duration, ClientError> {
    const KEY: &str = "noConnectionTimeout";
    let seconds = match message.get(KEY) {
        Some(Value::Bool(wanted)) => Some(if *wanted { MAX_TIMEOUT_S } else { 0.0 }),
        _ => message.number(KEY, 0.0, MAX_TIMEOUT_S)?,
    };
    Ok(Duration::from_secs_f64(seconds.unwrap_or(0.0)))
}

fn language(config: &Object<'_>, message: &Object<'_>) -> Result<String, ClientError> {
    let (path, tag) = match config.text("languageCode", MAX_LANGUAGE)? {
        Some(tag) => (config.path_of("languageCode"), Some(tag)),
        None => (message.path_of("languageCode"), message.text("languageCode", MAX_LANGUAGE)?),
    };
    let Some(tag) = tag.filter(|tag| !tag.is_empty()) else { return Ok(SpeakerConfig::default().language) };
    let wellformed = tag
        .split('-')
        .all(|part| (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    if wellformed {
        Ok(tag.to_owned())
    } else {
        let details = format!("{path} {tag:?} is not a language tag; BCP 47, for instance en-US, is accepted");
        Err(ClientError::new(ErrorCode::UnsupportedLanguage, details))
    }
}

fn redaction(object: &Object<'_>) -> Result<Option<Redaction>, ClientError> {
    let identify = object.flag("identifyContent")?.unwrap_or(false);
    let redact = object.flag("redactContent")?.unwrap_or(false);
    let replacement = object.text("redactionString", MAX_REDACTION)?.filter(|text| !text.is_empty());
    let replacement = replacement.unwrap_or("****").to_owned();
    Ok((identify || redact).then_some(Redaction { identify, redact, replacement }))
}

impl Extension {
    fn read(object: &Object<'_>) -> Result<Self, ClientError> {
        let flag = |key| Ok::<_, ClientError>(object.flag(key)?.unwrap_or(false));
        Ok(Self {
            ack: flag("ack")?,
            health: flag("health")?,
            presence: flag("presence")?,
            recorded: flag("recorded")?,
            resume: object
                .text("resume", MAX_TOKEN)?
                .filter(|token| !token.is_empty())
                .map(|token| Secret(token.into())),
        })
    }
}

/// Encoding and rate, each from the first place that has it.
struct SpeechFields {
    encoding: Option<Encoding>,
    rate: Option<u32>,
    path: String,
}

impl SpeechFields {
    fn read(places: &[&Object<'_>]) -> Result<Self, ClientError> {
        let mut fields = Self { encoding: None, rate: None, path: places[0].path.clone() };
        for place in places {
            if fields.encoding.is_none()
                && let Some(name) = place.text("encoding", 64)?
            {
                let encoding = AudioFormat::encoding_named(name);
                fields.encoding = Some(encoding.map_err(|error| ClientError::format(&place.path, &error))?);
            }
            if fields.rate.is_none() && place.get("sampleRateHertz").is_some() {
                let rate = place
                    .number("sampleRateHertz", 0.0, f64::from(u32::MAX))
                    .map_err(|error| ClientError::new(ErrorCode::InvalidSampleRate, error.details))?;
                fields.rate = rate.map(|rate| rate as u32);
                fields.path.clone_from(&place.path);
            }
        }
        Ok(fields)
    }

    /// A client that names no rate means 16 kHz, or the nearest one its encoding has.
    fn format(&self) -> Result<AudioFormat, ClientError> {
        let default = AudioFormat::default();
        let encoding = self.encoding.unwrap_or(default.encoding);
        let (low, high) = encoding.rates();
        let rate = self.rate.unwrap_or(default.rate.get().clamp(low, high));
        AudioFormat::new(encoding, rate).map_err(|error| ClientError::format(&self.path, &error))
    }
}

impl ModifyRequest {
    fn read(message: &Object<'_>) -> Result<Self, ClientError> {
        let config = message.object("config")?;
        let nested = config.object("speechRecognition")?;
        let fields = SpeechFields::read(&[&message.object("speechRecognition")?, &nested, &config, message])?;
        if fields.encoding.is_none() && fields.rate.is_none() {
            return Err(ClientError::invalid(
                "speechRecognition is missing; an object with encoding, sampleRateHertz or both is accepted",
            ));
        }
        Ok(Self { encoding: fields.encoding, rate: fields.rate })
    }

    /// The format that results.
    ///
    /// # Errors
    /// When the encoding does not have the rate.
    pub fn applied_to(self, format: AudioFormat) -> Result<AudioFormat, ClientError> {
        let encoding = self.encoding.unwrap_or(format.encoding);
        let (low, high) = encoding.rates();
        let kept = format.rate.get().clamp(low, high);
        AudioFormat::new(encoding, self.rate.unwrap_or(kept))
            .map_err(|error| ClientError::format("speechRecognition", &error))
    }
}

impl UpdateRequest {
    fn read(message: &Object<'_>) -> Result<Self, ClientError> {
        let update = Self {
            trackers: message.trackers("trackers")?,
            vocabulary: message.phrases("customVocabulary", MAX_VOCABULARY)?,
            insight_types: message.phrases("insightTypes", MAX_INSIGHT_TYPES)?,
            entities: match message.object("config")?.entities("entities")? {
                Some(entities) => Some(entities),
                None => message.entities("entities")?,
            },
        };
        if update == Self::default() {
            return Err(ClientError::invalid(
                "the update changes nothing; trackers, customVocabulary, insightTypes and entities are accepted",
            ));
        }
        Ok(update)
    }

    /// Changes what this update names.
    pub fn apply_to(self, config: &mut SpeakerConfig) {
        if let Some(trackers) = self.trackers {
            config.trackers = trackers;
        }
        if let Some(vocabulary) = self.vocabulary {
            config.vocabulary = vocabulary;
        }
        if let Some(insight_types) = self.insight_types {
            config.insight_types = insight_types;
        }
        if let Some(entities) = self.entities {
            config.entities = entities;
        }
    }
}

/// A JSON object and where it stands; absent and null objects read as empty ones.
struct Object<'a> {
    path: String,
    map: Option<&'a Map<String, Value>>,
}

impl<'a> Object<'a> {
    /// A field's value; null means absent.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.map?.get(key).filter(|value| !value.is_null())
    }

    fn path_of(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn wrong(&self, key: &str, value: &Value, accepted: &str) -> ClientError {
        ClientError::invalid(format!("{} is {}; {accepted}", self.path_of(key), kind(value)))
    }

    fn object(&self, key: &str) -> Result<Object<'a>, ClientError> {
        let path = self.path_of(key);
        match self.get(key) {
            None => Ok(Object { path, map: None }),
            Some(Value::Object(map)) => Ok(Object { path, map: Some(map) }),
            Some(other) => Err(self.wrong(key, other, "an object is accepted")),
        }
    }

    /// As [`Object::object`]; a list reads as an empty object.
    fn object_or_list(&self, key: &str) -> Result<Object<'a>, ClientError> {
        match self.get(key) {
            Some(Value::Array(_)) => Ok(Object { path: self.path_of(key), map: None }),
            _ => self.object(key),
        }
    }

    fn text(&self, key: &str, max: usize) -> Result<Option<&'a str>, ClientError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => {
                let got = text.chars().count();
                if got > max {
                    let path = self.path_of(key);
                    return Err(ClientError::invalid(format!(
                        "{path} has {got} characters; at most {max} are accepted"
                    )));
                }
                Ok(Some(text))
            }
            Some(other) => Err(self.wrong(key, other, "a string is accepted")),
        }
    }

    /// A name people gave something: trimmed, without control characters; empty means absent. Numbers are names too.
    fn name(&self, key: &str) -> Result<Option<String>, ClientError> {
        if let Some(Value::Number(number)) = self.get(key) {
            return Ok(Some(number.to_string()));
        }
        let text = self.text(key, MAX_NAME)?;
        let clean = text.map(|text| text.chars().filter(|c| !c.is_control()).collect::<String>().trim().to_owned());
        Ok(clean.filter(|name| !name.is_empty()))
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, ClientError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("true") => Ok(Some(true)),
            Some(Value::String(text)) if text.eq_ignore_ascii_case("false") => Ok(Some(false)),
            Some(other) => Err(self.wrong(key, other, "true or false is accepted")),
        }
    }

    fn number(&self, key: &str, low: f64, high: f64) -> Result<Option<f64>, ClientError> {
        let value = match self.get(key) {
            None => return Ok(None),
            Some(value) => value,
        };
        let number = match value {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        match number.filter(|number| number.is_finite()) {
            Some(number) if (low..=high).contains(&number) => Ok(Some(number)),
            Some(number) => {
                let path = self.path_of(key);
                Err(ClientError::invalid(format!("{path} is {number}; {low} to {high} are accepted")))
            }
            None => Err(self.wrong(key, value, &format!("a number from {low} to {high} is accepted"))),
        }
    }

    fn list(&self, key: &str, max: usize) -> Result<Option<&'a [Value]>, ClientError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Array(list)) if list.len() > max => Err(ClientError::invalid(format!(
                "{} has {} elements; at most {max} are accepted",
                self.path_of(key),
                list.len()
            ))),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(other) => Err(self.wrong(key, other, "a list is accepted")),
        }
    }

    fn phrases(&self, key: &str, max: usize) -> Result<Option<Vec<String>>, ClientError> {
        let Some(list) = self.list(key, max)? else { return Ok(None) };
        let mut phrases = Vec::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            let text = match value {
                Value::Null => continue,
                Value::String(text) => text,
                other => return Err(self.wrong(&format!("{key}[{index}]"), other, "a string is accepted")),
            };
            let got = text.chars().count();
            if got > MAX_PHRASE {
                let path = self.path_of(key);
                return Err(ClientError::invalid(format!(
                    "{path}[{index}] has {got} characters; at most {MAX_PHRASE} are accepted"
                )));
            }
            if !text.is_empty() {
                phrases.push(text.clone());
            }
        }
        Ok(Some(phrases))
    }

    fn trackers(&self, key: &str) -> Result<Option<Vec<Tracker>>, ClientError> {
        let Some(list) = self.list(key, MAX_TRACKERS)? else { return Ok(None) };
        let mut trackers = Vec::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            let name = format!("{key}[{index}]");
            let Value::Object(map) = value else {
                return Err(self.wrong(&name, value, "an object with name and vocabulary is accepted"));
            };
            let tracker = Object { path: self.path_of(&name), map: Some(map) };
            trackers.push(Tracker {
                id: tracker.name("id")?,
                name: tracker.name("name")?.ok_or_else(|| {
                    let path = tracker.path_of("name");
                    ClientError::invalid(format!("{path} is missing; 1 to {MAX_NAME} characters are accepted"))
                })?,
                vocabulary: tracker.phrases("vocabulary", MAX_TRACKER_PHRASES)?.unwrap_or_default(),
            });
        }
        Ok(Some(trackers))
    }

    fn entities(&self, key: &str) -> Result<Option<Vec<CustomEntity>>, ClientError> {
        let Some(list) = self.list(key, MAX_ENTITIES)? else { return Ok(None) };
        let mut entities = Vec::with_capacity(list.len());
        for (index, value) in list.iter().enumerate() {
            let name = format!("{key}[{index}]");
            let Value::Object(map) = value else {
                return Err(self.wrong(&name, value, "an object with customType, value and text is accepted"));
            };
            let entity = Object { path: self.path_of(&name), map: Some(map) };
            let needed = |key: &str| {
                entity.name(key)?.ok_or_else(|| {
                    let path = entity.path_of(key);
                    ClientError::invalid(format!("{path} is missing; 1 to {MAX_NAME} characters are accepted"))
                })
            };
            let text = needed("text")?;
            let words = text.split_whitespace().count();
            if words > MAX_ENTITY_WORDS || !text.contains(char::is_alphanumeric) {
                let path = entity.path_of("text");
                return Err(ClientError::invalid(format!(
                    "{path} has {words} words; 1 to {MAX_ENTITY_WORDS} with letters or digits are accepted"
                )));
            }
            entities.push(CustomEntity {
                custom_type: needed("customType")?,
                value: entity.name("value")?.unwrap_or_else(|| text.clone()),
                text,
            });
        }
        Ok(Some(entities))
    }

    /// A list of trackers where other clients have an object of options.
    fn trackers_if_list(&self, key: &str) -> Result<Option<Vec<Tracker>>, ClientError> {
        match self.get(key) {
            Some(Value::Array(_)) => self.trackers(key),
            _ => Ok(None),
        }
    }
}

/// A value as an error message shows it: never long.
fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => format!("{:?}", text.chars().take(40).collect::<String>()),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn start(text: &str) -> StartRequest {
        match ClientMessage::parse(text).unwrap() {
            ClientMessage::Start(start) => *start,
            other => panic!("{other:?}"),
        }
    }

    fn refused(text: &str) -> ClientError {
        ClientMessage::parse(text).unwrap_err()
    }

    #[test]
    fn the_three_real_shapes_of_a_start_are_understood() {
        let web = start(
            r#"{"type":"start_request","insightTypes":["question"],"config":{"meetingTitle":"W","speechRecognition":{"encoding":"LINEAR16","sampleRateHertz":48000}},"speaker":{"userId":"ana@example.org","name":"Ana"}}"#,
        );
        assert_eq!(web.title.as_deref(), Some("W"));
        assert_eq!(web.config.format.to_string(), "LINEAR16@48000");
        assert_eq!(web.config.insight_types, ["question"]);
        assert_eq!(web.speaker.user_id.as_deref(), Some("ana@example.org"));
        assert_eq!(web.speaker.name.as_deref(), Some("Ana"));
        assert!(web.disconnect_on_stop);

        let js = start(
            r#"{"type":"start_request","insightTypes":[],"config":{"speechRecognition":{"sampleRateHertz":16000}}}"#,
        );
        assert_eq!(js.config, SpeakerConfig::default());
        assert_eq!(js.speaker, Speaker::default());

        let python = start(
            r#"{"type": "start_request", "insightTypes": ["question"], "speaker": null, "trackers": null, "config": {"confidenceThreshold": 0.5, "languageCode": "en-US", "speechRecognition": {"encoding": "LINEAR16", "sampleRateHertz": 44100}}}"#,
        );
        assert_eq!(python.config.format.to_string(), "LINEAR16@44100");
        assert_eq!(python.config.trackers, []);
    }

    #[test]
    fn every_field_of_the_reference_is_read() {
        let all = start(
            r#"{"type":"start_request","insightTypes":["question","topic","nonsense"],"customVocabulary":["hearsay"],
            "config":{"meetingTitle":"Weekly","confidenceThreshold":0.6,"timezoneOffset":60,"languageCode":"de-DE",
              "sentiment":true,"detectEntities":true,"trackers":{"interimResults":true,"enableAllTrackers":false},
              "speechRecognition":{"encoding":"Opus","sampleRateHertz":"24000","engine":"x","interimResults":true},
              "redaction":{"identifyContent":false,"redactContent":true,"redactionString":"[-]"}},
            "trackers":[{"name":"Budget","vocabulary":["budget","what does it cost"]}],
            "speaker":{"userId":"ana@example.org","name":"Ana","email":"ana@example.org","role":"x"},
            "disconnectOnStopRequest":false,"disconnectOnStopRequestTimeout":7,"noConnectionTimeout":12.5,
            "enableAllTrackers":true,"id":"x","handlers":{},"RTAId":"x",
            "hearsay":{"ack":true,"health":true,"presence":true,"recorded":true,"resume":"t","timeZone":"Europe/Berlin"}}"#,
        );
        let config = &all.config;
        assert_eq!(config.insight_types, ["question", "topic", "nonsense"]);
        assert_eq!(config.vocabulary, ["hearsay"]);
        assert_eq!((config.confidence_threshold, config.timezone_offset_min), (0.6, 60));
        assert_eq!((config.language.as_str(), config.time_zone.as_deref()), ("de-DE", Some("Europe/Berlin")));
        assert!(config.sentiment && config.detect_entities && config.tracker_interim_results);
        assert!(!config.enable_all_trackers, "the nearer place wins");
        assert_eq!(config.format.to_string(), "OPUS@24000");
        let redaction = config.redaction.as_ref().unwrap();
        assert_eq!((redaction.identify, redaction.redact, redaction.replacement.as_str()), (false, true, "[-]"));
        assert_eq!(config.trackers[0].vocabulary, ["budget", "what does it cost"]);
        assert!(!all.disconnect_on_stop);
        assert_eq!(all.idle_timeout, Duration::from_secs(7));
        assert_eq!(all.no_connection_timeout, Duration::from_millis(12_500));
        let extension = &all.extension;
        assert!(extension.ack && extension.health && extension.presence && extension.recorded);
        assert_eq!(extension.resume, Some(Secret("t".into())));
        assert!(!format!("{all:?}").contains("Secret(\"t\")"));
    }

    #[test]
    fn things_are_named_by_their_words() {
        let entities = r#"[{"customType":"Project","value":"Hearsay","text":"the gateway thing"},{"customType":"Ship","text":"Ada"}]"#;
        let named = |kind: &str, value: &str, text: &str| CustomEntity {
            custom_type: kind.to_owned(),
            value: value.to_owned(),
            text: text.to_owned(),
        };
        let expected = [named("Project", "Hearsay", "the gateway thing"), named("Ship", "Ada", "Ada")];
        for text in [
            format!(r#"{{"type":"start_request","config":{{"entities":{entities}}}}}"#),
            format!(r#"{{"type":"start_request","entities":{entities}}}"#),
        ] {
            assert_eq!(start(&text).config.entities, expected);
        }
        let update = format!(r#"{{"type":"update_request","config":{{"entities":{entities}}}}}"#);
        let ClientMessage::Update(update) = ClientMessage::parse(&update).unwrap() else { panic!("{update}") };
        let mut config = SpeakerConfig::default();
        update.apply_to(&mut config);
        assert_eq!(config.entities, expected);
        let error = refused(r#"{"type":"start_request","config":{"entities":[{"customType":"Ship"}]}}"#);
        assert_eq!(error.details, "config.entities[0].text is missing; 1 to 256 characters are accepted");
        let error = refused(r#"{"type":"start_request","config":{"entities":["Ada"]}}"#);
        assert!(error.details.contains("config.entities[0]"), "{error}");
        for text in ["?!", &"a ".repeat(17)] {
            let request = serde_json::json!({"type": "start_request", "entities": [{"customType": "x", "text": text}]});
            let error = refused(&request.to_string());
            assert!(error.details.ends_with("1 to 16 with letters or digits are accepted"), "{error}");
        }
    }

    #[test]
    fn what_clients_put_elsewhere_is_found() {
        for (text, format) in [
            (r#"{"type":"start_request"}"#, "LINEAR16@16000"),
            (r#"{"type":"start_request","config":null}"#, "LINEAR16@16000"),
            (r#"{"type":"start_request","config":{"speechRecognition":{}}}"#, "LINEAR16@16000"),
            (r#"{"type":"start_request","config":{"speechRecognition":null}}"#, "LINEAR16@16000"),
            (r#"{"type":"start_request","speechRecognition":{"sampleRateHertz":8000}}"#, "LINEAR16@8000"),
            (r#"{"type":"start_request","config":{"sampleRateHertz":8000,"encoding":"linear16"}}"#, "LINEAR16@8000"),
            (r#"{"type":"start_request","encoding":"opus","sampleRateHertz":48000}"#, "OPUS@48000"),
            (r#"{"type":"start_request","config":{"speechRecognition":{"encoding":"MuLaw"}}}"#, "MULAW@8000"),
        ] {
            assert_eq!(start(text).config.format.to_string(), format, "{text}");
        }
        assert_eq!(start(r#"{"type":"start_request","meetingTitle":"Top"}"#).title.as_deref(), Some("Top"));
        assert!(start(r#"{"type":"start_request","enableAllTrackers":true}"#).config.enable_all_trackers);
        for (given, seconds) in [("true", 1_800), ("false", 0), ("null", 0), ("30", 30), ("\"30\"", 30)] {
            let text = format!(r#"{{"type":"start_request","noConnectionTimeout":{given}}}"#);
            assert_eq!(start(&text).no_connection_timeout, Duration::from_secs(seconds), "{given}");
        }
    }

    #[test]
    fn refusals_name_the_field_what_came_and_what_is_accepted() {
        for (text, code, details) in [
            (
                r#"{"type":"start_request","config":{"speechRecognition":{"sampleRateHertz":7}}}"#,
                "invalid_sample_rate",
                "config.speechRecognition.sampleRateHertz 7 is not supported for LINEAR16; 8000 to 48000 are accepted",
            ),
            (
                r#"{"type":"start_request","config":{"speechRecognition":{"sampleRateHertz":"fast"}}}"#,
                "invalid_sample_rate",
                "config.speechRecognition.sampleRateHertz is \"fast\"; a number from 0 to 4294967295 is accepted",
            ),
            (
                r#"{"type":"start_request","config":{"speechRecognition":{"encoding":"MP3"}}}"#,
                "unsupported_encoding",
                "config.speechRecognition.encoding \"MP3\" is not known; LINEAR16, MULAW, FLAC and OPUS are accepted",
            ),
            (
                r#"{"type":"start_request","config":{"languageCode":"en_US!"}}"#,
                "unsupported_language",
                "config.languageCode \"en_US!\" is not a language tag; BCP 47, for instance en-US, is accepted",
            ),
            (r#"{"type":"start_request","config":[]}"#, "invalid_request", "config is a list; an object is accepted"),
            (
                r#"{"type":"start_request","disconnectOnStopRequestTimeout":1801}"#,
                "invalid_request",
                "disconnectOnStopRequestTimeout is 1801; 0 to 1800 are accepted",
            ),
            (
                r#"{"type":"start_request","trackers":[{"vocabulary":[]}]}"#,
                "invalid_request",
                "trackers[0].name is missing; 1 to 256 characters are accepted",
            ),
            (
                r#"{"type":"start_request","customVocabulary":[1]}"#,
                "invalid_request",
                "customVocabulary[0] is 1; a string is accepted",
            ),
            (
                r#"{"type":"start_request","speaker":"Ana"}"#,
                "invalid_request",
                "speaker is \"Ana\"; an object is accepted",
            ),
            (r#"[]"#, "invalid_request", "the message is a list; a JSON object with a type is accepted"),
        ] {
            let error = refused(text);
            assert_eq!((error.code.name(), error.details.as_str()), (code, details), "{text}");
        }
        for text in ["", "hello", "{", r#"{"type":7}"#, r#"{}"#, r#"{"type":"nonsense"}"#, "{'type': 'start_request'}"]
        {
            assert_eq!(refused(text).code, ErrorCode::InvalidRequest, "{text}");
        }
    }

    #[test]
    fn sizes_are_bounded() {
        let words = |count: usize, length: usize| serde_json::json!(vec!["x".repeat(length); count]);
        for (key, value) in [
            ("customVocabulary", words(MAX_VOCABULARY + 1, 1)),
            ("customVocabulary", words(1, MAX_PHRASE + 1)),
            ("insightTypes", words(MAX_INSIGHT_TYPES + 1, 1)),
            ("trackers", serde_json::json!(vec![serde_json::json!({"name": "x"}); MAX_TRACKERS + 1])),
            ("trackers", serde_json::json!([{"name": "x", "vocabulary": words(MAX_TRACKER_PHRASES + 1, 1)}])),
            (
                "entities",
                serde_json::json!(vec![serde_json::json!({"customType": "x", "text": "y"}); MAX_ENTITIES + 1]),
            ),
            ("hearsay", serde_json::json!({"timeZone": "x".repeat(MAX_ZONE + 1)})),
            ("meetingTitle", serde_json::json!("x".repeat(MAX_NAME + 1))),
            ("speaker", serde_json::json!({"userId": "x".repeat(MAX_NAME + 1)})),
            ("hearsay", serde_json::json!({"resume": "x".repeat(MAX_TOKEN + 1)})),
        ] {
            let error = refused(&serde_json::json!({"type": "start_request", key: value}).to_string());
            assert!(error.details.starts_with(key) && error.details.len() < 200, "{}", error.details);
        }
    }

    /// Refused whole, and in words: nothing of it is left out unsaid.
    #[test]
    fn a_thousand_trackers_are_too_many() {
        let trackers: Vec<_> = (0..1_000).map(|it| serde_json::json!({"name": format!("Tracker {it}")})).collect();
        for kind in ["start_request", "update_request"] {
            let error = refused(&serde_json::json!({"type": kind, "trackers": trackers}).to_string());
            assert_eq!(error.details, "trackers has 1000 elements; at most 500 are accepted");
        }
    }

    #[test]
    fn stops_of_all_clients_are_understood() {
        for text in [
            r#"{"type":"stop_request"}"#,
            r#"{"type":"stop_recognition"}"#,
            "{'type': 'stop_request'}",
            " {'type':'stop_request'}\n",
        ] {
            assert_eq!(ClientMessage::parse(text), Ok(ClientMessage::Stop), "{text}");
        }
        assert_eq!(ClientMessage::parse("__PING__"), Ok(ClientMessage::Ping));
    }

    #[test]
    fn a_modification_keeps_what_it_does_not_name() {
        let modify = |text: &str| match ClientMessage::parse(text).unwrap() {
            ClientMessage::Modify(modify) => modify.applied_to(AudioFormat::default()).map(|format| format.to_string()),
            other => panic!("{other:?}"),
        };
        let rate = r#"{"type":"modify_request","speechRecognition":{"sampleRateHertz":48000}}"#;
        assert_eq!(modify(rate).unwrap(), "LINEAR16@48000");
        let mulaw = r#"{"type":"modify_request","speechRecognition":{"encoding":"MULAW"}}"#;
        assert_eq!(modify(mulaw).unwrap(), "MULAW@8000");
        let wrong = modify(r#"{"type":"modify_request","speechRecognition":{"sampleRateHertz":7}}"#).unwrap_err();
        assert_eq!(wrong.code, ErrorCode::InvalidSampleRate);
        assert!(ClientMessage::parse(r#"{"type":"modify_request"}"#).is_err());
    }

    #[test]
    fn our_own_messages_are_understood() {
        assert_eq!(
            ClientMessage::parse(r#"{"type":"finalize","id":"a"}"#),
            Ok(ClientMessage::Finalize { id: "a".to_owned() })
        );
        assert!(ClientMessage::parse(r#"{"type":"finalize"}"#).is_err());
        let token = ClientMessage::parse(r#"{"type":"token","access_token":"a.b.c"}"#).unwrap();
        assert!(!format!("{token:?}").contains("a.b.c"));
        let update = r#"{"type":"update_request","trackers":[{"name":"B"}],"customVocabulary":null}"#;
        let ClientMessage::Update(update) = ClientMessage::parse(update).unwrap() else { panic!() };
        let mut config = SpeakerConfig { vocabulary: vec!["kept".to_owned()], ..SpeakerConfig::default() };
        update.apply_to(&mut config);
        assert_eq!((config.trackers.len(), config.vocabulary.len()), (1, 1));
        assert!(ClientMessage::parse(r#"{"type":"update_request"}"#).is_err());
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
        ];
        let key = prop::sample::select(vec![
            "config",
            "speechRecognition",
            "encoding",
            "sampleRateHertz",
            "trackers",
            "name",
            "vocabulary",
            "speaker",
            "hearsay",
            "redaction",
            "languageCode",
            "noConnectionTimeout",
            "insightTypes",
            "customVocabulary",
            "x",
        ]);
        leaf.prop_recursive(4, 64, 8, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::vec((key.clone(), inner), 0..8).prop_map(|fields| {
                    fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<Map<_, _>>().into()
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in ".{0,300}") {
            let _ = ClientMessage::parse(&text);
        }

        #[test]
        fn arbitrary_requests_never_panic_and_errors_stay_short(
            name in prop::sample::select(vec!["start_request", "modify_request", "update_request", "finalize", "token"]),
            value in json(),
        ) {
            let mut request = match value { Value::Object(map) => map, other => Map::from_iter([("config".into(), other)]) };
            request.insert("type".to_owned(), name.into());
            if let Err(error) = ClientMessage::parse(&Value::from(request).to_string()) {
                prop_assert!(error.details.len() < 1_000);
            }
        }
    }
}
