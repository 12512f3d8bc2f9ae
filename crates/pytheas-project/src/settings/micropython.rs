//! `[tool.pytheas.micropython]`: packages for boards, and what their firmware has.
//!
//! ```toml
//! [tool.pytheas.micropython]
//! dependencies = ["microdot>=2,<3", "umqtt.simple ^1.3", "./lib/mine"]
//! index = "https://packages.example/v2"     # mip's format; or a folder (`pytheas lock --mirror`)
//! firmware-modules = ["lcd_driver", "-dht"] # has it, has it not
//! ```

use serde::Deserialize;

/// The table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct MicroPythonSpec {
    /// Packages: names with versions, addresses, folders.
    pub dependencies: Vec<String>,
    /// An index of mip's format: an address or a folder.
    pub index: Option<String>,
    /// Modules that the boards' firmware has besides the usual ones; with `-` in front: has not.
    pub firmware_modules: Vec<String>,
}

/// What a board's release has beside the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Also {
    /// `files/`: the files one by one, for boards without ROMFS.
    Files,
    /// `manifest.py` and `frozen/`: to build the app into firmware.
    Frozen,
}
