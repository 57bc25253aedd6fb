//! Idmapped mounts: which maps the owners of a mount's files are shown through (mount_setattr(2), `MOUNT_ATTR_IDMAP`).
//!
//! ```text
//!  mounts[].uidMappings, gidMappings ─┐
//!  idmap=uids=..;gids=.. (crun) ──────┼─▶ a user namespace with these maps, made by the host ─┐
//!  idmap, ridmap alone ── the maps of the container's new user namespace ─┘                   ├─▶ the mount's slot
//!                      └─ or the user namespace that the container joins ─────────────────────┘
//! ```

use flint_init::plan::{IdMap, Slot};
use oci_spec::runtime::{LinuxIdMapping, Mount as SpecMount};

use super::Compiler;
use super::mount_options::IdmapOption;
use super::namespaces::{IdMap as Lines, check_map};
use crate::plan::SlotSource;
use crate::{Error, Result};

/// File systems that belong to namespaces of the container, so that the host cannot prepare a mount of them; none of
/// them knows maps.
const NEVER: &[&str] = &["cgroup", "cgroup2", "devpts", "mqueue", "proc", "sysfs"];

impl Compiler<'_> {
    /// The maps of a mount, bound to a slot; `None` for one that shows the owners as they are.
    pub(super) fn idmap(
        &mut self,
        field: &str,
        kind: &str,
        mount: &SpecMount,
        option: Option<&IdmapOption>,
    ) -> Result<Option<IdMap>> {
        let listed = |map: &Option<Vec<LinuxIdMapping>>| -> Lines {
            let lines = map.iter().flatten();
            lines.map(|line| (line.container_id(), line.host_id(), line.size())).collect()
        };
        let (uid, gid) = (listed(mount.uid_mappings()), listed(mount.gid_mappings()));
        if option.is_none() && uid.is_empty() && gid.is_empty() {
            return Ok(None);
        }
        if NEVER.contains(&kind) {
            return Err(Error::invalid(format!("{field}: the kernel has no idmapped mounts of a {kind} file system")));
        }
        let recursive = option.is_some_and(|option| option.recursive);
        let slot = match option.and_then(|option| option.maps.as_deref()) {
            _ if !uid.is_empty() || !gid.is_empty() => self.mapping(field, uid, gid)?,
            Some(maps) => {
                let (uid, gid) = self.parse_maps(field, maps)?;
                self.mapping(field, uid, gid)?
            }
            None => match self.namespaces.joined_user() {
                Some(joined) => joined,
                None if self.namespaces.has_user() => {
                    let (uid, gid) = self.namespaces.id_maps();
                    self.mapping(field, uid, gid)?
                }
                None => {
                    return Err(Error::invalid(format!(
                        "{field}: idmap without maps means those of the container, which has no user namespace: give uidMappings and gidMappings, or idmap=uids=0-1000-1;gids=0-1000-1"
                    )));
                }
            },
        };
        Ok(Some(IdMap { slot, recursive, by_host: false }))
    }

    fn mapping(&mut self, field: &str, uid: Lines, gid: Lines) -> Result<Slot> {
        if uid.is_empty() || gid.is_empty() {
            return Err(Error::invalid(format!(
                "{field}: id-mapped mounts must have both uid and gid mappings specified"
            )));
        }
        check_map(&format!("{field}: uidMappings"), &uid)?;
        check_map(&format!("{field}: gidMappings"), &gid)?;
        Ok(self.tables.slot(SlotSource::IdMapping { uid, gid }))
    }

    /// crun's form: `uids=0-1-10#10-11-10;gids=@0-100-10`. Each triplet is an id of the file system, the id that is
    /// shown, and a count; behind `@` the shown id is one of the container's.
    fn parse_maps(&self, field: &str, text: &str) -> Result<(Lines, Lines)> {
        let (users, groups) = self.namespaces.id_maps();
        let (mut uid, mut gid) = (Lines::new(), Lines::new());
        for part in text.split(';').filter(|part| !part.is_empty()) {
            let (lines, list, container) = match part.split_once('=') {
                Some(("uids", list)) => (&mut uid, list, &users),
                Some(("gids", list)) => (&mut gid, list, &groups),
                _ => {
                    return Err(Error::invalid(format!(
                        "{field}: idmap: {part:?} is neither uids=... nor gids=..., each as in 0-1000-1#1-2000-10"
                    )));
                }
            };
            for triplet in list.split('#').filter(|triplet| !triplet.is_empty()) {
                lines.push(parse_triplet(field, triplet, container)?);
            }
        }
        Ok((uid, gid))
    }
}

fn parse_triplet(field: &str, triplet: &str, container: &Lines) -> Result<(u32, u32, u32)> {
    let (numbers, relative) = match triplet.strip_prefix('@') {
        Some(numbers) => (numbers, true),
        None => (triplet, false),
    };
    let parsed: Vec<Option<u32>> = numbers.split('-').map(|number| number.parse().ok()).collect();
    let [Some(inside), Some(shown), Some(count)] = parsed[..] else {
        return Err(Error::invalid(format!(
            "{field}: idmap: {triplet:?} must be three numbers, as in 0-1000-1: an id of the file system, the id shown, a count"
        )));
    };
    if !relative {
        return Ok((inside, shown, count));
    }
    let line = container.iter().find(|&&(first, _, length)| shown >= first && shown - first < length);
    match line {
        Some(&(first, outside, _)) if outside.checked_add(shown - first).is_some() => {
            Ok((inside, outside + (shown - first), count))
        }
        _ => Err(Error::invalid(format!(
            "{field}: idmap: {triplet:?} is relative to the container's user namespace, whose maps in linux do not have the id {shown}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::parse_triplet;

    #[test]
    fn triplets() {
        let container = vec![(0, 100_000, 10), (10, 5, 1)];
        let parse = |text: &str| parse_triplet("f", text, &container).map_err(|error| error.to_string());
        assert_eq!(parse("0-1-10"), Ok((0, 1, 10)));
        assert_eq!(parse("@0-3-1"), Ok((0, 100_003, 1)));
        assert_eq!(parse("@7-10-1"), Ok((7, 5, 1)));
        assert!(parse("@0-11-1").unwrap_err().contains("do not have the id 11"));
        for wrong in ["", "1", "1-2", "1-2-3-4", "-1-2-3", "a-b-c", "1-2-99999999999", "@"] {
            assert!(parse(wrong).unwrap_err().contains("three numbers"), "{wrong}");
        }
    }
}
