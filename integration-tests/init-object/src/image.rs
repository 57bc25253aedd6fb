//! The program's file: functions, the GOT, read-only data.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use object::elf::{R_X86_64_RELATIVE, SHF_EXECINSTR, SHF_WRITE};
use object::read::elf::ElfFile64;
use object::{Architecture, Object, ObjectSection, ObjectSymbol, RelocationFlags, SectionFlags, SymbolKind};

/// A linked x86_64 program with its symbols.
pub(crate) struct Image<'a> {
    sections: Vec<Section<'a>>,
    /// By address.
    functions: BTreeMap<u64, Function>,
    /// What the start of the program adds its own base to: place and value.
    relative: BTreeMap<u64, u64>,
}

struct Section<'a> {
    name: &'a str,
    address: u64,
    data: &'a [u8],
    flags: u32,
}

/// A run of code with one or more names.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) address: u64,
    pub(crate) end: u64,
    /// Demangled; several when the linker or the compiler gave one code to several functions.
    pub(crate) names: Vec<String>,
}

impl Function {
    /// The names as one.
    pub(crate) fn name(&self) -> String {
        self.names.join(" = ")
    }
}

impl<'a> Image<'a> {
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let file: ElfFile64<'a> = ElfFile64::parse(bytes).context("reading the program as 64-bit ELF")?;
        ensure!(file.architecture() == Architecture::X86_64, "the program is not for x86_64");
        let mut sections = Vec::new();
        for section in file.sections() {
            let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
            // What has no place in memory has no address.
            if section.address() != 0 {
                let (name, data) = (section.name()?, section.data()?);
                sections.push(Section { name, address: section.address(), data, flags: sh_flags as u32 });
            }
        }
        let mut relative = BTreeMap::new();
        for (place, relocation) in file.dynamic_relocations().into_iter().flatten() {
            if relocation.flags() == (RelocationFlags::Elf { r_type: R_X86_64_RELATIVE }) {
                relative.insert(place, relocation.addend() as u64);
            }
        }
        let mut image = Self { sections, functions: BTreeMap::new(), relative };
        image.read_functions(&file)?;
        Ok(image)
    }

    fn read_functions(&mut self, file: &ElfFile64<'a>) -> Result<()> {
        let mut places: BTreeMap<u64, (u64, Vec<String>)> = BTreeMap::new();
        for symbol in file.symbols() {
            // Labels of hand-written assembly have no type, and often no size.
            let code = matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Unknown | SymbolKind::Label);
            let name = symbol.name()?;
            if code && !name.is_empty() && self.executable(symbol.address()).is_some() {
                let place = places.entry(symbol.address()).or_default();
                place.0 = place.0.max(symbol.size());
                place.1.push(format!("{:#}", rustc_demangle::demangle(name)));
            }
        }
        if places.is_empty() {
            bail!("the program has no symbols: give the one from before strip");
        }
        let starts: Vec<u64> = places.keys().copied().collect();
        for (index, (address, (size, names))) in places.into_iter().enumerate() {
            let section_end = self.executable(address).map_or(address, |it| it.address + it.data.len() as u64);
            let next = starts.get(index + 1).copied().unwrap_or(section_end).min(section_end);
            let end = if size == 0 { next } else { address + size };
            self.functions.insert(address, Function { address, end, names });
        }
        Ok(())
    }

    fn section(&self, address: u64) -> Option<&Section<'a>> {
        self.sections.iter().find(|it| address >= it.address && address - it.address < it.data.len() as u64)
    }

    fn executable(&self, address: u64) -> Option<&Section<'a>> {
        self.section(address).filter(|it| it.flags & SHF_EXECINSTR != 0)
    }

    /// The function that the address lies in.
    pub(crate) fn function(&self, address: u64) -> Option<&Function> {
        let (_, function) = self.functions.range(..=address).next_back()?;
        (address < function.end).then_some(function)
    }

    /// All functions of this name: instances of a generic one, and copies that the compiler made.
    pub(crate) fn named(&self, name: &str) -> Vec<&Function> {
        let matches = |full: &String| {
            full.strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with("::<") || rest.starts_with('.'))
        };
        self.functions.values().filter(|function| function.names.iter().any(matches)).collect()
    }

    /// The function's bytes.
    pub(crate) fn code(&self, function: &Function) -> Option<&'a [u8]> {
        let section = self.executable(function.address)?;
        let start = (function.address - section.address) as usize;
        section.data.get(start..(function.end - section.address) as usize)
    }

    /// What the linker wrote into a slot of the GOT. Other tables of pointers may be written to.
    pub(crate) fn got(&self, slot: u64) -> Option<u64> {
        let section = self.section(slot).filter(|it| it.name == ".got")?;
        if let Some(&target) = self.relative.get(&slot) {
            return Some(target);
        }
        let start = (slot - section.address) as usize;
        let bytes = section.data.get(start..start + 8)?;
        // Without a relocation of its own, a position-dependent program's; 0 is nothing.
        Some(u64::from_le_bytes(bytes.try_into().ok()?)).filter(|&target| target != 0)
    }

    /// Four bytes of read-only data.
    pub(crate) fn constant(&self, address: u64) -> Option<i32> {
        let section = self.section(address).filter(|it| it.flags & (SHF_WRITE | SHF_EXECINSTR) == 0)?;
        let start = (address - section.address) as usize;
        Some(i32::from_le_bytes(section.data.get(start..start + 4)?.try_into().ok()?))
    }
}
