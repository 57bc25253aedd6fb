//! A warm pool of network namespaces: one costs the kernel some 0.7 ms to make, which a burst of pods need not wait for.
//!
//! How many are kept ready moves between the configured bounds: twice as many after a miss, half as many after a while without
//! need of them. They are refilled one after the other, so that no more than one CPU is taken from who makes containers.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use flint_shim_protocol::{Bounds, Pool};
use tokio::sync::Notify;

use super::{locked, namespaces};
use crate::error::Result;
use crate::log;
use crate::task::blocking;

/// So long a pool is left as it is that was not emptied by half.
const CALM: Duration = Duration::from_secs(60);
/// After a failure: a limit is reached, perhaps.
const AGAIN: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
pub(super) struct Networks {
    state: Mutex<State>,
    /// Told when there may be something to make.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    bounds: Bounds,
    wanted: u32,
    ready: Vec<OwnedFd>,
    /// The fewest that were ready since the last time that it was looked at.
    fewest: u32,
    hits: u64,
    misses: u64,
    is_tended: bool,
}

impl State {
    fn count(&self) -> u32 {
        self.ready.len() as u32
    }

    fn want(&mut self, wanted: u32) {
        // `clamp` panics for bounds that are the wrong way round.
        self.wanted = wanted.min(self.bounds.most).max(self.bounds.least.min(self.bounds.most));
    }

    /// One that is ready, if there is.
    fn take(&mut self) -> Option<OwnedFd> {
        let taken = self.ready.pop();
        if taken.is_some() {
            self.hits += 1;
        } else {
            self.misses += 1;
            self.want((self.wanted * 2).max(1));
        }
        self.fewest = self.fewest.min(self.count());
        taken
    }

    /// After a calm while: what was not needed is not kept.
    fn calm(&mut self) {
        if self.fewest > self.wanted / 2 {
            self.want(self.wanted / 2);
        }
        self.fewest = self.count();
    }

    /// Those that are more than are wanted. The kernel takes them away beside us.
    fn surplus(&mut self) -> Vec<OwnedFd> {
        self.ready.split_off(self.ready.len().min(self.wanted as usize))
    }
}

impl Networks {
    /// Sets the bounds, and starts to keep them. Called in the executor.
    pub(super) fn configure(self: &Arc<Self>, bounds: Bounds) {
        let starts = {
            let mut state = locked(&self.state);
            state.bounds = bounds;
            let wanted = state.wanted;
            state.want(wanted);
            !std::mem::replace(&mut state.is_tended, true)
        };
        if starts {
            tokio::spawn(tend(self.clone()));
        }
        self.changed.notify_one();
    }

    /// One that is ready, or a new one; and whether it was ready. Called on a thread that may wait.
    ///
    /// # Errors
    ///
    /// None is ready and the kernel makes none.
    pub(super) fn take(&self) -> Result<(OwnedFd, bool)> {
        let taken = locked(&self.state).take();
        self.changed.notify_one();
        match taken {
            Some(namespace) => Ok((namespace, true)),
            None => namespaces::network().map(|namespace| (namespace, false)),
        }
    }

    pub(super) fn status(&self) -> Pool {
        let state = locked(&self.state);
        Pool { ready: state.count(), wanted: state.wanted, hits: state.hits, misses: state.misses }
    }
}

/// Fills and empties the pool for as long as the shim is. Without a need it sleeps, and wakes no CPU.
async fn tend(networks: Arc<Networks>) {
    loop {
        let (surplus, missing, is_more_than_least) = {
            let mut state = locked(&networks.state);
            let missing = state.wanted > state.count();
            (state.surplus(), missing, state.wanted > state.bounds.least)
        };
        if !surplus.is_empty() {
            let _ = blocking(move || {
                drop(surplus);
                Ok(())
            })
            .await;
        }
        if missing {
            match blocking(namespaces::network).await {
                Ok(namespace) => {
                    let mut state = locked(&networks.state);
                    state.ready.push(namespace);
                }
                Err(error) => {
                    log::warn(&format!("fill the pool of network namespaces: {error}"));
                    tokio::time::sleep(AGAIN).await;
                }
            }
            continue;
        }
        if !is_more_than_least {
            networks.changed.notified().await;
        } else if tokio::time::timeout(CALM, networks.changed.notified()).await.is_err() {
            locked(&networks.state).calm();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use flint_shim_protocol::Bounds;

    use super::State;

    fn state(least: u32, most: u32) -> State {
        let mut state = State { bounds: Bounds { least, most }, ..State::default() };
        state.want(0);
        state
    }

    fn fill(state: &mut State) {
        while state.count() < state.wanted {
            state.ready.push(File::open("/dev/null").unwrap().into());
        }
        state.fewest = state.count();
    }

    #[test]
    fn misses_let_the_pool_grow_up_to_its_bound() {
        let mut pool = state(0, 5);
        assert_eq!(pool.wanted, 0);
        for wanted in [1, 2, 4, 5, 5] {
            assert!(pool.take().is_none());
            assert_eq!(pool.wanted, wanted);
        }
        fill(&mut pool);
        assert!(pool.take().is_some());
        assert_eq!((pool.hits, pool.misses, pool.count()), (1, 5, 4));
        assert_eq!(state(0, 0).take().map(drop), None);
        assert_eq!(state(9, 3).wanted, 3, "no more than the most");
    }

    #[test]
    fn without_need_it_shrinks_to_its_least() {
        let mut pool = state(2, 16);
        pool.want(16);
        fill(&mut pool);
        // More than a half was needed: it stays.
        for _ in 0..9 {
            pool.take();
        }
        pool.calm();
        assert_eq!(pool.wanted, 16);
        for wanted in [8, 4, 2, 2] {
            fill(&mut pool);
            pool.calm();
            assert_eq!(pool.wanted, wanted);
            drop(pool.surplus());
            assert_eq!(pool.count(), wanted);
        }
    }
}
