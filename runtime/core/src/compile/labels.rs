//! Labels of the security modules: `process.apparmorProfile`, `process.selinuxLabel`, `linux.mountLabel`.

use std::path::Path;

use flint_init::plan::{Step, Text};
use oci_spec::runtime::Process;

use super::Compiler;
use crate::plan::SlotSource;
use crate::{Error, Result};

/// Which of the security modules the kernel runs. Looked at only where config.json asks for one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Modules {
    pub(super) apparmor: bool,
    pub(super) selinux: bool,
}

impl Modules {
    pub(super) fn detect() -> Self {
        let enabled = std::fs::read("/sys/module/apparmor/parameters/enabled");
        Self {
            apparmor: enabled.is_ok_and(|text| text.first() == Some(&b'Y')),
            // selinuxfs is there once a policy is loaded.
            selinux: Path::new("/sys/fs/selinux/enforce").exists(),
        }
    }
}

fn given(label: Option<&String>) -> Option<&str> {
    label.map(String::as_str).filter(|label| !label.is_empty())
}

/// AppArmor's own file came with Linux 5.8; before, it shared that of SELinux.
const APPARMOR: [&str; 2] = ["self/attr/apparmor/exec", "self/attr/exec"];
const SELINUX: &str = "self/attr/exec";
const SELINUX_KEYS: &str = "self/attr/keycreate";

impl Compiler<'_> {
    /// The labels that the program gets when it is executed. Early, as under runc: the host's procfs need not stay open then. Written through the host's procfs: what the image has
    /// at /proc could take the write and do nothing (CVE-2019-16884, CVE-2025-52881).
    pub(super) fn labels(&mut self, process: &Process, modules: impl Fn() -> Modules) -> Result<()> {
        if let Some(profile) = given(process.apparmor_profile().as_ref()) {
            if !modules().apparmor {
                return Err(Error::unsupported(format!(
                    "process.apparmorProfile {profile:?}: AppArmor is not enabled on this host: leave the profile out"
                )));
            }
            let value = self.tables.text("process.apparmorProfile", format!("exec {profile}"))?;
            self.label("process.apparmorProfile", &APPARMOR, value)?;
        }
        if let Some(label) = given(process.selinux_label().as_ref()) {
            require_selinux(modules(), "process.selinuxLabel", label)?;
            let value = self.tables.text("process.selinuxLabel", label)?;
            self.label("process.selinuxLabel", &[SELINUX], value)?;
        }
        Ok(())
    }

    /// The label of a session keyring that is made next; to be taken back after it.
    pub(super) fn keyring_label(&mut self, process: &Process) -> Result<bool> {
        let Some(label) = given(process.selinux_label().as_ref()) else { return Ok(false) };
        require_selinux(Modules::detect(), "process.selinuxLabel", label)?;
        let value = self.tables.text("process.selinuxLabel", label)?;
        self.label("process.selinuxLabel", &[SELINUX_KEYS], value)?;
        Ok(true)
    }

    /// Later keys are the program's own business again.
    pub(super) fn no_keyring_label(&mut self) -> Result<()> {
        let value = self.tables.text("process.selinuxLabel", "\n")?;
        self.label("process.selinuxLabel", &[SELINUX_KEYS], value)
    }

    fn label(&mut self, field: &str, files: &[&str], value: Text) -> Result<()> {
        let proc = self.tables.slot(SlotSource::Proc);
        let mut texts = files.iter().map(|file| self.tables.text(field, *file));
        let file = texts.next().transpose()?.unwrap_or(Text::NONE);
        let older = texts.next().transpose()?.unwrap_or(Text::NONE);
        self.tables.push(Step::Label { proc, file, older, value });
        Ok(())
    }

    /// `linux.mountLabel` as an option of a new file system; procfs and sysfs have no files to label.
    pub(super) fn mount_label(
        &self,
        kind: &str,
        modules: impl Fn() -> Modules,
    ) -> Result<Option<(&'static str, String)>> {
        const UNLABELLED: [&str; 5] = ["proc", "sysfs", "cgroup", "cgroup2", "mqueue"];
        let Some(label) = given(self.linux.and_then(|linux| linux.mount_label().as_ref())) else { return Ok(None) };
        require_selinux(modules(), "linux.mountLabel", label)?;
        Ok((!UNLABELLED.contains(&kind)).then(|| (self.annotations.context, label.to_owned())))
    }
}

fn require_selinux(modules: Modules, field: &str, label: &str) -> Result<()> {
    if modules.selinux {
        return Ok(());
    }
    Err(Error::unsupported(format!("{field} {label:?}: SELinux is not enabled on this host: leave the label out")))
}
