//! Work on many small things, on every core.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Neighbours are done by one thread: a folder that two write to is locked by one of them.
const NEIGHBOURS: usize = 64;
/// Most threads: the disk is not faster with more.
const THREADS_MAX: usize = 4;

/// Does `work` with each of `items`; begins nothing more once one of them has failed.
///
/// # Errors
/// The first error of `work`.
pub(crate) fn each<T: Sync, E: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    let next = AtomicUsize::new(0);
    let failure = Mutex::new(None);
    let run = || {
        loop {
            let from = next.fetch_add(NEIGHBOURS, Ordering::Relaxed);
            let Some(rest) = items.get(from..) else { break };
            if let Err(error) = rest.iter().take(NEIGHBOURS).try_for_each(&work) {
                next.store(items.len(), Ordering::Relaxed);
                let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                failure.get_or_insert(error);
            }
        }
    };
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let threads = items.len().div_ceil(NEIGHBOURS).min(cores).min(THREADS_MAX);
    thread::scope(|scope| {
        for _ in 1..threads {
            let _or_this_one_does_it_alone = thread::Builder::new().spawn_scoped(scope, run);
        }
        run();
    });
    let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
    failure.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_done_once_and_a_failure_is_said() {
        for count in [0, 1, NEIGHBOURS, 5 * NEIGHBOURS + 3] {
            let done: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
            let result: Result<(), ()> = each(&done, |one| {
                one.fetch_add(1, Ordering::Relaxed);
                Ok(())
            });
            assert_eq!(result, Ok(()));
            assert!(done.iter().all(|one| one.load(Ordering::Relaxed) == 1));
        }
        let numbers: Vec<usize> = (0..1000).collect();
        let fails = |number: &usize| if *number == 700 { Err("700") } else { Ok(()) };
        assert_eq!(each(&numbers, fails), Err("700"));
    }
}
