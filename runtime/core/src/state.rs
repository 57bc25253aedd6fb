//! What a container's folder remembers of it: state.json, and the state that commands show.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::cgroup;
use crate::compile::CompileOptions;
use crate::resctrl;
use crate::{Error, Kind, Result};

/// Version of the record. A reader takes this and older ones; a newer one is refused.
pub(crate) const VERSION: u32 = 1;

/// How far the container's making has come. What happens to its process afterwards is asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// `create` is at work, or was killed.
    Creating,
    /// init waits for `start`.
    Created,
    /// `start` has released init.
    Running,
    /// `run` makes and starts it in one go: created while `run` holds the lock, running afterwards.
    Starting,
}

/// state.json: written whole before each thing that must not be forgotten.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Record {
    pub(crate) version: u32,
    pub(crate) id: String,
    pub(crate) phase: Phase,
    /// init's pid in the runtime's pid namespace; 0 before the clone.
    pub(crate) pid: i32,
    /// init's start time in clock ticks since boot (proc_pid_stat(5), field 22): tells a reused pid.
    pub(crate) start_time: u64,
    pub(crate) oci_version: String,
    pub(crate) bundle: PathBuf,
    pub(crate) rootfs: PathBuf,
    pub(crate) created: String,
    pub(crate) owner: u32,
    pub(crate) annotations: BTreeMap<String, String>,
    pub(crate) cgroup: cgroup::Paths,
    /// Its class of service (resctrl), if config.json has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resctrl: Option<resctrl::Group>,
    /// What the plan was compiled with: `start` compiles it again to name the step that failed.
    pub(crate) options: CompileOptions,
    /// Whether poststart or poststop hooks must be looked for in the saved config.json.
    pub(crate) late_hooks: bool,
    /// Whether it shares a pid namespace: then the end of its init does not end its other processes.
    #[serde(default)]
    pub(crate) shares_pids: bool,
    /// What init's standard descriptors were before its program ran (`pipe:[123]`): a checkpoint finds pipes by it.
    #[serde(default)]
    pub(crate) stdio: Vec<String>,
    /// The user namespace that init was made in, as procfs names it (`user:[4026531837]`); `None` where it could not be read, and
    /// in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user_namespace: Option<String>,
    /// Whether CRIU has given it a time namespace, which config.json knows nothing of.
    #[serde(default)]
    pub(crate) restored_time: bool,
}

impl Record {
    /// Reads a record.
    ///
    /// # Errors
    ///
    /// A record of a newer version, or one that is damaged.
    pub(crate) fn from_json(json: &[u8]) -> Result<Self> {
        /// Read first and alone: a newer record may differ in everything else.
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let damaged = |error: serde_json::Error| Error::invalid(format!("state.json is damaged: {error}"));
        let Versioned { version } = serde_json::from_slice(json).map_err(damaged)?;
        if version > VERSION {
            return Err(Error::unsupported(format!(
                "state.json has version {version}, this flint reads up to {VERSION}: use the newer flint that made the container"
            )));
        }
        serde_json::from_slice(json).map_err(damaged)
    }
}

/// What a container is doing (runtime-spec, "State").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is at work.
    Creating,
    /// Made; waits for `start`.
    Created,
    /// The program runs.
    Running,
    /// All its processes are frozen, by `pause`.
    Paused,
    /// The program has ended, or the making was broken off.
    Stopped,
}

impl Status {
    /// The word of the specification.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        }
    }
}

/// A container's state, as `flint state` prints it (runtime-spec, "State", with runc's additions).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// The specification's version that the container follows.
    pub oci_version: String,
    /// Its id.
    pub id: String,
    /// init's pid on the host; 0 when stopped.
    pub pid: i32,
    /// What it is doing.
    pub status: Status,
    /// Its bundle, absolute.
    pub bundle: PathBuf,
    /// Its root filesystem, absolute.
    pub rootfs: PathBuf,
    /// When it was made: RFC 3339, UTC, nanoseconds.
    pub created: String,
    /// config.json's annotations.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The user who made it; filled by [`crate::Runtime::list`] alone.
    pub owner: String,
}

impl State {
    pub(crate) fn of(record: &Record, status: Status) -> Self {
        Self {
            oci_version: record.oci_version.clone(),
            id: record.id.clone(),
            pid: if status == Status::Stopped { 0 } else { record.pid },
            status,
            bundle: record.bundle.clone(),
            rootfs: record.rootfs.clone(),
            created: record.created.clone(),
            annotations: record.annotations.clone(),
            // As in runc, only `list` looks the name up.
            owner: String::new(),
        }
    }

    /// What hooks read on their standard input: the specification's members alone.
    pub(crate) fn hook_json(record: &Record, status: Status, pid: i32) -> Result<Vec<u8>> {
        /// The specification's state.
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct HookState<'a> {
            oci_version: &'a str,
            id: &'a str,
            status: Status,
            #[serde(skip_serializing_if = "is_zero")]
            pid: i32,
            bundle: &'a std::path::Path,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            annotations: &'a BTreeMap<String, String>,
        }
        #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
        fn is_zero(pid: &i32) -> bool {
            *pid == 0
        }
        let state = HookState {
            oci_version: &record.oci_version,
            id: &record.id,
            status,
            pid,
            bundle: &record.bundle,
            annotations: &record.annotations,
        };
        serde_json::to_vec(&state).map_err(|error| Error::new(Kind::System, format!("encode the state: {error}")))
    }
}

/// The user's name, or the number when it has none.
pub(crate) fn owner_name(uid: u32) -> String {
    if uid == 0 {
        return "root".to_owned();
    }
    match nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    }
}

/// Now, as RFC 3339 in UTC with nanoseconds.
pub(crate) fn now() -> String {
    rfc3339_of(std::time::SystemTime::now())
}

/// A time as RFC 3339 in UTC with nine digits of the second, as logs and states have it. One before 1970 is 1970.
#[must_use]
pub fn rfc3339_of(time: std::time::SystemTime) -> String {
    let since_epoch = time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    rfc3339(since_epoch.as_secs(), since_epoch.subsec_nanos())
}

/// Days are turned into a date by the civil calendar's 400-year cycle of 146,097 days, counted from 1 March.
fn rfc3339(seconds: u64, nanoseconds: u32) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanoseconds:09}Z")
}

/// A record with all that a record may have, to be damaged.
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) fn whole() -> serde_json::Value {
    serde_json::json!({"version": 1, "id": "c1", "phase": "running", "pid": 12, "startTime": 99,
        "ociVersion": "1.0.2", "bundle": "/b", "rootfs": "/b/rootfs", "created": "2024-02-29T00:00:00Z",
        "owner": 0, "annotations": {"a": "b"},
        "cgroup": {"v1": {"cpu,cpuacct": "/sys/fs/cgroup/cpu,cpuacct/c1"}, "unified": "/sys/fs/cgroup/unified/c1"},
        "options": {"id": "c1", "consoleSocket": false, "noPivot": false, "newKeyring": true,
            "preserveFds": 0, "listenFds": 0, "waitOnSocket": true},
        "lateHooks": false, "sharesPids": true, "stdio": ["pipe:[1]", "", ""]})
}

/// What must hold of any state.json: refused with a sentence, or what is written back is read as the same.
///
/// # Panics
///
/// When it does not hold.
#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::must_use_candidate, reason = "what counts is that it returns")]
pub fn check(json: &[u8]) -> crate::fuzzing::Verdict {
    match Record::from_json(json) {
        Ok(record) => {
            let written = serde_json::to_value(&record).expect("a record is JSON");
            let again = Record::from_json(written.to_string().as_bytes()).expect("what was written is read");
            assert_eq!(serde_json::to_value(&again).expect("a record is JSON"), written);
            crate::fuzzing::Verdict::Taken
        }
        Err(error) => {
            assert!(error.to_string().contains("state.json "), "{error}");
            crate::fuzzing::Verdict::Refused
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Record, check, rfc3339, whole};
    use crate::Kind;
    use crate::fuzzing::{Verdict, corpus};
    use crate::mutation::{Random, runs, seed};

    #[test]
    fn dates() {
        assert_eq!(rfc3339(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_782_400, 5), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(rfc3339(1_735_689_599, 999_999_999), "2024-12-31T23:59:59.999999999Z");
        assert_eq!(rfc3339(4_107_542_400, 0), "2100-03-01T00:00:00.000000000Z");
    }

    #[test]
    fn newer_records_are_refused_and_damaged_ones_named() {
        let newer = Record::from_json(br#"{"version": 99, "anything": true}"#).unwrap_err();
        assert_eq!(newer.kind(), Kind::Unsupported);
        assert!(newer.to_string().contains("version 99"), "{newer}");
        let damaged = Record::from_json(b"{\"version\": 1").unwrap_err();
        assert_eq!(damaged.kind(), Kind::Invalid);
    }

    #[test]
    fn damaged_records_are_refused_or_come_back_as_they_are() {
        let seeds = [whole()];
        assert_eq!(check(seeds[0].to_string().as_bytes()), Verdict::Taken);
        let (mut random, runs) = (Random(seed()), runs());
        let (mut read, mut refused) = (0, 0);
        for _ in 0..runs {
            match check(&random.document(&seeds)) {
                Verdict::Taken => read += 1,
                Verdict::Refused => refused += 1,
            }
        }
        println!("{runs} records: {read} read, {refused} refused");
        assert!(read > runs / 20 && refused > runs / 20, "the inputs show nothing: {read} read, {refused} refused");
    }

    #[test]
    fn records_of_the_corpus_are_refused_or_come_back_as_they_are() {
        for json in corpus("state_file") {
            check(&json);
        }
    }
}
