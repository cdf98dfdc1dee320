//! The client of the Python package index. What it brings is believed only after its SHA-256 was checked.

use std::{
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::Stdio,
};

use crate::{
    Error,
    manifest::{PYTHON, Package, Wheel},
    wheel::checked,
};

/// The oldest pip that knows the platforms named here.
const OLDEST: (u32, u32) = (20, 3);

/// The first pip that goes on with a broken download.
const RESUMES: (u32, u32) = (25, 1);

/// How pip may be called, in the order tried.
const WAYS: [&[&str]; 4] = [&["python3", "-m", "pip"], &["pip3"], &["python", "-m", "pip"], &["pip"]];

/// Something to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    pub program: OsString,
    pub arguments: Vec<OsString>,
    /// Its standard output goes to our standard error for a person to read.
    pub shown: bool,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finished {
    pub success: bool,
    /// Empty when shown.
    pub stdout: String,
    pub stderr: String,
}

/// Runs commands; tests give another.
pub trait Runner: Send + Sync {
    /// # Errors
    /// When the program cannot be started.
    fn run(&self, command: &Command) -> io::Result<Finished>;
}

/// Runs them on this machine.
#[derive(Debug, Default, Clone, Copy)]
pub struct System;

impl Runner for System {
    fn run(&self, command: &Command) -> io::Result<Finished> {
        let stdout = if command.shown { Stdio::from(io::stderr()) } else { Stdio::piped() };
        let output = std::process::Command::new(&command.program)
            .args(&command.arguments)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()?
            .wait_with_output()?;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Ok(Finished { success: output.status.success(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }
}

/// A pip that works.
pub(crate) struct Pip<'a> {
    runner: &'a dyn Runner,
    way: &'static [&'static str],
    version: (u32, u32),
}

impl<'a> Pip<'a> {
    pub(crate) fn find(runner: &'a dyn Runner) -> Result<Self, Error> {
        let mut old = None;
        for way in WAYS {
            let asked = Command {
                program: way[0].into(),
                arguments: way[1..].iter().chain(&["--version"]).map(Into::into).collect(),
                shown: false,
            };
            let Ok(Finished { success: true, stdout, .. }) = runner.run(&asked) else { continue };
            let Some(version) = version(&stdout) else { continue };
            if version >= OLDEST {
                return Ok(Self { runner, way, version });
            }
            old = old.or(Some(version));
        }
        let written = |(major, minor): (u32, u32)| format!("{major}.{minor}");
        Err(match old {
            Some(found) => Error::OldPip { found: written(found), needed: written(OLDEST) },
            None => Error::NoPip { tried: WAYS.map(|it| format!("`{}`", it.join(" "))).join(", ") },
        })
    }

    /// Puts one wheel into an empty folder; its content is verified.
    pub(crate) fn download(
        &self,
        package: &Package,
        wheel: &Wheel,
        into: &Path,
        shown: bool,
    ) -> Result<PathBuf, Error> {
        let named = format!("{} {}", package.name, package.version);
        let wanted = into.join("wanted.txt");
        let line = format!("{}=={} --hash=sha256:{}\n", package.name, package.version, wheel.sha256);
        fs::write(&wanted, line).map_err(Error::io("write", &wanted))?;
        let mut arguments: Vec<OsString> = self.way[1..].iter().map(Into::into).collect();
        arguments.extend(["download", "--no-deps", "--only-binary=:all:", "--require-hashes"].map(Into::into));
        arguments.extend(["--disable-pip-version-check", "--no-input", "--python-version", PYTHON].map(Into::into));
        if let Some(platform) = wheel.platform {
            arguments.extend(["--platform", platform].map(Into::into));
        }
        if self.version >= RESUMES {
            arguments.extend(["--resume-retries", "10"].map(Into::into));
        }
        if !shown {
            arguments.push("--quiet".into());
        }
        arguments.extend([OsString::from("--dest"), into.into(), "--requirement".into(), wanted.clone().into()]);
        let command = Command { program: self.way[0].into(), arguments, shown };
        let failed = |reason: String| Error::Fetch { package: named.clone(), reason };
        let finished = self.runner.run(&command).map_err(|error| failed(error.to_string()))?;
        if !finished.success {
            return Err(failed(last_words(&finished.stderr)));
        }
        let mut files = fs::read_dir(into).map_err(Error::io("read", into))?.filter_map(Result::ok).map(|it| it.path());
        let file = files.find(|it| it.extension().is_some_and(|it| it == "whl"));
        let file = file.ok_or_else(|| failed("it said that all is well, but left no .whl file".into()))?;
        checked(&file, &named, wheel.sha256)?;
        Ok(file)
    }
}

/// Of `pip 23.2.1 from /somewhere (python 3.11)`.
fn version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.strip_prefix("pip ")?.split(' ').next()?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// What pip said last, without its hints and tracebacks' length.
fn last_words(stderr: &str) -> String {
    const LINES: usize = 6;
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|it| !it.is_empty()).collect();
    match lines.len().checked_sub(LINES) {
        _ if lines.is_empty() => "it did not say why".into(),
        Some(from) => lines[from..].join(" / "),
        None => lines.join(" / "),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::manifest::Item;

    /// Answers to `--version`, by program; everything else is recorded and fails.
    struct Machine {
        versions: Vec<(&'static str, &'static str)>,
        ran: Mutex<Vec<Command>>,
    }

    impl Runner for Machine {
        fn run(&self, command: &Command) -> io::Result<Finished> {
            self.ran.lock().unwrap().push(command.clone());
            let known = self.versions.iter().find(|it| command.program == it.0);
            let known = known.ok_or(io::ErrorKind::NotFound)?;
            if command.arguments.last().is_some_and(|it| it == "--version") {
                return Ok(Finished { success: true, stdout: known.1.into(), ..Finished::default() });
            }
            Ok(Finished { stderr: "WARNING: slow\n\nERROR: no such host\n".into(), ..Finished::default() })
        }
    }

    fn machine(versions: &[(&'static str, &'static str)]) -> Machine {
        Machine { versions: versions.to_vec(), ran: Mutex::default() }
    }

    fn download(machine: &Machine) -> String {
        let folder = tempfile::tempdir().unwrap();
        let package = Item::Moonshine.package();
        let pip = Pip::find(machine).unwrap();
        let error = pip.download(package, &package.wheels[0], folder.path(), false).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("pip could not fetch moonshine_cpp 0.1.4; whole packages are kept"), "{error}");
        assert!(error.ends_with("pip said: WARNING: slow / ERROR: no such host"), "{error}");
        let ran = machine.ran.lock().unwrap();
        ran.last().unwrap().arguments.iter().map(|it| it.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn without_python_the_error_names_what_to_install() {
        let error = Pip::find(&machine(&[])).err().unwrap().to_string();
        assert!(error.contains("`apt-get install python3-pip`"), "{error}");
        assert!(error.contains("`python3 -m pip`, `pip3`"), "{error}");
    }

    #[test]
    fn an_old_pip_is_named_with_what_is_needed() {
        let error = Pip::find(&machine(&[("pip3", "pip 9.0.3 from x (python 3.5)")])).err().unwrap().to_string();
        assert!(error.contains("pip 9.0 is too old") && error.contains("20.3"), "{error}");
    }

    #[test]
    fn a_newer_pip_further_down_is_preferred_to_an_old_one() {
        let machine = machine(&[("python3", "pip 9.0.3 from x"), ("pip3", "pip 24.0 from x")]);
        assert_eq!(Pip::find(&machine).unwrap().way, ["pip3"]);
    }

    #[test]
    fn pip_is_told_the_hash_the_platform_and_to_resume_where_it_can() {
        let before = download(&machine(&[("python3", "pip 25.0.1 from x")]));
        assert!(before.contains("--require-hashes") && before.contains("--platform manylinux2014_x86_64"), "{before}");
        assert!(!before.contains("--resume-retries"), "{before}");
        let since = download(&machine(&[("python3", "pip 25.1 from x")]));
        assert!(since.contains("--resume-retries 10"), "{since}");
    }
}
