//! What the specification knows and this flint does not do yet: refused, each with its field, never ignored.

use crate::bundle::Bundle;
use crate::{Error, Result};

fn refuse(field: &str, present: bool) -> Result<()> {
    if present {
        return Err(Error::unsupported(format!("{field} is not supported by this version of flint")));
    }
    Ok(())
}

pub(super) fn check(bundle: &Bundle) -> Result<()> {
    let spec = bundle.spec();
    refuse("vm", spec.vm().is_some())?;
    refuse("windows", spec.windows().is_some())?;
    refuse("solaris", spec.solaris().is_some())?;
    refuse("zos", spec.zos().is_some())?;
    refuse("freebsd", has_section(bundle.json(), "freebsd"))
}

/// Whether a config.json has a section that oci-spec does not know. It is read again only where the word is in it.
fn has_section(json: &[u8], name: &str) -> bool {
    let key = format!("\"{name}\"");
    if !std::str::from_utf8(json).is_ok_and(|text| text.contains(&key)) {
        return false;
    }
    let config: serde_json::Value = serde_json::from_slice(json).unwrap_or_default();
    config.get(name).is_some_and(|section| !section.is_null())
}
