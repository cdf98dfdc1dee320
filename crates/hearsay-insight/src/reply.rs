//! What a sentence says to those before it: that it will be done, that it need not be, that something else was meant.
//!
//! Rules, and few: what they miss is told as it was before, what they find wrongly changes what was right.

use crate::text::words;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reply {
    /// "Okay, I'll do that."
    Agrees,
    /// "Never mind."
    TakesBack,
    /// "No, on Friday": some of what was said is to be something else.
    Corrects,
}

/// Longer ones say something of their own.
const WORDS: usize = 10;

/// What may come before it.
const FILLERS: &str = " okay ok yes yeah yep sure alright fine right well um uh so great cool of course absolutely no \
    problem and then perfect good thanks oh ";

const AGREES: &[&str] = &[
    "i'll do that",
    "i'll do it",
    "i'll do this",
    "i will do that",
    "i will do it",
    "i can do that",
    "i can do it",
    "i could do that",
    "will do",
    "i'll take that",
    "i'll take it",
    "i'll take this",
    "i'll take care of",
    "i will take care of",
    "i can take that",
    "i can take care of",
    "i'll handle that",
    "i'll handle it",
    "i can handle that",
    "i'll get on that",
    "i'll get on it",
    "i'll see to it",
    "i'll see to that",
    "i'm on it",
    "on it",
    "leave it to me",
    "leave that to me",
    "consider it done",
    "let me do that",
    "let me take that",
];

const TAKES_BACK: &[&str] = &[
    "never mind",
    "nevermind",
    "forget it",
    "forget that",
    "forget about it",
    "forget about that",
    "scratch that",
    "don't bother",
    "no need",
    "let's not do that",
    "we don't need that",
];

const CORRECTS: &[&str] = &[
    "no",
    "nope",
    "sorry",
    "actually",
    "wait",
    "i mean",
    "i meant",
    "make it",
    "make that",
    "correction",
    "rather",
    "or rather",
    "not",
    "let's say",
];

pub(crate) fn reply(text: &str) -> Option<Reply> {
    let all: Vec<String> = words(text).take(WORDS + 1).map(|it| it.text.to_lowercase().replace('’', "'")).collect();
    if all.is_empty() || all.len() > WORDS {
        return None;
    }
    let begins = |from: usize, phrase: &str| {
        let mut rest = all[from..].iter();
        phrase.split(' ').all(|it| rest.next().is_some_and(|word| word == it))
    };
    let filled = all.iter().take_while(|it| FILLERS.contains(&format!(" {it} "))).count();
    // "Well, forget it": what comes before is as much a filler as it is a beginning.
    for from in 0..=filled.min(all.len() - 1) {
        if AGREES.iter().any(|it| begins(from, it)) {
            return Some(Reply::Agrees);
        }
        if TAKES_BACK.iter().any(|it| begins(from, it)) {
            return Some(Reply::TakesBack);
        }
    }
    (0..=filled.min(all.len() - 1)).any(|from| CORRECTS.iter().any(|it| begins(from, it))).then_some(Reply::Corrects)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_said_to_what_was_said() {
        let check = |text: &str, expected: Option<Reply>| assert_eq!(reply(text), expected, "{text}");
        check("Okay, I'll do that.", Some(Reply::Agrees));
        check("Sure, I can take care of it by Friday.", Some(Reply::Agrees));
        check("Will do!", Some(Reply::Agrees));
        check("Yeah, I’m on it.", Some(Reply::Agrees));
        check("I'll do that once the other four teams have told us what they want.", None);
        check("I'll send the report.", None);
        check("Never mind.", Some(Reply::TakesBack));
        check("Oh well, forget about it.", Some(Reply::TakesBack));
        check("No need, thanks.", Some(Reply::TakesBack));
        check("No, Friday.", Some(Reply::Corrects));
        check("Sorry, I mean on Thursday at three.", Some(Reply::Corrects));
        check("Make that Monday.", Some(Reply::Corrects));
        check("Friday is fine.", None);
        check("", None);
        check("...", None);
    }

    proptest! {
        #[test]
        fn anything_may_be_said(text in "\\PC{0,60}|(no |okay |never mind |will |do ){0,12}") {
            let _ = reply(&text);
        }
    }
}
