//! What `-- delivery` is compared with: PUBLISH, SUBSCRIBE and one WebSocket write, and nothing else.
//!
//! [`alike`] does it in the shape of what is compared: as many publishers at the same pace, each waiting for the answer to
//! its last PUBLISH, in a process of their own; two processes that subscribe to all channels and write what comes to one
//! socket per channel; one process that reads all sockets. Each event brings the socket as many bytes. [`alone`] is one
//! publisher, one subscriber and one socket in one process, which no deployment is.

use std::{
    process::Stdio,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use futures::{SinkExt as _, StreamExt as _};
use redis::io::tcp::TcpSettings;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    net::TcpListener,
    process::{Child, Command},
    time::{Instant, MissedTickBehavior, interval_at, sleep, timeout},
};
use tokio_tungstenite::tungstenite::Message;

pub(crate) const CHANNELS: usize = 10;
pub(crate) const RATE: u32 = 1_000;
/// Messages between a connection and the socket they are for.
const WAITING: usize = 4_096;

/// Median and p99 from the call to the client's socket, ms.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quantiles {
    pub(crate) half: f64,
    pub(crate) p99: f64,
    /// Processor time of the processes that subscribe, µs for each event.
    pub(crate) cost: f64,
}

fn quantiles(mut took: Vec<f64>, cost: f64) -> Quantiles {
    took.sort_by(f64::total_cmp);
    Quantiles { half: took[took.len() / 2], p99: took[took.len() * 99 / 100], cost }
}

fn nanos() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_nanos() as u64
}

fn client(port: u16) -> redis::Client {
    use redis::IntoConnectionInfo as _;
    let info = format!("redis://127.0.0.1:{port}/?protocol=resp3").into_connection_info().expect("a valid URL");
    redis::Client::open(info.set_tcp_settings(TcpSettings::default().set_nodelay(true))).expect("a valid URL")
}

fn stamped(bytes: usize) -> Vec<u8> {
    let mut payload = vec![b'x'; bytes.max(8)];
    payload[..8].copy_from_slice(&nanos().to_be_bytes());
    payload
}

/// How long it took, ms.
fn took(message: Message) -> Option<f64> {
    let data = message.into_data();
    let sent = u64::from_be_bytes(data.get(..8)?.try_into().expect("eight bytes"));
    Some(nanos().saturating_sub(sent) as f64 / 1e6)
}

/// One of [`alike`]'s processes, when this program is called as one; false when it is not.
pub(crate) fn is_role(arguments: &[String]) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let number = |index: usize| arguments[index].parse::<u64>().expect("a number");
    match arguments.first().map(String::as_str) {
        Some("bare-subscribe") => runtime.block_on(subscribe(number(1) as u16)),
        Some("bare-publish") => {
            runtime.block_on(publish(number(1) as u16, number(2) as usize, Duration::from_secs(number(3))));
        }
        Some("bare-listen") => runtime.block_on(listen(Duration::from_secs(number(1)), &arguments[2..])),
        _ => return false,
    }
    true
}

async fn subscribe(port: u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    println!("{}", listener.local_addr().expect("bound"));
    let mut sockets = Vec::new();
    for _ in 0..CHANNELS {
        let (stream, _) = listener.accept().await.expect("a client");
        stream.set_nodelay(true).expect("a socket");
        sockets.push(tokio_tungstenite::accept_async(stream).await.expect("a handshake"));
    }
    let (heard, mut messages) = tokio::sync::mpsc::channel(WAITING);
    let config = redis::AsyncConnectionConfig::new()
        .set_push_sender(move |info: redis::PushInfo| heard.try_send(info).map_err(drop));
    let mut connection = client(port).get_multiplexed_async_connection_with_config(&config).await.expect("it answers");
    for channel in 0..CHANNELS {
        let mut command = redis::cmd("SUBSCRIBE");
        command.arg(channel).query_async::<redis::Value>(&mut connection).await.expect("subscribed");
    }
    while let Some(info) = messages.recv().await {
        let mut data = info.data.into_iter();
        let (Some(redis::Value::BulkString(channel)), Some(redis::Value::BulkString(bytes))) =
            (data.next(), data.next())
        else {
            continue;
        };
        let channel: usize = std::str::from_utf8(&channel).expect("text").parse().expect("a number");
        if sockets[channel].send(Message::binary(bytes)).await.is_err() {
            return;
        }
    }
}

async fn publish(port: u16, bytes: usize, duration: Duration) {
    let connection = client(port).get_multiplexed_async_connection().await.expect("it answers");
    let every = Duration::from_secs(1) * CHANNELS as u32 / RATE;
    let begun = Instant::now();
    let publishers = (0..CHANNELS).map(|channel| {
        let mut connection = connection.clone();
        async move {
            let mut tick = interval_at(begun + every * channel as u32 / CHANNELS as u32, every);
            tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
            while begun.elapsed() < duration {
                tick.tick().await;
                let mut command = redis::cmd("PUBLISH");
                command.arg(channel).arg(stamped(bytes));
                command.query_async::<i64>(&mut connection).await.expect("published");
            }
        }
    });
    let publishers: Vec<_> = publishers.map(tokio::spawn).collect();
    for publisher in publishers {
        publisher.await.expect("without panic");
    }
}

/// Prints how long each event took, ms.
async fn listen(duration: Duration, addresses: &[String]) {
    let mut readers = Vec::new();
    for address in addresses {
        for _ in 0..CHANNELS {
            let (mut socket, _) =
                tokio_tungstenite::connect_async(format!("ws://{address}")).await.expect("a handshake");
            readers.push(tokio::spawn(async move {
                let mut all = Vec::new();
                let until = Instant::now() + duration;
                while let Ok(Some(Ok(message))) = tokio::time::timeout_at(until, socket.next()).await {
                    all.extend(took(message));
                }
                all
            }));
        }
    }
    for reader in readers {
        for took in reader.await.expect("without panic") {
            println!("{took}");
        }
    }
}

fn role(arguments: &[&str]) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(arguments).stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("started")
}

/// `subscribers` processes, and `bytes` to the socket for each event.
pub(crate) async fn alike(port: u16, bytes: usize, subscribers: usize, duration: Duration) -> Quantiles {
    let port = port.to_string();
    let mut subscribing = Vec::new();
    let mut addresses = Vec::new();
    for _ in 0..subscribers {
        let mut child = role(&["bare-subscribe", &port]);
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let line = timeout(Duration::from_secs(10), lines.next_line()).await.expect("in time");
        addresses.push(line.expect("readable").expect("an address"));
        subscribing.push(child);
    }
    let listening = (duration + Duration::from_secs(2)).as_secs().to_string();
    let mut arguments = vec!["bare-listen", listening.as_str()];
    arguments.extend(addresses.iter().map(String::as_str));
    let listening = role(&arguments);
    sleep(Duration::from_secs(1)).await;
    let pids: Vec<u32> = subscribing.iter().filter_map(Child::id).collect();
    let used = || pids.iter().map(|pid| hearsay_tests::cpu_seconds(*pid).expect("it runs")).sum::<f64>();
    let before = used();
    let mut publishing = role(&["bare-publish", &port, &bytes.to_string(), &duration.as_secs().to_string()]);
    assert!(publishing.wait().await.expect("it ends").success(), "published");
    let used = used() - before;
    let output = listening.wait_with_output().await.expect("it ends");
    let text = String::from_utf8(output.stdout).expect("text");
    let took: Vec<f64> = text.lines().map(|line| line.parse().expect("a number")).collect();
    let sent = duration.as_secs() as usize * RATE as usize;
    assert!(took.len() >= sent * subscribers * 99 / 100, "{} of {sent} came {subscribers} times", took.len());
    let cost = used * 1e6 / (took.len() as f64);
    quantiles(took, cost)
}

/// One publisher that waits for each answer before it looks at the clock again, one subscriber, one socket, one process.
pub(crate) async fn alone(port: u16, duration: Duration) -> Quantiles {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let (heard, mut messages) = tokio::sync::mpsc::channel(WAITING);
    let config = redis::AsyncConnectionConfig::new()
        .set_push_sender(move |info: redis::PushInfo| heard.try_send(info).map_err(drop));
    let mut subscriber = client(port).get_multiplexed_async_connection_with_config(&config).await.expect("it answers");
    redis::cmd("SUBSCRIBE").arg("bare").query_async::<redis::Value>(&mut subscriber).await.expect("subscribed");
    let server = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.expect("a client");
        stream.set_nodelay(true).expect("a socket");
        let mut socket = tokio_tungstenite::accept_async(stream).await.expect("a handshake");
        while let Some(info) = messages.recv().await {
            if let Some(redis::Value::BulkString(bytes)) = info.data.into_iter().nth(1)
                && socket.send(Message::binary(bytes)).await.is_err()
            {
                return;
            }
        }
    });
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{address}")).await.expect("a handshake");
    let reader = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(Ok(message)) = socket.next().await {
            all.extend(took(message));
        }
        all
    });
    let mut connection = client(port).get_multiplexed_async_connection().await.expect("it answers");
    let begun = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / RATE);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    while begun.elapsed() < duration {
        tick.tick().await;
        let mut command = redis::cmd("PUBLISH");
        command.arg("bare").arg(stamped(500)).query_async::<i64>(&mut connection).await.expect("published");
    }
    sleep(Duration::from_millis(300)).await;
    server.abort();
    drop(subscriber);
    quantiles(reader.await.expect("without panic"), 0.0)
}
