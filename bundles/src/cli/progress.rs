//! Progress: one line for each thing that happens, on stderr.

use flint_bundle::{Digest, Event, Progress};

/// Prints a line for each event.
pub(super) struct Lines {
    quiet: bool,
}

impl Lines {
    pub(super) fn new(quiet: bool) -> Self {
        Self { quiet }
    }
}

impl Progress for Lines {
    fn tell(&self, event: Event<'_>) {
        if self.quiet {
            return;
        }
        match event {
            Event::Image { layers: 0, .. } => {}
            Event::Image { name, layers, bytes } if bytes > 0 => {
                eprintln!("{name}: {layers} layers, {} to take", size(bytes));
            }
            Event::LayerBegins { digest, bytes } => eprintln!("  {}: {} ...", short(digest), size(bytes)),
            Event::LayerEnds { digest } => eprintln!("  {}: done", short(digest)),
            Event::Retry { reason } => eprintln!("  trying again: {reason}"),
            _ => {}
        }
    }
}

/// The first digits, as many as people compare.
pub(super) fn short(digest: &Digest) -> &str {
    digest.hex().get(..12).unwrap_or_default()
}

/// A size for people.
pub(super) fn size(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "two digits are shown")]
    let mut value = bytes as f64;
    for unit in ["B", "KB", "MB", "GB"] {
        if value < 1000.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_are_short() {
        assert_eq!(super::size(999), "999 B");
        assert_eq!(super::size(1_234_567), "1.2 MB");
        assert_eq!(super::size(5_000_000_000_000), "5.0 TB");
    }
}
