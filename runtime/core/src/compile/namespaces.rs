//! Namespaces: what is new, what is joined, and by whom.

use std::collections::BTreeMap;

use flint_init::plan::{Slot, Step};
use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use super::Compiler;
use super::text::Tables;
use crate::plan::SlotSource;
use crate::{Error, Result};

/// A new time namespace (Linux 5.6); of unshare(2) and setns(2), and the kind of a namespace file.
pub(crate) const CLONE_NEWTIME: i32 = 0x80;

pub(super) type IdMap = Vec<(u32, u32, u32)>;

/// The namespaces of `linux.namespaces`.
#[derive(Clone, Debug, Default)]
pub(super) struct Namespaces {
    /// By `CLONE_NEW*`: `None` for a new one, the slot of one that is joined.
    kinds: BTreeMap<i32, Option<Slot>>,
    uid_map: IdMap,
    gid_map: IdMap,
}

impl Namespaces {
    pub(super) fn compile(linux: Option<&Linux>, tables: &mut Tables) -> Result<Self> {
        let mut namespaces = Self::default();
        let listed = linux.and_then(|linux| linux.namespaces().as_ref());
        for namespace in listed.into_iter().flatten() {
            let kind = flag(namespace.typ());
            let slot = match namespace.path() {
                Some(path) if !path.as_os_str().is_empty() => {
                    if !path.is_absolute() {
                        return Err(Error::invalid(format!(
                            "linux.namespaces: the path {} must be absolute",
                            path.display()
                        )));
                    }
                    let path = path.clone();
                    Some(tables.slot(SlotSource::Namespace { kind: kind as u32, path }))
                }
                _ => None,
            };
            if namespaces.kinds.insert(kind, slot).is_some() {
                return Err(Error::invalid(format!("linux.namespaces: {} is listed twice", namespace.typ())));
            }
        }
        namespaces.map_ids(linux)?;
        Ok(namespaces)
    }

    /// Takes the container's user namespace, which exists by now, from a slot.
    pub(super) fn found_user(&mut self, slot: Slot) {
        self.kinds.insert(libc::CLONE_NEWUSER, Some(slot));
    }

    /// The slot of a user namespace that is joined.
    pub(super) fn joined_user(&self) -> Option<Slot> {
        self.kinds.get(&libc::CLONE_NEWUSER).copied().flatten()
    }

    fn map_ids(&mut self, linux: Option<&Linux>) -> Result<()> {
        let maps = |map: Option<&Vec<LinuxIdMapping>>| -> IdMap {
            map.into_iter().flatten().map(|line| (line.container_id(), line.host_id(), line.size())).collect()
        };
        self.uid_map = maps(linux.and_then(|linux| linux.uid_mappings().as_ref()));
        self.gid_map = maps(linux.and_then(|linux| linux.gid_mappings().as_ref()));
        let mapped = !self.uid_map.is_empty() || !self.gid_map.is_empty();
        if mapped && !self.has_user() {
            return Err(Error::invalid("linux.uidMappings and gidMappings need a user namespace in linux.namespaces"));
        }
        if self.is_new(libc::CLONE_NEWUSER) {
            check_container_map("linux.uidMappings", &self.uid_map)?;
            check_container_map("linux.gidMappings", &self.gid_map)?;
        }
        Ok(())
    }

    pub(super) fn is_new(&self, kind: i32) -> bool {
        self.kinds.get(&kind) == Some(&None)
    }

    /// New or joined: not the runtime's own.
    pub(super) fn has(&self, kind: i32) -> bool {
        self.kinds.contains_key(&kind)
    }

    pub(super) fn has_user(&self) -> bool {
        self.has(libc::CLONE_NEWUSER)
    }

    /// All kinds, for a process that joins the container.
    pub(super) fn all(&self) -> i32 {
        self.kinds.keys().fold(0, |flags, kind| flags | kind)
    }

    /// What clone3 makes. Not a time namespace: clone3 would put init into it, and then its offsets are fixed.
    pub(super) fn clone_flags(&self) -> u64 {
        self.new_flags() & !self.later_flags() & !(CLONE_NEWTIME as u64)
    }

    /// What the throw-away process writes to the offsets of a new time namespace (time_namespaces(7)).
    /// `otherwise` are those that stand elsewhere than in `linux.timeOffsets`.
    pub(super) fn time_offsets(&self, linux: Option<&Linux>, otherwise: Option<&String>) -> Result<Option<String>> {
        let offsets = linux.and_then(|linux| linux.time_offsets().as_ref()).filter(|offsets| !offsets.is_empty());
        if !self.is_new(CLONE_NEWTIME) {
            let why = if self.has(CLONE_NEWTIME) {
                "a time namespace that is joined by its path has offsets already"
            } else {
                "they need a time namespace in linux.namespaces"
            };
            return match offsets {
                Some(_) => Err(Error::invalid(format!("linux.timeOffsets: {why}"))),
                None => Ok(None),
            };
        }
        if let (None, Some(otherwise)) = (offsets, otherwise) {
            return Ok(Some(otherwise.clone()));
        }
        let mut lines = BTreeMap::new();
        for (clock, offset) in offsets.into_iter().flatten() {
            if !matches!(clock.as_str(), "monotonic" | "boottime") {
                return Err(Error::invalid(format!(
                    "linux.timeOffsets: {clock:?} is no clock that has an offset: monotonic and boottime are"
                )));
            }
            let nanoseconds = offset.nanosecs().unwrap_or(0);
            if nanoseconds > 999_999_999 {
                return Err(Error::invalid(format!(
                    "linux.timeOffsets.{clock}.nanosecs: {nanoseconds} is a second or more: put it into secs"
                )));
            }
            lines.insert(clock, format!("{clock} {} {nanoseconds}\n", offset.secs().unwrap_or(0)));
        }
        Ok(Some(lines.into_values().collect()))
    }

    /// What init makes itself: the cgroup namespace, since clone3 would take the maker's cgroup as its root (trap 6);
    /// and in a user namespace all that have an owner, who shall be the container's root and not nobody.
    pub(super) fn later_flags(&self) -> u64 {
        let later = if self.has_user() {
            !(libc::CLONE_NEWUSER | libc::CLONE_NEWPID | CLONE_NEWTIME)
        } else {
            libc::CLONE_NEWCGROUP
        };
        self.new_flags() & u64::from(later as u32)
    }

    fn new_flags(&self) -> u64 {
        let new = self.kinds.iter().filter(|(_, slot)| slot.is_none());
        new.fold(0, |flags, (kind, _)| flags | *kind as u64)
    }

    /// The user namespace first: it gives the right to the others.
    ///
    /// What is joined beside a *new* user namespace belongs to the host's: init would have no right to join it from
    /// inside its own. What is joined beside a joined one may belong to either, which only trying shows. So all of it
    /// comes before the clone.
    pub(super) fn joined_before_clone(&self) -> Vec<(Slot, u32)> {
        let mut joined: Vec<_> =
            self.joined().filter(|(kind, _)| *kind == libc::CLONE_NEWPID || self.has_user()).collect();
        joined.sort_by_key(|(kind, _)| *kind != libc::CLONE_NEWUSER);
        joined.into_iter().map(|(kind, slot)| (slot, kind as u32)).collect()
    }

    pub(super) fn joined_by_init(&self) -> Vec<(Slot, u32)> {
        let before = self.joined_before_clone();
        let behind = self.joined().map(|(kind, slot)| (slot, kind as u32));
        behind.filter(|joined| !before.contains(joined)).collect()
    }

    fn joined(&self) -> impl Iterator<Item = (i32, Slot)> + '_ {
        self.kinds.iter().filter_map(|(kind, slot)| slot.map(|slot| (*kind, slot)))
    }

    pub(super) fn id_maps(&self) -> (IdMap, IdMap) {
        (self.uid_map.clone(), self.gid_map.clone())
    }

    pub(super) fn maps(&self) -> (&IdMap, &IdMap) {
        (&self.uid_map, &self.gid_map)
    }
}

fn flag(kind: LinuxNamespaceType) -> i32 {
    match kind {
        LinuxNamespaceType::Mount => libc::CLONE_NEWNS,
        LinuxNamespaceType::Cgroup => libc::CLONE_NEWCGROUP,
        LinuxNamespaceType::Uts => libc::CLONE_NEWUTS,
        LinuxNamespaceType::Ipc => libc::CLONE_NEWIPC,
        LinuxNamespaceType::User => libc::CLONE_NEWUSER,
        LinuxNamespaceType::Pid => libc::CLONE_NEWPID,
        LinuxNamespaceType::Network => libc::CLONE_NEWNET,
        LinuxNamespaceType::Time => CLONE_NEWTIME,
    }
}

fn check_container_map(field: &str, map: &IdMap) -> Result<()> {
    if map.is_empty() {
        return Err(Error::invalid(format!("{field}: a new user namespace needs at least one line")));
    }
    check_map(field, map)?;
    if !map.iter().any(|&(inside, ..)| inside == 0) {
        return Err(Error::invalid(format!(
            "{field}: the container's 0 is not mapped, and flint needs it to set the container up"
        )));
    }
    Ok(())
}

/// What the kernel takes as a map: ranges of ids that do not overlap (user_namespaces(7)).
pub(super) fn check_map(field: &str, map: &IdMap) -> Result<()> {
    let overlap = |a: u32, b: u32, length_a: u32, length_b: u32| {
        u64::from(a) < u64::from(b) + u64::from(length_b) && u64::from(b) < u64::from(a) + u64::from(length_a)
    };
    for (index, &(inside, outside, count)) in map.iter().enumerate() {
        if count == 0
            || u64::from(inside) + u64::from(count) > 1 << 32
            || u64::from(outside) + u64::from(count) > 1 << 32
        {
            return Err(Error::invalid(format!("{field}[{index}]: {inside} {outside} {count} is no range of ids")));
        }
        if let Some(other) = map[..index]
            .iter()
            .position(|&(a, b, length)| overlap(inside, a, count, length) || overlap(outside, b, count, length))
        {
            return Err(Error::invalid(format!("{field}[{index}] overlaps with {field}[{other}]")));
        }
    }
    Ok(())
}

impl Compiler<'_> {
    /// Host names, in a namespace of the container's own only.
    pub(super) fn kernel_names(&mut self) -> Result<()> {
        let own = self.namespaces.has(libc::CLONE_NEWUTS);
        for (field, name) in [("hostname", self.spec.hostname()), ("domainname", self.spec.domainname())] {
            let Some(name) = name.as_deref().filter(|name| !name.is_empty()) else { continue };
            if !own {
                return Err(Error::invalid(format!(
                    "{field}: it needs a uts namespace in linux.namespaces; without one it would change the host's"
                )));
            }
            if name.len() > 64 {
                return Err(Error::invalid(format!("{field}: {name:?} has {} bytes, the kernel takes 64", name.len())));
            }
            let name = self.tables.text(field, name)?;
            self.tables.push(if field == "hostname" { Step::Hostname { name } } else { Step::Domainname { name } });
        }
        Ok(())
    }
}
