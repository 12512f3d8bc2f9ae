//! `pytheas why`: the chain of imports that keeps a module in a built tree.

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

use pytheas_build::{Inventory, import_graph};
use pytheas_project::{
    Project, closest,
    graph::{Graph, Reason},
    normalised_name,
};
use serde::Serialize;

use crate::{
    context::Context,
    output::{Paint, Show},
};

/// Say why a module is in a built tree: the imports that lead to it
///
/// Each line is a module and what brought it in, from an entry point down to
/// the module; the chain is a shortest one.
///
/// Example: `pytheas why sqlite3 dist/greenhouse`
#[derive(Debug, clap::Args)]
pub(crate) struct WhyArgs {
    /// The module, e.g. `json.decoder`
    module: String,
    /// The built tree [default: this folder, or dist/APP of the project]
    dir: Option<PathBuf>,
    /// Folder of the project, for its `[[tool.pytheas.rule]]` and `keep`
    /// [default: this folder, if it is one]
    #[arg(long, short = 'C', value_name = "DIR")]
    project: Option<PathBuf>,
}

#[derive(Serialize)]
struct Chain {
    module: String,
    /// Whether the tree has such a module at all.
    exists: bool,
    chain: Vec<Link>,
}

#[derive(Serialize)]
struct Link {
    module: String,
    reason: Reason,
    text: String,
}

impl Show for Chain {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        if self.chain.is_empty() {
            return out.line(format!(
                "nothing reaches `{}`; a slim build leaves it out",
                self.module
            ));
        }
        for (depth, link) in self.chain.iter().enumerate() {
            out.line(format!(
                "{}{}  {}",
                "  ".repeat(depth),
                link.module,
                link.text
            ))?;
        }
        Ok(())
    }
}

fn text(reason: &Reason) -> String {
    match reason {
        Reason::Entry => "entry point".to_owned(),
        Reason::Import { by, line, lazy } => {
            let when = if *lazy { ", inside a function" } else { "" };
            format!("imported by {by} line {line}{when}")
        }
        Reason::Parent { of } => format!("package of {of}"),
        Reason::Named { by, line } => format!("named in a string, {by} line {line}"),
        Reason::AnyOf { by, line } => {
            format!("any of its package may be imported, {by} line {line}")
        }
        Reason::Compiled { by } => format!("may be imported by the compiled {by}"),
        Reason::Rule { when } if when == "*" => "every program needs it (rule)".to_owned(),
        Reason::Rule { when } => format!("{when} needs it (rule)"),
        Reason::Plugin { group, name } => format!("plug-in `{name}` of `{group}`"),
        Reason::Keep { pattern } => format!("`keep` has `{pattern}`"),
        Reason::App => "a module of the app".to_owned(),
        Reason::Required { distribution } => format!("the app requires {distribution}"),
    }
}

/// Prints the chain.
pub(crate) fn run(args: &WhyArgs, context: &Context) -> miette::Result<()> {
    let here = PathBuf::from(".");
    let project = args.project.as_ref().unwrap_or(&here);
    let dir = super::built_tree::of(args.dir.as_deref(), project);
    if super::build_board::why(&args.module, &dir, context)? {
        return Ok(());
    }
    let project = match &args.project {
        Some(dir) => Some(Project::load(dir)?),
        None => Project::load(".".as_ref()).ok(),
    };
    let graph = import_graph(&dir, project.as_ref())?;
    let chain: Vec<Link> = graph
        .chain(&args.module)
        .into_iter()
        .map(|(module, reason)| Link {
            text: text(&reason),
            module,
            reason,
        })
        .collect();
    let exists = graph.modules.contains_key(&args.module);
    if chain.is_empty() && !exists {
        return Err(unknown(&args.module, &graph, &dir, project.as_ref()));
    }
    context.show(&Chain {
        module: args.module.clone(),
        exists,
        chain,
    })
}

fn unknown(module: &str, graph: &Graph, dir: &Path, project: Option<&Project>) -> miette::Report {
    let near = closest(module, graph.modules.keys().map(String::as_str));
    let is_slim = project.is_some_and(|project| {
        let mut targets = project.settings.target.values();
        targets.any(|target| target.slim)
    });
    let help = if let Some(modules) = modules_of(module, dir) {
        format!("it is a package; its modules are {modules}")
    } else if let Some(near) = near {
        format!("did you mean `{near}`?")
    } else if is_slim {
        format!(
            "`slim` leaves out what nothing is seen to import; `keep = [\"{module}\"]` of the target keeps it, where a requirement has it"
        )
    } else {
        "modules of C inside the interpreter have no file; they cost nothing".to_owned()
    };
    miette::miette!(help = help, "`{}` has no module `{module}`", dir.display())
}

/// The top modules of the package `name`, as people write it, if the tree has it.
fn modules_of(name: &str, dir: &Path) -> Option<String> {
    let inventory = Inventory::read(dir).ok()?;
    let wanted = normalised_name(name);
    let mut distributions = inventory.distributions.iter();
    let found = distributions.find(|one| normalised_name(&one.name) == wanted)?;
    let modules: BTreeSet<&str> = found
        .files
        .iter()
        .filter_map(|file| {
            inventory
                .sites
                .iter()
                .find_map(|site| file.strip_prefix(site.as_str()))
        })
        .filter_map(|file| file.trim_start_matches('/').strip_suffix(".py"))
        .filter_map(|file| file.split('/').next())
        .collect();
    let modules: Vec<String> = modules
        .iter()
        .take(5)
        .map(|name| format!("`{name}`"))
        .collect();
    (!modules.is_empty()).then(|| modules.join(", "))
}
