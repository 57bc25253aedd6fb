//! `run`: a pod of one container, as docker's run makes one.

mod parts;

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use flintd::api::client::{Client, Target};
use flintd::api::{Action, Attach, PodView};
use flintd::desired::Key;
use flintd::observed::{ContainerState, Phase};
use flintd::scheduler::LogRequest;
use serde_json::{Value, json};

use crate::command::{FAILURE, Session, print, shown};
use crate::control::Removal;
use crate::detaching::DetachKeys;
use crate::session::{Carriage, End, carry, variables};
use crate::terminal;
use crate::values::{bytes, milli_cpus, plain};
use crate::{applying, control, logs, waiting};

use parts::{Port, Volume};

/// The name of the one container.
const CONTAINER: &str = "main";

/// docker's status for a container that could not be started.
const NOT_STARTED: u8 = 125;

/// Run an image in a pod of its own
///
/// Without -i, -t, --attach or --rm the pod's name is printed and the pod goes on by itself. With one of them its output is shown, and
/// flintctl ends with its status. `flintctl run --dry-run` prints the manifest, for a file.
#[derive(Args)]
#[allow(
    clippy::struct_excessive_bools,
    clippy::struct_field_names,
    reason = "each is an option of its own, under its name"
)]
pub(crate) struct Run {
    /// The image's name
    image: String,
    /// Arguments in place of the image's command
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
    /// The pod's name [default: of the image, and some letters]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A program in place of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// A port: [ADDRESS:]HOST:POD[/udp]
    #[arg(long, short, value_name = "PORT", value_parser = Port::parse)]
    publish: Vec<Port>,
    /// A variable, NAME=VALUE, or NAME for the caller's own
    #[arg(long, short, value_name = "VARIABLE")]
    env: Vec<String>,
    /// A folder of the host or a named volume: SOURCE:DESTINATION[:ro]
    #[arg(long, short, value_name = "VOLUME", value_parser = Volume::parse)]
    volume: Vec<Volume>,
    /// USER[:GROUP] as numbers, in place of the image's
    #[arg(long, short, value_name = "USER")]
    user: Option<String>,
    /// The working directory in place of the image's
    #[arg(long, short, value_name = "PATH")]
    workdir: Option<String>,
    /// The limit of memory: bytes, or with k, m, g
    #[arg(long, short, value_name = "SIZE", value_parser = bytes)]
    memory: Option<u64>,
    /// The limit of CPU time, in CPUs
    #[arg(long, value_name = "NUMBER", value_parser = milli_cpus)]
    cpus: Option<u64>,
    /// When it is started again after its end [default: always; no with -i, -t, --attach or --rm]
    #[arg(long, value_enum, value_name = "POLICY")]
    restart: Option<Restart>,
    /// The host's network
    #[arg(long)]
    host_network: bool,
    /// All rights on the host
    #[arg(long)]
    privileged: bool,
    /// Hand on standard input
    #[arg(long = "stdin", short = 'i')]
    stdin: bool,
    /// Give it a terminal
    #[arg(long, short)]
    tty: bool,
    /// The keys that leave it, with -it
    #[arg(long, value_name = "KEYS", default_value_t)]
    detach_keys: DetachKeys,
    /// Show its output
    #[arg(long, short)]
    attach: bool,
    /// Remove the pod after its end
    #[arg(long)]
    rm: bool,
    /// Print the manifest, and do nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Restart {
    /// Never
    No,
    /// When it ended with another status than 0
    OnFailure,
    /// Always
    Always,
}

impl Run {
    fn is_shown(&self) -> bool {
        self.stdin || self.tty || self.attach || self.rm
    }

    pub(crate) async fn run(self, session: &Session) -> Result<u8> {
        if self.tty && self.stdin && !terminal::has_keyboard() {
            bail!("standard input is no terminal: leave -t out");
        }
        let name = self.name.clone().unwrap_or_else(|| name_of(&self.image));
        let key = session.key(&name);
        let manifest = self.manifest(&key);
        if self.dry_run {
            print(&format!("{}\n", serde_json::to_string_pretty(&manifest)?))?;
            return Ok(0);
        }
        let client = session.client().await?;
        let text = manifest.to_string();
        if applying::one(&client, text.clone(), true).await?.action != Action::Created {
            bail!("there is a pod {} already; remove it first, or take another --name", shown(&key));
        }
        applying::one(&client, text, false).await?;
        if !self.is_shown() {
            print(&format!("{}\n", shown(&key)))?;
            return Ok(0);
        }
        let name = shown(&key);
        let shown = self.show(&client, &key).await;
        let is_left = matches!(shown, Ok(End::Detached | End::Cut));
        if is_left || (!self.rm && matches!(shown, Ok(End::Signal(_)))) {
            eprintln!("flintctl: {name} goes on; `flintctl attach {name}` comes back to it");
        }
        if self.rm && !is_left {
            let removed = control::remove(&client, std::slice::from_ref(&key), None, Removal::Silent).await;
            if let Err(error) = removed {
                eprintln!("flintctl: remove the pod {key}: {error:#}");
            }
        }
        Ok(shown?.status())
    }

    /// Shows the container's output to its end.
    async fn show(&self, client: &Client, key: &Key) -> Result<End> {
        let target = Target { pod: key.clone(), container: Some(CONTAINER.to_owned()) };
        let started = waiting::until(client, None, |pods| pods.get(key).and_then(is_started));
        let started = tokio::select! {
            started = started => started?,
            signal = terminal::ended() => return Ok(End::Signal(signal?)),
        };
        if let Some(Err(why)) = started {
            eprintln!("flintctl: {}", plain(&why));
            return Ok(End::Exited(NOT_STARTED.into()));
        }
        if self.stdin || self.tty {
            // It may have written something by now, or be over: all of it is shown.
            let attach = Attach { stdin: self.stdin, from_start: true };
            let (attached, typist) = client.attach(&target, attach).await?;
            let keys = self.detach_keys.clone();
            let carriage = Carriage { tty: self.tty, stdin: self.stdin, keys, hears_signals: true };
            return carry(attached, typist, carriage).await;
        }
        let wanted = LogRequest { follow: true, ..LogRequest::default() };
        tokio::select! {
            shown = logs::show(client, &target, &wanted, false, false) => shown?,
            signal = terminal::ended() => return Ok(End::Signal(signal?)),
        }
        let status = waiting::until(client, None, |pods| match pods.get(key) {
            Some(view) => exit_status(view),
            None => Some(u32::from(FAILURE)),
        });
        Ok(End::Exited(status.await?.unwrap_or_else(|| FAILURE.into())))
    }

    /// The pod, as a manifest.
    fn manifest(&self, key: &Key) -> Value {
        let restart = self.restart.unwrap_or(if self.is_shown() { Restart::No } else { Restart::Always });
        let mut container = json!({"name": CONTAINER, "image": self.image});
        let mut set = |field: &str, value: Value| container[field] = value;
        if let Some(entrypoint) = &self.entrypoint {
            set("command", json!([entrypoint]));
        }
        if !self.arguments.is_empty() {
            set("args", json!(self.arguments));
        }
        let env: Vec<Value> = variables(&self.env)
            .into_iter()
            // `$(NAME)` is put in by manifests; what is typed here is meant as it is.
            .map(|(name, value)| json!({"name": name, "value": value.replace("$(", "$$(")}))
            .collect();
        if !env.is_empty() {
            set("env", env.into());
        }
        if !self.publish.is_empty() {
            set("ports", self.publish.iter().map(Port::manifest).collect::<Vec<_>>().into());
        }
        if let Some(workdir) = &self.workdir {
            set("workingDir", json!(workdir));
        }
        let mut limits = BTreeMap::new();
        limits.extend(self.memory.map(|memory| ("memory", memory.to_string())));
        limits.extend(self.cpus.map(|cpus| ("cpu", format!("{cpus}m"))));
        if !limits.is_empty() {
            set("resources", json!({"limits": limits}));
        }
        for (field, value) in [("stdin", self.stdin), ("stdinOnce", self.stdin), ("tty", self.tty)] {
            if value {
                set(field, json!(true));
            }
        }
        if let Some(context) = self.security() {
            set("securityContext", context);
        }
        let mut spec = json!({"restartPolicy": match restart {
            Restart::No => "Never",
            Restart::OnFailure => "OnFailure",
            Restart::Always => "Always",
        }});
        if !self.volume.is_empty() {
            let numbered = || self.volume.iter().enumerate();
            set("volumeMounts", numbered().map(|(index, volume)| volume.mount(index)).collect::<Vec<_>>().into());
            spec["volumes"] = numbered().map(|(index, volume)| volume.source(index)).collect::<Vec<_>>().into();
        }
        if self.host_network {
            spec["hostNetwork"] = json!(true);
        }
        spec["containers"] = json!([container]);
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": key.name, "namespace": key.namespace, "labels": {"run": key.name}},
            "spec": spec,
        })
    }

    fn security(&self) -> Option<Value> {
        let mut context = json!({});
        if self.privileged {
            context["privileged"] = json!(true);
        }
        if let Some(user) = &self.user {
            let (user, group) = user.split_once(':').map_or((user.as_str(), None), |(user, group)| (user, Some(group)));
            // What is no number is refused by the node, with the field.
            let number = |text: &str| text.parse::<u32>().map_or_else(|_| json!(text), |number| json!(number));
            context["runAsUser"] = number(user);
            if let Some(group) = group {
                context["runAsGroup"] = number(group);
            }
        }
        context.as_object().is_some_and(|fields| !fields.is_empty()).then_some(context)
    }
}

/// A name of an image's last part and four letters of the clock.
fn name_of(image: &str) -> String {
    let image = image.split(['@']).next().unwrap_or_default();
    let last = image.rsplit('/').next().unwrap_or_default().split(':').next().unwrap_or_default();
    let letters: String =
        last.to_ascii_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let base = letters.trim_matches('-').chars().take(50).collect::<String>();
    let base = if base.is_empty() { "pod".to_owned() } else { base };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut number = (now.subsec_nanos() / 7) ^ std::process::id();
    let alphabet = b"bcdfghjklmnpqrstvwxz2456789";
    let mut suffix = String::new();
    for _ in 0..4 {
        suffix.push(char::from(alphabet[number as usize % alphabet.len()]));
        number /= alphabet.len() as u32;
    }
    format!("{base}-{suffix}")
}

/// Whether the container has been started, or why it never is going to be.
fn is_started(view: &PodView) -> Option<Result<(), String>> {
    if view.status.phase == Phase::Failed
        && let Some(reason) = &view.status.reason
    {
        return Some(Err(reason.sentence.clone()));
    }
    match &view.status.containers.get(CONTAINER)?.state {
        ContainerState::Exited(exit) if exit.started.is_none() && exit.status != Some(0) => {
            Some(Err(exit.reason.sentence.clone()))
        }
        ContainerState::Running { .. } | ContainerState::Exited(_) => Some(Ok(())),
        ContainerState::Waiting(reason) => {
            let never = [
                "ErrImagePull",
                "ImagePullBackOff",
                "ErrImageNeverPull",
                "InvalidImageName",
                "CreateContainerError",
                "CreateContainerConfigError",
                "RunContainerError",
                "StartError",
            ];
            never.contains(&reason.word.as_str()).then(|| Err(format!("{}: {}", reason.word, reason.sentence)))
        }
        ContainerState::Created => None,
    }
}

fn exit_status(view: &PodView) -> Option<u32> {
    match &view.status.containers.get(CONTAINER)?.state {
        ContainerState::Exited(exit) => Some(exit.status.unwrap_or_else(|| FAILURE.into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::command::{CommandLine, Verb};

    fn manifest(line: &str) -> Value {
        let Verb::Run(run) = CommandLine::parse_from(line.split(' ')).verb else { panic!("run") };
        run.manifest(&Key::new("default", "web"))
    }

    #[test]
    fn what_is_typed_becomes_a_manifest() {
        let line = "flintctl run -p 127.0.0.1:8080:80 -p 53:53/udp -e A=$(B) -v /srv:/data:ro -v data:/var --memory 64m --cpus 0.5 \
                    --restart on-failure -u 1:2 -w /tmp web:1 -- serve --fast";
        let expected = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "web", "namespace": "default", "labels": {"run": "web"}},
            "spec": {
                "restartPolicy": "OnFailure",
                "containers": [{
                    "name": "main", "image": "web:1", "args": ["serve", "--fast"],
                    "env": [{"name": "A", "value": "$$(B)"}],
                    "ports": [{"containerPort": 80, "hostPort": 8080, "protocol": "TCP", "hostIP": "127.0.0.1"},
                              {"containerPort": 53, "hostPort": 53, "protocol": "UDP"}],
                    "workingDir": "/tmp",
                    "resources": {"limits": {"memory": "67108864", "cpu": "500m"}},
                    "securityContext": {"runAsUser": 1, "runAsGroup": 2},
                    "volumeMounts": [{"name": "volume-0", "mountPath": "/data", "readOnly": true},
                                     {"name": "volume-1", "mountPath": "/var", "readOnly": false}],
                }],
                "volumes": [{"name": "volume-0", "hostPath": {"path": "/srv"}},
                            {"name": "volume-1", "persistentVolumeClaim": {"claimName": "data"}}],
            },
        });
        assert_eq!(manifest(line), expected);
        let plain = manifest("flintctl run web");
        assert_eq!(plain["spec"], json!({"restartPolicy": "Always", "containers": [{"name": "main", "image": "web"}]}));
        let shown = manifest("flintctl run -it --rm web sh");
        assert_eq!(shown["spec"]["restartPolicy"], "Never");
        for field in ["tty", "stdin", "stdinOnce"] {
            assert_eq!(shown["spec"]["containers"][0][field], true, "{field}");
        }
    }

    #[test]
    fn names_come_of_the_image() {
        let name = name_of("registry.example:5000/team/Web_App:1.0@sha256:00");
        assert!(name.starts_with("web-app-") && name.len() == 12, "{name}");
        assert!(name_of("@").starts_with("pod-"));
    }
}
