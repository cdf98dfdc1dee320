//! Mails: what one says of a conversation that is over, and how it leaves.

use std::{
    fmt::Write as _,
    io,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use hearsay_protocol::{ConversationKey, Timestamp};
use lettre::{
    Message,
    message::{
        Attachment, Mailbox, MultiPart, SinglePart,
        header::{ContentType, HeaderName, HeaderValue},
    },
    transport::smtp::{
        authentication::{Credentials, Mechanism},
        client::{AsyncSmtpConnection, Certificate, TlsParameters},
        extension::ClientId,
        response::Response,
    },
};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use uuid::Uuid;

use crate::{
    config::{Smtp, SmtpTls},
    ics::{self, Due, Item},
    payload::{Inferred, Minutes},
};

/// Follow-ups that come as invitations; the others are in the text.
const INVITATIONS: usize = 20;
/// How long a server that has a mail may take to say goodbye.
const LEAVE: Duration = Duration::from_secs(1);
/// Characters of a subject and of what a calendar shows.
const TITLE: usize = 150;

/// What is sent, without to whom.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Letter {
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) calendars: Vec<CalendarFile>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct CalendarFile {
    name: String,
    method: String,
    text: String,
}

impl Letter {
    /// For one receiver.
    pub(crate) fn of(key: &ConversationKey, minutes: &Minutes, from: &Mailbox, to: &ics::Person<'_>) -> Self {
        let title = line(&minutes.title, TITLE);
        let made = jiff::Timestamp::from_microsecond(i64::try_from(minutes.ended.micros()).unwrap_or(0));
        let made = made.unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let description = format!("{title}, {}", day(minutes.started));
        let domain = from.email.domain();
        let uid = |it: &Inferred| format!("{}@{domain}", it.id);
        let mut calendars = Vec::new();
        let sender = from.email.to_string();
        let organizer = ics::Person { name: from.name.as_deref().unwrap_or(&sender), email: &sender };
        let dated = |it: &Inferred| it.due.as_deref().and_then(Due::parse);
        let due = minutes.follow_ups.iter().filter_map(|it| Some((it, dated(it)?)));
        for (number, (it, due)) in due.take(INVITATIONS).enumerate() {
            let (uid, summary) = (uid(it), line(&it.text, TITLE));
            let item =
                Item { uid: &uid, sequence: it.revision, made, due, summary: &summary, description: &description };
            calendars.push(CalendarFile {
                name: format!("follow-up-{}.ics", number + 1),
                method: "REQUEST".to_owned(),
                text: ics::invitation(&item, &organizer, to),
            });
        }
        let due: Vec<_> = minutes
            .tasks
            .iter()
            .filter_map(|it| {
                let who = it.assignee.as_ref().filter(|who| !who.name.trim().is_empty());
                let who = who.map_or(String::new(), |who| format!("{}: ", who.name));
                Some((uid(it), line(&format!("{who}{}", it.text), TITLE), it.revision, dated(it)?))
            })
            .collect();
        let items: Vec<_> = due
            .iter()
            .map(|(uid, summary, sequence, due)| Item {
                uid,
                sequence: *sequence,
                made,
                due: *due,
                summary,
                description: &description,
            })
            .collect();
        if !items.is_empty() {
            calendars.push(CalendarFile {
                name: "tasks.ics".to_owned(),
                method: "PUBLISH".to_owned(),
                text: ics::tasks(&items),
            });
        }
        Self { subject: format!("Minutes: {title}, {}", day(minutes.started)), text: text(key, minutes), calendars }
    }
}

fn text(key: &ConversationKey, minutes: &Minutes) -> String {
    let mut text = String::new();
    let mut part = |title: &str, lines: Vec<String>| {
        if !lines.is_empty() {
            let _ = write!(text, "\n{title}\n");
            for line in lines {
                let _ = writeln!(text, "  * {line}");
            }
        }
    };
    let task = |it: &Inferred| {
        let mut shown = line(&it.text, usize::MAX);
        let who = it.assignee.as_ref().map(|who| line(&who.name, TITLE)).filter(|name| !name.is_empty());
        let due = it.due.as_deref().and_then(Due::parse).map(|due| format!("due {}", due.shown()));
        let known: Vec<_> = who.into_iter().chain(due).collect();
        if !known.is_empty() {
            let _ = write!(shown, " ({})", known.join(", "));
        }
        shown
    };
    part("Summary", minutes.summary.iter().map(|it| line(it, usize::MAX)).collect());
    part("Action items", minutes.tasks.iter().map(task).collect());
    part("Follow-ups", minutes.follow_ups.iter().map(task).collect());
    part("Questions", minutes.questions.iter().map(|it| line(&it.text, usize::MAX)).collect());
    part("Topics", minutes.topics.iter().map(|it| line(it, TITLE)).collect());
    let spoke = minutes.speakers.iter().map(|it| {
        let seconds = it.talk_us / 1_000_000;
        let name = if it.name.trim().is_empty() { "Somebody".to_owned() } else { line(&it.name, TITLE) };
        format!("{name}: {}:{:02} min ({:.0} %)", seconds / 60, seconds % 60, it.ratio * 100.0)
    });
    part("Who spoke", spoke.collect());
    let lasted = Duration::from_micros(minutes.ended.micros().saturating_sub(minutes.started.micros())).as_secs();
    format!(
        "{}\n{}, {} UTC, {} min. Conversation {} of meeting {}.\n{text}",
        line(&minutes.title, TITLE),
        day(minutes.started),
        minutes.started.iso8601().get(11..16).unwrap_or_default(),
        lasted.div_ceil(60),
        key.conversation,
        line(key.meeting.meeting.as_str(), TITLE),
    )
}

fn day(at: Timestamp) -> String {
    at.iso8601().get(..10).unwrap_or_default().to_owned()
}

/// One line of at most so many characters.
fn line(text: &str, most: usize) -> String {
    let plain: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(most).collect();
    plain.trim().to_owned()
}

#[derive(Debug, thiserror::Error)]
pub enum MailError {
    #[error("{what}, {}: {error}", path.display())]
    Read { what: &'static str, path: PathBuf, error: io::Error },
    #[error("{0}")]
    From(String),
    #[error("{0}")]
    Smtp(#[from] lettre::transport::smtp::Error),
}

/// What became of one attempt.
pub(crate) enum Left {
    /// The server has it, and says so.
    Taken(u16, String),
    /// The server does not want it, or cannot take it now.
    Answered { status: Option<u16>, answer: String, permanent: bool },
}

pub(crate) struct Mailer {
    smtp: Smtp,
    pub(crate) from: Mailbox,
    certificate: Option<Certificate>,
    deadline: Duration,
}

impl Mailer {
    /// # Errors
    /// When a file that is named cannot be used.
    pub(crate) async fn new(smtp: &Smtp, deadline: Duration) -> Result<Self, MailError> {
        let from = smtp.mailbox().map_err(MailError::From)?;
        let certificate = match &smtp.ca {
            Some(path) => {
                let read = tokio::fs::read(path).await;
                let pem = read.map_err(|error| MailError::Read { what: "ca", path: path.clone(), error })?;
                Some(Certificate::from_pem(&pem)?)
            }
            None => None,
        };
        let mailer = Self { smtp: smtp.clone(), from, certificate, deadline };
        // What is wrong with it is known before the first mail.
        drop(mailer.tls()?);
        Ok(mailer)
    }

    /// A connection that mails may leave by.
    async fn connect(&self) -> Result<AsyncSmtpConnection, MailError> {
        let smtp = &self.smtp;
        let (tls, port) = match smtp.tls {
            SmtpTls::Starttls => (None, 587),
            SmtpTls::Implicit => (Some(self.tls()?), 465),
            SmtpTls::None => (None, 25),
        };
        let server = (smtp.host.as_str(), smtp.port.unwrap_or(port));
        let hello = ClientId::default();
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(server, Some(self.deadline), &hello, tls, None).await?;
        if smtp.tls == SmtpTls::Starttls {
            // Fails when it is not offered.
            connection.starttls(self.tls()?, &hello).await?;
        }
        if let (Some(username), Some(path)) = (&smtp.username, &smtp.password_file) {
            // Each time anew: it may have been changed.
            let read = tokio::fs::read_to_string(path).await;
            let password =
                read.map_err(|error| MailError::Read { what: "password_file", path: path.clone(), error })?;
            let credentials = Credentials::new(username.clone(), password.trim_end().to_owned());
            connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await?;
        }
        Ok(connection)
    }

    fn tls(&self) -> Result<TlsParameters, MailError> {
        let mut parameters = TlsParameters::builder(self.smtp.host.clone());
        if let Some(certificate) = &self.certificate {
            parameters = parameters.add_root_certificate(certificate.clone());
        }
        Ok(parameters.build()?)
    }

    /// The id by which receivers tell repetitions.
    pub(crate) fn message_id(&self, errand: Uuid) -> String {
        format!("<{errand}@{}>", self.from.email.domain())
    }

    pub(crate) async fn send(&self, id: Uuid, to: &str, letter: &Letter, put: Timestamp) -> Left {
        let failed = |answer: String, permanent: bool| Left::Answered { status: None, answer, permanent };
        let message = match self.message(id, to, letter, put) {
            Ok(message) => message,
            Err(error) => return failed(error, true),
        };
        match timeout(self.deadline, Box::pin(self.hand_over(&message))).await {
            Ok(Ok(response)) => Left::Taken(response.code().into(), response.message().collect::<Vec<_>>().join(" ")),
            Ok(Err(MailError::Smtp(error))) => Left::Answered {
                status: error.status().map(u16::from),
                permanent: error.is_permanent(),
                answer: whole(&error),
            },
            Ok(Err(error)) => {
                tracing::error!(%error, "mails wait");
                failed("a file that is configured cannot be used".to_owned(), false)
            }
            Err(_) => failed(format!("no answer within {:?}", self.deadline), false),
        }
    }

    async fn hand_over(&self, message: &Message) -> Result<Response, MailError> {
        let mut connection = self.connect().await?;
        let response = connection.send(message.envelope(), &message.formatted()).await?;
        // The server has it: how it takes leave changes nothing.
        let _ = timeout(LEAVE, connection.quit()).await;
        Ok(response)
    }

    fn message(&self, id: Uuid, to: &str, letter: &Letter, put: Timestamp) -> Result<Message, String> {
        let to: Mailbox = to.parse().map_err(|error| format!("{error}"))?;
        let mut parts = MultiPart::mixed().singlepart(SinglePart::plain(letter.text.clone()));
        for file in &letter.calendars {
            let kind = format!("text/calendar; charset=utf-8; method={}", file.method);
            let kind = ContentType::parse(&kind).map_err(|error| error.to_string())?;
            parts = parts.singlepart(Attachment::new(file.name.clone()).body(file.text.clone(), kind));
        }
        let generated = HeaderName::new_from_ascii_str("Auto-Submitted");
        let mut message = Message::builder()
            .from(self.from.clone())
            .to(to)
            .subject(letter.subject.clone())
            .message_id(Some(self.message_id(id)))
            .date(SystemTime::UNIX_EPOCH + Duration::from_micros(put.micros()))
            .multipart(parts)
            .map_err(|error| error.to_string())?;
        // So that nobody's out-of-office note comes back.
        message.headers_mut().insert_raw(HeaderValue::new(generated, "auto-generated".to_owned()));
        Ok(message)
    }
}

fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(text, ": {error}");
        cause = error.source();
    }
    text
}
