//! What fan-out costs on this machine: `cargo run --release -p hearsay-fanout --example fanout_cost`.
//!
//! One core of ours, its listeners' clients on another thread of this process, everything on loopback. CPU is the core
//! thread's own time as the scheduler counts it; every byte sent is counted again at the clients.
#![expect(clippy::unwrap_used, reason = "a measurement that fails shall say where")]

#[allow(dead_code, reason = "shared with tests")]
#[path = "../tests/bus/mod.rs"]
mod bus;

use std::{
    fs,
    io::Read,
    net::{TcpListener, TcpStream},
    num::NonZeroUsize,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use bus::{FakeBus, ana, meeting};
use bytes::Bytes;
use hearsay_bus::Bus;
use hearsay_fanout::{CoreSet, FanoutConfig, History, Hub, Listen, Opted, View};
use hearsay_protocol::{
    Event, EventId, GatewayId,
    event::{Evidence, Insight, InsightBody},
};
use hearsay_runtime::{HumanDuration, MetricsHandle, Tasks, metrics};
use rustix::event::epoll::{self, EventData, EventFlags};
use uuid::Uuid;

const ROOM: usize = 1_000;
const IDLE: usize = 9_000;

/// CPU time of this process's threads of that name.
fn cpu(name: &str) -> Duration {
    let mut total = 0;
    for task in fs::read_dir("/proc/self/task").unwrap().flatten() {
        let path = task.path();
        let read = |file: &str| fs::read_to_string(path.join(file)).unwrap_or_default();
        if read("comm").trim() == name {
            total += read("schedstat").split(' ').next().and_then(|time| time.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    Duration::from_nanos(total)
}

/// Writes to sockets of listeners so far: fewer than messages where several left in one.
fn writes(metrics: &MetricsHandle) -> f64 {
    let text = metrics.render();
    let line = text.lines().find(|line| line.starts_with("hearsay_fanout_delivered_total{socket=\"row\"}"));
    line.and_then(|line| line.rsplit(' ').next()).and_then(|count| count.parse().ok()).unwrap_or(0.0)
}

/// Resident user memory, without what is mapped from files.
fn memory() -> i64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() * 1_024
}

/// Reads all clients' sockets and counts.
struct Clients {
    received: Arc<Vec<AtomicU64>>,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Clients {
    fn start(sockets: Vec<TcpStream>) -> Self {
        let received: Arc<Vec<_>> = Arc::new(sockets.iter().map(|_| AtomicU64::new(0)).collect());
        let stop = Arc::new(AtomicBool::new(false));
        let (count, stopped) = (Arc::clone(&received), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
            for (index, socket) in sockets.iter().enumerate() {
                socket.set_nonblocking(true).unwrap();
                epoll::add(&poll, socket.as_fd(), EventData::new_u64(index as u64), EventFlags::IN).unwrap();
            }
            let mut events: Vec<epoll::Event> = Vec::with_capacity(1_024);
            let mut buffer = vec![0; 256 * 1_024];
            while !stopped.load(Ordering::Relaxed) {
                let wait = rustix::event::Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
                events.clear();
                let _ = epoll::wait(&poll, rustix::buffer::spare_capacity(&mut events), Some(&wait));
                for event in &events {
                    let index = event.data.u64() as usize;
                    let mut socket = &sockets[index];
                    if let Ok(read) = socket.read(&mut buffer) {
                        count[index].fetch_add(read as u64, Ordering::Relaxed);
                    }
                }
            }
        });
        Self { received, stop, thread: Some(thread) }
    }

    /// Bytes each socket got; all the same, or something was lost.
    fn each(&self) -> Option<u64> {
        let mut counts = self.received.iter().map(|count| count.load(Ordering::Relaxed));
        let first = counts.next()?;
        counts.all(|count| count == first).then_some(first)
    }

    /// Waits until nothing more comes; the bytes each socket got.
    fn settled(&self) -> u64 {
        let mut before = None;
        for _ in 0..200 {
            thread::sleep(Duration::from_millis(50));
            let now = self.each();
            if let Some(bytes) = now.filter(|_| now == before) {
                return bytes;
            }
            before = now;
        }
        panic!("sockets of one room got different bytes");
    }

    fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// One frame of about 500 bytes.
fn insight(number: usize) -> Event {
    Event::Insight(Arc::new(Insight {
        id: EventId(Uuid::from_u128(number as u128)),
        revision: 0,
        retracted: false,
        confidence: 0.9,
        text: format!("annual budget {number:08}"),
        from: Some(ana()),
        evidence: vec![Evidence { message: Uuid::from_u128(7), start: 0, end: 13 }],
        body: InsightBody::Topic {
            phrase: format!("annual budget {number:08} {}", "x".repeat(90)),
            root_words: vec!["budget".to_owned()],
        },
    }))
}

struct House {
    bus: Arc<FakeBus>,
    hub: Hub,
    listener: TcpListener,
    sessions: AtomicUsize,
    // Dropped last.
    _runtime: tokio::runtime::Runtime,
}

impl House {
    fn new(hold_ms: u64) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let _inside = runtime.enter();
        let config = FanoutConfig { hold: HumanDuration::from_millis(hold_ms), ..FanoutConfig::default() };
        let (bus, tasks) = (Arc::new(FakeBus::default()), Tasks::new());
        let cores = CoreSet::start(NonZeroUsize::MIN, &config, &tasks).unwrap();
        let log: Arc<dyn Bus> = Arc::clone(&bus) as _;
        let hub = Hub::start(config, log, GatewayId(Uuid::from_u128(9)), cores, &tasks);
        drop(_inside);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { bus, hub, listener, sessions: AtomicUsize::new(0), _runtime: runtime }
    }

    /// The client's end of a new listener.
    fn listen(&self, name: &str) -> TcpStream {
        let client = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (socket, _) = self.listener.accept().unwrap();
        let session = self.sessions.fetch_add(1, Ordering::Relaxed) as u32;
        // The hub starts tasks on its cores: any runtime's context will do.
        let _inside = self._runtime.enter();
        self.hub.listen(Listen {
            meeting: meeting(name),
            view: View::listener(),
            opted: Opted::default(),
            since: None,
            history: History::None,
            socket,
            leftover: Bytes::new(),
            core: 0,
            session,
            good_for: None,
            permit: Box::new(()),
        });
        client
    }

    fn until(&self, rows: usize) {
        while self.hub.listeners() != rows {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn idle() {
    let house = House::new(0);
    let key = house.bus.start("idle");
    let mut clients = Vec::with_capacity(IDLE + 100);
    // What is needed once is there before it is measured.
    for _ in 0..100 {
        clients.push(house.listen("idle"));
    }
    house.until(100);
    thread::sleep(Duration::from_millis(200));
    let before = memory();
    for _ in 0..IDLE {
        clients.push(house.listen("idle"));
    }
    house.until(IDLE + 100);
    thread::sleep(Duration::from_secs(1));
    let after = memory();
    // An event to each, then idle again: what it took must not stay.
    house.bus.append(&key, insight(0));
    thread::sleep(Duration::from_secs(2));
    println!(
        "idle: {} rows, {} B each, {} B after an event",
        IDLE,
        (after - before) / IDLE as i64,
        (memory() - before) / IDLE as i64
    );
}

fn room(metrics: &MetricsHandle, hold_ms: u64, per_second: u32, events: usize) {
    let house = House::new(hold_ms);
    let key = house.bus.start("room");
    let clients = Clients::start((0..ROOM).map(|_| house.listen("room")).collect());
    house.until(ROOM);
    let joined = clients.settled();
    let (cpu_before, writes_before, began) = (cpu("core"), writes(metrics), Instant::now());
    for number in 0..events {
        house.bus.append(&key, insight(number));
        let due = began + Duration::from_secs(1) / per_second * (number as u32 + 1);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    let bytes = clients.settled() - joined;
    let took = began.elapsed();
    let used = cpu("core") - cpu_before;
    let written = writes(metrics) - writes_before;
    let delivered = (events * ROOM) as f64;
    let frame = bytes as f64 / events as f64;
    println!(
        "room of {ROOM} x {per_second}/s, hold {hold_ms} ms: {:.2} us CPU per delivered message of {frame:.0} B, {:.2} \
         messages per write, {:.0} delivered/s, core {:.0} % busy",
        used.as_secs_f64() * 1e6 / delivered,
        delivered / written,
        delivered / took.as_secs_f64(),
        100.0 * used.as_secs_f64() / took.as_secs_f64()
    );
    clients.end();
}

fn main() {
    let metrics = metrics::install();
    idle();
    for (hold_ms, per_second, events) in [(0, 100, 500), (3, 100, 500), (0, 500, 2_000), (3, 500, 2_000)] {
        room(&metrics, hold_ms, per_second, events);
    }
}
