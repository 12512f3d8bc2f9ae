//! `GET /repo/deltas/{from}-{to}.json`: the delta that was made on demand; else the hub begins to
//! make it for those who come later, and says 404 at once.
//!
//! Everybody may read what is there. Only an accepted device makes the hub work, only for trees
//! that are published for one app and platform, and only as much as [`DeltaOrders`] allows.
//!
//! [`DeltaOrders`]: crate::delta_orders::DeltaOrders

use axum::{
    Json,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use pytheas_release::TreeId;
use pytheas_repo::on_demand;

use crate::{app::App, auth, delta_orders::Order, origin::Origin, reply::ApiError};

/// When it is worth asking again, in seconds.
const AGAIN_S: &str = "60";
/// Larger trees take too much memory and room, in bytes.
const TREE_MAX: u64 = 2 << 30;

pub(crate) async fn handle(
    app: &App,
    origin: &Origin,
    headers: &HeaderMap,
    from: TreeId,
    to: TreeId,
) -> Response {
    if app.config.made_deltas.is_none() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let now_ms = app.now_ms();
    let now = Timestamp::from_millisecond(now_ms).unwrap_or_default();
    match on_demand::offered(&app.releases.store, from, to, now).await {
        Ok(Some(blob)) => {
            return ([(header::CACHE_CONTROL, "no-cache")], Json(blob)).into_response();
        }
        Ok(None) => {}
        Err(error) => return ApiError::internal(&error).into_response(),
    }
    let order = match app.delta_orders.known((from, to), now_ms) {
        Some(known) => known,
        None => order(app, origin, headers, from, to, now_ms).await,
    };
    match order {
        Order::Taken => (StatusCode::NOT_FOUND, [(header::RETRY_AFTER, AGAIN_S)]).into_response(),
        Order::Refused => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn order(
    app: &App,
    origin: &Origin,
    headers: &HeaderMap,
    from: TreeId,
    to: TreeId,
    now_ms: i64,
) -> Order {
    if auth::known_device(app, headers, origin).await.is_none() {
        return Order::Refused;
    }
    let pair = match app.releases.pair(from, to).await {
        Ok(pair) => pair,
        Err(error) => {
            tracing::warn!(%error, "no delta is made: the repository cannot be read");
            return Order::Refused;
        }
    };
    match pair {
        Some((old, new))
            if !new.deltas.contains_key(&from)
                && old.tree.size_bytes.max(new.tree.size_bytes) <= TREE_MAX =>
        {
            app.delta_orders.order((from, to), origin.client, now_ms)
        }
        _ => Order::Refused,
    }
}
