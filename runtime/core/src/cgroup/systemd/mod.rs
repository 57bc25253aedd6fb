//! The systemd cgroup driver: the container's cgroup is a unit's, a scope that systemd makes with init in it.
//!
//! ```text
//!  compile    cgroupsPath slice:prefix:name, limits and annotations -> Scope (in the cgroup's Plan)
//!  reach      is there a systemd                                     before anything is made
//!  clone      init waits at its first barrier
//!  start      StartTransientUnit with init's pid; JobRemoved
//!  Cgroup::create_around   the rest by files, as without systemd
//!  ...
//!  Unit::stop StopUnit, at delete
//! ```
//!
//! A maker that is killed in between leaves a record with the unit and the places; its init ends with it, and systemd removes a
//! scope that is empty.
//!
//! The client is our own: zbus would add 1.5 MB to the static program and two threads to every program that uses the library;
//! this speaks what is needed of D-Bus, on one socket, without a thread, and only when the driver is chosen.

mod address;
mod annotation;
mod connection;
mod folders;
mod message;
mod name;
mod properties;
mod unit;
mod value;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use oci_spec::runtime::Linux;
use serde::{Deserialize, Serialize};

use super::layout::{Layout, Mode};
use super::live::Paths;
use super::plan::Plan;
use crate::{Error, Result};
use connection::{Connection, Failure};
use name::Placed;

pub use folders::Folders;
pub(super) use properties::{leave_out, of_resources, round_quota};
pub use value::{Property, Value};

/// For each wait. Starting a scope takes milliseconds; a host on which hundreds start at once may take seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Which systemd.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Manager {
    /// The host's.
    #[default]
    System,
    /// The calling user's own (`systemctl --user`).
    User,
}

impl Manager {
    /// The user's own for all but root, and for root in a user namespace, who is a user in truth.
    #[must_use]
    pub fn detect() -> Self {
        if nix::unistd::geteuid().is_root() && !crate::compile::in_user_namespace() { Self::System } else { Self::User }
    }

    fn default_slice(self) -> &'static str {
        match self {
            Self::System => "system.slice",
            Self::User => "user.slice",
        }
    }

    /// The program's one connection, made when it is first needed, and again when it broke.
    fn connection(self) -> Result<Arc<Connection>> {
        static SYSTEM: Mutex<Option<Arc<Connection>>> = Mutex::new(None);
        static USER: Mutex<Option<Arc<Connection>>> = Mutex::new(None);
        let place = match self {
            Self::System => &SYSTEM,
            Self::User => &USER,
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = place.as_ref().filter(|connection| !connection.is_broken()) {
            return Ok(Arc::clone(connection));
        }
        let connection = Arc::new(self.connect()?);
        *place = Some(Arc::clone(&connection));
        Ok(connection)
    }

    fn connect(self) -> Result<Connection> {
        let variable = |name: &str| std::env::var_os(name);
        let addresses = match self {
            Self::System => address::of_system(variable, nix::unistd::geteuid().is_root()),
            Self::User => address::of_user(variable),
        };
        let mut tried = String::new();
        for address in &addresses {
            match Connection::open(address, PATIENCE) {
                Ok(connection) => return Ok(connection),
                Err(failure) => tried = format!("{tried} {address}: {};", reason(&failure)),
            }
        }
        let hint = match self {
            Self::System => "is systemd running here (/run/systemd/system)? Without it leave out --systemd-cgroup",
            Self::User => {
                "is there a user manager (loginctl enable-linger, and XDG_RUNTIME_DIR or DBUS_SESSION_BUS_ADDRESS set)? \
                 Without one leave out --systemd-cgroup"
            }
        };
        Err(Error::unsupported(format!("cannot reach {self}:{tried} {hint}")))
    }
}

fn reason(failure: &Failure) -> String {
    match failure {
        Failure::Broken(what) => what.clone(),
        other => other.to_string(),
    }
}

impl fmt::Display for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "systemd",
            Self::User => "the user's systemd",
        })
    }
}

/// The unit that a container is made as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scope {
    /// It and its manager.
    pub unit: Unit,
    /// What it is started with, besides init's pid.
    pub properties: Vec<Property>,
    /// Limits that are written to the cgroup's files as well: an older systemd may do without.
    pub limits: Vec<Property>,
}

/// A unit of systemd; kept in the container's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unit {
    /// `flint-web.scope`
    pub name: String,
    /// Whose unit it is.
    pub manager: Manager,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unit {} of {}", self.unit.name, self.unit.manager)?;
        for property in self.properties.iter().chain(&self.limits) {
            write!(f, "\n  {property}")?;
        }
        Ok(())
    }
}

/// Compiles the container's cgroup as a unit of a manager whose own cgroup is `above`: see [`above`].
///
/// # Errors
///
/// As [`super::compile`]; a cgroupsPath of another form than `slice:prefix:name`; an annotation that is no property.
pub fn compile(
    layout: &Layout,
    id: &str,
    linux: Option<&Linux>,
    annotations: &BTreeMap<String, String>,
    (manager, above): (Manager, &str),
    warnings: &mut Vec<String>,
) -> Result<Plan> {
    if manager == Manager::User && layout.mode() != Mode::V2 {
        return Err(Error::unsupported(
            "the systemd cgroup driver of other users than root needs cgroup v2: leave out --systemd-cgroup",
        ));
    }
    let path = linux.and_then(|linux| linux.cgroups_path().as_deref());
    let path =
        path.map(|path| path.to_str().ok_or_else(|| Error::invalid("linux.cgroupsPath is not UTF-8"))).transpose()?;
    let placed = Placed::parse(path, id, manager.default_slice())?;
    let mut linux = linux.map(properties::with_rounded_quota).unwrap_or_default();
    linux.set_cgroups_path(Some(format!("/{above}/{}", placed.path()?).into()));
    if let Some(resources) = linux.resources_mut() {
        warnings.extend(properties::leave_out(layout.mode(), resources));
    }
    let mut plan = super::compile(layout, id, Some(&linux), warnings)?;
    let mut limits = properties::of_devices(layout.mode(), &plan.devices);
    if let Some(resources) = linux.resources() {
        limits.extend(properties::of_resources(layout.mode(), resources)?);
    }
    let mut start = start_properties(layout.mode(), &placed);
    start.extend(annotation::properties(annotations)?);
    let unit = Unit { name: placed.unit, manager };
    plan.systemd = Some(Scope { unit, properties: start, limits });
    Ok(plan)
}

/// What every unit of a container has (runc's, so that tools that look at it see the same).
fn start_properties(mode: Mode, placed: &Placed) -> Vec<Property> {
    let yes = |name: &str| Property::new(name, Value::Bool(true));
    let mut all = vec![Property::new("Description", Value::Text(format!("flint container {}", placed.name)))];
    if placed.is_slice() {
        all.push(Property::new("Wants", Value::list("s", [Value::text(&placed.slice)])));
    } else {
        all.push(Property::new("Slice", Value::text(&placed.slice)));
        all.push(yes("Delegate"));
    }
    let io = if mode == Mode::V2 { "IOAccounting" } else { "BlockIOAccounting" };
    all.extend(["MemoryAccounting", "CPUAccounting", io, "TasksAccounting"].map(yes));
    all.push(Property::new("DefaultDependencies", Value::Bool(false)));
    all
}

/// The cgroup below which a manager makes its units' ones, without slashes around it: a user's has one of its own.
///
/// # Errors
///
/// systemd cannot be reached.
pub fn above(manager: Manager) -> Result<String> {
    let above = unit::control_group(&*manager.connection()?)?;
    if above.split('/').any(|part| part == "..") {
        return Err(Error::unsupported(format!("{manager} is in a cgroup that cannot be seen from here: {above}")));
    }
    Ok(above.trim_matches('/').to_owned())
}

/// Makes sure that the plan's systemd, if it has one, can be reached, before anything is made.
///
/// # Errors
///
/// systemd cannot be reached.
pub fn reach(plan: &Plan) -> Result<()> {
    plan.systemd.as_ref().map_or(Ok(()), |scope| scope.unit.manager.connection().map(drop))
}

/// Where the unit's cgroup really is, by what the kernel says of the process in it: a manager that is not at the root of the tree
/// does not tell where it is.
///
/// # Errors
///
/// The process's cgroups cannot be read.
pub fn settle(plan: Cow<'_, Plan>, mode: Mode, pid: i32) -> Result<Cow<'_, Plan>> {
    let Some(scope) = plan.systemd.as_ref().filter(|scope| !scope.unit.is_slice()) else { return Ok(plan) };
    let file = format!("/proc/{pid}/cgroup");
    let text = crate::procfs::read(&file).map_err(|error| Error::os(format!("read {file}"), error))?;
    let text = String::from_utf8_lossy(&text);
    let controllers = if mode == Mode::V2 { "" } else { "name=systemd" };
    let path = text.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        rest.split_once(':').filter(|(names, _)| *names == controllers).map(|(_, path)| path.trim_start_matches('/'))
    });
    match path {
        Some(path)
            if path != plan.path && path.ends_with(&format!("/{}", scope.unit.name)) && !path.starts_with("..") =>
        {
            let path = path.to_owned();
            let mut plan = plan.into_owned();
            plan.path = path;
            Ok(Cow::Owned(plan))
        }
        _ => Ok(plan),
    }
}

impl Scope {
    /// Looks at the places of the unit before systemd makes it there: a cgroup that others use, or have frozen, would be taken for
    /// the unit's own, and removed with it. Who had the name before may be on the way out.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when somebody uses one.
    pub fn await_places(&self, paths: &Paths) -> Result<()> {
        let deadline = Instant::now() + unit::LEAVING;
        loop {
            let Err(error) = super::tree::refuse_used_places(paths) else { return Ok(()) };
            let connection = self.unit.manager.connection()?;
            if !unit::is_leaving(&connection, &self.unit.name) || Instant::now() >= deadline {
                return Err(error);
            }
            std::thread::sleep(unit::PAUSE);
        }
    }

    /// Makes the unit, with a process in it; a slice takes none that way.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` when a living unit has its name; what systemd refuses, or does not do in time.
    pub fn start(&self, pid: i32) -> Result<()> {
        let connection = self.unit.manager.connection()?;
        let mut properties = self.properties.clone();
        if !self.unit.is_slice() {
            properties.push(Property::new("PIDs", Value::list("u", [Value::Uint32(pid as u32)])));
        }
        unit::start(&connection, &self.unit.name, &properties, &self.limits)
    }
}

impl Unit {
    fn is_slice(&self) -> bool {
        // systemd's names know one case.
        self.name.strip_suffix(".slice").is_some()
    }

    /// Stops it and makes systemd forget it. One that is not there is fine.
    ///
    /// # Errors
    ///
    /// systemd cannot be reached, refuses, or does not do it in time.
    pub fn stop(&self) -> Result<()> {
        unit::stop(&*self.manager.connection()?, &self.name)
    }

    /// Tells systemd the limits of a running container, so that it does not put back the old ones. systemd has written all files
    /// that it knows when this returns.
    ///
    /// # Errors
    ///
    /// systemd cannot be reached, or refuses.
    pub fn update(&self, limits: &[Property]) -> Result<()> {
        unit::set_properties(&*self.manager.connection()?, &self.name, limits)
    }

    /// Moves a process into its cgroup with systemd's rights.
    ///
    /// # Errors
    ///
    /// systemd cannot be reached, or refuses.
    pub fn attach(&self, pid: i32) -> Result<()> {
        unit::attach(&*self.manager.connection()?, &self.name, pid as u32)
    }
}
