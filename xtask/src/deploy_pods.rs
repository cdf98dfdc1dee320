//! The pods of the manifests, run: overlay `single` as kustomize renders it, each pod in a network namespace of its own that
//! stands for its network, `podman play kube` in the place of a kubelet. A meeting is spoken through them, in clear and with
//! certificates, and each ends in good order on SIGTERM.
//!
//! What has no pods (services, policies, budgets) and what a kubelet does (probes in time, preStop) is not part of this:
//! names are lines of `/etc/hosts`, and probes are asked here.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use hearsay_models::{ModelStore, Silent};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::{Value, json};

use crate::{
    check::target,
    deploy::Tools,
    deploy_k8s as k8s,
    deploy_oci::{Oci, told},
};

const REDIS: &str = "docker.io/library/redis:7.2";
/// Debian's, which knows the same arguments.
const REDIS_PACKAGES: &str = "redis-server,redis-tools";
/// What the manifests take URLs and secrets from.
const SECRET: &str = "hearsay";
/// In the order they are started; the last octet of an address is the place here.
const PODS: [&str; 3] = ["hearsay-redis", "hearsay-recognizer", "hearsay-gateway"];
const NETWORK: &str = "10.86.0";
const READY_WITHIN: Duration = Duration::from_secs(60);
/// What is said in the recording, without case and punctuation.
const SAID: &str = "ever tried ever failed no matter try again fail again fail better";

pub(crate) fn run(oci: &Oci) -> Result<()> {
    oci.base(REDIS, REDIS_PACKAGES)?;
    let tools = Tools::find(&target())?;
    secret(oci)?;
    meeting(oci, &tools, None)?;
    meeting(oci, &tools, Some(&authority()?))
}

fn meeting(oci: &Oci, tools: &Tools, certificates: Option<&Certificates>) -> Result<()> {
    let what = if certificates.is_some() { "with certificates" } else { "in clear" };
    let folder = oci.folder().join("pods");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    let components: &[&str] = if certificates.is_some() { &["mtls"] } else { &[] };
    let objects = k8s::parse(&tools.beside("pods", "overlays/single", components)?)?;

    let hosts = folder.join("hosts");
    let lines = PODS.iter().enumerate().map(|(place, name)| format!("{} {name}\n", address(place)));
    fs::write(&hosts, lines.collect::<String>() + "127.0.0.1 localhost\n")?;

    let mut network = Network::up()?;
    let mut pods = Vec::new();
    for name in PODS {
        let namespace = network.host()?;
        let file = folder.join(format!("{name}.yaml"));
        let documents = documents(&objects, name, &hosts, certificates)?;
        let text: Vec<_> = documents.iter().map(Value::to_string).collect();
        fs::write(&file, text.join("\n---\n"))?;
        let mut play = oci.podman_in(&namespace);
        play.args(["play", "kube", "--network", "host", "--no-hosts", "--quiet"]).arg(&file);
        // Its own container, and everything else of the file, goes with this.
        let mut pod = Pod { oci, name, file, namespace, container: String::new() };
        told(&mut play)?;
        let containers = oci.asked(&["ps", "--all", "--format", "{{.Names}} {{.IsInfra}}"])?;
        let mut ours = containers.lines().filter(|line| line.starts_with(&format!("{name}-pod")));
        let container = ours.find_map(|line| line.strip_suffix(" false"));
        pod.container = container.with_context(|| format!("{name} has no container:\n{containers}"))?.to_owned();
        pods.push(pod);
    }
    for pod in &pods {
        pod.probe(&objects)?;
    }
    println!("== pods, {what}: all probes of the manifests are answered");

    let recordings = ModelStore::open(hearsay_models::cache_folder()?).recordings(&mut Silent)?;
    let client = network.host()?;
    let mut speak = Command::new("nsenter");
    speak.arg(format!("--net=/run/netns/{client}")).arg(target().join("debug/hearsay"));
    speak.args(["transcribe", "--meeting", "pods", "--url", &format!("http://{NETWORK}.3:8080")]);
    speak.args(["--app-id", "demo", "--app-secret", "demo"]).arg(&recordings.beckett).stdin(Stdio::null());
    let words = words(&told(&mut speak)?);
    ensure!(words == SAID, "what was said came back as {words:?}");
    println!("== pods, {what}: a meeting is heard through them: {words}");

    // Kubernetes' order of events: SIGTERM, and at the end of the grace period SIGKILL.
    for pod in pods.iter().rev() {
        let workload = workload(&objects, pod.name)?;
        let spec = &workload["spec"]["template"]["spec"];
        let grace = spec["terminationGracePeriodSeconds"].as_u64().context("no grace period")?;
        let begun = Instant::now();
        oci.asked(&["stop", "--time", &grace.to_string(), &pod.container])?;
        let state = oci.inspect(&["container", "inspect", &pod.container])?["State"].clone();
        ensure!(state["ExitCode"] == 0 && state["OOMKilled"] == json!(false), "{}: {state}\n{}", pod.name, pod.logs()?);
        println!("== pods, {what}: {} ends with 0 after {:.1} s of {grace}", pod.name, begun.elapsed().as_secs_f64());
    }
    Ok(())
}

fn workload<'a>(objects: &'a [Value], name: &str) -> Result<&'a Value> {
    let mut found = objects.iter().filter(|object| {
        matches!(object["kind"].as_str(), Some("Deployment" | "StatefulSet")) && object["metadata"]["name"] == name
    });
    found.next().with_context(|| format!("no workload {name}"))
}

/// What podman is given of a workload: the manifests' object, where names lead, and what it refers to.
fn documents(objects: &[Value], name: &str, hosts: &Path, certificates: Option<&Certificates>) -> Result<Vec<Value>> {
    let mut workload = workload(objects, name)?.clone();
    let is_set = workload["kind"] == "StatefulSet";
    let claims = workload["spec"]["volumeClaimTemplates"].take();
    let template = &mut workload["spec"]["template"];
    // A kubelet's: ports are names for probes, and probes are asked here.
    for container in template["spec"]["containers"].as_array_mut().into_iter().flatten() {
        for key in ["ports", "startupProbe", "livenessProbe", "readinessProbe", "lifecycle"] {
            container.as_object_mut().context("a container is no object")?.remove(key);
        }
        // Built into Redis' own image.
        if container["image"] == "redis:7.2"
            && let Some(arguments) = container["args"].as_array_mut()
        {
            arguments.extend([json!("--protected-mode"), json!("no")]);
        }
        // Names of services: what a cluster's DNS would answer.
        let mount = json!({"name": "hosts", "mountPath": "/etc/hosts", "readOnly": true});
        match container["volumeMounts"].as_array_mut() {
            Some(mounts) => mounts.push(mount),
            None => container["volumeMounts"] = json!([mount]),
        }
    }
    let mut documents = Vec::new();
    // Podman knows no StatefulSets: the claims are of the pod. Nor fsGroup: the volume says whose it is.
    for claim in claims.as_array().into_iter().flatten() {
        let volume = format!("{name}-{}", claim["metadata"]["name"].as_str().unwrap_or_default());
        let owner = template["spec"]["securityContext"]["fsGroup"].to_string();
        documents.push(json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": claim["spec"],
            "metadata": {"name": volume, "annotations": {"volume.podman.io/uid": owner, "volume.podman.io/gid": owner}},
        }));
        let claimed = json!({"name": claim["metadata"]["name"], "persistentVolumeClaim": {"claimName": volume}});
        match template["spec"]["volumes"].as_array_mut() {
            Some(volumes) => volumes.push(claimed),
            None => template["spec"]["volumes"] = json!([claimed]),
        }
    }
    let hosts_file = json!({"name": "hosts", "hostPath": {"path": hosts, "type": "File"}});
    match template["spec"]["volumes"].as_array_mut() {
        Some(volumes) => volumes.push(hosts_file),
        None => template["spec"]["volumes"] = json!([hosts_file]),
    }
    documents.extend(objects.iter().filter(|object| object["kind"] == "ConfigMap").cloned());
    for volume in template["spec"]["volumes"].as_array_mut().into_iter().flatten() {
        let Some(named) = volume["secret"]["secretName"].as_str().map(str::to_owned) else { continue };
        let files = certificates.and_then(|made| made.get(&named)).with_context(|| format!("no secret {named}"))?;
        // Nor does this podman mount secrets: the same files are there, out of a ConfigMap.
        *volume = json!({"name": volume["name"], "configMap": {"name": named}});
        documents.push(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": named}, "data": files}));
    }
    let pod = if is_set {
        let mut pod = template.take();
        pod["apiVersion"] = json!("v1");
        pod["kind"] = json!("Pod");
        pod["metadata"]["name"] = json!(format!("{name}-pod"));
        pod
    } else {
        workload
    };
    documents.push(pod);
    Ok(documents)
}

/// Files of the secrets that cert-manager would make.
type Certificates = BTreeMap<String, BTreeMap<&'static str, String>>;

fn authority() -> Result<Certificates> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    let mut made = Certificates::new();
    let roles = [
        ("hearsay-gateway", ExtendedKeyUsagePurpose::ClientAuth),
        ("hearsay-recognizer", ExtendedKeyUsagePurpose::ServerAuth),
    ];
    for (name, usage) in roles {
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.extended_key_usages.push(usage);
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &ca)?;
        let files = [("ca.crt", ca.pem()), ("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem())];
        made.insert(format!("{name}-tls"), files.into());
    }
    Ok(made)
}

/// The secret that the manifests refer to, as this podman takes it: an object of values in base64.
fn secret(oci: &Oci) -> Result<()> {
    let values = [
        ("redis-url", "redis://hearsay-redis"),
        ("signing-secret", "0123456789abcdef0123456789abcdef"),
        ("app-id", "demo"),
        ("app-secret", "demo"),
    ];
    let object: BTreeMap<_, _> = values.into_iter().map(|(key, value)| (key, base64(value.as_bytes()))).collect();
    let file = oci.folder().join("secret.json");
    fs::write(&file, serde_json::to_string(&object)?)?;
    let _ = oci.asked(&["secret", "rm", SECRET]);
    told(oci.podman().args(["secret", "create", SECRET]).arg(&file)).map(drop)
}

/// A pod under way, and everything that was made for it.
struct Pod<'a> {
    oci: &'a Oci,
    name: &'static str,
    file: PathBuf,
    namespace: String,
    container: String,
}

impl Pod<'_> {
    /// As a kubelet would: by HTTP, by a connection, or by a command in the container.
    fn probe(&self, objects: &[Value]) -> Result<()> {
        let container = &workload(objects, self.name)?["spec"]["template"]["spec"]["containers"][0];
        let port_of = |port: &Value| {
            let mut ports = container["ports"].as_array().into_iter().flatten();
            ports.find(|known| &known["name"] == port).and_then(|known| known["containerPort"].as_u64())
        };
        let begun = Instant::now();
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let probe = &container[probe];
            let mut ask = if let Some(command) = probe["exec"]["command"].as_array() {
                let mut ask = self.oci.podman_in(&self.namespace);
                ask.args(["exec", &self.container]).args(command.iter().filter_map(Value::as_str));
                ask
            } else if let Some(port) = port_of(&probe["httpGet"]["port"]) {
                let path = probe["httpGet"]["path"].as_str().unwrap_or_default();
                let mut ask = self.inside("curl");
                ask.args(["--silent", "--show-error", "--fail", "--max-time", "2"]);
                ask.arg(format!("http://127.0.0.1:{port}{path}"));
                ask
            } else if let Some(port) = port_of(&probe["tcpSocket"]["port"]) {
                let mut ask = self.inside("python3");
                ask.args(["-c", &format!("import socket; socket.create_connection(('127.0.0.1', {port}), 2)")]);
                ask
            } else {
                continue;
            };
            ask.stdin(Stdio::null());
            while let Err(error) = told(&mut ask) {
                ensure!(begun.elapsed() < READY_WITHIN, "{}: {error}\n{}", self.name, self.logs()?);
                sleep(Duration::from_millis(200));
            }
        }
        Ok(())
    }

    fn logs(&self) -> Result<String> {
        let output = self.oci.podman().args(["logs", "--tail", "50", &self.container]).output()?;
        Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace)).arg(program);
        command
    }
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        let _ = told(self.oci.podman_in(&self.namespace).args(["play", "kube", "--down"]).arg(&self.file));
        // Those of a pod that did not start.
        let _ = self.oci.asked(&["pod", "rm", "--force", "--time", "0", &format!("{}-pod", self.name)]);
        let _ = self.oci.asked(&["volume", "prune", "--force"]);
    }
}

/// Hosts in network namespaces, on a bridge in one of its own: nothing is added to the machine's network.
struct Network {
    bridge: String,
    hosts: Vec<String>,
}

fn address(place: usize) -> String {
    format!("{NETWORK}.{}", place + 1)
}

fn ip(arguments: &str) -> Result<()> {
    told(Command::new("ip").args(arguments.split(' '))).map(drop)
}

impl Network {
    fn up() -> Result<Self> {
        let bridge = format!("hearsay-{}", std::process::id());
        ip(&format!("netns add {bridge}"))?;
        let network = Self { bridge, hosts: Vec::new() };
        ip(&format!("-n {} link add br0 type bridge", network.bridge))?;
        ip(&format!("-n {} link set br0 up", network.bridge))?;
        Ok(network)
    }

    /// One more host, by the name of its namespace.
    fn host(&mut self) -> Result<String> {
        let place = self.hosts.len();
        let (bridge, host) = (self.bridge.clone(), format!("{}-{place}", self.bridge));
        ip(&format!("netns add {host}"))?;
        self.hosts.push(host.clone());
        ip(&format!("-n {host} link add eth0 type veth peer name h{place} netns {bridge}"))?;
        ip(&format!("-n {bridge} link set h{place} master br0 up"))?;
        ip(&format!("-n {host} addr add {}/24 dev eth0", address(place)))?;
        ip(&format!("-n {host} link set eth0 up"))?;
        ip(&format!("-n {host} link set lo up"))?;
        Ok(host)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for namespace in self.hosts.iter().chain([&self.bridge]) {
            let _ = ip(&format!("netns del {namespace}"));
        }
    }
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= three.len() { letter.into() } else { '=' });
        }
    }
    text
}

/// Lines of `transcribe` without times, speakers, case and punctuation.
fn words(lines: &str) -> String {
    let said = lines.lines().map(|line| line.split_once("] ").map_or(line, |(_, rest)| rest));
    let said: String =
        said.map(|line| line.split_once(": ").map_or(line, |(_, text)| text).to_lowercase() + " ").collect();
    let words = said.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_compared_without_times_and_speakers() {
        let lines = "[00:00:01.200] beckett: Ever tried.\n[00:00:03.000] beckett: Ever failed!\n";
        assert_eq!(words(lines), "ever tried ever failed");
    }

    #[test]
    fn values_of_secrets_are_in_base64() {
        assert_eq!([&b"demo"[..], b"a", b"ab", b"abc"].map(base64), ["ZGVtbw==", "YQ==", "YWI=", "YWJj"]);
    }
}
