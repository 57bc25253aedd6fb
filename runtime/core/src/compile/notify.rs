//! sd_notify(3): the folder with the container's own notify socket, and what tells the program of it.

use oci_spec::runtime::Mount as SpecMount;

use super::Compiler;
use super::mounts::Entry;
use crate::Result;
use flint_init::plan::Mount;

/// Where the folder is inside the container; runc's choice.
const INSIDE: &str = "/run/notify";
/// What the program finds in its environment.
pub(super) const VARIABLE: &str = "NOTIFY_SOCKET=/run/notify/notify.sock";

impl Compiler<'_> {
    /// Binds the folder of the container's notify socket, after all that config.json mounts.
    pub(super) fn notify_mount(&mut self) -> Result<()> {
        let Some(folder) = self.notify_folder.clone() else { return Ok(()) };
        if !self.namespaces.has(libc::CLONE_NEWNS) {
            self.warnings.push(
                "NOTIFY_SOCKET is not passed on: the container has no mount namespace of its own to mount it in"
                    .to_owned(),
            );
            self.notify_folder = None;
            return Ok(());
        }
        let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
        let mut mount = SpecMount::default();
        mount.set_destination(INSIDE.into()).set_source(Some(folder)).set_typ(None).set_options(Some(options));
        let mut warnings = Vec::new();
        let entry = Entry::read(Mount::OWN, &mount, |_| None, &mut warnings)?;
        self.bind(&entry, self.namespaces.has_user() && !self.host.caller.is_unprivileged())
    }
}
