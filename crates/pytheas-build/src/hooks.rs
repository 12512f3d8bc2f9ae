//! Hooks: what devices run around an update (`[tool.pytheas.hooks]`), made part of the bundle.
//!
//! A function becomes a program of its own under `tools/`, as the programs of dependencies do; a
//! command's program is looked for in the tree when the build is done.

use std::{fs, path::Path};

use pytheas_project::{Entry, HookCommand, HookSpec, HooksSpec};
use pytheas_release::{Hook, Hooks, RelPath};

use crate::{
    error::BuildError,
    form::Job,
    launcher::machine_code,
    tools::{TOOLS, add_root},
};

/// A hook that devices could not run.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum HookError {
    /// Another form.
    #[error("`[tool.pytheas.hooks]` needs the form `bundle`; this target has the form `{form}`")]
    #[diagnostic(
        code(pytheas::build::hooks_form),
        help("agents run hooks of bundles only; take the table out, or build a bundle")
    )]
    Form {
        /// The form.
        form: String,
    },
    /// No such function.
    #[error("the hook `{hook}` is `{entry}`, which is not there")]
    #[diagnostic(
        code(pytheas::build::no_hook_function),
        help("name a function of the app: `module:function`")
    )]
    Entry {
        /// Which hook.
        hook: &'static str,
        /// What it calls.
        entry: String,
        /// What is missing.
        source: Box<crate::EntryCheckError>,
    },
    /// No such program.
    #[error("the hook `{hook}` runs `{program}`, which is not in the bundle")]
    #[diagnostic(
        code(pytheas::build::no_hook),
        help(
            "programs of dependencies are taken along by `scripts = [\"alembic\"]`; a function of the app is named `module:function`; a program of the device has an absolute path"
        )
    )]
    Missing {
        /// Which hook.
        hook: String,
        /// What it runs.
        program: String,
    },
}

impl HookError {
    pub(crate) fn entry(hook: &'static str, entry: &Entry, source: crate::EntryCheckError) -> Self {
        Self::Entry {
            hook,
            entry: entry.to_string(),
            source: Box::new(source),
        }
    }
}

/// Name and function of the hooks that are functions.
pub(crate) fn entries(hooks: &HooksSpec) -> impl Iterator<Item = (&'static str, &Entry)> {
    hooks.iter().filter_map(|(name, hook)| match &hook.command {
        HookCommand::Entry(entry) => Some((name, entry)),
        HookCommand::Program(_) => None,
    })
}

/// The program's name for a hook that is a function.
fn program(hook: &str) -> String {
    format!("pytheas-{hook}")
}

/// Adds the programs of hooks that are functions.
pub(crate) fn add(job: &Job<'_>, into: &Path) -> Result<(), BuildError> {
    for (name, hook) in job.project.settings.hooks.iter() {
        let HookCommand::Entry(Entry::Callable { module, callable }) = &hook.command else {
            continue;
        };
        let code = machine_code(job.platform.arch()).ok_or_else(|| BuildError::Platform {
            form: "bundle".to_owned(),
            platform: job.platform.clone(),
            host: std::env::consts::ARCH.to_owned(),
        })?;
        add_root(
            job,
            into,
            &code,
            &program(name),
            &format!("{module}:{callable}"),
        )?;
    }
    Ok(())
}

/// The modules that hooks are in, which nothing else may import.
pub(crate) fn modules(hooks: &HooksSpec) -> impl Iterator<Item = String> + '_ {
    hooks.iter().filter_map(|(_, hook)| match &hook.command {
        HookCommand::Entry(Entry::Callable { module, .. }) => Some(module.clone()),
        _ => None,
    })
}

/// The hooks as the build record holds them; `tree` is the finished tree.
///
/// # Errors
/// [`HookError`].
pub(crate) fn recorded(hooks: &HooksSpec, form: &str, tree: &Path) -> Result<Hooks, HookError> {
    let is_empty = hooks.iter().next().is_none() && hooks.snapshot.is_none();
    if form != "bundle" {
        return match is_empty {
            true => Ok(Hooks::default()),
            false => Err(HookError::Form {
                form: form.to_owned(),
            }),
        };
    }
    let one = |name: &str, hook: &Option<HookSpec>| {
        hook.as_ref()
            .map(|hook| found(name, hook, tree))
            .transpose()
    };
    Ok(Hooks {
        before_update: one("before-update", &hooks.before_update)?,
        after_update: one("after-update", &hooks.after_update)?,
        after_rollback: one("after-rollback", &hooks.after_rollback)?,
        snapshot: hooks.snapshot,
    })
}

fn found(name: &str, hook: &HookSpec, tree: &Path) -> Result<Hook, HookError> {
    let command = match &hook.command {
        HookCommand::Entry(_) => {
            let program = program(name);
            vec![format!("{TOOLS}/{program}/bin/{program}")]
        }
        HookCommand::Program(words) => {
            let mut words = words.clone();
            if !words[0].starts_with('/') {
                words[0] = in_tree(&words[0], tree).ok_or_else(|| HookError::Missing {
                    hook: name.to_owned(),
                    program: words[0].clone(),
                })?;
            }
            words
        }
    };
    Ok(Hook {
        command,
        timeout_ms: hook.timeout_ms,
    })
}

/// The path of a program inside the tree: as it is written, else below `bin/`.
fn in_tree(program: &str, tree: &Path) -> Option<String> {
    [program.to_owned(), format!("bin/{program}")]
        .into_iter()
        .find(|path| {
            let path = path.parse::<RelPath>().ok();
            path.is_some_and(|path| fs::metadata(path.under(tree)).is_ok_and(|m| m.is_file()))
        })
        .filter(|path| path.contains('/'))
}
