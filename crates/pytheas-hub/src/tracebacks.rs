//! What boards say of a crash, led back to the sources of the release that crashed.
//!
//! Tracebacks are kept as they came and mapped when they are shown: the release's `lines.json` is in
//! the repository, bound by the signed release document. Without it they stay as they are.

use std::collections::BTreeMap;

use pytheas_api::{ActionView, DeviceId, ddi::ATTRIBUTE_BOARD};
use pytheas_board::lines::LinesJson;
use pytheas_release::{Release, ReleaseRef, Sha256};
use pytheas_repo::layout;

use crate::{app::Shared, store, store::actions};

/// The attribute that names the release of the last crash; its lines follow it, numbered. That of a
/// board on a device's port ends so, too.
const CRASH: &str = "pytheas.crash";
const BOARDS_CRASH: &str = ".crash";
/// Longest `lines.json` that is read, in bytes.
const LINES_MAX: u64 = 16 << 20;
/// Of how many releases it is read for one device, which names them as it likes.
const RELEASES_MAX: usize = 8;

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
    let mut known: BTreeMap<&str, Option<LinesJson>> = BTreeMap::new();
    for action in history.iter_mut().filter(|action| with_frames(action)) {
        // Several where a gateway's update has releases for different boards.
        let targets = targets.get(&action.id).map_or(&[][..], Vec::as_slice);
        for target in targets {
            if !known.contains_key(target.as_str()) {
                known.insert(target, lines(app, target).await);
            }
        }
        let tables = targets
            .iter()
            .filter_map(|target| known.get(target.as_str()));
        let tables: Vec<&LinesJson> = tables.flatten().collect();
        for message in &mut action.messages {
            // As one text: a frame's line can depend on the next frame.
            if let Some(mapped) = mapped(&tables, &message.details.join("\n")) {
                message.details = mapped.split('\n').map(str::to_owned).collect();
            }
        }
    }
    Ok(())
}

/// `text` as one of the tables has it; not at all when two that know its files disagree: whose board
/// it came from is not known then, and wrong lines are worse than none.
fn mapped(tables: &[&LinesJson], text: &str) -> Option<String> {
    let of = tables.iter().map(|table| table.map_traceback(text));
    let mut of = of.filter(|mapped| mapped != text);
    let first = of.next()?;
    of.all(|other| other == first).then_some(first)
}

/// Maps the last crash that a board has told as attributes: `pytheas.crash` names the release it is of
/// (`node 1.2.0`), `pytheas.crash.0` and so on are the lines. Those of boards behind a device are
/// `pytheas.board.NAME.crash`.
pub(crate) async fn map_crashes(app: &Shared, attributes: &mut BTreeMap<String, String>) {
    let is_crash = |key: &&String| {
        *key == CRASH || key.starts_with(ATTRIBUTE_BOARD) && key.ends_with(BOARDS_CRASH)
    };
    let crashes: Vec<String> = attributes.keys().filter(is_crash).cloned().collect();
    let mut known = BTreeMap::new();
    for crash in crashes {
        map_crash(app, attributes, &crash, &mut known).await;
    }
}

/// Tables of releases: the boards of a device mostly run the same one.
type Tables = BTreeMap<ReleaseRef, Option<LinesJson>>;

async fn map_crash(
    app: &Shared,
    attributes: &mut BTreeMap<String, String>,
    crash: &str,
    known: &mut Tables,
) {
    let keys: Vec<String> = (0..)
        .map(|number| format!("{crash}.{number}"))
        .take_while(|key| attributes.contains_key(key))
        .collect();
    let texts: Vec<&str> = keys.iter().map(|key| attributes[key].as_str()).collect();
    let Some((name, version)) = attributes.get(crash).and_then(|of| of.split_once(' ')) else {
        return;
    };
    if !texts.iter().any(|text| text.contains("File \"")) {
        return;
    }
    let Ok(release) = format!("{name}@{version}").parse::<ReleaseRef>() else {
        return;
    };
    if !known.contains_key(&release) {
        if known.len() >= RELEASES_MAX {
            return;
        }
        // Built for whichever board: the sources are the same.
        let lines = table(app, &release, |one| one.platform.is_board()).await;
        known.insert(release.clone(), lines);
    }
    let Some(lines) = known.get(&release).and_then(Option::as_ref) else {
        return;
    };
    let mapped = lines.map_traceback(&texts.join("\n"));
    for (key, text) in keys.into_iter().zip(mapped.split('\n')) {
        attributes.insert(key, text.to_owned());
    }
}

/// The table of the release that is this TUF target.
async fn lines(app: &Shared, target: &str) -> Option<LinesJson> {
    let mut parts = target.split('/');
    let release = format!("{}@{}", parts.next()?, parts.next()?);
    let release: ReleaseRef = release.parse().ok()?;
    table(app, &release, |one| one.target_name() == target).await
}

/// The table of the one that `is_it` says of the release's documents.
async fn table(
    app: &Shared,
    release: &ReleaseRef,
    is_it: impl Fn(&Release) -> bool,
) -> Option<LinesJson> {
    let documents = app
        .releases
        .of(&release.name, &release.version)
        .await
        .ok()?;
    let document = documents.iter().find(|one| is_it(&one.0))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceback_is_led_back_once_and_not_when_it_may_be_of_two_apps() {
        let table = |source: &str| {
            let json = serde_json::json!({"format": 1, "sources": {"main.py": source}});
            LinesJson::parse(json.to_string().as_bytes()).unwrap()
        };
        let (one, other) = (table("src/one/main.py"), table("src/other/main.py"));
        // What one makes of it, another would take for its own.
        let next =
            LinesJson::parse(br#"{"format": 1, "sources": {"src/one/main.py": "wrong.py"}}"#);
        let text = "  File \"main.py\", line 4, in run\nValueError";
        let right = text.replace("main.py", "src/one/main.py");
        assert_eq!(mapped(&[&one], text), Some(right.clone()));
        assert_eq!(mapped(&[&one, &next.unwrap()], text), Some(right.clone()));
        assert_eq!(mapped(&[&one, &one], text), Some(right));
        assert_eq!(mapped(&[&one, &other], text), None);
        assert_eq!(mapped(&[], text), None);
    }
}
