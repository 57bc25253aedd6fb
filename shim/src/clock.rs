//! The time of day, as the protocols and logs write it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use protobuf::MessageField;
use protobuf::well_known_types::timestamp::Timestamp;

/// `google.protobuf.Timestamp`; a time before 1970 is 1970.
pub(crate) fn timestamp(time: SystemTime) -> MessageField<Timestamp> {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    MessageField::some(Timestamp {
        seconds: since.as_secs() as i64,
        nanos: since.subsec_nanos() as i32,
        ..Timestamp::default()
    })
}

/// Nanoseconds since 1970.
pub(crate) fn nanoseconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// `20261128-160000.123456789`, UTC; read by [`from_compact`].
pub(crate) fn compact(time: SystemTime) -> String {
    let text = flint_runtime::rfc3339(time);
    let digits = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
    let (date, clock) = ([digits(0..4), digits(5..7), digits(8..10)], [digits(11..13), digits(14..16), digits(17..29)]);
    format!("{}-{}", date.concat(), clock.concat())
}

/// The time of a text that [`compact`] has made; one without a fraction is of a whole second.
pub(crate) fn from_compact(text: &str) -> Option<SystemTime> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u64>().ok();
    // The leap day is the last of a year that begins in March.
    let (year, month) = match (number(0..4)?, number(4..6)?) {
        (year, month @ 0..3) => (year.checked_sub(1)?, month + 9),
        (year, month) => (year, month - 3),
    };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + number(6..8)?;
    let seconds = number(9..11)? * 3600 + number(11..13)? * 60 + number(13..15)?;
    let nanoseconds = if text.len() == 15 { 0 } else { u32::try_from(number(16..25)?).ok()? };
    let time = UNIX_EPOCH + Duration::new(days.checked_sub(719_469)? * 86_400 + seconds, nanoseconds);
    // No other text: there is no 30 February.
    compact(time).starts_with(text).then_some(time)
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::{compact, from_compact};

    #[test]
    fn times_of_files() {
        assert_eq!(compact(UNIX_EPOCH + Duration::new(951_782_461, 5)), "20000229-000101.000000005");
        for seconds in [0, 951_782_461, 951_868_799, 951_868_800, 1_735_689_599, 4_107_542_400, 253_402_300_799] {
            let time = UNIX_EPOCH + Duration::new(seconds, 120_000_003);
            assert_eq!(from_compact(&compact(time)), Some(time));
        }
        assert_eq!(from_compact("20000229-000101"), Some(UNIX_EPOCH + Duration::from_secs(951_782_461)));
        for wrong in
            ["", "-", "20010229-000000", "20000001-000000", "20000229-240000", "20000229-000101.5", "00000101-000000"]
        {
            assert_eq!(from_compact(wrong), None, "{wrong}");
        }
    }
}
