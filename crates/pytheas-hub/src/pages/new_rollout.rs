//! `/rollouts/new`: starts a rollout of a published release, in groups, with or without somebody's
//! consent at each device. All else there is (several releases, artifacts, thresholds) is the API's
//! and the command's.

use axum::{
    Form,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{Redirect, Response},
};
use maud::html;
use pytheas_api::{GroupSize, Role, RolloutRequest};
use serde::Deserialize;

use super::{forms::FormWord, layout};
use crate::{
    app::App,
    auth::{Session, allow},
    launch,
    reply::{ApiError, ApiResult},
};

/// The page.
pub(crate) async fn show(
    State(app): State<App>,
    session: Session,
    headers: HeaderMap,
) -> ApiResult<Response> {
    allow(&session.token, Role::Operator)?;
    let mut views = app.releases.list().await?;
    views.sort_by_key(|view| std::cmp::Reverse(view.published_ms));
    let mut releases: Vec<String> = Vec::new();
    for view in views {
        let release = format!("{}@{}", view.name, view.version);
        if !releases.contains(&release) {
            releases.push(release);
        }
    }
    let content = html! {
        h1 { "Start a rollout" }
        @if releases.is_empty() {
            p.card.soft { "Nothing is published yet: " code { "pytheas publish" } "." }
        } @else {
            // What somebody fills in is not updated in place.
            form.card.filling method="post" action="/rollouts/new" {
                input type="hidden" name="word" value=(session.form_word);
                p { label for="release" { "Release" } " " select #release name="release" {
                    @for release in &releases { option value=(release) { (release) } }
                } }
                p {
                    label for="groups" { "Groups" } " "
                    input #groups name="groups" value="1, 100%" required;
                    " " span.soft { "one after the other: numbers of devices, or shares of all that fit" }
                }
                p {
                    input #confirm type="checkbox" name="confirm" value="true";
                    " " label for="confirm" { "Somebody at each device agrees first" }
                    " " span.soft { code { "pytheas-agent approve" } ", within a day" }
                }
                button #start.main { "Start" }
            }
        }
    };
    Ok(layout::page(&headers, &session, "Start a rollout", content))
}

/// What the page's form says.
#[derive(Debug, Deserialize)]
pub(crate) struct Filled {
    word: String,
    release: String,
    groups: String,
    #[serde(default)]
    confirm: bool,
}

/// Starts it.
pub(crate) async fn start(
    State(app): State<App>,
    session: Session,
    headers: HeaderMap,
    Form(filled): Form<Filled>,
) -> ApiResult<Redirect> {
    FormWord::of(&filled.word).check(&session, &headers)?;
    allow(&session.token, Role::Operator)?;
    let wrong = |message: String| {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", message)
            .help("go back and correct it")
    };
    let sizes = filled.groups.split(',').map(str::trim);
    let sizes: Result<Vec<GroupSize>, _> = sizes.map(str::parse).collect();
    let request = RolloutRequest {
        release: Some(
            filled
                .release
                .parse()
                .map_err(|error| wrong(format!("`{}` is no release: {error}", filled.release)))?,
        ),
        also: Vec::new(),
        allow_downgrade: false,
        confirm: filled.confirm,
        artifact: None,
        devices: None,
        groups: sizes.map_err(|error| wrong(error.to_string()))?,
        success_threshold: 100,
        error_threshold: 0,
        silence_deadline_s: 86_400,
    };
    let new = launch::prepare(&app, &request).await?;
    let id = app.engine.start(new, &session.token.name).await?;
    Ok(Redirect::to(&format!("/rollouts/{id}")))
}
