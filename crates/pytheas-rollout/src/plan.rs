//! What was asked for: the groups and the gates between them, checked once.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// How far a group reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GroupSize {
    /// So many further devices.
    Count(u32),
    /// Until this share of all devices, rounded up, is in this or an earlier group.
    Percent(u8),
}

/// When the next group opens, when the rollout pauses, and how long a device may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gates {
    /// Percent of a group that must succeed before the next one opens.
    pub success_percent: u8,
    /// The rollout pauses when more than this percent of a group failed.
    pub error_percent: u8,
    /// A started device that reports nothing on its action for so long counts as failed. Polls
    /// are no reports: a device that polls and never installs is stuck, not well.
    pub silence_ms: u64,
}

impl Default for Gates {
    /// All must succeed, none may fail, one day of silence.
    fn default() -> Self {
        Self {
            success_percent: 100,
            error_percent: 0,
            silence_ms: 86_400_000,
        }
    }
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    groups: Vec<GroupSize>,
    gates: Gates,
}

/// A plan that cannot be carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, miette::Diagnostic)]
pub enum PlanError {
    /// No group at all, or too many.
    #[error("a rollout has 1 to 500 groups, not {count}")]
    #[diagnostic(help("`100%` is one group of all devices"))]
    Groups {
        /// So many were given.
        count: usize,
    },
    /// A group of no devices.
    #[error("group {number} has no devices")]
    #[diagnostic(help("give a number from 1, or a share from 1% to 100%"))]
    EmptyGroup {
        /// Counted from 1.
        number: usize,
    },
    /// A share that an earlier group has reached already.
    #[error("group {number} (`{percent}%`) reaches no further than an earlier one (`{earlier}%`)")]
    #[diagnostic(help(
        "a share counts the earlier groups too: `10%`, `50%`, `100%` are groups of 10, 40 and 50 percent"
    ))]
    NoFurther {
        /// Counted from 1.
        number: usize,
        /// The share it gives.
        percent: u8,
        /// The share reached before.
        earlier: u8,
    },
    /// A threshold above 100 percent.
    #[error("a threshold of {percent}% is above 100%")]
    Threshold {
        /// The threshold.
        percent: u8,
    },
    /// A deadline that is over at once.
    #[error("the silence deadline is zero")]
    #[diagnostic(help("give at least one second; a day is the default"))]
    Silence,
    /// Nobody to roll out to.
    #[error("no device fits this rollout")]
    NoDevices,
    /// A device named twice.
    #[error("`{device}` is in the rollout twice")]
    Twice {
        /// The device.
        device: String,
    },
}

impl Plan {
    /// A plan with these groups and gates.
    ///
    /// # Errors
    /// [`PlanError`] for groups that reach nobody or gates that cannot be passed.
    pub fn new(groups: Vec<GroupSize>, gates: Gates) -> Result<Self, PlanError> {
        if groups.is_empty() || groups.len() > 500 {
            return Err(PlanError::Groups {
                count: groups.len(),
            });
        }
        let mut reached = 0;
        for (index, group) in groups.iter().enumerate() {
            let number = index + 1;
            match *group {
                GroupSize::Count(0) | GroupSize::Percent(0) => {
                    return Err(PlanError::EmptyGroup { number });
                }
                GroupSize::Count(_) => {}
                GroupSize::Percent(percent) if percent > 100 => {
                    return Err(PlanError::Threshold { percent });
                }
                GroupSize::Percent(percent) if percent <= reached => {
                    return Err(PlanError::NoFurther {
                        number,
                        percent,
                        earlier: reached,
                    });
                }
                GroupSize::Percent(percent) => reached = percent,
            }
        }
        for percent in [gates.success_percent, gates.error_percent] {
            if percent > 100 {
                return Err(PlanError::Threshold { percent });
            }
        }
        if gates.silence_ms == 0 {
            return Err(PlanError::Silence);
        }
        Ok(Self { groups, gates })
    }

    /// The groups as asked for.
    pub fn groups(&self) -> &[GroupSize] {
        &self.groups
    }

    /// The gates.
    pub fn gates(&self) -> &Gates {
        &self.gates
    }

    /// Which of `devices` devices, in their order, each group has. A group may come out empty
    /// (10 % of three devices, after a first group of one); devices behind the last are left out.
    pub fn divide(&self, devices: usize) -> Vec<Range<usize>> {
        let mut start = 0;
        self.groups
            .iter()
            .map(|group| {
                let end = match *group {
                    GroupSize::Count(count) => start + count as usize,
                    GroupSize::Percent(percent) => (devices * percent as usize).div_ceil(100),
                };
                let range = start..end.clamp(start, devices);
                start = range.end;
                range
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::GroupSize::{Count, Percent};
    use super::*;

    #[track_caller]
    fn check(groups: &[GroupSize], devices: usize, expected: &[(usize, usize)]) {
        let expected: Vec<_> = expected.iter().map(|(start, end)| *start..*end).collect();
        let plan = Plan::new(groups.to_vec(), Gates::default()).unwrap();
        assert_eq!(plan.divide(devices), expected, "{groups:?} of {devices}");
    }

    #[test]
    fn groups_divide_the_devices_in_order() {
        check(&[Percent(100)], 5, &[(0, 5)]);
        check(
            &[Count(1), Percent(10), Percent(100)],
            50,
            &[(0, 1), (1, 5), (5, 50)],
        );
        check(
            &[Count(1), Percent(10), Percent(100)],
            3,
            &[(0, 1), (1, 1), (1, 3)],
        );
        check(&[Percent(1), Percent(100)], 2, &[(0, 1), (1, 2)]);
        check(&[Count(3)], 10, &[(0, 3)]);
        check(&[Count(30), Count(1)], 10, &[(0, 10), (10, 10)]);
    }

    #[test]
    fn plans_that_reach_nobody_are_refused_with_help() {
        let plan = |groups: &[GroupSize]| Plan::new(groups.to_vec(), Gates::default());
        assert_eq!(plan(&[]), Err(PlanError::Groups { count: 0 }));
        assert_eq!(plan(&[Count(0)]), Err(PlanError::EmptyGroup { number: 1 }));
        assert_eq!(
            plan(&[Percent(101)]),
            Err(PlanError::Threshold { percent: 101 })
        );
        let error = plan(&[Percent(10), Count(2), Percent(10)]).unwrap_err();
        insta::assert_snapshot!(error, @"group 3 (`10%`) reaches no further than an earlier one (`10%`)");
        let gates = Gates {
            success_percent: 101,
            ..Gates::default()
        };
        assert_eq!(
            Plan::new(vec![Percent(100)], gates),
            Err(PlanError::Threshold { percent: 101 })
        );
        let gates = Gates {
            silence_ms: 0,
            ..Gates::default()
        };
        assert_eq!(
            Plan::new(vec![Percent(100)], gates),
            Err(PlanError::Silence)
        );
    }
}
