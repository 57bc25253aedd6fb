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
}

/// A flag without a value.
pub(crate) const fn switch(long: &'static str, short: Option<char>, help: &'static str) -> Flag {
    Flag { long, short, value: None, help }
}

/// A flag with a value, called `value` in the help.
pub(crate) const fn option(long: &'static str, short: Option<char>, value: &'static str, help: &'static str) -> Flag {
    Flag { long, short, value: Some(value), help }
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
    flags: Vec<(&'static str, Option<OsString>)>,
    /// What is no option, in order.
    pub(crate) operands: Vec<OsString>,
    /// `--help` was among the options.
    pub(crate) help: bool,
}

impl Arguments {
    /// Whether the switch is on.
    pub(crate) fn is_set(&self, long: &str) -> bool {
        self.flags.iter().any(|(name, _)| *name == long)
    }

    /// The last value given for the option; an empty one counts as not given, as in runc.
    pub(crate) fn value<'a>(&'a self, long: &'a str) -> Option<&'a OsStr> {
        self.values(long).last().filter(|value| !value.is_empty())
    }

    /// All values given for the option.
    pub(crate) fn values<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a OsStr> {
        self.flags.iter().filter(move |(name, _)| *name == long).filter_map(|(_, value)| value.as_deref())
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

    /// The option's value as a number.
    ///
    /// # Errors
    /// When it is none, or too large.
    pub(crate) fn number(&self, long: &str) -> Result<Option<u32>, UsageError> {
        let Some(text) = self.text(long)? else { return Ok(None) };
        parse_id(text).map(Some).ok_or_else(|| invalid(text, long, "it must be a number from 0 to 4294967295"))
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

fn utf8<'a>(value: &'a OsStr, long: &str) -> Result<&'a str, UsageError> {
    value.to_str().ok_or_else(|| invalid(&value.to_string_lossy(), long, "it is not UTF-8"))
}

/// `invalid value "x" for flag -name: why`
pub(crate) fn invalid(value: &str, long: &str, why: &str) -> UsageError {
    UsageError(format!("invalid value {value:?} for flag -{long}: {why}"))
}

/// Reads options as long as there are some.
///
/// With `interspersed`, options may follow operands (`create ID --bundle B`); without, everything from the
/// first operand on is an operand (`exec ID ls -l`).
///
/// # Errors
/// Unknown options, missing and malformed values.
pub(crate) fn parse(
    flags: &'static [Flag],
    arguments: impl IntoIterator<Item = OsString>,
    interspersed: bool,
) -> Result<Arguments, UsageError> {
    let mut parser = Parser::from_args(arguments);
    let mut parsed = Arguments::default();
    loop {
        if let Some(mut raw) = parser.try_raw_args() {
            match raw.peek() {
                None => return Ok(parsed),
                Some(next) if next == "--" => {
                    raw.next();
                    parsed.operands.extend(raw);
                    return Ok(parsed);
                }
                Some(next) if !is_option(next) && !interspersed => {
                    parsed.operands.extend(raw);
                    return Ok(parsed);
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
                parsed.add(flag, value)?;
                continue;
            }
        }
        if !parsed.read_next(flags, &mut parser)? {
            return Ok(parsed);
        }
    }
}

impl Arguments {
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
            self.flags.push((flag.long, value));
            return Ok(());
        }
        let on = match value.as_deref().map(OsStr::to_string_lossy) {
            None => true,
            Some(text) => parse_bool(&text)
                .ok_or_else(|| UsageError(format!("invalid boolean value {text:?} for -{}: parse error", flag.long)))?,
        };
        if flag.long == HELP.long {
            self.help = on;
        } else if on {
            self.flags.push((flag.long, None));
        } else {
            self.flags.retain(|(name, _)| *name != flag.long);
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

fn parse_bool(text: &str) -> Option<bool> {
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
