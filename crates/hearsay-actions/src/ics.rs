//! Calendar objects by RFC 5545: escaped, folded, and with ids that stay the same.

use std::fmt::Write as _;

use jiff::civil::{DateTime, Time};

/// Octets of a line, its end not counted.
const LINE: usize = 75;

/// When something is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    /// A day, where people are.
    Day(jiff::civil::Date),
    Moment(jiff::Timestamp),
}

impl Due {
    /// From RFC 3339; local midnight says that only a day is meant.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let moment: jiff::Timestamp = text.parse().ok()?;
        let local: DateTime = text.get(..19)?.parse().ok()?;
        Some(if local.time() == Time::midnight() { Self::Day(local.date()) } else { Self::Moment(moment) })
    }

    /// As people read it; the moment in UTC.
    pub(crate) fn shown(self) -> String {
        match self {
            Self::Day(day) => day.to_string(),
            Self::Moment(moment) => moment.strftime("%Y-%m-%d %H:%M UTC").to_string(),
        }
    }

    /// Behind the name of a property.
    fn value(self) -> String {
        match self {
            Self::Day(day) => format!(";VALUE=DATE:{}", day.strftime("%Y%m%d")),
            Self::Moment(moment) => format!(":{}", utc(moment)),
        }
    }
}

fn utc(moment: jiff::Timestamp) -> String {
    moment.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// What a calendar has of a task or a meeting to come.
pub(crate) struct Item<'a> {
    /// Unique in the world, and the same each time.
    pub(crate) uid: &'a str,
    /// A higher one replaces a lower one.
    pub(crate) sequence: u32,
    /// When it was made.
    pub(crate) made: jiff::Timestamp,
    pub(crate) due: Due,
    pub(crate) summary: &'a str,
    pub(crate) description: &'a str,
}

/// Somebody by address.
pub(crate) struct Person<'a> {
    pub(crate) name: &'a str,
    pub(crate) email: &'a str,
}

/// Asks somebody to come to what an item says: half an hour, or a day that stays free.
pub(crate) fn invitation(item: &Item<'_>, organizer: &Person<'_>, attendee: &Person<'_>) -> String {
    let mut lines = Lines::begin("REQUEST");
    lines.line("BEGIN:VEVENT");
    lines.item(item);
    lines.line(&format!("DTSTART{}", item.due.value()));
    match item.due {
        Due::Day(_) => {
            lines.line("DURATION:P1D");
            lines.line("TRANSP:TRANSPARENT");
        }
        Due::Moment(_) => lines.line("DURATION:PT30M"),
    }
    lines.line(&format!("ORGANIZER;CN={}:mailto:{}", parameter(organizer.name), address(organizer.email)));
    lines.line(&format!(
        "ATTENDEE;CN={};ROLE=REQ-PARTICIPANT;PARTSTAT=NEEDS-ACTION;RSVP=TRUE:mailto:{}",
        parameter(attendee.name),
        address(attendee.email)
    ));
    lines.line("END:VEVENT");
    lines.end()
}

/// Tasks with their due dates.
pub(crate) fn tasks(items: &[Item<'_>]) -> String {
    let mut lines = Lines::begin("PUBLISH");
    for item in items {
        lines.line("BEGIN:VTODO");
        lines.item(item);
        lines.line(&format!("DUE{}", item.due.value()));
        lines.line("STATUS:NEEDS-ACTION");
        lines.line("END:VTODO");
    }
    lines.end()
}

struct Lines(String);

impl Lines {
    fn begin(method: &str) -> Self {
        let mut lines = Self(String::new());
        lines.line("BEGIN:VCALENDAR");
        lines.line("VERSION:2.0");
        lines.line("PRODID:-//hearsay//actions//EN");
        lines.line(&format!("METHOD:{method}"));
        lines
    }

    fn item(&mut self, item: &Item<'_>) {
        self.line(&format!("UID:{}", text(item.uid)));
        self.line(&format!("SEQUENCE:{}", item.sequence));
        self.line(&format!("DTSTAMP:{}", utc(item.made)));
        self.line(&format!("SUMMARY:{}", text(item.summary)));
        if !item.description.is_empty() {
            self.line(&format!("DESCRIPTION:{}", text(item.description)));
        }
    }

    /// Folds between characters, never within one.
    fn line(&mut self, line: &str) {
        let mut used = 0;
        for c in line.chars() {
            if used + c.len_utf8() > LINE {
                self.0.push_str("\r\n ");
                used = 1;
            }
            self.0.push(c);
            used += c.len_utf8();
        }
        self.0.push_str("\r\n");
    }

    fn end(mut self) -> String {
        self.line("END:VCALENDAR");
        self.0
    }
}

/// The value of a text property.
fn text(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' | ';' | ',' => _ = write!(escaped, "\\{c}"),
            '\r' if chars.peek() == Some(&'\n') => {}
            '\r' | '\n' => escaped.push_str("\\n"),
            c if c.is_control() => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}

/// The value of a parameter, quoted, by RFC 6868 where it would end the quotes.
fn parameter(value: &str) -> String {
    let mut quoted = String::from("\"");
    for c in value.chars() {
        match c {
            '"' => quoted.push_str("^'"),
            '^' => quoted.push_str("^^"),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// An address that was checked to be one, without what could end a line.
fn address(email: &str) -> String {
    email.chars().filter(|c| !c.is_control() && !c.is_whitespace()).collect()
}

#[cfg(test)]
mod tests {
    use icalendar::{Calendar, CalendarComponent, CalendarDateTime, Component, DatePerhapsTime};
    use proptest::prelude::*;

    use super::*;

    fn item<'a>(summary: &'a str, due: &str) -> Item<'a> {
        Item {
            uid: "1@example.com",
            sequence: 2,
            made: "2026-03-01T10:00:00Z".parse().unwrap(),
            due: Due::parse(due).unwrap(),
            summary,
            description: "",
        }
    }

    const ANNA: Person<'static> = Person { name: "Anna \"A\" ^ Lee;\r\nX:Y", email: "anna@example.com" };

    #[test]
    fn a_follow_up_is_an_invitation_that_others_can_read() {
        let summary = "Talk to Ben, Eva; and \\ all\nof the others who could not be here today because of the storm";
        let written = invitation(&item(summary, "2026-03-13T15:30:00+01:00"), &ANNA, &ANNA);
        assert!(written.lines().all(|line| line.len() <= LINE), "{written}");
        assert!(written.contains("\r\nMETHOD:REQUEST\r\n") && written.contains("\r\nDTSTART:20260313T143000Z\r\n"));
        let unfolded = written.replace("\r\n ", "");
        assert!(
            unfolded.contains("ORGANIZER;CN=\"Anna ^'A^' ^^ Lee;  X:Y\":mailto:anna@example.com\r\n"),
            "a name ends neither quotes nor line: {unfolded}"
        );
        assert!(unfolded.contains("PARTSTAT=NEEDS-ACTION;RSVP=TRUE:mailto:anna@example.com\r\n"));
        let read: Calendar = written.parse().unwrap();
        let [CalendarComponent::Event(event)] = read.components.as_slice() else { panic!("{read:?}") };
        assert_eq!(event.get_summary().map(unescaped), Some(summary.to_owned()));
        assert_eq!((event.get_uid(), event.get_sequence()), (Some("1@example.com"), Some(2)));
        let start = event.property_value("DTSTART").unwrap();
        assert_eq!(start, "20260313T143000Z");
    }

    /// The parser may or may not have done it.
    fn unescaped(text: &str) -> String {
        text.replace("\\n", "\n").replace("\\,", ",").replace("\\;", ";").replace("\\\\", "\\")
    }

    #[test]
    fn tasks_have_a_day_or_a_moment() {
        let written = tasks(&[item("by day", "2026-03-13T00:00:00-07:00"), item("by hour", "2026-03-13T17:00:00Z")]);
        let read: Calendar = written.parse().unwrap();
        let [CalendarComponent::Todo(day), CalendarComponent::Todo(hour)] = read.components.as_slice() else {
            panic!("{read:?}")
        };
        assert!(matches!(day.get_due(), Some(DatePerhapsTime::Date(date)) if date.to_string() == "2026-03-13"));
        assert!(matches!(
            hour.get_due(),
            Some(DatePerhapsTime::DateTime(CalendarDateTime::Utc(at))) if at.to_rfc3339() == "2026-03-13T17:00:00+00:00"
        ));
        assert_eq!(day.get_summary(), Some("by day"));
    }

    #[test]
    fn due_dates_are_read_as_they_are_written() {
        assert_eq!(Due::parse("2026-03-13T00:00:00-07:00").unwrap().shown(), "2026-03-13");
        assert_eq!(Due::parse("2026-03-13T17:05:00+02:00").unwrap().shown(), "2026-03-13 15:05 UTC");
        for wrong in
            ["", "tomorrow", "2026-03-13", "2026-03-13T17:00:00", "é026-03-13T17:00:00Z", "2026-13-45T00:00:00Z"]
        {
            assert_eq!(Due::parse(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_said_stays_in_its_line(summary in "\\PC*|[\\r\\n:;,\"\\\\ A-Zé🙂]{0,200}") {
            let written = invitation(&item(&summary, "2026-03-13T15:30:00Z"), &ANNA, &ANNA);
            prop_assert!(written.split("\r\n").all(|line| line.len() <= LINE && !line.contains(['\r', '\n'])));
            let unfolded = written.replace("\r\n ", "");
            prop_assert_eq!(unfolded.matches("\r\nBEGIN:VEVENT\r\n").count(), 1);
            prop_assert_eq!(unfolded.lines().filter(|line| line.starts_with("SUMMARY:")).count(), 1);
            let line = unfolded.split("\r\n").find(|line| line.starts_with("SUMMARY:")).unwrap_or_default();
            let expected = summary.replace("\r\n", "\n").replace('\r', "\n");
            let expected: String =
                expected.chars().map(|c| if c.is_control() && c != '\n' { ' ' } else { c }).collect();
            prop_assert_eq!(back(&line["SUMMARY:".len()..]), expected);
        }
    }

    fn back(text: &str) -> String {
        let mut plain = String::new();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\\' => match chars.next() {
                    Some('n') => plain.push('\n'),
                    Some(c) => plain.push(c),
                    None => plain.push('\\'),
                },
                c => plain.push(c),
            }
        }
        plain
    }
}
