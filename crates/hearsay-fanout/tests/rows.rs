//! Listener rows over real sockets.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[allow(dead_code, reason = "shared with another test")]
mod bus;

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bus::{FakeBus, at, meeting, said};
use bytes::Bytes;
use hearsay_bus::Bus;
use hearsay_fanout::{CoreSet, FanoutConfig, History, Hub, Listen, Opted, Renewals, View};
use hearsay_protocol::{
    Event, GatewayId, MeetingKey, Position,
    client::{ClientError, ErrorCode, Secret},
};
use hearsay_runtime::{HumanBytes, HumanDuration, Tasks};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};
use uuid::Uuid;

const SOON: Duration = Duration::from_secs(20);

struct House {
    bus: Arc<FakeBus>,
    hub: Hub,
    tasks: Tasks,
    listener: TcpListener,
    /// Sockets that are open on our side.
    open: Arc<AtomicUsize>,
    /// How long the next listener's token is good for.
    good_for: Option<Duration>,
}

/// The token says for how long it is good, and for which meeting.
struct Clerk;

impl Renewals for Clerk {
    fn renew(&self, meeting: &MeetingKey, token: &Secret) -> Result<Duration, ClientError> {
        let (name, seconds) = token.reveal().split_once(' ').unwrap();
        if name == meeting.meeting.as_str() {
            Ok(Duration::from_secs(seconds.parse().unwrap()))
        } else {
            Err(ClientError::new(ErrorCode::Forbidden, "the token is for another meeting"))
        }
    }
}

struct Permit(Arc<AtomicUsize>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn house(config: FanoutConfig) -> House {
    let (bus, tasks) = (Arc::new(FakeBus::default()), Tasks::new());
    let cores = CoreSet::start(NonZeroUsize::new(2).unwrap(), &config, &tasks).unwrap();
    let log: Arc<dyn Bus> = Arc::clone(&bus) as _;
    let hub = Hub::start(config, log, GatewayId(Uuid::from_u128(9)), cores, &tasks);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    hub.renew_with(&(Arc::new(Clerk) as Arc<dyn Renewals>));
    House { bus, hub, tasks, listener, open: Arc::default(), good_for: None }
}

impl House {
    async fn listen(&self, name: &str, history: History, leftover: &[u8]) -> Client {
        let connecting = TcpStream::connect(self.listener.local_addr().unwrap());
        let (client, accepted) = tokio::join!(connecting, self.listener.accept());
        let socket = accepted.unwrap().0.into_std().unwrap();
        let session = self.open.fetch_add(1, Ordering::SeqCst);
        self.hub.listen(Listen {
            meeting: meeting(name),
            view: View::listener().unfiltered(true),
            opted: Opted::default(),
            since: None,
            history,
            socket,
            leftover: Bytes::copy_from_slice(leftover),
            core: session,
            session: session as u32,
            good_for: self.good_for,
            permit: Box::new(Permit(Arc::clone(&self.open))),
        });
        Client { socket: client.unwrap(), unread: Vec::new() }
    }

    async fn until_open(&self, expected: usize) {
        let reached = async {
            while self.open.load(Ordering::SeqCst) != expected {
                sleep(Duration::from_millis(5)).await;
            }
        };
        let left = timeout(SOON, reached).await;
        assert!(left.is_ok(), "{} open, not {expected}", self.open.load(Ordering::SeqCst));
    }

    async fn end(self) {
        self.tasks.finish(SOON).await.unwrap();
    }
}

struct Client {
    socket: TcpStream,
    unread: Vec<u8>,
}

fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    assert!(payload.len() < 126);
    let mut frame = vec![0x80 | opcode, 0x80 | payload.len() as u8, 9, 8, 7, 6];
    frame.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ [9, 8, 7, 6][index % 4]));
    frame
}

impl Client {
    async fn say(&mut self, opcode: u8, payload: &[u8]) {
        self.socket.write_all(&masked(opcode, payload)).await.unwrap();
    }

    /// The next frame: its kind, and its payload as text. None: the socket is closed.
    async fn next(&mut self) -> Option<(u8, String)> {
        loop {
            let complete = match self.unread[..] {
                [_, length, ..] if length < 126 => Some((2, usize::from(length))),
                [_, 126, high, low, ..] => Some((4, usize::from(u16::from_be_bytes([high, low])))),
                [_, 127, ..] if self.unread.len() >= 10 => {
                    Some((10, u64::from_be_bytes(self.unread[2..10].try_into().unwrap()) as usize))
                }
                _ => None,
            };
            if let Some((head, length)) = complete.filter(|(head, length)| self.unread.len() >= head + length) {
                let frame: Vec<u8> = self.unread.drain(..head + length).collect();
                let payload = if frame[0] == 0x88 {
                    let code = frame[head..].first_chunk().map(|code| u16::from_be_bytes(*code));
                    let reason = String::from_utf8_lossy(frame.get(head + 2..).unwrap_or_default()).into_owned();
                    format!("{} {reason}", code.unwrap_or_default())
                } else {
                    String::from_utf8(frame[head..].to_vec()).unwrap()
                };
                return Some((frame[0], payload));
            }
            let read = timeout(SOON, self.socket.read_buf(&mut self.unread)).await.expect("nothing comes");
            match read {
                Ok(0) | Err(_) => return None,
                Ok(_) => (),
            }
        }
    }

    async fn text(&mut self) -> String {
        let (kind, text) = self.next().await.expect("the socket is closed");
        assert_eq!(kind, 0x81, "{text}");
        text
    }

    async fn created(&mut self) {
        let text = self.text().await;
        assert!(text.contains("conversation_created"), "{text}");
    }

    /// Every position up to `through`, each exactly once.
    async fn contiguous(&mut self, from: u64, through: Position) {
        for offset in from..=through.offset.0 {
            let text = loop {
                let text = self.text().await;
                if text.contains("\"position\":") {
                    break text;
                }
            };
            assert!(text.contains(&format!(":{offset}\"")), "{offset}: {text}");
        }
    }

    async fn expect_close(&mut self, close: &str) {
        assert_eq!(self.next().await, Some((0x88, close.to_owned())));
        assert_eq!(self.next().await, None);
    }
}

fn config() -> FanoutConfig {
    FanoutConfig { hold: HumanDuration::from_millis(0), ..FanoutConfig::default() }
}

#[tokio::test]
async fn rows_get_events_answer_pings_and_stops_in_one_order() {
    let house = house(config()).await;
    // A keep-alive that came with the request.
    let mut early = house.listen("rows", History::All, &masked(1, b"__PING__")).await;
    assert_eq!(early.text().await, "__PONG__");
    let key = house.bus.start("rows");
    early.created().await;
    early.contiguous(1, at(1)).await;
    let mut late = house.listen("rows", History::None, b"").await;
    late.created().await;
    let last = house.bus.append(&key, said(1, "To both."));
    early.contiguous(2, last).await;
    late.contiguous(2, last).await;

    early.say(9, b"are you there").await;
    assert_eq!(early.next().await, Some((0x8a, "are you there".to_owned())));
    early.say(2, &[0; 100]).await;
    early.say(1, br#"{"type":"token","access_token":"rows 60"}"#).await;
    early.say(1, b"__PING__").await;
    assert_eq!(early.text().await, "__PONG__");
    early.say(1, br#"{"type":"start_request"}"#).await;
    assert!(early.text().await.contains("this connection only listens"));
    early.say(1, b"not json").await;
    assert!(early.text().await.contains("\"code\":\"invalid_request\""));

    // Python's stop.
    early.say(1, b"{'type': 'stop_request'}").await;
    early.expect_close("1000 ").await;
    late.say(8, &1000_u16.to_be_bytes()).await;
    late.expect_close("1000 ").await;
    drop((early, late));
    house.until_open(0).await;
    house.end().await;
}

#[tokio::test]
async fn the_end_of_a_meeting_closes_its_rows_and_those_who_never_got_one_stay() {
    let house = house(config()).await;
    let key = house.bus.start("ends");
    let mut there = house.listen("ends", History::All, b"").await;
    let mut waiting = house.listen("another", History::None, b"").await;
    there.created().await;
    house.bus.append(&key, said(1, "Bye."));
    house.bus.end(&key);
    there.contiguous(1, at(3)).await;
    there.expect_close("1000 the meeting ended").await;
    drop(there);
    house.until_open(1).await;
    waiting.say(1, b"__PING__").await;
    assert_eq!(waiting.text().await, "__PONG__");
    drop(waiting);
    house.until_open(0).await;
    house.end().await;
}

#[tokio::test]
async fn bytes_that_trickle_in_are_a_message_in_the_end() {
    let house = house(config()).await;
    let mut slow = house.listen("trickle", History::None, b"").await;
    let mut gone = house.listen("trickle", History::None, b"").await;
    for byte in [masked(1, b"__PING__"), masked(9, b"x")].concat() {
        slow.socket.write_all(&[byte]).await.unwrap();
        sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(slow.text().await, "__PONG__");
    assert_eq!(slow.next().await, Some((0x8a, "x".to_owned())));
    // Half a message, then nothing ever again.
    gone.socket.write_all(&masked(1, b"__PING__")[..5]).await.unwrap();
    drop(gone);
    house.until_open(1).await;
    // What breaks the protocol is told and closed.
    slow.socket.write_all(&[0x81, 0x01, b'a']).await.unwrap();
    slow.expect_close("1002 the frame breaks the WebSocket protocol: a client's frame is not masked").await;
    drop(slow);
    house.until_open(0).await;
    house.end().await;
}

#[tokio::test]
async fn a_row_that_stops_reading_is_cut_and_told_where_it_was_and_others_are_unharmed() {
    let config = FanoutConfig { listener_queue: HumanBytes::new(256 * 1024), ..config() };
    let house = house(config).await;
    let key = house.bus.start("stuck");
    let mut stuck = house.listen("stuck", History::None, b"").await;
    let mut reads = house.listen("stuck", History::None, b"").await;
    stuck.created().await;
    reads.created().await;
    let words = "many words ".repeat(300);
    let mut offset = 1_u64;
    while house.open.load(Ordering::SeqCst) == 2 && offset < 20_000 {
        let last = house.bus.append(&key, said(offset.into(), words.trim_end()));
        reads.contiguous(last.offset.0, last).await;
        offset += 1;
        if offset.is_multiple_of(500) {
            // Time for the sweep to find that it is being closed.
            sleep(Duration::from_millis(1)).await;
        }
    }
    assert!(offset < 20_000, "never cut");
    // It reads at last: a contiguous run, the error and the close, or, after the linger, only the run.
    let mut seen = 1;
    let mut end = None;
    while let Some((kind, text)) = stuck.next().await {
        if kind == 0x88 {
            end = Some(text);
        } else if let Some((_, position)) = text.rsplit_once("\"position\":\"0badcafe:") {
            seen += 1;
            assert!(position.starts_with(&format!("{seen}\"")), "{seen}: {position}");
        } else if text.contains("slow_reader") {
            assert!(text.contains(&format!("since=0badcafe:{seen}")), "{seen}: {text}");
        }
    }
    if let Some(end) = end {
        assert_eq!(end, format!("1008 slow_reader since=0badcafe:{seen}"));
    }
    drop((stuck, reads));
    house.until_open(0).await;
    house.end().await;
}

#[tokio::test]
async fn a_long_history_goes_out_at_the_pace_of_the_socket() {
    let house = house(config()).await;
    let key = house.bus.start("history");
    let words = "so much was said ".repeat(100);
    for number in 0..3_000 {
        house.bus.append(&key, said(number, words.trim_end()));
    }
    let mut reader = house.listen("history", History::All, b"").await;
    // Its socket is full, and the rest waits on the log and not in memory.
    sleep(Duration::from_millis(300)).await;
    let last = house.bus.append(&key, said(9_999, "Live."));
    reader.created().await;
    reader.contiguous(1, last).await;
    drop(reader);
    house.until_open(0).await;
    house.end().await;
}

#[tokio::test]
async fn who_gives_no_sign_of_life_is_dead() {
    let house = house(FanoutConfig { ping_every: HumanDuration::from_secs(1), ..config() }).await;
    let mut alive = house.listen("silent", History::None, b"").await;
    let _dead = house.listen("silent", History::None, b"").await;
    for _ in 0..3 {
        assert_eq!(alive.next().await, Some((0x89, String::new())));
        alive.say(10, b"").await;
    }
    house.until_open(1).await;
    drop(alive);
    house.until_open(0).await;
    house.end().await;
}

#[tokio::test]
async fn who_sends_more_than_anybody_needs_to_is_closed_and_others_are_unharmed() {
    let config = FanoutConfig { listener_messages: 20.try_into().unwrap(), ..config() };
    let house = house(config).await;
    let mut other = house.listen("floods", History::None, b"").await;
    for message in [masked(9, b"x"), masked(10, b""), masked(2, &[0; 100]), masked(1, b"__PING__")] {
        let mut flood = house.listen("floods", History::None, b"").await;
        // In one packet, and one by one.
        flood.socket.write_all(&message.repeat(15)).await.unwrap();
        for _ in 0..5 {
            flood.socket.write_all(&message).await.unwrap();
        }
        // As many as it may: an answer to the last of them says that none of the others was too many.
        let _ = flood.socket.write_all(&message.repeat(1_000)).await;
        let mut last = String::new();
        let close = loop {
            match flood.next().await {
                Some((0x88, close)) => break close,
                Some((0x81, text)) => last = text,
                Some(_) => {}
                // What we had not read of it resets the connection, sometimes before the close is read.
                None => break "1008 too_fast".to_owned(),
            }
        };
        assert_eq!(close, "1008 too_fast");
        assert!(last.is_empty() || last == "__PONG__" || last.contains("more than 20 messages in 30s"), "{last}");
        drop(flood);
        house.until_open(1).await;
    }
    other.say(1, b"__PING__").await;
    assert_eq!(other.text().await, "__PONG__");
    // A message in more pieces than anybody makes of one, most of them empty.
    let fragments = |first: u8, count: usize| {
        let mut frames = masked(first, b"x");
        frames[0] &= 0x7f;
        let mut piece = masked(0, b"");
        piece[0] &= 0x7f;
        frames.extend(piece.repeat(count));
        frames
    };
    for opcode in [1, 2] {
        let mut pieces = house.listen("floods", History::None, b"").await;
        pieces.socket.write_all(&fragments(opcode, 1_022)).await.unwrap();
        pieces.say(0, b"").await;
        if opcode == 1 {
            assert!(pieces.text().await.contains("not JSON"));
        }
        pieces.socket.write_all(&fragments(opcode, 1_024)).await.unwrap();
        pieces.expect_close("1008 the message comes in more frames than accepted").await;
    }
    drop(other);
    house.until_open(0).await;
    house.end().await;
}

#[tokio::test]
async fn a_listener_whose_token_expires_renews_it_or_is_closed() {
    let mut house = house(FanoutConfig { ping_every: HumanDuration::from_secs(1), ..config() }).await;
    house.good_for = Some(Duration::from_millis(100));
    let mut renews = house.listen("tokens", History::None, b"").await;
    let mut lapses = house.listen("tokens", History::None, b"").await;
    house.good_for = None;
    let mut stays = house.listen("tokens", History::None, b"").await;
    // Both live, and hear of it.
    let expired = async |client: &mut Client| loop {
        match client.next().await.expect("the socket is closed") {
            (0x89, _) => client.say(10, b"").await,
            (_, text) => return text,
        }
    };
    let error = expired(&mut renews).await;
    assert!(error.contains(r#""code":"token_expired""#) && error.contains("for 1s more"), "{error}");
    renews.say(1, br#"{"type":"token","access_token":"others 60"}"#).await;
    assert!(expired(&mut renews).await.contains("the token is for another meeting"));
    renews.say(1, br#"{"type":"token","access_token":"tokens 3600"}"#).await;
    assert!(expired(&mut lapses).await.contains("token_expired"));
    assert_eq!(expired(&mut lapses).await, "1008 token_expired");
    drop(lapses);
    house.until_open(2).await;
    for client in [&mut renews, &mut stays] {
        client.say(1, b"__PING__").await;
        assert_eq!(expired(client).await, "__PONG__");
    }
    drop((renews, stays));
    house.until_open(0).await;
    house.end().await;
}

#[tokio::test]
async fn a_drain_asks_all_to_come_back_and_spreads_it() {
    let house = house(config()).await;
    let mut all = Vec::new();
    for _ in 0..40 {
        all.push(house.listen("drained", History::None, b"").await);
    }
    let began = tokio::time::Instant::now();
    let (_, ends) = tokio::join!(house.hub.drain(Duration::from_millis(600)), async {
        let mut ends = Vec::new();
        for client in &mut all {
            // An empty close frame: the one stock clients return from.
            client.expect_close("0 ").await;
            ends.push(began.elapsed());
        }
        ends
    });
    assert!(*ends.last().unwrap() >= Duration::from_millis(300), "{ends:?}");
    drop(all);
    house.until_open(0).await;
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_rows_hear_the_same() {
    // Each connection takes two descriptors of this process.
    let rows: usize = match rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        Some(limit) if limit < 2_200 => limit as usize / 2 - 100,
        _ => 1_000,
    };
    let house = house(FanoutConfig { hold: HumanDuration::from_millis(3), ..FanoutConfig::default() }).await;
    let key = house.bus.start("crowd");
    let mut crowd = Vec::with_capacity(rows);
    for _ in 0..rows {
        crowd.push(house.listen("crowd", History::None, b"").await);
    }
    for client in &mut crowd {
        client.created().await;
    }
    assert_eq!(house.hub.listeners(), rows);
    let mut last = at(0);
    for number in 0..20 {
        last = house.bus.append(&key, said(number, "All hear the same."));
    }
    let mut first: Option<Vec<String>> = None;
    for client in &mut crowd {
        let mut heard = Vec::new();
        while heard.last().is_none_or(|text: &String| !text.contains(&format!("\"position\":\"{last}\""))) {
            heard.push(client.text().await);
        }
        assert_eq!(heard.len(), 40);
        assert_eq!(first.get_or_insert_with(|| heard.clone()), &heard);
    }
    house.bus.append(&key, Event::Left(bus::ana()));
    drop(crowd);
    house.until_open(0).await;
    house.end().await;
}
