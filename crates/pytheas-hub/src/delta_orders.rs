//! Which deltas devices have asked for: each pair of trees once, however many ask; in a short queue;
//! not too many in a time; and not again where making one was of no use.

use std::{
    collections::{HashMap, VecDeque},
    net::{IpAddr, Ipv4Addr},
    sync::{Mutex, PoisonError},
};

use pytheas_release::TreeId;
use tokio::sync::Notify;

use crate::limits::Limit;

/// The tree that devices have, and the one that they should have.
pub(crate) type Pair = (TreeId, TreeId);

/// Pairs that wait; those who ask for more are told that there is none.
const WAITING_MAX: usize = 32;
/// For so long a pair is left whose delta was longer than the contents, or could not be made.
const USELESS_MS: i64 = 24 * 3600 * 1000;
/// Pairs remembered as useless; beyond it nothing is made until some are forgotten.
const USELESS_MAX: usize = 10_000;

/// See the module.
#[derive(Debug)]
pub(crate) struct DeltaOrders {
    state: Mutex<State>,
    /// Orders of one address: 16, and one more every five minutes.
    per_address: Limit,
    /// Orders of all: 120, and one more every half a minute.
    all: Limit,
    more: Notify,
    /// Held while a delta is written or removed.
    pub(crate) keeping: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Pair>,
    at_work: Option<Pair>,
    useless: HashMap<Pair, i64>,
}

/// What came of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// It is being made, or will be.
    Taken,
    /// It will not be made now.
    Refused,
}

impl Default for DeltaOrders {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            per_address: Limit::new(16, 300_000),
            all: Limit::new(120, 30_000),
            more: Notify::new(),
            keeping: tokio::sync::Mutex::default(),
        }
    }
}

impl DeltaOrders {
    fn state<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What there is to say about this pair without looking further.
    pub(crate) fn known(&self, pair: Pair, now_ms: i64) -> Option<Order> {
        self.state(|state| {
            if state.at_work == Some(pair) || state.waiting.contains(&pair) {
                return Some(Order::Taken);
            }
            let is_useless = state
                .useless
                .get(&pair)
                .is_some_and(|since| (0..USELESS_MS).contains(&(now_ms - since)));
            is_useless.then_some(Order::Refused)
        })
    }

    /// Orders the delta of a pair that both releases exist for.
    pub(crate) fn order(&self, pair: Pair, from: IpAddr, now_ms: i64) -> Order {
        if let Some(known) = self.known(pair, now_ms) {
            return known;
        }
        let everybody = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        if !self.per_address.allows(from, now_ms) || !self.all.allows(everybody, now_ms) {
            return Order::Refused;
        }
        let taken = self.state(|state| {
            let full = state.waiting.len() >= WAITING_MAX || state.useless.len() >= USELESS_MAX;
            // Two may have come here at the same time.
            if full || state.at_work == Some(pair) || state.waiting.contains(&pair) {
                return !full;
            }
            state.waiting.push_back(pair);
            true
        });
        if !taken {
            return Order::Refused;
        }
        self.per_address.count(from, now_ms);
        self.all.count(everybody, now_ms);
        self.more.notify_one();
        Order::Taken
    }

    /// Waits for the next pair; it is at work until [`Self::done`].
    pub(crate) async fn next(&self) -> Pair {
        loop {
            let next = self.state(|state| {
                state.at_work = state.waiting.pop_front();
                state.at_work
            });
            if let Some(pair) = next {
                return pair;
            }
            self.more.notified().await;
        }
    }

    /// The pair at work is done; whether there is a delta now.
    pub(crate) fn done(&self, there_is_one: bool, now_ms: i64) {
        self.state(|state| {
            let Some(pair) = state.at_work.take() else {
                return;
            };
            state
                .useless
                .retain(|_, since| (0..USELESS_MS).contains(&(now_ms - *since)));
            if !there_is_one {
                state.useless.insert(pair, now_ms);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use pytheas_release::Sha256;

    use super::*;

    fn pair(number: u8) -> Pair {
        (
            TreeId(Sha256::of(&[number])),
            TreeId(Sha256::of(&[number, 0])),
        )
    }

    fn address(number: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, number])
    }

    #[tokio::test]
    async fn many_who_ask_for_one_pair_are_one_order() {
        let orders = DeltaOrders::default();
        for number in 0..200 {
            assert_eq!(orders.order(pair(1), address(number), 0), Order::Taken);
        }
        assert_eq!(orders.next().await, pair(1));
        assert_eq!(orders.order(pair(1), address(1), 0), Order::Taken);
        orders.done(true, 0);
        assert!(orders.state(|state| state.waiting.is_empty()));
        assert_eq!(orders.known(pair(1), 0), None, "its file is there now");
    }

    #[tokio::test]
    async fn a_useless_pair_is_left_for_a_day() {
        let orders = DeltaOrders::default();
        orders.order(pair(1), address(1), 0);
        orders.next().await;
        orders.done(false, 0);
        assert_eq!(
            orders.order(pair(1), address(2), USELESS_MS - 1),
            Order::Refused
        );
        assert_eq!(orders.order(pair(1), address(2), USELESS_MS), Order::Taken);
    }

    #[test]
    fn one_address_and_all_together_order_only_so_much() {
        let orders = DeltaOrders::default();
        let taken = |from: u8, numbers: std::ops::Range<u8>| {
            numbers
                .filter(|number| orders.order(pair(*number), address(from), 0) == Order::Taken)
                .count()
        };
        assert_eq!(taken(1, 0..20), 16);
        assert_eq!(taken(2, 20..60), 16, "the queue is full now");
        assert_eq!(taken(3, 60..70), 0);
        assert_eq!(
            orders.order(pair(19), address(1), 300_000),
            Order::Refused,
            "still full"
        );
    }
}
