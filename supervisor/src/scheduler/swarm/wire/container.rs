//! `ContainerSpec`: what a task of a service runs.

use std::collections::BTreeMap;

use super::task::Driver;
use super::{BoolValue, Empty, Span};

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ContainerSpec {
    #[prost(string, tag = "1")]
    pub image: String,
    #[prost(btree_map = "string, string", tag = "2")]
    pub labels: BTreeMap<String, String>,
    #[prost(string, repeated, tag = "3")]
    pub command: Vec<String>,
    #[prost(string, repeated, tag = "4")]
    pub args: Vec<String>,
    #[prost(string, repeated, tag = "5")]
    pub env: Vec<String>,
    #[prost(string, tag = "6")]
    pub dir: String,
    #[prost(string, tag = "7")]
    pub user: String,
    #[prost(message, repeated, tag = "8")]
    pub mounts: Vec<Mount>,
    #[prost(message, optional, tag = "9")]
    pub stop_grace_period: Option<Span>,
    #[prost(message, optional, tag = "10")]
    pub pull_options: Option<PullOptions>,
    #[prost(string, repeated, tag = "11")]
    pub groups: Vec<String>,
    #[prost(message, repeated, tag = "12")]
    pub secrets: Vec<Reference>,
    #[prost(bool, tag = "13")]
    pub tty: bool,
    #[prost(string, tag = "14")]
    pub hostname: String,
    #[prost(message, optional, tag = "15")]
    pub dns_config: Option<DnsConfig>,
    #[prost(message, optional, tag = "16")]
    pub healthcheck: Option<HealthConfig>,
    #[prost(string, repeated, tag = "17")]
    pub hosts: Vec<String>,
    #[prost(bool, tag = "18")]
    pub open_stdin: bool,
    #[prost(bool, tag = "19")]
    pub read_only: bool,
    #[prost(string, tag = "20")]
    pub stop_signal: String,
    #[prost(message, repeated, tag = "21")]
    pub configs: Vec<Reference>,
    #[prost(message, optional, tag = "22")]
    pub privileges: Option<Privileges>,
    #[prost(message, optional, tag = "23")]
    pub init: Option<BoolValue>,
    #[prost(int32, tag = "24")]
    pub isolation: i32,
    #[prost(int64, tag = "25")]
    pub pids_limit: i64,
    #[prost(btree_map = "string, string", tag = "26")]
    pub sysctls: BTreeMap<String, String>,
    #[prost(string, repeated, tag = "27")]
    pub capability_add: Vec<String>,
    #[prost(string, repeated, tag = "28")]
    pub capability_drop: Vec<String>,
    #[prost(message, repeated, tag = "29")]
    pub ulimits: Vec<Ulimit>,
    #[prost(int64, tag = "30")]
    pub oom_score_adj: i64,
}

/// Its Debug shows nothing: it is a password.
#[derive(Clone, PartialEq, Eq, prost::Message)]
#[prost(skip_debug)]
pub struct PullOptions {
    #[prost(string, tag = "64")]
    pub registry_auth: String,
}

impl std::fmt::Debug for PullOptions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("PullOptions")
    }
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DnsConfig {
    #[prost(string, repeated, tag = "1")]
    pub nameservers: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub search: Vec<String>,
    #[prost(string, repeated, tag = "3")]
    pub options: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Ulimit {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int64, tag = "2")]
    pub soft: i64,
    #[prost(int64, tag = "3")]
    pub hard: i64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HealthConfig {
    #[prost(string, repeated, tag = "1")]
    pub test: Vec<String>,
    #[prost(message, optional, tag = "2")]
    pub interval: Option<Span>,
    #[prost(message, optional, tag = "3")]
    pub timeout: Option<Span>,
    #[prost(int32, tag = "4")]
    pub retries: i32,
    #[prost(message, optional, tag = "5")]
    pub start_period: Option<Span>,
    #[prost(message, optional, tag = "6")]
    pub start_interval: Option<Span>,
}

/// `Mount.MountType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum MountKind {
    Bind = 0,
    Volume = 1,
    Tmpfs = 2,
    Npipe = 3,
    Cluster = 4,
}

/// `Mount.BindOptions.MountPropagation`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum MountPropagation {
    Rprivate = 0,
    Private = 1,
    Rshared = 2,
    Shared = 3,
    Rslave = 4,
    Slave = 5,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Mount {
    #[prost(enumeration = "MountKind", tag = "1")]
    pub kind: i32,
    #[prost(string, tag = "2")]
    pub source: String,
    #[prost(string, tag = "3")]
    pub target: String,
    #[prost(bool, tag = "4")]
    pub readonly: bool,
    #[prost(message, optional, tag = "5")]
    pub bind_options: Option<BindOptions>,
    #[prost(message, optional, tag = "6")]
    pub volume_options: Option<VolumeOptions>,
    #[prost(message, optional, tag = "7")]
    pub tmpfs_options: Option<TmpfsOptions>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
#[allow(clippy::struct_excessive_bools, reason = "swarmkit's fields")]
pub struct BindOptions {
    #[prost(enumeration = "MountPropagation", tag = "1")]
    pub propagation: i32,
    #[prost(bool, tag = "2")]
    pub nonrecursive: bool,
    #[prost(bool, tag = "3")]
    pub createmountpoint: bool,
    #[prost(bool, tag = "4")]
    pub readonlynonrecursive: bool,
    #[prost(bool, tag = "5")]
    pub readonlyforcerecursive: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct VolumeOptions {
    #[prost(bool, tag = "1")]
    pub nocopy: bool,
    #[prost(btree_map = "string, string", tag = "2")]
    pub labels: BTreeMap<String, String>,
    #[prost(message, optional, tag = "3")]
    pub driver_config: Option<Driver>,
    #[prost(string, tag = "4")]
    pub subpath: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct TmpfsOptions {
    #[prost(int64, tag = "1")]
    pub size_bytes: i64,
    /// Go's os.FileMode: the sticky bit is 1 << 20.
    #[prost(uint32, tag = "2")]
    pub mode: u32,
    #[prost(string, tag = "3")]
    pub options: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FileTarget {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub gid: String,
    /// Go's os.FileMode.
    #[prost(uint32, tag = "4")]
    pub mode: u32,
}

/// `SecretReference` and `ConfigReference`, which have these fields in common.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Reference {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(message, optional, tag = "3")]
    pub file: Option<FileTarget>,
    #[prost(message, optional, tag = "4")]
    pub runtime: Option<Empty>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Privileges {
    #[prost(message, optional, tag = "1")]
    pub credential_spec: Option<Empty>,
    #[prost(message, optional, tag = "2")]
    pub selinux_context: Option<SelinuxContext>,
    #[prost(message, optional, tag = "3")]
    pub seccomp: Option<SeccompOptions>,
    #[prost(message, optional, tag = "4")]
    pub apparmor: Option<AppArmorOptions>,
    #[prost(bool, tag = "5")]
    pub no_new_privileges: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SelinuxContext {
    #[prost(bool, tag = "1")]
    pub disable: bool,
    #[prost(string, tag = "2")]
    pub user: String,
    #[prost(string, tag = "3")]
    pub role: String,
    #[prost(string, tag = "4")]
    pub kind: String,
    #[prost(string, tag = "5")]
    pub level: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SeccompOptions {
    /// 0 the default profile, 1 none, 2 `profile`.
    #[prost(int32, tag = "1")]
    pub mode: i32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct AppArmorOptions {
    /// 0 the default profile, 1 none.
    #[prost(int32, tag = "1")]
    pub mode: i32,
}
