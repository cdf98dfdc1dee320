//! The commands' contracts, on the real binary: stdout, exit codes, and what is said when something is wrong.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        mpsc::{Receiver, sync_channel},
    },
    time::{Duration, Instant},
};

use hearsay_models::{ModelStore, Models, Recordings, Silent};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, StreamOwned,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};

/// Generous: a busy machine, and code that is not compiled for speed.
const READY_WITHIN: Duration = Duration::from_secs(60);

fn hearsay(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearsay"));
    command.args(arguments).stdin(Stdio::null()).env_remove("HEARSAY_TOKEN");
    command
}

fn run(arguments: &[&str]) -> Output {
    hearsay(arguments).output().unwrap()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What `dev` needs, fetched before its time is measured.
fn models() -> (Models, Recordings) {
    let store = ModelStore::open(hearsay_models::cache_folder().unwrap());
    (store.fetch(&mut Silent).unwrap(), store.recordings(&mut Silent).unwrap())
}

/// A running `hearsay dev`.
struct Dev {
    process: Child,
    lines: Receiver<String>,
    address: String,
    token: String,
}

impl Dev {
    fn start(arguments: &[&str]) -> Self {
        Self::of(hearsay(&["dev", "--listen", "127.0.0.1:0"]).args(arguments), "ready http://")
    }

    fn of(command: &mut Command, ready: &str) -> Self {
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(process.stdout.take().unwrap());
        let (tell, lines) = sync_channel(16);
        std::thread::spawn(move || out.lines().map_while(Result::ok).for_each(|line| drop(tell.send(line))));
        let mut dev = Self { process, lines, address: String::new(), token: String::new() };
        dev.address = dev.line().strip_prefix(ready).unwrap().to_owned();
        dev.token = dev.line().strip_prefix("token ").unwrap().to_owned();
        dev
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(READY_WITHIN).expect("a line of stdout in time")
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn transcribe(&self, arguments: &[&str], files: &[&Path]) -> Output {
        let url = format!("http://{}", self.address);
        hearsay(&["transcribe", "--url", &url]).args(arguments).args(files).output().unwrap()
    }

    /// Asks it to end, and tells how it did.
    fn stop(mut self) -> (std::process::ExitStatus, Vec<String>) {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let status = self.process.wait().unwrap();
        (status, self.lines.iter().collect())
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_recording_goes_in_and_its_words_come_out() {
    let (_, recordings) = models();
    let dev = Dev::start(&[]);
    assert!(dev.get("/healthz").starts_with("HTTP/1.1 200"));
    assert!(dev.get("/readyz").ends_with("ready\n"));

    // Without a token: the one of a server on this machine is found.
    let output = dev.transcribe(&["--fast"], &[&recordings.beckett]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.is_empty());
    for line in text.lines() {
        let (time, rest) = line.split_once("] beckett: ").unwrap_or_else(|| panic!("{line:?}"));
        assert!(time.len() == "[hh:mm:ss.mmm".len() && time.starts_with("[00:00:"), "{line:?}");
        assert!(!rest.trim().is_empty());
    }
    let words = text.to_lowercase();
    assert!(words.contains("tried") && words.contains("fail"), "{text}");

    // The same, as players read it, with the token that was printed.
    let output = dev.transcribe(&["--fast", "--output", "srt", "--token", &dev.token], &[&recordings.beckett]);
    let srt = String::from_utf8(output.stdout).unwrap();
    assert!(srt.starts_with("1\n00:00:0") && srt.contains(" --> "), "{srt}");

    let output = dev.transcribe(&["--fast", "--output", "json"], &[&recordings.beckett]);
    let json = String::from_utf8(output.stdout).unwrap();
    for frame in ["started_listening", "conversation_created", "recognition_result", "message_response"] {
        assert!(json.contains(frame), "no {frame} in {json}");
    }
    assert!(json.lines().all(|line| line.starts_with('{') && line.ends_with('}')));

    assert!(dev.get("/metrics").contains("hearsay_build_info"));
    let (status, more) = dev.stop();
    assert_eq!(status.code(), Some(0));
    assert!(more.is_empty(), "stdout holds two lines: {more:?}");
}

#[test]
fn credentials_of_ones_own_open_the_door_and_others_do_not() {
    let (_, recordings) = models();
    let (id, secret) = ("a".repeat(64), "b".repeat(128));
    let dev = Dev::start(&["--app-id", &id, "--app-secret", &secret]);
    let app = ["--fast", "--app-id", &id, "--app-secret", &secret];
    let output = dev.transcribe(&app, &[&recordings.beckett]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let output = dev.transcribe(&["--app-id", &id, "--app-secret", "wrong"], &[&recordings.beckett]);
    assert_eq!(output.status.code(), Some(4), "{}", told(&output));
    let output = dev.transcribe(&["--token", "a.b.c"], &[&recordings.beckett]);
    assert_eq!(output.status.code(), Some(4), "{}", told(&output));
}

#[test]
fn a_second_start_is_ready_within_three_seconds() {
    models();
    let begun = Instant::now();
    let dev = Dev::start(&[]);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(3), "{took:?}");
    drop(dev);
}

#[test]
fn a_taken_port_fails_at_once_and_by_name() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let begun = Instant::now();
    let output = run(&["dev", "--listen", &address]);
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    assert!(told(&output).contains(&address) && told(&output).contains("--listen"), "{}", told(&output));
}

#[test]
fn what_a_cluster_lacks_is_named_at_once() {
    let secret = "s".repeat(32);
    let complete = ["--redis", "redis://127.0.0.1:1", "--recognizer", "http://127.0.0.1:1"];
    for (command, arguments, words) in [
        ("gateway", &complete[2..], "bus.url is not set"),
        ("gateway", &complete[..2], "uplink.recognizers is empty"),
        ("gateway", &["--redis", "http://x"], "bus.url: Redis URL"),
        ("gateway", &["--recognizer", "127.0.0.1:50051"], "uplink.recognizers: \"127.0.0.1:50051\""),
        ("gateway", &["--recognizer", "https://127.0.0.1:50051"], "uplink.tls.ca"),
        ("recognizer", &[], "bus.url is not set"),
    ] {
        let output = run(&[&[command], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{command} {arguments:?}: {}", told(&output));
        assert!(told(&output).contains(words) && output.stdout.is_empty(), "{}", told(&output));
    }
    let output = run(&[&["gateway"], &complete[..]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("auth.signing_secret is not set"), "{}", told(&output));

    // What is there and does not answer is waited for, and then named.
    let mut command =
        hearsay(&[&["gateway", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], &complete[..]].concat());
    command.env("HEARSAY__AUTH__SIGNING_SECRET", &secret).env("HEARSAY__BUS__CONNECT", "1s");
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("127.0.0.1:1 cannot be reached"), "{}", told(&output));
}

#[test]
fn tls_is_served_with_a_certificate_that_stays_the_same() {
    models();
    let cache = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = hearsay(&["dev", "--tls", "--listen", "127.0.0.1:0"]);
        command.env("HEARSAY_CACHE", cache.path());
        command.env("HEARSAY__MODELS__CACHE", hearsay_models::cache_folder().unwrap());
        Dev::of(&mut command, "ready https://")
    };
    let dev = start();
    let path = cache.path().join("dev/tls.pem");
    let first = std::fs::read(&path).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&first).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let ask = |address: &str, name: &'static str| {
        let connection = ClientConnection::new(Arc::clone(&config), ServerName::try_from(name).unwrap()).unwrap();
        let mut stream = StreamOwned::new(connection, TcpStream::connect(address).unwrap());
        let mut answer = String::new();
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        stream.read_to_string(&mut answer).map(|_| answer)
    };
    for name in ["localhost", "127.0.0.1"] {
        assert!(ask(&dev.address, name).unwrap().starts_with("HTTP/1.1 200"));
    }
    assert!(ask(&dev.address, "another.example").is_err());
    assert!(dev.stop().0.success());
    let dev = start();
    assert_eq!(std::fs::read(&path).unwrap(), first);
    assert!(ask(&dev.address, "localhost").unwrap().starts_with("HTTP/1.1 200"));
    assert!(dev.stop().0.success());
    for (arguments, named) in [(&["--tls", "a"][..], "--tls takes"), (&["--tls", "none.pem", "none.pem"], "none.pem")] {
        let output = run(&[&["dev"], arguments].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(told(&output).contains(named), "{}", told(&output));
    }
}

#[test]
fn clients_speak_tls_with_whom_they_trust() {
    let (_, recordings) = models();
    let cache = tempfile::tempdir().unwrap();
    let secret = "s".repeat(128);
    let app = ["--app-id", "demo", "--app-secret", &secret];
    let mut command = hearsay(&[&["dev", "--tls", "--listen", "127.0.0.1:0"][..], &app].concat());
    command.env("HEARSAY_CACHE", cache.path());
    command.env("HEARSAY__MODELS__CACHE", hearsay_models::cache_folder().unwrap());
    let dev = Dev::of(&mut command, "ready https://");
    let ca = cache.path().join("dev/tls.pem").to_string_lossy().into_owned();
    let url = format!("https://{}", dev.address);
    let beckett = recordings.beckett.to_string_lossy().into_owned();

    for access in [&["--token", &dev.token][..], &app] {
        let arguments = [&["transcribe", "--fast", "--url", &url, "--ca", &ca, &beckett][..], access].concat();
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        assert!(String::from_utf8(output.stdout).unwrap().to_lowercase().contains("tried"));
    }

    // Two listen while one speaks.
    let listen = ["load", "listen", "--meeting", "m", "--subscribers", "2", "--json", "--duration", "12s"];
    let access = ["--url", &url, "--ca", &ca, "--token", &dev.token];
    let listening = hearsay(&[&listen[..], &access].concat()).stdout(Stdio::piped()).spawn().unwrap();
    let output = run(&[&["transcribe", "--meeting", "m", &beckett][..], &access].concat());
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let report = listening.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report.stdout).unwrap();
    assert!(report["delivered"].as_u64() > Some(0) && report["lost"] == 0 && report["failed"] == 0, "{report}");

    // Whom nobody vouches for is told by name, and so is a file that vouches for nobody.
    let other = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = other.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_string_lossy().into_owned()
    };
    let stranger = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert.pem();
    for (ca, code, words) in [
        (file("stranger.pem", &stranger), 3, "is not trusted"),
        (file("empty.pem", ""), 2, "empty.pem"),
        ("missing.pem".to_owned(), 2, "missing.pem"),
    ] {
        let output = run(&["transcribe", "--url", &url, "--ca", &ca, "--token", "x", &beckett]);
        assert_eq!(output.status.code(), Some(code), "{}", told(&output));
        assert!(told(&output).contains(words), "{}", told(&output));
    }
    assert!(dev.stop().0.success());
}

#[test]
fn config_check_prints_what_is_in_force() {
    let output = hearsay(&["config", "check"]).env("HEARSAY__GATEWAY__LISTEN", "127.0.0.1:9999").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("[gateway]\nlisten = \"127.0.0.1:9999\""), "{text}");
    let output = hearsay(&["config", "check"]).env("HEARSAY__GATEWAY__LISTN", "x").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(told(&output).contains("HEARSAY__GATEWAY__LISTN"), "{}", told(&output));
}

#[test]
fn models_list_has_a_line_for_each() {
    models();
    let output = run(&["models", "list"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    let ready = |name: &str| text.lines().any(|line| line.starts_with(name) && line.ends_with("ready"));
    assert!(ready("moonshine-base-en") && ready("silero-vad"), "{text}");
    let begun = Instant::now();
    assert_eq!(run(&["models", "fetch"]).status.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "everything is cached");
}

#[test]
fn transcribe_tells_whose_fault_it_is() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}");
    let (_, recordings) = models();
    let file = recordings.beckett.to_string_lossy().into_owned();
    let missing = PathBuf::from("missing.wav").to_string_lossy().into_owned();
    for (arguments, code, words) in [
        (vec!["transcribe", "--url", &url, &file], 2, "no token"),
        (vec!["transcribe", "--url", &url, "--token", "x", &missing], 2, "missing.wav"),
        (vec!["transcribe", "--url", &url, "--token", "x", &file], 3, "Is the server running?"),
        (vec!["transcribe", "--url", "ftp://127.0.0.1", "--token", "x", &file], 2, "http://"),
    ] {
        let output = run(&arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", told(&output));
        assert!(told(&output).contains(words), "{}", told(&output));
        assert!(output.stdout.is_empty());
    }
}
