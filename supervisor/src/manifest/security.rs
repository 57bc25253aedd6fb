//! Who containers run as, and what they may do.

use std::collections::BTreeMap;

use super::fields::{APP_ARMOR_PROFILE, CAPABILITIES, POD_SECURITY_CONTEXT, SECCOMP_PROFILE, SECURITY_CONTEXT, SYSCTL};
use super::reading::Fields;
use crate::desired::{SeccompProfile, SecurityContext, User, VolumeGroup};

/// Ids of users and groups that Kubernetes takes.
const MOST_ID: i64 = i32::MAX as i64;

/// The pod's part, which holds where a container says nothing else.
#[derive(Debug, Clone, Default)]
pub(super) struct PodSecurity {
    user: Option<i64>,
    group: Option<i64>,
    must_not_be_root: bool,
    groups: Vec<u32>,
    seccomp: Option<SeccompProfile>,
    pub(super) volume_group: Option<VolumeGroup>,
    pub(super) sysctls: BTreeMap<String, String>,
}

impl PodSecurity {
    pub(super) fn read(spec: &Fields<'_>, host_network: bool, host_ipc: bool) -> Self {
        let Some(fields) = spec.fields("securityContext", &POD_SECURITY_CONTEXT) else { return Self::default() };
        app_armor(&fields);
        fields.word("supplementalGroupsPolicy", &[("Merge", ())]);
        let only_on_mismatch =
            fields.word("fsGroupChangePolicy", &[("Always", false), ("OnRootMismatch", true)]).unwrap_or(false);
        let volume_group =
            fields.integer("fsGroup", 0, MOST_ID).map(|gid| VolumeGroup { gid: gid as u32, only_on_mismatch });
        let mut groups = Vec::new();
        if let Some((at, value)) = fields.get("supplementalGroups") {
            groups.extend(at.items(value).iter().filter_map(|(at, id)| at.integer(id, 0, MOST_ID)).map(|id| id as u32));
        }
        // The group of the volumes is one of everybody's, else nobody could read them.
        groups.extend(volume_group.map(|group| group.gid).filter(|gid| !groups.contains(gid)));
        Self {
            user: fields.integer("runAsUser", 0, MOST_ID),
            group: fields.integer("runAsGroup", 0, MOST_ID),
            must_not_be_root: fields.boolean("runAsNonRoot").unwrap_or(false),
            groups,
            seccomp: seccomp(&fields),
            volume_group,
            sysctls: sysctls(&fields, host_network, host_ipc),
        }
    }

    /// A container's, from its own part and the pod's.
    pub(super) fn of_container(&self, container: &Fields<'_>) -> SecurityContext {
        let Some(fields) = container.fields("securityContext", &SECURITY_CONTEXT) else {
            let user = user(&container.at.below("securityContext"), self.user, self.group, self.must_not_be_root);
            return self.context(user, self.seccomp.clone().unwrap_or_default());
        };
        app_armor(&fields);
        fields.word("procMount", &[("Default", ())]);
        let privileged = fields.boolean("privileged").unwrap_or(false);
        let must_not_be_root = fields.boolean("runAsNonRoot").unwrap_or(self.must_not_be_root);
        let (uid, gid) = (fields.integer("runAsUser", 0, MOST_ID), fields.integer("runAsGroup", 0, MOST_ID));
        let user = user(&fields.at, uid.or(self.user), gid.or(self.group), must_not_be_root);
        // Kubernetes filters nothing for a privileged container, and so does a container that may do everything no harm by it.
        let default = if privileged { SeccompProfile::Unconfined } else { SeccompProfile::default() };
        let seccomp = seccomp(&fields).or_else(|| self.seccomp.clone()).unwrap_or(default);
        let capabilities = fields.fields("capabilities", &CAPABILITIES);
        let names = |of: &str| capabilities.as_ref().map(|fields| capability_names(fields, of)).unwrap_or_default();
        let (cap_add, cap_drop) = (names("add"), names("drop"));
        let may_escalate = fields.boolean("allowPrivilegeEscalation");
        if may_escalate == Some(false) && (privileged || cap_add.iter().any(|name| name == "SYS_ADMIN")) {
            fields
                .refuse("allowPrivilegeEscalation", "cannot be false for a privileged container or one with SYS_ADMIN");
        }
        SecurityContext {
            privileged,
            no_new_privileges: may_escalate == Some(false),
            read_only_rootfs: fields.boolean("readOnlyRootFilesystem").unwrap_or(false),
            cap_add,
            cap_drop,
            ..self.context(user, seccomp)
        }
    }

    fn context(&self, (user, must_not_be_root): (Option<String>, bool), seccomp: SeccompProfile) -> SecurityContext {
        let user = User { user, groups: self.groups.clone(), must_not_be_root };
        SecurityContext { user, seccomp, ..SecurityContext::default() }
    }
}

fn user(
    at: &super::reading::At<'_>,
    uid: Option<i64>,
    gid: Option<i64>,
    must_not_be_root: bool,
) -> (Option<String>, bool) {
    if must_not_be_root && uid == Some(0) {
        at.refuse("runAsUser 0 is root, which runAsNonRoot rules out");
    }
    if uid.is_none() && gid.is_some() {
        at.below("runAsGroup").refuse("needs runAsUser beside it: the image's user may be a name");
    }
    let user = uid.map(|uid| gid.map_or_else(|| uid.to_string(), |gid| format!("{uid}:{gid}")));
    (user, must_not_be_root)
}

fn app_armor(fields: &Fields<'_>) {
    if let Some(profile) = fields.fields("appArmorProfile", &APP_ARMOR_PROFILE) {
        profile.needed("type");
        profile.word("type", &[("Unconfined", ())]);
    }
}

fn seccomp(fields: &Fields<'_>) -> Option<SeccompProfile> {
    let profile = fields.fields("seccompProfile", &SECCOMP_PROFILE)?;
    profile.needed("type")?;
    let kind = profile.word("type", &[("RuntimeDefault", 0), ("Unconfined", 1), ("Localhost", 2)])?;
    let file = profile.string("localhostProfile");
    match kind {
        2 => {
            let file = profile.needed("localhostProfile")?;
            if file.starts_with('/') || file.split('/').any(|part| part == "..") {
                profile.refuse("localhostProfile", "is relative to the node's folder of profiles, and without ..");
            }
            Some(SeccompProfile::Localhost(file.to_owned()))
        }
        _ if file.is_some() => {
            profile.refuse("localhostProfile", "is for type Localhost");
            None
        }
        0 => Some(SeccompProfile::RuntimeDefault),
        _ => Some(SeccompProfile::Unconfined),
    }
}

fn capability_names(fields: &Fields<'_>, of: &str) -> Vec<String> {
    let Some((at, value)) = fields.get(of) else { return Vec::new() };
    let mut names = Vec::new();
    for (at, item) in at.items(value) {
        let Some(given) = at.string(item) else { continue };
        let name = given.strip_prefix("CAP_").unwrap_or(given);
        let is_good = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
        if name.is_empty() || !name.bytes().all(is_good) {
            at.refuse("is no name of a capability: NET_ADMIN, SYS_TIME, ..., ALL");
        }
        names.push(name.to_owned());
    }
    names
}

/// Those that belong to a namespace: of the network, or of IPC.
fn sysctls(fields: &Fields<'_>, host_network: bool, host_ipc: bool) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for sysctl in fields.each("sysctls", &SYSCTL) {
        let Some(name) = sysctl.needed("name") else { continue };
        let value = sysctl.string("value").unwrap_or_default();
        let name = name.replace('/', ".");
        let is_ipc = ["kernel.shm", "kernel.msg", "fs.mqueue."].iter().any(|start| name.starts_with(start))
            || name == "kernel.sem";
        let is_net = name.starts_with("net.");
        if !is_ipc && !is_net {
            sysctl.refuse(
                "name",
                "is the whole host's: only kernel.shm*, kernel.msg*, kernel.sem, fs.mqueue.* and net.* are a pod's",
            );
        } else if is_net && host_network {
            sysctl.refuse("name", "would change the host's network, which this pod uses");
        } else if is_ipc && host_ipc {
            sysctl.refuse("name", "would change the host's IPC, which this pod uses");
        }
        found.insert(name, value.to_owned());
    }
    found
}
