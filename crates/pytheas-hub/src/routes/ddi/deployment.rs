//! `GET …/deploymentBase/{action}`: what to install.

use axum::{
    extract::{Path, Query, State},
    http::HeaderMap,
    response::Response,
};
use pytheas_api::{
    ActionStatus,
    ddi::{
        ActionHistory, Artifact, ArtifactLinks, Chunk, DOWNGRADE_KEY, Deployment, DeploymentBase,
        FORMAT_KEY, Handling, Hashes, Link, Metadata, TARGET_KEY,
    },
};
use serde::Deserialize;

use super::{answer, broken, named};
use crate::{
    app::{App, Shared},
    auth::Device,
    store::{
        self,
        actions::{self, Action},
        modules, rollouts,
    },
};

/// What may stand behind the question mark.
#[derive(Debug, Deserialize)]
pub(crate) struct HistoryQuery {
    /// How many messages are wanted; below 0: up to 100.
    #[serde(rename = "actionHistory")]
    pub(crate) action_history: Option<i64>,
}

/// The assignment; the first look at it is noted.
pub(crate) async fn handle(
    State(app): State<App>,
    device: Device,
    Path((_, _, action)): Path<(String, String, String)>,
    Query(query): Query<HistoryQuery>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    use ActionStatus::{Cancelled, Cancelling, Unconfirmed};
    let wanted = |status| !matches!(status, Unconfirmed | Cancelling | Cancelled);
    let action = named(&app, &device, &action, wanted).await?;
    if action.status == ActionStatus::Pending {
        app.engine.retrieved(&action).await.map_err(broken)?;
    }
    let base = base(&app, &device.root, &action, &query).await;
    Ok(answer(&headers, &base.map_err(broken)?))
}

/// The assignment as DDI writes it, below the device's address `root`.
pub(crate) async fn base(
    app: &Shared,
    root: &str,
    action: &Action,
    query: &HistoryQuery,
) -> store::Result<DeploymentBase> {
    let downgrade = rollouts::allows_downgrade(&app.store.read, action.rollout).await?;
    let mut chunks = Vec::new();
    for module in modules::of_action(&app.store.read, action.rollout, action.module).await? {
        let artifacts = artifacts(app, root, module.id).await?;
        let mut metadata = Vec::new();
        let mut say = |key: &str, value: String| {
            let key = key.to_owned();
            metadata.push(Metadata { key, value });
        };
        if !module.target.is_empty() {
            say(TARGET_KEY, module.target);
            say(FORMAT_KEY, "1".into());
            if downgrade {
                say(DOWNGRADE_KEY, "true".into());
            }
        }
        chunks.push(Chunk {
            part: modules::part(&module.part).to_owned(),
            version: module.version,
            name: module.name,
            metadata,
            artifacts,
        });
    }
    Ok(DeploymentBase {
        id: action.id.to_string(),
        deployment: Deployment {
            download: Handling::Forced,
            update: Handling::Forced,
            maintenance_window: None,
            chunks,
        },
        action_history: history(app, action, query.action_history.unwrap_or(0)).await?,
    })
}

/// A module's files with their addresses.
pub(crate) async fn artifacts(
    app: &Shared,
    root: &str,
    module: i64,
) -> store::Result<Vec<Artifact>> {
    let files = modules::files(&app.store.read, module).await?;
    Ok(files
        .into_iter()
        .map(|file| {
            let href = format!(
                "{root}/softwaremodules/{module}/artifacts/{}",
                file.filename
            );
            let (file_link, sum_link) = (Link::to(&href), Link::to(format!("{href}.MD5SUM")));
            Artifact {
                filename: file.filename,
                size: file.size_bytes,
                hashes: Hashes {
                    sha1: file.sha1,
                    md5: file.md5,
                    sha256: file.sha256,
                },
                // Clients without TLS know only the `-http` ones; those with it prefer the others.
                links: ArtifactLinks {
                    download: Some(file_link.clone()),
                    md5sum: Some(sum_link.clone()),
                    download_http: Some(file_link),
                    md5sum_http: Some(sum_link),
                },
            }
        })
        .collect())
}

async fn history(
    app: &Shared,
    action: &Action,
    wanted: i64,
) -> store::Result<Option<ActionHistory>> {
    let wanted = match wanted {
        0 => return Ok(None),
        ..0 => 100,
        n => usize::try_from(n).unwrap_or(100).min(100),
    };
    let said = actions::messages(&app.store.read, action.id).await?;
    let messages: Vec<String> = said
        .into_iter()
        .rev()
        .flat_map(|entry| entry.details)
        .take(wanted)
        .collect();
    let status = match action.status {
        ActionStatus::Unconfirmed => "WAIT_FOR_CONFIRMATION",
        ActionStatus::Pending | ActionStatus::Installing | ActionStatus::Probation => "RUNNING",
        ActionStatus::Retrieved => "RETRIEVED",
        ActionStatus::Downloading => "DOWNLOAD",
        ActionStatus::Cancelling => "CANCELING",
        ActionStatus::Succeeded => "FINISHED",
        ActionStatus::Failed => "ERROR",
        ActionStatus::Cancelled => "CANCELED",
    };
    Ok((!messages.is_empty()).then(|| ActionHistory {
        status: status.into(),
        messages,
    }))
}
