//! What is not shipped, and why.

use std::collections::BTreeSet;

use super::{candidates::Candidates, mip::LeftOut, plan::Parts, reach::Reached, report::Dropped};

/// Files that nobody would look for on a board.
fn is_about_the_project(path: &str) -> bool {
    let is_text = [".md", ".rst", ".lock"]
        .iter()
        .any(|end| path.ends_with(end));
    is_text || path == "pyproject.toml" || path == "LICENSE" || path == pytheas_project::PYLOCK_FILE
}

/// Files that are not shipped, and packages that are not for this board.
pub(super) fn dropped(
    candidates: &Candidates,
    reached: &Reached,
    parts: &Parts,
    left_out: &[LeftOut],
) -> Vec<Dropped> {
    // The same file of the app can be found below two names.
    let used: BTreeSet<&str> = parts
        .taken
        .iter()
        .map(|at| &candidates.all[*at])
        .filter(|candidate| candidate.is_app())
        .map(|candidate| candidate.source.as_str())
        .collect();
    let mut seen = BTreeSet::new();
    let mut dropped: Vec<Dropped> = candidates
        .all
        .iter()
        .enumerate()
        .filter(|(at, _)| !parts.taken.contains(at))
        .filter(|(_, one)| !(one.is_app() && used.contains(one.source.as_str())))
        .filter(|(_, one)| !(one.is_app() && is_about_the_project(&one.source)))
        .filter(|(_, one)| seen.insert((one.from.clone(), one.source.clone())))
        .map(|(_, one)| {
            let module = one.module.as_deref().unwrap_or_default();
            let hidden = reached.firmware.get(module);
            let why = if hidden.is_some_and(|used| used.hides.is_some()) {
                "the firmware has it"
            } else if reached.kept.contains_key(module) {
                "another file of this name is taken"
            } else if one.module.is_some() {
                "nothing imports it"
            } else if one.is_app() {
                "no module of its folder is shipped; `include` of `[tool.pytheas]` takes data along"
            } else {
                "only computers use it, or nothing of its folder is shipped"
            };
            Dropped {
                path: one.source.clone(),
                from: one.from.clone(),
                bytes: one.bytes.len() as u64,
                why: why.to_owned(),
            }
        })
        .collect();
    dropped.extend(left_out.iter().map(|one| Dropped {
        path: format!("{} {}", one.name, one.version),
        from: one.name.clone(),
        bytes: 0,
        why: one.why(),
    }));
    dropped.sort_by(|a, b| (&a.from, &a.path).cmp(&(&b.from, &b.path)));
    dropped
}
