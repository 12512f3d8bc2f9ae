//! `/api/v1/rollouts`.

use pytheas_api::RolloutDetail;

use crate::{
    app::Shared,
    reply::{ApiError, ApiResult},
    store::rollouts,
};

pub(crate) mod command;
pub(crate) mod list;
pub(crate) mod show;
pub(crate) mod start;

/// 404.
pub(crate) fn unknown(id: &str) -> ApiError {
    ApiError::unknown("rollout", id).help("`pytheas rollout status` shows them")
}

/// A rollout's number in a path.
pub(crate) fn id(text: &str) -> ApiResult<i64> {
    text.parse().map_err(|_| unknown(text))
}

/// A rollout with its devices.
pub(crate) async fn detail(app: &Shared, id: i64) -> ApiResult<RolloutDetail> {
    let rollout = rollouts::show(&app.store.read, id).await?;
    Ok(RolloutDetail {
        rollout: rollout.ok_or_else(|| unknown(&id.to_string()))?,
        devices: rollouts::devices(&app.store.read, id).await?,
    })
}
