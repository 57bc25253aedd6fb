//! The values of systemd's properties, and how they are written in a D-Bus message (D-Bus specification, "Marshaling"; little
//! endian, as are all machines that flint runs on).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A property of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Property {
    /// As in org.freedesktop.systemd1(5): `MemoryMax`.
    pub name: String,
    /// Its value.
    pub value: Value,
}

impl Property {
    pub(in super::super) fn new(name: &str, value: Value) -> Self {
        Self { name: name.to_owned(), value }
    }

    /// As the item of a list of properties: `(sv)`.
    pub(super) fn item(&self) -> Value {
        Value::Struct(vec![Value::Text(self.name.clone()), Value::Variant(Box::new(self.value.clone()))])
    }
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.name, self.value)
    }
}

/// A value of D-Bus.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `n`
    Int16(i16),
    /// `q`
    Uint16(u16),
    /// `i`
    Int32(i32),
    /// `u`
    Uint32(u32),
    /// `x`
    Int64(i64),
    /// `t`
    Uint64(u64),
    /// `d`; never a NaN.
    Double(f64),
    /// `s`
    Text(String),
    /// `o`
    Path(String),
    /// `v`
    Variant(Box<Value>),
    /// `a`
    Array {
        /// The items' signature.
        of: String,
        /// All of that signature.
        items: Vec<Value>,
    },
    /// `()`
    Struct(Vec<Value>),
}

// No NaN is ever made: the literals that become values have none.
impl Eq for Value {}

impl Value {
    pub(super) fn list(of: &str, items: impl IntoIterator<Item = Self>) -> Self {
        Self::Array { of: of.to_owned(), items: items.into_iter().collect() }
    }

    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }

    /// Its type.
    #[must_use]
    pub fn signature(&self) -> String {
        match self {
            Self::Byte(_) => "y".to_owned(),
            Self::Bool(_) => "b".to_owned(),
            Self::Int16(_) => "n".to_owned(),
            Self::Uint16(_) => "q".to_owned(),
            Self::Int32(_) => "i".to_owned(),
            Self::Uint32(_) => "u".to_owned(),
            Self::Int64(_) => "x".to_owned(),
            Self::Uint64(_) => "t".to_owned(),
            Self::Double(_) => "d".to_owned(),
            Self::Text(_) => "s".to_owned(),
            Self::Path(_) => "o".to_owned(),
            Self::Variant(_) => "v".to_owned(),
            Self::Array { of, .. } => format!("a{of}"),
            Self::Struct(fields) => format!("({})", fields.iter().map(Self::signature).collect::<String>()),
        }
    }

    /// Appends it to a buffer that starts at a multiple of 8 in the message.
    pub(super) fn write(&self, to: &mut Vec<u8>) {
        match self {
            Self::Byte(value) => to.push(*value),
            Self::Bool(value) => Self::Uint32(u32::from(*value)).write(to),
            Self::Int16(value) => number(to, &value.to_le_bytes()),
            Self::Uint16(value) => number(to, &value.to_le_bytes()),
            Self::Int32(value) => number(to, &value.to_le_bytes()),
            Self::Uint32(value) => number(to, &value.to_le_bytes()),
            Self::Int64(value) => number(to, &value.to_le_bytes()),
            Self::Uint64(value) => number(to, &value.to_le_bytes()),
            Self::Double(value) => number(to, &value.to_le_bytes()),
            Self::Text(text) | Self::Path(text) => {
                Self::Uint32(text.len() as u32).write(to);
                to.extend_from_slice(text.as_bytes());
                to.push(0);
            }
            Self::Variant(value) => {
                write_signature(&value.signature(), to);
                value.write(to);
            }
            Self::Array { of, items } => write_array(of, items, to),
            Self::Struct(fields) => {
                pad(to, 8);
                for field in fields {
                    field.write(to);
                }
            }
        }
    }
}

fn number(to: &mut Vec<u8>, bytes: &[u8]) {
    pad(to, bytes.len());
    to.extend_from_slice(bytes);
}

pub(super) fn pad(to: &mut Vec<u8>, alignment: usize) {
    to.resize(to.len().next_multiple_of(alignment), 0);
}

pub(super) fn write_signature(signature: &str, to: &mut Vec<u8>) {
    to.push(signature.len() as u8);
    to.extend_from_slice(signature.as_bytes());
    to.push(0);
}

/// The length counts from the first item, behind the padding that its type asks for even when there is none.
fn write_array(of: &str, items: &[Value], to: &mut Vec<u8>) {
    pad(to, 4);
    let length_at = to.len();
    to.extend_from_slice(&[0; 4]);
    pad(to, alignment(of));
    let start = to.len();
    for item in items {
        item.write(to);
    }
    let length = (to.len() - start) as u32;
    to[length_at..length_at + 4].copy_from_slice(&length.to_le_bytes());
}

/// What values of a signature are aligned to.
pub(super) fn alignment(signature: &str) -> usize {
    match signature.bytes().next() {
        Some(b'n' | b'q') => 2,
        Some(b'b' | b'i' | b'u' | b's' | b'o' | b'a') => 4,
        Some(b'x' | b't' | b'd' | b'(' | b'{') => 8,
        _ => 1,
    }
}

/// In the text form of GVariant, without the types.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, items: &[Self]| {
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    f.write_str(", ")?;
                }
                write!(f, "{item}")?;
            }
            Ok(())
        };
        match self {
            Self::Byte(value) => write!(f, "{value:#04x}"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Int16(value) => write!(f, "{value}"),
            Self::Uint16(value) => write!(f, "{value}"),
            Self::Int32(value) => write!(f, "{value}"),
            Self::Uint32(value) => write!(f, "{value}"),
            Self::Int64(value) => write!(f, "{value}"),
            Self::Uint64(u64::MAX) => f.write_str("infinity"),
            Self::Uint64(value) => write!(f, "{value}"),
            Self::Double(value) => write!(f, "{value}"),
            Self::Text(text) | Self::Path(text) => write!(f, "{text:?}"),
            Self::Variant(value) => write!(f, "<{value}>"),
            Self::Array { items, .. } => {
                f.write_str("[")?;
                list(f, items)?;
                f.write_str("]")
            }
            Self::Struct(fields) => {
                f.write_str("(")?;
                list(f, fields)?;
                f.write_str(")")
            }
        }
    }
}
