//! The lock and the interpreter of a build, side by side where neither waits for the other, and
//! what can be done of the packages before the interpreter is there.

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use pytheas_project::{
    PYLOCK_FILE, Pylock, PythonRequest, Uv,
    lock::{self, LockError, LockOptions, LockReport, LockStatus},
};
use pytheas_release::Platform;

use crate::{
    build::{BuildRequest, LockMode},
    bytecode::kept::Ahead,
    error::{BuildError, io_error},
    event::{Event, Observer, Phase},
    install::Installer,
    interpreter::{self, Foreseen, Interpreter, InterpreterError, Wanted},
};

/// A lock that a build goes by.
pub(crate) struct Lock {
    pub(crate) content: Pylock,
    pub(crate) path: PathBuf,
    /// What locking did; none when the lock file held.
    pub(crate) report: Option<LockReport>,
    /// Keeps a lock file that could not be written into the project.
    _scratch: Option<tempfile::TempDir>,
}

/// What a build goes by.
pub(crate) struct Decided {
    pub(crate) interpreter: Interpreter,
    pub(crate) lock: Lock,
    /// Byte code of packages that was made meanwhile.
    pub(crate) ahead: Ahead,
}

/// The interpreter and the lock; `compiles` tells whether the packages will be wanted as byte code.
/// The lock comes first when it holds, since it limits the Pythons;
/// else the interpreter, since it says for which Pythons to lock when the project does not.
pub(crate) fn lock_and_interpreter(
    request: &BuildRequest,
    python: Option<&PythonRequest>,
    platform: &Platform,
    uv: &Uv,
    compiles: bool,
    observer: Observer<'_>,
) -> Result<Decided, BuildError> {
    let project = &request.project;
    let path = project.lock_path();
    observer(Event::Phase(Phase::Lock));
    let usable = match (lock::status(project)?, request.lock) {
        (LockStatus::Current(content), _) | (LockStatus::Foreign(content), LockMode::Frozen) => {
            Some(content)
        }
        (LockStatus::Missing, LockMode::Locked | LockMode::Frozen) => {
            return Err(LockError::Missing { path }.into());
        }
        (LockStatus::Foreign(_), LockMode::Locked) => {
            return Err(LockError::Foreign { path }.into());
        }
        (LockStatus::Stale(changes), LockMode::Locked) => {
            return Err(LockError::Stale { path, changes }.into());
        }
        (LockStatus::Stale(_), LockMode::Frozen) => read_lock(&path)?,
        (_, LockMode::Update) => None,
    };
    let wanted = Wanted {
        python,
        locked: project.requires_python.as_ref(),
        platform,
        choice: &request.interpreter,
        mirror: request
            .python_mirror
            .as_deref()
            .or_else(|| request.environment.get("PYTHEAS_PYTHON_MIRROR"))
            .or(project.settings.python_mirror.as_deref()),
        connectivity: request.connectivity,
        environment: &request.environment,
        observer,
        foreseen: &|_| {},
    };
    observer(Event::Phase(Phase::Interpreter));
    if let Some(content) = usable {
        let locked = content
            .requires_python
            .as_deref()
            .and_then(|text| text.parse().ok());
        let result = interpreter::provide(&Wanted {
            locked: locked.as_ref(),
            ..wanted
        });
        match result {
            // The lock was made for the Python that was found then, not for one that the project
            // says; now another is wanted.
            Err(InterpreterError::None { .. } | InterpreterError::Version { .. })
                if request.lock == LockMode::Update && project.python(None).is_none() => {}
            result => {
                let lock = Lock {
                    content,
                    path,
                    report: None,
                    _scratch: None,
                };
                return Ok(Decided {
                    interpreter: result?,
                    lock,
                    ahead: Ahead::default(),
                });
            }
        }
    }
    side_by_side(
        &wanted,
        |python| lock_for(request, python, uv, observer),
        |foreseen, lock| match &foreseen.interpreter {
            Some(interpreter) if compiles => crate::ahead::packages(
                &Installer {
                    interpreter,
                    platform,
                    uv,
                    connectivity: request.connectivity,
                    environment: &request.environment,
                    observer: &|_| {},
                },
                &lock.content,
                &lock.path,
            ),
            _ => Ahead::default(),
        },
    )
}

/// What the thread that makes the interpreter says.
enum News {
    Event(Event),
    Foreseen(Foreseen),
    Done(Box<Result<Interpreter, InterpreterError>>),
}

/// Makes the interpreter, and runs `lock` and then `ahead` as soon as it is known which one it will
/// be: copying and compiling it takes about as long as resolving.
fn side_by_side(
    wanted: &Wanted<'_>,
    lock: impl Fn(&Foreseen) -> Result<Lock, BuildError>,
    ahead: impl Fn(&Foreseen, &Lock) -> Ahead,
) -> Result<Decided, BuildError> {
    let (sender, news) = mpsc::channel();
    // All but the observer, which belongs to this thread.
    let Wanted {
        python,
        locked,
        platform,
        choice,
        mirror,
        connectivity,
        environment,
        observer,
        foreseen: _,
    } = *wanted;
    thread::scope(|scope| {
        scope.spawn(move || {
            let result = interpreter::provide(&Wanted {
                python,
                locked,
                platform,
                choice,
                mirror,
                connectivity,
                environment,
                observer: &|event| drop(sender.send(News::Event(event))),
                foreseen: &|foreseen| drop(sender.send(News::Foreseen(foreseen))),
            });
            drop(sender.send(News::Done(Box::new(result))));
        });
        let mut early = None;
        for told in news {
            match told {
                News::Event(event) => observer(event),
                News::Foreseen(foreseen) => {
                    let lock = lock(&foreseen)?;
                    let ahead = ahead(&foreseen, &lock);
                    early = Some((foreseen.version.clone(), lock, ahead));
                }
                News::Done(result) => {
                    let interpreter = (*result)?;
                    let (lock, ahead) = match early {
                        Some((version, lock, ahead)) if version == interpreter.version => {
                            (lock, ahead)
                        }
                        _ => {
                            let found = Foreseen {
                                version: interpreter.version.clone(),
                                python: interpreter.tool(),
                                interpreter: None,
                            };
                            (lock(&found)?, Ahead::default())
                        }
                    };
                    return Ok(Decided {
                        interpreter,
                        lock,
                        ahead,
                    });
                }
            }
        }
        Err(io_error("prepare an interpreter in", &wanted.cache())(
            std::io::Error::other("the thread that does it ended"),
        ))
    })
}

/// Locks the project for `python`, into a scratch folder when the project's cannot be written.
fn lock_for(
    request: &BuildRequest,
    python: &Foreseen,
    uv: &Uv,
    observer: Observer<'_>,
) -> Result<Lock, BuildError> {
    let project = &request.project;
    let short: Vec<&str> = python.version.splitn(3, '.').take(2).collect();
    let options = LockOptions {
        python_version: Some(short.join(".")),
        interpreter: python.python.clone(),
        ..LockOptions::default()
    };
    let tell = |event| observer(Event::Project(event));
    let is_writable = rustix::fs::access(&project.dir, rustix::fs::Access::WRITE_OK).is_ok();
    let (report, scratch) = if is_writable {
        (lock::lock(project, uv, &options, &tell)?, None)
    } else {
        let scratch =
            tempfile::tempdir().map_err(io_error("make a folder in", &std::env::temp_dir()))?;
        let path = scratch.path().join(PYLOCK_FILE);
        let report = lock::lock_into(project, &path, uv, &options, &tell)?;
        observer(Event::Warning {
            text: format!(
                "`{}` cannot be written; this build's lock is not kept",
                project.lock_path().display()
            ),
        });
        (report, Some(scratch))
    };
    let content = read_lock(&report.path)?.ok_or_else(|| LockError::Missing {
        path: report.path.clone(),
    })?;
    Ok(Lock {
        content,
        path: report.path.clone(),
        report: Some(report),
        _scratch: scratch,
    })
}

fn read_lock(path: &Path) -> Result<Option<Pylock>, LockError> {
    Ok(Pylock::read(path)?)
}
