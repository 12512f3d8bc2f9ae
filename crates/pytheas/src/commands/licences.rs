//! `pytheas licences`: under which licences the parts of a built tree stand.

use std::{io, path::PathBuf, process::ExitCode};

use pytheas_build::{Inventory, LicencePolicy, LicenceSource};
use pytheas_project::Project;
use serde::Serialize;

use crate::{
    context::Context,
    exit,
    output::{Paint, Show},
};

/// List the licences in a built tree, and check them against a policy
///
/// The policy is `[tool.pytheas.licences]` of the project (`allow`, `deny`,
/// `except`); `--allow` and `--deny` add to it. Of `A OR B` one that is
/// allowed is enough. Exits with 1 when a package is refused.
///
/// Example: `pytheas licences dist/greenhouse --deny GPL-3.0-only`
#[derive(Debug, clap::Args)]
pub(crate) struct LicencesArgs {
    /// The built tree [default: this folder, or dist/APP of the project]
    dir: Option<PathBuf>,
    /// Folder of the project whose policy holds
    #[arg(long, short = 'C', default_value = ".", value_name = "DIR")]
    project: PathBuf,
    /// SPDX identifiers that may be shipped; all others may not
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    allow: Vec<String>,
    /// SPDX identifiers that may not be shipped
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    deny: Vec<String>,
    /// Packages that are fine whatever their licence says
    #[arg(long, value_name = "PACKAGE", value_delimiter = ',')]
    except: Vec<String>,
}

#[derive(Serialize)]
struct Row {
    name: String,
    version: String,
    licence: String,
    expression: Option<String>,
    source: LicenceSource,
    files: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

#[derive(Serialize)]
struct Report {
    packages: Vec<Row>,
    refused: usize,
}

impl Show for Report {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let rows: Vec<_> = self
            .packages
            .iter()
            .map(|row| {
                [
                    row.name.clone(),
                    row.version.clone(),
                    row.licence.clone(),
                    row.source.as_str().to_owned(),
                    row.refused.clone().unwrap_or_default(),
                ]
            })
            .collect();
        out.table(
            ["PACKAGE", "VERSION", "LICENCE", "TOLD BY", "REFUSED"],
            &rows,
        )
    }
}

/// Lists them; the exit code says whether all are allowed.
pub(crate) fn run(args: &LicencesArgs, context: &Context) -> miette::Result<ExitCode> {
    let inventory = Inventory::read(&super::built_tree::of(args.dir.as_deref(), &args.project))?;
    let mut policy = LicencePolicy::default();
    if args.project.join("pyproject.toml").is_file() {
        let settings = Project::load(&args.project)?.settings.licences;
        policy.allow = settings.allow;
        policy.deny = settings.deny;
        policy.except = settings.except;
    }
    policy.allow.extend(args.allow.iter().cloned());
    policy.deny.extend(args.deny.iter().cloned());
    policy.except.extend(args.except.iter().cloned());
    let licences: Vec<_> = inventory
        .distributions
        .iter()
        .map(|one| &one.licence)
        .collect();
    for (entry, near) in policy.unknown(&licences) {
        let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        context.warn(format!(
            "`{entry}` in the lists of licences is no SPDX identifier that is known here, and no package has it{near}"
        ));
    }
    let packages: Vec<Row> = inventory
        .distributions
        .iter()
        .map(|distribution| Row {
            name: distribution.name.clone(),
            version: distribution.version.clone(),
            licence: distribution.licence.shown().to_owned(),
            expression: distribution.licence.expression.clone(),
            source: distribution.licence.source,
            files: distribution.licence.files.clone(),
            refused: policy.refusal(&distribution.name, &distribution.licence),
        })
        .collect();
    let refused = packages.iter().filter(|row| row.refused.is_some()).count();
    context.show(&Report { packages, refused })?;
    if refused == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    context.warn(format!(
        "{refused} of the packages stand under licences that are not allowed"
    ));
    Ok(ExitCode::from(exit::USER))
}
