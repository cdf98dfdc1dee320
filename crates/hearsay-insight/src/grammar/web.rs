//! E-mail and web addresses, written and spelled out.

use super::Kind;
use super::lex::{Kind as Lexed, Tokens};

/// Longer ones are not read.
const LONGEST: usize = 128;

/// What the last part of a spoken or bare address may be.
fn top_level(word: &str) -> bool {
    matches!(
        word,
        "com"
            | "org"
            | "net"
            | "edu"
            | "gov"
            | "io"
            | "ai"
            | "dev"
            | "app"
            | "info"
            | "biz"
            | "co"
            | "uk"
            | "de"
            | "fr"
            | "es"
            | "it"
            | "nl"
            | "eu"
            | "us"
            | "ca"
            | "au"
            | "in"
            | "jp"
            | "cn"
            | "br"
            | "ch"
            | "at"
            | "be"
            | "se"
            | "no"
            | "dk"
            | "pl"
            | "ie"
            | "nz"
            | "tv"
            | "me"
            | "cloud"
            | "tech"
            | "xyz"
            | "online"
    )
}

pub(crate) fn address(t: &Tokens<'_>, at: usize) -> Option<(Kind, String, usize)> {
    written(t, at).or_else(|| spoken(t, at))
}

/// The tokens from there that touch one another.
fn touching(t: &Tokens<'_>, at: usize) -> usize {
    let mut end = at + 1;
    while end < at + LONGEST && t.glued(end) {
        end += 1;
    }
    end
}

fn written(t: &Tokens<'_>, at: usize) -> Option<(Kind, String, usize)> {
    let first = t.get(at)?;
    if first.kind == Lexed::Mark || t.glued(at) && !t.is_any(at - 1, &["(", "<", "\"", "'", ":", ",", "[", ">", "="]) {
        return None;
    }
    // Most words touch nothing that an address has.
    if !t.glued(at + 1) || !t.is_any(at + 1, &[".", "@", ":", "_", "-", "+"]) && t.get(at + 1)?.kind == Lexed::Mark {
        return None;
    }
    let mut end = touching(t, at);
    let joined = |end: usize| -> String { (at..end).filter_map(|it| t.get(it)).map(|it| it.text).collect() };
    let scheme = t.any(at, "http https ftp") && t.is(at + 1, ":") && t.is(at + 2, "/") && t.is(at + 3, "/");
    let www = t.word(at) == "www" && t.is(at + 1, ".");
    if scheme || www {
        end = (at..end).find(|it| t.is_any(*it, &["<", ">", "\"", " ", "“", "”"])).unwrap_or(end);
        while end > at + 1 && t.is_any(end - 1, &[".", ",", ";", ":", "!", "?", ")", "'", "]"]) {
            end -= 1;
        }
        return (end > at + 3).then(|| (Kind::Url, joined(end), end));
    }
    // name@host.tld
    let name_part =
        |it: usize| t.get(it).is_some_and(|token| token.kind != Lexed::Mark) || t.is_any(it, &[".", "_", "-", "+"]);
    let host_part = |it: usize| t.get(it).is_some_and(|token| token.kind != Lexed::Mark) || t.is_any(it, &[".", "-"]);
    let sign = (at..end).find(|it| !name_part(*it)).unwrap_or(end);
    if t.is(sign, "@") && sign < end {
        let mut stop = (sign + 1..end).find(|it| !host_part(*it)).unwrap_or(end);
        while stop > sign + 1 && t.is_any(stop - 1, &[".", "-"]) {
            stop -= 1;
        }
        let dotted = (sign + 2..stop).any(|it| t.is(it, "."));
        let ends_in_word = stop > sign + 3 && t.word(stop - 1).len() >= 2;
        return (dotted && ends_in_word).then(|| (Kind::Email, joined(stop), stop));
    }
    // host.tld/path
    let mut stop = (at..end).find(|it| !host_part(*it)).unwrap_or(end);
    let path = t.is(stop, "/") && stop < end;
    while stop > at + 1 && t.is_any(stop - 1, &[".", "-"]) {
        stop -= 1;
    }
    let known = stop >= at + 3
        && t.is(stop - 2, ".")
        && matches!(
            t.word(stop - 1),
            "com" | "org" | "net" | "edu" | "gov" | "io" | "ai" | "dev" | "app" | "uk" | "de"
        );
    if !known || t.word(at).is_empty() {
        return None;
    }
    if path {
        stop = end;
        while stop > at + 1 && t.is_any(stop - 1, &[".", ",", ";", ":", "!", "?", ")"]) {
            stop -= 1;
        }
    }
    Some((Kind::Url, joined(stop), stop))
}

/// "anna dot kim at example dot com", "example dot org".
fn spoken(t: &Tokens<'_>, at: usize) -> Option<(Kind, String, usize)> {
    if t.word(at).is_empty() && t.digits(at).is_empty() || t.any(at, "the a an i and of dot at") {
        return None;
    }
    let (mut name, mut next) = labels(t, at)?;
    let mut kind = Kind::Url;
    if t.word(next) == "at" {
        let (host, end) = labels(t, next + 1)?;
        if !host.contains('.') {
            return None;
        }
        name = format!("{name}@{host}");
        next = end;
        kind = Kind::Email;
    } else if !name.contains('.') {
        return None;
    }
    top_level(t.word(next - 1)).then_some((kind, name, next))
}

/// Words with "dot", "underscore" and "dash" between them.
fn labels(t: &Tokens<'_>, at: usize) -> Option<(String, usize)> {
    let label = |at: usize| t.get(at).filter(|it| it.kind != Lexed::Mark && it.text.len() <= 64).map(|it| it.text);
    let mut all = label(at)?.to_owned();
    let mut next = at + 1;
    for _ in 0..8 {
        let join = match t.word(next) {
            "dot" => '.',
            "underscore" => '_',
            "dash" | "hyphen" => '-',
            _ => break,
        };
        let Some(it) = label(next + 1) else { break };
        all.push(join);
        all.push_str(it);
        next += 2;
    }
    Some((all, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &[(Kind, &str)]) {
        let t = Tokens::new(text);
        let mut found = Vec::new();
        let mut at = 0;
        while at < t.len() {
            at = match address(&t, at) {
                Some((kind, it, end)) => {
                    found.push((kind, it));
                    end
                }
                None => at + 1,
            };
        }
        let found: Vec<_> = found.iter().map(|(kind, it)| (*kind, &**it)).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn addresses() {
        check("write to anna.kim+x@mail.example.com.", &[(Kind::Email, "anna.kim+x@mail.example.com")]);
        check("see https://example.com/a?b=c#d, please", &[(Kind::Url, "https://example.com/a?b=c#d")]);
        check("www.example.com/x.", &[(Kind::Url, "www.example.com/x")]);
        check("it is on example.com (really)", &[(Kind::Url, "example.com")]);
        check("anna dot kim at example dot com", &[(Kind::Email, "anna.kim@example.com")]);
        check("go to hearsay dot dev", &[(Kind::Url, "hearsay.dev")]);
        check("meet at example", &[]);
        check("a@b", &[]);
        check("end.of sentence", &[]);
        check("polka dot dress", &[]);
    }
}
