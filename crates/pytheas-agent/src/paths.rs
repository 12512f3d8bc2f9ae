//! Where everything lies in an agent's state directory.
//!
//! ```text
//! identity.json   who this device is to its hub (mode 0600)
//! state.json      the update machine, see `pytheas_update`
//! history.json    what happened to releases
//! scrub.json      how far the search for bit rot is
//! status.json     what `status` shows; a torn one is harmless
//! agent.toml      settings, written by people; may lie elsewhere
//! hold            while it is there, no release is switched to
//! consent         the tree (or the hub's action) that somebody has agreed to
//! removing        this app is being taken off the device (see `remove`)
//! answer.json     what somebody has answered to the hub's question, until the hub knows
//! request.json    what an operator asked of a running agent
//! offline.json    the last update from a file, and how it ended
//! boards.json     what is known of the boards on this device's ports
//! images/         signed images for them, by their release's tree
//! config/          settings from the hub: `config.json` for the apps, see `app_config`
//! git/            clones and ledgers of followed git repositories
//! identity.copy   the same once more (mode 0600)
//! tuf/            trusted metadata, kept by pytheas-repo; tuf-copy/ a second copy
//! downloads/      blobs, whole or begun; NEW-TREE/ contents of the release being fetched
//! staging/ID/     a tree being put together
//! slots/ID/       a whole, verified tree; ID.tree its document
//! current         -> slots/ID
//! data/           the app's own; set aside before an update that changes it
//! snapshot/       the data as it was before such an update; snapshot.part/ while it is made
//! data.part/, data.failed/  data on its way in or out
//! components/NAME/ the same, from slots/ on, for each further app of the device
//! components/pytheas-agent/  newer agents: slots and `current`; launch.json, state.before: see `launcher`
//! logs/app.log    what the app writes, rotated
//! app.pid         the app's process, to find it again after a crash of the agent
//! agent.lock      held by the running agent
//! ```

use std::path::{Path, PathBuf};

use pytheas_release::{Name, Sha256, TreeId};

/// The apps' settings in `config/`.
pub(crate) const CONFIG_FILE: &str = "config.json";

/// Longest file of state, in bytes: none of ours comes near it.
const STATE_MAX: u64 = 16 << 20;

/// A file of state, which is short.
///
/// # Errors
/// [`std::io::ErrorKind::FileTooLarge`] when something else lies there: memory stays bounded.
pub(crate) fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    pytheas_durable::read_at_most(path, STATE_MAX)
}

/// Moves a file of state that is of no use to `aside`, where the last of its kind makes room, whatever
/// that is: a folder in the place of a file, or the other way round, keeps no agent from starting.
///
/// # Errors
/// Whatever the file system says.
pub(crate) fn set_aside(path: &Path, aside: &Path) -> std::io::Result<()> {
    pytheas_durable::move_dir(path, aside).or_else(|error| {
        if std::fs::symlink_metadata(path).is_err() || std::fs::symlink_metadata(aside).is_err() {
            return Err(error);
        }
        pytheas_durable::remove_tree(aside)?;
        pytheas_durable::move_dir(path, aside)
    })
}

/// An agent's state directory.
#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
    /// The device's directory, when this is a component's.
    device: Option<PathBuf>,
}

impl StateDir {
    /// The state directory `root`; made absolute, since the app is started with another working
    /// directory.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let root = root.into();
        Self {
            root: std::path::absolute(&root).unwrap_or(root),
            device: None,
        }
    }

    /// `components/NAME/`: where a further app of the device lies.
    pub fn component(&self, name: &Name) -> Self {
        let device = self.device();
        Self {
            root: device.join("components").join(name.as_str()),
            device: Some(device.to_owned()),
        }
    }

    /// The further apps that have a directory.
    pub fn components(&self) -> Vec<Name> {
        let entries = std::fs::read_dir(self.device().join("components"));
        let mut names: Vec<Name> = entries
            .into_iter()
            .flatten()
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        names.sort();
        names
    }

    /// The device's directory, which holds what all its apps share.
    pub fn device(&self) -> &Path {
        self.device.as_deref().unwrap_or(&self.root)
    }

    /// `/var/lib/pytheas` for root, else `$XDG_STATE_HOME/pytheas` (`~/.local/state/pytheas`).
    pub fn default_path() -> PathBuf {
        if rustix::process::geteuid().is_root() {
            return "/var/lib/pytheas".into();
        }
        let state_home = std::env::var_os("XDG_STATE_HOME").filter(|home| !home.is_empty());
        match (state_home, std::env::var_os("HOME")) {
            (Some(state), _) => PathBuf::from(state).join("pytheas"),
            (None, Some(home)) => PathBuf::from(home).join(".local/state/pytheas"),
            (None, None) => "/var/lib/pytheas".into(),
        }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `identity.json`.
    pub fn identity(&self) -> PathBuf {
        self.root.join("identity.json")
    }

    /// `state.json`.
    pub fn state(&self) -> PathBuf {
        self.root.join("state.json")
    }

    /// `history.json`.
    pub fn history(&self) -> PathBuf {
        self.root.join("history.json")
    }

    /// `scrub.json`.
    pub(crate) fn scrub(&self) -> PathBuf {
        self.root.join("scrub.json")
    }

    /// `status.json`.
    pub fn status(&self) -> PathBuf {
        self.root.join("status.json")
    }

    /// `request.json`.
    pub fn request(&self) -> PathBuf {
        self.root.join("request.json")
    }

    /// `agent.toml`.
    pub fn settings(&self) -> PathBuf {
        self.root.join("agent.toml")
    }

    /// `agent.toml.good`: what `agent.toml` said when it was last in force.
    pub(crate) fn settings_in_force(&self) -> PathBuf {
        self.root.join("agent.toml.good")
    }

    /// `hold`.
    pub fn hold(&self) -> PathBuf {
        self.root.join("hold")
    }

    /// `removing`.
    pub fn removing(&self) -> PathBuf {
        self.root.join("removing")
    }

    /// `answer.json`.
    pub fn answer(&self) -> PathBuf {
        self.root.join("answer.json")
    }

    /// `consent`.
    pub fn consent(&self) -> PathBuf {
        self.root.join("consent")
    }

    /// `agent.lock`.
    pub fn lock(&self) -> PathBuf {
        self.root.join("agent.lock")
    }

    /// `slots/`.
    pub fn slots(&self) -> PathBuf {
        self.root.join("slots")
    }

    /// The slot of a tree.
    pub fn slot(&self, tree: TreeId) -> PathBuf {
        self.slots().join(tree.to_string())
    }

    /// The document of the tree in a slot.
    pub fn slot_document(&self, tree: TreeId) -> PathBuf {
        self.slots().join(format!("{tree}.tree"))
    }

    /// `current`.
    pub fn current(&self) -> PathBuf {
        self.root.join("current")
    }

    /// What `current` leads to, relative to the state directory, so that it may be moved.
    pub fn current_target(tree: TreeId) -> PathBuf {
        Path::new("slots").join(tree.to_string())
    }

    /// `staging/`.
    pub fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// What is known of the boards on this device's ports.
    pub(crate) fn boards(&self) -> PathBuf {
        self.root.join("boards.json")
    }

    /// `config/`: the device's, also for a component.
    pub(crate) fn config(&self) -> PathBuf {
        self.device().join("config")
    }

    /// The settings that the apps read.
    pub(crate) fn config_file(&self) -> PathBuf {
        self.config().join(CONFIG_FILE)
    }

    /// Signed images for boards.
    pub(crate) fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// The signed image of the release `tree`.
    pub(crate) fn image(&self, tree: TreeId) -> PathBuf {
        self.images().join(format!("{tree}.romfs"))
    }

    /// Where a tree is put together.
    pub fn staged(&self, tree: TreeId) -> PathBuf {
        self.staging().join(tree.to_string())
    }

    /// `downloads/`.
    pub fn downloads(&self) -> PathBuf {
        self.root.join("downloads")
    }

    /// What was fetched for a tree.
    pub fn fetched(&self, tree: TreeId) -> PathBuf {
        self.downloads().join(format!("tree-{tree}"))
    }

    /// The release document a tree is fetched by.
    pub fn fetched_release(&self, tree: TreeId) -> PathBuf {
        self.fetched(tree).join("release.json")
    }

    /// What the hub has offered for a tree that is being fetched (see `content::offered`).
    pub(crate) fn offered(&self, tree: TreeId) -> PathBuf {
        self.fetched(tree).join("offered")
    }

    /// The document of a tree that is being fetched.
    pub fn fetched_tree(&self, tree: TreeId) -> PathBuf {
        self.fetched(tree).join("tree")
    }

    /// The contents of a tree that is being fetched.
    pub fn objects(&self, tree: TreeId) -> PathBuf {
        self.fetched(tree).join("objects")
    }

    /// One of them.
    pub fn object(&self, tree: TreeId, sha256: Sha256) -> PathBuf {
        self.objects(tree).join(sha256.to_string())
    }

    /// `data/`.
    pub fn data(&self) -> PathBuf {
        self.root.join("data")
    }

    /// `snapshot/`: the data as it was before the update under way.
    pub fn snapshot(&self) -> PathBuf {
        self.root.join("snapshot")
    }

    /// Where a snapshot is made, and where one that is no longer needed goes.
    pub fn snapshot_part(&self) -> PathBuf {
        self.root.join("snapshot.part")
    }

    /// Where data is copied before it takes the place of `data/`.
    pub fn data_part(&self) -> PathBuf {
        self.root.join("data.part")
    }

    /// Data that is given up.
    pub fn data_failed(&self) -> PathBuf {
        self.root.join("data.failed")
    }

    /// The process of a hook, as `app.pid`.
    pub fn hook_pid(&self) -> PathBuf {
        self.root.join("hook.pid")
    }

    /// `logs/`.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// `app.pid`.
    pub fn app_pid(&self) -> PathBuf {
        self.root.join("app.pid")
    }

    /// The socket the app notifies.
    pub fn notify_socket(&self) -> PathBuf {
        self.root.join("notify.sock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_takes_the_place_of_what_was_whatever_both_are() {
        let tmp = tempfile::tempdir().unwrap();
        let (path, aside) = (tmp.path().join("state"), tmp.path().join("state.damaged"));
        set_aside(&path, &aside).expect_err("nothing to set aside");
        for folder in [false, true, false, true, true, false, false] {
            if folder {
                std::fs::create_dir(&path).unwrap();
                pytheas_durable::replace(&path.join("in-it"), b"").unwrap();
            } else {
                pytheas_durable::replace(&path, b"").unwrap();
            }
            set_aside(&path, &aside).unwrap();
            assert!(!path.exists() && aside.is_dir() == folder, "{folder}");
        }
    }
}
