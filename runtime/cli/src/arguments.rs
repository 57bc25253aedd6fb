//! The command line, read as runc's callers write it.
//!
//! runc's parser is Go's `flag`: `-name` is the same as `--name`, a switch may be told `=false`, an option
//! takes the next argument as its value whatever that looks like. [lexopt] reads the rest, and adds what
//! people expect of a Unix program (`-tu0`).

use std::ffi::{OsStr, OsString};

use lexopt::{Arg, Parser};

/// An option of a verb or of the program.
#[derive(Debug)]
pub(crate) struct Flag {
    /// Its name without dashes.
    pub(crate) long: &'static str,
    /// Its one-letter name.
    pub(crate) short: Option<char>,
    /// What its value is called in the help; `None` makes it a switch.
    pub(crate) value: Option<&'static str>,
    /// One line of help; empty for one that is accepted and not shown.
    pub(crate) help: &'static str,
    /// Looked at while the command line is read, as Go's `flag` does: such a mistake ends each verb alike, and an empty value
    /// is one.
    pub(crate) check: Option<Check>,
}

/// Whether a value is taken, and the end of the sentence that refuses another one.
pub(crate) type Check = (fn(&str) -> bool, &'static str);

/// A flag without a value.
pub(crate) const fn switch(long: &'static str, short: Option<char>, help: &'static str) -> Flag {
    Flag { long, short, value: None, help, check: None }
}

/// A flag with a value, called `value` in the help.
pub(crate) const fn option(long: &'static str, short: Option<char>, value: &'static str, help: &'static str) -> Flag {
    Flag { long, short, value: Some(value), help, check: None }
}

/// A flag with a whole number as its value.
pub(crate) const fn integer(long: &'static str, short: Option<char>, value: &'static str, help: &'static str) -> Flag {
    Flag { check: Some((is_integer, "it must be a whole number")), ..option(long, short, value, help) }
}

/// Whether [`Arguments::integer`] can read it.
pub(crate) fn is_integer(text: &str) -> bool {
    parse_integer(text).is_some()
}

const HELP: Flag = switch("help", Some('h'), "show this help");

/// Why a command line was not understood, in the words that runc's callers look for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsageError(pub(crate) String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// A parsed command line.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    options: Vec<(&'static str, OsString)>,
    switches: Vec<(&'static str, bool)>,
    /// What is no option, in order.
    pub(crate) operands: Vec<OsString>,
    /// `--help` was among the options.
    pub(crate) help: bool,
}

impl Arguments {
    /// Whether the switch is on.
    pub(crate) fn is_set(&self, long: &str) -> bool {
        self.told(long).unwrap_or(false)
    }

    /// What the switch was told last; `None` when it was not named at all.
    pub(crate) fn told(&self, long: &str) -> Option<bool> {
        self.switches.iter().rev().find(|(name, _)| *name == long).map(|(_, on)| *on)
    }

    /// The last value given for the option; an empty one counts as not given, as in runc.
    pub(crate) fn value<'a>(&'a self, long: &'a str) -> Option<&'a OsStr> {
        self.values(long).last().filter(|value| !value.is_empty())
    }

    /// All values given for the option.
    pub(crate) fn values<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a OsStr> {
        self.options.iter().filter(move |(name, _)| *name == long).map(|(_, value)| value.as_os_str())
    }

    /// The option's value as text.
    ///
    /// # Errors
    /// When it is not UTF-8.
    pub(crate) fn text<'a>(&'a self, long: &'a str) -> Result<Option<&'a str>, UsageError> {
        self.value(long).map(|value| utf8(value, long)).transpose()
    }

    /// All the option's values as text.
    ///
    /// # Errors
    /// When one is not UTF-8.
    pub(crate) fn texts(&self, long: &str) -> Result<Vec<String>, UsageError> {
        self.values(long).map(|value| utf8(value, long).map(str::to_owned)).collect()
    }

    /// The last value of an [`integer`].
    pub(crate) fn integer(&self, long: &str) -> Option<i64> {
        parse_integer(self.value(long)?.to_str()?)
    }

    /// The operand at `index` as text.
    ///
    /// # Errors
    /// When it is missing or not UTF-8.
    pub(crate) fn operand(&self, index: usize) -> Result<&str, UsageError> {
        let operand = self.operands.get(index).ok_or_else(|| UsageError("an argument is missing".into()))?;
        operand.to_str().ok_or_else(|| UsageError(format!("argument \"{}\" is not UTF-8", operand.display())))
    }
}

/// Digits only, so that neither `+1`, ` 1` nor a name passes.
pub(crate) fn parse_id(text: &str) -> Option<u32> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// As Go reads a flag's number: a sign, `0x`, `0b`, `0o` or a `0` for the base, underscores between digits.
pub(crate) fn parse_integer(text: &str) -> Option<i64> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = &text[..text.len() - unsigned.len()];
    let (base, digits) = match unsigned.get(..2) {
        Some("0x" | "0X") => (16, &unsigned[2..]),
        Some("0b" | "0B") => (2, &unsigned[2..]),
        Some("0o" | "0O") => (8, &unsigned[2..]),
        Some(_) if unsigned.starts_with('0') => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    // One may stand behind the base, too.
    let grouped = if base == 10 { digits } else { digits.strip_prefix('_').unwrap_or(digits) };
    let is_group = |group: &str| !group.is_empty() && group.chars().all(|digit| digit.is_digit(base));
    if !grouped.split('_').all(is_group) {
        return None;
    }
    i64::from_str_radix(&format!("{sign}{}", grouped.replace('_', "")), base).ok()
}

fn utf8<'a>(value: &'a OsStr, long: &str) -> Result<&'a str, UsageError> {
    value.to_str().ok_or_else(|| invalid(&value.to_string_lossy(), long, "it is not UTF-8"))
}

/// `invalid value "x" for flag -name: why`
pub(crate) fn invalid(value: &str, long: &str, why: &str) -> UsageError {
    UsageError(format!("invalid value {value:?} for flag -{long}: {why}"))
}

/// What the first operand means for what is behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Nothing: options may follow (`create ID --bundle B`).
    Any,
    /// There are no more options (`exec ID ls -l`). A `--` there is no operand, as in newer runcs.
    OptionsFirst,
    /// It is a verb, which reads the rest by itself.
    Verb,
}

/// Reads options and operands. Once help was asked for, no mistake behind it matters.
///
/// # Errors
/// Unknown options, missing and malformed values.
pub(crate) fn parse(
    flags: &'static [Flag],
    arguments: impl IntoIterator<Item = OsString>,
    order: Order,
) -> Result<Arguments, UsageError> {
    let mut parsed = Arguments::default();
    match parsed.read(flags, &mut Parser::from_args(arguments), order) {
        Err(error) if !parsed.help => Err(error),
        _ => Ok(parsed),
    }
}

impl Arguments {
    fn read(&mut self, flags: &'static [Flag], parser: &mut Parser, order: Order) -> Result<(), UsageError> {
        loop {
            if let Some(mut raw) = parser.try_raw_args() {
                match raw.peek() {
                    None => return Ok(()),
                    Some(next) if next == "--" => {
                        raw.next();
                        self.operands.extend(raw);
                        return Ok(());
                    }
                    Some(next) if !is_option(next) && order != Order::Any => {
                        self.operands.extend(raw.next());
                        if order == Order::OptionsFirst && raw.peek().is_some_and(|next| next == "--") {
                            raw.next();
                        }
                        self.operands.extend(raw);
                        return Ok(());
                    }
                    Some(_) => {}
                }
                let one_dash = raw.peek().and_then(|next| one_dash_flag(flags, next));
                if let Some((flag, value)) = one_dash {
                    raw.next();
                    let value = match (value, flag.value) {
                        (None, Some(_)) => Some(raw.next().ok_or_else(|| needs_argument(flag.long))?),
                        (value, _) => value,
                    };
                    self.add(flag, value)?;
                    continue;
                }
            }
            if !self.read_next(flags, parser)? {
                return Ok(());
            }
        }
    }

    /// One argument by lexopt; whether there was one.
    fn read_next(&mut self, flags: &'static [Flag], parser: &mut Parser) -> Result<bool, UsageError> {
        let (flag, short) = match parser.next().map_err(|error| UsageError(error.to_string()))? {
            None => return Ok(false),
            Some(Arg::Value(operand)) => {
                self.operands.push(operand);
                return Ok(true);
            }
            Some(Arg::Long(name)) => (find(flags, name).ok_or_else(|| undefined(name))?, false),
            Some(Arg::Short(letter)) => (
                flags
                    .iter()
                    .chain([&HELP])
                    .find(|flag| flag.short == Some(letter))
                    .ok_or_else(|| undefined(&letter.to_string()))?,
                true,
            ),
        };
        let value = match flag.value {
            Some(_) => Some(parser.value().map_err(|_| needs_argument(flag.long))?),
            // Behind a letter, more letters are switches of their own.
            None if short => None,
            None => parser.optional_value(),
        };
        self.add(flag, value)?;
        Ok(true)
    }

    fn add(&mut self, flag: &'static Flag, value: Option<OsString>) -> Result<(), UsageError> {
        if flag.value.is_some() {
            let value = value.ok_or_else(|| needs_argument(flag.long))?;
            if let Some((_, why)) = flag.check.filter(|(is_taken, _)| !value.to_str().is_some_and(is_taken)) {
                return Err(invalid(&value.to_string_lossy(), flag.long, why));
            }
            self.options.push((flag.long, value));
            return Ok(());
        }
        let on = match value.as_deref().map(OsStr::to_string_lossy) {
            None => true,
            Some(text) => parse_bool(&text)
                .ok_or_else(|| UsageError(format!("invalid boolean value {text:?} for -{}: parse error", flag.long)))?,
        };
        if flag.long == HELP.long {
            self.help = on;
        } else {
            self.switches.push((flag.long, on));
        }
        Ok(())
    }
}

fn is_option(argument: &OsStr) -> bool {
    argument.len() > 1 && argument.as_encoded_bytes().first() == Some(&b'-')
}

fn find(flags: &'static [Flag], name: &str) -> Option<&'static Flag> {
    flags
        .iter()
        .chain([&HELP])
        .find(|flag| flag.long == name || flag.short.is_some_and(|short| short.encode_utf8(&mut [0; 4]) == name))
}

/// `-name`, `-name=value` and `-n=value`; nothing that lexopt reads by itself.
fn one_dash_flag(flags: &'static [Flag], argument: &OsStr) -> Option<(&'static Flag, Option<OsString>)> {
    let text = argument.to_str()?.strip_prefix('-')?;
    if text.starts_with('-') {
        return None;
    }
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(OsString::from(value))),
        None => (text, None),
    };
    let flag = find(flags, name)?;
    (flag.long == name || value.is_some()).then_some((flag, value))
}

/// As Go's `strconv.ParseBool`.
pub(crate) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn undefined(name: &str) -> UsageError {
    UsageError(format!("flag provided but not defined: -{name}"))
}

fn needs_argument(name: &str) -> UsageError {
    UsageError(format!("flag needs an argument: -{name}"))
}

#[cfg(test)]
#[path = "arguments_tests.rs"]
mod tests;
