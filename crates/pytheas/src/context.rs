//! What every command is handed: how to print, and how to show progress.

use std::{
    io::{self, IsTerminal, Write},
    sync::Arc,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use owo_colors::OwoColorize;

use crate::output::{Color, Paint, Show};

/// Settings that hold for every command.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    /// Print JSON instead of text.
    pub json: bool,
    /// Print results and errors only.
    pub quiet: bool,
    /// When to use colour.
    pub color: Color,
    /// Without a terminal, tell each step in a line of its own.
    pub steps: bool,
}

impl Context {
    /// Prints a command's result to standard output.
    ///
    /// # Errors
    /// When standard output cannot be written; a closed pipe is no error.
    pub(crate) fn show(&self, value: &impl Show) -> miette::Result<()> {
        let mut out = io::stdout().lock();
        let written = if self.json {
            serde_json::to_writer_pretty(&mut out, value)
                .map_err(io::Error::from)
                .and_then(|()| writeln!(out))
        } else {
            value.text(&mut Paint::new(&mut out, self.color.on_stdout()))
        };
        match written.and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|error| miette::miette!("cannot write the result: {error}")),
        }
    }

    /// Prints a remark to standard error.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            let _closed_pipe = writeln!(io::stderr(), "{text}");
        }
    }

    /// Prints a warning to standard error.
    pub(crate) fn warn(&self, text: impl std::fmt::Display) {
        let word = if self.color.on_stderr() {
            "warning:".yellow().bold().to_string()
        } else {
            "warning:".to_owned()
        };
        let _closed_pipe = writeln!(io::stderr(), "{word} {text}");
    }

    /// Prints an error to standard error.
    pub(crate) fn report(&self, error: &dyn miette::Diagnostic) {
        let text = crate::report::render(error, self.color.on_stderr());
        let _closed_pipe = write!(io::stderr(), "{text}");
    }

    /// A progress line on standard error; invisible when that is no terminal.
    pub(crate) fn progress(&self) -> Progress {
        let visible = io::stderr().is_terminal() && !self.quiet && !self.json;
        let target = if visible {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        bar.set_style(spinner());
        bar.enable_steady_tick(Duration::from_millis(120));
        Progress {
            bar: Arc::new(Finish(bar)),
            plain: self.steps && !visible && !self.quiet && !self.json,
        }
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn phases() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {bar:12} {pos}/{len} {msg} {elapsed:.dim}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// A progress line; disappears when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Progress {
    bar: Arc<Finish>,
    /// Steps are lines on standard error when there is no terminal to draw on.
    plain: bool,
}

struct Finish(ProgressBar);

impl Drop for Finish {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

impl Progress {
    /// A new step begins.
    pub(crate) fn step(&self, text: impl Into<String>) {
        let text = text.into();
        if self.plain {
            let _closed_pipe = writeln!(io::stderr(), "{text}");
        }
        self.bar.0.set_style(spinner());
        self.bar.0.set_message(text);
    }

    /// What a step is at: shown on terminals only.
    pub(crate) fn detail(&self, text: impl Into<String>) {
        self.bar.0.set_message(text.into());
    }

    /// The phase `number` of `total` begins.
    pub(crate) fn phase(&self, number: usize, total: usize, text: &str) {
        if self.plain {
            let _closed_pipe = writeln!(io::stderr(), "[{number}/{total}] {text}");
        }
        self.bar.0.set_style(phases());
        self.bar.0.set_length(total as u64);
        self.bar.0.set_position(number as u64);
        self.bar.0.set_message(text.to_owned());
    }

    /// Runs `write`, which prints, without the progress line in its way.
    pub(crate) fn suspend(&self, write: impl FnOnce()) {
        self.bar.0.suspend(write);
    }

    /// So many things of so many are done.
    pub(crate) fn count(&self, what: &str, done: usize, total: usize) {
        self.bar.0.set_style(spinner());
        self.bar.0.set_message(format!("{what} {done}/{total}"));
    }

    /// A remark that stays.
    pub(crate) fn note(&self, text: &str) {
        self.bar.0.suspend(|| {
            let _closed_pipe = writeln!(io::stderr(), "{text}");
        });
    }
}
