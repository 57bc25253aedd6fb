//! Plans of small configs, on hosts that are made up.

mod ahead;
mod birth;
mod inherited;
mod labels;
mod mounts;
mod mutated;
mod refused;
mod rootless;
mod schedule;
mod steps;
mod warned;

use flint_init::plan::Step;
use serde_json::{Value, json};

use super::samples::{SYS_RESOURCE, config, hybrid, options, unified, with_user};
use super::{Caller, CompileOptions, ExecCompileOptions, Host, compile, compile_exec};
use crate::bundle::Bundle;
use crate::describe::describe;
use crate::plan::Plan;
use crate::{Error, Result};

/// The config with one field replaced: `path` is a JSON pointer, missing objects on the way are made.
fn with(mut config: Value, path: &str, value: Value) -> Value {
    let mut place = &mut config;
    for key in path.split('/').skip(1) {
        place = match place {
            Value::Array(array) => &mut array[key.parse::<usize>().unwrap()],
            other => &mut other[key],
        };
    }
    *place = value;
    config
}

fn set(path: &str, value: Value) -> Value {
    with(config(), path, value)
}

fn with_namespace(mut config: Value, namespace: Value) -> Value {
    config["linux"]["namespaces"].as_array_mut().unwrap().push(namespace);
    config
}

fn without_namespace(mut config: Value, kind: &str) -> Value {
    config["linux"]["namespaces"].as_array_mut().unwrap().retain(|namespace| namespace["type"] != kind);
    config
}

fn bundle(config: &Value) -> Result<Bundle> {
    Bundle::from_parts("/bundle".into(), config.to_string().into_bytes())
}

fn compiled_on(host: &Host, config: &Value) -> Result<Plan> {
    compile(&bundle(config)?, host, &options())
}

fn compiled(config: &Value) -> Plan {
    compiled_on(&hybrid(), config).unwrap_or_else(|error| panic!("{config}: {error}"))
}

/// As `run` has it, not `create`.
fn run_plan(config: &Value) -> Plan {
    let options = CompileOptions { wait_on_socket: false, ..options() };
    compile(&bundle(config).unwrap(), &hybrid(), &options).unwrap_or_else(|error| panic!("{config}: {error}"))
}

fn refused(config: &Value) -> Error {
    match compiled_on(&hybrid(), config) {
        Ok(_) => panic!("{config} was accepted"),
        Err(error) => error,
    }
}

fn exec_plan(config: &Value, process: &Value) -> Result<Plan> {
    let options = ExecCompileOptions {
        foreground: false,
        tracers: false,
        id: "c1".to_owned(),
        console_socket: false,
        preserve_fds: 0,
        listen_fds: 0,
        keyring: true,
        seccomp_receiver: None,
    };
    compile_exec(&bundle(config)?, &serde_json::from_value(process.clone()).unwrap(), &hybrid(), &options)
}

fn lines(plan: &Plan) -> Vec<String> {
    plan.init.iter().map(|step| describe(plan, step)).collect()
}

/// The lines that start with `word`.
fn lines_of(plan: &Plan, word: &str) -> Vec<String> {
    lines(plan).into_iter().filter(|line| line.starts_with(word)).collect()
}

/// Where the first step is that `wanted` accepts.
fn position(plan: &Plan, wanted: impl Fn(&Step) -> bool) -> usize {
    plan.init.iter().position(wanted).unwrap_or_else(|| panic!("no such step in {:#?}", lines(plan)))
}
