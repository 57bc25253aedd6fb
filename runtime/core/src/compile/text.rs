//! Building a plan's tables.

use std::collections::HashMap;

use flint_init::plan::{FsOption, Range, Slot, Step, Text};

use crate::plan::SlotSource;
use crate::{Error, Result};

/// Longest path that init can work with (PATH_MAX without the NUL).
const LONGEST_PATH: usize = 4095;

/// The tables of a plan that is being compiled.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) steps: Vec<Step>,
    pub(super) text: Vec<u8>,
    pub(super) strings: Vec<Text>,
    pub(super) options: Vec<FsOption>,
    pub(super) ids: Vec<u32>,
    pub(super) filter: Vec<libc::sock_filter>,
    pub(super) masks: Vec<u64>,
    pub(super) slots: Vec<SlotSource>,
    /// Each string stands in the buffer once.
    known: HashMap<Vec<u8>, Text>,
}

impl Tables {
    pub(super) fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Adds a string; `field` names it when it is refused.
    pub(super) fn text(&mut self, field: &str, text: impl AsRef<[u8]>) -> Result<Text> {
        let bytes = text.as_ref();
        if let Some(known) = self.known.get(bytes) {
            return Ok(*known);
        }
        if bytes.contains(&0) {
            return Err(Error::invalid(format!("{field}: {:?} has a NUL byte", String::from_utf8_lossy(bytes))));
        }
        let (Ok(offset), Ok(length)) = (u32::try_from(self.text.len()), u32::try_from(bytes.len())) else {
            return Err(Error::invalid(format!("{field}: config.json has more text than 4 GiB")));
        };
        self.text.extend_from_slice(bytes);
        self.text.push(0);
        let text = Text { offset, length };
        self.known.insert(bytes.to_vec(), text);
        Ok(text)
    }

    /// Adds a path.
    pub(super) fn path(&mut self, field: &str, path: impl AsRef<[u8]>) -> Result<Text> {
        if path.as_ref().len() > LONGEST_PATH {
            return Err(Error::invalid(format!(
                "{field}: the path has {} bytes, more than the {LONGEST_PATH} that Linux allows",
                path.as_ref().len()
            )));
        }
        self.text(field, path)
    }

    /// Adds a list for execve, with its end.
    pub(super) fn list<S: AsRef<[u8]>>(&mut self, field: &str, list: &[S], free_entry: bool) -> Result<Range> {
        let mut texts = Vec::with_capacity(list.len() + 2);
        for (index, text) in list.iter().enumerate() {
            texts.push(self.text(&format!("{field}[{index}]"), text)?);
        }
        if free_entry {
            texts.push(Text::NONE);
        }
        texts.push(Text::NONE);
        let start = self.strings.len() as u32;
        self.strings.extend_from_slice(&texts);
        Ok(Range { start, length: texts.len() as u32 })
    }

    pub(super) fn options(&mut self, options: &[FsOption]) -> Range {
        let start = self.options.len() as u32;
        self.options.extend_from_slice(options);
        Range { start, length: options.len() as u32 }
    }

    pub(super) fn ids(&mut self, ids: &[u32]) -> Range {
        let start = self.ids.len() as u32;
        self.ids.extend_from_slice(ids);
        Range { start, length: ids.len() as u32 }
    }

    pub(super) fn filter(&mut self, program: &[libc::sock_filter]) -> Range {
        let start = self.filter.len() as u32;
        self.filter.extend_from_slice(program);
        Range { start, length: program.len() as u32 }
    }

    pub(super) fn mask(&mut self, words: &[u64]) -> Range {
        let start = self.masks.len() as u32;
        self.masks.extend_from_slice(words);
        Range { start, length: words.len() as u32 }
    }

    /// The slot for a source; the same source shares one, but for what is used up by its use.
    pub(super) fn slot(&mut self, source: SlotSource) -> Slot {
        let shared = matches!(
            source,
            SlotSource::Proc
                | SlotSource::HookState
                | SlotSource::HookOutput { .. }
                | SlotSource::Namespace { .. }
                | SlotSource::IdMapping { .. }
        );
        if shared && let Some(index) = self.slots.iter().position(|known| *known == source) {
            return Slot(index as u16);
        }
        self.slots.push(source);
        Slot((self.slots.len() - 1) as u16)
    }
}
