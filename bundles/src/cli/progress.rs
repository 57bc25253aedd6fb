//! Progress on stderr: bars at a terminal, else one line for each thing that happens.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::sync::{Mutex, MutexGuard, PoisonError};

use flint_bundle::{Digest, Event, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How progress is shown.
pub(super) enum Shown {
    /// Not at all.
    Quiet,
    /// As lines.
    Lines,
    /// As bars.
    Bars(Bars),
}

impl Shown {
    /// Bars where somebody sees them move.
    pub(super) fn new(quiet: bool) -> Self {
        let moves = std::io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        match (quiet, moves) {
            (true, _) => Self::Quiet,
            (false, true) => Self::Bars(Bars::new(ProgressDrawTarget::stderr())),
            (false, false) => Self::Lines,
        }
    }
}

impl Progress for Shown {
    fn tell(&self, event: Event<'_>) {
        match self {
            Self::Quiet => {}
            Self::Bars(bars) => bars.tell(event),
            Self::Lines => {
                if let Some(line) = line(event) {
                    eprintln!("{line}");
                }
            }
        }
    }
}

/// The line for an event; None for those that come often.
fn line(event: Event<'_>) -> Option<String> {
    match event {
        Event::Image { name, layers, bytes } if bytes > 0 => {
            Some(format!("{name}: {layers} layers, {} to take", size(bytes)))
        }
        Event::LayerBegins { digest, bytes } => Some(format!("  {}: {} ...", short(digest), size(bytes))),
        Event::LayerEnds { digest } => Some(format!("  {}: done", short(digest))),
        Event::Retry { reason } => Some(format!("  trying again: {reason}")),
        _ => None,
    }
}

/// A bar for each layer that comes, and one below them for all. They are gone when this is dropped.
pub(super) struct Bars {
    all: MultiProgress,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    total: Option<ProgressBar>,
    layers: BTreeMap<String, (ProgressBar, u64)>,
    /// Bytes of the layers that have ended.
    ended: u64,
}

impl Bars {
    fn new(target: ProgressDrawTarget) -> Self {
        Self { all: MultiProgress::with_draw_target(target), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: Event<'_>) {
        let mut state = self.state();
        match event {
            Event::Image { name, layers, .. } if layers > 0 => {
                let total = ProgressBar::new(layers as u64).with_style(style("{prefix} {msg} {elapsed}"));
                total.set_prefix(name.to_owned());
                state.total = Some(self.all.add(total));
            }
            Event::LayerBegins { digest, bytes } => {
                let bar = ProgressBar::new(bytes)
                    .with_style(style("{prefix:12} {bar:30} {decimal_bytes}/{decimal_total_bytes}"));
                let bar = self.all.insert(0, bar.with_prefix(short(digest).to_owned()));
                state.layers.insert(digest.hex().to_owned(), (bar, bytes));
            }
            Event::LayerComes { digest, bytes } => {
                if let Some((bar, _)) = state.layers.get(digest.hex()) {
                    bar.set_position(bytes);
                }
            }
            Event::LayerEnds { digest } => {
                if let Some((bar, bytes)) = state.layers.remove(digest.hex()) {
                    bar.finish_and_clear();
                    state.ended += bytes;
                }
                if let Some(total) = &state.total {
                    total.inc(1);
                }
            }
            // A closed stderr is no reason to stop.
            Event::Retry { reason } => drop(self.all.println(format!("trying again: {reason}"))),
            _ => {}
        }
        state.show_total();
    }
}

impl State {
    fn show_total(&self) {
        let Some(total) = &self.total else { return };
        let came = self.ended + self.layers.values().map(|(bar, _)| bar.position()).sum::<u64>();
        let (ended, layers) = (total.position(), total.length().unwrap_or_default());
        total.set_message(format!("{ended} of {layers} layers, {}", size(came)));
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        let state = self.state();
        for (bar, _) in state.layers.values() {
            bar.finish_and_clear();
        }
        if let Some(total) = &state.total {
            total.finish_and_clear();
        }
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> ")
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
