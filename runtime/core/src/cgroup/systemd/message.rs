//! D-Bus messages: calls are written, replies, errors and signals read (D-Bus specification, "Message Protocol").

use super::value::{Value, alignment, pad, write_signature};

pub(super) const METHOD_RETURN: u8 = 2;
pub(super) const ERROR: u8 = 3;
pub(super) const SIGNAL: u8 = 4;

/// `DBUS_MAXIMUM_MESSAGE_LENGTH` is 128 MiB; nothing that is listened to here comes near this.
const LONGEST: usize = 4 << 20;
const LITTLE_ENDIAN: u8 = b'l';

/// A call of a method.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call<'a> {
    /// A bus name; a peer that is no bus has none.
    pub(super) destination: Option<&'a str>,
    pub(super) path: &'a str,
    pub(super) interface: &'a str,
    pub(super) member: &'a str,
    pub(super) arguments: &'a [Value],
}

impl Call<'_> {
    /// The whole message. `serial` is not 0.
    pub(super) fn encode(&self, serial: u32) -> Vec<u8> {
        let mut body = Vec::new();
        for argument in self.arguments {
            argument.write(&mut body);
        }
        let signature: String = self.arguments.iter().map(Value::signature).collect();
        let mut fields = Vec::new();
        let mut field = |code: u8, kind: &str, text: &str| {
            pad(&mut fields, 8);
            fields.push(code);
            write_signature(kind, &mut fields);
            if kind == "g" { write_signature(text, &mut fields) } else { Value::text(text).write(&mut fields) }
        };
        field(1, "o", self.path);
        field(2, "s", self.interface);
        field(3, "s", self.member);
        if let Some(destination) = self.destination {
            field(6, "s", destination);
        }
        if !signature.is_empty() {
            field(8, "g", &signature);
        }
        // Call, no flags, protocol version 1.
        let mut message = vec![LITTLE_ENDIAN, 1, 0, 1];
        Value::Uint32(body.len() as u32).write(&mut message);
        Value::Uint32(serial).write(&mut message);
        Value::Uint32(fields.len() as u32).write(&mut message);
        message.extend(fields);
        pad(&mut message, 8);
        message.extend(body);
        message
    }
}

/// A message that arrived.
#[derive(Clone, Debug, Default)]
pub(super) struct Message {
    pub(super) kind: u8,
    pub(super) reply_to: u32,
    pub(super) interface: String,
    pub(super) member: String,
    pub(super) error: String,
    pub(super) sender: String,
    signature: String,
    body: Vec<u8>,
}

/// What is at the front of a buffer.
#[derive(Debug)]
pub(super) enum Front {
    /// Not all of a message yet.
    Part,
    /// A message and its length.
    Whole(Box<Message>, usize),
}

impl Message {
    /// Reads the message at the front of `bytes`.
    ///
    /// # Errors
    ///
    /// What stands there is no message, told in words.
    pub(super) fn decode(bytes: &[u8]) -> Result<Front, String> {
        if bytes.len() < 16 {
            return Ok(Front::Part);
        }
        if bytes[0] != LITTLE_ENDIAN || bytes[3] != 1 {
            return Err("it speaks another byte order or version of D-Bus".to_owned());
        }
        let mut reader = Reader { bytes, at: 4 };
        let (body, _serial, fields) = (reader.length()?, reader.uint32()?, reader.length()?);
        let start = (16 + fields).next_multiple_of(8);
        let end = start + body;
        if bytes.len() < end {
            return Ok(Front::Part);
        }
        let mut message = Self { kind: bytes[1], body: bytes[start..end].to_vec(), ..Self::default() };
        let mut reader = Reader { bytes: &bytes[..16 + fields], at: 16 };
        while reader.at < reader.bytes.len() {
            message.field(&mut reader)?;
        }
        Ok(Front::Whole(Box::new(message), end))
    }

    fn field(&mut self, reader: &mut Reader<'_>) -> Result<(), String> {
        reader.align(8);
        let code = reader.byte()?;
        let signature = reader.signature()?;
        let value = reader.value(&signature)?;
        match (code, value) {
            (2, Value::Text(text)) => self.interface = text,
            (3, Value::Text(text)) => self.member = text,
            (4, Value::Text(text)) => self.error = text,
            (5, Value::Uint32(serial)) => self.reply_to = serial,
            (7, Value::Text(text)) => self.sender = text,
            (8, Value::Text(text)) => self.signature = text,
            // The path, the destination, the number of descriptors, and what later versions may add.
            _ => {}
        }
        Ok(())
    }

    /// The values of the body, as long as they are of basic types or variants of such.
    ///
    /// # Errors
    ///
    /// A body of other types, or one that is too short.
    pub(super) fn values(&self) -> Result<Vec<Value>, String> {
        let mut reader = Reader { bytes: &self.body, at: 0 };
        self.signature.chars().map(|kind| reader.value(kind.encode_utf8(&mut [0; 4]))).collect()
    }

    /// The text of an error's body.
    pub(super) fn text(&self) -> String {
        match self.values().unwrap_or_default().into_iter().next() {
            Some(Value::Text(text)) => text,
            _ => String::new(),
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn align(&mut self, alignment: usize) {
        self.at = self.at.next_multiple_of(alignment);
    }

    fn take(&mut self, count: usize) -> Result<&[u8], String> {
        let taken = self.at.checked_add(count).and_then(|end| self.bytes.get(self.at..end));
        self.at += count;
        taken.ok_or_else(|| "a message is shorter than it says".to_owned())
    }

    fn byte(&mut self) -> Result<u8, String> {
        self.take(1).map(|bytes| bytes[0])
    }

    fn uint32(&mut self) -> Result<u32, String> {
        self.align(4);
        self.take(4).map(|bytes| u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    fn length(&mut self) -> Result<usize, String> {
        let length = self.uint32()? as usize;
        if length > LONGEST { Err(format!("a message of {length} bytes is too long")) } else { Ok(length) }
    }

    fn text(&mut self, length: usize) -> Result<String, String> {
        let text = std::str::from_utf8(self.take(length)?).map_err(|_| "a text is not UTF-8".to_owned())?.to_owned();
        self.byte().map(|_| text)
    }

    fn signature(&mut self) -> Result<String, String> {
        let length = self.byte()?;
        self.text(length.into())
    }

    fn value(&mut self, signature: &str) -> Result<Value, String> {
        self.align(alignment(signature));
        Ok(match signature {
            "y" => Value::Byte(self.byte()?),
            "b" => Value::Bool(self.uint32()? != 0),
            "u" => Value::Uint32(self.uint32()?),
            "i" => Value::Int32(self.uint32()? as i32),
            "t" => {
                let bytes = self.take(8)?.try_into().unwrap_or_default();
                Value::Uint64(u64::from_le_bytes(bytes))
            }
            "s" | "o" => {
                let length = self.length()?;
                Value::Text(self.text(length)?)
            }
            "g" => Value::Text(self.signature()?),
            "v" => {
                let signature = self.signature()?;
                if signature == "v" {
                    return Err("a variant in a variant is not known here".to_owned());
                }
                self.value(&signature)?
            }
            other => return Err(format!("the type {other:?} is not known here")),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Call, Front, Message, Value};

    /// The Hello call as dbus-monitor and the specification's rules give it, written out by hand.
    #[test]
    fn a_call_is_encoded_as_specified() {
        let call =
            Call { destination: None, path: "/a", interface: "b.c", member: "D", arguments: &[Value::text("x")] };
        let expected: &[&[u8]] = &[
            b"l\x01\x00\x01\x06\x00\x00\x00\x07\x00\x00\x00\x37\x00\x00\x00",
            b"\x01\x01o\x00\x02\x00\x00\x00/a\x00\x00\x00\x00\x00\x00",
            b"\x02\x01s\x00\x03\x00\x00\x00b.c\x00\x00\x00\x00\x00",
            b"\x03\x01s\x00\x01\x00\x00\x00D\x00\x00\x00\x00\x00\x00\x00",
            b"\x08\x01g\x00\x01s\x00\x00",
            b"\x01\x00\x00\x00x\x00",
        ];
        assert_eq!(call.encode(7), expected.concat());
    }

    #[test]
    fn nested_values_are_aligned() {
        let property =
            Value::Struct(vec![Value::text("PIDs"), Value::Variant(Box::new(Value::list("u", [Value::Uint32(9)])))]);
        let mut bytes = Vec::new();
        Value::list("(sv)", [property]).write(&mut bytes);
        let expected: &[&[u8]] = &[
            b"\x18\x00\x00\x00\x00\x00\x00\x00",
            b"\x04\x00\x00\x00PIDs\x00\x02au\x00\x00\x00\x00",
            b"\x04\x00\x00\x00\x09\x00\x00\x00",
        ];
        assert_eq!(bytes, expected.concat());
        // An empty list is padded to its items' alignment all the same.
        let mut bytes = Vec::new();
        Value::list("(sv)", []).write(&mut bytes);
        assert_eq!(bytes, [0; 8]);
    }

    #[test]
    fn damaged_messages_are_told_and_never_end_in_a_panic() {
        let call = Call {
            destination: Some("d.e"),
            path: "/a",
            interface: "b.c",
            member: "D",
            arguments: &[Value::text("x")],
        };
        let whole = call.encode(1);
        for end in 0..whole.len() {
            assert!(matches!(Message::decode(&whole[..end]), Ok(Front::Part)), "{end}");
        }
        for at in 0..whole.len() {
            for value in [0, 1, 2, 0x7f, 0xff] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                if let Ok(Front::Whole(message, _)) = Message::decode(&damaged) {
                    let _ = message.values();
                }
            }
        }
        assert!(Message::decode(b"HTTP/1.1 400 Bad Request\r\n").is_err());
    }
}
