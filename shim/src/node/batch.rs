//! Items of a batch, beside each other.

use std::num::NonZero;

use futures::stream::{StreamExt as _, iter};

/// What a machine with this many CPUs is given at a time: each item waits in the kernel for about half of its time.
fn usual() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get) * 2
}

/// Does `work` for each item, `at_once` at a time (0: as many as this machine likes); what came of them, in their order.
pub(super) async fn each<I, O, F>(items: Vec<I>, at_once: u32, work: impl Fn(I) -> F) -> Vec<O>
where
    F: Future<Output = O>,
{
    let at_once = if at_once == 0 { usual() } else { at_once as usize };
    let numbered = items.into_iter().enumerate().map(|(number, item)| {
        let working = work(item);
        async move { (number, working.await) }
    });
    let mut done: Vec<(usize, O)> = iter(numbered).buffer_unordered(at_once).collect().await;
    done.sort_unstable_by_key(|(number, _)| *number);
    done.into_iter().map(|(_, outcome)| outcome).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::each;

    #[test]
    fn so_many_at_a_time_and_in_order() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let (now, most) = (Cell::new(0), Cell::new(0));
            let outcomes = each((0..20).collect(), 3, |item: u64| {
                let (now, most) = (&now, &most);
                async move {
                    now.set(now.get() + 1);
                    most.set(most.get().max(now.get()));
                    tokio::time::sleep(Duration::from_millis(20 - item)).await;
                    now.set(now.get() - 1);
                    item
                }
            })
            .await;
            assert_eq!(outcomes, (0..20).collect::<Vec<_>>());
            assert_eq!(most.get(), 3);
        });
    }
}
