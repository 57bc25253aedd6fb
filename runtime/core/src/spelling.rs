//! Names of config.json that are spelled otherwise than oci-spec reads them: by the specification, or by who writes keys in
//! letters of his own.

use std::cell::{Cell, RefCell};
use std::{fmt, iter};

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
use serde_json::Value;

use crate::{Error, Result};

/// Brings a `process` object (of config.json, or of `exec --process`) to the spelling that oci-spec reads; tells whether
/// anything changed.
pub(crate) fn respell_process(process: &mut Value) -> bool {
    let mut changed = false;
    let flags = process.pointer_mut("/scheduler/flags").and_then(Value::as_array_mut);
    for flag in flags.into_iter().flatten() {
        let theirs = match flag.as_str() {
            Some("SCHED_FLAG_RESET_ON_FORK") => "SCHED_RESET_ON_FORK",
            Some("SCHED_FLAG_DL_OVERRUN") => "SCHED_FLAG_D_L_OVERRUN",
            _ => continue,
        };
        *flag = theirs.into();
        changed = true;
    }
    let affinity = process.get_mut("execCPUAffinity").and_then(Value::as_object_mut);
    for list in affinity.into_iter().flat_map(|affinity| affinity.values_mut()) {
        let Some(text) = list.as_str() else { continue };
        // Blanks and empty entries are allowed by runc, an empty list is none.
        let entries: Vec<_> = text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).collect();
        let respelled = if text.is_empty() { Value::Null } else { entries.join(",").into() };
        changed |= respelled != *list;
        *list = respelled;
    }
    changed
}

/// What came of [`read_in_any_letters`].
pub(crate) struct Reading<T> {
    pub(crate) read: std::result::Result<T, Misread>,
    /// Whether a key had other letters than its field.
    pub(crate) respelled: bool,
}

/// Why a value is no `T`, and where.
#[derive(Debug)]
pub(crate) struct Misread {
    /// `a.b[0]`; empty for the whole.
    pub(crate) path: String,
    pub(crate) message: String,
}

impl fmt::Display for Misread {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.path.is_empty() { "" } else { ": " };
        write!(formatter, "{}{separator}{}", self.path, self.message)
    }
}

/// Reads a `T`, and gives keys the letters of the fields that they stand for, as far as that was read. Go, which reads configs in
/// runc, docker and containerd, takes a key in any letters, where serde would leave it out: a limit that is then not set. Only
/// ASCII letters are taken for each other.
///
/// # Errors
///
/// `Invalid` for a field that is there twice, in different letters and with different values; objects become one.
pub(crate) fn read_in_any_letters<T: DeserializeOwned>(value: &mut Value) -> Result<Reading<T>> {
    let found = Found::default();
    let read = T::deserialize(Respelling { value, found: &found, depth: 0 });
    if let Some((field, key)) = found.twice.take() {
        return Err(Error::invalid(format!("duplicate field `{field}`: it is there as `{key}`, too")));
    }
    let read = read.map_err(|error| Misread { path: found.path(), message: error.to_string() });
    Ok(Reading { read, respelled: found.changed.get() })
}

#[derive(Default)]
struct Found {
    changed: Cell<bool>,
    twice: Cell<Option<(&'static str, String)>>,
    /// Where the reader is.
    place: RefCell<Vec<Step>>,
}

enum Step {
    Key(String),
    Index(usize),
}

impl Found {
    /// The reader is at `step` below the first `depth` ones; or past all that there were.
    fn at(&self, depth: usize, step: Option<Step>) {
        let mut place = self.place.borrow_mut();
        place.truncate(depth);
        place.extend(step);
    }

    fn path(&self) -> String {
        self.place.borrow().iter().fold(String::new(), |path, step| match step {
            Step::Key(key) if path.is_empty() => key.clone(),
            Step::Key(key) => format!("{path}.{key}"),
            Step::Index(index) => format!("{path}[{index}]"),
        })
    }
}

/// A value that is read, and changed by what the reader says of its fields.
struct Respelling<'a> {
    value: &'a mut Value,
    found: &'a Found,
    /// How many steps lead to it.
    depth: usize,
}

impl Respelling<'_> {
    fn respell(&mut self, fields: &[&'static str]) {
        let Some(members) = self.value.as_object_mut() else { return };
        let other_letters = |key: &String| {
            let field = fields.iter().find(|field| field.eq_ignore_ascii_case(key))?;
            (key != field).then(|| (key.clone(), *field))
        };
        let keys: Vec<_> = members.keys().filter_map(other_letters).collect();
        for (key, field) in keys {
            let Some(member) = members.remove(&key) else { continue };
            if !merge(members.entry(field).or_insert_with(|| member.clone()), member) {
                self.found.twice.set(Some((field, key)));
            }
            self.found.changed.set(true);
        }
    }
}

/// `read`, unless something of `rest` was not: as serde_json refuses it.
fn ended<T>(mut rest: impl Iterator, read: T, count: usize, expected: &dyn de::Expected) -> serde_json::Result<T> {
    if rest.next().is_some() {
        return Err(de::Error::invalid_length(count, expected));
    }
    Ok(read)
}

/// Adds what `from` has, as Go fills a structure that it meets twice; whether nothing of it is there with another value. For
/// Go the later one counts then.
fn merge(into: &mut Value, from: Value) -> bool {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            from.into_iter().all(|(key, value)| merge(into.entry(key).or_insert_with(|| value.clone()), value))
        }
        (into, from) => *into == from,
    }
}

impl IntoDeserializer<'_, serde_json::Error> for Respelling<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Respelling<'_> {
    type Error = serde_json::Error;

    fn deserialize_struct<V: Visitor<'de>>(
        mut self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> serde_json::Result<V::Value> {
        self.respell(fields);
        self.deserialize_any(visitor)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> serde_json::Result<V::Value> {
        let Self { value, found, depth } = self;
        let below = |value| Respelling { value, found, depth: depth + 1 };
        match value {
            Value::Object(members) => {
                let count = members.len();
                let mut members = members.iter_mut();
                let mut members = iter::from_fn(|| {
                    let member = members.next();
                    found.at(depth, member.as_ref().map(|(key, _)| Step::Key((*key).clone())));
                    member.map(|(key, value)| (key.as_str(), below(value)))
                });
                let read = visitor.visit_map(MapDeserializer::new(&mut members))?;
                ended(members, read, count, &"fewer elements in map")
            }
            Value::Array(items) => {
                let count = items.len();
                let mut items = items.iter_mut().enumerate();
                let mut items = iter::from_fn(|| {
                    let item = items.next();
                    found.at(depth, item.as_ref().map(|(index, _)| Step::Index(*index)));
                    item.map(|(_, value)| below(value))
                });
                let read = visitor.visit_seq(SeqDeserializer::new(&mut items))?;
                ended(items, read, count, &"fewer elements in array")
            }
            other => other.clone().deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> serde_json::Result<V::Value> {
        if self.value.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> serde_json::Result<V::Value> {
        self.value.clone().deserialize_enum(name, variants, visitor)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> serde_json::Result<V::Value> {
        visitor.visit_newtype_struct(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct seq tuple
        tuple_struct map identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxResources, Process, Spec};
    use serde_json::{Value, json};

    use super::{read_in_any_letters, respell_process};
    use crate::mutation::{Random, runs, seed};

    #[test]
    fn the_specifications_names_are_read() {
        let flags = [
            "SCHED_FLAG_RESET_ON_FORK",
            "SCHED_FLAG_RECLAIM",
            "SCHED_FLAG_DL_OVERRUN",
            "SCHED_FLAG_KEEP_POLICY",
            "SCHED_FLAG_KEEP_PARAMS",
            "SCHED_FLAG_UTIL_CLAMP_MIN",
            "SCHED_FLAG_UTIL_CLAMP_MAX",
        ];
        let mut process = json!({"user": {"uid": 0, "gid": 0}, "cwd": "/",
            "scheduler": {"policy": "SCHED_DEADLINE", "flags": flags},
            "execCPUAffinity": {"initial": "", "final": " 0-1,, 3"}});
        assert!(respell_process(&mut process));
        let process: Process = serde_json::from_value(process).unwrap();
        assert_eq!(process.scheduler().as_ref().unwrap().flags().as_ref().unwrap().len(), flags.len());
        let affinity = process.exec_cpu_affinity().as_ref().unwrap();
        assert_eq!(affinity.cpu_affinity_final().as_deref(), Some("0-1,3"));
        assert!(affinity.initial().is_none());
        assert!(!respell_process(&mut json!({"cwd": "/"})));
    }

    #[test]
    fn keys_are_read_in_any_letters() {
        let mut config = json!({"OCIVersion": "1.0.0", "linux": {"Resources": {
            "CPU": {"Cpus": "0", "shares": 2}, "hugepageLimits": [{"pagesize": "2MB", "limit": 1}]},
            "sysctl": {"CPU": "theirs"}, "netDevices": {"CPU": {"Name": "eth0"}}}});
        assert!(read_in_any_letters::<Spec>(&mut config).unwrap().respelled);
        let respelled = json!({"ociVersion": "1.0.0", "linux": {"resources": {
            "cpu": {"cpus": "0", "shares": 2}, "hugepageLimits": [{"pageSize": "2MB", "limit": 1}]},
            "sysctl": {"CPU": "theirs"}, "netDevices": {"CPU": {"name": "eth0"}}}});
        assert_eq!(config, respelled);
        assert!(!read_in_any_letters::<Spec>(&mut config).unwrap().respelled);
        assert_eq!(config, respelled);
    }

    #[test]
    fn keys_of_no_field_stay() {
        for odd in [json!({"linux": {"Resourses": 1}, "ſysctl": 2}), json!([]), json!(null), json!({"linux": 3})] {
            let mut config = odd.clone();
            assert!(!read_in_any_letters::<Spec>(&mut config).unwrap().respelled);
            assert_eq!(config, odd);
        }
    }

    #[test]
    fn a_field_has_one_value() {
        let read = |mut resources| read_in_any_letters::<LinuxResources>(&mut resources).map(|_| resources);
        let one = read(json!({"cpu": {"shares": 1}, "CPU": {"Cpus": "0", "shares": 1}, "Cpu": {"Quota": 3}})).unwrap();
        assert_eq!(one, json!({"cpu": {"shares": 1, "cpus": "0", "quota": 3}}));
        for both in [
            json!({"cpu": {"shares": 1}, "CPU": {"shares": 2}}),
            json!({"cpu": {"shares": 1}, "CPU": {"Shares": 2}}),
            json!({"cpu": {"shares": 1}, "CPU": null}),
            json!({"cpu": {"shares": 1, "Shares": 2}}),
        ] {
            let error = read(both).unwrap_err();
            assert!(error.to_string().starts_with("duplicate field `"), "{error}");
        }
    }

    #[test]
    fn a_mistake_has_its_place() {
        let place = |mut config| {
            read_in_any_letters::<Spec>(&mut config)
                .unwrap()
                .read
                .err()
                .map_or_else(String::new, |misread| misread.path)
        };
        let mounts = json!([{"destination": "/a"}, {"source": "/b"}]);
        assert_eq!(place(json!({"ociVersion": "1.0.0", "mounts": mounts})), "mounts[1]", "a field is missing");
        assert_eq!(place(json!({"linux": {"resources": {"pids": {"limit": []}}}})), "linux.resources.pids.limit");
        assert_eq!(place(json!({"process": {"args": ["a", 3]}})), "process.args[1]");
        assert_eq!(place(json!([])), "");
    }

    #[test]
    fn lists_for_structures_have_their_length() {
        let mut long = json!({"hugepageLimits": [["2MB", 1, "more"]]});
        let misread = read_in_any_letters::<LinuxResources>(&mut long).unwrap().read.unwrap_err();
        assert!(misread.message.contains("fewer elements in array"), "{misread}");
    }

    /// What this reader takes, refuses and understands is what serde_json's own does.
    #[test]
    fn damaged_configs_are_read_as_by_serde_json() {
        let (seeds, mut random) = (crate::compile::damaged::seeds(), Random(seed()));
        let (mut taken, mut refused) = (0, 0);
        for _ in 0..runs() {
            let text = random.document(&seeds);
            let Ok(mut value) = serde_json::from_slice::<Value>(&text) else { continue };
            let before = value.clone();
            // Damage may make other letters, too.
            let Ok(reading) = read_in_any_letters::<Spec>(&mut value) else { continue };
            assert!(reading.respelled || value == before, "nobody wrote other letters: {before}");
            let expected = serde_json::from_value::<Spec>(value);
            match (reading.read, expected) {
                (Ok(spec), Ok(expected)) => {
                    taken += 1;
                    assert_eq!(spec, expected, "{before}");
                }
                (Err(misread), Err(error)) => {
                    refused += 1;
                    assert_eq!(misread.message, error.to_string(), "{before}");
                }
                (read, _) => panic!("taken by one, refused by the other ({read:?}): {before}"),
            }
        }
        assert!(taken > runs() / 10 && refused > runs() / 10, "{taken} taken, {refused} refused");
    }
}
