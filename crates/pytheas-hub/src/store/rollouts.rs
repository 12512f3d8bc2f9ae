//! Rollouts: the machine's plan, progress and members, and how they are shown.

use std::collections::BTreeMap;

use pytheas_api::{
    ActionStatus, DeviceId, GroupSize, GroupState, GroupView, RolloutDevice, RolloutState,
    RolloutView,
};
use pytheas_rollout::{Gates, Member, Plan, Progress, Rollout, Standing, State};
use sqlx::{Row, SqliteConnection, SqliteExecutor, SqlitePool, sqlite::SqliteRow};

use super::{Result, json, parsed};

/// The name of a member's standing in the database.
pub(crate) fn standing_name(standing: &Standing) -> &'static str {
    match standing {
        Standing::Waiting => "waiting",
        Standing::Active { .. } => "active",
        Standing::Succeeded => "succeeded",
        Standing::Failed => "failed",
        Standing::Cancelled => "cancelled",
    }
}

fn state_name(state: &State) -> &'static str {
    match state {
        State::Created => "created",
        State::Running => "running",
        State::Paused { .. } => "paused",
        State::Finished => "finished",
        State::Aborted { .. } => "aborted",
    }
}

fn encode<T: serde::Serialize>(value: &T) -> Result<String> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(Box::new(error)))
}

/// Writes a new rollout down; `modules` is what each member gets.
pub(crate) async fn add(
    db: &mut SqliteConnection,
    release: &str,
    is_artifact: bool,
    created_by: &str,
    rollout: &Rollout<DeviceId>,
    modules: &BTreeMap<DeviceId, i64>,
    now_ms: i64,
) -> Result<i64> {
    let id: i64 = sqlx::query(
        "INSERT INTO rollouts (release, is_artifact, plan, progress, state, created_by, created_ms)
         VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
    )
    .bind(release)
    .bind(is_artifact)
    .bind(encode(rollout.plan())?)
    .bind(encode(rollout.progress())?)
    .bind(state_name(&rollout.progress().state))
    .bind(created_by)
    .bind(now_ms)
    .fetch_one(&mut *db)
    .await?
    .try_get(0)?;
    for (group, range) in rollout.ranges().iter().enumerate() {
        for position in range.clone() {
            let member = &rollout.members()[position];
            let Some(module) = modules.get(&member.device) else {
                continue;
            };
            sqlx::query(
                "INSERT INTO rollout_devices (rollout, position, grp, device, module, standing)
                 VALUES (?, ?, ?, ?, ?, ?)",
            )
            .bind(id)
            .bind(position as i64)
            .bind(group as i64)
            .bind(member.device.as_str())
            .bind(module)
            .bind(standing_name(&member.standing))
            .execute(&mut *db)
            .await?;
        }
    }
    Ok(id)
}

/// Notes what is beside the machine: releases that go with others, and whether they may be older.
pub(crate) async fn add_options(
    db: &mut SqliteConnection,
    id: i64,
    allow_downgrade: bool,
    confirm: bool,
    also: &BTreeMap<i64, Vec<i64>>,
) -> Result<()> {
    sqlx::query("UPDATE rollouts SET allow_downgrade = ?, confirm = ? WHERE id = ?")
        .bind(allow_downgrade)
        .bind(confirm)
        .bind(id)
        .execute(&mut *db)
        .await?;
    for (module, also) in also {
        for (position, also) in also.iter().enumerate() {
            sqlx::query(
                "INSERT INTO rollout_also (rollout, module, position, also) VALUES (?, ?, ?, ?)",
            )
            .bind(id)
            .bind(module)
            .bind(position as i64)
            .bind(also)
            .execute(&mut *db)
            .await?;
        }
    }
    Ok(())
}

/// Whether the rollout's releases may be older than what runs.
pub(crate) async fn allows_downgrade(db: &SqlitePool, id: i64) -> Result<bool> {
    sqlx::query("SELECT allow_downgrade FROM rollouts WHERE id = ?")
        .bind(id)
        .fetch_one(db)
        .await?
        .try_get(0)
}

/// Whether somebody at each device has to agree first.
pub(crate) async fn wants_confirmation(db: impl SqliteExecutor<'_>, id: i64) -> Result<bool> {
    sqlx::query("SELECT confirm FROM rollouts WHERE id = ?")
        .bind(id)
        .fetch_one(db)
        .await?
        .try_get(0)
}

/// The machine as it was written down.
pub(crate) async fn load(db: &mut SqliteConnection, id: i64) -> Result<Option<Rollout<DeviceId>>> {
    let Some(row) = sqlx::query("SELECT plan, progress FROM rollouts WHERE id = ?")
        .bind(id)
        .fetch_optional(&mut *db)
        .await?
    else {
        return Ok(None);
    };
    let plan: Plan = json(row.try_get(0)?)?;
    let progress: Progress = json(row.try_get(1)?)?;
    let rows = sqlx::query(
        "SELECT d.grp, d.device, d.standing, a.updated_ms FROM rollout_devices d
         LEFT JOIN actions a ON a.id =
            (SELECT max(id) FROM actions WHERE rollout = d.rollout AND device = d.device)
         WHERE d.rollout = ? ORDER BY d.position",
    )
    .bind(id)
    .fetch_all(db)
    .await?;
    let mut members = Vec::with_capacity(rows.len());
    let mut sizes = vec![0usize; plan.groups().len()];
    for row in &rows {
        let group: i64 = row.try_get(0)?;
        if let Some(size) = usize::try_from(group)
            .ok()
            .and_then(|group| sizes.get_mut(group))
        {
            *size += 1;
        }
        let heard: Option<i64> = row.try_get(3)?;
        let standing = match row.try_get::<&str, _>(2)? {
            "active" => Standing::Active {
                heard_ms: crate::clock::unsigned(heard.unwrap_or(0)),
            },
            "succeeded" => Standing::Succeeded,
            "failed" => Standing::Failed,
            "cancelled" => Standing::Cancelled,
            _ => Standing::Waiting,
        };
        members.push(Member {
            device: parsed(row.try_get(1)?)?,
            standing,
        });
    }
    let mut start = 0;
    let ranges = sizes
        .iter()
        .map(|size| {
            let range = start..start + size;
            start = range.end;
            range
        })
        .collect();
    Rollout::restore(plan, progress, members, ranges)
        .map(Some)
        .map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

/// Writes the machine's progress down.
pub(crate) async fn save(
    db: &mut SqliteConnection,
    id: i64,
    progress: &Progress,
    now_ms: i64,
) -> Result<()> {
    let ended = progress.state.is_final().then_some(now_ms);
    sqlx::query(
        "UPDATE rollouts SET progress = ?, state = ?, ended_ms = coalesce(ended_ms, ?) WHERE id = ?",
    )
    .bind(encode(progress)?)
    .bind(state_name(&progress.state))
    .bind(ended)
    .bind(id)
    .execute(db)
    .await?;
    Ok(())
}

/// Writes down where a member stands.
pub(crate) async fn save_member(
    db: &mut SqliteConnection,
    id: i64,
    device: &DeviceId,
    standing: &Standing,
) -> Result<()> {
    sqlx::query("UPDATE rollout_devices SET standing = ? WHERE rollout = ? AND device = ?")
        .bind(standing_name(standing))
        .bind(id)
        .bind(device.as_str())
        .execute(db)
        .await?;
    Ok(())
}

/// What a member gets.
pub(crate) async fn module_of(
    db: &mut SqliteConnection,
    id: i64,
    device: &DeviceId,
) -> Result<i64> {
    sqlx::query("SELECT module FROM rollout_devices WHERE rollout = ? AND device = ?")
        .bind(id)
        .bind(device.as_str())
        .fetch_one(db)
        .await?
        .try_get(0)
}

/// Open rollouts older than `before` in which the device has not ended.
pub(crate) async fn older_with(
    db: &mut SqliteConnection,
    device: &DeviceId,
    before: i64,
) -> Result<Vec<i64>> {
    sqlx::query(
        "SELECT d.rollout FROM rollout_devices d JOIN rollouts r ON r.id = d.rollout
         WHERE d.device = ? AND d.standing IN ('waiting', 'active') AND d.rollout < ?
           AND r.state IN ('running', 'paused') ORDER BY d.rollout",
    )
    .bind(device.as_str())
    .bind(before)
    .fetch_all(db)
    .await?
    .iter()
    .map(|row| row.try_get(0))
    .collect()
}

/// Whether the rollout is finished or aborted.
pub(crate) async fn is_over(db: &mut SqliteConnection, id: i64) -> Result<bool> {
    Ok(
        sqlx::query("SELECT 1 FROM rollouts WHERE id = ? AND state IN ('finished', 'aborted')")
            .bind(id)
            .fetch_optional(db)
            .await?
            .is_some(),
    )
}

/// Rollouts that are running or paused.
pub(crate) async fn open(db: impl SqliteExecutor<'_>) -> Result<Vec<i64>> {
    sqlx::query("SELECT id FROM rollouts WHERE state IN ('running', 'paused') ORDER BY id")
        .fetch_all(db)
        .await?
        .iter()
        .map(|row| row.try_get(0))
        .collect()
}

/// How many rollouts there are in each state.
pub(crate) async fn counts(db: &SqlitePool) -> Result<BTreeMap<String, i64>> {
    sqlx::query("SELECT state, count(*) FROM rollouts GROUP BY state")
        .fetch_all(db)
        .await?
        .iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// A machine's state on the wire.
pub(crate) fn wire_state(state: &State) -> RolloutState {
    match state {
        State::Created | State::Running => RolloutState::Running,
        State::Paused { .. } => RolloutState::Paused,
        State::Finished => RolloutState::Finished,
        State::Aborted { .. } => RolloutState::Aborted,
    }
}

/// The newest rollouts before `before` (an id), newest first.
pub(crate) async fn list(db: &SqlitePool, before: i64, limit: u32) -> Result<Vec<RolloutView>> {
    let rows = sqlx::query("SELECT * FROM rollouts WHERE id < ? ORDER BY id DESC LIMIT ?")
        .bind(before)
        .bind(limit)
        .fetch_all(db)
        .await?;
    let mut views = Vec::with_capacity(rows.len());
    for row in &rows {
        views.push(view(db, row).await?);
    }
    Ok(views)
}

/// One rollout.
pub(crate) async fn show(db: &SqlitePool, id: i64) -> Result<Option<RolloutView>> {
    match sqlx::query("SELECT * FROM rollouts WHERE id = ?")
        .bind(id)
        .fetch_optional(db)
        .await?
    {
        Some(row) => Ok(Some(view(db, &row).await?)),
        None => Ok(None),
    }
}

async fn view(db: &SqlitePool, row: &SqliteRow) -> Result<RolloutView> {
    let id: i64 = row.try_get("id")?;
    let plan: Plan = json(row.try_get("plan")?)?;
    let progress: Progress = json(row.try_get("progress")?)?;
    let mut groups: Vec<GroupView> = plan
        .groups()
        .iter()
        .map(|size| GroupView {
            size: match *size {
                pytheas_rollout::GroupSize::Count(count) => GroupSize::Count(count),
                pytheas_rollout::GroupSize::Percent(percent) => GroupSize::Percent(percent),
            },
            state: GroupState::Waiting,
            total: 0,
            waiting: 0,
            active: 0,
            succeeded: 0,
            failed: 0,
            cancelled: 0,
        })
        .collect();
    let counts = sqlx::query(
        "SELECT grp, standing, count(*) FROM rollout_devices WHERE rollout = ? GROUP BY 1, 2",
    )
    .bind(id)
    .fetch_all(db)
    .await?;
    for row in &counts {
        let group: i64 = row.try_get(0)?;
        let count: u32 = row.try_get(2)?;
        let Some(group) = usize::try_from(group)
            .ok()
            .and_then(|group| groups.get_mut(group))
        else {
            continue;
        };
        group.total += count;
        match row.try_get::<&str, _>(1)? {
            "waiting" => group.waiting += count,
            "active" => group.active += count,
            "succeeded" => group.succeeded += count,
            "failed" => group.failed += count,
            _ => group.cancelled += count,
        }
    }
    for (index, group) in groups.iter_mut().enumerate() {
        let accepted = progress.accepted.get(index).copied().unwrap_or(0);
        if group.waiting + group.active == 0 {
            group.state = match fell_short(group, accepted, plan.gates()) {
                true => GroupState::Failed,
                false => GroupState::Done,
            };
        } else if index < progress.opened {
            group.state = GroupState::Open;
        }
    }
    Ok(RolloutView {
        id,
        release: row.try_get("release")?,
        is_artifact: row.try_get("is_artifact")?,
        allow_downgrade: row.try_get("allow_downgrade")?,
        confirm: row.try_get("confirm")?,
        state: wire_state(&progress.state),
        reason: progress.state.reason(),
        created_by: row.try_get("created_by")?,
        created_ms: row.try_get("created_ms")?,
        ended_ms: row.try_get("ended_ms")?,
        success_threshold: plan.gates().success_percent,
        error_threshold: plan.gates().error_percent,
        silence_deadline_s: plan.gates().silence_ms / 1000,
        groups,
    })
}

/// Whether an ended group did not pass the gates. Failures that a person `accepted` count neither
/// way, and a group that nobody failed in has not failed.
fn fell_short(group: &GroupView, accepted: u32, gates: &Gates) -> bool {
    let failed = u64::from(group.failed.saturating_sub(accepted));
    let counted = u64::from(group.succeeded) + failed;
    failed > 0
        && (u64::from(group.succeeded) * 100 < u64::from(gates.success_percent) * counted
            || failed * 100 > u64::from(gates.error_percent) * u64::from(group.total))
}

/// A rollout's devices, in the order of the groups.
pub(crate) async fn devices(db: &SqlitePool, id: i64) -> Result<Vec<RolloutDevice>> {
    sqlx::query(
        "SELECT d.device, d.grp, d.standing, a.id, a.status, a.message FROM rollout_devices d
         LEFT JOIN actions a ON a.id =
            (SELECT max(id) FROM actions WHERE rollout = d.rollout AND device = d.device)
         WHERE d.rollout = ? ORDER BY d.position",
    )
    .bind(id)
    .fetch_all(db)
    .await?
    .iter()
    .map(|row| {
        let standing: &str = row.try_get(2)?;
        let status: Option<&str> = row.try_get(4)?;
        Ok(RolloutDevice {
            device: parsed(row.try_get(0)?)?,
            group: row.try_get(1)?,
            action: row.try_get(3)?,
            status: status
                .or(Some(standing))
                .and_then(ActionStatus::from_name)
                .unwrap_or(
                    ActionStatus::Pending, // `waiting` has no action yet
                ),
            message: row.try_get(5)?,
        })
    })
    .collect()
}
