//! What boards say of a crash, led back to the sources of the release that crashed.
//!
//! Tracebacks are kept as they came and mapped when they are shown: the release's `lines.json` is in
//! the repository, bound by the signed release document. Without it they stay as they are.

use pytheas_api::{ActionView, DeviceId};
use pytheas_board::lines::LinesJson;
use pytheas_release::{ReleaseRef, Sha256};
use pytheas_repo::layout;

use crate::{app::Shared, store, store::actions};

/// Longest `lines.json` that is read, in bytes.
const LINES_MAX: u64 = 16 << 20;

/// Maps the tracebacks in what was said on these actions of the device.
pub(crate) async fn map(
    app: &Shared,
    device: &DeviceId,
    history: &mut [ActionView],
) -> store::Result<()> {
    let with_frames = |action: &ActionView| {
        let lines = action.messages.iter().flat_map(|one| &one.details);
        lines.into_iter().any(|line| line.contains("File \""))
    };
    if !history.iter().any(with_frames) {
        return Ok(());
    }
    let targets = actions::board_targets(&app.store.read, device).await?;
    for action in history.iter_mut().filter(|action| with_frames(action)) {
        let Some(target) = targets.get(&action.id) else {
            continue;
        };
        let Some(lines) = lines(app, target).await else {
            continue;
        };
        for message in &mut action.messages {
            // As one text: a frame's line can depend on the next frame.
            let mapped = lines.map_traceback(&message.details.join("\n"));
            message.details = mapped.split('\n').map(str::to_owned).collect();
        }
    }
    Ok(())
}

/// The table of the release that is this TUF target.
async fn lines(app: &Shared, target: &str) -> Option<LinesJson> {
    let mut parts = target.split('/');
    let release = format!("{}@{}", parts.next()?, parts.next()?);
    let release: ReleaseRef = release.parse().ok()?;
    let documents = app
        .releases
        .of(&release.name, &release.version)
        .await
        .ok()?;
    let document = documents.iter().find(|one| one.0.target_name() == target)?;
    let blob = document.0.board?.lines?;
    if blob.size_bytes > LINES_MAX {
        return None;
    }
    let path = layout::blob(&blob.sha256);
    let bytes = app
        .releases
        .store
        .get(&path, blob.size_bytes)
        .await
        .ok()??;
    (Sha256::of(&bytes) == blob.sha256).then(|| LinesJson::parse(&bytes))?
}
