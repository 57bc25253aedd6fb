//! What happened lately: a ring, and its listeners.

use std::collections::VecDeque;
use std::sync::Mutex;

use tokio::sync::broadcast;

use super::locked;
use crate::observed::Event;

/// So many are kept.
const KEPT: usize = 1000;
/// A listener that is so far behind misses some.
const BEHIND: usize = 256;

/// The last events of the node.
#[derive(Debug)]
pub struct Journal {
    ring: Mutex<VecDeque<Event>>,
    listeners: broadcast::Sender<Event>,
}

impl Default for Journal {
    fn default() -> Self {
        Self { ring: Mutex::default(), listeners: broadcast::channel(BEHIND).0 }
    }
}

impl Journal {
    pub(super) fn add(&self, event: Event) {
        let mut ring = locked(&self.ring);
        if ring.len() == KEPT {
            ring.pop_front();
        }
        ring.push_back(event.clone());
        // Under the lock: a listener gets each event once, in `recent` or here. Nobody listening is no error.
        let _ = self.listeners.send(event);
    }

    /// Those that are kept, and all that come from now on.
    #[must_use]
    pub fn follow(&self) -> (Vec<Event>, broadcast::Receiver<Event>) {
        let ring = locked(&self.ring);
        (ring.iter().cloned().collect(), self.listeners.subscribe())
    }

    /// Those that are kept, the oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<Event> {
        locked(&self.ring).iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Journal, KEPT};
    use crate::observed::{Event, Reason};

    #[test]
    fn the_last_are_kept() {
        let journal = Journal::default();
        for number in 0..=KEPT {
            let reason = Reason { word: number.to_string(), sentence: String::new() };
            let at = std::time::SystemTime::now();
            journal.add(Event { at, pod: None, container: None, is_warning: false, reason });
        }
        let (recent, mut listener) = journal.follow();
        assert_eq!((recent.len(), recent[0].reason.word.as_str()), (KEPT, "1"));
        assert!(listener.try_recv().is_err(), "those before are not told twice");
    }
}
