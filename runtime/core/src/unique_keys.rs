//! JSON whose objects have each key once.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Reads JSON in which no object has a key twice; [`Value`] by itself keeps the last one, and a limit or a filter would be lost.
///
/// # Errors
///
/// Malformed text, and a key that is there twice.
pub(crate) fn read_json(json: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice::<Unique>(json).map(|Unique(value)| value)
}

struct Unique(Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OfJson).map(Self)
    }
}

/// Takes what serde_json meets in a text.
struct OfJson;

impl<'de> Visitor<'de> for OfJson {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Unique(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = serde_json::Map::new();
        while let Some((key, Unique(member))) = members.next_entry::<String, Unique>()? {
            if object.contains_key(&key) {
                return Err(de::Error::custom(format!("duplicate field `{key}`")));
            }
            object.insert(key, member);
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::read_json;

    #[test]
    fn a_key_is_there_once() {
        let text = br#"{"a": [null, true, -1, 18446744073709551615, 0.5, "s", {"b": {}}], "c": 1}"#;
        assert_eq!(read_json(text).unwrap(), serde_json::from_slice::<Value>(text).unwrap());
        for twice in [r#"{"a": 1, "a": 1}"#, r#"[{"b": {"a": {}, "c": 1, "a": {}}}]"#] {
            let error = read_json(twice.as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with("duplicate field `a` at line 1"), "{error}");
        }
        assert!(read_json(b"{} x").is_err());
    }
}
