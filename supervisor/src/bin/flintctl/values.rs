//! Values as people write and read them.

use std::time::{Duration, SystemTime};

/// A time of `10s`, `5m`, `1h30m`, `2d`, or seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time like 30s, 5m, 1h30m or 2d");
    if let Ok(seconds) = text.parse::<u64>() {
        return Ok(Duration::from_secs(seconds));
    }
    let mut total: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        let unit = match rest[digits..].chars().next() {
            Some('s') => 1,
            Some('m') => 60,
            Some('h') => 3600,
            Some('d') => 86_400,
            _ => return Err(wrong()),
        };
        total = number.checked_mul(unit).and_then(|seconds| total.checked_add(seconds)).ok_or_else(wrong)?;
        rest = &rest[digits + 1..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(Duration::from_secs(total)) }
}

/// Bytes, or with k, m, g (of 1024), as docker has them.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size like 512k, 64m or 2g");
    let lower = text.to_ascii_lowercase();
    let number = lower.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor: u64 = match &lower[number.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "ki" | "kib" => 1 << 10,
        "m" | "mb" | "mi" | "mib" => 1 << 20,
        "g" | "gb" | "gi" | "gib" => 1 << 30,
        _ => return Err(wrong()),
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(wrong)
}

/// CPUs to thousandths of one.
pub(crate) fn milli_cpus(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no number of CPUs like 0.5 or 2");
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if part.len() > 3 || !part.bytes().all(|byte| byte.is_ascii_digit()) || (whole.is_empty() && part.is_empty()) {
        return Err(wrong());
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| wrong())? };
    let part: u64 = format!("{part:0<3}").parse().map_err(|_| wrong())?;
    let milli = whole.checked_mul(1000).and_then(|milli| milli.checked_add(part)).ok_or_else(wrong)?;
    if milli == 0 { Err(wrong()) } else { Ok(milli) }
}

/// How long something is, in one or two units: `45s`, `3m20s`, `5h`, `12d`.
pub(crate) fn age(age: Duration) -> String {
    let seconds = age.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 if !seconds.is_multiple_of(60) => format!("{minutes}m{}s", seconds % 60),
        120..7200 => format!("{minutes}m"),
        7200..172_800 => format!("{hours}h"),
        _ => format!("{days}d"),
    }
}

/// How long ago something was; `-` if it was not.
pub(crate) fn ago(at: Option<SystemTime>, now: SystemTime) -> String {
    at.map_or_else(|| "-".to_owned(), |at| age(now.duration_since(at).unwrap_or_default()))
}

/// Bytes in units of 1024, three digits.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1000.0 {
            return match unit {
                "B" => format!("{bytes}B"),
                _ if value < 10.0 => format!("{value:.2}{unit}"),
                _ if value < 100.0 => format!("{value:.1}{unit}"),
                _ => format!("{value:.0}{unit}"),
            };
        }
        value /= 1024.0;
    }
    format!("{value:.2}TiB")
}

/// Text of others, without what a terminal would obey.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{fffd}' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_write() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(bytes("64m"), Ok(64 << 20));
        assert_eq!(bytes("1GiB"), Ok(1 << 30));
        assert_eq!(milli_cpus("0.5"), Ok(500));
        assert_eq!(milli_cpus("2"), Ok(2000));
        assert_eq!(milli_cpus(".25"), Ok(250));
        for wrong in ["", "x", "5x", "m", "5mm", "99999999999999999999s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", "m", "-1", "5x", "99999999999g"] {
            assert!(bytes(wrong).is_err(), "{wrong}");
        }
        for wrong in ["", ".", "0", "-1", "1.2345", "x"] {
            assert!(milli_cpus(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_people_read() {
        let ages =
            [(5, "5s"), (119, "119s"), (125, "2m5s"), (180, "3m"), (3599, "59m"), (90_000, "25h"), (900_000, "10d")];
        for (seconds, text) in ages {
            assert_eq!(age(Duration::from_secs(seconds)), text);
        }
        let sizes = [
            (0, "0B"),
            (999, "999B"),
            (1536, "1.50KiB"),
            (64 << 20, "64.0MiB"),
            (512 << 20, "512MiB"),
            (3 << 40, "3.00TiB"),
        ];
        for (bytes, text) in sizes {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(plain("a\x1b[31mb\nc"), "a\u{fffd}[31mb\u{fffd}c");
    }
}
