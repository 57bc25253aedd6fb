//! Reads as much of an ELF file as it takes to say whether it is static.

use anyhow::{Context, bail, ensure};

const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;

/// Checks that a program needs no loader and no library: no `PT_INTERP` and no `DT_NEEDED`.
///
/// A static-pie has a dynamic section, for its own relocations, and is static nevertheless.
///
/// # Errors
///
/// Says what makes `file` dynamic, or that it is no 64-bit little-endian ELF file.
pub(crate) fn ensure_static(file: &[u8]) -> anyhow::Result<()> {
    ensure!(file.starts_with(b"\x7fELF"), "it is no ELF file");
    ensure!(file.get(4..6) == Some(&[2, 1]), "it is no 64-bit little-endian ELF file");
    let table = number(file, 0x20, 8)?;
    let size = number(file, 0x36, 2)?;
    let count = number(file, 0x38, 2)?;
    ensure!(count > 0, "it has no program headers");
    for index in 0..count {
        let header = offset(table, index * size)?;
        let (start, length) = (number(file, header + 8, 8)?, number(file, header + 32, 8)?);
        match number(file, header, 4)? as u32 {
            PT_INTERP => bail!("it is linked dynamically: it asks for the loader {}", text(file, start, length)),
            PT_DYNAMIC => ensure_needs_nothing(file, start, length)?,
            _ => {}
        }
    }
    Ok(())
}

fn ensure_needs_nothing(file: &[u8], start: u64, length: u64) -> anyhow::Result<()> {
    for entry in 0..length / 16 {
        if number(file, offset(start, entry * 16)?, 8)? == DT_NEEDED {
            bail!("it is linked dynamically: it needs a shared library");
        }
    }
    Ok(())
}

fn offset(base: u64, more: u64) -> anyhow::Result<u64> {
    base.checked_add(more).context("it has an offset beyond all files")
}

fn number(file: &[u8], at: u64, width: usize) -> anyhow::Result<u64> {
    let at = usize::try_from(at).context("it has an offset beyond all files")?;
    let bytes = at.checked_add(width).and_then(|end| file.get(at..end));
    let bytes = bytes.with_context(|| format!("it is cut off: nothing at byte {at}"))?;
    Ok(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn text(file: &[u8], start: u64, length: u64) -> String {
    let range = start as usize..start.saturating_add(length) as usize;
    String::from_utf8_lossy(file.get(range).unwrap_or_default()).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header with one program header of type `kind` that points at `content`.
    fn elf(kind: u32, content: &[u8]) -> Vec<u8> {
        let mut file = vec![0; 0x40 + 56];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[0x20] = 0x40;
        file[0x36] = 56;
        file[0x38] = 1;
        file[0x40..0x44].copy_from_slice(&kind.to_le_bytes());
        file[0x48..0x50].copy_from_slice(&(0x40_u64 + 56).to_le_bytes());
        file[0x60..0x68].copy_from_slice(&(content.len() as u64).to_le_bytes());
        file.extend(content);
        file
    }

    fn dynamic(tags: &[u64]) -> Vec<u8> {
        tags.iter().flat_map(|tag| [tag.to_le_bytes(), 0_u64.to_le_bytes()]).flatten().collect()
    }

    #[test]
    fn a_program_with_a_loader_is_refused_by_the_loaders_name() {
        let error = ensure_static(&elf(PT_INTERP, b"/lib/ld.so\0")).unwrap_err();
        assert!(error.to_string().contains("/lib/ld.so"), "{error}");
    }

    #[test]
    fn a_static_pie_passes_and_one_that_needs_a_library_does_not() {
        ensure_static(&elf(PT_DYNAMIC, &dynamic(&[5, 6, 0]))).unwrap();
        let error = ensure_static(&elf(PT_DYNAMIC, &dynamic(&[5, DT_NEEDED, 0]))).unwrap_err();
        assert!(error.to_string().contains("shared library"), "{error}");
    }

    #[test]
    fn garbage_and_cut_files_are_errors() {
        assert!(ensure_static(b"#!/bin/sh\n").is_err());
        let mut cut = elf(PT_DYNAMIC, &dynamic(&[5, 6]));
        cut.truncate(0x60);
        assert!(ensure_static(&cut).unwrap_err().to_string().contains("cut off"));
    }

    #[test]
    fn this_test_program_is_dynamic_when_it_is_built_for_gnu() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(ensure_static(&own).is_err(), cfg!(target_env = "gnu"));
    }
}
