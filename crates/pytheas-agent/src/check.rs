//! Is an offered release genuine, and is it for this device?

use jiff::Timestamp;
use pytheas_release::{Platform, Release};
use pytheas_repo::{client::Client, fetch::Fetch};
use pytheas_update::{Failure, Installed, Reason};

use crate::{
    content,
    failure::{Trouble, content_trouble, metadata_trouble},
    paths::StateDir,
};

/// Forms this agent can run.
const FORMS: &[&str] = &["bundle"];

/// The release that is the TUF target `target`, after every check that needs none of its content;
/// its document is kept for the steps that follow.
///
/// # Errors
/// [`Trouble::Later`] when the network is away; [`Trouble::Failed`] when the release is refused.
pub(crate) fn check(
    dir: &StateDir,
    platform: &Platform,
    current: Option<&Installed>,
    target: &str,
    transport: &mut dyn Fetch,
    now: Timestamp,
) -> Result<Installed, Trouble> {
    let mut client = Client::open(dir.root(), transport).map_err(metadata_trouble)?;
    client.refresh(now).map_err(metadata_trouble)?;
    let release = client
        .fetch_release(target, platform)
        .map_err(content_trouble)?;
    fits(&release)?;
    let new_here = current.is_none_or(|current| current.tree != release.tree.id);
    if new_here {
        // Without a running release every byte is new; else the exact sum is known once the tree is.
        if current.is_none() {
            let reference = release.reference().to_string();
            content::require_space(dir, &reference, release.tree.size_bytes)?;
        }
        content::keep_release(dir, &release)?;
    }
    Ok(Installed {
        tree: release.tree.id,
        release: release.reference(),
    })
}

/// Whether this agent can run `release`.
fn fits(release: &Release) -> Result<(), Failure> {
    let no = |message: String| Err(Failure::new(Reason::Incompatible, message));
    let name = release.reference();
    if !FORMS.contains(&release.form.as_str()) {
        return no(format!(
            "`{name}` has the form `{}`; this agent runs {}",
            release.form,
            FORMS.join(", ")
        ));
    }
    for (what, wanted) in &release.requires {
        match what.as_str() {
            "agent" => {
                let have = env!("CARGO_PKG_VERSION");
                if is_older(have, wanted) {
                    return no(format!(
                        "`{name}` requires agent {wanted} or newer; this is agent {have}\n\
                         help: update the agent first"
                    ));
                }
            }
            // A requirement we do not know was meant to keep the release away from some devices.
            other => {
                return no(format!(
                    "`{name}` requires `{other}` {wanted}, which this agent cannot judge\n\
                     help: update the agent first"
                ));
            }
        }
    }
    Ok(())
}

/// Whether version `a` is older than `b`, number by number; what is no number counts as 0.
fn is_older(a: &str, b: &str) -> bool {
    let numbers = |text: &str| -> Vec<u64> {
        let mut numbers: Vec<u64> = text
            .split(['.', '-', '+'])
            .map(|part| part.parse().unwrap_or(0))
            .collect();
        while numbers.last() == Some(&0) {
            numbers.pop();
        }
        numbers
    };
    numbers(a) < numbers(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        for (a, b) in [
            ("0.1.0", "0.1.1"),
            ("0.9", "0.10"),
            ("1", "1.0.1"),
            ("0.1.0", "1"),
        ] {
            assert!(is_older(a, b), "{a} {b}");
            assert!(!is_older(b, a), "{b} {a}");
        }
        assert!(!is_older("1.0", "1.0.0"));
    }
}
