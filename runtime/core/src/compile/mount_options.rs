//! Mount options: names to attributes (mount(8), and what runc and crun know).

use flint_init::plan::Attributes;

/// `MOUNT_ATTR_*` of mount_setattr(2).
const RDONLY: u64 = 0x0000_0001;
const NOSUID: u64 = 0x0000_0002;
const NODEV: u64 = 0x0000_0004;
const NOEXEC: u64 = 0x0000_0008;
const ATIME: u64 = 0x0000_0070;
const RELATIME: u64 = 0x0000_0000;
const NOATIME: u64 = 0x0000_0010;
const STRICTATIME: u64 = 0x0000_0020;
const NODIRATIME: u64 = 0x0000_0080;
pub(super) const NOSYMFOLLOW: u64 = 0x0020_0000;

/// One name: what it sets, and what it clears.
type Attribute = (&'static str, u64, u64);

/// With an `r` before the name it acts on the mounts below too.
const ATTRIBUTES: &[Attribute] = &[
    ("ro", RDONLY, 0),
    ("rw", 0, RDONLY),
    ("nosuid", NOSUID, 0),
    ("suid", 0, NOSUID),
    ("nodev", NODEV, 0),
    ("dev", 0, NODEV),
    ("noexec", NOEXEC, 0),
    ("exec", 0, NOEXEC),
    ("noatime", NOATIME, ATIME),
    ("atime", RELATIME, ATIME),
    ("relatime", RELATIME, ATIME),
    ("norelatime", RELATIME, ATIME),
    ("strictatime", STRICTATIME, ATIME),
    ("nostrictatime", RELATIME, ATIME),
    ("nodiratime", NODIRATIME, 0),
    ("diratime", 0, NODIRATIME),
    ("nosymfollow", NOSYMFOLLOW, 0),
    ("symfollow", 0, NOSYMFOLLOW),
];

/// The recursive ones that exist; `rnorelatime` and the like do not.
const RECURSIVE: &[&str] = &[
    "rro",
    "rrw",
    "rnosuid",
    "rsuid",
    "rnodev",
    "rdev",
    "rnoexec",
    "rexec",
    "rnoatime",
    "ratime",
    "rrelatime",
    "rnorelatime",
    "rstrictatime",
    "rnostrictatime",
    "rnodiratime",
    "rdiratime",
    "rnosymfollow",
    "rsymfollow",
];

/// Flags of the file system itself, set with fsconfig.
const SUPERBLOCK: &[&str] = &["sync", "dirsync", "mand", "lazytime"];
/// Their opposites, which a later one of is as if the first were not there.
const SUPERBLOCK_OFF: &[(&str, &str)] = &[("async", "sync"), ("nomand", "mand"), ("nolazytime", "lazytime")];
/// Words without an effect here.
///
/// fsconfig has no word for `iversion`. File systems that count versions do so always; ext4 did not before Linux 6.1 and has
/// a parameter for it. `silent` keeps the kernel from writing to its log why a mount failed, which it never does
/// for fsopen.
const NOTHING: &[&str] = &["defaults", "silent", "loud"];

const PROPAGATION: &[(&str, u64)] = &[
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("private", libc::MS_PRIVATE),
    ("unbindable", libc::MS_UNBINDABLE),
];

/// A mount's options, understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub(super) struct MountOptions {
    pub(super) attributes: Attributes,
    pub(super) recursive_attributes: Attributes,
    /// `noatime` and `strictatime`, as far as they stand: there may be both.
    times: u64,
    /// `relatime`, unless `norelatime` stands behind it.
    relative: bool,
    /// `remount`: a mount that is there is changed.
    pub(super) remount: bool,
    /// `iversion`, unless `noiversion` stands behind it.
    pub(super) versions: bool,
    /// `bind` or `rbind`.
    pub(super) bind: bool,
    pub(super) bind_recursive: bool,
    /// `MS_SHARED` and the like, or 0.
    pub(super) propagation: u64,
    pub(super) propagation_recursive: bool,
    pub(super) copy_up: bool,
    /// `idmap`, `ridmap`
    pub(super) idmap: Option<IdmapOption>,
    /// For the file system: its own flags, and what is not known here.
    pub(super) data: Vec<(String, Option<String>)>,
}

/// `idmap`, or `ridmap` for the mounts below too; with crun's `=uids=...;gids=...` the maps themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct IdmapOption {
    pub(super) recursive: bool,
    pub(super) maps: Option<String>,
}

impl MountOptions {
    /// What a word on access times leads to. mount(2) takes several, and runc hands them over as they are: strictatime
    /// comes before noatime, and that before relatime, in whatever order they stand.
    fn access_time(&mut self, word: &str) -> u64 {
        match word {
            "noatime" => self.times |= NOATIME,
            "atime" => self.times &= !NOATIME,
            "strictatime" => self.times |= STRICTATIME,
            "nostrictatime" => self.times &= !STRICTATIME,
            _ => {}
        }
        if self.times & STRICTATIME != 0 { STRICTATIME } else { self.times }
    }

    /// Makes the recursive attributes ones of the mount itself; they win, as they are applied last.
    pub(super) fn fold_recursive(&mut self) {
        let Attributes { set, clear } = std::mem::take(&mut self.recursive_attributes);
        apply(&mut self.attributes, set, clear);
    }

    /// What `mount --options remount` makes of a mount: it has these attributes and no others, but for its way with access
    /// times, which stays unless there is a word on it (mount(2), `MS_REMOUNT`).
    pub(super) fn remounted(&self) -> Attributes {
        const ALL: u64 = RDONLY | NOSUID | NODEV | NOEXEC;
        let Attributes { set, clear } = self.attributes;
        let times = if (set | clear) & (ATIME | NODIRATIME) == 0 { 0 } else { ATIME | NODIRATIME };
        Attributes { set, clear: (ALL | times | clear) & !(set & !ATIME) }
    }

    /// What a bind mount gets, and which attributes of its source it loses: with a word on any of them mount(2) remounts it,
    /// and what is not listed then goes (runc; unlike mount(8)). Its way with access times stays, unless a word asks for
    /// one; the words against one ask for none.
    pub(super) fn bound(&self) -> (Attributes, u64) {
        const ALL: u64 = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW;
        const TIMES: u64 = ATIME | NODIRATIME;
        if self.attributes.is_empty() {
            return (self.attributes, 0);
        }
        let Attributes { mut set, mut clear } = self.attributes;
        if self.times != 0 || self.relative || set & NODIRATIME != 0 {
            clear |= TIMES & !(set & NODIRATIME);
        } else {
            (set, clear) = (set & !TIMES, clear & !TIMES);
        }
        (Attributes { set, clear }, ALL & !(set | clear))
    }

    /// What a remounted file system is no more unless it is listed again; `dirsync` stays (`MS_RMT_MASK`).
    pub(super) fn unlisted(&self) -> impl Iterator<Item = &'static str> {
        let listed = |flag: &str| self.data.iter().any(|(name, _)| name == flag);
        SUPERBLOCK_OFF.iter().filter(move |(_, on)| *on != "mand" && !listed(on)).map(|(off, _)| *off)
    }
}

/// Reads options in order; a later one wins over an earlier one, but see [`MountOptions::access_time`].
pub(super) fn parse<S: AsRef<str>>(options: &[S]) -> MountOptions {
    let mut parsed = MountOptions::default();
    for option in options {
        take(&mut parsed, option.as_ref());
    }
    parsed
}

fn take(parsed: &mut MountOptions, option: &str) {
    if let Some(&(_, set, clear)) = ATTRIBUTES.iter().find(|(name, ..)| *name == option) {
        let set = if clear == ATIME { parsed.access_time(option) } else { set };
        parsed.relative = option == "relatime" || parsed.relative && option != "norelatime";
        apply(&mut parsed.attributes, set, clear);
    } else if RECURSIVE.contains(&option)
        && let Some(&(_, set, clear)) = ATTRIBUTES.iter().find(|(name, ..)| Some(*name) == option.strip_prefix('r'))
    {
        apply(&mut parsed.recursive_attributes, set, clear);
    } else if let Some((_, on)) = SUPERBLOCK_OFF.iter().find(|(off, _)| *off == option) {
        parsed.data.retain(|(flag, _)| flag != on);
    } else if let Some((flag, recursive)) = propagation(option) {
        (parsed.propagation, parsed.propagation_recursive) = (flag, recursive);
    } else {
        match option {
            "bind" => parsed.bind = true,
            "rbind" => (parsed.bind, parsed.bind_recursive) = (true, true),
            "tmpcopyup" | "copy-up" => parsed.copy_up = true,
            idmap if is_idmap(idmap) => {
                let (name, maps) = idmap.split_once('=').unwrap_or((idmap, ""));
                let maps = (!maps.is_empty()).then(|| maps.to_owned());
                parsed.idmap = Some(IdmapOption { recursive: name == "ridmap", maps });
            }
            "remount" => parsed.remount = true,
            "iversion" | "noiversion" => parsed.versions = option == "iversion",
            "" => {}
            known if NOTHING.contains(&known) => {}
            flag if SUPERBLOCK.contains(&flag) => parsed.data.push((flag.to_owned(), None)),
            data => parsed.data.push(match data.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (data.to_owned(), None),
            }),
        }
    }
}

fn is_idmap(option: &str) -> bool {
    matches!(option.split_once('=').map_or(option, |(name, _)| name), "idmap" | "ridmap")
}

/// The name of a propagation, and whether it is the recursive form.
pub(super) fn propagation(option: &str) -> Option<(u64, bool)> {
    let flag = |wanted: &str| PROPAGATION.iter().find(|(name, _)| *name == wanted).map(|(_, flag)| *flag);
    match flag(option) {
        Some(found) => Some((found, false)),
        None => option.strip_prefix('r').and_then(flag).map(|found| (found, true)),
    }
}

/// A later option undoes an earlier one of its group.
fn apply(attributes: &mut Attributes, set: u64, clear: u64) {
    attributes.set = attributes.set & !clear | set;
    // The whole atime mask must be cleared with any mode of it (mount_setattr(2)).
    attributes.clear = attributes.clear & !set | clear;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(options: &[&str]) -> (u64, u64) {
        let parsed = parse(options);
        (parsed.attributes.set, parsed.attributes.clear)
    }

    #[test]
    fn later_options_win() {
        assert_eq!(attributes(&["ro", "nosuid"]), (RDONLY | NOSUID, 0));
        assert_eq!(attributes(&["ro", "rw"]), (0, RDONLY));
        assert_eq!(attributes(&["rw", "ro"]), (RDONLY, 0));
        assert_eq!(attributes(&["noatime"]), (NOATIME, ATIME));
    }

    #[test]
    fn of_words_on_access_times_the_strongest_wins_as_in_mount_2() {
        for (options, mode) in [
            (&["noatime", "strictatime"][..], STRICTATIME),
            (&["strictatime", "noatime"], STRICTATIME),
            (&["strictatime", "relatime"], STRICTATIME),
            (&["noatime", "relatime"], NOATIME),
            (&["noatime", "norelatime"], NOATIME),
            (&["noatime", "atime"], RELATIME),
            (&["noatime", "strictatime", "nostrictatime"], NOATIME),
            (&["strictatime", "nostrictatime"], RELATIME),
            (&["relatime"], RELATIME),
        ] {
            assert_eq!(attributes(options), (mode, ATIME), "{options:?}");
        }
    }

    #[test]
    fn a_remounted_mount_has_what_is_listed_and_no_more() {
        let remounted = |options: &[&str]| parse(options).remounted();
        assert_eq!(remounted(&["remount"]), Attributes { set: 0, clear: RDONLY | NOSUID | NODEV | NOEXEC });
        assert_eq!(remounted(&["remount", "ro", "nodev"]).set, RDONLY | NODEV);
        assert_eq!(remounted(&["remount", "ro", "nodev"]).clear, NOSUID | NOEXEC);
        let times = remounted(&["noatime"]);
        assert_eq!((times.set, times.clear & ATIME, times.clear & NODIRATIME), (NOATIME, ATIME, NODIRATIME));
        assert_eq!(remounted(&["nodiratime"]).clear & (ATIME | NODIRATIME), ATIME);
    }

    #[test]
    fn a_bind_loses_what_is_not_listed_once_anything_is() {
        let bound = |options: &[&str]| {
            let (attributes, unlisted) = parse(options).bound();
            (attributes.set, attributes.clear, unlisted)
        };
        let all = RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW;
        assert_eq!(bound(&["rbind", "rslave"]), (0, 0, 0));
        assert_eq!(bound(&["bind", "ro"]), (RDONLY, 0, all & !RDONLY));
        assert_eq!(bound(&["bind", "rw", "nosuid"]), (NOSUID, RDONLY, all & !(RDONLY | NOSUID)));
        for words_against in ["atime", "norelatime", "nostrictatime", "diratime"] {
            assert_eq!(bound(&["bind", words_against]), (0, 0, all), "{words_against}");
        }
        assert_eq!(bound(&["bind", "relatime"]), (RELATIME, ATIME | NODIRATIME, all));
        assert_eq!(bound(&["bind", "noatime"]), (NOATIME, ATIME | NODIRATIME, all));
        assert_eq!(bound(&["bind", "nodiratime"]), (NODIRATIME, ATIME, all));
    }

    #[test]
    fn flags_of_the_file_system_and_their_opposites() {
        let flags = |options: &[&str]| {
            let parsed = parse(options);
            let off: Vec<_> = parsed.unlisted().collect();
            (parsed.data.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), off)
        };
        assert_eq!(flags(&["sync", "lazytime", "async"]), (vec!["lazytime".to_owned()], vec!["async"]));
        assert_eq!(flags(&["async", "sync", "silent", "loud"]), (vec!["sync".to_owned()], vec!["nolazytime"]));
        assert!(parse(&["noiversion", "iversion"]).versions && !parse(&["iversion", "noiversion"]).versions);
    }

    #[test]
    fn recursive_forms_are_their_own() {
        let parsed = parse(&["rro", "rnosuid", "bind", "rslave"]);
        assert_eq!(parsed.recursive_attributes.set, RDONLY | NOSUID);
        assert!(parsed.attributes.is_empty());
        assert!(parsed.bind && !parsed.bind_recursive);
        assert_eq!((parsed.propagation, parsed.propagation_recursive), (libc::MS_SLAVE, true));
    }

    #[test]
    fn every_recursive_name_is_known() {
        for name in RECURSIVE {
            let parsed = parse(&[name]);
            assert!(parsed.data.is_empty() && !parsed.recursive_attributes.is_empty(), "{name}");
        }
    }

    #[test]
    fn unknown_options_are_the_file_systems() {
        let parsed = parse(&["mode=755", "newinstance", "sync", "size=64k", "context=\"a,b\"", "defaults"]);
        let some = |key: &str, value: &str| (key.to_owned(), Some(value.to_owned()));
        let expected = vec![
            some("mode", "755"),
            ("newinstance".to_owned(), None),
            ("sync".to_owned(), None),
            some("size", "64k"),
            some("context", "\"a,b\""),
        ];
        assert_eq!(parsed.data, expected);
    }
}
