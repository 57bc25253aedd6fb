//! The time of day, as the protocols and logs write it.

use std::time::{SystemTime, UNIX_EPOCH};

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

/// `20261128-160000.123456789`, UTC.
pub(crate) fn compact(time: SystemTime) -> String {
    let text = flint_runtime::rfc3339(time);
    let digits = |range: std::ops::Range<usize>| text.get(range).unwrap_or_default();
    let (date, clock) = ([digits(0..4), digits(5..7), digits(8..10)], [digits(11..13), digits(14..16), digits(17..29)]);
    format!("{}-{}", date.concat(), clock.concat())
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::compact;

    #[test]
    fn times_of_files() {
        assert_eq!(compact(UNIX_EPOCH + Duration::new(951_782_461, 5)), "20000229-000101.000000005");
    }
}
