//! Quantities: `100m`, `1.5`, `64Mi`, `1e3`.

use serde_norway::Value;

use super::reading::{At, kind, shortened};

/// An amount, exact to a billionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Quantity(i128);

const ONE: i128 = 1_000_000_000;

impl Quantity {
    pub(super) fn whole_number(number: u64) -> Self {
        Self(i128::from(number) * ONE)
    }

    pub(super) fn thousandths(number: u64) -> Self {
        Self(i128::from(number) * (ONE / 1000))
    }

    /// Not negative; finer parts than a billionth are rounded up, as Kubernetes does it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let digits = text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let (number, suffix) = text.strip_prefix('+').map_or_else(
            || text.split_at(digits),
            |text| text.split_at(text.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count()),
        );
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + part.len() == 0 || part.contains('.') || whole.len() > 20 {
            return None;
        }
        let whole: i128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        // Twelve digits behind the point are all that a suffix of ten to the eighteenth leaves any use for here.
        let part: String = part.chars().chain("0".repeat(12).chars()).take(12).collect();
        let trillionths = whole.checked_mul(1_000_000_000_000)?.checked_add(part.parse().ok()?)?;
        let (times, by) = scale(suffix)?;
        let scaled = trillionths.checked_mul(times)?;
        let by = by.checked_mul(1000)?;
        Some(Self(scaled / by + i128::from(scaled % by != 0)))
    }

    /// Rounded up.
    pub(super) fn whole(self) -> u64 {
        up(self.0, ONE)
    }

    /// Thousandths, rounded up.
    pub(super) fn milli(self) -> u64 {
        up(self.0, ONE / 1000)
    }

    /// How many of these it is, rounded up; none of nothing.
    pub(super) fn per(self, divisor: Self) -> Option<u64> {
        (divisor.0 > 0).then(|| up(self.0, divisor.0))
    }

    pub(super) fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// One of a document: a string, or a number.
    pub(super) fn read(at: &At<'_>, value: &Value) -> Option<Self> {
        let text = match value {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            other => {
                at.refuse(format!("is {}, not a quantity", kind(other)));
                return None;
            }
        };
        let found = Self::parse(&text);
        if found.is_none() {
            at.refuse(format!(
                "{:?} is not a quantity: a number that is not negative, with m, k, M, G, T, P, E, Ki, Mi, Gi, Ti, Pi, Ei or an exponent",
                shortened(&text)
            ));
        }
        found
    }
}

fn up(number: i128, by: i128) -> u64 {
    u64::try_from(number / by + i128::from(number % by != 0)).unwrap_or(u64::MAX)
}

/// What a suffix multiplies with, and divides by.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let decimal = |power: u32| Some((10_i128.pow(power), 1));
    let binary = |power: u32| Some((1_i128 << (10 * power), 1));
    match suffix {
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "" => Some((1, 1)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            match exponent {
                0..=18 => decimal(exponent.unsigned_abs()),
                -9..0 => Some((1, 10_i128.pow(exponent.unsigned_abs()))),
                _ => None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        let whole = |text: &str| Quantity::parse(text).map(Quantity::whole);
        let milli = |text: &str| Quantity::parse(text).map(Quantity::milli);
        assert_eq!(milli("100m"), Some(100));
        assert_eq!(milli("0.5"), Some(500));
        assert_eq!(milli(".5"), Some(500));
        assert_eq!(milli("1.5"), Some(1500));
        assert_eq!(milli("2"), Some(2000));
        assert_eq!(milli("1n"), Some(1), "rounded up");
        assert_eq!(whole("64Mi"), Some(64 << 20));
        assert_eq!(whole("1.5Gi"), Some(3 << 29));
        assert_eq!(whole("128M"), Some(128_000_000));
        assert_eq!(whole("1e3"), Some(1000));
        assert_eq!(whole("1E"), Some(1_000_000_000_000_000_000));
        assert_eq!(whole("15Ei"), Some(15 << 60));
        assert_eq!(whole("100Ei"), Some(u64::MAX), "no more than can be counted");
        assert_eq!(whole("123456789123456789123e18"), None);
        assert_eq!(whole("1000m"), Some(1));
        assert_eq!(whole("12e-1"), Some(2));
        for bad in ["", ".", "-1", "1 Gi", "1gi", "1KB", "1..2", "1.2.3", "e3", "Mi", "0x10", "1e99", "NaN"] {
            assert_eq!(whole(bad), None, "{bad}");
        }
        let per = |one: &str, other: &str| Quantity::parse(one).unwrap().per(Quantity::parse(other).unwrap());
        assert_eq!(per("250m", "1"), Some(1));
        assert_eq!(per("250m", "1m"), Some(250));
        assert_eq!(per("64Mi", "1Mi"), Some(64));
        assert_eq!(per("1", "0"), None);
    }
}
