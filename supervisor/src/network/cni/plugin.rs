//! One call of one plugin: a program with a few variables and its configuration on its standard input.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::{Map, Value};

use super::configuration::List;
use crate::network::{Error, Result};

/// What a result or an error may have at most.
const MOST_BYTES: u64 = 1 << 20;

pub(super) struct Call<'a> {
    pub(super) verb: &'static str,
    pub(super) environment: Vec<(&'static str, OsString)>,
    pub(super) folders: &'a [PathBuf],
    pub(super) timeout: Duration,
}

impl Call<'_> {
    /// Runs a plugin; what it prints, as JSON (null: nothing).
    pub(super) fn run(&self, list: &List, plugin: &Map<String, Value>, configuration: &Value) -> Result<Value> {
        let kind = plugin.get("type").and_then(Value::as_str).unwrap_or_default();
        let failed = |reason: String| Error::Plugin {
            network: list.name.clone(),
            step: format!("{} of plugin {kind}", self.verb),
            reason,
        };
        let program =
            self.folders.iter().map(|folder| folder.join(kind)).find(|path| path.is_file()).ok_or_else(|| {
                let folders: Vec<String> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
                failed(format!("the program is in none of {}", folders.join(", ")))
            })?;
        let path = std::env::join_paths(self.folders).map_err(|error| failed(error.to_string()))?;
        let child = Command::new(&program)
            .env("CNI_COMMAND", self.verb)
            .env("CNI_PATH", path)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Of its own group, so that what it starts ends with it.
            .process_group(0)
            .spawn()
            .map_err(|error| failed(format!("{}: {error}", program.display())))?;
        let (success, output, errors) = self.wait(child, configuration).map_err(|error| failed(error.to_string()))?;
        let value: Value = match output.trim_ascii() {
            [] => Value::Null,
            bytes => serde_json::from_slice(bytes).unwrap_or(Value::Null),
        };
        if success {
            return Ok(value);
        }
        let text =
            |name: &str| value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(str::to_owned);
        let words: Vec<String> = ["msg", "details"].into_iter().filter_map(text).collect();
        let reason =
            if words.is_empty() { String::from_utf8_lossy(&errors).trim().to_owned() } else { words.join(": ") };
        Err(failed(if reason.is_empty() { "it fails and does not say why".to_owned() } else { reason }))
    }

    fn wait(&self, mut child: Child, configuration: &Value) -> io::Result<(bool, Vec<u8>, Vec<u8>)> {
        let end = Instant::now() + self.timeout;
        let (sender, receiver) = mpsc::channel();
        let mut threads = Vec::new();
        if let (Some(output), Some(errors)) = (child.stdout.take(), child.stderr.take()) {
            let reader = sender.clone();
            threads.push(std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let read = output.take(MOST_BYTES).read_to_end(&mut bytes);
                let _ = reader.send((true, read.map(|_| bytes)));
            }));
            threads.push(std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let read = errors.take(MOST_BYTES).read_to_end(&mut bytes);
                let _ = sender.send((false, read.map(|_| bytes)));
            }));
        }
        if let Some(mut input) = child.stdin.take() {
            // It may end with its input unread; then its words tell why.
            let _ = input.write_all(configuration.to_string().as_bytes());
        }
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        for _ in 0..threads.len() {
            match receiver.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok((true, bytes)) => output = bytes?,
                Ok((false, bytes)) => errors = bytes?,
                Err(_) => {
                    // It is not reaped yet, so its number is still its own.
                    let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
                    child.wait()?;
                    let text = format!("it was not done after {} s, and was killed", self.timeout.as_secs());
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
            }
        }
        // What closes its outputs and goes on is not waited for longer than the rest.
        while child.try_wait()?.is_none() {
            if Instant::now() > end {
                let _ = killpg(Pid::from_raw(child.id() as i32), Signal::SIGKILL);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok((child.wait()?.success(), output, errors))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn run(script: &str, timeout: u64) -> Result<Value> {
        let dir = tempfile::tempdir().expect("a folder");
        let program = dir.path().join("plugin");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("write");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("chmod");
        let text = r#"{"name":"net","cniVersion":"1.0.0","type":"plugin"}"#;
        fs::write(dir.path().join("net.conf"), text).expect("write");
        let list = List::find(dir.path(), "net").expect("a list");
        let folders = [PathBuf::from("/nonexistent"), dir.path().to_owned()];
        let call = Call {
            verb: "ADD",
            environment: vec![("CNI_IFNAME", "eth0".into())],
            folders: &folders,
            timeout: Duration::from_secs(timeout),
        };
        let plugin = list.plugins.first().expect("a plugin");
        call.run(&list, plugin, &Value::Object(list.of(plugin)))
    }

    #[test]
    fn a_plugin_reads_its_configuration_and_prints_a_result() {
        let value = run("cat; test \"$CNI_COMMAND $CNI_IFNAME\" = 'ADD eth0'", 10).expect("run");
        assert_eq!(value.get("name").and_then(Value::as_str), Some("net"));
        assert_eq!(run("true", 10).expect("nothing is a result"), Value::Null);
    }

    #[test]
    fn errors_are_in_the_plugins_words() {
        let error = run(r#"echo '{"code":7,"msg":"no room","details":"in 10.0.0.0/8"}'; exit 1"#, 10)
            .expect_err("fails")
            .to_string();
        assert_eq!(error, "CNI network \"net\", ADD of plugin plugin: no room: in 10.0.0.0/8");
        let error = run("echo wrong >&2; exit 3", 10).expect_err("fails").to_string();
        assert!(error.ends_with("wrong"), "{error}");
    }

    #[test]
    fn a_plugin_that_hangs_is_killed_with_what_it_started() {
        let error = run("sleep 1000 & sleep 1000", 1).expect_err("killed").to_string();
        assert!(error.contains("not done after 1 s"), "{error}");
    }
}
