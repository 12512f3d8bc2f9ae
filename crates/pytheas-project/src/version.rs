//! `version` in `[tool.pytheas]`: the version of an app from the git tag, from a file, or from a
//! string in one of its modules, which is read and never run.
//!
//! From git, as setuptools-scm does by default: on the tag `v1.2.3` it is `1.2.3`; four commits
//! later `1.2.4.dev4+g0a1b2c3d4e5f`; with changes that are not committed `.dYYYYMMDD` follows,
//! the day of the last commit, so that the same files have the same version on every day.
//! Versions are PEP 440's, so each is later than the tag before it and earlier than the next.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
};

use miette::Diagnostic;
use pep440_rs::{LocalSegment, Version as Pep440};
use pytheas_release::{RelPath, Version};

use crate::{
    environment::Environment,
    project::Project,
    settings::{VersionFrom, VersionSpec},
};

/// A version that cannot be found where the project says it is.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum VersionError {
    /// The table contradicts itself.
    #[error("`version` in `[tool.pytheas]`: {reason}")]
    #[diagnostic(
        code(pytheas::version::setting),
        help(
            "write `version = {{ from = \"git\" }}`, `{{ file = \"VERSION\" }}` or `{{ attr = \"package.__version__\" }}`"
        )
    )]
    Setting {
        /// What is wrong.
        reason: String,
    },
    /// No program `git`.
    #[error("the version comes from the git tag, but there is no program `git`")]
    #[diagnostic(
        code(pytheas::version::no_git),
        help("install git, or give the version with `--release-version`")
    )]
    NoGit,
    /// git fails.
    #[error("the version comes from the git tag, but git says of `{}`: {said}", dir.display())]
    #[diagnostic(
        code(pytheas::version::git),
        help("build in a clone of the repository, or give the version with `--release-version`")
    )]
    Git {
        /// The folder.
        dir: PathBuf,
        /// Its words.
        said: String,
    },
    /// No tag before this commit.
    #[error("no tag `{pattern}` leads to the commit that `{}` is at", dir.display())]
    #[diagnostic(
        code(pytheas::version::no_tag),
        help(
            "tag a commit, e.g. `git tag {example}`; name other tags with `tag = \"release-*\"`; or give the version with `--release-version`"
        )
    )]
    NoTag {
        /// The folder.
        dir: PathBuf,
        /// The pattern.
        pattern: String,
        /// A tag that fits.
        example: String,
    },
    /// The clone lacks the history with the tag.
    #[error("`{}` is a shallow clone without a tag `{pattern}`", dir.display())]
    #[diagnostic(
        code(pytheas::version::shallow),
        help(
            "fetch the history with `git fetch --unshallow --tags` (in CI: `fetch-depth: 0`), or give the version with `--release-version`"
        )
    )]
    Shallow {
        /// The folder.
        dir: PathBuf,
        /// The pattern.
        pattern: String,
    },
    /// A text that is no version.
    #[error("`{text}` in {place} is no version")]
    #[diagnostic(
        code(pytheas::version::text),
        help("versions are written as PEP 440 says: `1.2.3`, `2.0rc1`")
    )]
    Text {
        /// The text.
        text: String,
        /// Where it stands.
        place: String,
    },
    /// The file cannot be read.
    #[error("cannot read the version from `{}`", path.display())]
    #[diagnostic(
        code(pytheas::version::read),
        help("the path is relative to the project's folder")
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Nothing is assigned.
    #[error("{place} assigns no text to `{name}`")]
    #[diagnostic(
        code(pytheas::version::no_attr),
        help("the module is read and not run: write `{name} = \"1.2.3\"` at its top level")
    )]
    NoAttr {
        /// The name.
        name: String,
        /// Where it was looked for.
        place: String,
    },
}

/// The version that `[tool.pytheas]` names a source for; none when it names none.
///
/// # Errors
/// When it is not there; see [`VersionError`].
pub fn resolve(
    project: &Project,
    environment: &Environment,
) -> Result<Option<Version>, VersionError> {
    let Some(spec) = &project.settings.version else {
        return Ok(None);
    };
    let dir = &project.dir;
    let (found, place) = match source(spec)? {
        Source::Git(pattern) => (git(dir, pattern, environment)?, "the git tag".to_owned()),
        Source::File(file) => {
            let path = inside(dir, file)?;
            let text = read(&path)?;
            let place = format!("`{file}`");
            let text = match assigned(&text, "__version__") {
                Some(text) => text,
                None if file.ends_with(".py") => {
                    let name = "__version__".to_owned();
                    return Err(VersionError::NoAttr { name, place });
                }
                None => text.trim().trim_start_matches('\u{feff}').to_owned(),
            };
            (parse(&text, &place)?, place)
        }
        Source::Attr(attr) => {
            let (module, name) = attr.rsplit_once('.').unwrap_or(("", attr));
            let place = format!("the module `{module}`");
            let path = module_file(dir, module).ok_or_else(|| VersionError::Setting {
                reason: format!("there is no module `{module}`, here or below `src`"),
            })?;
            let text = assigned(&read(&path)?, name).ok_or_else(|| VersionError::NoAttr {
                name: name.to_owned(),
                place: format!("`{}`", path.strip_prefix(dir).unwrap_or(&path).display()),
            })?;
            (parse(&text, &place)?, place)
        }
    };
    let text = found.to_string();
    let version = text
        .parse()
        .map_err(|_| VersionError::Text { text, place })?;
    Ok(Some(version))
}

enum Source<'a> {
    Git(&'a str),
    File(&'a str),
    Attr(&'a str),
}

fn source(spec: &VersionSpec) -> Result<Source<'_>, VersionError> {
    let wrong = |reason: &str| VersionError::Setting {
        reason: reason.to_owned(),
    };
    let source = match (spec.from, &spec.file, &spec.attr) {
        (Some(VersionFrom::Git), None, None) => {
            let pattern = spec.tag.as_deref().unwrap_or("v*");
            if pattern.matches('*').count() != 1 || pattern.starts_with('-') {
                return Err(wrong("`tag` needs one `*` where the version stands"));
            }
            return Ok(Source::Git(pattern));
        }
        (Some(VersionFrom::File) | None, Some(file), None) => Source::File(file),
        (Some(VersionFrom::Attr) | None, None, Some(attr)) => Source::Attr(attr),
        (Some(VersionFrom::File), None, None) => return Err(wrong("`file` is missing")),
        (Some(VersionFrom::Attr), None, None) => return Err(wrong("`attr` is missing")),
        _ => return Err(wrong("it names no source, or several")),
    };
    match spec.tag {
        Some(_) => Err(wrong("`tag` is for `from = \"git\"` only")),
        None => Ok(source),
    }
}

/// A file of the project by its relative path.
fn inside(dir: &Path, file: &str) -> Result<PathBuf, VersionError> {
    let path: RelPath = file.parse().map_err(|_| VersionError::Setting {
        reason: format!("`{file}` is no path below the project's folder"),
    })?;
    Ok(path.under(dir))
}

fn read(path: &Path) -> Result<String, VersionError> {
    std::fs::read_to_string(path).map_err(|source| VersionError::Read {
        path: path.to_owned(),
        source,
    })
}

fn parse(text: &str, place: &str) -> Result<Pep440, VersionError> {
    Pep440::from_str(text.trim()).map_err(|_| VersionError::Text {
        text: text.chars().take(80).collect(),
        place: place.to_owned(),
    })
}

/// The file of a module of the project, also below `src`.
fn module_file(dir: &Path, module: &str) -> Option<PathBuf> {
    let parts: Vec<&str> = module.split('.').collect();
    let is_name = |part: &&str| part.chars().all(|c| c.is_alphanumeric() || c == '_');
    if parts.iter().any(|part| part.is_empty() || !is_name(part)) {
        return None;
    }
    let path = parts.join("/");
    ["", "src/"]
        .iter()
        .flat_map(|root| {
            [
                dir.join(format!("{root}{path}.py")),
                dir.join(format!("{root}{path}/__init__.py")),
            ]
        })
        .find(|file| file.is_file())
}

/// The text that a module assigns to `name` at its top level, on one line.
fn assigned(module: &str, name: &str) -> Option<String> {
    let literal = |line: &str| {
        let rest = line.strip_prefix(name)?.trim_start();
        let rest = match rest.strip_prefix(':') {
            Some(annotated) => annotated.split_once('=')?.1,
            None => rest
                .strip_prefix('=')
                .filter(|rest| !rest.starts_with('='))?,
        };
        let rest = rest.trim_start();
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (text, _) = rest[1..].split_once(quote)?;
        Some(text.to_owned())
    };
    module.lines().filter_map(literal).next_back()
}

/// The version by the nearest tag that fits `pattern`.
fn git(dir: &Path, pattern: &str, environment: &Environment) -> Result<Pep440, VersionError> {
    let git = Git { dir, environment };
    git.run(&["rev-parse", "--verify", "HEAD^{commit}"])?;
    let (before, after) = pattern.split_once('*').unwrap_or((pattern, ""));
    let version_of = |tag: &str| {
        let text = tag.strip_prefix(before)?.strip_suffix(after)?;
        Pep440::from_str(text).ok()
    };
    let mut describe: Vec<String> = ["describe", "--tags", "--long", "--abbrev=40", "--match"]
        .map(str::to_owned)
        .into();
    describe.push(pattern.to_owned());
    let mut other: Option<String> = None;
    let (described, tag) = loop {
        let args: Vec<&str> = describe.iter().map(String::as_str).collect();
        let Ok(described) = git.run(&args) else {
            let dir = dir.to_owned();
            let pattern = pattern.to_owned();
            return Err(
                match git.run(&["rev-parse", "--is-shallow-repository"])?.as_str() {
                    "true" => VersionError::Shallow { dir, pattern },
                    _ => match other {
                        Some(text) => VersionError::Text {
                            text,
                            place: "the git tag".to_owned(),
                        },
                        None => VersionError::NoTag {
                            dir,
                            example: pattern.replace('*', "0.1.0"),
                            pattern,
                        },
                    },
                },
            );
        };
        // TAG-COMMITS-gHASH; a tag may have dashes itself.
        let tag = described.rsplitn(3, '-').nth(2).unwrap_or_default();
        let tag = tag.to_owned();
        if version_of(&tag).is_some() || describe.len() > 200 {
            break (described, tag);
        }
        // `vendor-drop` fits `v*`, too, and is no version: the tag before it counts.
        describe.push(format!("--exclude={}", literal(&tag)));
        other.get_or_insert(tag);
    };
    let mut parts = described.rsplitn(3, '-');
    let (Some(hash), Some(Ok(count))) = (parts.next(), parts.next().map(str::parse::<u64>)) else {
        return Err(git.error(format!("`{described}` is no answer of `git describe`")));
    };
    let tag = tag.as_str();
    // Of several tags on one commit, the highest version.
    let tags = git.run(&[
        "tag",
        "--list",
        pattern,
        "--points-at",
        &format!("{tag}^{{}}"),
    ])?;
    let tagged = tags.lines().chain([tag]).filter_map(version_of).max();
    let tagged = tagged.ok_or_else(|| VersionError::Text {
        text: tag.to_owned(),
        place: "the git tag".to_owned(),
    })?;
    let is_dirty = !git
        .run(&["status", "--porcelain", "--untracked-files=no"])?
        .is_empty();
    if count == 0 && !is_dirty {
        return Ok(tagged);
    }
    let mut local = vec![LocalSegment::String(hash.chars().take(13).collect())];
    if is_dirty {
        let day = git.run(&[
            "show",
            "-s",
            "--format=%cd",
            "--date=format-local:%Y%m%d",
            "HEAD",
        ])?;
        local.push(LocalSegment::String(format!("d{day}")));
    }
    Ok(next(&tagged, count).with_local(local))
}

/// A pattern of git that fits `tag` only.
fn literal(tag: &str) -> String {
    let special = |c: char| matches!(c, '*' | '?' | '[' | ']' | '\\');
    let mut pattern = String::new();
    for c in tag.chars() {
        if special(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

/// A version after `tagged` and before whatever may be tagged next.
fn next(tagged: &Pep440, commits: u64) -> Pep440 {
    let plain = tagged.clone().without_local();
    if let Some(dev) = plain.dev() {
        return plain.with_dev(Some(dev.saturating_add(commits)));
    }
    let dev = Some(commits);
    if let Some(post) = plain.post() {
        return plain.with_post(Some(post.saturating_add(1))).with_dev(dev);
    }
    if let Some(mut pre) = plain.pre() {
        pre.number = pre.number.saturating_add(1);
        return plain.with_pre(Some(pre)).with_dev(dev);
    }
    let mut release: Vec<u64> = plain.release().to_vec();
    if let Some(last) = release.last_mut() {
        *last = last.saturating_add(1);
    }
    plain.with_release(release).with_dev(dev)
}

struct Git<'a> {
    dir: &'a Path,
    environment: &'a Environment,
}

impl Git<'_> {
    /// What git says to it, without the final newline.
    fn run(&self, args: &[&str]) -> Result<String, VersionError> {
        let mut command = self.environment.command(Path::new("git"));
        // Nothing of a surrounding git (hooks), nothing that the repository wants to be run.
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
            command.env_remove(name);
        }
        let output = command
            .arg("-C")
            .arg(self.dir)
            .args(["-c", "core.fsmonitor=false", "--no-optional-locks"])
            // What people set for their own eyes.
            .args(["-c", "log.showSignature=false", "-c", "column.ui=never"])
            .args(["-c", "color.ui=never"])
            .args(args)
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .stdin(std::process::Stdio::null())
            .output()
            .map_err(|_| VersionError::NoGit)?;
        if output.status.success() {
            let text = String::from_utf8_lossy(&output.stdout);
            return Ok(text.trim_end().to_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().find(|line| !line.trim().is_empty());
        Err(self.error(line.unwrap_or("nothing").to_owned()))
    }

    fn error(&self, said: String) -> VersionError {
        VersionError::Git {
            dir: self.dir.to_owned(),
            said,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    /// A project whose `version` is as given, in a fresh repository unless `git` is not wanted.
    struct Repository(tempfile::TempDir);

    impl Repository {
        fn new(version: &str) -> Self {
            let repository = Self(tempfile::tempdir().unwrap());
            repository.write(
                "pyproject.toml",
                &format!("[project]\nname = 'demo'\ndynamic = ['version']\n[tool.pytheas]\nversion = {version}\n"),
            );
            repository
        }

        fn write(&self, name: &str, text: &str) {
            let path = self.0.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            pytheas_durable::replace(&path, text.as_bytes()).unwrap();
        }

        fn git(&self, args: &[&str]) {
            let output = Command::new("git")
                .arg("-C")
                .arg(self.0.path())
                .args([
                    "-c",
                    "user.name=n",
                    "-c",
                    "user.email=e@example",
                    "-c",
                    "init.defaultBranch=main",
                ])
                .args(args)
                .env("GIT_COMMITTER_DATE", "2024-02-29T23:30:00-0500")
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
        }

        fn commit(&self) {
            self.git(&["add", "-A"]);
            self.git(&["commit", "-q", "--allow-empty", "-m", "x"]);
        }

        fn version(&self) -> Result<String, String> {
            let project = Project::load(self.0.path()).unwrap();
            resolve(&project, &Environment::current())
                .map(|version| version.unwrap().to_string())
                .map_err(|error| {
                    let dir = project.dir.display().to_string();
                    error.to_string().replace(&dir, "DIR")
                })
        }
    }

    #[test]
    fn the_tag_is_the_version_and_later_commits_are_development() {
        let repository = Repository::new("{ from = 'git' }");
        insta::assert_snapshot!(repository.version().unwrap_err(), @"the version comes from the git tag, but git says of `DIR`: fatal: not a git repository (or any of the parent directories): .git");
        repository.git(&["init", "-q"]);
        repository.commit();
        insta::assert_snapshot!(repository.version().unwrap_err(), @"no tag `v*` leads to the commit that `DIR` is at");
        repository.git(&["tag", "other-9"]);
        repository.git(&["tag", "v1.2.3rc1"]);
        repository.git(&["tag", "v1.2.3"]);
        assert_eq!(repository.version().unwrap(), "1.2.3");
        repository.write("new.txt", "untracked files do not count");
        assert_eq!(repository.version().unwrap(), "1.2.3");
        repository.commit();
        let later = repository.version().unwrap();
        assert!(later.starts_with("1.2.4.dev1+g"), "{later}");
        assert_eq!(later.len(), "1.2.4.dev1+g".len() + 12);
        repository.write("new.txt", "changed");
        let dirty = repository.version().unwrap();
        assert_eq!(dirty, format!("{later}.d20240301"));
    }

    #[test]
    fn tags_that_fit_and_are_no_version_are_passed_over() {
        let repository = Repository::new("{ from = 'git' }");
        repository.git(&["init", "-q"]);
        repository.commit();
        repository.git(&["tag", "vendor-drop"]);
        insta::assert_snapshot!(repository.version().unwrap_err(), @"`vendor-drop` in the git tag is no version");
        repository.git(&["tag", "v1.0"]);
        repository.commit();
        repository.git(&["tag", "v-odd-2"]);
        repository.git(&["tag", "vendor-drop-2"]);
        let later = repository.version().unwrap();
        assert!(later.starts_with("1.1.dev1+g"), "{later}");
    }

    #[test]
    fn what_people_set_for_their_own_eyes_changes_nothing() {
        let repository = Repository::new("{ from = 'git' }");
        repository.git(&["init", "-q"]);
        repository.commit();
        for tag in ["v1.0", "v1.0.post1", "v1.0rc1"] {
            repository.git(&["tag", tag]);
        }
        repository.git(&["config", "column.ui", "always"]);
        repository.git(&["config", "color.ui", "always"]);
        repository.git(&["config", "log.showSignature", "true"]);
        assert_eq!(repository.version().unwrap(), "1.0.post1");
    }

    #[test]
    fn a_worktree_a_submodule_and_a_detached_head_have_the_version_of_their_tag() {
        let repository = Repository::new("{ from = 'git' }");
        repository.git(&["init", "-q"]);
        repository.commit();
        repository.git(&["tag", "v3.1"]);
        let elsewhere = tempfile::tempdir().unwrap();
        let worktree = elsewhere.path().join("worktree");
        repository.git(&[
            "worktree",
            "add",
            "-q",
            "--detach",
            worktree.to_str().unwrap(),
        ]);
        let outer = Repository::new("{ from = 'git' }");
        outer.git(&["init", "-q"]);
        let from = repository.0.path().to_str().unwrap();
        outer.git(&[
            "-c",
            "protocol.file.allow=always",
            "submodule",
            "--quiet",
            "add",
            from,
            "inner",
        ]);
        outer.commit();
        outer.git(&["tag", "v9"]);
        let inner = outer.0.path().join("inner");
        for dir in [&worktree, &inner] {
            let project = Project::load(dir).unwrap();
            let version = resolve(&project, &Environment::current()).unwrap();
            assert_eq!(version.unwrap().to_string(), "3.1", "{}", dir.display());
        }
    }

    #[test]
    fn a_shallow_clone_without_its_tag_is_said() {
        let repository = Repository::new("{ from = 'git', tag = 'release-*' }");
        repository.git(&["init", "-q"]);
        repository.commit();
        repository.git(&["tag", "release-2.0"]);
        repository.commit();
        let clone = tempfile::tempdir().unwrap();
        let to = clone.path().join("shallow");
        let from = format!("file://{}", repository.0.path().display());
        repository.git(&["clone", "-q", "--depth=1", &from, to.to_str().unwrap()]);
        let project = Project::load(&to).unwrap();
        let error = resolve(&project, &Environment::current()).unwrap_err();
        assert!(matches!(error, VersionError::Shallow { .. }), "{error}");
        let no_git = Environment::current().with("PATH", "/nowhere");
        let error = resolve(&project, &no_git).unwrap_err();
        assert!(matches!(error, VersionError::NoGit), "{error}");
    }

    #[test]
    fn files_and_attributes_are_read() {
        let file = Repository::new("{ file = 'VERSION' }");
        insta::assert_snapshot!(file.version().unwrap_err(), @"cannot read the version from `DIR/VERSION`");
        file.write("VERSION", "1.0-rc1\n");
        assert_eq!(file.version().unwrap(), "1.0rc1");
        file.write("VERSION", "one\n");
        insta::assert_snapshot!(file.version().unwrap_err(), @"`one` in `VERSION` is no version");
        let attr = Repository::new("{ attr = 'demo.about.VERSION' }");
        attr.write(
            "src/demo/about.py",
            "VERSIONS = 1\nVERSION: str = '3.1'  # here\n",
        );
        assert_eq!(attr.version().unwrap(), "3.1");
        attr.write("src/demo/about.py", "VERSION = compute()\n");
        insta::assert_snapshot!(attr.version().unwrap_err(), @"`src/demo/about.py` assigns no text to `VERSION`");
        let both = Repository::new("{ from = 'git', file = 'VERSION' }");
        insta::assert_snapshot!(both.version().unwrap_err(), @"`version` in `[tool.pytheas]`: it names no source, or several");
    }

    proptest! {
        #[test]
        fn a_development_version_lies_between_the_tags(
            text in "([1-9]!)?[0-9]{1,2}(\\.[0-9]{1,2}){0,3}((a|b|rc)[0-9])?(\\.post[0-9])?(\\.dev[0-9])?",
            commits in 1_u64..500,
        ) {
            let tagged: Pep440 = text.parse().unwrap();
            let local = vec![LocalSegment::String("gabc".to_owned())];
            let version = next(&tagged, commits).with_local(local);
            prop_assert!(version > tagged, "{version} > {tagged}");
            prop_assert!(next(&tagged, commits + 1) > version);
            // The next tag of its kind is later still.
            let finished = next(&tagged, commits).with_dev(None);
            prop_assert!(finished > version, "{finished} > {version}");
        }
    }
}
