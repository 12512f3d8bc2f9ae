//! When each device was last heard: kept in memory, written down in batches, because a fleet's
//! polls would otherwise be most of the database's work.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use pytheas_api::{DeviceId, DeviceState, DeviceView};

#[derive(Debug, Clone)]
struct Seen {
    at_ms: i64,
    address: String,
    online: bool,
}

#[derive(Debug, Default)]
struct Memory {
    seen: HashMap<DeviceId, Seen>,
    unwritten: BTreeSet<DeviceId>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Presence {
    online_ms: i64,
    memory: Mutex<Memory>,
}

impl Presence {
    /// What was written down before; whoever was heard within `online_ms` is online.
    pub(crate) fn new(online_ms: i64, known: Vec<(DeviceId, i64, String)>, now_ms: i64) -> Self {
        let seen = known
            .into_iter()
            .map(|(id, at_ms, address)| {
                (
                    id,
                    Seen {
                        at_ms,
                        address,
                        online: now_ms - at_ms <= online_ms,
                    },
                )
            })
            .collect();
        Self {
            online_ms,
            memory: Mutex::new(Memory {
                seen,
                unwritten: BTreeSet::new(),
            }),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A device was heard; true when it was not online before.
    pub(crate) fn heard(&self, id: &DeviceId, address: String, now_ms: i64) -> bool {
        let mut memory = self.memory();
        memory.unwritten.insert(id.clone());
        let seen = Seen {
            at_ms: now_ms,
            address,
            online: true,
        };
        !memory
            .seen
            .insert(id.clone(), seen)
            .is_some_and(|before| before.online)
    }

    /// Devices that fell silent since the last call.
    pub(crate) fn fallen_silent(&self, now_ms: i64) -> Vec<DeviceId> {
        let mut silent = Vec::new();
        for (id, seen) in &mut self.memory().seen {
            if seen.online && now_ms - seen.at_ms > self.online_ms {
                seen.online = false;
                silent.push(id.clone());
            }
        }
        silent
    }

    /// What has to be written down: device, time, address.
    pub(crate) fn take_unwritten(&self) -> Vec<(DeviceId, i64, String)> {
        let mut memory = self.memory();
        std::mem::take(&mut memory.unwritten)
            .into_iter()
            .filter_map(|id| {
                let seen = memory.seen.get(&id)?;
                Some((id, seen.at_ms, seen.address.clone()))
            })
            .collect()
    }

    /// It could not be written: once more, later.
    pub(crate) fn put_back(&self, unwritten: Vec<(DeviceId, i64, String)>) {
        self.memory()
            .unwritten
            .extend(unwritten.into_iter().map(|(id, ..)| id));
    }

    /// A device was removed.
    pub(crate) fn forget(&self, id: &DeviceId) {
        let mut memory = self.memory();
        memory.seen.remove(id);
        memory.unwritten.remove(id);
    }

    /// Completes what the database says of a device.
    pub(crate) fn complete(&self, view: &mut DeviceView, now_ms: i64) {
        if let Some(seen) = self.memory().seen.get(&view.id) {
            view.last_seen_ms = Some(seen.at_ms);
            view.last_address = Some(seen.address.clone());
        }
        if view.state == DeviceState::Accepted
            && let Some(at_ms) = view.last_seen_ms
        {
            view.state = if now_ms - at_ms <= self.online_ms {
                DeviceState::Online
            } else {
                DeviceState::Offline
            };
        }
    }

    /// How many devices are online.
    pub(crate) fn online(&self, now_ms: i64) -> usize {
        let online = |seen: &&Seen| now_ms - seen.at_ms <= self.online_ms;
        self.memory().seen.values().filter(online).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_comes_online_and_falls_silent_once() {
        let presence = Presence::new(1000, Vec::new(), 0);
        let id: DeviceId = "dev1".parse().unwrap();
        assert!(presence.heard(&id, "::1".into(), 0));
        assert!(!presence.heard(&id, "::1".into(), 10));
        assert_eq!(presence.fallen_silent(1010), []);
        assert_eq!(presence.fallen_silent(1011), std::slice::from_ref(&id));
        assert_eq!(presence.fallen_silent(1012), []);
        assert_eq!(presence.take_unwritten(), [(id.clone(), 10, "::1".into())]);
        assert_eq!(presence.take_unwritten(), []);
        assert!(presence.heard(&id, "::1".into(), 2000));
    }
}
