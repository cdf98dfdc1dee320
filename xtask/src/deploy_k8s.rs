//! Whether manifests agree with themselves and with the program: what a schema cannot know.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize as _;
use serde_json::{Value, json};

/// Objects of one rendered overlay.
pub(crate) type Objects = Vec<Value>;

/// Answers the configuration in force for a file and an environment, or what is wrong with them.
pub(crate) type Effective<'a> = dyn Fn(&str, &BTreeMap<String, String>) -> Result<toml::Table, String> + 'a;

/// Between the end of a drain and the end of a pod's grace, for the process to be gone.
const SLACK: f64 = 5.0;

pub(crate) fn parse(yaml: &str) -> Result<Objects> {
    let documents = serde_yaml_ng::Deserializer::from_str(yaml);
    documents.map(|document| Value::deserialize(document).context("no YAML")).collect()
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().unwrap_or_default()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}

fn of_kind<'a>(objects: &'a [Value], wanted: &'a [&str]) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| wanted.contains(&kind(object)))
}

const WORKLOADS: &[&str] = &["Deployment", "StatefulSet", "Job"];

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn containers(workload: &Value) -> &[Value] {
    list(&workload["spec"]["template"]["spec"]["containers"])
}

fn labels(workload: &Value) -> &Value {
    &workload["spec"]["template"]["metadata"]["labels"]
}

/// Whether a selector's labels are among these. One that selects everything matches, too.
fn selects(selector: &Value, labels: &Value) -> bool {
    let exact = selector.as_object().is_none_or(|wanted| wanted.iter().all(|(key, value)| &labels[key] == value));
    exact && !labels.is_null()
}

/// Of a label selector: `matchLabels` and `matchExpressions` with `In`.
fn matches(selector: &Value, labels: &Value) -> bool {
    selects(&selector["matchLabels"], labels)
        && list(&selector["matchExpressions"]).iter().all(|rule| {
            rule["operator"] == "In"
                && list(&rule["values"]).contains(&labels[rule["key"].as_str().unwrap_or_default()])
        })
}

fn port_of(workload: &Value, wanted: &Value) -> bool {
    let ports = containers(workload).iter().flat_map(|container| list(&container["ports"]));
    let mut ports = ports.filter(|port| &port["name"] == wanted || &port["containerPort"] == wanted);
    ports.next().is_some()
}

/// Everything that is wrong with the objects of an overlay.
pub(crate) fn faults(objects: &[Value], effective: &Effective<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    let workloads: Vec<_> = of_kind(objects, WORKLOADS).collect();
    let selected = |selector: &Value| -> Vec<&Value> {
        workloads.iter().copied().filter(|workload| matches(selector, labels(workload))).collect()
    };
    let mut fault = |object: &Value, what: String| faults.push(format!("{} {}: {what}", kind(object), name(object)));

    for workload in &workloads {
        let spec = &workload["spec"]["template"]["spec"];
        let selector = &workload["spec"]["selector"];
        if kind(workload) != "Job" && !matches(selector, labels(workload)) {
            fault(workload, format!("its selector {selector} does not match its pods"));
        }
        for spread in list(&spec["topologySpreadConstraints"]) {
            if !matches(&spread["labelSelector"], labels(workload)) {
                fault(workload, format!("spreads other pods: {}", spread["labelSelector"]));
            }
        }
        let volumes: BTreeSet<_> = list(&spec["volumes"])
            .iter()
            .chain(list(&workload["spec"]["volumeClaimTemplates"]))
            .filter_map(|volume| volume["name"].as_str().or(volume["metadata"]["name"].as_str()))
            .collect();
        for volume in list(&spec["volumes"]) {
            let map = volume["configMap"]["name"].as_str();
            if map.is_some_and(|map| !of_kind(objects, &["ConfigMap"]).any(|object| name(object) == map)) {
                fault(workload, format!("no ConfigMap {}", volume["configMap"]["name"]));
            }
        }
        if spec["securityContext"]["runAsNonRoot"] != json!(true) {
            fault(workload, "may run as root".to_owned());
        }
        for container in containers(workload) {
            let context = &container["securityContext"];
            if context["readOnlyRootFilesystem"] != json!(true)
                || context["allowPrivilegeEscalation"] != json!(false)
                || context["capabilities"]["drop"] != json!(["ALL"])
            {
                fault(workload, "has privileges it does not need".to_owned());
            }
            let resources = &container["resources"];
            if resources["requests"]["cpu"].is_null()
                || resources["requests"]["memory"].is_null()
                || resources["limits"]["memory"].is_null()
            {
                fault(workload, "requests and a memory limit are missing".to_owned());
            }
            for mount in list(&container["volumeMounts"]) {
                if !mount["name"].as_str().is_some_and(|name| volumes.contains(name)) {
                    fault(workload, format!("mounts a volume that is not there: {}", mount["name"]));
                }
            }
            for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
                for port in [&container[probe]["httpGet"]["port"], &container[probe]["tcpSocket"]["port"]] {
                    if !port.is_null() && !port_of(workload, port) {
                        fault(workload, format!("{probe} asks port {port}, which it does not have"));
                    }
                }
            }
        }
    }

    for service in of_kind(objects, &["Service"]) {
        let behind: Vec<_> =
            workloads.iter().filter(|workload| selects(&service["spec"]["selector"], labels(workload))).collect();
        if behind.is_empty() {
            fault(service, format!("selects no pods: {}", service["spec"]["selector"]));
        }
        for port in list(&service["spec"]["ports"]) {
            if behind.iter().any(|workload| !port_of(workload, &port["targetPort"])) {
                fault(service, format!("leads to port {}, which its pods do not have", port["targetPort"]));
            }
        }
    }
    let service_port = |wanted: &str, port: &Value| {
        of_kind(objects, &["Service"]).any(|service| {
            let ports = list(&service["spec"]["ports"]);
            name(service) == wanted && ports.iter().any(|found| &found["port"] == port || &found["name"] == port)
        })
    };

    let replicas = |workload: &Value| -> u64 {
        let scaled = of_kind(objects, &["HorizontalPodAutoscaler"])
            .find(|scaler| scaler["spec"]["scaleTargetRef"]["name"] == workload["metadata"]["name"]);
        let least = scaled.map_or(&workload["spec"]["replicas"], |scaler| &scaler["spec"]["minReplicas"]);
        least.as_u64().unwrap_or(1)
    };
    for budget in of_kind(objects, &["PodDisruptionBudget"]) {
        let pods = selected(&budget["spec"]["selector"]);
        if pods.is_empty() {
            fault(budget, "guards no pods".to_owned());
        }
        for workload in pods {
            let have = replicas(workload);
            let may_go = budget["spec"]["maxUnavailable"].as_u64();
            let may_go = may_go.or_else(|| have.checked_sub(budget["spec"]["minAvailable"].as_u64()?));
            if !may_go.is_some_and(|may_go| may_go >= 1 && may_go < have) {
                fault(budget, format!("{may_go:?} of {have} may go: at least one, and fewer than all, is accepted"));
            }
        }
    }
    for scaler in of_kind(objects, &["HorizontalPodAutoscaler"]) {
        let target = &scaler["spec"]["scaleTargetRef"];
        let found = workloads
            .iter()
            .find(|workload| workload["kind"] == target["kind"] && workload["metadata"]["name"] == target["name"]);
        match found {
            None => fault(scaler, format!("scales nothing: {target}")),
            Some(workload) if !workload["spec"]["replicas"].is_null() => {
                fault(scaler, "its target has replicas, which each deployment would reset".to_owned());
            }
            Some(_) => {}
        }
    }

    for policy in of_kind(objects, &["NetworkPolicy"]) {
        let own = selected(&policy["spec"]["podSelector"]);
        if own.is_empty() {
            fault(policy, "is for no pods".to_owned());
        }
        for (rules, far) in [("ingress", "from"), ("egress", "to")] {
            for rule in list(&policy["spec"][rules]) {
                let mut others = Vec::new();
                for peer in list(&rule[far]) {
                    if peer["namespaceSelector"].is_null() {
                        let found = selected(&peer["podSelector"]);
                        // The log may be elsewhere.
                        if found.is_empty()
                            && peer["podSelector"]["matchLabels"]["app.kubernetes.io/name"] != "hearsay-redis"
                        {
                            fault(policy, format!("{rules} names pods that are not there: {}", peer["podSelector"]));
                        }
                        others.extend(found);
                    }
                }
                let open = if rules == "ingress" { &own } else { &others };
                for port in list(&rule["ports"]) {
                    if port["port"].is_string() && open.iter().any(|workload| !port_of(workload, &port["port"])) {
                        fault(policy, format!("{rules} port {} is none of the pods'", port["port"]));
                    }
                }
            }
        }
    }
    for ingress in of_kind(objects, &["Ingress"]) {
        for rule in list(&ingress["spec"]["rules"]) {
            for path in list(&rule["http"]["paths"]) {
                let backend = &path["backend"]["service"];
                let port = if backend["port"]["name"].is_null() {
                    &backend["port"]["number"]
                } else {
                    &backend["port"]["name"]
                };
                if !service_port(backend["name"].as_str().unwrap_or_default(), port) {
                    fault(ingress, format!("leads to no service: {backend}"));
                }
            }
        }
    }
    for route in of_kind(objects, &["HTTPRoute"]) {
        for backend in list(&route["spec"]["rules"]).iter().flat_map(|rule| list(&rule["backendRefs"])) {
            if !service_port(backend["name"].as_str().unwrap_or_default(), &backend["port"]) {
                fault(route, format!("leads to no service: {backend}"));
            }
        }
    }
    for monitor in of_kind(objects, &["PodMonitor"]) {
        let pods = selected(&monitor["spec"]["selector"]);
        for endpoint in list(&monitor["spec"]["podMetricsEndpoints"]) {
            if pods.len() < 2 || pods.iter().any(|workload| !port_of(workload, &endpoint["port"])) {
                fault(monitor, format!("port {} is not that of gateways and recognizers", endpoint["port"]));
            }
        }
    }

    // What the program says to its configuration, and what the manifests say of it.
    for workload in of_kind(objects, &["Deployment"]) {
        for container in containers(workload) {
            let arguments: Vec<_> = list(&container["args"]).iter().filter_map(Value::as_str).collect();
            let Some(&role @ ("gateway" | "recognizer" | "actions")) = arguments.first() else { continue };
            let spec = &workload["spec"]["template"]["spec"];
            let file = list(&spec["volumes"]).iter().find_map(|volume| {
                let map = volume["configMap"]["name"].as_str()?;
                let map = of_kind(objects, &["ConfigMap"]).find(|object| name(object) == map)?;
                map["data"]["hearsay.toml"].as_str()
            });
            let mut environment = BTreeMap::new();
            for variable in list(&container["env"]) {
                let key = variable["name"].as_str().unwrap_or_default().to_owned();
                let secret = &variable["valueFrom"]["secretKeyRef"];
                let value = match variable["value"].as_str() {
                    Some(value) => value.to_owned(),
                    None if key == "HEARSAY__BUS__URL" => "redis+cluster://x".to_owned(),
                    None => "s".repeat(64),
                };
                if variable["value"].is_null() && secret["name"] != "hearsay" {
                    fault(workload, format!("{key} comes from nowhere"));
                }
                environment.insert(key, value);
            }
            let config = match effective(file.unwrap_or_default(), &environment) {
                Ok(config) => config,
                Err(error) => {
                    fault(workload, error);
                    continue;
                }
            };
            let text = |section: &str, key: &str| {
                let value = config.get(section).and_then(|section| section.get(key));
                value.and_then(toml::Value::as_str).unwrap_or_default().to_owned()
            };
            let own = match role {
                "gateway" => Some(("http", text(role, "listen"))),
                "recognizer" => Some(("grpc", text(role, "listen"))),
                _ => None,
            };
            for (wanted, listen) in own.into_iter().chain([("admin", text("admin", "listen"))]) {
                let ports = list(&container["ports"]).iter();
                let mut ports =
                    ports.filter(|port| port["name"] == wanted).filter_map(|port| port["containerPort"].as_u64());
                let said = ports.next();
                let does = listen.strip_prefix("0.0.0.0:").and_then(|port| port.parse().ok());
                if said != does || said.is_none() {
                    fault(workload, format!("port {wanted} is {said:?}, and the program listens on {listen}"));
                }
            }
            let drain = text("process", "drain_deadline");
            let seconds = drain.strip_suffix('s').and_then(|drain| drain.parse::<f64>().ok()).unwrap_or(f64::INFINITY);
            let wait = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_f64().unwrap_or_default();
            let grace = spec["terminationGracePeriodSeconds"].as_f64().unwrap_or(30.0);
            if grace < seconds + wait + SLACK {
                fault(workload, format!("grace {grace} s is below preStop {wait} s, drain {drain} and {SLACK} s"));
            }
            if role == "gateway" {
                let recognizers =
                    config.get("uplink").and_then(|uplink| uplink.get("recognizers")).and_then(toml::Value::as_array);
                for address in recognizers.into_iter().flatten().filter_map(toml::Value::as_str) {
                    let host = address.split_once("://").map_or(address, |(_, host)| host);
                    let (host, port) = host.split_once(':').unwrap_or((host, ""));
                    if !service_port(host, &json!(port.parse::<u64>().unwrap_or_default())) {
                        fault(workload, format!("uplink.recognizers: {address} is no service"));
                    }
                }
            }
        }
    }
    faults
}

/// One thing broken at a time, each of which must be found: a check that finds nothing says nothing.
pub(crate) fn prove(objects: &[Value], effective: &Effective<'_>) -> Result<usize> {
    type Break = (&'static str, &'static str, &'static str, Value);
    let broken: &[Break] = &[
        ("Deployment", "hearsay-gateway", "/spec/template/metadata/labels/app.kubernetes.io~1name", json!("other")),
        ("Deployment", "hearsay-gateway", "/spec/template/spec/terminationGracePeriodSeconds", json!(30)),
        ("Deployment", "hearsay-gateway", "/spec/template/spec/containers/0/ports/0/containerPort", json!(8081)),
        (
            "Deployment",
            "hearsay-recognizer",
            "/spec/template/spec/containers/0/readinessProbe/httpGet/port",
            json!("adm"),
        ),
        ("Deployment", "hearsay-recognizer", "/spec/template/spec/volumes/0/configMap/name", json!("other")),
        ("Deployment", "hearsay-recognizer", "/spec/template/spec/containers/0/env/0/name", json!("HEARSAY__BUS__ULR")),
        ("Deployment", "hearsay-recognizer", "/spec/template/spec/containers/0/resources/limits", json!({})),
        ("Deployment", "hearsay-recognizer", "/spec/template/spec/securityContext/runAsNonRoot", json!(false)),
        ("Service", "hearsay-gateway", "/spec/ports/0/targetPort", json!("web")),
        ("Service", "hearsay-recognizer", "/spec/selector/app.kubernetes.io~1name", json!("hearsay-recogniser")),
        ("Service", "hearsay-recognizer", "/spec/ports/0/port", json!(50052)),
        ("PodDisruptionBudget", "hearsay-gateway", "/spec/maxUnavailable", json!(3)),
        ("PodDisruptionBudget", "hearsay-recognizer", "/spec/maxUnavailable", json!(0)),
        ("HorizontalPodAutoscaler", "hearsay-gateway", "/spec/scaleTargetRef/name", json!("gateway")),
        ("NetworkPolicy", "hearsay-recognizer", "/spec/ingress/0/ports/0/port", json!("http")),
        (
            "NetworkPolicy",
            "hearsay-gateway",
            "/spec/egress/0/to/0/podSelector/matchLabels/app.kubernetes.io~1name",
            json!("x"),
        ),
        ("PodMonitor", "hearsay", "/spec/podMetricsEndpoints/0/port", json!("metrics")),
    ];
    for (of, named, pointer, value) in broken {
        let mut objects = objects.to_vec();
        let object = objects.iter_mut().find(|object| kind(object) == *of && name(object) == *named);
        let place = object.and_then(|object| object.pointer_mut(pointer));
        *place.with_context(|| format!("nothing to break at {of} {named} {pointer}"))? = value.clone();
        ensure!(!faults(&objects, effective).is_empty(), "{of} {named}: {pointer} = {value} is not found to be wrong");
    }
    Ok(broken.len())
}

/// Asks the program itself.
pub(crate) fn effective(
    binary: &Path,
    file: &str,
    environment: &BTreeMap<String, String>,
) -> Result<toml::Table, String> {
    let path = std::env::temp_dir().join(format!("hearsay-deploy-check-{}.toml", std::process::id()));
    std::fs::write(&path, file).map_err(|error| error.to_string())?;
    let output = Command::new(binary).args(["config", "check", "--config"]).arg(&path).envs(environment).output();
    let _ = std::fs::remove_file(&path);
    let output = output.map_err(|error| format!("{}: {error}", binary.display()))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    toml::from_str(&String::from_utf8_lossy(&output.stdout)).map_err(|error| error.to_string())
}
