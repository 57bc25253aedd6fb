//! Units: started with init in them, changed, stopped (org.freedesktop.systemd1(5)).

use std::time::{Duration, Instant};

use super::connection::{Connection, Failure, MANAGER, MANAGER_PATH};
use super::name;
use super::value::{Property, Value};
use crate::{Error, Kind, Result};

const PROPERTIES: &str = "org.freedesktop.DBus.Properties";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
/// How long a unit of the same name may take to go: the container that had it may have ended just now.
pub(super) const LEAVING: Duration = Duration::from_secs(3);
pub(super) const PAUSE: Duration = Duration::from_millis(10);

/// Starts a transient unit and waits until systemd has done so.
///
/// `limits` are set in the files of the cgroup as well: one that this systemd does not know is left out.
///
/// # Errors
///
/// `AlreadyExists` when a living unit has the name; what systemd refuses, or does not do in time.
pub(super) fn start(connection: &Connection, unit: &str, properties: &[Property], limits: &[Property]) -> Result<()> {
    let mut limits = limits.to_vec();
    let leaving = Instant::now() + LEAVING.min(connection.patience);
    let mut reset = false;
    loop {
        // Before the call: its job may have ended before its reply is here.
        let watch = connection.watch();
        let items = properties.iter().chain(&limits).map(Property::item);
        let arguments =
            [Value::text(unit), Value::text("replace"), Value::list("(sv)", items), Value::list("(sa(sv))", [])];
        match connection.call(MANAGER_PATH, MANAGER, "StartTransientUnit", &arguments) {
            Ok(reply) => {
                return match connection.job_result(&watch, &reply) {
                    Ok(result) if result == "done" => Ok(()),
                    Ok(result) => {
                        reset_failed(connection, unit);
                        Err(Error::new(
                            Kind::System,
                            format!(
                                "systemd could not start the unit {unit}: its job ended as {result:?}: see journalctl -u {unit}"
                            ),
                        ))
                    }
                    Err(failure) => Err(undone(connection, unit, &failure)),
                };
            }
            Err(failure) if failure.is(UNIT_EXISTS) => {
                // A failed unit keeps its name until it is reset, one that is being stopped until it is.
                if reset && (is_active(connection, unit) || Instant::now() >= leaving) {
                    return Err(Error::new(
                        Kind::AlreadyExists,
                        format!(
                            "systemd has a unit {unit} already: delete the container that has it, or systemctl stop {unit}"
                        ),
                    ));
                }
                if reset {
                    std::thread::sleep(PAUSE);
                }
                reset_failed(connection, unit);
                reset = true;
            }
            Err(failure) => {
                if !leave_out(&mut limits, &failure) {
                    return Err(refused(&failure, format_args!("start the unit {unit}")));
                }
            }
        }
    }
}

/// Drops the limit that this systemd does not know, or not with that value; whether there was one.
fn leave_out(limits: &mut Vec<Property>, failure: &Failure) -> bool {
    let Failure::Refused(_, text) = failure else { return false };
    // "Cannot set property NAME, or unknown property." and "NAME= is out of range"
    let behind = text.strip_prefix("Cannot set property ").unwrap_or(text);
    let named = behind.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    let before = limits.len();
    limits.retain(|limit| limit.name != named);
    limits.len() != before
}

/// The job may still be done, when nobody waits for it any more: it is taken back.
fn undone(connection: &Connection, unit: &str, failure: &Failure) -> Error {
    if *failure == Failure::Late {
        let _ = connection.call(MANAGER_PATH, MANAGER, "StopUnit", &[Value::text(unit), Value::text("replace")]);
        reset_failed(connection, unit);
        let seconds = connection.patience.as_secs_f32();
        return Error::new(
            Kind::System,
            format!(
                "systemd has not started the unit {unit} within {seconds} s: it may be overloaded (see systemctl list-jobs)"
            ),
        );
    }
    refused(failure, format_args!("start the unit {unit}"))
}

fn refused(failure: &Failure, doing: std::fmt::Arguments<'_>) -> Error {
    let (kind, hint) = match failure {
        Failure::Refused(name, _)
            if name.ends_with(".AccessDenied") || name.ends_with(".InteractiveAuthorizationRequired") =>
        {
            (Kind::Permission, ": only root may, or a user in their own manager (systemctl --user)")
        }
        Failure::Refused(name, _) if name.ends_with(".InvalidArgs") || name.ends_with(".PropertyReadOnly") => {
            (Kind::Invalid, ": check linux.cgroupsPath and the org.systemd.property annotations")
        }
        _ => (Kind::System, ""),
    };
    Error::new(kind, format!("systemd does not {doing}: {failure}{hint}"))
}

fn reset_failed(connection: &Connection, unit: &str) {
    // There is mostly nothing to reset, which is an error.
    let _ = connection.call(MANAGER_PATH, MANAGER, "ResetFailedUnit", &[Value::text(unit)]);
}

/// Whether it is in use, and not just on its way out.
fn is_active(connection: &Connection, unit: &str) -> bool {
    matches!(state(connection, unit).as_deref(), Some("active" | "activating" | "reloading"))
}

/// Whether it is on its way out.
pub(super) fn is_leaving(connection: &Connection, unit: &str) -> bool {
    matches!(state(connection, unit).as_deref(), Some("deactivating" | "failed"))
}

fn state(connection: &Connection, unit: &str) -> Option<String> {
    let arguments = [Value::text("org.freedesktop.systemd1.Unit"), Value::text("ActiveState")];
    connection.call(&name::object(unit), PROPERTIES, "Get", &arguments).ok().map(|reply| reply.text())
}

/// Stops a unit and waits for it, and makes systemd forget it. One that is not there is fine.
///
/// # Errors
///
/// systemd refuses, or does not do it in time.
pub(super) fn stop(connection: &Connection, unit: &str) -> Result<()> {
    let watch = connection.watch();
    let reply = connection.call(MANAGER_PATH, MANAGER, "StopUnit", &[Value::text(unit), Value::text("replace")]);
    match reply.and_then(|reply| connection.job_result(&watch, &reply)) {
        // However it ended: the cgroups are looked at next.
        Ok(_) => {}
        Err(failure) if failure.is(NO_SUCH_UNIT) => return Ok(()),
        Err(Failure::Late) => {
            let seconds = connection.patience.as_secs_f32();
            return Err(Error::new(Kind::Busy, format!("systemd has not stopped the unit {unit} within {seconds} s")));
        }
        Err(failure) => return Err(refused(&failure, format_args!("stop the unit {unit}"))),
    }
    reset_failed(connection, unit);
    Ok(())
}

/// Changes properties until the unit ends. As they are set in the cgroup's files as well, one that this systemd does not
/// know is left out.
///
/// # Errors
///
/// systemd refuses.
pub(super) fn set_properties(connection: &Connection, unit: &str, limits: &[Property]) -> Result<()> {
    let mut limits = limits.to_vec();
    while !limits.is_empty() {
        let items = Value::list("(sv)", limits.iter().map(Property::item));
        let arguments = [Value::text(unit), Value::Bool(true), items];
        match connection.call(MANAGER_PATH, MANAGER, "SetUnitProperties", &arguments) {
            Ok(_) => return Ok(()),
            Err(failure) if leave_out(&mut limits, &failure) => {}
            Err(failure) => return Err(refused(&failure, format_args!("change the unit {unit}"))),
        }
    }
    Ok(())
}

/// Moves a process into a unit's cgroup: with systemd's rights, where ours do not do.
///
/// # Errors
///
/// systemd refuses.
pub(super) fn attach(connection: &Connection, unit: &str, pid: u32) -> Result<()> {
    let arguments = [Value::text(unit), Value::text("/"), Value::list("u", [Value::Uint32(pid)])];
    connection
        .call(MANAGER_PATH, MANAGER, "AttachProcessesToUnit", &arguments)
        .map(drop)
        .map_err(|failure| refused(&failure, format_args!("move process {pid} into the unit {unit}")))
}

/// The manager's own cgroup: `/user.slice/user-1000.slice/user@1000.service`.
///
/// # Errors
///
/// systemd does not say.
pub(super) fn control_group(connection: &Connection) -> Result<String> {
    let arguments = [Value::text(MANAGER), Value::text("ControlGroup")];
    let reply = connection.call(MANAGER_PATH, PROPERTIES, "Get", &arguments);
    reply.map(|reply| reply.text()).map_err(|failure| refused(&failure, format_args!("tell its control group")))
}

#[cfg(test)]
#[path = "unit_tests.rs"]
mod tests;
