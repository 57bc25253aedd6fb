//! `org.systemd.property.NAME` annotations: any property of the unit, its value in the text form of GVariant (runc's
//! docs/systemd.md; "GVariant Text Format" of GLib).
//!
//! ```text
//!  true   5   uint64 5   'text'   ['a', 'b']   @as []   ('struct', 1)   <'variant'>   b'bytes'
//! ```
//!
//! A number without a type is an int32, one with a point a double. A name that ends in `Sec` is in seconds; on the bus there are
//! microseconds, `USec`.

use std::collections::BTreeMap;

use super::value::{Property, Value};
use crate::{Error, Result};

const PREFIX: &str = "org.systemd.property.";

/// The properties that annotations ask for.
///
/// # Errors
///
/// A name that no property has, or a value that is not of the form above; both named.
pub(super) fn properties(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>> {
    let named = annotations.iter().filter_map(|(key, value)| key.strip_prefix(PREFIX).map(|name| (key, name, value)));
    named
        .map(|(key, name, text)| {
            let wrong = |what: String| Error::invalid(format!("annotation {key}: {what}"));
            if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
                return Err(wrong(format!("{name:?} is no name of a systemd property: letters only, three at least")));
            }
            let value = parse(text).map_err(|what| wrong(format!("{text:?}: {what}")))?;
            let seconds = name.strip_suffix("Sec").filter(|rest| rest.ends_with(|c: char| c.is_ascii_lowercase()));
            match seconds {
                None => Ok(Property::new(name, value)),
                Some(rest) => {
                    let value =
                        microseconds(&value).ok_or_else(|| wrong(format!("{text:?} is no number of seconds")))?;
                    Ok(Property::new(&format!("{rest}USec"), Value::Uint64(value)))
                }
            }
        })
        .collect()
}

fn microseconds(seconds: &Value) -> Option<u64> {
    const SECOND: u64 = 1_000_000;
    let whole: i128 = match seconds {
        Value::Byte(n) => (*n).into(),
        Value::Int16(n) => (*n).into(),
        Value::Uint16(n) => (*n).into(),
        Value::Int32(n) => (*n).into(),
        Value::Uint32(n) => (*n).into(),
        Value::Int64(n) => (*n).into(),
        Value::Uint64(n) => (*n).into(),
        #[allow(clippy::cast_precision_loss, reason = "a million is exact")]
        Value::Double(n) if *n >= 0.0 && *n < 1e12 => return Some((n * SECOND as f64) as u64),
        _ => return None,
    };
    u64::try_from(whole).ok()?.checked_mul(SECOND)
}

/// Reads one value and nothing behind it.
fn parse(text: &str) -> std::result::Result<Value, String> {
    let mut reader = Reader { rest: text.trim_start() };
    let value = reader.value(None, 0)?;
    if reader.rest.is_empty() { Ok(value) } else { Err(format!("{:?} is left over behind the value", reader.rest)) }
}

/// Deeper than any property's type.
const DEEPEST: usize = 8;

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn skip(&mut self, bytes: usize) {
        self.rest = self.rest[bytes..].trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest.starts_with(token);
        if found {
            self.skip(token.len());
        }
        found
    }

    /// The word in front: what a number, a keyword or a type is made of.
    fn word(&self) -> &'a str {
        let end = self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c)));
        &self.rest[..end.unwrap_or(self.rest.len())]
    }

    /// `wanted` is the signature that the surroundings ask for.
    fn value(&mut self, wanted: Option<&str>, depth: usize) -> std::result::Result<Value, String> {
        if depth > DEEPEST {
            return Err("it is nested too deeply".to_owned());
        }
        if self.take("@") {
            let end = self.rest.find(char::is_whitespace).unwrap_or(self.rest.len());
            let signature = &self.rest[..end];
            check_signature(signature)?;
            self.skip(end);
            return self.value(Some(signature), depth);
        }
        if self.take("<") {
            let inner = self.value(None, depth + 1)?;
            return if self.take(">") { Ok(Value::Variant(Box::new(inner))) } else { Err("a > is missing".to_owned()) };
        }
        if self.take("[") {
            return self.array(wanted, depth);
        }
        if self.take("(") {
            return self.structure(depth);
        }
        if self.rest.starts_with("b'") || self.rest.starts_with("b\"") {
            self.rest = &self.rest[1..];
            let bytes = self.quoted()?.into_bytes().into_iter().chain([0]);
            return Ok(Value::list("y", bytes.map(Value::Byte)));
        }
        if self.rest.starts_with(['\'', '"']) {
            let text = self.quoted()?;
            return match wanted {
                None | Some("s") => Ok(Value::Text(text)),
                Some("o") => Ok(Value::Path(text)),
                Some(other) => Err(format!("a text stands where the type {other} is wanted")),
            };
        }
        let word = self.word();
        if let Some(signature) = keyword(word) {
            self.skip(word.len());
            return self.value(Some(signature), depth);
        }
        self.skip(word.len());
        scalar(word, wanted)
    }

    fn array(&mut self, wanted: Option<&str>, depth: usize) -> std::result::Result<Value, String> {
        let mut of = match wanted {
            None => None,
            Some(signature) => Some(
                signature
                    .strip_prefix('a')
                    .ok_or_else(|| format!("a list stands where the type {signature} is wanted"))?
                    .to_owned(),
            ),
        };
        let mut items = Vec::new();
        while !self.take("]") {
            if !items.is_empty() && !self.take(",") {
                return Err("a list lacks its ]".to_owned());
            }
            // The first one decides for the others.
            let item = self.value(of.as_deref(), depth + 1)?;
            let signature = item.signature();
            if of.get_or_insert_with(|| signature.clone()) != &signature {
                return Err("the items of a list are of several types".to_owned());
            }
            items.push(item);
        }
        let of = of.ok_or("the type of an empty list is not known: write @as [] for one of texts")?;
        Ok(Value::Array { of, items })
    }

    fn structure(&mut self, depth: usize) -> std::result::Result<Value, String> {
        let mut fields = Vec::new();
        while !self.take(")") {
            if !fields.is_empty() && !self.take(",") {
                return Err("a structure lacks its )".to_owned());
            }
            fields.push(self.value(None, depth + 1)?);
        }
        if fields.is_empty() { Err("a structure is empty".to_owned()) } else { Ok(Value::Struct(fields)) }
    }

    fn quoted(&mut self) -> std::result::Result<String, String> {
        let unfinished = || "a text lacks its closing quote".to_owned();
        let mut characters = self.rest.char_indices();
        let (_, quote) = characters.next().ok_or_else(unfinished)?;
        let mut text = String::new();
        while let Some((at, character)) = characters.next() {
            if character == quote {
                self.skip(at + 1);
                return Ok(text);
            }
            if character == '\0' {
                return Err("a text contains a NUL".to_owned());
            }
            if character != '\\' {
                text.push(character);
                continue;
            }
            let (_, escaped) = characters.next().ok_or_else(unfinished)?;
            text.push(match escaped {
                'a' => '\x07',
                'b' => '\x08',
                'f' => '\x0c',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\x0b',
                'u' => code_point(&mut characters, 4)?,
                'U' => code_point(&mut characters, 8)?,
                other => other,
            });
        }
        Err(unfinished())
    }
}

fn code_point(characters: &mut std::str::CharIndices<'_>, digits: usize) -> std::result::Result<char, String> {
    let text: String = characters.by_ref().take(digits).map(|(_, digit)| digit).collect();
    let code = (text.len() == digits).then(|| u32::from_str_radix(&text, 16).ok()).flatten();
    code.and_then(char::from_u32)
        .filter(|&character| character != '\0')
        .ok_or_else(|| format!("\\u{text} is no character"))
}

fn keyword(word: &str) -> Option<&'static str> {
    Some(match word {
        "boolean" => "b",
        "byte" => "y",
        "int16" => "n",
        "uint16" => "q",
        "int32" => "i",
        "uint32" => "u",
        "int64" => "x",
        "uint64" => "t",
        "double" => "d",
        "string" => "s",
        "objectpath" => "o",
        _ => return None,
    })
}

/// What follows an @: a type of the bus, without dictionaries, which no property of a unit has.
fn check_signature(signature: &str) -> std::result::Result<(), String> {
    let basic = signature.trim_start_matches('a');
    let is_known =
        matches!(basic.as_bytes(), [b'y' | b'b' | b'n' | b'q' | b'i' | b'u' | b'x' | b't' | b'd' | b's' | b'o' | b'v'])
            || (basic.starts_with('(')
                && basic.ends_with(')')
                && basic.bytes().all(|byte| b"(ybnqiuxtdsova)".contains(&byte)));
    if is_known { Ok(()) } else { Err(format!("{signature:?} is no type that is known here")) }
}

fn scalar(word: &str, wanted: Option<&str>) -> std::result::Result<Value, String> {
    if let ("true" | "false", None | Some("b")) = (word, wanted) {
        return Ok(Value::Bool(word == "true"));
    }
    let float = word.contains('.') || (word.contains(['e', 'E']) && !word.contains("0x"));
    let wanted = wanted.unwrap_or(if float { "d" } else { "i" });
    let wrong = || format!("{word:?} is no value of the type {wanted}");
    if wanted == "d" {
        let number: f64 = word.parse().map_err(|_| wrong())?;
        return if number.is_finite() { Ok(Value::Double(number)) } else { Err(wrong()) };
    }
    let number = integer(word).ok_or_else(wrong)?;
    let value = match wanted {
        "y" => number.try_into().map(Value::Byte).ok(),
        "n" => number.try_into().map(Value::Int16).ok(),
        "q" => number.try_into().map(Value::Uint16).ok(),
        "i" => number.try_into().map(Value::Int32).ok(),
        "u" => number.try_into().map(Value::Uint32).ok(),
        "x" => number.try_into().map(Value::Int64).ok(),
        "t" => number.try_into().map(Value::Uint64).ok(),
        _ => None,
    };
    value.ok_or_else(wrong)
}

/// Decimal, `0x` or, with a leading 0, octal.
fn integer(word: &str) -> Option<i128> {
    let (sign, digits) = match word.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, word.strip_prefix('+').unwrap_or(word)),
    };
    let (radix, digits) = match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hexadecimal) => (16, hexadecimal),
        None if digits.len() > 1 && digits.starts_with('0') => (8, &digits[1..]),
        None => (10, digits),
    };
    if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    i128::from_str_radix(digits, radix).ok().map(|number| sign * number)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::{Value, parse, properties};
    use crate::Kind;

    fn of(key: &str, value: &str) -> crate::Result<Vec<super::Property>> {
        properties(&BTreeMap::from([(key.to_owned(), value.to_owned()), ("other".to_owned(), "x".to_owned())]))
    }

    #[test]
    fn values_are_read_with_their_types() {
        let text = |text: &str| Value::Text(text.to_owned());
        for (literal, value) in [
            ("true", Value::Bool(true)),
            ("boolean false", Value::Bool(false)),
            (" 5", Value::Int32(5)),
            ("-0x10", Value::Int32(-16)),
            ("uint64 18446744073709551615", Value::Uint64(u64::MAX)),
            ("byte 0xff", Value::Byte(255)),
            ("int16 -1", Value::Int16(-1)),
            ("@t 7", Value::Uint64(7)),
            ("1.5", Value::Double(1.5)),
            ("double 2", Value::Double(2.0)),
            ("'inactive-or-failed'", text("inactive-or-failed")),
            ("\"it's \\\"so\\\"\\u00e4\"", text("it's \"so\"\u{e4}")),
            ("['a', 'b']", Value::list("s", [text("a"), text("b")])),
            ("@as []", Value::list("s", [])),
            ("[uint32 1, 2]", Value::list("u", [Value::Uint32(1), Value::Uint32(2)])),
            ("<'x'>", Value::Variant(Box::new(text("x")))),
            ("[('/dev/null', 'rw')]", Value::list("(ss)", [Value::Struct(vec![text("/dev/null"), text("rw")])])),
            ("b'hi'", Value::list("y", [104, 105, 0].map(Value::Byte))),
        ] {
            assert_eq!(parse(literal).unwrap(), value, "{literal}");
        }
    }

    #[test]
    fn wrong_values_are_refused() {
        for wrong in [
            "",
            "x",
            "'open",
            "[1, 'a']",
            "[]",
            "[1",
            "5 6",
            "int32 5000000000",
            "uint32 -1",
            "nan",
            "1.5.2",
            "<5",
            "@zz 1",
            "()",
            "0xg",
            "'a\\u12'",
            "@a(s)",
            "uint64 'a'",
            "inf",
            "--5",
            "0x-5",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}: {:?}", parse(wrong));
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&"<".repeat(100_000)).is_err());
    }

    #[test]
    fn seconds_become_microseconds() {
        let seconds = |value: &str| of("org.systemd.property.TimeoutStopSec", value).map(|all| all[0].clone());
        for (literal, expected) in [("5", 5_000_000), ("uint64 7", 7_000_000), ("0.25", 250_000)] {
            let property = seconds(literal).unwrap();
            assert_eq!((property.name.as_str(), property.value), ("TimeoutStopUSec", Value::Uint64(expected)));
        }
        for wrong in ["'5'", "-1", "true", "uint64 18446744073709551615"] {
            assert_eq!(seconds(wrong).unwrap_err().kind(), Kind::Invalid, "{wrong}");
        }
        // Microseconds already, and a name that only looks like it.
        assert_eq!(of("org.systemd.property.TimeoutStopUSec", "uint64 5").unwrap()[0].value, Value::Uint64(5));
        assert_eq!(of("org.systemd.property.ASec", "5").unwrap()[0].name, "ASec");
    }

    #[test]
    fn names_are_checked() {
        for wrong in ["", "ab", "Timeout-Stop", "Tim\u{e4}out", "A1b"] {
            let error = of(&format!("org.systemd.property.{wrong}"), "5").unwrap_err();
            assert!(error.to_string().contains("org.systemd.property."), "{error}");
        }
        assert_eq!(of("org.systemd.properties.X", "5").unwrap(), []);
    }
}
