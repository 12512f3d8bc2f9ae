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
    store::{
        devices::{self, Accepted},
        modules,
    },
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

/// What can be installed: an artifact, for whatever device, or releases that go together.
struct Offer {
    shown: String,
    is_artifact: bool,
    parts: Vec<Part>,
}

/// One app's release, by platform; `None` is an artifact.
struct Part {
    app: String,
    modules: BTreeMap<Option<Platform>, i64>,
}

impl Offer {
    /// What goes to this device, the first app's first.
    fn modules_for(&self, device: &Accepted, chosen: bool) -> Option<Vec<i64>> {
        if self.is_artifact {
            // Left to itself, an artifact goes to devices that run no Pytheas releases.
            let fits = chosen || device.platform.is_none();
            let module = self.parts.first()?.modules.values().next().copied();
            return module.filter(|_| fits).map(|module| vec![module]);
        }
        let own = || device.platform.as_deref()?.parse::<Platform>().ok();
        self.parts
            .iter()
            .map(|part| {
                // An app that its boards run goes to them.
                let of_boards = device.boards.get(&part.app);
                let platform = match of_boards {
                    Some(platform) => platform.parse().ok()?,
                    None => own()?,
                };
                let mut best = platform.runs();
                best.find_map(|platform| part.modules.get(&Some(platform)).copied())
            })
            .collect()
    }

    fn there_for(&self) -> String {
        let common = |platform: &&Platform| {
            let mut others = self.parts.iter();
            others.all(|part| part.modules.contains_key(&Some((*platform).clone())))
        };
        let first = self.parts.first().map(|part| part.modules.keys());
        let names: Vec<&str> = first
            .into_iter()
            .flatten()
            .flatten()
            .filter(common)
            .map(Platform::as_str)
            .collect();
        match names[..] {
            [] => "there is no platform that all of them are there for".to_owned(),
            _ => format!("it is there for {}", names.join(", ")),
        }
    }
}

/// What goes with each first module. A rollout assigns the same to all devices that get the module.
fn also(chosen: &[(DeviceId, Vec<i64>)]) -> ApiResult<BTreeMap<i64, Vec<i64>>> {
    let mut also: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for (id, modules) in chosen {
        let [lead, others @ ..] = modules.as_slice() else {
            continue;
        };
        let known = also.entry(*lead).or_insert_with(|| others.to_vec());
        if known != others {
            let message =
                format!("the boards of `{id}` are of another platform than those of others");
            return Err(ApiError::invalid(message)
                .help("roll out to the devices of each platform by itself: `--device`"));
        }
    }
    also.retain(|_, others| !others.is_empty());
    Ok(also)
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
            .filter_map(|(id, device)| Some((id, offer.modules_for(&device, false)?)))
            .collect(),
    };
    let also = also(&modules)?;
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
        modules: modules
            .into_iter()
            .filter_map(|(id, modules)| Some((id, *modules.first()?)))
            .collect(),
        also,
        allow_downgrade: request.allow_downgrade,
        confirm: request.confirm,
    })
}

/// Several releases go to devices that all of them are there for.
async fn of_releases(app: &Shared, release: &ReleaseRef, also: &[ReleaseRef]) -> ApiResult<Offer> {
    let mut parts = vec![of_release(app, release).await?];
    let mut shown = release.to_string();
    for release in also {
        if parts.iter().any(|part| part.app == release.name.as_str()) {
            let message = format!("the rollout names `{}` twice", release.name);
            return Err(ApiError::invalid(message).help("name one version of each app"));
        }
        parts.push(of_release(app, release).await?);
        shown = format!("{shown}, {release}");
    }
    Ok(Offer {
        shown,
        is_artifact: false,
        parts,
    })
}

async fn of_release(app: &Shared, release: &ReleaseRef) -> ApiResult<Part> {
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
    Ok(Part {
        app: release.name.to_string(),
        modules: by_platform,
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
    Ok(Offer {
        shown: artifact.to_string(),
        is_artifact: true,
        parts: vec![Part {
            app: name.to_owned(),
            modules: BTreeMap::from([(None, module.id)]),
        }],
    })
}

async fn choose(
    app: &Shared,
    offer: &Offer,
    chosen: &[DeviceId],
    accepted: Vec<(DeviceId, Accepted)>,
) -> ApiResult<Vec<(DeviceId, Vec<i64>)>> {
    let accepted: BTreeMap<DeviceId, Accepted> = accepted.into_iter().collect();
    let mut modules = Vec::with_capacity(chosen.len());
    for id in chosen {
        let Some(device) = accepted.get(id) else {
            let error = match devices::credentials(&app.store.read, id).await? {
                Some(_) => ApiError::invalid(format!("the device `{id}` is not accepted"))
                    .help(format!("accept it first: `pytheas device accept {id}`")),
                None => ApiError::invalid(format!("no device `{id}`"))
                    .help("`pytheas device list` shows them"),
            };
            return Err(error);
        };
        let Some(module) = offer.modules_for(device, true) else {
            let has = device.platform.as_deref().unwrap_or("no platform");
            let message = format!("`{}` does not fit the device `{id}` ({has})", offer.shown);
            return Err(ApiError::invalid(message).help(offer.there_for()));
        };
        modules.push((id.clone(), module));
    }
    Ok(modules)
}
