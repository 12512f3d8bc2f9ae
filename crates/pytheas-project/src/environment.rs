//! The environment as a value: variables are read from it and child programs get exactly it, so
//! that a test needs no global state and a build sees one environment from start to end.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    process::Command,
};

/// The environment variables of a run.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// The variables of this process, as they are now.
    pub fn current() -> Self {
        Self {
            variables: std::env::vars_os().collect(),
        }
    }

    /// The same with `name` set to `value`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// The same without `name`.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.variables.remove(OsStr::new(name));
        self
    }

    /// A variable that is set, not empty and UTF-8.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.variables
            .get(OsStr::new(name))?
            .to_str()
            .filter(|value| !value.is_empty())
    }

    /// A variable that is set and not empty, as a path.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        let value = self
            .variables
            .get(OsStr::new(name))
            .filter(|value| !value.is_empty())?;
        Some(PathBuf::from(value))
    }

    /// The folders of `PATH`, in order; relative ones are left out.
    pub fn search_path(&self) -> Vec<PathBuf> {
        let Some(path) = self.variables.get(OsStr::new("PATH")) else {
            return Vec::new();
        };
        std::env::split_paths(path)
            .filter(|dir| dir.is_absolute())
            .collect()
    }

    /// The home folder, as `HOME` says.
    pub fn home(&self) -> Option<PathBuf> {
        self.path("HOME").filter(|home| home.is_absolute())
    }

    /// Where things that can be made again are kept: `PYTHEAS_CACHE_DIR`, else
    /// `$XDG_CACHE_HOME/pytheas`, else `~/.cache/pytheas`; without a home a folder for this user
    /// under the system's temporary folder.
    pub fn cache_dir(&self) -> PathBuf {
        if let Some(dir) = self.path("PYTHEAS_CACHE_DIR") {
            return std::path::absolute(&dir).unwrap_or(dir);
        }
        if let Some(dir) = self.path("XDG_CACHE_HOME").filter(|dir| dir.is_absolute()) {
            return dir.join("pytheas");
        }
        match self.home() {
            Some(home) => home.join(".cache/pytheas"),
            None => {
                let user = self.get("USER").unwrap_or("nobody").replace('/', "_");
                std::env::temp_dir().join(format!("pytheas-cache-{user}"))
            }
        }
    }

    /// A command that gets these variables and no others.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear().envs(&self.variables);
        command
    }

    /// As [`Environment::command`], without the variables that change how Python starts.
    pub fn python(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        command.envs(self.variables.iter().filter(|(name, _)| {
            let name = name.to_string_lossy();
            !name.starts_with("PYTHON") && name != "VIRTUAL_ENV" && name != "__PYVENV_LAUNCHER__"
        }));
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cache_is_where_the_nearest_variable_says() {
        let none = Environment::default().with("HOME", "/home/me");
        assert_eq!(none.cache_dir(), Path::new("/home/me/.cache/pytheas"));
        let xdg = none.with("XDG_CACHE_HOME", "/x");
        assert_eq!(xdg.cache_dir(), Path::new("/x/pytheas"));
        let own = xdg.with("PYTHEAS_CACHE_DIR", "/own");
        assert_eq!(own.cache_dir(), Path::new("/own"));
        let empty = own
            .with("PYTHEAS_CACHE_DIR", "")
            .with("XDG_CACHE_HOME", "relative");
        assert_eq!(empty.cache_dir(), Path::new("/home/me/.cache/pytheas"));
    }
}
