//! Where the last lines of a file begin, without reading what is before them.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::line::{MAX_HEAD, ends_line};

/// Bytes that are read at once.
const BLOCK: usize = 64 << 10;

/// The offset behind which there are `lines` lines of the container until `end`, and how many there are (fewer: all of the file).
pub(super) fn start_of_last(file: &File, end: u64, lines: u64) -> io::Result<(u64, u64)> {
    let mut found = 0;
    // Where the entry behind the one that is looked at begins.
    let mut behind = end;
    let mut block_end = end;
    let mut buffer = vec![0; BLOCK + MAX_HEAD];
    while block_end > 0 {
        let block_start = block_end.saturating_sub(BLOCK as u64);
        let size = (block_end - block_start) as usize;
        // An entry that begins at the block's end has its head behind it.
        let with_head = (size + MAX_HEAD).min((end - block_start) as usize);
        let filled = read_full_at(file, &mut buffer[..with_head], block_start)?;
        for index in (0..size.min(filled)).rev() {
            let is_first = block_start == 0 && index == 0;
            let starts_at = if buffer[index] == b'\n' { index + 1 } else { 0 };
            let offset = block_start + starts_at as u64;
            // A newline at the end begins nothing; the file's first byte begins an entry, too.
            if (buffer[index] == b'\n' && offset < end) || (is_first && buffer[0] != b'\n') {
                let head = &buffer[starts_at..filled.min(starts_at + MAX_HEAD)];
                let is_whole = behind < end || ends_with_newline(file, end)?;
                if is_whole && ends_line(head) {
                    if found == lines {
                        return Ok((behind, found));
                    }
                    found += 1;
                }
                behind = offset;
            }
        }
        block_end = block_start;
    }
    Ok((0, found))
}

fn ends_with_newline(file: &File, end: u64) -> io::Result<bool> {
    let mut last = [0];
    Ok(end > 0 && read_full_at(file, &mut last, end - 1)? == 1 && last[0] == b'\n')
}

/// As much as there is.
fn read_full_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn last(text: &[u8], lines: u64) -> (Vec<u8>, u64) {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(text).unwrap();
        let (offset, found) = start_of_last(&file, text.len() as u64, lines).unwrap();
        (text[offset as usize..].to_vec(), found)
    }

    const TIME: &str = "2026-11-28T16:00:00Z";

    #[test]
    fn last_lines_begin_behind_the_line_before_them() {
        let text = format!("{TIME} stdout F a\n{TIME} stdout P b\n{TIME} stdout F c\n{TIME} stdout F d\n");
        let of = |from: usize| text.split_inclusive('\n').skip(from).collect::<String>().into_bytes();
        assert_eq!(last(text.as_bytes(), 0), (of(4), 0));
        assert_eq!(last(text.as_bytes(), 1), (of(3), 1));
        assert_eq!(last(text.as_bytes(), 2), (of(1), 2), "the part belongs to its line");
        assert_eq!(last(text.as_bytes(), 3), (of(0), 3));
        assert_eq!(last(text.as_bytes(), 9), (of(0), 3));
        assert_eq!(last(b"", 3), (Vec::new(), 0));
        // What is being written counts once it is there.
        let half = format!("{text}{TIME} stdout F unfinis");
        assert_eq!(last(half.as_bytes(), 1).1, 1);
        assert!(last(half.as_bytes(), 1).0.starts_with(format!("{TIME} stdout F d\n").as_bytes()));
    }

    #[test]
    fn blocks_cut_entries_anywhere() {
        let mut text = Vec::new();
        let mut starts = Vec::new();
        // Lengths that put ends and heads at all places around the ends of blocks.
        while text.len() < 3 * BLOCK {
            starts.push(text.len());
            let length = (starts.len() * 7) % 131;
            text.extend_from_slice(format!("{TIME} stderr F {}\n", "x".repeat(length)).as_bytes());
        }
        for lines in [1, 2, 100, 400, 401, 900, starts.len() - 1, starts.len()] {
            let (rest, found) = last(&text, lines as u64);
            assert_eq!(found, lines as u64);
            assert_eq!(rest.len(), text.len() - starts[starts.len() - lines], "{lines}");
        }
    }
}
