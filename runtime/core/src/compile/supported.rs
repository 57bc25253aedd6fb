//! What the specification knows and this flint does not do yet: refused, each with its field, never ignored.

use oci_spec::runtime::Spec;

use crate::{Error, Result};

fn refuse(field: &str, present: bool) -> Result<()> {
    if present {
        return Err(Error::unsupported(format!("{field} is not supported by this version of flint")));
    }
    Ok(())
}

pub(super) fn check(spec: &Spec) -> Result<()> {
    refuse("vm", spec.vm().is_some())?;
    refuse("windows", spec.windows().is_some())?;
    refuse("solaris", spec.solaris().is_some())?;
    refuse("zos", spec.zos().is_some())
}
