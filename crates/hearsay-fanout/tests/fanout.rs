//! The whole crate between a log and its readers.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod bus;

use std::{sync::Arc, time::Duration};

use bus::{FakeBus, at, meeting, said, saying};
use hearsay_bus::Bus;
use hearsay_fanout::{
    CoreSet, FanoutConfig, History, Hub, Join, JoinError, ListenOutbox, Listening, Opted, Outbox, OutboxLimits,
    Outgoing, View,
};
use hearsay_protocol::{
    ConversationKey, Event, EventId, GatewayId, ParticipantId, Position,
    event::{Ephemeral, Warning},
};
use hearsay_runtime::Tasks;
use serde_json::Value;
use tokio::time::{Instant, timeout};
use uuid::Uuid;

struct House {
    bus: Arc<FakeBus>,
    hub: Hub,
    _tasks: Tasks,
}

fn house() -> House {
    house_with(FanoutConfig::default())
}

fn house_with(config: FanoutConfig) -> House {
    let (bus, tasks) = (Arc::new(FakeBus::default()), Tasks::new());
    let cores = CoreSet::on_current_runtime(&config, &tasks).unwrap();
    let log: Arc<dyn Bus> = Arc::clone(&bus) as _;
    let hub = Hub::start(config, log, GatewayId(Uuid::from_u128(9)), cores, &tasks);
    House { bus, hub, _tasks: tasks }
}

/// What a socket shows: messages, then how it was closed.
struct Reader {
    outgoing: Outgoing,
    outbox: Outbox,
    unread: Vec<u8>,
    _listening: Option<Listening>,
}

#[derive(Debug, PartialEq)]
enum Seen {
    Json(Value),
    Closed(Option<u16>, String),
}

/// Splits off the first of a server's frames.
fn frame(bytes: &mut Vec<u8>) -> Option<Seen> {
    let (opcode, length) = (*bytes.first()? & 0x0f, usize::from(*bytes.get(1)?));
    let (head, length) = match length {
        126 => (4, usize::from(u16::from_be_bytes(bytes[2..4].try_into().unwrap()))),
        127 => (10, u64::from_be_bytes(bytes[2..10].try_into().unwrap()) as usize),
        length => (2, length),
    };
    if bytes.len() < head + length {
        return None;
    }
    let frame: Vec<u8> = bytes.drain(..head + length).collect();
    let payload = &frame[head..];
    Some(match opcode {
        1 => Seen::Json(serde_json::from_slice(payload).unwrap()),
        8 => {
            let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
            Seen::Closed(code, String::from_utf8(payload.get(2..).unwrap_or_default().to_vec()).unwrap())
        }
        other => panic!("frame {other}"),
    })
}

impl Reader {
    async fn next(&mut self) -> Seen {
        loop {
            if let Some(seen) = frame(&mut self.unread) {
                return seen;
            }
            let bytes = timeout(Duration::from_secs(3_600), self.outgoing.next()).await.expect("nothing comes");
            self.unread.extend_from_slice(&bytes.expect("the socket is over"));
        }
    }

    async fn json(&mut self) -> Value {
        match self.next().await {
            Seen::Json(value) => value,
            closed @ Seen::Closed(..) => panic!("{closed:?}"),
        }
    }

    /// In short: the type, what it is about, and where it stands.
    async fn short(&mut self) -> String {
        match self.next().await {
            Seen::Json(value) => short(&value),
            Seen::Closed(code, reason) => format!("close {} {reason}", code.unwrap_or_default()),
        }
    }

    async fn expect(&mut self, expected: &[&str]) {
        for expected in expected {
            assert_eq!(self.short().await, *expected);
        }
    }

    fn is_quiet(&mut self) -> bool {
        use futures::FutureExt;
        match self.outgoing.next().now_or_never() {
            None => self.unread.is_empty(),
            Some(bytes) => {
                self.unread.extend_from_slice(&bytes.unwrap_or_default());
                false
            }
        }
    }
}

fn short(value: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let place = match (value.get("position"), value.get("follows")) {
        (Some(position), None) => format!(" at {}", text(position).trim_start_matches("0badcafe:")),
        (None, Some(follows)) => format!(" after {}", text(follows).trim_start_matches("0badcafe:")),
        (None, None) => String::new(),
        both => panic!("{both:?}"),
    };
    let kind = text(&value["type"]);
    let what = match kind.as_str() {
        "message" if value["message"]["type"] == "recognition_result" => {
            let word = if value["message"]["isFinal"] == true { "final" } else { "partial" };
            format!("{word} {}", text(&value["message"]["punctuated"]["transcript"]))
        }
        "message" => text(&value["message"]["type"]),
        "message_response" => format!("message {}", text(&value["messages"][0]["payload"]["content"])),
        "gap" => format!("gap {} {} {}", text(&value["reason"]), text(&value["from"]), text(&value["to"])),
        "event" | "presence" => format!("{kind} {}", text(&value["kind"])),
        other => other.to_owned(),
    };
    what + &place
}

#[derive(Default)]
struct Wants {
    since: Option<Position>,
    history: History,
    opted: Opted,
    all: bool,
}

fn wants() -> Wants {
    Wants::default()
}

/// Waits for tests that read one socket after the other.
const PATIENT: OutboxLimits = OutboxLimits { bytes: 8 << 20, reserved: 1 << 20 };

impl House {
    fn listen(&self, name: &str, wants: Wants) -> Reader {
        self.listen_with(name, wants, PATIENT)
    }

    fn listen_with(&self, name: &str, wants: Wants, limits: OutboxLimits) -> Reader {
        let (outbox, outgoing) = Outbox::new(limits);
        let listening = self.hub.listen_outbox(ListenOutbox {
            meeting: meeting(name),
            view: View::listener().unfiltered(wants.all),
            opted: wants.opted,
            since: wants.since,
            history: wants.history,
            sink: outbox.clone(),
        });
        Reader { outgoing, outbox, unread: Vec::new(), _listening: Some(listening) }
    }

    async fn join(&self, key: &ConversationKey) -> (hearsay_fanout::Member, Reader) {
        self.join_as(key, 1).await
    }

    async fn join_as(&self, key: &ConversationKey, speaker: u128) -> (hearsay_fanout::Member, Reader) {
        let (outbox, outgoing) = Outbox::new(PATIENT);
        let join = Join {
            key: key.clone(),
            speaker: ParticipantId(Uuid::from_u128(speaker)),
            view: View::listener(),
            opted: Opted::default(),
            since: None,
            history: History::None,
            sink: outbox.clone(),
        };
        let member = self.hub.join(join).await.unwrap();
        (member, Reader { outgoing, outbox, unread: Vec::new(), _listening: None })
    }
}

#[tokio::test(start_paused = true)]
async fn what_concerns_one_speaker_is_told_to_that_one_only() {
    let house = house();
    let key = house.bus.start("weekly");
    let (_ana, mut ana) = house.join(&key).await;
    let (ben_sits, mut ben) = house.join_as(&key, 2).await;
    let mut listener = house.listen("weekly", wants());
    listener.expect(&["conversation_created"]).await;
    let warning = Warning { participant: ParticipantId(Uuid::from_u128(2)), details: "too many".to_owned() };
    house.bus.announce_to(&key, Ephemeral::Warning(Arc::new(warning)));
    let told = ben.json().await;
    assert_eq!((&told["message"]["code"], &told["message"]["details"]), (&"too_large".into(), &"too many".into()));
    house.bus.announce_to(&key, saying(1, 1, "Shall"));
    for other in [&mut ana, &mut ben, &mut listener] {
        other.expect(&["partial Shall after 1"]).await;
    }
    // Another speaks there: what concerns the one before is told to nobody.
    ben_sits.set_view(View::listener(), Opted::default(), ParticipantId(Uuid::from_u128(3)));
    tokio::time::sleep(Duration::from_millis(1)).await;
    for (speaker, details) in [(2, "not here"), (3, "too many again")] {
        let warning = Warning { participant: ParticipantId(Uuid::from_u128(speaker)), details: details.to_owned() };
        house.bus.announce_to(&key, Ephemeral::Warning(Arc::new(warning)));
    }
    assert_eq!(ben.json().await["message"]["details"], "too many again");
}

#[tokio::test(start_paused = true)]
async fn who_came_early_sees_the_meeting_from_its_first_event_to_its_end() {
    let house = house();
    let mut early = house.listen("weekly", wants());
    let mut all = house.listen("weekly", Wants { all: true, ..wants() });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(early.is_quiet());
    let key = house.bus.start("weekly");
    house.bus.announce_to(&key, saying(1, 1, "Shall"));
    early.expect(&["conversation_created"]).await;
    all.expect(&["conversation_created", "event started at 1"]).await;
    house.bus.announce_to(&key, saying(1, 2, "Shall we"));
    house.bus.append(&key, said(1, "Shall we? Yes."));
    // Of an utterance that is closed, and of one that is not.
    house.bus.announce_to(&key, saying(1, 3, "Shall we? Yes"));
    house.bus.announce_to(&key, saying(2, 1, "So"));
    house.bus.end(&key);
    let story =
        ["partial Shall we after 1", "final Shall we? Yes. after 1", "message Shall we? at 2", "partial So after 2"];
    early.expect(&story).await;
    early.expect(&["conversation_completed at 3", "close 1000 the meeting ended"]).await;
    all.expect(&story).await;
    all.expect(&["conversation_completed at 3", "close 1000 the meeting ended"]).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_is_closed_for_good() {
    let house = house();
    let mut waiting = house.listen("never", wants());
    let before = Instant::now();
    waiting.expect(&["close 1000 nobody opened the meeting"]).await;
    assert!(before.elapsed() >= Duration::from_secs(1_800), "{:?}", before.elapsed());
}

/// Every durable position a socket saw, in order.
async fn positions(reader: &mut Reader, through: Position) -> Vec<u64> {
    let mut seen = Vec::new();
    loop {
        let value = reader.json().await;
        if let Some(position) = value.get("position") {
            let position: Position = position.as_str().unwrap().parse().unwrap();
            seen.push(position.offset.0);
            if position == through {
                return seen;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_or_repeated_on_the_way_is_still_contiguous() {
    let house = house();
    let key = house.bus.start("lossy");
    let mut all = house.listen("lossy", Wants { all: true, history: History::All, ..wants() });
    let (_member, mut speaker) = house.join(&key).await;
    let mut last = at(0);
    for round in 0..40_u64 {
        house.bus.lose((round % 4) as usize);
        for number in 0..round % 7 {
            last = house.bus.append(&key, said(u128::from(round * 10 + number), "Once."));
        }
        if round % 5 == 0 {
            house.bus.repeat(&key);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    let seen = positions(&mut all, last).await;
    assert_eq!(seen, (1..=last.offset.0).collect::<Vec<_>>());
    let seen = positions(&mut speaker, last).await;
    assert_eq!(seen, (2..=last.offset.0).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_lost_last_announcement_is_found_within_the_tail_check() {
    let house = house();
    let key = house.bus.start("quiet");
    let (member, mut speaker) = house.join(&key).await;
    house.bus.lose(1);
    let last = house.bus.append(&key, said(1, "Anybody there?"));
    let asked = Instant::now();
    assert!(!member.passed(last, asked + Duration::from_millis(100)).await);
    assert!(member.passed(last, asked + Duration::from_secs(5)).await);
    assert!(asked.elapsed() <= Duration::from_millis(2_100), "{:?}", asked.elapsed());
    speaker.expect(&["final Anybody there? after 1", "message Anybody there? at 2"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_joiner_reads_everything_while_more_is_said() {
    let house = house();
    let key = house.bus.start("long");
    for number in 0..900 {
        house.bus.append(&key, said(number, "Some words to read about."));
    }
    let (member, mut speaker) = house.join(&key).await;
    let mut late: Vec<_> =
        (0..3).map(|_| house.listen("long", Wants { all: true, history: History::All, ..wants() })).collect();
    let bus = Arc::clone(&house.bus);
    let publishing = async {
        let mut last = at(0);
        for number in 0..400 {
            last = bus.append(&key, said(10_000 + number, "And more."));
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        last
    };
    let (first, rest) = late.split_at_mut(1);
    let through = at(1 + 900 + 400);
    let (last, seen) = tokio::join!(publishing, positions(&mut first[0], through));
    assert_eq!(last, through);
    assert_eq!(seen, (1..=through.offset.0).collect::<Vec<_>>());
    for late in rest {
        assert_eq!(positions(late, through).await, seen);
    }
    assert!(member.passed(through, Instant::now()).await);
    assert_eq!(positions(&mut speaker, through).await, (902..=through.offset.0).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn who_returns_hears_what_followed_its_position() {
    let house = house();
    let key = house.bus.start("resumed");
    for number in 0..600 {
        house.bus.append(&key, said(number, "Heard."));
    }
    for since in [600, 590, 345, 3, 0] {
        let mut back = house.listen("resumed", Wants { since: Some(at(since)), ..wants() });
        back.expect(&["conversation_created"]).await;
        let first = if since == 0 { 2 } else { since + 1 };
        let seen = positions(&mut back, at(601)).await;
        assert_eq!(seen, (first..=601).collect::<Vec<_>>(), "{since}");
    }
    let mut there = house.listen("resumed", Wants { since: Some(at(601)), ..wants() });
    there.expect(&["conversation_created"]).await;
    house.bus.append(&key, said(7_000, "New."));
    there.expect(&["final New. after 601", "message New. at 602"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_position_of_another_conversation_is_a_gap_and_then_the_current_one() {
    let house = house();
    let foreign: Position = "12345699:17".parse().unwrap();
    let key = house.bus.start("again");
    house.bus.append(&key, said(1, "Hello."));
    let gap = "gap conversation 12345699:17 0badcafe:0";
    let mut back = house.listen("again", Wants { since: Some(foreign), ..wants() });
    back.expect(&["conversation_created", gap, "final Hello. after 1", "message Hello. at 2"]).await;
    // Nobody has been there yet.
    let mut ahead = house.listen("again", Wants { since: Some(at(99)), ..wants() });
    ahead.expect(&["conversation_created", "gap lost 0badcafe:99 0badcafe:2"]).await;
    house.bus.append(&key, said(2, "Again."));
    ahead.expect(&["final Again. after 2", "message Again. at 3"]).await;
    // It came before the new conversation began.
    let mut early = house.listen("later", Wants { since: Some(at(5)), ..wants() });
    tokio::time::sleep(Duration::from_secs(1)).await;
    house.bus.start("later");
    early.expect(&["conversation_created", "gap conversation 0badcafe:5 0badcaff:0"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_is_exact_at_its_position_and_shared() {
    let house = house();
    let key = house.bus.start("pictured");
    for number in 0..300 {
        house.bus.append(&key, said(number, "One. Two."));
    }
    let (_member, _speaker) = house.join(&key).await;
    house.bus.announce_to(&key, saying(9_999, 1, "Half a"));
    let reads = || house.bus.reads.load(std::sync::atomic::Ordering::Relaxed);
    let before = reads();
    let mut joiners: Vec<_> =
        (0..20).map(|_| house.listen("pictured", Wants { history: History::Snapshot, ..wants() })).collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(reads() - before <= 4, "twenty joiners share one picture: {}", reads() - before);
    house.bus.append(&key, said(10_000, "After it."));
    for joiner in &mut joiners {
        joiner.expect(&["conversation_created"]).await;
        let snapshot = joiner.json().await;
        assert_eq!(snapshot["type"], "snapshot");
        assert_eq!(snapshot["position"], "0badcafe:301");
        assert_eq!(snapshot["truncated"], true);
        let conversation = &snapshot["conversation"];
        assert_eq!(conversation["messages"].as_array().unwrap().len(), 200);
        assert_eq!(conversation["messages"][199]["text"], "Two.");
        assert_eq!(conversation["name"], "pictured");
        assert_eq!(conversation["partials"][0]["text"], "Half a");
        joiner.expect(&["final After it. after 301", "message After it. at 302"]).await;
    }
    // The picture moves with the conversation.
    let mut later = house.listen("pictured", Wants { history: History::Snapshot, ..wants() });
    later.expect(&["conversation_created", "snapshot at 302"]).await;
}

#[tokio::test(start_paused = true)]
async fn who_does_not_read_is_cut_with_a_resume_point_and_others_are_unharmed() {
    let house = house();
    let key = house.bus.start("slow");
    let limits = OutboxLimits { bytes: 20_000, reserved: 10_000 };
    let mut slow = house.listen_with("slow", wants(), limits);
    let mut quick = house.listen("slow", wants());
    slow.expect(&["conversation_created"]).await;
    quick.expect(&["conversation_created"]).await;
    for number in 0..100 {
        house.bus.append(&key, said(number, "Many words that nobody reads on the other side."));
        quick
            .expect(&[
                &format!("final Many words that nobody reads on the other side. after {}", number + 1),
                &format!("message Many words that nobody reads on the other side. at {}", number + 2),
            ])
            .await;
        if number == 3 {
            // Reads a little, then no more.
            positions(&mut slow, at(4)).await;
        }
    }
    let reached = slow.outbox.reached().unwrap();
    let broken = slow.outbox.broken().await;
    assert_eq!(broken, hearsay_fanout::Broken::Evicted { resume: Some(reached) });
    slow.unread.clear();
    slow.expect(&["error", &format!("close 1008 slow_reader since={reached}")]).await;
    // And it can go on where it was.
    let mut back = house.listen("slow", Wants { since: Some(reached), ..wants() });
    back.expect(&["conversation_created"]).await;
    let seen = positions(&mut back, at(101)).await;
    assert_eq!(seen, (reached.offset.0 + 1..=101).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_branch_is_told_and_what_is_appended_again_is_not_shown_twice() {
    let house = house();
    let key = house.bus.start("branched");
    let opted = Opted { positions: true, ..Opted::default() };
    let mut all = house.listen("branched", Wants { all: true, opted, ..wants() });
    let mut plain = house.listen("branched", wants());
    all.expect(&["conversation_created"]).await;
    plain.expect(&["conversation_created"]).await;
    let id = EventId(Uuid::from_u128(77));
    house.bus.append_as(&key, said(1, "Kept."), None);
    house.bus.append_as(&key, said(2, "Rolled back."), Some(id));
    all.expect(&["final Kept. after 1", "message Kept. at 2"]).await;
    all.expect(&["final Rolled back. after 2", "message Rolled back. at 3"]).await;
    plain.expect(&["final Kept. after 1", "message Kept. at 2"]).await;
    plain.expect(&["final Rolled back. after 2", "message Rolled back. at 3"]).await;
    house.bus.branch(&key, 1);
    tokio::time::sleep(Duration::from_millis(10)).await;
    house.bus.append_as(&key, said(2, "Rolled back."), Some(id));
    house.bus.append(&key, said(3, "New."));
    all.expect(&["gap branch 0badcafe:3 0badcbfe:2", "event reappended at 0badcbfe:3"]).await;
    all.expect(&["final New. after 0badcbfe:3", "message New. at 0badcbfe:4"]).await;
    plain.expect(&["final New. after 0badcbfe:3", "message New. at 0badcbfe:4"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_does_not_answer_costs_nobody_the_connection() {
    let house = house();
    let key = house.bus.start("outage");
    let opted = Opted { positions: true, ..Opted::default() };
    let mut opted = house.listen("outage", Wants { opted, ..wants() });
    let mut plain = house.listen("outage", wants());
    opted.expect(&["conversation_created"]).await;
    plain.expect(&["conversation_created"]).await;
    house.bus.set_broken(true);
    tokio::time::sleep(Duration::from_secs(30)).await;
    house.bus.lose(5);
    for number in 0..5 {
        house.bus.append(&key, said(number, "Meanwhile."));
    }
    house.bus.set_broken(false);
    opted.expect(&["degraded", "recovered"]).await;
    assert_eq!(positions(&mut opted, at(6)).await, [2, 3, 4, 5, 6]);
    assert_eq!(positions(&mut plain, at(6)).await, [2, 3, 4, 5, 6]);
}

#[tokio::test(start_paused = true)]
async fn a_log_that_answers_and_announces_nothing_is_said_to_be_degraded() {
    let house = house();
    let key = house.bus.start("deaf");
    let opted = Opted { positions: true, ..Opted::default() };
    let mut opted = house.listen("deaf", Wants { opted, ..wants() });
    opted.expect(&["conversation_created"]).await;
    house.bus.set_deaf(true);
    house.bus.lose(2);
    tokio::time::sleep(Duration::from_secs(3)).await;
    opted.expect(&["degraded"]).await;
    // Each comes by the next look at the end of the log, and is no sign that the log is well.
    for number in 2..4 {
        house.bus.append(&key, said(u128::from(number), "Meanwhile."));
        assert_eq!(positions(&mut opted, at(number)).await, [number]);
    }
    house.bus.set_deaf(false);
    opted.expect(&["recovered"]).await;
}

#[tokio::test(start_paused = true)]
async fn who_opted_in_hears_its_position_and_who_comes_and_goes() {
    let house = house();
    let key = house.bus.start("opted");
    let opted = Opted { positions: true, presence: true, ..Opted::default() };
    let mut opted = house.listen("opted", Wants { opted, ..wants() });
    let mut plain = house.listen("opted", wants());
    opted.expect(&["conversation_created", "presence listeners"]).await;
    plain.expect(&["conversation_created"]).await;
    house.bus.append(&key, Event::Joined(bus::ana()));
    opted.expect(&["presence joined at 2"]).await;
    let hidden = Event::Started(hearsay_protocol::event::Started { at: bus::now(), title: String::new() });
    house.bus.append(&key, hidden.clone());
    let before = Instant::now();
    opted.expect(&["event position at 3"]).await;
    assert!(before.elapsed() >= Duration::from_secs(9), "{:?}", before.elapsed());
    for _ in 0..256 {
        house.bus.append(&key, hidden.clone());
    }
    opted.expect(&["event position at 259"]).await;
    house.bus.append(&key, Event::Left(bus::ana()));
    opted.expect(&["presence left at 260"]).await;
    assert!(plain.is_quiet());
}

#[tokio::test(start_paused = true)]
async fn a_feed_without_members_ends_and_gives_its_lease_up() {
    let house = house();
    let key = house.bus.start("brief");
    for _ in 0..3 {
        let (member, reader) = house.join(&key).await;
        let listener = house.listen("brief", wants());
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(house.hub.feeds(), 1);
        drop(member);
        drop(listener);
        drop(reader);
        tokio::time::sleep(Duration::from_millis(10)).await;
        assert_eq!(house.hub.feeds(), 0);
        assert!(house.bus.released(&key));
    }
}

#[tokio::test(start_paused = true)]
async fn a_speaker_hears_of_the_end_but_its_session_decides_what_to_say() {
    let house = house();
    let key = house.bus.start("ended");
    let (member, mut speaker) = house.join(&key).await;
    assert!(timeout(Duration::from_secs(1), member.ended()).await.is_err());
    house.bus.append(&key, said(1, "Bye."));
    let last = house.bus.end(&key);
    member.ended().await;
    assert!(member.passed(last, Instant::now()).await);
    speaker.expect(&["final Bye. after 1", "message Bye. at 2"]).await;
    assert!(speaker.is_quiet());
    member.set_view(View::listener().unfiltered(true), Opted::default(), ParticipantId(Uuid::from_u128(1)));
    tokio::time::sleep(Duration::from_millis(1)).await;
    house.bus.append(&key, Event::Joined(bus::ana()));
    speaker.expect(&["event joined at 4"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_conversation_that_does_not_exist_is_refused() {
    let house = house();
    let mut key = house.bus.start("real");
    key.meeting = meeting("unreal");
    let (outbox, _outgoing) = Outbox::new(OutboxLimits::default());
    let join = Join {
        key,
        speaker: ParticipantId(Uuid::from_u128(1)),
        view: View::listener(),
        opted: Opted::default(),
        since: None,
        history: History::None,
        sink: outbox.clone(),
    };
    assert!(matches!(house.hub.join(join).await, Err(JoinError::Gone)));
    // The connection lives: it tells its client in its own words.
    assert!(!outbox.is_broken());
}
