//! `GET /metrics`: counts for Prometheus (text format 0.0.4); nothing in it names a device.

use std::fmt::Write as _;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};

use crate::{
    app::App,
    reply::ApiResult,
    store::{actions, devices, rollouts},
};

/// Counts for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "hub",
    responses((status = 200, description = "Prometheus text", content_type = "text/plain")))]
pub(crate) async fn handle(State(app): State<App>) -> ApiResult<Response> {
    let (total, pending) = devices::counts(&app.store.read).await?;
    let online = i64::try_from(app.presence.online(app.now_ms())).unwrap_or(i64::MAX);
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: Vec<(String, String)>| {
        let _never_fails = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _never_fails = writeln!(text, "{name}{labels} {value}");
        }
    };
    let label = |key: &str, value: &str| format!("{{{key}=\"{value}\"}}");
    family(
        "pytheas_build_info",
        "gauge",
        "This program.",
        vec![(label("version", env!("CARGO_PKG_VERSION")), "1".to_owned())],
    );
    family(
        "pytheas_devices",
        "gauge",
        "Devices by state.",
        vec![
            (label("state", "pending"), pending.to_string()),
            (label("state", "online"), online.to_string()),
            (
                label("state", "offline"),
                (total - pending - online).max(0).to_string(),
            ),
        ],
    );
    let states = rollouts::counts(&app.store.read).await?;
    let states = states
        .into_iter()
        .map(|(s, count)| (label("state", &s), count.to_string()));
    family(
        "pytheas_rollouts",
        "gauge",
        "Rollouts by state.",
        states.collect(),
    );
    let open = actions::count_open(&app.store.read).await?;
    family(
        "pytheas_actions_open",
        "gauge",
        "Assignments that are open.",
        vec![(String::new(), open.to_string())],
    );
    let report = app.traffic.report(None, app.now_ms());
    let mut bytes = Vec::new();
    let mut requests = Vec::new();
    for (kind, sums) in report.total {
        let kind = kind.as_str();
        let directions = [("received", sums.received_bytes), ("sent", sums.sent_bytes)];
        for (direction, count) in directions {
            let labels = format!("{{kind=\"{kind}\",direction=\"{direction}\"}}");
            bytes.push((labels, count.to_string()));
        }
        requests.push((label("kind", kind), sums.requests.to_string()));
    }
    family("pytheas_http_bytes_total", "counter", "Bytes moved.", bytes);
    family(
        "pytheas_http_requests_total",
        "counter",
        "Requests answered.",
        requests,
    );
    let content_type = (
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    );
    Ok(([content_type], text).into_response())
}
