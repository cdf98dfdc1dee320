//! Clients that others wrote, unchanged: Symbl's packages for JavaScript and Python, and a conformance suite of the
//! WebSocket protocol. Everything comes from the packages' registries, pinned by hash.

use std::{fs, path::Path, process::Command};

use anyhow::Result;

use crate::{
    node::Node,
    shell::{root, step},
};

/// Against a server of each test's own.
pub(crate) fn run(target: &Path, node: &Node, hearsay: &Path, cache: &Path) -> Result<()> {
    let folder = root().join("tests/clients");
    let packages = target.join("clients-python");
    let wanted = folder.join("requirements.txt");
    // pip installs into a folder anew each time; what is there already is told by a copy of the list.
    let installed = packages.join("requirements.txt");
    if fs::read(&installed).ok() != Some(fs::read(&wanted)?) {
        if packages.exists() {
            fs::remove_dir_all(&packages)?;
        }
        fs::create_dir_all(&packages)?;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--require-hashes"]);
        pip.args(["--only-binary=:all:", "--target"]).arg(&packages).arg("--requirement").arg(&wanted);
        step("clients: Python packages", pip)?;
        fs::copy(&wanted, &installed)?;
    }
    step("clients: JavaScript packages", node.npm(&folder, &["ci", "--no-audit", "--no-fund", "--silent"]))?;
    let mut tests = node.npm(&folder, &["test", "--silent"]);
    tests.env("HEARSAY_BIN", hearsay).env("HEARSAY_CACHE", cache).env("HEARSAY_PYTHON_PACKAGES", &packages);
    step("clients that others wrote", tests)
}
