//! The `main.py` that starts an app which lies on a board as files.

use std::str::FromStr;

use pytheas_release::RelPath;

use super::{DeployError, Files, rom::MainPy};
use crate::link::{Board, LinkError, files};

/// The first line of what is ours.
const OURS: &str = "# Written by `pytheas board deploy`: starts the app.\n";

/// Adds a `main.py` that starts `entry` (`module` or `module:function`), unless the app has one.
///
/// # Errors
/// [`DeployError::MainPy`], when the board has one that is not ours and that shall stay.
pub fn with_main(
    board: &mut Board,
    app: &mut Files,
    entry: &str,
    main_py: MainPy,
) -> Result<(), DeployError> {
    let has = |path: &RelPath| ["main.py", "main.mpy"].contains(&path.as_str());
    if app.keys().any(has) {
        return Ok(());
    }
    let there = match files::read(board, "/main.py", &mut |_| {}) {
        Ok(bytes) => Some(bytes),
        Err(error) if error.exception() == Some("OSError") => None,
        Err(error) => return Err(error.into()),
    };
    if there.is_some_and(|text| !is_ours(&text)) {
        if main_py == MainPy::Keep {
            return Err(DeployError::MainPy);
        }
        put_aside(board)?;
    }
    let path = RelPath::from_str("main.py").expect("a name is a path");
    app.insert(path, main(entry).into_bytes());
    Ok(())
}

/// What puts `/main.py` aside on a board, as `n`: never over one that lies there.
pub(super) const ASIDE: &str = "import os\nn='main.py.bak'\nwhile any(e[0]==n for e in os.ilistdir('/')):\n \
    n='main.py.bak%d'%(int(n[11:]or 1)+1)\nos.rename('/main.py','/'+n)";

/// Puts `/main.py` aside; where it is now.
///
/// # Errors
/// When the board does not answer, or cannot.
pub(super) fn put_aside(board: &mut Board) -> Result<String, LinkError> {
    let said = board.exec(&format!("{ASIDE}\nprint(n)"))?;
    Ok(format!("/{}", String::from_utf8_lossy(&said).trim()))
}

fn is_ours(text: &[u8]) -> bool {
    super::rom::is_starter(text) || text.starts_with(OURS.as_bytes())
}

fn main(entry: &str) -> String {
    let (module, function) = entry.split_once(':').unwrap_or((entry, ""));
    let mut text = format!("{OURS}module = __import__({module:?}, None, None, (\"*\",))\n");
    if !function.is_empty() {
        text.push_str(&format!(
            "done = module.{function}()\nif hasattr(done, \"send\"):\n    import asyncio\n\n    asyncio.run(done)\n"
        ));
    }
    text
}
