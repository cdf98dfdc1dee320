//! Images and pods without a Docker engine and without a registry of images: buildah, podman and runc, with storage,
//! limits and settings of their own, and bases made of Debian's packages.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    redis::is_root,
    shell::{exists, step},
};

/// Cgroups are made by runc itself, since no systemd is asked; limits are those that any machine gives.
const SETTINGS: &str = "[containers]\ndefault_ulimits = [\"nofile=20000:20000\", \"nproc=4096:4096\"]\n[engine]\nruntime = \"runc\"\n\
                        cgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n";
/// What is called, and the package that brings it.
const TOOLS: [(&str, &str); 6] = [
    ("podman", "podman"),
    ("buildah", "buildah"),
    ("runc", "runc"),
    ("conmon", "conmon"),
    ("catatonit", "catatonit"),
    ("mmdebstrap", "mmdebstrap"),
];
const RELEASE: &str = "bookworm";

pub(crate) struct Oci {
    folder: PathBuf,
}

impl Oci {
    /// Storage below `target`; tools that this machine lacks are installed where that can be done.
    pub(crate) fn open(target: &Path) -> Result<Self> {
        ensure!(is_root(), "images are built and run as root here: namespaces and cgroups are made for them");
        let missing: Vec<_> =
            TOOLS.iter().filter(|(tool, _)| !exists(tool, &["--version"])).map(|(_, package)| *package).collect();
        if !missing.is_empty() {
            let mut update = Command::new("apt-get");
            update.args(["update", "-qq"]);
            let mut install = Command::new("apt-get");
            install.args(["install", "-y", "-qq", "--no-install-recommends"]).args(&missing);
            step("package lists", update)
                .and_then(|()| step("deployment: podman and buildah", install))
                .with_context(|| format!("missing: {}", missing.join(", ")))?;
        }
        let folder = target.join("deploy-oci");
        fs::create_dir_all(folder.join("tmp"))?;
        fs::write(folder.join("containers.conf"), SETTINGS)?;
        Ok(Self { folder })
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn with_storage(&self, mut command: Command) -> Command {
        command.arg("--root").arg(self.folder.join("root")).arg("--runroot").arg(self.folder.join("run"));
        command.args(["--storage-driver", "overlay"]);
        command.env("TMPDIR", self.folder.join("tmp")).env("CONTAINERS_CONF", self.folder.join("containers.conf"));
        command.stdin(Stdio::null());
        command
    }

    pub(crate) fn podman(&self) -> Command {
        self.with_storage(Command::new("podman"))
    }

    /// In a network namespace; `ip netns exec` would hide the cgroups.
    pub(crate) fn podman_in(&self, namespace: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{namespace}")).arg("podman");
        self.with_storage(command)
    }

    pub(crate) fn buildah(&self) -> Command {
        self.with_storage(Command::new("buildah"))
    }

    /// Images that later ones of the same name have replaced, of this storage only.
    pub(crate) fn prune(&self) -> Result<()> {
        self.asked(&["image", "prune", "--force"]).map(drop)
    }

    /// What podman answers.
    pub(crate) fn asked(&self, arguments: &[&str]) -> Result<String> {
        told(self.podman().args(arguments))
    }

    /// An image of these packages of Debian and nothing else, made once: no shell unless one of them wants it.
    pub(crate) fn base(&self, name: &str, packages: &str) -> Result<()> {
        let archive = self.folder.join(format!("{}.tar", name.replace(['/', ':'], "-")));
        if !archive.exists() {
            let partial = archive.with_extension("partial.tar");
            let mut make = Command::new("mmdebstrap");
            make.args(["--quiet", "--variant=extract", &format!("--include={packages}")]);
            // What packages would do when they are configured: names are looked for in /etc/hosts first.
            make.arg("--customize-hook=echo 'hosts: files dns' > \"$1/etc/nsswitch.conf\"").arg(RELEASE).arg(&partial);
            step(&format!("deployment: {name}, of {packages}"), make)?;
            fs::rename(partial, &archive)?;
        }
        self.import(name, &archive)
    }

    pub(crate) fn import(&self, name: &str, archive: &Path) -> Result<()> {
        let path = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        told(self.podman().args(["import", "--quiet", "--change", path]).arg(archive).arg(name)).map(drop)
    }

    /// Bytes of an image.
    pub(crate) fn size(&self, image: &str) -> Result<u64> {
        Ok(self.asked(&["image", "inspect", "--format", "{{.Size}}", image])?.trim().parse()?)
    }

    pub(crate) fn inspect(&self, what: &[&str]) -> Result<Value> {
        let answer: Value = serde_json::from_str(&self.asked(what)?)?;
        Ok(answer[0].clone())
    }
}

/// What a command printed, or why it failed.
pub(crate) fn told(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?} cannot be started"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
