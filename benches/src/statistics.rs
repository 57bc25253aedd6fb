//! Quantiles of samples.

/// Quantiles of one measure, in the unit of its samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Summary {
    /// The smallest sample.
    pub min: f64,
    /// A tenth of the samples is below.
    pub p10: f64,
    /// Half of the samples is below.
    pub median: f64,
    /// Nine tenths of the samples are below.
    pub p90: f64,
    /// The largest sample.
    pub max: f64,
}

impl Summary {
    /// Summarises samples in any order; `None` when there are none.
    #[must_use]
    pub fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        Some(Self {
            min: *sorted.first()?,
            p10: quantile(&sorted, 0.1)?,
            median: quantile(&sorted, 0.5)?,
            p90: quantile(&sorted, 0.9)?,
            max: *sorted.last()?,
        })
    }
}

/// The quantile of sorted samples, interpolated between the two nearest.
fn quantile(sorted: &[f64], part: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    #[expect(clippy::cast_precision_loss, reason = "nobody has 2^52 samples")]
    let position = last as f64 * part;
    let below = sorted.get(position.floor() as usize)?;
    let above = sorted.get(position.ceil() as usize)?;
    Some(below + (above - below) * position.fract())
}

#[cfg(test)]
mod tests {
    use super::Summary;

    #[test]
    fn nothing_has_no_summary() {
        assert_eq!(Summary::of(&[]), None);
    }

    #[test]
    fn one_sample_is_all_quantiles() {
        let all = Summary { min: 4.0, p10: 4.0, median: 4.0, p90: 4.0, max: 4.0 };
        assert_eq!(Summary::of(&[4.0]), Some(all));
    }

    #[test]
    fn samples_need_no_order() {
        let samples: Vec<f64> = (0..=20).rev().map(f64::from).collect();
        let summary = Summary { min: 0.0, p10: 2.0, median: 10.0, p90: 18.0, max: 20.0 };
        assert_eq!(Summary::of(&samples), Some(summary));
    }

    #[test]
    fn an_even_count_is_interpolated() {
        assert_eq!(Summary::of(&[1.0, 2.0, 3.0, 10.0]).map(|summary| summary.median), Some(2.5));
    }
}
