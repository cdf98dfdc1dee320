//! Rules carried out on a log in memory, against servers of webhooks and of mails that are real.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod stage;

use std::{path::Path, sync::Arc, time::Duration};

use hearsay_actions::{Config, Mail, On, Smtp, SmtpTls, Webhook};
use hearsay_bus::{Bus, Limits, MemoryBus, SystemClock, drive, errand::FOLLOW};
use hearsay_conversation::{Conversation, Record, SendingState};
use hearsay_protocol::{EventId, event::InsightBody};
use hearsay_runtime::{HumanDuration, Tasks};
use rustls::ServerConfig;
use stage::{Meeting, Received, SECRET, Server, mails, ok, person, until, webhooks};

fn log(change: impl FnOnce(&mut Limits)) -> Arc<dyn Bus> {
    let mut limits = Limits { followed: true, ..Limits::default() };
    change(&mut limits);
    Arc::new(MemoryBus::new(limits, Arc::new(SystemClock::default())))
}

struct Stage {
    bus: Arc<dyn Bus>,
    folder: tempfile::TempDir,
    config: Config,
}

impl Stage {
    fn new() -> Self {
        Self::on(log(|_| {}))
    }

    fn on(bus: Arc<dyn Bus>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), SECRET).unwrap();
        let config = Config {
            allow: vec!["127.0.0.0/8".parse().unwrap()],
            settle: HumanDuration::from_millis(200),
            retry_first: HumanDuration::from_millis(200),
            ..Config::default()
        };
        Self { bus, folder, config }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn webhook(&mut self, name: &str, url: &str, on: &[On]) {
        self.config.webhooks.push(Webhook {
            name: name.to_owned(),
            url: url.to_owned(),
            secret_file: self.path("secret"),
            on: on.to_vec(),
            min_confidence: 0.0,
            accounts: Vec::new(),
            meetings: Vec::new(),
        });
    }

    fn to(&mut self, server: &Server<Received>, on: &[On]) {
        let url = format!("http://127.0.0.1:{}/hook?a=b", server.port);
        self.webhook("hook", &url, on);
    }

    fn mail(&mut self, port: u16, tls: SmtpTls) {
        self.config.smtp = Some(Smtp {
            host: "localhost".to_owned(),
            port: Some(port),
            tls,
            from: "Minutes <hearsay@hearsay.example>".to_owned(),
            username: None,
            password_file: None,
            ca: None,
        });
        self.config.mails.push(Mail {
            name: "minutes".to_owned(),
            to: vec!["team@example.org".to_owned()],
            participants_of: vec!["EXAMPLE.com".to_owned()],
            accounts: Vec::new(),
            meetings: Vec::new(),
        });
    }

    async fn start(&self) -> Tasks {
        let tasks = Tasks::new();
        hearsay_actions::start(self.config.clone(), Arc::clone(&self.bus), &tasks).await.unwrap();
        tasks
    }
}

async fn finish(tasks: Tasks) {
    tasks.finish(stage::PATIENCE).await.unwrap();
}

/// A certificate for this machine, made for one test, and what serves with it.
fn certificate(folder: &Path) -> Arc<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("ca.pem"), made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap())
}

fn task(due: Option<&str>) -> InsightBody {
    InsightBody::ActionItem { assignee: Some(person(1, "Anna")), due: due.map(str::to_owned) }
}

#[tokio::test]
async fn an_insight_is_sent_signed_and_the_stock_library_says_so() {
    let mut stage = Stage::new();
    let server = webhooks(ok(), None);
    stage.to(&server, &[On::ActionItem]);
    let tasks = stage.start().await;
    let mut meeting = Meeting::open(&stage.bus, "m").await;
    meeting.infer("Is it late?", InsightBody::Question).await;
    let id = meeting.infer("Send the report.", task(Some("2026-03-13T17:00:00Z"))).await;
    let taken = server.at_least(1).await;
    let [request] = taken.as_slice() else { panic!("questions are not asked for: {taken:?}") };
    assert_eq!(request.head, "POST /hook?a=b HTTP/1.1");
    assert_eq!(request.id(), id.0.to_string());
    let stock = standardwebhooks::Webhook::new(SECRET).unwrap();
    stock.verify(&request.body, &request.headers).unwrap();
    let mut forged = request.body.clone();
    forged[20] ^= 1;
    assert!(stock.verify(&forged, &request.headers).is_err());
    let body = request.json();
    assert_eq!(body["type"], "insight.created");
    let insight = &body["data"]["insight"];
    assert_eq!((&insight["type"], &insight["text"]), (&"action_item".into(), &"Send the report.".into()));
    assert_eq!((&insight["assignee"]["name"], &insight["dueBy"]), (&"Anna".into(), &"2026-03-13T17:00:00Z".into()));
    assert_eq!(body["data"]["conversation"]["id"], meeting.key.conversation.to_string());

    let sent = until("it is written down", async || {
        meeting.sendings().await.into_iter().find(|it| it.state == SendingState::Delivered)
    })
    .await;
    assert_eq!((sent.attempts, sent.latest[0].status, sent.body), (1, Some(204), None));
    assert_eq!(sent.to, format!("http://127.0.0.1:{}", server.port));
    finish(tasks).await;
}

#[tokio::test]
async fn what_is_not_taken_is_sent_again_with_the_same_id() {
    let mut stage = Stage::new();
    let server = webhooks(
        Box::new(|nth| {
            Some(match nth {
                0 => "500 Oh\r\ncontent-length: 4\r\n\r\noh\0!".to_owned(),
                1 => "503 Later\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n".to_owned(),
                2 => "302 Found\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n".to_owned(),
                _ => format!("200 OK\r\ncontent-length: {0}\r\n\r\n{1}", 1 << 30, "x".repeat(100_000)),
            })
        }),
        None,
    );
    stage.to(&server, &[On::Question]);
    let tasks = stage.start().await;
    let mut meeting = Meeting::open(&stage.bus, "m").await;
    meeting.infer("Is it late?", InsightBody::Question).await;
    let taken = server.at_least(4).await;
    assert!(taken.iter().all(|it| it.id() == taken[0].id() && it.body == taken[0].body));
    assert!(taken.iter().all(|it| it.head == taken[0].head), "redirects are not followed");
    let stock = standardwebhooks::Webhook::new(SECRET).unwrap();
    assert!(taken.iter().all(|it| stock.verify(&it.body, &it.headers).is_ok()), "each with its own time");
    let sent = until("it is written down", async || {
        meeting.sendings().await.into_iter().find(|it| it.state == SendingState::Delivered)
    })
    .await;
    let shown: Vec<_> = sent.latest.iter().map(|it| (it.status.unwrap(), it.answer.as_str())).collect();
    assert_eq!(shown[..3], [(500, "oh !"), (503, ""), (302, "redirects are not followed")]);
    assert_eq!((shown[3].0, shown[3].1.len()), (200, 300), "an answer without end is not read to its end");
    let waited = sent.latest[2].at_us - sent.latest[1].at_us;
    assert!(waited >= 2_000_000, "as long as was asked for: {waited} µs");
    finish(tasks).await;
}

#[tokio::test]
async fn a_receiver_that_hangs_is_left_and_others_are_not_kept_waiting() {
    let mut stage = Stage::new();
    let hung = webhooks(Box::new(|_| None), None);
    let server = webhooks(ok(), None);
    stage.config.timeout = HumanDuration::from_secs(5);
    stage.config.in_flight = 2.try_into().unwrap();
    stage.webhook("hung", &format!("http://127.0.0.1:{}/", hung.port), &[On::Question]);
    stage.to(&server, &[On::Question]);
    let tasks = stage.start().await;
    let mut meeting = Meeting::open(&stage.bus, "m").await;
    for n in 0..6 {
        meeting.infer(&format!("Number {n}?"), InsightBody::Question).await;
    }
    let taken = server.at_least(6).await;
    assert_eq!(taken.len(), 6);
    assert!(hung.taken().len() < 6, "one at a time hangs");
    let late = until("an attempt is over", async || {
        meeting.sendings().await.into_iter().find(|it| it.rule == "hung" && it.attempts > 0)
    })
    .await;
    assert_eq!((late.latest[0].status, late.latest[0].answer.as_str()), (None, "no answer within 5s"));
    assert_eq!(late.state, SendingState::Waiting);
    finish(tasks).await;
}

#[tokio::test]
async fn what_is_not_public_is_refused_by_address_and_gone_is_for_good() {
    let mut stage = Stage::new();
    let server = webhooks(Box::new(|_| Some("410 Gone\r\ncontent-length: 0\r\n\r\n".to_owned())), None);
    stage.to(&server, &[On::Question]);
    // Another network than the name stands for.
    stage.webhook("named", &format!("http://localhost:{}/", server.port), &[On::Topic]);
    stage.config.allow = vec!["127.0.0.0/8".parse().unwrap()];
    let tasks = stage.start().await;
    let mut meeting = Meeting::open(&stage.bus, "m").await;
    meeting.infer("Is it late?", InsightBody::Question).await;
    let sent = until("it is given up", async || {
        meeting.sendings().await.into_iter().find(|it| it.state == SendingState::GivenUp)
    })
    .await;
    assert_eq!((sent.attempts, sent.latest[0].status), (1, Some(410)));
    finish(tasks).await;

    stage.config.allow.clear();
    let tasks = stage.start().await;
    let before = server.taken().len();
    let topic = InsightBody::Topic { phrase: "boats".to_owned(), root_words: Vec::new() };
    meeting.infer("boats", topic).await;
    let refused = until("it is refused", async || {
        meeting.sendings().await.into_iter().find(|it| it.rule == "named" && it.attempts > 0)
    })
    .await;
    assert_eq!(refused.latest[0].answer, "the address is not public, and not in actions.allow");
    assert_eq!((refused.state, server.taken().len()), (SendingState::Waiting, before));
    finish(tasks).await;
}

#[tokio::test]
async fn revisions_and_retractions_are_events_of_their_own() {
    let mut stage = Stage::new();
    let server = webhooks(ok(), None);
    stage.to(&server, &[On::ActionItem]);
    let tasks = stage.start().await;
    let mut meeting = Meeting::open(&stage.bus, "m").await;
    let id = EventId(uuid::Uuid::from_u128(77));
    for (revision, retracted) in [(0, false), (1, false), (2, true)] {
        meeting.infer_as(id, revision, retracted, "Send it.", task(None)).await;
    }
    let taken = server.at_least(3).await;
    let mut kinds: Vec<_> = taken.iter().map(|it| it.json()["type"].as_str().unwrap().to_owned()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["insight.created", "insight.retracted", "insight.updated"]);
    assert!(taken[0].id() != taken[1].id() && taken[1].id() != taken[2].id());
    finish(tasks).await;
}

#[tokio::test]
async fn the_end_is_a_webhook_over_tls_and_mails_with_calendars() {
    let mut stage = Stage::new();
    let tls = certificate(stage.folder.path());
    let server = webhooks(ok(), Some(Arc::clone(&tls)));
    let sink = mails(Box::new(|nth| (nth == 0).then_some((451, "later"))), Some(tls));
    stage.config.ca = Some(stage.path("ca.pem"));
    stage.config.allow.push("::1/128".parse().unwrap());
    stage.webhook("hook", &format!("https://localhost:{}/", server.port), &[On::Ended]);
    stage.mail(sink.port, SmtpTls::Starttls);
    std::fs::write(stage.path("password"), "secret\n").unwrap();
    let (ca, password) = (stage.path("ca.pem"), stage.path("password"));
    let smtp = stage.config.smtp.as_mut().unwrap();
    (smtp.ca, smtp.username, smtp.password_file) = (Some(ca), Some("hearsay".to_owned()), Some(password));
    let tasks = stage.start().await;
    let mut meeting = Meeting::open(&stage.bus, "m").await;
    meeting.say("I will send the report by Friday.").await;
    meeting.infer("Send the report.", task(Some("2026-03-13T00:00:00-07:00"))).await;
    meeting
        .infer(
            "Call again, all of us.",
            InsightBody::FollowUp { assignee: None, due: Some("2026-03-16T15:00:00Z".to_owned()) },
        )
        .await;
    meeting.infer("Is it late?", InsightBody::Question).await;
    meeting.end().await;

    let taken = server.at_least(1).await;
    standardwebhooks::Webhook::new(SECRET).unwrap().verify(&taken[0].body, &taken[0].headers).unwrap();
    let body = taken[0].json();
    assert_eq!((&body["type"], &body["data"]["title"]), (&"conversation.ended".into(), &"Stand-up".into()));
    assert_eq!(body["data"]["actionItems"][0]["text"], "Send the report.");
    assert_eq!(body["data"]["followUps"][0]["dueBy"], "2026-03-16T15:00:00Z");
    assert_eq!(body["data"]["speakers"][0]["name"], "Anna");
    assert_eq!(body["data"]["speakers"][0]["talkSeconds"], 10.0);

    // Two receivers, one of whom could not be served at first.
    let mailed = sink.at_least(3).await;
    let again = mailed.iter().filter(|it| it.to == mailed[0].to).count();
    assert_eq!((mailed.len(), again), (3, 2));
    let id = |it: &stage::Mailed| it.header("Message-ID");
    for mail in &mailed {
        assert!(mail.encrypted && mail.as_user.as_deref() == Some("hearsay"));
        assert!(id(mail).ends_with("@hearsay.example>"), "{}", mail.data);
        assert_eq!(id(mail) == id(&mailed[0]), mail.to == mailed[0].to, "an id a receiver, the same each time");
        assert_eq!(mail.header("Auto-Submitted"), "auto-generated");
        assert!(mail.header("Subject").starts_with("Minutes: Stand-up, "));
        for expected in ["* Send the report. (Anna, due 2026-03-13)", "* Is it late?", "Anna: 0:10 min (100 %)"] {
            assert!(mail.data.replace("=\r\n", "").contains(expected), "{expected}: {}", mail.data);
        }
        let unfolded = mail.data.replace("\r\n ", "");
        for expected in [
            "method=REQUEST",
            "DTSTART:20260316T150000Z",
            "SUMMARY:Call again\\, all of us.",
            "method=PUBLISH",
            "DUE;VALUE=DATE:20260313",
            "SUMMARY:Anna: Send the report.",
        ] {
            assert!(decoded(&unfolded).contains(expected), "{expected}: {}", mail.data);
        }
    }
    let mut receivers: Vec<_> = mailed.iter().flat_map(|it| it.to.clone()).collect();
    receivers.sort_unstable();
    receivers.dedup();
    assert_eq!(receivers, ["anna@example.com", "team@example.org"]);
    until("all is written down", async || {
        let sendings = meeting.sendings().await;
        (sendings.len() == 3 && sendings.iter().all(|it| it.state == SendingState::Delivered)).then_some(())
    })
    .await;
    finish(tasks).await;
}

/// As far as calendars go, whatever the encoding of their part.
fn decoded(data: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let mut text = data.replace("=\r\n", "").replace("=3D", "=");
    for part in data.split("Content-Transfer-Encoding: base64").skip(1) {
        let body = part.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let body: String = body.split("--").next().unwrap_or_default().split_whitespace().collect();
        text.push_str(&String::from_utf8_lossy(&STANDARD.decode(body).unwrap()).replace("\r\n ", ""));
    }
    text
}

#[tokio::test]
async fn a_mail_that_is_not_wanted_is_not_sent_again() {
    let mut stage = Stage::new();
    let sink = mails(Box::new(|_| Some((550, "nobody here"))), None);
    stage.mail(sink.port, SmtpTls::None);
    stage.config.mails[0].participants_of.clear();
    let tasks = stage.start().await;
    let mut meeting = Meeting::open(&stage.bus, "m").await;
    meeting.end().await;
    let sent = until("it is given up", async || {
        meeting.sendings().await.into_iter().find(|it| it.state == SendingState::GivenUp)
    })
    .await;
    assert_eq!((sent.latest[0].status, sent.attempts), (Some(550), 1));
    assert!(sent.latest[0].answer.contains("nobody here"), "{:?}", sent.latest);
    finish(tasks).await;
    assert_eq!(sink.taken().len(), 1);
}

#[tokio::test]
async fn who_comes_after_goes_on_and_doubles_nothing() {
    let mut stage = Stage::new();
    let server = webhooks(ok(), None);
    stage.to(&server, &[On::Question, On::Ended]);
    let mut meeting = Meeting::open(&stage.bus, "m").await;
    let mut expected = Vec::new();
    for round in 0..3 {
        // Two processes at once, both of which leave.
        let both = [stage.start().await, stage.start().await];
        for n in 0..5 {
            expected.push(meeting.infer(&format!("Number {round}.{n}?"), InsightBody::Question).await.0.to_string());
        }
        if round > 0 {
            server.at_least(5 * round).await;
        }
        for tasks in both {
            finish(tasks).await;
        }
    }
    meeting.end().await;
    let tasks = stage.start().await;
    let taken = server.at_least(16).await;
    let mut ids: Vec<_> = taken.iter().map(Received::id).collect();
    assert!(taken.iter().any(|it| it.json()["type"] == "conversation.ended"));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!((ids.len(), taken.len()), (16, 16), "each once");
    assert!(expected.iter().all(|id| ids.contains(id)));
    until("nobody follows", async || nothing_is_listed(&stage.bus).await).await;
    // Somebody died between the last move of the watermark and saying so.
    follow_again(&meeting).await;
    until("nobody follows", async || nothing_is_listed(&stage.bus).await).await;
    assert_eq!(server.taken().len(), 16);
    finish(tasks).await;
}

async fn follow_again(meeting: &Meeting) {
    meeting.bus.errands().again(&meeting.key, FOLLOW, Some(Duration::ZERO)).await.unwrap();
}

async fn nothing_is_listed(bus: &Arc<dyn Bus>) -> Option<()> {
    (bus.errands().take(0, Duration::ZERO).await.unwrap().listed == 0).then_some(())
}

#[tokio::test]
async fn a_conversation_nobody_followed_is_told_of_from_its_record() {
    let bus = log(|limits| {
        limits.compact_after = Duration::from_millis(1);
        limits.analyst_grace = Duration::ZERO;
    });
    let mut stage = Stage::on(Arc::clone(&bus));
    let server = webhooks(ok(), None);
    stage.to(&server, &[On::Question, On::Ended]);
    let mut meeting = Meeting::open(&bus, "m").await;
    meeting.say("Is it late?").await;
    let id = meeting.infer_as(EventId(uuid::Uuid::from_u128(5)), 2, false, "Is it late?", InsightBody::Question).await;
    meeting.end().await;
    let compactor: drive::Compactor =
        Arc::new(|_, entries| Record::of(&entries.iter().collect::<Conversation>()).to_bytes().into());
    until("it is a record", async || {
        drive::round(&*bus, &compactor).await.unwrap();
        bus.record(&meeting.key).await.unwrap()
    })
    .await;
    let tasks = stage.start().await;
    let taken = server.at_least(2).await;
    assert!(taken.iter().any(|it| it.id() == id.0.to_string() && it.json()["type"] == "insight.updated"));
    let ended = taken.iter().find(|it| it.json()["type"] == "conversation.ended").unwrap().json();
    assert_eq!(ended["data"]["questions"][0]["text"], "Is it late?");
    until("nobody follows", async || nothing_is_listed(&bus).await).await;
    // Whoever died before it said so: all of it is put again, and known.
    follow_again(&meeting).await;
    until("nobody follows", async || nothing_is_listed(&bus).await).await;
    finish(tasks).await;
    assert_eq!((server.taken().len(), meeting.sendings().await.len()), (2, 2));
}

#[tokio::test]
async fn full_is_decided_and_nothing_is_sent_of_what_was_deleted() {
    let mut stage = Stage::new();
    let server = webhooks(ok(), None);
    stage.to(&server, &[On::Question, On::Ended]);
    // The errand of following is one of them.
    stage.config.per_conversation = 4;
    let tasks = stage.start().await;
    let mut meeting = Meeting::open(&stage.bus, "m").await;
    for n in 0..8 {
        meeting.infer(&format!("Number {n}?"), InsightBody::Question).await;
    }
    meeting.end().await;
    let taken = server.at_least(4).await;
    assert!(taken.iter().any(|it| it.json()["type"] == "conversation.ended"), "there is room for the end");
    until("it is over", async || {
        (meeting.sendings().await.iter().all(|it| it.state == SendingState::Delivered)).then_some(())
    })
    .await;
    assert_eq!((server.taken().len(), meeting.sendings().await.len()), (4, 4));
    finish(tasks).await;

    // As many errands as may be: the log keeps what comes after.
    let mut stage = Stage::new();
    let server = webhooks(Box::new(|nth| (nth > 0).then(|| "200 OK\r\ncontent-length: 0\r\n\r\n".to_owned())), None);
    stage.to(&server, &[On::Question]);
    stage.config.listed = 2;
    stage.config.timeout = HumanDuration::from_secs(2);
    let mut meeting = Meeting::open(&stage.bus, "n").await;
    let other = Meeting::open(&stage.bus, "o").await;
    let tasks = stage.start().await;
    meeting.infer("First?", InsightBody::Question).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(server.taken().len(), 0, "two conversations are on the list");
    stage.bus.delete(&other.key).await.unwrap();
    server.at_least(1).await;
    stage.bus.delete(&meeting.key).await.unwrap();
    until("nothing is known of it", async || nothing_is_listed(&stage.bus).await).await;
    finish(tasks).await;
    assert!(meeting.sendings().await.is_empty());
}

#[tokio::test]
async fn what_a_failover_took_off_the_list_is_listed_again_at_the_end() {
    let mut stage = Stage::new();
    let answer = |nth| if nth == 0 { "500 Oh" } else { "204 No Content" };
    let server = webhooks(Box::new(move |nth| Some(format!("{}\r\n\r\n", answer(nth)))), None);
    stage.to(&server, &[On::Question]);
    stage.config.retry_first = HumanDuration::from_secs(1_000);
    stage.config.retry_longest = HumanDuration::from_secs(1_000);
    let tasks = stage.start().await;
    let mut meeting = Meeting::open(&stage.bus, "m").await;
    meeting.infer("Is it late?", InsightBody::Question).await;
    until("it waits", async || meeting.sendings().await.into_iter().find(|it| it.attempts == 1)).await;
    for (id, _) in stage.bus.errands().all(&meeting.key).await.unwrap() {
        if id != FOLLOW {
            // What the attempt writes down last is behind us when it is not listed any more.
            until("it is struck off", async || {
                stage.bus.errands().again(&meeting.key, id, None).await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
                (stage.bus.errands().take(0, Duration::ZERO).await.unwrap().listed == 1).then_some(())
            })
            .await;
        }
    }
    meeting.end().await;
    server.at_least(2).await;
    until("it is delivered", async || {
        meeting.sendings().await.iter().all(|it| it.state == SendingState::Delivered).then_some(())
    })
    .await;
    finish(tasks).await;
}

#[tokio::test]
async fn what_cannot_work_is_told_at_the_start() {
    let mut stage = Stage::new();
    stage.webhook("hook", "https://example.com/", &[On::Ended]);
    std::fs::write(stage.path("secret"), "whsec_short").unwrap();
    let start = async |config: &Config| {
        let started = hearsay_actions::start(config.clone(), Arc::clone(&stage.bus), &Tasks::new()).await;
        started.unwrap_err().to_string()
    };
    let error = start(&stage.config).await;
    assert!(error.contains("\"hook\": secret_file: line 1 of") && !error.contains("whsec_short"), "{error}");
    std::fs::remove_file(stage.path("secret")).unwrap();
    let error = start(&stage.config).await;
    assert!(error.contains("secret: No such file"), "{error}");
    std::fs::write(stage.path("secret"), SECRET).unwrap();
    let mut config = stage.config.clone();
    config.ca = Some(stage.path("secret"));
    assert!(start(&config).await.contains("no certificate in it"));
    config.webhooks[0].on.clear();
    assert!(start(&config).await.contains("on is empty"));
}
