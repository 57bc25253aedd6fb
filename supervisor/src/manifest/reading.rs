//! Reads values of a document by the lists of fields.

use std::collections::BTreeMap;

use serde_norway::{Mapping, Value};

use super::fields::{Shape, Verdict};
use super::problem::Problems;

/// A place in a document: its path, and where problems go.
#[derive(Clone)]
pub(super) struct At<'a> {
    pub(super) path: String,
    pub(super) problems: &'a Problems,
}

impl<'a> At<'a> {
    pub(super) fn refuse(&self, reason: impl Into<String>) {
        self.problems.add(self.path.clone(), reason);
    }

    pub(super) fn below(&self, name: &str) -> Self {
        let path = if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) };
        At { path, problems: self.problems }
    }

    pub(super) fn item(&self, index: usize) -> Self {
        At { path: format!("{}[{index}]", self.path), problems: self.problems }
    }

    /// A string.
    pub(super) fn string(&self, value: &'a Value) -> Option<&'a str> {
        let text = value.as_str();
        if text.is_none() {
            self.refuse(format!("is {}, not a string{}", kind(value), quoted_hint(value)));
        } else if text.is_some_and(|text| text.contains('\0')) {
            self.refuse("has a NUL byte");
            return None;
        }
        text
    }

    /// A whole number within bounds.
    pub(super) fn integer(&self, value: &Value, from: i64, to: i64) -> Option<i64> {
        let Some(number) = whole(value) else {
            self.refuse(format!("is {}, not a whole number", kind(value)));
            return None;
        };
        if (from..=to).contains(&number) {
            return Some(number);
        }
        self.refuse(format!("{number} is not from {from} to {to}"));
        None
    }

    /// The items of a list.
    pub(super) fn items(&self, value: &'a Value) -> Vec<(Self, &'a Value)> {
        match value {
            Value::Null => Vec::new(),
            Value::Sequence(items) => items.iter().enumerate().map(|(index, item)| (self.item(index), item)).collect(),
            other => {
                self.refuse(format!("is {}, not a list", kind(other)));
                Vec::new()
            }
        }
    }

    /// Strings by name.
    pub(super) fn texts(&self, value: &'a Value) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for (name, inner) in self.entries(value) {
            if let Some(text) = self.below(name).string(inner) {
                found.insert(name.to_owned(), text.to_owned());
            }
        }
        found
    }

    /// The entries of a mapping with names that are strings.
    pub(super) fn entries(&self, value: &'a Value) -> Vec<(&'a str, &'a Value)> {
        match value {
            Value::Null => Vec::new(),
            Value::Mapping(mapping) => mapping
                .iter()
                .filter_map(|(name, inner)| {
                    let name = name.as_str();
                    if name.is_none() {
                        self.refuse("has a name that is no string: put it in quotes");
                    }
                    Some((name?, inner))
                })
                .collect(),
            other => {
                self.refuse(format!("is {}, not a mapping", kind(other)));
                Vec::new()
            }
        }
    }

    /// A mapping with the fields of a type: unknown and refused ones are problems.
    pub(super) fn fields(&self, value: &'a Value, shape: &'static Shape) -> Option<Fields<'a>> {
        let mapping = match value {
            Value::Mapping(mapping) => mapping,
            other => {
                self.refuse(format!("is {}, not a mapping", kind(other)));
                return None;
            }
        };
        for (name, inner) in self.entries(value) {
            match shape.find(name).map(|field| field.verdict) {
                Some(Verdict::Refused(why)) if !is_empty(inner) => self.below(name).refuse(why),
                Some(_) => {}
                None => {
                    let hint = shape.like(name).map(|like| format!("; did you mean {like:?}?")).unwrap_or_default();
                    self.below(&shortened(name)).refuse(format!("unknown field{hint}"));
                }
            }
        }
        Some(Fields { at: self.clone(), mapping, shape })
    }
}

/// The fields of a mapping. One that is null is one that is not there.
pub(super) struct Fields<'a> {
    pub(super) at: At<'a>,
    mapping: &'a Mapping,
    shape: &'static Shape,
}

impl<'a> Fields<'a> {
    /// A field's place and value.
    pub(super) fn get(&self, name: &str) -> Option<(At<'a>, &'a Value)> {
        let verdict = self.shape.find(name).map(|field| field.verdict);
        debug_assert!(
            matches!(verdict, Some(Verdict::Honoured(_))),
            "{}.{name} is read and not listed as honoured",
            self.shape.name
        );
        let value = self.mapping.get(name).filter(|value| !value.is_null())?;
        Some((self.at.below(name), value))
    }

    /// Whether it has a field that was refused as such.
    pub(super) fn is_refused(&self) -> bool {
        let names = self.mapping.iter().filter(|(_, value)| !is_empty(value)).filter_map(|(name, _)| name.as_str());
        names.filter_map(|name| self.shape.find(name)).any(|field| matches!(field.verdict, Verdict::Refused(_)))
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// A string that is not empty: Kubernetes takes an empty one for a missing one.
    pub(super) fn string(&self, name: &str) -> Option<&'a str> {
        let (at, value) = self.get(name)?;
        at.string(value).filter(|text| !text.is_empty())
    }

    /// A string that has to be there.
    pub(super) fn needed(&self, name: &str) -> Option<&'a str> {
        let Some((at, value)) = self.get(name) else {
            self.at.below(name).refuse("is missing");
            return None;
        };
        let text = at.string(value)?;
        if text.is_empty() {
            at.refuse("must not be empty");
            return None;
        }
        Some(text)
    }

    pub(super) fn boolean(&self, name: &str) -> Option<bool> {
        let (at, value) = self.get(name)?;
        let found = value.as_bool();
        if found.is_none() {
            at.refuse(format!("is {}, not true or false", kind(value)));
        }
        found
    }

    pub(super) fn integer(&self, name: &str, from: i64, to: i64) -> Option<i64> {
        let (at, value) = self.get(name)?;
        at.integer(value, from, to)
    }

    /// One of these words; others are refused with all of them.
    pub(super) fn word<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Option<T> {
        let text = self.string(name)?;
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let all: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.at.below(name).refuse(format!("{:?} is not one of {}", shortened(text), all.join(", ")));
        }
        found
    }

    pub(super) fn fields(&self, name: &str, shape: &'static Shape) -> Option<Fields<'a>> {
        let (at, value) = self.get(name)?;
        at.fields(value, shape)
    }

    /// Each item of a list that is a mapping.
    pub(super) fn each(&self, name: &str, shape: &'static Shape) -> Vec<Fields<'a>> {
        let Some((at, value)) = self.get(name) else { return Vec::new() };
        at.items(value).into_iter().filter_map(|(at, item)| at.fields(item, shape)).collect()
    }

    pub(super) fn strings(&self, name: &str) -> Option<Vec<String>> {
        let (at, value) = self.get(name)?;
        let items = at.items(value);
        Some(items.into_iter().filter_map(|(at, item)| at.string(item)).map(str::to_owned).collect())
    }

    pub(super) fn texts(&self, name: &str) -> BTreeMap<String, String> {
        self.get(name).map(|(at, value)| at.texts(value)).unwrap_or_default()
    }

    pub(super) fn refuse(&self, name: &str, reason: impl Into<String>) {
        self.at.below(name).refuse(reason);
    }
}

/// A whole number; also `0644` as YAML 1.1, which kubectl reads, writes octal numbers (YAML 1.2 takes it for a string).
fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let number = number.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 1e15)?;
            Some(number as i64)
        }),
        Value::String(text) => {
            let digits = text.strip_prefix('0').filter(|digits| !digits.is_empty())?;
            i64::from_str_radix(digits, 8).ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
        }
        _ => None,
    }
}

/// What a value is, without its content.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Tagged(_) => "a value with a tag",
    }
}

fn quoted_hint(value: &Value) -> &'static str {
    if matches!(value, Value::Bool(_) | Value::Number(_)) { ": put it in quotes" } else { "" }
}

/// A refused field that says nothing is let pass: tools write such ones.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Sequence(items) => items.is_empty(),
        Value::Mapping(entries) => entries.is_empty(),
        _ => false,
    }
}

/// What is told of a text that may be anything.
pub(super) fn shortened(text: &str) -> String {
    if text.chars().count() <= 80 { text.to_owned() } else { text.chars().take(77).chain("...".chars()).collect() }
}
