//! `pytheas audit`: known vulnerabilities of what is locked or built.

use std::{io, path::PathBuf, process::ExitCode};

use jiff::{Timestamp, tz::TimeZone};
use miette::Diagnostic;
use pytheas_build::{
    Audit, AuditSubject, Database, DatabaseError, Finding, Ignore, OSV_API, Severity,
};
use pytheas_project::{Environment, Project, http::Http};
use pytheas_release::Platform;
use serde::Serialize;

use super::audit_sarif::{Format, Sarif};
use crate::{
    context::Context,
    exit,
    output::{Paint, Show},
};

/// Look for known vulnerabilities in what is locked or built
///
/// Compares versions with a database of advisories in the OSV format: OSV's
/// own service, or, offline, a folder of its documents or the `all.zip` of its
/// ecosystem PyPI. Of a built folder the interpreter is audited too, and
/// whether the program reaches the package. Exits with 1 when something is
/// found that is not passed over, with 2 when the input or a setting cannot
/// be used, with 3 when the database cannot.
///
/// Examples: `pytheas audit`, `pytheas audit dist/greenhouse --database all.zip`
#[derive(Debug, clap::Args)]
pub(crate) struct AuditArgs {
    /// A project, its lock file, a built folder, or a bill of materials (CycloneDX JSON)
    #[arg(default_value = ".", value_name = "PROJECT|LOCK|DIR|SBOM")]
    path: PathBuf,
    /// Folder or zip of OSV documents, or the address of a zip or of a server with OSV's API
    /// [default: `database` in `[tool.pytheas.audit]`, else OSV's own service]
    #[arg(long, env = "PYTHEAS_OSV", value_name = "DIR|ZIP|URL")]
    database: Option<String>,
    /// Folder of the project whose `[tool.pytheas.audit]` holds [default: the audited one, else .]
    #[arg(long, short = 'C', value_name = "DIR")]
    project: Option<PathBuf>,
    /// Of a lock, only what this platform may need
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<Platform>,
    /// Pass over this advisory, by any of its names
    #[arg(long, value_name = "ID", value_delimiter = ',')]
    ignore: Vec<String>,
    /// The mildest severity that fails; unknown severities always do
    #[arg(long, value_name = "low|medium|high|critical")]
    fail_on: Option<Severity>,
    /// Use no network
    #[arg(long)]
    offline: bool,
    /// What is printed: `text` (or JSON with `--json`), or `sarif` for tools that show findings
    #[arg(long, value_enum, default_value_t, conflicts_with = "json")]
    format: super::audit_sarif::Format,
}

/// A setting of the project that cannot be used.
#[derive(Debug, thiserror::Error, Diagnostic)]
enum AuditError {
    #[error("`{key}` in `[tool.pytheas.audit]`: {reason}")]
    #[diagnostic(code(pytheas::audit::setting), help("correct it in `pyproject.toml`"))]
    Setting { key: &'static str, reason: String },
    #[error("`--database`: {reason}")]
    #[diagnostic(
        code(pytheas::audit::database),
        help("give a folder, a zip file, or an address")
    )]
    Database { reason: String },
}

#[derive(Serialize)]
struct Shown<'a> {
    subject: String,
    database: String,
    /// How many make the command fail.
    failing: usize,
    #[serde(flatten)]
    audit: &'a Audit,
}

impl Show for Shown<'_> {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let audit = self.audit;
        if !audit.findings.is_empty() {
            let rows: Vec<_> = audit.findings.iter().map(row).collect();
            out.table(
                [
                    "PACKAGE", "VERSION", "ADVISORY", "SEVERITY", "FIXED IN", "REMARK", "WHAT",
                ],
                &rows,
            )?;
        }
        let passed_over = audit.findings.iter().filter(|one| one.ignored.is_some());
        let passed_over = match passed_over.count() {
            0 => String::new(),
            count => format!(", {count} passed over"),
        };
        let advisories = audit
            .advisories
            .map_or(String::new(), |count| format!(" ({count} advisories)"));
        out.fact(
            "audited",
            format!("{} parts of {}", audit.parts, self.subject),
        )?;
        out.fact("against", format!("{}{advisories}", self.database))?;
        let found = audit.findings.len();
        out.fact(
            "found",
            format!("{found}, {} of them fail{passed_over}", self.failing),
        )
    }
}

fn row(finding: &Finding) -> [String; 7] {
    let cve = finding.aliases.iter().find(|name| name.starts_with("CVE-"));
    let id = match cve.filter(|_| !finding.id.starts_with("CVE-")) {
        Some(cve) => format!("{} {cve}", finding.id),
        None => finding.id.clone(),
    };
    let score = finding
        .score
        .map_or(String::new(), |score| format!(" {score:.1}"));
    let mut remarks = Vec::new();
    if let Some(reason) = &finding.ignored {
        remarks.push(format!("passed over: {reason}"));
    }
    if finding.reached == Some(false) {
        remarks.push("not reached".to_owned());
    }
    if !finding.targets.is_empty() {
        remarks.push(finding.targets.join(" "));
    } else if let Some(marker) = &finding.marker {
        remarks.push(marker.clone());
    }
    [
        finding.package.clone(),
        finding.version.clone(),
        id,
        format!("{}{score}", finding.severity.as_str()),
        match finding.fixed.is_empty() {
            true => "-".to_owned(),
            false => finding.fixed.join(", "),
        },
        remarks.join("; "),
        finding.summary.chars().take(72).collect(),
    ]
}

/// Audits it; the exit code says whether something was found, or why nothing was audited.
pub(crate) fn run(args: &AuditArgs, context: &Context) -> miette::Result<ExitCode> {
    let code =
        |error: &miette::Report| exit::of(error.code().map(|code| code.to_string()).as_deref());
    match audit(args, context) {
        Err(error) if code(&error) == exit::USER => {
            context.report(error.as_ref());
            Ok(ExitCode::from(exit::USAGE))
        }
        other => other,
    }
}

fn audit(args: &AuditArgs, context: &Context) -> miette::Result<ExitCode> {
    let load = |path: &PathBuf| Project::load(path);
    let project = match &args.project {
        Some(path) => Some(load(path)?),
        None => {
            let is_project = args.path.join("pyproject.toml").is_file();
            let here = if is_project {
                args.path.clone()
            } else {
                PathBuf::from(".")
            };
            match here.join("pyproject.toml").is_file() {
                true => Some(load(&here)?),
                false => None,
            }
        }
    };
    let settings = project
        .as_ref()
        .map(|project| project.settings.audit.clone())
        .unwrap_or_default();
    let subject = AuditSubject::find(&args.path, || Ok(load(&args.path)?), args.platform.as_ref())?;

    let database: Database = match (&args.database, &settings.database, &project) {
        (Some(text), _, _) => text
            .parse()
            .map_err(|reason| AuditError::Database { reason })?,
        (None, Some(text), Some(project)) => {
            let database = text.parse().map_err(|reason| AuditError::Setting {
                key: "database",
                reason,
            })?;
            match database {
                Database::Path(path) => Database::Path(project.dir.join(path)),
                other => other,
            }
        }
        _ => OSV_API
            .parse()
            .map_err(|reason| AuditError::Database { reason })?,
    };
    if args.offline && !matches!(database, Database::Path(_)) {
        let database = database.to_string();
        return Err(DatabaseError::Offline { database }.into());
    }
    let fail_on = match (args.fail_on, &settings.fail_on) {
        (Some(severity), _) => severity,
        (None, Some(text)) => text.parse().map_err(|error| AuditError::Setting {
            key: "fail-on",
            reason: format!("{error}"),
        })?,
        (None, None) => Severity::Unknown,
    };
    let given = args.ignore.iter().map(|id| Ignore {
        id: id.clone(),
        until: None,
        reason: Some("--ignore".to_owned()),
    });
    let ignore: Vec<Ignore> = settings
        .ignore
        .into_iter()
        .map(|entry| Ignore {
            id: entry.id,
            until: entry.until.map(|day| day.0),
            reason: entry.reason,
        })
        .chain(given)
        .collect();

    let progress = context.progress();
    progress.step(format!("asking {database}"));
    let http = Http::new(&Environment::current());
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date().to_string();
    let audit = pytheas_build::audit(&subject, &database, &ignore, &today, &http)?;
    drop(progress);

    for id in &audit.expired {
        context.warn(format!("the time for passing over `{id}` is up"));
    }
    for id in &audit.unneeded {
        context.note(format!("note: `{id}` is passed over, but nothing has it"));
    }
    if audit.interpreter_unknown {
        context.note("note: this database has no advisories on CPython itself");
    }
    if !audit.unversioned.is_empty() {
        let list = audit.unversioned.join("`, `");
        context.warn(format!("not audited, since they have no version: `{list}`"));
    }
    let failing = audit.counted(fail_on);
    match args.format {
        Format::Text => context.show(&Shown {
            subject: subject.path.display().to_string(),
            database: database.to_string(),
            failing,
            audit: &audit,
        })?,
        Format::Sarif => context.show(&Sarif::of(&audit, &subject.path))?,
    }
    Ok(match failing {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::from(exit::USER),
    })
}
