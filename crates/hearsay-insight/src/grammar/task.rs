//! Who is to do what is said, and by when.

use jiff::civil::{Date, DateTime, Time, Weekday};

use super::calendar::{add_days, in_week};
use super::day::Reader;
use super::lex::{Kind as Lexed, Tokens};
use super::names::{Names, is_word};
use super::period::Edge;
use super::when::Stretched;
use super::{Context, Kind, Value};

/// Who is meant to do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Assignee {
    /// Index into the roster ([`Names::people`]).
    Person(usize),
    /// All who take part: "we need to …".
    Everyone,
}

/// What the words look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Hint {
    /// Nothing to do: a report, an opinion, a refusal.
    #[default]
    None,
    Question,
    Action,
    /// To meet or to speak again.
    FollowUp,
}

/// When it is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The day, the last working one where a stretch of days was said.
    pub date: Date,
    /// The time on that day, where it was told.
    pub time: Option<Time>,
    /// The words that say it, in bytes of the text: first and after the last.
    pub start: usize,
    pub end: usize,
    /// The first day and the one after the last, where the words leave it open ("next week").
    pub range: Option<(Date, Date)>,
}

impl Due {
    /// The moment by which it is due: the time told, else the start of the day.
    #[must_use]
    pub fn moment(&self) -> DateTime {
        self.date.to_datetime(self.time.unwrap_or(Time::midnight()))
    }
}

/// What a text asks to be done. Without a task it names nobody and is never due.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Task {
    pub hint: Hint,
    /// In the order they were named; none where nobody was.
    pub assignees: Vec<Assignee>,
    pub due: Option<Due>,
}

/// A wish to meet or speak again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FollowUp {
    pub assignees: Vec<Assignee>,
    pub due: Option<Due>,
}

/// Reads who is to do something and by when. `speaker` is who says it, an index into the roster.
#[must_use]
pub fn task(text: &str, speaker: Option<usize>, context: &Context<'_>) -> Task {
    let lower = text.to_ascii_lowercase();
    let tokens = Tokens::new(&lower);
    let scan = Scan::new(text, &tokens, context.names, speaker);
    let Some(cue) = scan.cue() else {
        let hint = if scan.asks() { Hint::Question } else { Hint::None };
        return Task { hint, ..Task::default() };
    };
    if cue.hint == Hint::Question {
        return Task { hint: Hint::Question, ..Task::default() };
    }
    Task { hint: cue.hint, assignees: scan.assignees(&cue.who), due: due(text, &tokens, &scan, &cue, context) }
}

/// The follow-up a text asks for, if it does: to meet, call, or look at something again, or when the next meeting is.
#[must_use]
pub fn follow_up(text: &str, speaker: Option<usize>, context: &Context<'_>) -> Option<FollowUp> {
    let task = task(text, speaker, context);
    (task.hint == Hint::FollowUp).then_some(FollowUp { assignees: task.assignees, due: task.due })
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Speaker,
    People(Vec<usize>),
    Everyone,
    /// Whoever is spoken to.
    You,
    Nobody,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Cue {
    /// How sure it is; of the surest, the first counts.
    strength: u8,
    /// Its place among the words.
    at: usize,
    hint: Hint,
    who: Who,
}

/// Words looked at for who is to do what: some of it compares each with those before.
const MOST_WORDS: usize = 300;

/// The words of an utterance, contractions in one: "i'll".
struct Scan<'a> {
    words: Vec<String>,
    /// The token each begins with.
    tokens: Vec<usize>,
    /// Who is named there, and by how many words.
    named: Vec<Option<(usize, usize)>>,
    /// A mark stands before it: a clause may begin.
    opens: Vec<bool>,
    /// Somewhere it is about meeting or speaking again.
    again: bool,
    names: &'a Names,
    speaker: Option<usize>,
}

/// Words that are one with "'s" and "'ll".
const CONTRACTED: &str = "i you he she it we they that this these those what who where when how why there here let somebody \
    someone everybody everyone nobody";

const STATES: &str = "on in out at there here away late off back free available happy gone able fine ok okay \
            good great honest sure glad a the an interesting more less better hard easy tough \
            traveling travelling joining attending missing around busy unavailable offline online \
            quick brief right sick working starting very really so too home stuck surprised worried \
            interested";

/// After "I will" these promise nothing.
const EMPTY: &str = "say admit bet guess assume agree argue know miss pass stop wait stay leave see think \
            never not always have need want like love hate probably go get tell let be believe hope \
            imagine mention note repeat understand remember stand lose die happen work skip defer \
            disagree concede confess end";

/// Which of them do promise something with what may follow: "have the report ready", "get back to you".
fn promises(verb: &str, next: &str, after: &str) -> bool {
    match verb {
        "have" => !(next == "been" || has("to a", next) && has("problem hard say admit", after)),
        "get" => !has("there lost used tired old late", next),
        "tell" => !matches!(next, "you" | "ya") || has("tomorrow when by as", after),
        "let" => !(next == "you" && has("go finish continue speak talk", after)),
        "go" => has("over through ahead and back check talk ask get do find look pick", next),
        "see" => has("what if whether to", next),
        "leave" => has("a the comments feedback", next),
        "think" | "work" => has("about on over through with it", next),
        "need" | "want" => next == "to",
        "probably" | "always" => !has(EMPTY, next) && !next.is_empty(),
        "mention" | "note" | "skip" => has("it that this the", next) && matches!(after, "to" | "in" | "down"),
        "remember" => next == "to",
        "wait" | "stay" | "agree" | "stop" | "pass" | "end" => {
            matches!(verb, "pass") && has("it that this the on along", next)
        }
        _ => false,
    }
}

/// Verbs that tell of a mind, not of a deed: "I can see", "you should know".
const STATIVE: &str = "see hear understand imagine tell think say remember believe feel know be have see only \
            not never appreciate agree sympathize relate assure guess live recall confirm";

/// What someone is asked that is answered at once.
const EXPLAIN: &str = "walk me through|walk us through|talk me through|talk us through|take us through|\
            take me through|explain|clarify|elaborate|repeat|say that|say more|say a|tell me|\
            tell us|hear|see|remind me what|remind me who|remind me when|remind me how|\
            remind us what|speak up|describe|go back to|show me|show us|give me an example|\
            give us an example|zoom|scroll|hold on|think of|believe|imagine|please explain|\
            please repeat|please clarify|summarize that|confirm that you";

/// Verbs that open an order.
const ORDERS: &str = "send make check update fix review prepare schedule book call email write create add \
            remember ensure follow share set finish submit complete draft forward upload post ping \
            contact talk ask remind order cancel confirm arrange organize get put double test \
            deploy merge move delete remove invite notify print sign file document collect gather \
            bring buy pay renew reply respond investigate look find give take let run start turn \
            keep reach copy loop circulate revise assign plan push pull open close write do help \
            work pick drop deliver handle own present provide";

/// To meet or speak again.
const AGAIN: &str = "meet again|talk again|speak again|chat again|discuss again|circle back|touch base|\
            reconvene|regroup|catch up|revisit|follow up call|follow up meeting|follow up session|\
            followup call|followup meeting|a follow up|a followup|another call|another meeting|\
            another session|pick this up|pick this back up|pick it up|pick it back up|pick up where|\
            come back to|get together|check in again|check back|sync up|sync again|meet up|\
            continue this|next call|next meeting|next sync|next check|next session|next standup|\
            next review|next catch|next touchpoint|next one is|follow up on this|follow up on that|\
            see you all|schedule a call|schedule a meeting|set up a call|set up a meeting|\
            set up another|book another|schedule another|have a call|jump on a call|hop on a call|\
            talk about this again|discuss this again|discuss this further|speak next|meet next|\
            talk next|meet on|sync on|sync next|meet tomorrow|talk tomorrow|speak tomorrow|\
            reconnect|resume";

impl<'a> Scan<'a> {
    fn new(text: &str, t: &Tokens<'_>, names: &'a Names, speaker: Option<usize>) -> Self {
        let mut it = Self {
            words: Vec::new(),
            tokens: Vec::new(),
            named: Vec::new(),
            opens: Vec::new(),
            again: false,
            names,
            speaker,
        };
        let mut at = 0;
        let mut opens = true;
        while at < t.len() && it.words.len() < MOST_WORDS {
            let Some(token) = t.get(at) else { break };
            if token.kind == Lexed::Mark {
                opens |= t.is_any(at, &[".", ",", "?", "!", ";", ":", "…"]);
                at += 1;
                continue;
            }
            let mut word = token.text.to_owned();
            let mut first = at;
            at += 1;
            if t.apostrophe(at) && t.glued(at) && t.glued(at + 1) && has("ll m ve re d s t", t.word(at + 1)) {
                let ending = t.word(at + 1);
                if matches!(ending, "s" | "ll") && !has(CONTRACTED, &word) {
                    // "Tom's going", "Tom'll": two words, the first of them a name.
                    it.push(word, first, opens);
                    opens = false;
                    first = at + 1;
                    word = if ending == "ll" { "will".to_owned() } else { "'s".to_owned() };
                } else {
                    word.push('\'');
                    word.push_str(ending);
                }
                at += 2;
            }
            let word = match &*word {
                "lets" => "let's".to_owned(),
                "dont" => "don't".to_owned(),
                "wont" => "won't".to_owned(),
                "cant" => "can't".to_owned(),
                "im" => "i'm".to_owned(),
                "ive" => "i've".to_owned(),
                "youll" => "you'll".to_owned(),
                _ => word,
            };
            it.push(word, first, opens);
            opens = false;
        }
        it.again = (0..it.words.len()).any(|i| it.phrases(i, AGAIN));
        it.named = (0..it.words.len()).map(|i| it.name_at(text, t, i)).collect();
        it
    }

    fn push(&mut self, word: String, token: usize, opens: bool) {
        self.words.push(word);
        self.tokens.push(token);
        self.opens.push(opens);
    }

    fn name_at(&self, text: &str, t: &Tokens<'_>, i: usize) -> Option<(usize, usize)> {
        let at = self.tokens[i];
        let written = self.names.person(text, t, at);
        let (who, end) = written.or_else(|| {
            // A name that is a word, or heard wrong, only where one is called.
            let next = self.word(i + 1);
            let called = has("can could would please you you'll needs is has will", next) && (i == 0 || self.opens(i));
            let to = i > 0
                && matches!(
                    self.word(i - 1),
                    "ask" | "tell" | "assign" | "have" | "want" | "like" | "need" | "remind" | "so"
                )
                && next == "to";
            if !called && !to {
                return None;
            }
            let found = self.names.heard(t, at)?;
            // "will you", "may i": the word, unless it is called as a name before "you" of its own.
            if is_word(t.word(at)) && !(has("can could would please needs will", next)) {
                return None;
            }
            Some(found)
        })?;
        let words = self.tokens.iter().skip(i).take_while(|it| **it < end).count().max(1);
        Some((who, words))
    }

    fn word(&self, i: usize) -> &str {
        self.words.get(i).map_or("", |it| it)
    }

    /// A clause may begin there.
    fn opens(&self, i: usize) -> bool {
        self.opens.get(i).copied().unwrap_or(false)
    }

    /// Somebody is named there.
    fn name(&self, i: usize) -> bool {
        self.named.get(i).is_some_and(Option::is_some)
    }

    /// One of these words, with spaces between them.
    fn any(&self, i: usize, words: &str) -> bool {
        has(words, self.word(i))
    }

    /// These words one after another.
    fn phrase(&self, i: usize, words: &str) -> bool {
        words.split(' ').enumerate().all(|(k, it)| self.word(i + k) == it)
    }

    /// One of these phrases, with `|` between them.
    fn phrases(&self, i: usize, all: &str) -> bool {
        all.split('|').any(|it| self.phrase(i, it))
    }

    /// Past "just", "definitely" and the like.
    fn past_adverbs(&self, mut i: usize) -> usize {
        for _ in 0..3 {
            if !self.any(
                i,
                "just definitely probably also then certainly maybe still personally gladly happily \
            quickly really actually now please try all both either either",
            ) {
                break;
            }
            i += 1;
        }
        i
    }

    fn negated(&self, i: usize) -> bool {
        let i = self.past_adverbs(i);
        self.any(i, "not never no hardly won't can't") && !self.phrases(i, "not forget to|not only")
    }

    /// A question to be answered, not a request.
    fn asks(&self) -> bool {
        let first = self.past_fillers();
        match self.word(first) {
            "who" | "what" | "when" | "where" | "which" | "whose" | "who's" | "what's" | "where's" | "when's"
            | "why" | "how" | "how's" | "any" => true,
            "do" | "does" | "did" | "is" | "are" | "was" | "were" | "has" | "have" | "had" | "isn't" | "aren't"
            | "don't" | "doesn't" | "didn't" | "should" | "shall" | "can" | "could" | "would" | "will" | "may"
            | "haven't" | "hasn't" => {
                let next = self.word(first + 1);
                has(
                    "you we i they he she it there the this that anyone anybody everyone any these those \
            your our someone somebody",
                    next,
                ) || self.name(first + 1)
            }
            _ => false,
        }
    }

    /// Past "so", "okay", "yeah".
    fn past_small_words(&self) -> usize {
        let mut i = 0;
        while i < 6
            && self.any(
                i,
                "so and but well okay ok um uh yeah yes yep right oh hey now then like also alright sure \
            great cool no actually sorry",
            )
        {
            i += 1;
        }
        i
    }

    /// Past those, and past who is called before a question.
    fn past_fillers(&self) -> usize {
        let mut i = self.past_small_words();
        // "Bob who is …"
        if let Some(Some((_, words))) = self.named.get(i)
            && self.any(i + words, "who what when where do did are have is")
            && !self.any(i + words, "is have")
        {
            i += words;
        }
        i
    }

    /// "I will …": does what follows promise something?
    fn promise(&self, i: usize) -> bool {
        if self.negated(i) {
            return false;
        }
        let i = self.past_adverbs(i);
        let verb = self.word(i);
        if verb == "be" {
            // "I'll be sending it": a deed; "I'll be on vacation": none.
            let next = self.word(i + 1);
            return next.ends_with("ing") && !has(STATES, next)
                || self.phrase(i + 1, "responsible")
                || self.phrase(i + 1, "in charge")
                || self.phrase(i + 1, "sure to")
                || self.phrase(i + 1, "the one to");
        }
        if has(EMPTY, verb) {
            return promises(verb, self.word(i + 1), self.word(i + 2));
        }
        !verb.is_empty()
    }

    /// The surest cue that something is to be done.
    fn cue(&self) -> Option<Cue> {
        let mut best: Option<Cue> = None;
        for i in 0..self.words.len() {
            for it in [self.own(i), self.of_name(i), self.request(i), self.all(i), self.nobody(i), self.order(i)]
                .into_iter()
                .flatten()
            {
                if best.as_ref().is_none_or(|best| it.strength > best.strength) {
                    best = Some(it);
                }
            }
        }
        let again = (0..self.words.len()).find(|i| self.phrases(*i, AGAIN));
        let mut best = match (best, again) {
            (Some(best), _) => best,
            // "our next sync is on Tuesday"
            (None, Some(at)) if self.meets(at) => Cue { strength: 3, at, hint: Hint::FollowUp, who: Who::Everyone },
            _ => return None,
        };
        if best.hint == Hint::Action && again.is_some() && matches!(best.who, Who::Everyone) {
            best.hint = Hint::FollowUp;
        }
        if best.hint == Hint::Action
            && again.is_some_and(|at| self.meets(at))
            && matches!(best.who, Who::Nobody | Who::You)
        {
            best.hint = Hint::FollowUp;
            best.who = Who::Everyone;
        }
        if best.hint == Hint::Action
            && self.asks()
            && best.strength < 5
            && matches!(best.who, Who::You | Who::Everyone)
            && self.wonders()
        {
            best.hint = Hint::Question;
        }
        Some(best)
    }

    /// "what should we do", "do you know who …": nothing is asked for but an answer.
    fn wonders(&self) -> bool {
        let first = self.past_fillers();
        self.any(first, "who what when where which whose who's what's any do does did is are was were has have")
            && !self.phrase(first, "what if")
            && !self
                .phrases(first, "do you mind|do you think you|are you able|is it possible|do you want to|any chance")
            || self.any(first, "why how") && !self.phrases(first, "why don't|how about|why not")
            || self.any(first, "should shall can could") && self.any(first + 1, "we i")
    }

    /// The next meeting is told: "our next sync is on the seventeenth".
    fn meets(&self, at: usize) -> bool {
        let next = self.word(at) == "next";
        let told = (at..(at + 6).min(self.words.len())).any(|i| self.any(i, "is will would should on for at be"));
        let ours = at > 0 && self.any(at - 1, "our the my") || at == 0 || self.opens(at);
        if next {
            return told && ours && !self.asks();
        }
        self.phrases(
            at,
            "see you all|a follow up|follow up call|follow up meeting|reconvene|regroup|circle back|\
            touch base|talk again|speak again|meet again|talk tomorrow|talk next|speak next",
        ) && !self.asks()
            && !(0..at).any(|i| self.any(i, "i he she they had was were did won't can't not never if"))
    }

    /// What the speaker takes on.
    fn own(&self, i: usize) -> Option<Cue> {
        let cue = |strength| Some(Cue { strength, at: i, hint: Hint::Action, who: Who::Speaker });
        let conditional = i > 0
            && self.any(i - 1, "if unless wish that what as before when")
            && !self.phrase(i.saturating_sub(2), "is that");
        if self.again && self.any(i, "i i'd") {
            let wish = self.phrases(i + 1, "like to|want to|suggest we|propose we|love to");
            if wish && (i + 3..i + 5).any(|k| self.phrases(k, AGAIN)) {
                return Some(Cue { strength: 4, at: i, hint: Hint::FollowUp, who: Who::Everyone });
            }
        }
        match self.word(i) {
            "i'll" => return if self.promise(i + 1) && !conditional { cue(5) } else { None },
            "i" => {
                if conditional && !self.okay_if(i) {
                    return None;
                }
                if self.okay_if(i) {
                    return cue(5);
                }
                let next = self.past_adverbs(i + 1);
                match self.word(next) {
                    "will" | "shall" => return if self.promise(next + 1) { cue(5) } else { None },
                    "am" if self.phrase(next + 1, "going to") => {
                        return if self.promise(next + 3) { cue(5) } else { None };
                    }
                    "am" if self.any(next + 1, "gonna") => {
                        return if self.promise(next + 2) { cue(5) } else { None };
                    }
                    "can" => {
                        let verb = self.past_adverbs(next + 1);
                        let have = self.word(verb) == "have" && self.any(verb + 1, "it that this the a them something");
                        let confirm = self.word(verb) == "tell" && !self.any(verb + 1, "you that it");
                        let asked = i > 0 && self.any(i - 1, "how where so");
                        return if have
                            || confirm
                            || !has(STATIVE, self.word(verb)) && !self.word(verb).is_empty() && !asked
                        {
                            cue(5)
                        } else {
                            None
                        };
                    }
                    "need" | "have" | "must" | "should" | "gotta" => {
                        let verb = match self.word(next) {
                            "need" | "have" if self.word(next + 1) == "to" => next + 2,
                            "must" | "should" | "gotta" => next + 1,
                            _ => return None,
                        };
                        let verb = self.past_adverbs(verb);
                        let weak = self.any(
                            verb,
                            "say admit be have agree know note mention think go leave run drop jump apologize \
            understand",
                        );
                        let past = self.word(next) == "have" && self.word(verb) == "have";
                        return if weak || past || self.negated(verb) { None } else { cue(5) };
                    }
                    "promise" | "plan" | "intend" | "volunteer" | "commit" | "expect" | "aim" | "hope"
                        if self.word(next + 1) == "to" =>
                    {
                        return cue(5);
                    }
                    "owe" => return cue(4),
                    "got" if self.any(next + 1, "this that it") && next + 2 >= self.words.len() => {
                        return cue(5);
                    }
                    "own" | "take" if self.any(next + 1, "that this the it") => return cue(4),
                    _ => {}
                }
            }
            "i'm" => {
                let next = self.past_adverbs(i + 1);
                if self.phrase(next, "going to") {
                    return if self.promise(next + 2) { cue(5) } else { None };
                }
                if self.word(next) == "gonna" {
                    return if self.promise(next + 1) { cue(5) } else { None };
                }
                if self.phrase(next, "on it")
                    || self.phrase(next, "planning to")
                    || self.phrase(next, "happy to")
                    || self.phrase(next, "responsible for")
                    || self.phrase(next, "taking")
                    || self.phrase(next, "handling")
                {
                    return cue(5);
                }
            }
            "i've" if self.any(i + 1, "got") && self.any(i + 2, "to") => {
                return if self.any(i + 3, "say admit be go") { None } else { cue(5) };
            }
            "i'd"
                if self.phrase(i + 1, "be happy to")
                    || self.phrase(i + 1, "be glad to")
                    || self.phrase(i + 1, "better") =>
            {
                return cue(5);
            }
            "let" if self.word(i + 1) == "me" => {
                let verb = self.past_adverbs(i + 2);
                let idle = self.any(
                    verb,
                    "say think see know ask tell explain start finish guess be just add stop clarify \
            rephrase repeat show give go put step read jump interrupt remind point ask",
                );
                let kept = self.phrases(
                    verb,
                    "see if|see what|see whether|ask him|ask her|ask them|give it a|go back and|go and|\
            show you tomorrow|put together|put that|add that to|add it to|get",
                );
                let named = self.name(verb + 1) && self.any(verb, "ask tell show give remind");
                let asked = i > 0 && self.any(i - 1, "don't please");
                let idle = idle
                    || self.phrases(verb, "share my screen|pull up|pull that up|pull it up|bring up|check my notes");
                return if (!idle || kept || named) && !asked && !self.word(verb).is_empty() { cue(5) } else { None };
            }
            "remind" if self.word(i + 1) == "me" && self.any(i + 2, "to about that") => return cue(5),
            "put" | "sign" | "count" | "mark" if self.word(i + 1) == "me" && self.any(i + 2, "down up in") => {
                return cue(5);
            }
            "leave" | "assign" | "give"
                if (i + 1..i + 4).any(|k| self.phrase(k, "to me")) && i == self.past_fillers() =>
            {
                return cue(5);
            }
            "mine" if i > 0 && self.any(i - 1, "that's it's 's is are") && !self.asks() => return cue(4),
            "will" | "can" if self.word(i + 1) == "do" && i == self.past_fillers() && !self.any(i + 2, "you we i") => {
                return cue(4);
            }
            "on" if self.word(i + 1) == "it" && i == self.past_fillers() && i + 2 >= self.words.len() => return cue(4),
            "happy" | "glad" if self.word(i + 1) == "to" && i == self.past_fillers() => return cue(4),
            "consider" if self.phrase(i + 1, "it done") => return cue(4),
            "my" => {
                let item = self.phrases(
                    i + 1,
                    "action item|action items|action|to do|todo|to dos|task is|task for|job is to|\
            next step is|plate|court|responsibility|homework|list",
                );
                let done = (0..i).any(|k| self.any(k, "finished completed did closed done"));
                return if item && !done && !self.asks() { cue(5) } else { None };
            }
            "on" if self.word(i + 1) == "me" && i > 0 && self.any(i - 1, "that's it's this's is") => {
                return cue(5);
            }
            _ => {}
        }
        None
    }

    /// "is it okay if I …", "do you mind if I …", "would it help if I …".
    fn okay_if(&self, i: usize) -> bool {
        if i < 2 || self.word(i - 1) != "if" {
            return false;
        }
        let verb = self.past_adverbs(i + 1);
        (i.saturating_sub(4)..i).any(|k| self.any(k, "okay ok alright fine mind possible cool good help work better"))
            && !self.any(verb, "ask say were was join leave had")
    }

    /// People named one after another: "Priya and Tom".
    fn people(&self, i: usize) -> Option<(Vec<usize>, usize)> {
        let (who, words) = (*self.named.get(i)?)?;
        let mut all = vec![who];
        let mut next = i + words;
        for _ in 0..8 {
            let from = next + usize::from(self.word(next) == "and");
            let Some(Some((who, words))) = self.named.get(from) else { break };
            // Two names side by side without "and" are a call and a subject, unless a mark parts them.
            if from == next && !self.opens(from) {
                break;
            }
            if !all.contains(who) {
                all.push(*who);
            }
            next = from + words;
        }
        // "Bob and I"
        if self.phrase(next, "and i")
            && let Some(speaker) = self.speaker
        {
            all.push(speaker);
            next += 2;
        }
        Some((all, next))
    }

    /// Something for somebody named.
    fn of_name(&self, i: usize) -> Option<Cue> {
        let (who, next) = self.people(i)?;
        let before = i.checked_sub(1).map_or("", |k| self.word(k));
        let cue = |strength| Some(Cue { strength, at: i, hint: Hint::Action, who: Who::People(who.clone()) });
        // The end of a list is read with its beginning.
        if before == "and"
            && i >= 2
            && self.named[..i - 1].iter().rev().take(3).any(Option::is_some)
            && self.name(i.wrapping_sub(2))
        {
            return None;
        }
        let asked = self.any(i.saturating_sub(1), "does did do has is will can could should would was")
            && i.checked_sub(1).is_some_and(|before| before == 0 || self.opens(before));
        // "to Bob by Friday", "with Anna": somebody of the sentence, not its subject.
        let object = has("to with from for by about of at than like cc thanks thank", before);
        if has("ask tell want like need get have let remind expect encourage prefer task", before) {
            let past = i >= 2 && self.any(i - 2, "didn't don't not never i've had");
            let done = matches!(before, "have" | "let")
                && !self.word(next).is_empty()
                && !self.any(next, "know in on here for and go");
            if !past && (self.word(next) == "to" || done) {
                return cue(5);
            }
        }
        if before == "to"
            && i >= 2
            && (i.saturating_sub(8)..i).any(|k| self.any(k, "assign assigned assigning delegate hand give"))
            && !self.any(i - 2, "sent gave")
        {
            return cue(4);
        }
        if self.phrases(i.saturating_sub(3), "action item for|a task for|action point for") {
            return cue(5);
        }
        if before == "from"
            && (i.saturating_sub(8)..i).any(|k| self.phrases(k, "i need|we need|i want|waiting for|i'd need"))
        {
            return cue(4);
        }
        if object {
            return None;
        }
        let verb = self.past_adverbs(next);
        let third = match self.word(verb) {
            "will" | "shall" | "gonna" | "can" | "could" | "should" | "must" | "may" => {
                let you = self.word(verb + 1) == "you";
                if you {
                    return if self.phrases(self.past_adverbs(verb + 2), EXPLAIN) { question(i) } else { cue(5) };
                }
                if asked || self.negated(verb + 1) || self.word(verb) == "may" {
                    return None;
                }
                let own = self.promise(verb + 1) || self.word(verb + 1) == "take" || self.word(verb + 1) == "need";
                let idle = self.any(self.past_adverbs(verb + 1), "be know see like love agree understand hear")
                    && !self.promise(verb + 1);
                return if own && !idle { cue(5) } else { None };
            }
            "would" if self.word(verb + 1) == "you" => {
                return if self.phrases(verb + 2, EXPLAIN) { question(i) } else { cue(5) };
            }
            "would" => {
                (0..i).any(|k| self.any(k, "agreed decided said agree")) && !self.any(verb + 1, "not have never be")
            }
            "to" => !self.any(verb + 1, "the a an me you my our") && !self.word(verb + 1).is_empty(),
            "needs" | "need" | "has" | "have" | "is" | "'s" | "are" | "wants" | "promised" | "agreed" | "offered"
            | "volunteered" => {
                if asked {
                    return None;
                }
                match self.word(verb) {
                    "needs" | "need" | "has" | "have" => {
                        let agreed = self.phrases(verb + 1, "agreed to|offered to|volunteered to|promised to");
                        agreed || self.word(verb + 1) == "to" && !self.any(verb + 2, "be leave go drop")
                    }
                    "is" | "'s" | "are" => {
                        let after = self.past_adverbs(verb + 1);
                        if self.negated(after) {
                            false
                        } else if self.phrase(after, "going to") {
                            self.promise(after + 2)
                        } else if self.any(after, "gonna") {
                            self.promise(after + 1)
                        } else {
                            self.phrases(
                                after,
                                "turn to|action item|job to|task is|task to|responsibility|to|responsible for|in charge of|on it|on point|taking|handling|owning|supposed to|\
            the owner|assigned|on the hook|down for|preparing|doing|sending|writing|working on",
                            )
                        }
                    }
                    "agreed" | "offered" | "volunteered" => self.word(verb + 1) == "to",
                    _ => false,
                }
            }
            "owns" | "takes" | "handles" => true,
            "gets" => self.word(verb + 1) == "to",
            // "Tom said he'll send it"
            "said" | "says" | "mentioned" | "confirmed" | "told" => (verb + 1..verb + 5).any(|k| {
                self.any(k, "he'll she'll they'll") && self.promise(k + 1)
                    || self.any(k, "he she they") && self.word(k + 1) == "will" && self.promise(k + 2)
                    || self.any(k, "he's she's they're") && self.phrase(k + 1, "going to") && self.promise(k + 3)
                    || self.any(k, "he she") && self.phrase(k + 1, "is going to") && self.promise(k + 4)
            }),
            "action" if self.any(verb + 1, "item") => true,
            _ => false,
        };
        if third {
            return cue(5);
        }
        // "Bob please share", "Tom you'll handle", "Anna don't forget", "Priya send me"
        let called = i == self.past_fillers() || self.opens(i) || i + (next - i) >= self.words.len();
        // "I suggest that Priya leads it"
        let proposed = self.any(i.saturating_sub(1), "suggest propose recommend")
            || before == "that" && self.any(i.saturating_sub(2), "suggest propose recommend");
        if proposed && !self.word(next).is_empty() {
            return cue(5);
        }
        if !called {
            return None;
        }
        // "Priya maybe you can draft it", "Priya you're responsible for it", "Tom do me a favor and print it"
        let maybe = self.any(next, "maybe perhaps") && self.phrases(next + 1, "you can|you could");
        let given = self.word(next) == "you're"
            && self
                .phrases(next + 1, "responsible|in charge|on the hook|taking|handling|doing|up for|supposed to|owning");
        let going = self.phrase(next, "you're going to") && self.promise(next + 3);
        if maybe || given || going || self.phrases(next, "do me a favor|do us a favor|do me a favour") {
            return cue(5);
        }
        if self.any(next, "please you'll don't make go kindly remember")
            || self.any(next, "you")
                && self.any(next + 1, "need should have will can could must might gotta are own take")
        {
            let refused = self.phrase(next, "don't") && !self.phrase(next, "don't forget");
            let plain = self.phrase(next, "you")
                && self.any(next + 1, "are have can")
                && !self.any(next + 2, "to going gonna take do send");
            let negated = self.word(next) == "you'll" && !self.promise(next + 1)
                || self.word(next) == "you" && self.negated(next + 2);
            return if refused || plain || negated { None } else { cue(5) };
        }
        if i == self.past_fillers() && has(ORDERS, self.word(next)) && self.names_end(i) {
            return cue(5);
        }
        None
    }

    fn names_end(&self, i: usize) -> bool {
        self.people(i).is_some_and(|it| it.1 < self.words.len())
    }

    /// What is asked of whoever is spoken to.
    fn request(&self, i: usize) -> Option<Cue> {
        let cue = |strength, who| Some(Cue { strength, at: i, hint: Hint::Action, who });
        let you = || self.called().map_or(Who::You, |it| Who::People(vec![it]));
        match self.word(i) {
            "can" | "could" | "would" | "will" | "can't" | "won't" | "couldn't" if self.any(i + 1, "you y'all") => {
                let verb = self.past_adverbs(i + 2);
                // "can you and Tom look at it"
                if self.word(i + 2) == "and"
                    && let Some((others, next)) = self.people(i + 3)
                    && !self.word(next).is_empty()
                {
                    let mut who: Vec<usize> = self.called().into_iter().collect();
                    who.extend(others.into_iter().filter(|it| !who.contains(it)).collect::<Vec<_>>());
                    return cue(6, Who::People(who));
                }
                let all = self.any(verb, "all guys") || self.phrase(i + 2, "all");
                let verb = if all { verb + 1 } else { verb };
                let verb = if self.phrase(verb, "be able to") { verb + 3 } else { verb };
                let report = i > 0 && self.any(i - 1, "that if what how where when who as");
                if self.word(verb).is_empty()
                    || report
                    || self.any(verb, "be like have say agree think not")
                        && !self.phrase(verb, "be sure")
                        && !self.have_ready(verb)
                        && !self.phrase(verb, "be the one")
                {
                    return None;
                }
                if self.phrases(verb, EXPLAIN) && !self.later(verb) {
                    return question(i);
                }
                let all = all || self.phrase(i + 2, "all");
                return cue(4, if all { Who::Everyone } else { you() });
            }
            "please" => {
                let verb = self.past_adverbs(i + 1);
                if self.word(verb).is_empty()
                    || self.any(verb, "no don't wait hold note continue go repeat explain let")
                        && !self.phrase(verb, "don't forget")
                        && !self.phrase(verb, "go ahead")
                        && !self.name(verb + 1)
                {
                    return None;
                }
                let everyone = i > 0 && self.any(i - 1, "everyone everybody all guys folks team");
                return cue(4, if everyone { Who::Everyone } else { you() });
            }
            "don't" if self.phrase(i + 1, "forget to") => return cue(4, you()),
            "make" if self.any(i + 1, "sure") && (i == self.past_fillers() || self.opens(i)) => {
                return cue(4, you());
            }
            "go" if self.phrase(i + 1, "ahead and") && (i == self.past_fillers() || self.opens(i)) => {
                return cue(4, you());
            }
            "you'll" => {
                let conditional = i > 0 && self.any(i - 1, "if that what as when then and");
                return if self.promise(i + 1)
                    && !conditional
                    && !self.any(i + 1, "see find notice hear like love remember know understand need want be")
                {
                    cue(4, you())
                } else {
                    None
                };
            }
            "you" => {
                let conditional =
                    i > 0 && self.any(i - 1, "if that what as when because thing how do did are where whatever");
                if i > 0 && self.phrase(i - 1, "if you could") && !self.phrases(i + 2, EXPLAIN) {
                    return cue(4, you());
                }
                if conditional {
                    return None;
                }
                let next = self.past_adverbs(i + 1);
                let guys = self.any(next, "guys all");
                let next = self.past_adverbs(next + usize::from(guys));
                let you = || if guys { Who::Everyone } else { you() };
                // "do you think you could", "if you could"
                let wondered =
                    i > 0 && self.any(next, "can could") && self.phrases(i.saturating_sub(3), "do you think");
                if wondered && !self.phrases(self.past_adverbs(next + 1), EXPLAIN) {
                    return cue(4, you());
                }
                return match self.word(next) {
                    "should" | "must" | "gotta" => {
                        let verb = self.past_adverbs(next + 1);
                        let idle = self.any(verb, "be see know have not never hear notice think feel")
                            || self.word(verb).is_empty();
                        if idle { None } else { cue(4, you()) }
                    }
                    "need" | "have"
                        if self.word(next + 1) == "to" && !self.any(next + 2, "be know understand see worry") =>
                    {
                        cue(4, you())
                    }
                    "might" | "may" if self.phrase(next + 1, "want to") => cue(4, you()),
                    "are"
                        if self.phrase(next + 1, "responsible")
                            || self.phrase(next + 1, "going to") && self.promise(next + 3) =>
                    {
                        cue(4, you())
                    }
                    "to" if i > 0 && self.any(i - 1, "need want like for") => {
                        if self.any(next + 1, "know see understand hear think be") { None } else { cue(4, you()) }
                    }
                    "take" | "own" if i == self.past_fillers() || self.called().is_some() => cue(4, you()),
                    _ => None,
                };
            }
            "why" if self.phrase(i + 1, "don't you") => {
                let verb = self.past_adverbs(i + 3);
                return if self.any(verb, "like think agree have want know just believe") {
                    None
                } else {
                    cue(4, you())
                };
            }
            "mind" if i > 0 && self.any(i - 1, "you") && self.word(i + 1).ends_with("ing") => {
                let explains = self.any(i + 1, "explaining repeating clarifying telling elaborating saying");
                return if explains { question(i) } else { cue(4, you()) };
            }
            "are" if self.phrase(i + 1, "you able to") => {
                return if self.phrases(i + 4, EXPLAIN) { None } else { cue(4, you()) };
            }
            _ => {}
        }
        None
    }

    fn have_ready(&self, verb: usize) -> bool {
        self.word(verb) == "have" && self.any(verb + 1, "it that this the them your")
    }

    /// "by Friday": then even an explanation is to be prepared.
    fn later(&self, from: usize) -> bool {
        (from..self.words.len().min(from + 24))
            .any(|i| self.any(i, "by tomorrow before next monday tuesday wednesday thursday friday"))
    }

    /// Who is called by name at the beginning or the end.
    fn called(&self) -> Option<usize> {
        let first = self.past_small_words();
        if let Some(Some((who, words))) = self.named.get(first)
            && self.any(
                first + words,
                "can could would will please you you'll don't make go why do would kindly when if i \
            remember",
            )
        {
            return Some(*who);
        }
        let last = (self.words.len().saturating_sub(3)..self.words.len()).find(|i| {
            self.named[*i].is_some_and(|it| {
                i + it.1 == self.words.len()
                    || i + it.1 + 1 == self.words.len() && self.any(i + it.1, "please okay right thanks")
            })
        })?;
        let (who, _) = self.named[last]?;
        let before = last.checked_sub(1).map_or("", |i| self.word(i));
        let object = matches!(
            before,
            "" | "to"
                | "with"
                | "from"
                | "for"
                | "by"
                | "about"
                | "of"
                | "at"
                | "than"
                | "like"
                | "cc"
                | "thanks"
                | "and"
                | "or"
                | "ask"
                | "tell"
                | "call"
                | "email"
                | "ping"
                | "contact"
                | "help"
                | "meet"
                | "invite"
                | "remind"
                | "thank"
                | "in"
                | "on"
                | "let"
                | "include"
                | "see"
                | "send"
                | "give"
                | "message"
                | "text"
                | "loop"
                | "involve"
                | "notify"
                | "via"
                | "through"
                | "behind"
                | "against"
                | "without"
                | "inform"
                | "show"
                | "pay"
                | "join"
                | "copy"
                | "back"
        ) && !self.opens(last);
        (!object).then_some(who)
    }

    /// What all are to do.
    fn all(&self, i: usize) -> Option<Cue> {
        let cue = |hint| Some(Cue { strength: 3, at: i, hint, who: Who::Everyone });
        let conditional =
            i > 0 && self.any(i - 1, "if that what as when because how before where once until after who");
        match self.word(i) {
            "we" | "we'll" | "we're" | "we've" => {
                if conditional && !self.phrase(i.saturating_sub(1), "that") {
                    return None;
                }
                let next = self.past_adverbs(i + 1);
                let verb = match (self.word(i), self.word(next)) {
                    ("we'll", _) => i + 1,
                    ("we", "will" | "shall" | "must" | "should" | "gotta") => next + 1,
                    ("we", "need" | "have") if self.word(next + 1) == "to" => next + 2,
                    ("we're", "going") if self.word(next + 1) == "to" => next + 2,
                    ("we're", "gonna") => next + 1,
                    ("we've", "got") if self.word(next + 1) == "to" => next + 2,
                    ("we", "are") if self.phrase(next + 1, "going to") => next + 3,
                    ("we", "can") if self.again => next + 1,
                    ("we", "agreed" | "decided") if self.word(next + 1) == "to" => next + 2,
                    _ => return None,
                };
                let verb = self.past_adverbs(verb);
                if self.negated(verb)
                    || self.any(
                        verb,
                        "be see know have say go think like talk understand always start never win lose hear \
            discuss cover look",
                    ) && !self.phrases(
                        verb,
                        "go over|go through|have the|have it|have to|have a call|have another|talk again|see if|\
            look into|look at|go live|go back and|have this|have that|talk to|talk next|\
            talk tomorrow|start the|discuss this|think about",
                    )
                {
                    return None;
                }
                if self.word(verb).is_empty() {
                    return None;
                }
                // Somebody else is to do it: "we'll have Bob send it".
                return cue(Hint::Action);
            }
            // "can we meet again on Friday"
            "can" | "could" | "should" | "shall"
                if self.word(i + 1) == "we" && self.phrases(self.past_adverbs(i + 2), AGAIN) =>
            {
                return if i == self.past_fillers() || self.opens(i) { cue(Hint::FollowUp) } else { None };
            }
            "let's" => {
                let verb = self.past_adverbs(i + 1);
                if self.phrases(verb, AGAIN) || self.any(verb, "meet schedule reconvene regroup sync") {
                    return cue(Hint::FollowUp);
                }
                let idle = self.negated(verb)
                    || self.any(
                        verb,
                        "see move start go say get talk face be just not begin assume call hear look wait hope \
            think take stop focus continue keep stick do pretend discuss turn jump dive put",
                    ) && !self.later(verb);
                return if idle { None } else { cue(Hint::Action) };
            }
            "everyone" | "everybody" | "all" | "each" => {
                if self.any(i, "all each") && !self.phrases(i + 1, "of us|of you") {
                    return None;
                }
                let next = self.past_adverbs(i + if self.any(i, "all each") { 3 } else { 1 });
                let asked =
                    self.any(next, "needs has") && self.word(next + 1) == "to" || self.any(next, "should must please");
                return if asked && !self.any(next + 1, "be know") && i == self.past_fillers() {
                    cue(Hint::Action)
                } else {
                    None
                };
            }
            _ => {}
        }
        None
    }

    /// What somebody, not said who, is to do.
    fn nobody(&self, i: usize) -> Option<Cue> {
        let cue = |strength| Some(Cue { strength, at: i, hint: Hint::Action, who: Who::Nobody });
        if self.any(i, "somebody someone anybody anyone one")
            && (self.word(i) != "one" || self.phrase(i + 1, "of us") || self.phrase(i + 1, "of you"))
        {
            let next = self.past_adverbs(i + 1 + if self.word(i) == "one" { 2 } else { 0 });
            let told = self.any(next, "has needs have") && self.word(next + 1) == "to"
                || self.any(next, "should must please will");
            let asked = i > 0
                && self.any(i - 1, "can could would will should")
                && !self.phrases(next, EXPLAIN)
                && !self.any(next, "be hear see");
            let wanted = i > 0 && self.any(i - 1, "need get want have find ask") && self.word(next) == "to";
            let not = self.negated(next + 1);
            return if (told || asked || wanted) && !not { cue(3) } else { None };
        }
        // "the report needs to be sent by Friday"
        let needed = self.any(i, "needs need has have") && self.phrase(i + 1, "to be")
            || self.any(i, "must should") && self.phrase(i + 1, "be");
        if needed {
            let subject = i.checked_sub(1).map_or("", |k| self.word(k));
            let verb = self.past_adverbs(if self.word(i + 1) == "to" { i + 3 } else { i + 2 });
            let done = self.word(verb).ends_with("ed")
                || self
                    .any(verb, "sent done made written built ready in out paid set rewritten shut put finished given");
            let person = matches!(subject, "i" | "you" | "he" | "she" | "they" | "we" | "");
            let weak = self.any(i, "should have") && !self.later(verb);
            return if done && !person && !weak && !self.asks() { cue(2) } else { None };
        }
        if self.phrases(i, "action item|action point|to do item") && i <= self.past_fillers() + 1 && !self.asks() {
            return cue(2);
        }
        None
    }

    /// An order without a name: "don't forget", "send me the file".
    fn order(&self, i: usize) -> Option<Cue> {
        let first = i == self.past_fillers() || self.opens(i) && i > 0;
        if !first || !has(ORDERS, self.word(i)) {
            return None;
        }
        let object = self.word(i + 1);
        // An order has something to be done to; "check" alone, "look" and "let" have none.
        let idle = has(
            "look let take do work get keep give start run make help own put call close present test \
            plan document order move turn set open find check double file review share drop sign \
            print handle",
            self.word(i),
        );
        let known =
            has("the it that this me him her them us a an to up out our your my everyone all with sure", object)
                || self.name(i + 1);
        let soon = self.later(i);
        let idle = idle && !self.phrases(i, "check with|double check|look into|find out");
        let known = known || self.phrases(i, "double check|look into|find out");
        let who = self.called().map_or(Who::You, |it| Who::People(vec![it]));
        let idle_let = self.word(i) == "let" && !self.name(i + 1) && !self.any(i + 1, "them him her everyone");
        let parting = self.phrases(i, "talk to you|speak to you|call it a day");
        let strength = if known && (!idle || soon) && !idle_let && !parting { 3 } else { return None };
        (!has("do get take own work", self.word(i)) || soon).then_some(Cue { strength, at: i, hint: Hint::Action, who })
    }

    fn assignees(&self, who: &Who) -> Vec<Assignee> {
        match who {
            Who::Speaker => self.speaker.map(Assignee::Person).into_iter().collect(),
            Who::People(all) => all.iter().map(|it| Assignee::Person(*it)).collect(),
            Who::Everyone => vec![Assignee::Everyone],
            Who::You => {
                // Between two, "you" is the other.
                let others: Vec<usize> =
                    (0..self.names.people().len()).filter(|it| Some(*it) != self.speaker).collect();
                match (self.speaker, &others[..]) {
                    (Some(_), [other]) => vec![Assignee::Person(*other)],
                    _ => Vec::new(),
                }
            }
            Who::Nobody => Vec::new(),
        }
    }
}

/// Whether a word is in a list with spaces between.
fn has(words: &str, word: &str) -> bool {
    !word.is_empty() && words.split(' ').any(|it| it == word)
}

fn question(at: usize) -> Option<Cue> {
    Some(Cue { strength: 4, at, hint: Hint::Question, who: Who::Nobody })
}

/// The date that fits best as a due date: not past, told by "by" and the like, after the words that ask for it.
fn due(text: &str, t: &Tokens<'_>, scan: &Scan<'_>, cue: &Cue, context: &Context<'_>) -> Option<Due> {
    let reader = Reader { t, now: context.now, joined: 0 };
    let cue_token = scan.tokens.get(cue.at).copied().unwrap_or(0);
    let mut best: Option<(i32, Due)> = None;
    let mut at = 0;
    while at < t.len() {
        // Numbers that are no times would hide those that are.
        let Some((found, end)) = reader.when(at).or_else(|| reader.loose_when(at)) else {
            at += 1;
            continue;
        };
        let stretch = reader.due_stretch(at).filter(|it| it.1 >= end);
        let end = stretch.map_or(end, |it| it.1);
        // "before lunch tomorrow"
        let beside = matches!(found.kind, Kind::Time | Kind::TimeRange).then(|| reader.day(end)).flatten();
        let (found, end) = match beside {
            Some((day, end)) => (super::when::Found::day(day, context.now), end),
            None => (found, end),
        };
        let day = match stretch {
            Some((it, _)) => in_stretch(it, context.now.date()),
            None => day_of(found.kind, &found.values, t, at, context.now),
        };
        if let Some(day) = day {
            let lead = lead(t, at);
            let possessive = t.possessive(end).is_some();
            let mut score = match lead {
                Lead::By => 40,
                Lead::On => 20,
                Lead::None => 15,
                Lead::Of => 0,
            };
            score -= if possessive { 30 } else { 0 };
            score += if at >= cue_token { 10 } else { 0 };
            if score > 0 && best.as_ref().is_none_or(|it| score > it.0) {
                let (date, time, range) = day;
                best = Some((score, Due { date, time, start: t.start(at), end: t.end(end), range }));
            }
        }
        at = end.max(at + 1);
    }
    best.map(|it| it.1).filter(|it| text.is_char_boundary(it.start) && text.is_char_boundary(it.end))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lead {
    By,
    On,
    None,
    /// "from Monday", "since March": when something was.
    Of,
}

fn lead(t: &Tokens<'_>, at: usize) -> Lead {
    let own = t.word(at);
    if has("by before until till within no end eod cob close eow eom", own) {
        return Lead::By;
    }
    if has("since after from between", own) {
        return if own == "after" { Lead::None } else { Lead::Of };
    }
    let the = usize::from(at > 0 && t.word(at - 1) == "the");
    match at.checked_sub(1 + the).map_or("", |it| t.word(it)) {
        "by" | "before" | "until" | "till" | "due" | "within" | "than" | "deadline" => Lead::By,
        "on" | "for" | "in" | "at" | "this" | "around" => Lead::On,
        "from" | "since" | "of" | "last" | "between" | "about" => Lead::Of,
        _ => Lead::None,
    }
}

type Day = (Date, Option<Time>, Option<(Date, Date)>);

/// The day something found stands for, when it is not past.
fn day_of(kind: Kind, values: &[Value], t: &Tokens<'_>, at: usize, now: DateTime) -> Option<Day> {
    let today = now.date();
    let ahead = |it: Date| it >= today;
    let by = lead(t, at) == Lead::By;
    match kind {
        Kind::Date => values.iter().find_map(|it| match it {
            // "by Wednesday" on a Wednesday is of the next.
            Value::Date(it) if *it > today || *it == today && values.len() == 1 => Some((*it, None, None)),
            _ => None,
        }),
        Kind::DateTime => values.iter().find_map(|it| match it {
            Value::Moment(it) if ahead(it.date()) => {
                // "end of day" is the day, not its last second.
                let last = it.time() == Time::constant(23, 59, 59, 0);
                Some((it.date(), (!last).then_some(it.time()), None))
            }
            _ => None,
        }),
        Kind::Time | Kind::TimeRange => {
            let time = values.iter().find_map(|it| match it {
                Value::Time(it) => Some(*it),
                Value::Times(_, Some(it)) if by => Some(*it),
                Value::Times(Some(it), _) | Value::Times(None, Some(it)) => Some(*it),
                _ => None,
            })?;
            let later = values.iter().find_map(|it| match it {
                Value::Time(it) | Value::Times(None, Some(it)) if *it > now.time() => Some(*it),
                _ => None,
            });
            let time = later.unwrap_or(time);
            // "By midnight" is still today.
            let day = if time >= now.time() || time == Time::midnight() { today } else { add_days(today, 1)? };
            Some((day, (time != Time::midnight()).then_some(time), None))
        }
        Kind::DateTimeRange => values.iter().find_map(|it| match it {
            Value::Moments(Some(from), Some(to)) if ahead(to.date()) => {
                let midnight = to.time() == Time::midnight();
                let within = matches!(t.word(at), "within") || to.date() != from.date() && !midnight;
                let day = if within { to.date() } else { from.date() };
                (day >= today).then_some((day, within.then_some(to.time()), None))
            }
            Value::Moments(None, Some(to)) if ahead(to.date()) => Some((to.date(), Some(to.time()), None)),
            Value::Moments(Some(from), None) if ahead(from.date()) => Some((from.date(), Some(from.time()), None)),
            _ => None,
        }),
        Kind::DateRange => values.iter().find_map(|it| match it {
            Value::Dates(Some(from), Some(to)) if *to > today => {
                if t.any(at, "within between from") {
                    return Some((*to, None, Some((*from, *to))));
                }
                let from = (*from).max(today);
                Some((last_working(from, *to)?, None, Some((from, *to))))
            }
            Value::Dates(None, Some(to)) if *to > today || *to == today && values.len() == 1 => Some((*to, None, None)),
            Value::Dates(Some(from), None) if ahead(*from) => Some((*from, None, None)),
            _ => None,
        }),
        _ => None,
    }
}

/// The day meant by a stretch of days.
fn in_stretch(it: Stretched, today: Date) -> Option<Day> {
    let (from, to) = it.range;
    if it.before {
        let day = add_days(from, -1)?;
        return (day >= today).then_some((day, None, None));
    }
    let open = (from.max(today), to);
    let day = match it.edge {
        Some(Edge::Start) => open.0,
        Some(Edge::Middle) if it.week() => add_days(from, 2)?.max(today),
        Some(Edge::Middle) => super::calendar::middle(it.range)?.max(today),
        Some(Edge::End) | None => last_working(open.0, to)?,
    };
    Some((day, None, Some(open)))
}

/// The last day of a stretch; of a week the last working one.
fn last_working(from: Date, to: Date) -> Option<Date> {
    let last = add_days(to, -1)?;
    let friday = in_week(last, 0, Weekday::Friday)?;
    let week = from.duration_until(to).as_hours() / 24 <= 7;
    let weekend = matches!(last.weekday(), Weekday::Saturday | Weekday::Sunday);
    Some(if week && weekend && friday >= from { friday } else { last })
}

#[cfg(test)]
mod tests {
    use jiff::civil::datetime;

    use super::*;

    const PEOPLE: [&str; 4] = ["Anna Kim", "Bob Reyes", "Priya Nair", "Tom Weber"];

    /// Said by Anna on Wednesday, the 11th of March 2026, at ten: `who` as first names, "*" for all; due or "".
    #[track_caller]
    fn check(text: &str, hint: Hint, who: &str, due: &str) {
        let names = Names::new(PEOPLE, &[]);
        let context = Context { now: datetime(2026, 3, 11, 10, 0, 0, 0), names: &names };
        for text in [text.to_owned(), text.to_lowercase(), format!("{text}.")] {
            let found = task(&text, Some(0), &context);
            let people: Vec<&str> = found
                .assignees
                .iter()
                .map(|it| match it {
                    Assignee::Person(it) => PEOPLE[*it].split(' ').next().unwrap(),
                    Assignee::Everyone => "*",
                })
                .collect();
            let day = found.due.as_ref().map_or(String::new(), |it| it.date.strftime("%m-%d").to_string());
            assert_eq!((found.hint, &*people.join(" "), &*day), (hint, who, due), "{text}");
        }
    }

    #[test]
    fn who_speaks_takes_it_on() {
        check("I'll write the minutes by Monday", Hint::Action, "Anna", "03-16");
        check("I will get back to you on Thursday", Hint::Action, "Anna", "03-12");
        check("I'm going to send Priya the draft tomorrow", Hint::Action, "Anna", "03-12");
        check("let me draft something and send it around by Friday", Hint::Action, "Anna", "03-13");
        check("I can have that ready by the twentieth", Hint::Action, "Anna", "03-20");
        check("I need to renew the license before the end of March", Hint::Action, "Anna", "03-31");
        check("leave it to me", Hint::Action, "Anna", "");
        check("remind me to call the bank in two days", Hint::Action, "Anna", "03-13");
        check("I have to submit the form by April 3rd", Hint::Action, "Anna", "04-03");
        check("sure I'll take care of the invoices next week", Hint::Action, "Anna", "03-20");
        check("okay I'll do that", Hint::Action, "Anna", "");
        check("that one's mine", Hint::Action, "Anna", "");
        check("happy to take that one", Hint::Action, "Anna", "");
        check("I'll send it before lunch tomorrow", Hint::Action, "Anna", "03-12");
        check("I'll send it in a few days", Hint::Action, "Anna", "03-14");
        check("I'll send it at the beginning of next month", Hint::Action, "Anna", "04-01");
        check("I'll finish between Monday and Wednesday", Hint::Action, "Anna", "03-18");
        check("Bob and I will write the report by the last day of the month", Hint::Action, "Bob Anna", "03-31");
        check("I'm on it", Hint::Action, "Anna", "");
        check("I promise to finish the slides tonight", Hint::Action, "Anna", "03-11");
        check("I'll ask Bob to look at the logs", Hint::Action, "Anna", "");
        check("do you mind if I send the contract on Monday", Hint::Action, "Anna", "03-16");
        check("I'll be sending out invites later today", Hint::Action, "Anna", "03-11");
        check("I should have the numbers by next Monday", Hint::None, "", "");
    }

    #[test]
    fn who_is_named_is_to_do_it() {
        check("Bob will send the report by end of day", Hint::Action, "Bob", "03-11");
        check("Tom needs to fix the build before Thursday", Hint::Action, "Tom", "03-12");
        check("Priya could you send me the deck by noon tomorrow", Hint::Action, "Priya", "03-12");
        check("can you ask Tom to review the pull request", Hint::Action, "Tom", "");
        check("let's have Bob prepare the agenda", Hint::Action, "Bob", "");
        check("Bob and Tom are going to test it this weekend", Hint::Action, "Bob Tom", "03-15");
        check("I want Priya to own the launch", Hint::Action, "Priya", "");
        check("Tom please update the ticket", Hint::Action, "Tom", "");
        check("could you send that over by Tuesday Priya", Hint::Action, "Priya", "03-17");
        check("we decided that Bob would lead the migration", Hint::Action, "Bob", "");
        check("assign the audit to Priya", Hint::Action, "Priya", "");
        check("Bob is responsible for the budget", Hint::Action, "Bob", "");
        check("Tom you need to sign the form by the end of next week", Hint::Action, "Tom", "03-20");
        check("Priya will you book the flights", Hint::Action, "Priya", "");
        check("Tom has to present on the 19th", Hint::Action, "Tom", "03-19");
        check("Bob can you and Tom look at the budget by Friday", Hint::Action, "Bob Tom", "03-13");
        check("Priya maybe you can draft the survey", Hint::Action, "Priya", "");
        check("I suggest that Priya leads the workshop", Hint::Action, "Priya", "");
        check("Priya you're responsible for the catering", Hint::Action, "Priya", "");
        check("Tom said he'll send it by Friday", Hint::Action, "Tom", "03-13");
        check("Tom's going to fix it by Wednesday", Hint::Action, "Tom", "03-18");
        check("it's Bob's turn to write the update", Hint::Action, "Bob", "");
        check("Bob do you think you could finish the slides by tomorrow", Hint::Action, "Bob", "03-12");
        check("would you be able to review my code before Friday Tom", Hint::Action, "Tom", "03-13");
        check("I need the figures from Bob by Thursday", Hint::Action, "Bob", "03-12");
        check("Priya has agreed to draft the policy by mid April", Hint::Action, "Priya", "04-15");
    }

    #[test]
    fn nobody_in_particular_and_all() {
        check("someone needs to order lunch for Friday", Hint::Action, "", "03-13");
        check("we have to ship this by the end of the quarter", Hint::Action, "*", "03-31");
        check("please send the minutes to everyone by tomorrow", Hint::Action, "", "03-12");
        check("everyone needs to fill in the survey by Friday", Hint::Action, "*", "03-13");
        check("the contract needs to be signed by Monday", Hint::Action, "", "03-16");
        check("could somebody book a room for next Tuesday", Hint::Action, "", "03-17");
        check("don't forget to back up the server tonight", Hint::Action, "", "03-11");
        check("you need to talk to legal before next week", Hint::Action, "", "03-15");
        check("you guys need to submit your hours by April", Hint::Action, "*", "04-01");
        check("we must not forget to renew the domain", Hint::Action, "*", "");
        check("if you could send me the file by Friday that would be great", Hint::Action, "", "03-13");
    }

    #[test]
    fn meeting_again() {
        check("let's reconvene on Monday", Hint::FollowUp, "*", "03-16");
        check("let's touch base next week", Hint::FollowUp, "*", "03-20");
        check("we should catch up again in three days", Hint::FollowUp, "*", "03-14");
        check("our next meeting is on April 2nd", Hint::FollowUp, "*", "04-02");
        check("let's schedule another call for Friday afternoon", Hint::FollowUp, "*", "03-13");
        check("the next check in will be on Thursday", Hint::FollowUp, "*", "03-12");
        check("can we regroup tomorrow", Hint::FollowUp, "*", "03-12");
        check("I'd like to schedule another session for Monday", Hint::FollowUp, "*", "03-16");
    }

    #[test]
    fn nothing_to_do() {
        check("I sent the report yesterday", Hint::None, "", "");
        check("Bob said the server was down on Monday", Hint::None, "", "");
        check("I'll be out of office next week", Hint::None, "", "");
        check("Tom will be on vacation until Friday", Hint::None, "", "");
        check("I will not be there on Tuesday", Hint::None, "", "");
        check("we won't make the deadline", Hint::None, "", "");
        check("if I had time I would do it tomorrow", Hint::None, "", "");
        check("I think we did well this quarter", Hint::None, "", "");
        check("let's move on", Hint::None, "", "");
        check("talk to you next week", Hint::None, "", "");
        check("Tom said the server was down", Hint::None, "", "");
        check("they promised to deliver it by March 20th", Hint::None, "", "");
        check("thanks Bob", Hint::None, "", "");
        check("I'll see you on Friday", Hint::None, "", "");
        check("the meeting last Tuesday was long", Hint::None, "", "");
        check("I could not finish it by Friday", Hint::None, "", "");
        check("Anna has already sent it", Hint::None, "", "");
    }

    #[test]
    fn questions_want_an_answer() {
        check("when is the report due", Hint::Question, "", "");
        check("who will take the notes", Hint::Question, "", "");
        check("did Bob send the contract on Friday", Hint::Question, "", "");
        check("can you explain the third slide", Hint::Question, "", "");
        check("are we meeting on Thursday", Hint::Question, "", "");
        check("what should we do about the outage", Hint::Question, "", "");
        check("how long will it take to finish", Hint::Question, "", "");
    }

    #[test]
    fn between_two_you_is_the_other() {
        let names = Names::new(["Anna Kim", "Bob Reyes"], &[]);
        let context = Context { now: datetime(2026, 3, 11, 10, 0, 0, 0), names: &names };
        let found = task("can you send me the file", Some(1), &context);
        assert_eq!(found.assignees, [Assignee::Person(0)]);
    }

    #[test]
    fn a_due_date_tells_its_words_time_and_range() {
        let names = Names::new(PEOPLE, &[]);
        let context = Context { now: datetime(2026, 3, 11, 10, 0, 0, 0), names: &names };
        let text = "I'll send it by Friday at 5 pm";
        let due = task(text, Some(0), &context).due.unwrap();
        assert_eq!(&text[due.start..due.end], "by Friday at 5 pm");
        assert_eq!(due.moment(), datetime(2026, 3, 13, 17, 0, 0, 0));
        let due = task("I'll send it next week", Some(0), &context).due.unwrap();
        let day = |it| Date::constant(2026, 3, it);
        assert_eq!(due.range, Some((day(16), day(23))));
    }
}
