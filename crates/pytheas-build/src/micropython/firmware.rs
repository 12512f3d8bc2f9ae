//! Which modules a board's firmware has already, and what to use for those that MicroPython lacks.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::{Deserialize, Serialize};

use super::arch::Board;

/// How a firmware has a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Has {
    /// As C code.
    Builtin,
    /// As frozen Python code.
    Frozen,
    /// Some boards' firmware has it; the target does not say which board it is for.
    Perhaps,
    /// The project says so (`firmware-modules`).
    Said,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Modules {
    builtin: Vec<String>,
    frozen: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    fixed: Vec<String>,
    all: Modules,
    network: Modules,
    port: BTreeMap<String, Modules>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    toml::from_str(include_str!("firmware.toml")).expect("firmware.toml is valid")
});

/// What does a module's work on a board.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Instead {
    /// A package of micropython-lib.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mip: Option<String>,
    /// Something that is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instead: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    module: BTreeMap<String, Instead>,
}

static RULES: LazyLock<BTreeMap<String, Instead>> = LazyLock::new(|| {
    let rules: Rules = toml::from_str(include_str!("rules.toml")).expect("rules.toml is valid");
    rules.module
});

/// What to use for `module`, which the board lacks.
pub(super) fn instead(module: &str) -> Option<&'static Instead> {
    let mut name = module;
    loop {
        if let Some(found) = RULES.get(name) {
            return Some(found);
        }
        name = name.rsplit_once('.')?.0;
    }
}

impl Instead {
    /// In words.
    pub fn text(&self) -> String {
        let mip = self.mip.as_ref().map(|name| format!("`{name}` of mip"));
        let parts: Vec<String> = mip.into_iter().chain(self.instead.clone()).collect();
        parts.join(", or ")
    }
}

/// The modules of one firmware.
#[derive(Debug, Clone, Default)]
pub(super) struct Firmware {
    modules: BTreeMap<String, Has>,
}

impl Firmware {
    /// The firmware of `board`; without one, what all have, and perhaps what any has. `said` are the
    /// project's `firmware-modules`; one with a `-` in front is not there.
    pub(super) fn of(board: Option<&Board>, said: &[String]) -> Self {
        let mut modules = BTreeMap::new();
        let mut add = |from: &Modules, perhaps: bool| {
            let kinds = [(&from.builtin, Has::Builtin), (&from.frozen, Has::Frozen)];
            for (names, kind) in kinds {
                for name in names {
                    let kind = if perhaps { Has::Perhaps } else { kind };
                    modules.entry(name.clone()).or_insert(kind);
                }
            }
        };
        add(&TABLE.all, false);
        match board {
            Some(board) => {
                if let Some(port) = TABLE.port.get(&board.port) {
                    add(port, false);
                }
                if board.has_network {
                    add(&TABLE.network, false);
                }
            }
            None => {
                add(&TABLE.network, true);
                TABLE.port.values().for_each(|port| add(port, true));
            }
        }
        for name in said {
            match name.strip_prefix('-') {
                Some(name) => modules.remove(name),
                None => modules.insert(name.clone(), Has::Said),
            };
        }
        Self { modules }
    }

    /// Whether it has `module` so that no file of that name is ever imported.
    pub(super) fn is_fixed(&self, module: &str) -> bool {
        self.modules.get(module) == Some(&Has::Builtin)
            && TABLE.fixed.iter().any(|fixed| fixed == module)
    }

    /// How it has `module`; a package that is frozen has its submodules, too. The old names with a
    /// `u` in front stand for the C modules.
    pub(super) fn has(&self, module: &str) -> Option<Has> {
        if let Some(has) = self.modules.get(module) {
            return Some(*has);
        }
        if let Some(has) = module
            .strip_prefix('u')
            .and_then(|name| self.modules.get(name))
            .filter(|has| matches!(has, Has::Builtin | Has::Perhaps))
        {
            return Some(*has);
        }
        let mut parent = module;
        while let Some((above, _)) = parent.rsplit_once('.') {
            parent = above;
            match self.modules.get(parent) {
                Some(Has::Builtin) => return None,
                Some(has) => return Some(*has),
                None => {}
            }
        }
        // `umqtt` of `umqtt.simple`.
        let below = format!("{module}.");
        self.modules
            .iter()
            .find(|(name, _)| name.starts_with(&below))
            .map(|(_, has)| *has)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::micropython::arch::board;

    #[test]
    fn firmware_has_what_its_port_and_its_network_bring() {
        let esp32 = Firmware::of(Some(&board("ESP32_GENERIC_S3").unwrap()), &[]);
        assert_eq!(esp32.has("umqtt.simple"), Some(Has::Frozen));
        assert_eq!(esp32.has("umqtt"), Some(Has::Frozen));
        assert_eq!(esp32.has("asyncio.core"), Some(Has::Frozen));
        assert_eq!(esp32.has("utime"), Some(Has::Builtin));
        assert_eq!(esp32.has("os.path"), None);
        assert_eq!(esp32.has("pyb"), None);
        assert!(esp32.is_fixed("math") && !esp32.is_fixed("time") && !esp32.is_fixed("asyncio"));
        assert!(!Firmware::of(None, &["-math".into()]).is_fixed("math"));
        let pico = Firmware::of(
            Some(&board("RPI_PICO").unwrap()),
            &["lcd".into(), "-dht".into()],
        );
        assert_eq!(pico.has("network"), None);
        assert_eq!(pico.has("lcd"), Some(Has::Said));
        assert_eq!(pico.has("dht"), None);
        assert_eq!(Firmware::of(None, &[]).has("network"), Some(Has::Perhaps));
    }

    #[test]
    fn what_boards_lack_has_something_instead() {
        assert_eq!(instead("os.path").unwrap().mip.as_deref(), Some("os-path"));
        assert_eq!(instead("xml.etree.ElementTree").unwrap().text(), "json");
        assert_eq!(
            instead("logging").unwrap().text(),
            "`logging` of mip, or print: `pytheas board logs` shows it"
        );
        assert_eq!(instead("nothing_like_it"), None);
    }
}
