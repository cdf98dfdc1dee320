//! The commands of a cluster, each a process of its own, on a real Redis.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, sync_channel},
    time::{Duration, Instant},
};

use hearsay_models::{ModelStore, Recordings, Silent};
use rcgen::{CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// Generous: a busy machine, and code that is not compiled for speed.
const WITHIN: Duration = Duration::from_secs(60);
const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What every process needs, fetched before its time is measured.
fn recordings() -> Recordings {
    let store = ModelStore::open(hearsay_models::cache_folder().unwrap());
    store.fetch(&mut Silent).unwrap();
    store.recordings(&mut Silent).unwrap()
}

struct Running {
    process: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut process = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        let (tell, lines) = sync_channel(64);
        std::thread::spawn(move || out.lines().map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        Self { process, lines }
    }

    fn line(&self, prefix: &str) -> String {
        let line = self.lines.recv_timeout(WITHIN).expect("a line of stdout in time");
        line.strip_prefix(prefix).unwrap_or_else(|| panic!("{line:?}, not {prefix:?}")).to_owned()
    }

    fn signal(&self) {
        assert!(Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status().unwrap().success());
    }

    fn stop(mut self) -> ExitStatus {
        self.signal();
        self.process.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Processes of one shell; asked to end when dropped.
struct Group(String);

impl Drop for Group {
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", "--", &self.0]).status();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A Redis of its own, empty.
struct Redis {
    _process: Running,
    _dir: tempfile::TempDir,
    url: String,
}

impl Redis {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = std::env::var_os("HEARSAY_TEST_REDIS").unwrap_or_else(|| "redis-server".into());
        let port = free_port();
        let mut command = Command::new(program);
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--dir"]).arg(dir.path());
        let process = Running::start(&mut command);
        let until = Instant::now() + WITHIN;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(Instant::now() < until, "redis-server does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { _process: process, _dir: dir, url: format!("redis://127.0.0.1:{port}") }
    }

    fn hearsay(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hearsay"));
        command.args(arguments).env_remove("HEARSAY_TOKEN").env("HEARSAY__BUS__URL", &self.url);
        command.env("HEARSAY__AUTH__SIGNING_SECRET", SECRET);
        command.env("HEARSAY__AUTH__APP_ID", "app").env("HEARSAY__AUTH__APP_SECRET", "secret");
        command
    }

    /// With its operators' address.
    fn recognizer(&self, set: impl FnOnce(&mut Command)) -> (Running, String, String) {
        let admin = format!("127.0.0.1:{}", free_port());
        let mut command = self.hearsay(&["recognizer", "--listen", "127.0.0.1:0", "--admin", &admin]);
        set(&mut command);
        let running = Running::start(&mut command);
        let address = running.line("ready grpc://");
        (running, address, admin)
    }

    fn gateway(&self, recognizer: &str, set: impl FnOnce(&mut Command)) -> (Running, String) {
        let admin = format!("127.0.0.1:{}", free_port());
        let mut command = self.hearsay(&["gateway", "--admin", &admin, "--recognizer", recognizer]);
        command.env("HEARSAY__GATEWAY__LISTEN", "127.0.0.1:0");
        set(&mut command);
        (Running::start(&mut command), admin)
    }

    fn client(&self, arguments: &[&str], url: &str) -> Command {
        let mut command = self.hearsay(arguments);
        command.args(["--url", url]);
        command
    }
}

fn token(url: &str) -> String {
    let (host, body) =
        (url.trim_start_matches("http://"), r#"{"type":"application","appId":"app","appSecret":"secret"}"#);
    let mut stream = TcpStream::connect(host).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST /oauth2/token:generate HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer.split_once("\"accessToken\":\"").unwrap().1.split('"').next().unwrap().to_owned()
}

/// Of a report.
fn number(json: &str, key: &str) -> usize {
    let rest = json.split_once(&format!("\"{key}\":")).unwrap().1;
    rest.split(|c: char| !c.is_ascii_digit()).find(|digits| !digits.is_empty()).unwrap().parse().unwrap()
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn two_gateways_and_a_recognizer_are_one_service() {
    let recordings = recordings();
    let redis = Redis::start();
    let (recognizer, grpc, recognizer_admin) = redis.recognizer(|_| {});
    let uri = format!("http://{grpc}");
    let (one, admin_one) = redis.gateway(&uri, |_| {});
    let (other, _) = redis.gateway(&uri, |_| {});
    let (one_url, other_url) = (format!("http://{}", one.line("ready http://")), other.line("ready "));
    assert!(get(&admin_one, "/readyz").ends_with("ready\n"));
    assert!(get(&recognizer_admin, "/metrics").contains("hearsay_redis_canary_age_seconds"));
    // Operators' paths are on their own port only.
    assert!(get(one_url.trim_start_matches("http://"), "/metrics").starts_with("HTTP/1.1 404"));

    // A token of one gateway listens at the other.
    let token = token(&one_url);
    let mut listen = redis.client(&["load", "listen", "--meeting", "m", "--subscribers", "5", "--json"], &other_url);
    listen.args(["--duration", "20s", "--max-lost", "0", "--max-disconnected", "0", "--token", &token]);
    let listening = listen.stdout(Stdio::piped()).spawn().unwrap();
    let spoken = redis
        .client(&["transcribe", "--meeting", "m", "--app-id", "app", "--app-secret", "secret"], &one_url)
        .arg(&recordings.beckett)
        .output()
        .unwrap();
    assert_eq!(spoken.status.code(), Some(0), "{}", String::from_utf8_lossy(&spoken.stderr));
    let text = String::from_utf8(spoken.stdout).unwrap();
    assert!(text.to_lowercase().contains("fail"), "{text}");
    let heard = listening.wait_with_output().unwrap();
    let report = String::from_utf8(heard.stdout).unwrap();
    assert_eq!(heard.status.code(), Some(0), "{report}");
    assert!(number(&report, "delivered") >= 5 * text.lines().count(), "{report}");

    // Events straight to the log reach listeners of both.
    let listen = |url: &str| {
        let arguments = ["load", "listen", "--meetings", "2", "--subscribers", "6", "--duration", "8s", "--json"];
        let mut command = redis.client(&arguments, url);
        command.args(["--token", &token, "--max-lost", "0"]).stdout(Stdio::piped()).spawn().unwrap()
    };
    let listening = [listen(&one_url), listen(&other_url)];
    let arguments =
        ["load", "events", "--meetings", "2", "--rate", "40", "--batch", "2", "--duration", "3s", "--wait", "3s"];
    let published = redis.hearsay(&arguments).args(["--json", "--max-lost", "0"]).output().unwrap();
    let report = String::from_utf8(published.stdout).unwrap();
    assert_eq!(published.status.code(), Some(0), "{report} {}", String::from_utf8_lossy(&published.stderr));
    let sent = number(&report, "sent");
    assert!(sent >= 100 && number(&report, "delivered") == sent, "{report}");
    for listening in listening {
        let heard = listening.wait_with_output().unwrap();
        let report = String::from_utf8(heard.stdout).unwrap();
        assert_eq!(heard.status.code(), Some(0), "{report}");
        assert!(number(&report, "delivered") >= 3 * sent, "each of three subscribers of a meeting hears it: {report}");
    }

    // In any order: the last to go is what the others relied on.
    assert_eq!(one.stop().code(), Some(0));
    assert_eq!(recognizer.stop().code(), Some(0));
    assert_eq!(other.stop().code(), Some(0));
}

#[test]
fn the_lines_of_the_readme_start_a_cluster() {
    let recordings = recordings();
    let redis = Redis::start();
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../README.md")).unwrap();
    let lines = readme.split_once("\n## A cluster\n").unwrap().1.split_once("```sh\n").unwrap().1;
    let mut lines = lines.split_once("```").unwrap().0.to_owned();
    assert_eq!(lines.lines().count(), 4);
    // Ports of its own: what is usual may be taken on this machine.
    let [grpc, one, other] = [(); 3].map(|()| format!("127.0.0.1:{}", free_port()));
    for (usual, instead) in [
        ("redis://127.0.0.1", redis.url.as_str()),
        ("127.0.0.1:50051", &grpc),
        ("127.0.0.1:8081", &other),
        ("127.0.0.1:9091", "127.0.0.1:0"),
        ("127.0.0.1:9092", "127.0.0.1:0"),
    ] {
        assert!(lines.contains(usual), "{usual}");
        lines = lines.replace(usual, instead);
    }
    let program = Path::new(env!("CARGO_BIN_EXE_hearsay"));
    let paths = std::env::var_os("PATH").unwrap();
    let paths =
        std::env::join_paths(program.parent().map(Path::to_owned).into_iter().chain(std::env::split_paths(&paths)));
    let mut shell = Command::new("sh");
    shell.arg("-ec").arg(lines + "wait").env("PATH", paths.unwrap()).process_group(0);
    shell.env("HEARSAY__ADMIN__LISTEN", "127.0.0.1:0");
    shell.env("HEARSAY__RECOGNIZER__LISTEN", &grpc).env("HEARSAY__GATEWAY__LISTEN", &one);
    let mut cluster = Running::start(&mut shell);
    // Also when something here fails.
    let group = Group(format!("-{}", cluster.process.id()));
    let mut ready: Vec<_> = (0..3).map(|_| cluster.line("ready ")).collect();
    ready.sort_unstable();
    let mut expected = vec![format!("grpc://{grpc}"), format!("http://{one}"), format!("http://{other}")];
    expected.sort_unstable();
    let spoken = Command::new(program)
        .args(["transcribe", "--fast", "--app-id", "demo", "--app-secret", "demo", "--url", &format!("http://{other}")])
        .arg(&recordings.beckett)
        .output()
        .unwrap();
    drop(group);
    let _ = cluster.process.wait().unwrap();
    assert_eq!(ready, expected);
    assert_eq!(spoken.status.code(), Some(0), "{}", String::from_utf8_lossy(&spoken.stderr));
    assert!(!spoken.stdout.is_empty());
}

#[test]
fn a_drain_is_unready_first_hands_over_and_ends_well() {
    let recordings = recordings();
    let redis = Redis::start();
    let (first, one, admin_one) = redis.recognizer(|_| {});
    let (second, two, admin_two) = redis.recognizer(|_| {});
    let (gateway, admin) = redis.gateway(&format!("http://{one}"), |command| {
        command.args(["--recognizer", &format!("http://{two}")]);
    });
    let url = format!("http://{}", gateway.line("ready http://"));
    let arguments = ["transcribe", "--app-id", "app", "--app-secret", "secret"];
    let whole = redis.client(&arguments, &url).arg("--fast").arg(&recordings.beckett).output().unwrap();
    let words = |text: Vec<u8>| -> Vec<String> {
        let lines = String::from_utf8(text).unwrap();
        lines
            .lines()
            .flat_map(|line| line.split_once("] ").unwrap().1.split(' ').map(str::to_owned).collect::<Vec<_>>())
            .collect()
    };
    let speaking = redis.client(&arguments, &url).arg(&recordings.beckett).stdout(Stdio::piped()).spawn().unwrap();
    let streams = |admin: &str| {
        let metrics = get(admin, "/metrics");
        let line = metrics.lines().find(|line| line.starts_with("hearsay_recognizer_streams ")).map(str::to_owned);
        line.is_some_and(|line| line.ends_with(" 1"))
    };
    let until = Instant::now() + WITHIN;
    while !(streams(&admin_one) || streams(&admin_two)) {
        assert!(Instant::now() < until, "the stream is at no recognizer");
        std::thread::sleep(Duration::from_millis(50));
    }
    let (busy, other) = if streams(&admin_one) { (first, second) } else { (second, first) };
    assert_eq!(busy.stop().code(), Some(0), "handed over and gone");
    let spoken = speaking.wait_with_output().unwrap();
    assert_eq!(spoken.status.code(), Some(0));
    assert_eq!(words(spoken.stdout), words(whole.stdout), "the same words");

    // A gateway that waits for a speaker's last words is unready from the first moment, and a second signal ends it.
    let mut speaking = redis.client(&arguments, &url).arg(&recordings.beckett).stdout(Stdio::piped()).spawn().unwrap();
    while !get(&admin, "/metrics").contains("hearsay_gateway_sessions{source=\"other\"} 1") {
        assert!(Instant::now() < until, "the speaker is not there: {}", get(&admin, "/metrics"));
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut gateway = gateway;
    gateway.signal();
    let unready = || get(&admin, "/readyz");
    while unready().starts_with("HTTP/1.1 200") {
        assert!(Instant::now() < until);
    }
    assert!(unready().contains("not ready: staying"), "{}", unready());
    gateway.signal();
    assert_eq!(gateway.process.wait().unwrap().code(), Some(143));
    let _ = speaking.kill();
    let _ = speaking.wait();
    assert_eq!(other.stop().code(), Some(0));
}

#[test]
fn gateways_are_replaced_one_by_one_and_listeners_miss_nothing() {
    recordings();
    let redis = Redis::start();
    let (_recognizer, grpc, _) = redis.recognizer(|_| {});
    let uri = format!("http://{grpc}");
    let ports = [free_port(), free_port()];
    let start = |port: u16| {
        let (gateway, _) = redis.gateway(&uri, |command| {
            command.env("HEARSAY__GATEWAY__DRAIN_SPREAD", "1s");
            command.args(["--listen", &format!("127.0.0.1:{port}")]);
        });
        gateway.line("ready ");
        gateway
    };
    let mut gateways = ports.map(start);
    let urls = ports.map(|port| format!("http://127.0.0.1:{port}"));
    let token = token(&urls[0]);
    let arguments = ["load", "listen", "--meetings", "5", "--subscribers", "50", "--duration", "40s", "--json"];
    let mut listen = redis.client(&arguments, &urls[0]);
    listen.args(["--url", &urls[1], "--token", &token, "--max-lost", "0"]);
    let listening = listen.stdout(Stdio::piped()).spawn().unwrap();
    let arguments =
        ["load", "events", "--meetings", "5", "--rate", "50", "--duration", "28s", "--wait", "4s", "--json"];
    let publishing = redis.hearsay(&arguments).args(["--max-lost", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    // Events flow, and clients are everywhere, before anything is replaced.
    std::thread::sleep(Duration::from_secs(8));
    for (gateway, port) in gateways.iter_mut().zip(ports) {
        gateway.signal();
        assert_eq!(gateway.process.wait().unwrap().code(), Some(0));
        *gateway = start(port);
    }
    let published = publishing.wait_with_output().unwrap();
    let sent = number(&String::from_utf8(published.stdout).unwrap(), "sent");
    let heard = listening.wait_with_output().unwrap();
    let report = String::from_utf8(heard.stdout).unwrap();
    assert_eq!(heard.status.code(), Some(0), "{report}");
    assert!(number(&report, "delivered") >= 10 * sent, "each of ten subscribers of a meeting, of {sent}: {report}");
    for nothing in ["lost", "duplicated", "reordered"] {
        assert_eq!(number(&report, nothing), 0, "{report}");
    }
    assert!(number(&report, "disconnected") >= 25, "they were asked to return: {report}");
}

#[test]
fn meetings_idle_sockets_and_a_storm_are_told_of_in_numbers() {
    let recordings = recordings();
    let redis = Redis::start();
    let (_recognizer, grpc, _) = redis.recognizer(|_| {});
    let (gateway, _) = redis.gateway(&format!("http://{grpc}"), |_| {});
    let url = format!("http://{}", gateway.line("ready http://"));
    let token = token(&url);
    let run = |arguments: &[&str]| {
        let mut command = redis.client(&[&["load"], arguments, &["--json", "--max-lost", "0"]].concat(), &url);
        command.args(["--token", &token, "--max-disconnected", "0"]).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let told = |child: Child| {
        let output = child.wait_with_output().unwrap();
        let report = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(0), "{report} {}", String::from_utf8_lossy(&output.stderr));
        report
    };
    // All at the same server: nobody's trouble is another's.
    let pid = gateway.process.id().to_string();
    let sockets = ["sockets", "--subscribers", "40", "--duration", "5s", "--ping", "1s", "--pid", &pid];
    let sockets = run(&[&sockets[..], &["--prefix", "idle", "--meetings", "4"]].concat());
    let audio = recordings.endgame.to_str().unwrap();
    let meetings = ["meetings", "--prefix", "live", "--meetings", "2", "--subscribers", "6", "--audio", audio];
    let meetings = run(&[&meetings[..], &["--speakers", "2", "--duration", "9s"]].concat());
    let storm = ["storm", "--prefix", "storm", "--meetings", "2", "--subscribers", "40"];
    let storm = run(&[&storm[..], &["--duration", "9s", "--after", "4s"]].concat());
    let events = ["load", "events", "--prefix", "storm", "--meetings", "2", "--rate", "40", "--duration", "12s"];
    let events = redis.hearsay(&events).args(["--json", "--insights", "3"]).stdout(Stdio::null()).spawn().unwrap();

    let sockets = told(sockets);
    assert_eq!(number(&sockets, "members"), 40, "{sockets}");
    assert!(number(&sockets, "delivered") >= 80 && sockets.contains("rss_bytes_per_socket"), "{sockets}");
    let storm = told(storm);
    assert_eq!((number(&storm, "members"), number(&storm, "missing")), (40, 0), "{storm}");
    assert!(number(&storm, "delivered") >= 40 * 20 && !storm.contains("\"p99_ms\":null"), "{storm}");
    let meetings = told(meetings);
    assert_eq!((number(&meetings, "members"), number(&meetings, "speakers")), (6, 4), "{meetings}");
    assert!(number(&meetings, "finals") >= 4 && !meetings.contains("\"p99_ms\":null"), "{meetings}");
    for report in [sockets, storm, meetings] {
        for nothing in ["lost", "duplicated", "reordered", "disconnected"] {
            assert_eq!(number(&report, nothing), 0, "{report}");
        }
    }
    assert_eq!(events.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn gateways_and_recognizers_show_each_other_certificates() {
    let recordings = recordings();
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    authority(folder.path(), "ours");
    authority(folder.path(), "other");
    let path = |name: &str| folder.path().join(name);
    let (_recognizer, grpc, admin) = redis.recognizer(|command| {
        command.env("HEARSAY__RECOGNIZER__TLS__CERTIFICATE", path("ours.server.pem"));
        command.env("HEARSAY__RECOGNIZER__TLS__KEY", path("ours.server.pem"));
        command.env("HEARSAY__RECOGNIZER__TLS__CLIENTS", path("ours.pem"));
    });
    let uri = format!("https://{grpc}");
    let trusting = |ca: &'static str, shown: Option<&'static str>| {
        move |command: &mut Command| {
            command.env("HEARSAY__UPLINK__TLS__CA", path(ca)).env("HEARSAY__UPLINK__TLS__NAME", "recognizer.test");
            if let Some(shown) = shown {
                command.env("HEARSAY__UPLINK__TLS__CERTIFICATE", path(shown));
                command.env("HEARSAY__UPLINK__TLS__KEY", path(shown));
            }
        }
    };
    let (known, _) = redis.gateway(&uri, trusting("ours.pem", Some("ours.client.pem")));
    let url = format!("http://{}", known.line("ready http://"));
    let mut speak = redis.client(&["transcribe", "--fast", "--app-id", "app", "--app-secret", "secret"], &url);
    let spoken = speak.arg(&recordings.beckett).output().unwrap();
    assert_eq!(spoken.status.code(), Some(0), "{}", String::from_utf8_lossy(&spoken.stderr));
    assert!(!spoken.stdout.is_empty());

    // One that is not known, one that shows nothing, one that does not know the recognizer, one that speaks no TLS.
    for (uri, ca, shown) in [
        (&uri, "ours.pem", Some("other.client.pem")),
        (&uri, "ours.pem", None),
        (&uri, "other.pem", Some("ours.client.pem")),
        (&format!("http://{grpc}"), "ours.pem", Some("ours.client.pem")),
    ] {
        let (gateway, its_admin) = redis.gateway(uri, trusting(ca, shown));
        assert_eq!(gateway.lines.recv_timeout(Duration::from_secs(3)), Err(RecvTimeoutError::Timeout));
        assert!(get(&its_admin, "/readyz").ends_with("not ready: recognizers\n"), "{uri} {ca} {shown:?}");
    }
    let metrics = get(&admin, "/metrics");
    let refused = metrics.lines().find(|line| line.contains("connections_refused_total{why=\"tls\"}"));
    assert!(refused.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
}

/// A certificate authority, a server's certificate and a client's, each with its key in one file.
fn authority(folder: &Path, name: &str) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join(format!("{name}.pem")), ca.pem()).unwrap();
    for (role, usage) in
        [("server", ExtendedKeyUsagePurpose::ServerAuth), ("client", ExtendedKeyUsagePurpose::ClientAuth)]
    {
        let mut params = CertificateParams::new(vec!["recognizer.test".to_owned()]).unwrap();
        params.extended_key_usages.push(usage);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &ca).unwrap();
        fs::write(folder.join(format!("{name}.{role}.pem")), certificate.pem() + &key.serialize_pem()).unwrap();
    }
}
