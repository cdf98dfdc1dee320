//! Real servers, started on free ports and stopped with the test.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A server of its own.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    _dir: TempDir,
}

/// Redis: what the test command names, or this machine's.
pub(crate) fn redis() -> PathBuf {
    named("HEARSAY_TEST_REDIS", "redis-server")
}

/// Valkey: what the test command names, or this machine's.
pub(crate) fn valkey() -> PathBuf {
    named("HEARSAY_TEST_VALKEY", "valkey-server")
}

fn named(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(|| PathBuf::from(default), PathBuf::from)
}

pub(crate) fn free_port() -> u16 {
    // Below the ports that outgoing connections take, and with room for the cluster bus port above it.
    loop {
        let port = rand::random_range(10_000..22_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

impl Server {
    pub(crate) fn start(program: &Path, args: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory for the server");
        let port = free_port();
        let args: Vec<String> = args.iter().map(|&arg| arg.to_owned()).collect();
        let child = Self::launch(program, port, &args, dir.path());
        let server = Self { child, port, _dir: dir };
        server.wait();
        server
    }

    fn launch(program: &Path, port: u16, args: &[String], dir: &Path) -> Child {
        Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--dir", &dir.display().to_string()])
            .args(["--enable-debug-command", "yes"])
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| {
                panic!(
                    "{} does not start ({error}): `cargo xtask test` brings it; or install it and name it by \
                     HEARSAY_TEST_REDIS or HEARSAY_TEST_VALKEY",
                    program.display()
                )
            })
    }

    fn wait(&self) {
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < until, "the server on port {} did not begin to listen", self.port);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).expect("a valid URL")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have been stopped by the test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
