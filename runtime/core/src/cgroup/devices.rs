//! Which devices a container may use: the rules of config.json and the default allow list.
//!
//! The order of rules counts: the last one that speaks of a device and an access decides. cgroup v2 can express
//! that exactly (`device_filter`). The devices controller of cgroup v1 knows only "all" and a list of exceptions, so the
//! rules are folded into that here, and what it cannot express is refused: the kernel itself would ignore it silently.

use std::fmt;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};
use serde::{Deserialize, Serialize};

use super::plan::Write;
use crate::{Error, Result};

/// Which sort of device a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeviceKind {
    /// Every device: such a rule is for every number and every access, and replaces all rules before it.
    All,
    /// Character devices.
    Character,
    /// Block devices.
    Block,
}

/// What a process may do with a device: a set of [`Access::READ`], [`Access::WRITE`] and [`Access::MKNOD`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access(u8);

impl Access {
    /// mknod(2). The bits are those of `BPF_DEVCG_ACC_*` in linux/bpf.h.
    pub const MKNOD: Self = Self(1);
    /// Open for reading.
    pub const READ: Self = Self(2);
    /// Open for writing.
    pub const WRITE: Self = Self(4);
    /// All three.
    pub const ALL: Self = Self(7);

    /// The bits of `BPF_DEVCG_ACC_*`.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }

    fn parse(text: &str) -> Option<Self> {
        text.bytes()
            .try_fold(0, |bits, letter| match letter {
                b'r' => Some(bits | Self::READ.0),
                b'w' => Some(bits | Self::WRITE.0),
                b'm' => Some(bits | Self::MKNOD.0),
                // Grants nothing; runc reads over it, and its own tests write "rwa".
                b'a' => Some(bits),
                _ => None,
            })
            .filter(|&bits| bits != 0)
            .map(Self)
    }

    fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (bit, letter) in [(Self::READ, 'r'), (Self::WRITE, 'w'), (Self::MKNOD, 'm')] {
            if self.0 & bit.0 != 0 {
                write!(f, "{letter}")?;
            }
        }
        Ok(())
    }
}

/// One rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// Whether the access is granted.
    pub allow: bool,
    /// The sort of device.
    pub kind: DeviceKind,
    /// Major number; `None` for every one.
    pub major: Option<u32>,
    /// Minor number; `None` for every one.
    pub minor: Option<u32>,
    /// What the rule speaks of.
    pub access: Access,
}

impl DeviceRule {
    fn all(allow: bool) -> Self {
        Self { allow, kind: DeviceKind::All, major: None, minor: None, access: Access::ALL }
    }

    const fn allow(kind: DeviceKind, major: Option<u32>, minor: Option<u32>, access: Access) -> Self {
        Self { allow: true, kind, major, minor, access }
    }

    fn same_devices(&self, other: &Self) -> bool {
        (self.kind, self.major, self.minor) == (other.kind, other.major, other.minor)
    }

    /// Whether `self` covers devices of `other` and is not the same set.
    fn overlaps_wider(&self, other: &Self) -> bool {
        let wider = |own: Option<u32>, others: Option<u32>| own.is_none() || own == others;
        self.kind == other.kind
            && wider(self.major, other.major)
            && wider(self.minor, other.minor)
            && !self.same_devices(other)
    }
}

/// The form of `devices.allow` in the kernel's documentation: `c 1:3 rwm`.
impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DeviceKind::All => return f.write_str("a"),
            DeviceKind::Character => 'c',
            DeviceKind::Block => 'b',
        };
        write!(f, "{kind} ")?;
        for (number, end) in [(self.major, ":"), (self.minor, " ")] {
            match number {
                Some(number) => write!(f, "{number}{end}")?,
                None => write!(f, "*{end}")?,
            }
        }
        write!(f, "{}", self.access)
    }
}

/// What every container may use, exactly as runc has it (`AllowedDevices`; read back from `devices.list` of a runc
/// container): making any node, the default devices, its own terminals, and tun.
const DEFAULT_ALLOWED: [(Option<&str>, DeviceRule); 11] = {
    use DeviceKind::{Block, Character};
    const fn rwm(major: u32, minor: Option<u32>) -> DeviceRule {
        DeviceRule::allow(DeviceKind::Character, Some(major), minor, Access::ALL)
    }
    [
        (None, DeviceRule::allow(Character, None, None, Access::MKNOD)),
        (None, DeviceRule::allow(Block, None, None, Access::MKNOD)),
        (Some("/dev/null"), rwm(1, Some(3))),
        (Some("/dev/random"), rwm(1, Some(8))),
        (Some("/dev/full"), rwm(1, Some(7))),
        (Some("/dev/tty"), rwm(5, Some(0))),
        (Some("/dev/zero"), rwm(1, Some(5))),
        (Some("/dev/urandom"), rwm(1, Some(9))),
        (None, rwm(136, None)),
        (None, rwm(5, Some(2))),
        (None, rwm(10, Some(200))),
    ]
};

/// All rules of a container, in order: nothing, then config.json, then the default list. A default device whose path
/// `linux.devices` gives to another device is not in it.
pub(super) fn rules(linux: Option<&oci_spec::runtime::Linux>) -> Result<Vec<DeviceRule>> {
    let mut rules = vec![DeviceRule::all(false)];
    let resources: Option<&LinuxResources> = linux.and_then(|linux| linux.resources().as_ref());
    let configured = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    for (index, rule) in configured.iter().enumerate() {
        rules.push(
            rule_of(rule).map_err(|error| error.context(format_args!("linux.resources.devices[{index}] is wrong")))?,
        );
    }
    let replaced = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    for (path, rule) in DEFAULT_ALLOWED {
        let is_replaced = path.is_some_and(|path| replaced.iter().any(|device| device.path().as_os_str() == path));
        if !is_replaced {
            rules.push(rule);
        }
    }
    // What stands before the last rule for everything has no say.
    let start = rules.iter().rposition(|rule| rule.kind == DeviceKind::All).unwrap_or(0);
    Ok(rules.split_off(start))
}

fn rule_of(rule: &LinuxDeviceCgroup) -> Result<DeviceRule> {
    let number = |name: &str, number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number)
            .map(Some)
            .map_err(|_| Error::invalid(format!("the {name} number {number} is out of range (0 to {})", u32::MAX))),
    };
    let access = match rule.access().as_deref() {
        // runc wants it to be there; the spec says only what it means.
        None | Some("") => {
            return Err(Error::invalid("access is missing: give some of the letters r, w and m"));
        }
        Some(text) => Access::parse(text)
            .ok_or_else(|| Error::invalid(format!("access {text:?} has other letters than r, w and m")))?,
    };
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => return Ok(DeviceRule::all(rule.allow())),
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => DeviceKind::Character,
        Some(LinuxDeviceType::B) => DeviceKind::Block,
        Some(LinuxDeviceType::P) => {
            return Err(Error::invalid("a FIFO (p) is no device that cgroups know"));
        }
    };
    Ok(DeviceRule {
        allow: rule.allow(),
        kind,
        major: number("major", rule.major())?,
        minor: number("minor", rule.minor())?,
        access,
    })
}

/// Whether the rules leave everything allowed.
pub(super) fn allow_all(rules: &[DeviceRule]) -> bool {
    rules.first().is_some_and(|rule| rule.kind == DeviceKind::All && rule.allow) && rules.iter().all(|rule| rule.allow)
}

/// The writes to `devices.deny` and `devices.allow` that bring any cgroup to these rules.
///
/// # Errors
///
/// A rule takes away part of what an earlier, wider one gave (or the reverse): cgroup v1 cannot do that.
pub(super) fn v1_writes(rules: &[DeviceRule], writes: &mut Vec<Write>) -> Result<()> {
    let (default_allow, exceptions) = folded(rules)?;
    let file = |allow: bool| {
        if allow { "devices.allow" } else { "devices.deny" }
    };
    writes.push(Write::new("devices", file(default_allow), "a"));
    for exception in exceptions {
        writes.push(Write::new("devices", file(exception.allow), exception.to_string()));
    }
    Ok(())
}

/// The rules as what holds for all devices (whether they are allowed) and the exceptions from that, whose order does not count.
///
/// # Errors
///
/// As [`v1_writes`].
pub(super) fn folded(rules: &[DeviceRule]) -> Result<(bool, Vec<DeviceRule>)> {
    let default_allow = rules.first().is_some_and(|rule| rule.allow);
    let mut exceptions: Vec<DeviceRule> = Vec::new();
    for rule in rules.iter().skip(1) {
        if rule.allow == default_allow {
            take_away(&mut exceptions, rule)?;
        } else if let Some(same) = exceptions.iter_mut().find(|exception| exception.same_devices(rule)) {
            same.access = Access(same.access.0 | rule.access.0);
        } else {
            exceptions.push(*rule);
        }
    }
    Ok((default_allow, exceptions))
}

fn take_away(exceptions: &mut Vec<DeviceRule>, rule: &DeviceRule) -> Result<()> {
    let wider =
        exceptions.iter().find(|exception| exception.overlaps_wider(rule) && exception.access.0 & rule.access.0 != 0);
    if let Some(wider) = wider {
        let word = |allow: bool| if allow { "allow" } else { "deny" };
        return Err(Error::unsupported(format!(
            "linux.resources.devices: `{} {rule}` makes an exception from `{} {wider}`, which cgroup v1 cannot express: \
             list the devices of the wider rule one by one, or use cgroup v2",
            word(rule.allow),
            word(wider.allow),
        )));
    }
    for exception in exceptions.iter_mut().filter(|exception| exception.same_devices(rule)) {
        exception.access = exception.access.minus(rule.access);
    }
    exceptions.retain(|exception| exception.access.0 != 0);
    Ok(())
}
