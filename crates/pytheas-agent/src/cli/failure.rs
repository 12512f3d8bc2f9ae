//! A command that fails, for programs: with `--json` the reason goes to standard output as well.
//!
//! ```json
//! {"error": {"code": "pytheas::agent::not_enrolled", "message": "…", "because": ["…"], "help": "…"}}
//! ```

use std::{error::Error as _, io::Write};

use miette::Diagnostic as _;
use serde_json::json;

use super::put_json;
use crate::{apply::ApplyError, error::AgentError};

/// Writes why a command failed, unless what it has written says so already.
///
/// # Errors
/// [`AgentError::Io`] when `out` takes nothing.
pub(super) fn show(error: &AgentError, out: &mut dyn Write) -> Result<(), AgentError> {
    let is_said = match error {
        AgentError::Shown(_) => true,
        AgentError::Apply(error) => matches!(**error, ApplyError::Failed { .. }),
        _ => false,
    };
    if is_said {
        return Ok(());
    }
    let mut because = Vec::new();
    let mut next = error.source();
    while let Some(cause) = next {
        because.push(cause.to_string());
        next = cause.source();
    }
    let value = json!({"error": {
        "code": error.code().map(|code| code.to_string()),
        "message": error.to_string(),
        "because": because,
        "help": error.help().map(|help| help.to_string()),
    }});
    let text = serde_json::to_string_pretty(&value).unwrap_or_default();
    put_json(out, &text).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_one_object_with_all_its_reasons() {
        let path = std::path::Path::new("/state/x\u{1b}");
        let error = AgentError::io("read", path)(std::io::Error::other("the disk is gone"));
        let mut out = Vec::new();
        show(&error, &mut out).unwrap();
        insta::assert_snapshot!(String::from_utf8(out).unwrap(), @r#"
        {
          "error": {
            "because": [
              "the disk is gone"
            ],
            "code": null,
            "help": "is the disk full, or the state directory not writable for this user?",
            "message": "cannot read `/state/x\u001b`"
          }
        }
        "#);
        let mut out = Vec::new();
        show(&AgentError::Shown(Box::new(error)), &mut out).unwrap();
        assert!(out.is_empty());
    }
}
