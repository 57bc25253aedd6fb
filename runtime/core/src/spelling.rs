//! Names of config.json that are spelled otherwise than oci-spec reads them: by the specification, or by who writes keys in
//! letters of his own.

use std::cell::Cell;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{DeserializeOwned, Deserializer, IntoDeserializer, Visitor};
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

/// Reads a `T`, and gives keys the letters of the fields that they stand for, as far as that was read; tells whether one had
/// others. Go, which reads configs in runc, docker and containerd, takes a key in any letters, where serde would leave it
/// out: a limit that is then not set. Only ASCII letters are taken for each other.
///
/// # Errors
///
/// `Invalid` for a field that is there twice, in different letters and with different values; objects become one.
pub(crate) fn read_in_any_letters<T: DeserializeOwned>(value: &mut Value) -> Result<(serde_json::Result<T>, bool)> {
    let found = Found::default();
    let read = T::deserialize(Respelling { value, found: &found });
    match found.twice.take() {
        Some((field, key)) => Err(Error::invalid(format!("duplicate field `{field}`: it is there as `{key}`, too"))),
        None => Ok((read, found.changed.get())),
    }
}

#[derive(Default)]
struct Found {
    changed: Cell<bool>,
    twice: Cell<Option<(&'static str, String)>>,
}

/// A value that is read, and changed by what the reader says of its fields.
struct Respelling<'a> {
    value: &'a mut Value,
    found: &'a Found,
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
        let found = self.found;
        match self.value {
            Value::Object(members) => {
                let members = members.iter_mut().map(|(key, value)| (key.as_str(), Respelling { value, found }));
                visitor.visit_map(MapDeserializer::new(members))
            }
            Value::Array(items) => {
                visitor.visit_seq(SeqDeserializer::new(items.iter_mut().map(|value| Respelling { value, found })))
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
    use serde_json::json;

    use super::{read_in_any_letters, respell_process};

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
        assert!(read_in_any_letters::<Spec>(&mut config).unwrap().1);
        let respelled = json!({"ociVersion": "1.0.0", "linux": {"resources": {
            "cpu": {"cpus": "0", "shares": 2}, "hugepageLimits": [{"pageSize": "2MB", "limit": 1}]},
            "sysctl": {"CPU": "theirs"}, "netDevices": {"CPU": {"name": "eth0"}}}});
        assert_eq!(config, respelled);
        assert!(!read_in_any_letters::<Spec>(&mut config).unwrap().1);
        assert_eq!(config, respelled);
    }

    #[test]
    fn keys_of_no_field_stay() {
        for odd in [json!({"linux": {"Resourses": 1}, "ſysctl": 2}), json!([]), json!(null), json!({"linux": 3})] {
            let mut config = odd.clone();
            assert!(!read_in_any_letters::<Spec>(&mut config).unwrap().1);
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
}
