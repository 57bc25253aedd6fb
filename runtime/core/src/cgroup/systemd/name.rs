//! Names of systemd's units, and where their cgroups are: `linux.cgroupsPath` as `slice:prefix:name` (runc's
//! docs/systemd.md; systemd.unit(5), systemd.slice(5)).

use std::fmt::Write as _;

use crate::{Error, Result};

/// What stands in front of a container's id in the name of its scope.
const PREFIX: &str = "flint";
/// `UNIT_NAME_MAX` in systemd.
const LONGEST: usize = 255;
const SLICE: &str = ".slice";

/// A unit and the slice it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) unit: String,
    /// The slice above it: `machine.slice`.
    pub(super) slice: String,
    /// What the unit is called in its description: the container's name.
    pub(super) name: String,
}

impl Placed {
    /// Reads a `linux.cgroupsPath`.
    ///
    /// # Errors
    ///
    /// Another form than `slice:prefix:name`; names that systemd does not take.
    pub(super) fn parse(cgroups_path: Option<&str>, id: &str, default_slice: &str) -> Result<Self> {
        let Some(path) = cgroups_path.filter(|path| !path.is_empty()) else {
            let unit = format!("{PREFIX}-{}.scope", escape(id));
            check(&unit)?;
            return Ok(Self { unit, slice: default_slice.to_owned(), name: id.to_owned() });
        };
        let parts: Vec<&str> = path.split(':').collect();
        let [slice, prefix, name] = parts[..] else {
            return Err(Error::invalid(format!(
                "linux.cgroupsPath is {path:?}: with the systemd cgroup driver it has the form slice:prefix:name \
                 (system.slice:flint:web), or is left out",
            )));
        };
        let slice = if slice.is_empty() { default_slice } else { slice };
        expand(slice)?;
        let unit = if name.ends_with(SLICE) { name.to_owned() } else { format!("{prefix}-{name}.scope") };
        check(&unit)?;
        Ok(Self { unit, slice: slice.to_owned(), name: name.to_owned() })
    }

    pub(super) fn is_slice(&self) -> bool {
        self.unit.ends_with(SLICE)
    }

    /// Its cgroup below the manager's, relative. A slice's place follows from its own name alone.
    pub(super) fn path(&self) -> Result<String> {
        if self.is_slice() {
            return expand(&self.unit);
        }
        let slice = expand(&self.slice)?;
        Ok(if slice.is_empty() { self.unit.clone() } else { format!("{slice}/{}", self.unit) })
    }
}

/// The cgroup of a slice: `a-b.slice` is `a.slice/a-b.slice`; `-.slice` is the root.
///
/// # Errors
///
/// It is no slice's name.
pub(super) fn expand(slice: &str) -> Result<String> {
    let wrong = |what: &str| Error::invalid(format!("linux.cgroupsPath: the slice {slice:?} {what}"));
    let name = slice.strip_suffix(SLICE).ok_or_else(|| wrong("does not end in .slice"))?;
    if name == "-" {
        return Ok(String::new());
    }
    check(slice)?;
    let mut path = String::new();
    let mut end = 0;
    for part in name.split('-') {
        if part.is_empty() {
            return Err(wrong("has an empty part: each - separates a slice from the one above it"));
        }
        end += part.len();
        if !path.is_empty() {
            path.push('/');
        }
        path.push_str(&name[..end]);
        path.push_str(SLICE);
        end += 1;
    }
    Ok(path)
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte)
}

fn check(unit: &str) -> Result<()> {
    let wrong =
        |what: String| Error::invalid(format!("linux.cgroupsPath: systemd does not take the name {unit:?}: {what}"));
    if let Some(other) = unit.chars().find(|&c| !c.is_ascii() || !is_allowed(c as u8)) {
        return Err(wrong(format!("it contains {other:?}; letters, digits and : - _ . \\ @ are allowed")));
    }
    if unit.len() > LONGEST {
        return Err(wrong(format!("it is longer than {LONGEST} bytes")));
    }
    if unit.starts_with('.') {
        return Err(wrong("it is empty".to_owned()));
    }
    Ok(())
}

/// An id may contain a plus, which systemd's names may not: `\x2b`, as systemd-escape(1) writes it.
fn escape(id: &str) -> String {
    id.bytes().fold(String::with_capacity(id.len()), |mut escaped, byte| {
        if is_allowed(byte) {
            escaped.push(byte as char);
        } else {
            let _ = write!(escaped, "\\x{byte:02x}");
        }
        escaped
    })
}

/// The object of a unit on the bus: all but letters and digits as `_` and two hexadecimal digits.
pub(super) fn object(unit: &str) -> String {
    unit.bytes().fold("/org/freedesktop/systemd1/unit/".to_owned(), |mut path, byte| {
        if byte.is_ascii_alphanumeric() {
            path.push(byte as char);
        } else {
            let _ = write!(path, "_{byte:02x}");
        }
        path
    })
}

#[cfg(test)]
mod tests {
    use super::{Placed, expand, object};
    use crate::Kind;

    fn parse(path: Option<&str>) -> Placed {
        Placed::parse(path, "c1", "system.slice").unwrap()
    }

    #[test]
    fn slices_are_expanded_as_systemd_nests_them() {
        assert_eq!(expand("system.slice").unwrap(), "system.slice");
        assert_eq!(expand("a-b-c.slice").unwrap(), "a.slice/a-b.slice/a-b-c.slice");
        assert_eq!(expand("-.slice").unwrap(), "");
        for wrong in ["a", ".slice", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "../a.slice", "a\n.slice"] {
            assert_eq!(expand(wrong).unwrap_err().kind(), Kind::Invalid, "{wrong}");
        }
    }

    #[test]
    fn paths_name_a_scope_in_a_slice() {
        for none in [None, Some("")] {
            assert_eq!(parse(none).path().unwrap(), "system.slice/flint-c1.scope");
        }
        assert_eq!(parse(Some("a-b.slice:docker:x")).path().unwrap(), "a.slice/a-b.slice/docker-x.scope");
        assert_eq!(parse(Some(":docker:x")).path().unwrap(), "system.slice/docker-x.scope");
        assert_eq!(parse(Some("-.slice:p:x")).path().unwrap(), "p-x.scope");
        let slice = parse(Some("a.slice:p:a-x.slice"));
        assert_eq!((slice.path().unwrap().as_str(), slice.is_slice()), ("a.slice/a-x.slice", true));
    }

    #[test]
    fn other_forms_are_refused_with_the_field() {
        for wrong in ["/machine/x", "a:b", "a.slice:b:c:d", "a:b:c", "a.slice:p:x/y", "a.slice:p:x y", "a.slice:p:x+y"]
        {
            let error = Placed::parse(Some(wrong), "c1", "system.slice").unwrap_err();
            assert!(error.kind() == Kind::Invalid && error.to_string().contains("linux.cgroupsPath"), "{error}");
        }
        let long = format!("a.slice:p:{}", "x".repeat(250));
        assert!(Placed::parse(Some(&long), "c1", "system.slice").unwrap_err().to_string().contains("255"));
    }

    #[test]
    fn an_id_is_escaped() {
        let placed = Placed::parse(None, "a+b_c", "user.slice").unwrap();
        assert_eq!(placed.path().unwrap(), "user.slice/flint-a\\x2bb_c.scope");
        assert_eq!(object("a-b.scope"), "/org/freedesktop/systemd1/unit/a_2db_2escope");
    }
}
