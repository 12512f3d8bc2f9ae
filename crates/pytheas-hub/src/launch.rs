//! From a request for a rollout to a machine that can begin: the release verified and its document
//! stored, the devices chosen and checked.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use miette::Diagnostic;
use pytheas_api::{DeviceId, GroupSize, RolloutRequest};
use pytheas_release::{Platform, Release, ReleaseRef, Sha256};
use pytheas_repo::layout;
use pytheas_rollout::{Gates, Plan, PlanError, Rollout};

use crate::{
    app::Shared,
    artifacts,
    engine::NewRollout,
    releases::ReleasesError,
    reply::{ApiError, ApiResult},
    store::{devices, modules},
};

impl From<PlanError> for ApiError {
    fn from(error: PlanError) -> Self {
        let mut reply = Self::invalid(error.to_string());
        reply.help = error.help().map(|help| help.to_string());
        reply
    }
}

impl From<ReleasesError> for ApiError {
    fn from(error: ReleasesError) -> Self {
        let code = "repository";
        let mut message = error.to_string();
        let mut source = std::error::Error::source(&error);
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        tracing::warn!(error = message, "the repository cannot be used");
        let mut reply = Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message);
        reply.help = error.help().map(|help| help.to_string());
        reply
    }
}

/// What can be installed, by platform; `None` is an artifact, for whatever device.
struct Offer {
    shown: String,
    is_artifact: bool,
    modules: BTreeMap<Option<Platform>, i64>,
    /// What goes with a module, by its number.
    also: BTreeMap<i64, Vec<i64>>,
}

impl Offer {
    fn module_for(&self, platform: Option<&str>, chosen: bool) -> Option<i64> {
        if self.is_artifact {
            // Left to itself, an artifact goes to devices that run no Pytheas releases.
            return (chosen || platform.is_none())
                .then(|| self.modules.values().next().copied())
                .flatten();
        }
        let platform: Platform = platform?.parse().ok()?;
        let mut best = platform.runs();
        best.find_map(|platform| self.modules.get(&Some(platform)).copied())
    }

    fn there_for(&self) -> String {
        let names: Vec<&str> = self
            .modules
            .keys()
            .flatten()
            .map(Platform::as_str)
            .collect();
        match names[..] {
            [] => "there is no platform that all of them are there for".to_owned(),
            _ => format!("it is there for {}", names.join(", ")),
        }
    }
}

/// The rollout that was asked for, ready to begin.
pub(crate) async fn prepare(app: &Shared, request: &RolloutRequest) -> ApiResult<NewRollout> {
    let groups = request
        .groups
        .iter()
        .map(|size| match *size {
            GroupSize::Count(count) => pytheas_rollout::GroupSize::Count(count),
            GroupSize::Percent(percent) => pytheas_rollout::GroupSize::Percent(percent),
        })
        .collect();
    let gates = Gates {
        success_percent: request.success_threshold,
        error_percent: request.error_threshold,
        silence_ms: request.silence_deadline_s.saturating_mul(1000),
    };
    let plan = Plan::new(groups, gates)?;
    let offer = match (&request.release, &request.artifact) {
        (Some(release), None) => of_releases(app, release, &request.also).await?,
        (None, Some(artifact)) if request.also.is_empty() => of_artifact(app, artifact).await?,
        _ => {
            return Err(ApiError::invalid(
                "a rollout has either a `release` or an `artifact`",
            ));
        }
    };
    let accepted = devices::accepted(&app.store.read).await?;
    let modules = match &request.devices {
        Some(chosen) => choose(app, &offer, chosen, accepted).await?,
        None => accepted
            .into_iter()
            .filter_map(|(id, platform)| Some((id, offer.module_for(platform.as_deref(), false)?)))
            .collect(),
    };
    let order: Vec<DeviceId> = modules.iter().map(|(id, _)| id.clone()).collect();
    let machine = match Rollout::new(plan, order) {
        Err(PlanError::NoDevices) if !offer.is_artifact => {
            let message = format!("no accepted device fits `{}`", offer.shown);
            return Err(ApiError::invalid(message).help(offer.there_for()));
        }
        other => other?,
    };
    Ok(NewRollout {
        release: offer.shown,
        is_artifact: offer.is_artifact,
        machine,
        modules: modules.into_iter().collect(),
        also: offer.also,
        allow_downgrade: request.allow_downgrade,
    })
}

/// Several releases go to devices of the platforms that all of them are there for.
async fn of_releases(app: &Shared, release: &ReleaseRef, also: &[ReleaseRef]) -> ApiResult<Offer> {
    let mut offer = of_release(app, release).await?;
    let mut names = vec![&release.name];
    for release in also {
        if names.contains(&&release.name) {
            let message = format!("the rollout names `{}` twice", release.name);
            return Err(ApiError::invalid(message).help("name one version of each app"));
        }
        names.push(&release.name);
        let with = of_release(app, release).await?;
        offer.shown = format!("{}, {release}", offer.shown);
        offer
            .modules
            .retain(|platform, _| with.modules.contains_key(platform));
        for (platform, lead) in &offer.modules {
            let beside = with.modules.get(platform);
            offer.also.entry(*lead).or_default().extend(beside);
        }
    }
    let leads: Vec<i64> = offer.modules.values().copied().collect();
    offer.also.retain(|lead, _| leads.contains(lead));
    Ok(offer)
}

async fn of_release(app: &Shared, release: &ReleaseRef) -> ApiResult<Offer> {
    let documents = app.releases.of(&release.name, &release.version).await?;
    if documents.is_empty() {
        let error = ApiError::unknown("release", &release.to_string());
        let versions = app.releases.versions(&release.name).await?;
        return Err(match versions[..] {
            [] => error.help(format!("nothing called `{}` was published", release.name)),
            _ => error.help(format!(
                "of `{}` there are {}",
                release.name,
                versions.join(", ")
            )),
        });
    }
    let mut by_platform = BTreeMap::new();
    for document in documents {
        let (described, bytes) = &*document;
        let (filename, bytes) = match described.platform.is_board() {
            true => board_image(app, described).await?,
            false => ("release.json".to_owned(), bytes.clone()),
        };
        let folder = app.config.artifacts();
        let file = artifacts::keep(&folder, &filename, bytes)
            .await
            .map_err(|error| artifacts::full(&error))?;
        let mut tx = app.store.begin().await?;
        let module = modules::ensure(
            &mut tx,
            described.name.as_str(),
            described.version.as_str(),
            described.platform.as_str(),
            &described.target_name(),
            pytheas_api::ddi::RELEASE_PART,
            app.now_ms(),
        )
        .await?;
        modules::put_file(&mut tx, module.id, &file).await?;
        tx.commit().await?;
        by_platform.insert(Some(described.platform.clone()), module.id);
    }
    Ok(Offer {
        shown: release.to_string(),
        is_artifact: false,
        modules: by_platform,
        also: BTreeMap::new(),
    })
}

/// What boards download instead of the document: the signed image, with a name for people.
async fn board_image(app: &Shared, release: &Release) -> ApiResult<(String, Vec<u8>)> {
    let name = format!("{}-{}.romfs", release.name, release.version);
    let wrong = |why: &str| {
        let (reference, platform) = (release.reference(), &release.platform);
        ApiError::invalid(format!("`{reference}` for {platform} {why}"))
            .help("publish it again as a new version with this version of pytheas")
    };
    let board = release
        .board
        .ok_or_else(|| wrong("has no signed image for boards"))?;
    let path = layout::blob(&board.image.sha256);
    let read = app.releases.store.get(&path, board.image.size_bytes).await;
    let bytes = read
        .map_err(ReleasesError::from)?
        .ok_or_else(|| wrong("lacks its image in the repository"))?;
    if Sha256::of(&bytes) != board.image.sha256 {
        return Err(wrong("has a damaged image in the repository"));
    }
    Ok((name, bytes.to_vec()))
}

async fn of_artifact(app: &Shared, artifact: &ReleaseRef) -> ApiResult<Offer> {
    let (name, version) = (artifact.name.as_str(), artifact.version.as_str());
    let Some(module) = modules::artifact(&app.store.read, name, version).await? else {
        return Err(
            ApiError::unknown("artifact", &artifact.to_string()).help(format!(
                "upload it: `POST /api/v1/artifacts/{name}/{version}/FILE`"
            )),
        );
    };
    let modules = BTreeMap::from([(None, module.id)]);
    Ok(Offer {
        shown: artifact.to_string(),
        is_artifact: true,
        modules,
        also: BTreeMap::new(),
    })
}

async fn choose(
    app: &Shared,
    offer: &Offer,
    chosen: &[DeviceId],
    accepted: Vec<(DeviceId, Option<String>)>,
) -> ApiResult<Vec<(DeviceId, i64)>> {
    let accepted: BTreeMap<DeviceId, Option<String>> = accepted.into_iter().collect();
    let mut modules = Vec::with_capacity(chosen.len());
    for id in chosen {
        let Some(platform) = accepted.get(id) else {
            let error = match devices::credentials(&app.store.read, id).await? {
                Some(_) => ApiError::invalid(format!("the device `{id}` is not accepted"))
                    .help(format!("accept it first: `pytheas device accept {id}`")),
                None => ApiError::invalid(format!("no device `{id}`"))
                    .help("`pytheas device list` shows them"),
            };
            return Err(error);
        };
        let Some(module) = offer.module_for(platform.as_deref(), true) else {
            let has = platform.as_deref().unwrap_or("no platform");
            let message = format!("`{}` does not fit the device `{id}` ({has})", offer.shown);
            return Err(ApiError::invalid(message).help(offer.there_for()));
        };
        modules.push((id.clone(), module));
    }
    Ok(modules)
}
