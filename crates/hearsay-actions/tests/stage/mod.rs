//! A meeting on a log, a server that takes webhooks and one that takes mails, each on a free port and gone with the test.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use hearsay_bus::{Batch, Bus, Proposal, errand::FOLLOW};
use hearsay_conversation::Sending;
use hearsay_protocol::{
    AccountId, ConversationId, ConversationKey, Epoch, Event, EventId, GatewayId, MeetingId, MeetingKey, ParticipantId,
    PublisherId, StreamId, StreamTime, UtteranceId,
    event::{Evidence, Final, Insight, InsightBody, Participant, SpeakerConfig, StreamEnd, StreamEnded, StreamStarted},
};
use mailin::{Action, AuthMechanism, Handler, Response, SessionBuilder, response};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Generous: a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Waits for a condition, never for a time.
pub(crate) async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let give_up = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found().await {
            return found;
        }
        assert!(Instant::now() < give_up, "{what}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn person(n: u128, name: &str) -> Arc<Participant> {
    Arc::new(Participant {
        id: ParticipantId(Uuid::from_u128(n)),
        user_id: Some(name.to_lowercase()),
        name: Some(name.to_owned()),
        email: Some(format!("{}@example.com", name.to_lowercase())),
    })
}

pub(crate) struct Meeting {
    pub(crate) bus: Arc<dyn Bus>,
    pub(crate) key: ConversationKey,
    stream: StreamId,
    inferred: u64,
    said: u64,
}

impl Meeting {
    /// Anna speaks in it.
    pub(crate) async fn open(bus: &Arc<dyn Bus>, name: &str) -> Self {
        let meeting = MeetingKey { account: AccountId::dev(), meeting: MeetingId::new(name).unwrap() };
        let random = Uuid::new_v4().as_u128();
        let proposal = Proposal {
            conversation: ConversationId::from_random(random as u64),
            epoch: Epoch((random >> 64) as u32),
            title: "Stand-up".to_owned(),
        };
        let key = bus.open(&meeting, proposal).await.unwrap().key;
        let stream = StreamId(Uuid::from_u128(random));
        let mut it = Self { bus: Arc::clone(bus), key, stream, inferred: 0, said: 0 };
        let origin = bus.claim(&it.key, &PublisherId::Stream(stream)).await.unwrap().origin;
        it.by_gateway(Event::StreamStarted(Arc::new(StreamStarted {
            stream,
            participant: person(1, "Anna"),
            gateway: GatewayId(Uuid::from_u128(9)),
            config: SpeakerConfig::default(),
            origin,
            recorded: false,
            no_connection_timeout: Duration::ZERO,
        })))
        .await;
        it
    }

    async fn by_gateway(&mut self, event: Event) {
        self.publish(PublisherId::Rest(Uuid::new_v4()), 0, 1, event).await;
    }

    async fn publish(&self, publisher: PublisherId, from: u64, through: u64, event: Event) {
        let give_up = Instant::now() + PATIENCE;
        let claim = loop {
            match self.bus.claim(&self.key, &publisher).await {
                Ok(claim) => break claim,
                // A leased place is ours again when the lease of our last claim ends.
                Err(error) => assert!(Instant::now() < give_up, "{error}"),
            }
            sleep(Duration::from_millis(50)).await;
        };
        let generation = claim.generation;
        let batch = Batch { publisher, generation, from, through, events: vec![event], restart: None, seen: claim.top };
        self.bus.publish(&self.key, batch).await.unwrap();
    }

    pub(crate) async fn say(&mut self, text: &str) {
        let from = self.said;
        self.said += 10_000_000;
        let claim = self.bus.claim(&self.key, &PublisherId::Stream(self.stream)).await.unwrap();
        let spoken = Event::Final(Arc::new(Final {
            sentiment: Vec::new(),
            trace: None,
            stream: self.stream,
            utterance: UtteranceId::after_cut(self.stream, StreamTime(from)),
            participant: person(1, "Anna"),
            origin: claim.origin,
            start: StreamTime(from),
            end: StreamTime(self.said),
            text: text.to_owned(),
            language: "en-US".to_owned(),
            confidence: 0.9,
            words: Vec::new(),
        }));
        self.publish(PublisherId::Stream(self.stream), from, self.said, spoken).await;
    }

    /// Something is inferred; as an editor would add it, so that no analyst's lease is in the way.
    pub(crate) async fn infer(&mut self, text: &str, body: InsightBody) -> EventId {
        self.infer_as(EventId(Uuid::new_v4()), 0, false, text, body).await
    }

    pub(crate) async fn infer_as(
        &mut self,
        id: EventId,
        revision: u32,
        retracted: bool,
        text: &str,
        body: InsightBody,
    ) -> EventId {
        self.inferred += 1;
        let insight = Event::Insight(Arc::new(Insight {
            id,
            revision,
            retracted,
            confidence: 0.8,
            text: text.to_owned(),
            from: Some(person(1, "Anna")),
            evidence: vec![Evidence { message: Uuid::from_u128(u128::from(self.inferred)), start: 0, end: 4 }],
            body,
        }));
        self.by_gateway(insight).await;
        EventId::of_revision(id, revision)
    }

    pub(crate) async fn end(&mut self) {
        let how = StreamEnd::Stopped { linger: Duration::ZERO };
        let ended = Event::StreamEnded(StreamEnded { stream: self.stream, how });
        self.by_gateway(ended).await;
    }

    pub(crate) async fn sendings(&self) -> Vec<Sending> {
        let known = self.bus.errands().all(&self.key).await.unwrap();
        known.iter().filter(|(id, _)| *id != FOLLOW).map(|(_, what)| Sending::parse(what).unwrap()).collect()
    }
}

/// A request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) head: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn id(&self) -> String {
        self.headers["webhook-id"].to_str().unwrap().to_owned()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What is answered to the nth request, from 0: the text after `HTTP/1.1 `, or nothing at all.
pub(crate) type Script = Box<dyn Fn(usize) -> Option<String> + Send + Sync>;

pub(crate) struct Server<T> {
    pub(crate) port: u16,
    taken: Arc<Mutex<Vec<T>>>,
    over: Arc<AtomicBool>,
}

impl<T: Clone + Send + 'static> Server<T> {
    fn start(serve: impl Fn(TcpStream, &Mutex<Vec<T>>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (taken, over) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (all, ended, serve) = (Arc::clone(&taken), Arc::clone(&over), Arc::new(serve));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ended.load(Ordering::Acquire) {
                    return;
                }
                let (stream, all, serve) = (stream.unwrap(), Arc::clone(&all), Arc::clone(&serve));
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                std::thread::spawn(move || serve(stream, &all));
            }
        });
        Self { port, taken, over }
    }

    pub(crate) fn taken(&self) -> Vec<T> {
        self.taken.lock().unwrap().clone()
    }

    pub(crate) async fn at_least(&self, count: usize) -> Vec<T> {
        until(&format!("{count} are taken"), async || Some(self.taken()).filter(|taken| taken.len() >= count)).await
    }
}

impl<T> Drop for Server<T> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Release);
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

pub(crate) fn webhooks(script: Script, tls: Option<Arc<ServerConfig>>) -> Server<Received> {
    Server::start(move |stream, all| {
        let _ = match &tls {
            None => answer(stream, all, &script),
            Some(tls) => {
                answer(StreamOwned::new(ServerConnection::new(Arc::clone(tls)).unwrap(), stream), all, &script)
            }
        };
    })
}

fn answer(stream: impl Read + Write, all: &Mutex<Vec<Received>>, script: &Script) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut head = String::new();
    stream.read_line(&mut head)?;
    let mut headers = http::HeaderMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(http::HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
    }
    let length = headers.get("content-length").map_or(0, |it| it.to_str().unwrap().parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    if head.is_empty() {
        return Ok(());
    }
    let nth = {
        let mut all = all.lock().unwrap();
        all.push(Received { head: head.trim_end().to_owned(), headers, body });
        all.len() - 1
    };
    match script(nth) {
        Some(answer) => {
            write!(stream.get_mut(), "HTTP/1.1 {answer}")?;
            stream.get_mut().flush()
        }
        // Until the other side has had enough.
        None => stream.read_until(0, &mut Vec::new()).map(|_| ()),
    }
}

pub(crate) fn ok() -> Script {
    Box::new(|_| Some("204 No Content\r\n\r\n".to_owned()))
}

#[derive(Debug, Clone)]
pub(crate) struct Mailed {
    pub(crate) to: Vec<String>,
    pub(crate) data: String,
    pub(crate) encrypted: bool,
    pub(crate) as_user: Option<String>,
}

impl Mailed {
    /// A header, unfolded.
    pub(crate) fn header(&self, name: &str) -> String {
        let unfolded = self.data.replace("\r\n ", " ");
        let line = unfolded.lines().find(|line| line.starts_with(&format!("{name}: "))).unwrap_or_default();
        line.trim_start_matches(&format!("{name}: ")).to_owned()
    }
}

/// What is answered to the nth mail once it is there: a code and words; `OK` when none.
pub(crate) type Judge = Box<dyn Fn(usize) -> Option<(u16, &'static str)> + Send + Sync>;

struct Inbox<'a> {
    all: &'a Mutex<Vec<Mailed>>,
    judge: &'a Judge,
    mail: Mailed,
}

impl Handler for Inbox<'_> {
    fn data_start(&mut self, _domain: &str, _from: &str, _is8bit: bool, to: &[String]) -> Response {
        self.mail.to = to.to_vec();
        self.mail.data.clear();
        response::OK
    }

    fn data(&mut self, line: &[u8]) -> std::io::Result<()> {
        self.mail.data.push_str(&String::from_utf8_lossy(line));
        Ok(())
    }

    fn data_end(&mut self) -> Response {
        let mut all = self.all.lock().unwrap();
        all.push(self.mail.clone());
        (self.judge)(all.len() - 1).map_or(response::OK, |(code, words)| Response::custom(code, words.to_owned()))
    }

    fn auth_plain(&mut self, _: &str, user: &str, password: &str) -> Response {
        if password != "secret" {
            return response::INVALID_CREDENTIALS;
        }
        self.mail.as_user = Some(user.to_owned());
        response::AUTH_OK
    }
}

/// With TLS, it is asked for before anything else, and then a password.
pub(crate) fn mails(judge: Judge, tls: Option<Arc<ServerConfig>>) -> Server<Mailed> {
    Server::start(move |stream, all| {
        let mail = Mailed { to: Vec::new(), data: String::new(), encrypted: tls.is_some(), as_user: None };
        let inbox = Inbox { all, judge: &judge, mail };
        let mut builder = SessionBuilder::new("sink.example.com");
        if tls.is_some() {
            builder.enable_start_tls().enable_auth(AuthMechanism::Plain);
        }
        let mut session = builder.build(IpAddr::V4(Ipv4Addr::LOCALHOST), inbox);
        let mut plain = BufReader::new(stream);
        session.greeting().write_to(plain.get_mut()).unwrap();
        if converse(&mut plain, &mut session)
            && let Some(tls) = &tls
        {
            session.tls_active();
            let connection = ServerConnection::new(Arc::clone(tls)).unwrap();
            converse(&mut BufReader::new(StreamOwned::new(connection, plain.into_inner())), &mut session);
        }
    })
}

/// Until the end, or, with true, until TLS is to begin.
fn converse<S: Read + Write>(stream: &mut BufReader<S>, session: &mut mailin::Session<Inbox<'_>>) -> bool {
    loop {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line).is_err() || line.is_empty() {
            return false;
        }
        if line.eq_ignore_ascii_case(b"quit\r\n") {
            // Some servers never answer this.
            let _ = stream.read_until(0, &mut Vec::new());
            return false;
        }
        let answer = session.process(&line);
        let told = match answer.action {
            Action::NoReply => Ok(()),
            _ => answer.write_to(stream.get_mut()).and_then(|()| stream.get_mut().flush()),
        };
        match answer.action {
            _ if told.is_err() => return false,
            // The parser would take what follows a refused mail for more of it.
            Action::Close | Action::Reply if answer.code >= 400 => return false,
            Action::Close => return false,
            Action::UpgradeTls => return true,
            Action::Reply | Action::NoReply => {}
        }
    }
}
