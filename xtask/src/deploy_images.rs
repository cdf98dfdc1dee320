//! `cargo xtask image-check`: the images of `deploy/Dockerfile` are built and run as they are deployed. A compiler does not
//! run inside of the build: programs compiled as the Dockerfile compiles them stand for the stages that would.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use hearsay_models::ModelStore;

use crate::{
    check::target,
    deploy_oci::{Oci, told},
    deploy_pods,
    shell::{cargo, root, step},
};

/// As Kubernetes knows them where nothing else is said.
pub(crate) const GATEWAY: &str = "localhost/hearsay-gateway:latest";
pub(crate) const RECOGNIZER: &str = "localhost/hearsay-recognizer:latest";
/// The C library and certificates: as little as an image for these programs can have, and no shell.
const BASE: &str = "localhost/hearsay-check-base:bookworm";
const BASE_PACKAGES: &str = "libc6,libgcc-s1,ca-certificates";

/// What an image may have beside its base. The program has 33 MB, without the speech engine 20; the models 108.
const GATEWAY_BYTES: u64 = 26_000_000;
const RECOGNIZER_BYTES: u64 = 160_000_000;

#[derive(Args)]
pub(crate) struct ImageCheck {
    /// A folder with the programs `gateway` (without default features) and `recognizer`, in the place of compiling them.
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,
    /// The images alone, without running the manifests' pods.
    #[arg(long)]
    no_pods: bool,
}

pub(crate) fn run(arguments: &ImageCheck) -> Result<()> {
    let oci = Oci::open(&target())?;
    let programs = match &arguments.programs {
        Some(folder) => folder.clone(),
        None => compile(oci.folder())?,
    };
    oci.base(BASE, BASE_PACKAGES)?;
    let base = oci.size(BASE)?;

    let cache = crate::check::models()?;
    // Those that the program cannot do without; others may lie beside them.
    let needed = ModelStore::open(cache.clone()).list().into_iter().filter(|known| known.item.required());
    let needed: Vec<_> = needed.map(|known| format!("{}-{}-", known.name, known.version)).collect();
    let mut models = Vec::new();
    for entry in fs::read_dir(cache.join("models"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if needed.iter().any(|needed| name.starts_with(needed)) {
            models.push(path);
        }
    }
    for role in ["gateway", "recognizer"] {
        stage(&oci, role, &programs.join(role), if role == "recognizer" { &models } else { &[] })?;
        build(&oci, role)?;
        oci.asked(&["image", "rm", "--force", &staged(role)])?;
    }
    // Each run makes them anew, and would leave those of the run before.
    oci.prune()?;
    for (image, most) in [(GATEWAY, GATEWAY_BYTES), (RECOGNIZER, RECOGNIZER_BYTES)] {
        let size = oci.size(image)?.saturating_sub(base);
        println!("== {image}: {:.1} MB beside a base of {:.1} MB", size as f64 / 1e6, base as f64 / 1e6);
        ensure!(size <= most, "{image} has {size} bytes beside its base, and at most {most} are accepted");
        privileges(&oci, image)?;
    }

    // An edge has no model, and not what runs one; the other has both. Paths of sources stay in a program for its panics.
    let runtime = |role: &str| -> Result<bool> {
        let program = fs::read(programs.join(role))?;
        Ok(program.windows(6).any(|bytes| bytes == b"/rten-"))
    };
    ensure!(!runtime("gateway")?, "the gateway's program has the models' runtime in it");
    ensure!(runtime("recognizer")?, "the recognizer's program has no runtime of models that this check would find");
    let listed = |image: &str| {
        let mut list = oci.podman();
        list.args(confined(image)).args(["models", "list"]);
        told(&mut list)
    };
    let there = listed(RECOGNIZER)?;
    ensure!(there.contains("moonshine") && !there.contains("missing"), "the recognizer's image lacks models:\n{there}");
    println!("== images: both are built, small, without root, and run on a root that cannot be written");
    if arguments.no_pods { Ok(()) } else { deploy_pods::run(&oci) }
}

/// Both, as the Dockerfile does it.
fn compile(folder: &Path) -> Result<PathBuf> {
    let programs = folder.join("programs");
    fs::create_dir_all(&programs)?;
    for (role, features) in [("gateway", &["--no-default-features"][..]), ("recognizer", &[])] {
        let mut build = cargo(&["build", "--locked", "--profile", "dist", "--package", "hearsay"]);
        step(&format!("deployment: the {role}'s program"), {
            build.args(features);
            build
        })?;
        fs::copy(target().join("dist/hearsay"), programs.join(role))?;
    }
    Ok(programs)
}

/// An image that has what a stage of the Dockerfile would leave.
fn stage(oci: &Oci, role: &str, program: &Path, models: &[PathBuf]) -> Result<()> {
    let folder = oci.folder().join("stage");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("out"))?;
    fs::create_dir_all(folder.join("etc/ssl/certs"))?;
    fs::copy(program, folder.join("out/hearsay")).with_context(|| program.display().to_string())?;
    let certificates = "etc/ssl/certs/ca-certificates.crt";
    fs::copy(Path::new("/").join(certificates), folder.join(certificates)).context("certificates of authorities")?;
    if !models.is_empty() {
        // As `models fetch` leaves them in an empty cache.
        let cache = folder.join("models/models");
        fs::create_dir_all(&cache)?;
        told(Command::new("cp").arg("-r").args(models).arg(&cache))?;
        told(Command::new("chmod").args(["-R", "a+rX"]).arg(folder.join("models")))?;
    }
    let archive = folder.with_extension("tar");
    told(Command::new("tar").arg("-C").arg(&folder).arg("-cf").arg(&archive).arg("."))?;
    oci.import(&staged(role), &archive)
}

fn staged(role: &str) -> String {
    format!("localhost/hearsay-check-{role}:latest")
}

fn build(oci: &Oci, role: &str) -> Result<()> {
    let mut build = oci.buildah();
    build.args(["bud", "--isolation", "chroot", "--format", "docker", "--pull-never", "--quiet"]);
    build.args(["--build-arg", &format!("BASE={BASE}"), "--build-arg", &format!("RUST={BASE}")]);
    let mut stages = vec![format!("build-{role}")];
    if role == "recognizer" {
        stages.push("models".to_owned());
    }
    for stage in stages {
        build.args(["--build-context", &format!("{stage}=container-image://{}", staged(role))]);
    }
    build.args(["--target", role, "--tag", &format!("localhost/hearsay-{role}:latest"), "--file"]);
    build.arg(root().join("deploy/Dockerfile")).arg(root());
    step(&format!("deployment: the {role}'s image"), build)
}

/// As the manifests run them: no network is needed to say what the configuration is.
fn confined(image: &str) -> Vec<&str> {
    let mut arguments = vec!["run", "--rm", "--network", "none", "--read-only", "--cap-drop", "ALL"];
    arguments.extend(["--security-opt", "no-new-privileges", "--memory", "128m", image]);
    arguments
}

fn privileges(oci: &Oci, image: &str) -> Result<()> {
    let about = oci.inspect(&["image", "inspect", image])?;
    ensure!(about["Config"]["User"] == "65532:65532", "{image} runs as {}", about["Config"]["User"]);
    let mut check = oci.podman();
    check.args(confined(image)).args(["config", "check"]);
    let config = told(&mut check)?;
    ensure!(config.contains("listen = \"0.0.0.0:9090\""), "{image}: operators reach nothing:\n{config}");
    Ok(())
}
