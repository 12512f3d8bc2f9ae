//! What every command is handed: how to print, and how to show progress.

use std::{
    io::{self, IsTerminal, Write},
    sync::Arc,
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use owo_colors::OwoColorize;

use crate::output::{Color, Paint, Show, harmless, harmless_json};

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
        let color = self.color.on_stdout();
        let text = if self.json {
            serde_json::to_string_pretty(value)
                .map(|text| harmless_json(text) + "\n")
                .map_err(io::Error::from)
        } else {
            let mut text = Vec::new();
            value
                .text(&mut Paint::new(&mut text, color))
                .map(|()| harmless(&String::from_utf8_lossy(&text), color).into_owned())
        };
        let mut out = io::stdout().lock();
        let written = text.and_then(|text| out.write_all(text.as_bytes()));
        match written.and_then(|()| out.flush()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            other => other.map_err(|error| miette::miette!("cannot write the result: {error}")),
        }
    }

    /// Prints a remark to standard error.
    pub(crate) fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            let _closed_pipe = writeln!(io::stderr(), "{}", self.safe(text));
        }
    }

    /// `text` as standard error may have it.
    fn safe(&self, text: impl std::fmt::Display) -> String {
        harmless(&text.to_string(), self.color.on_stderr()).into_owned()
    }

    /// Prints a warning to standard error.
    pub(crate) fn warn(&self, text: impl std::fmt::Display) {
        let word = if self.color.on_stderr() {
            "warning:".yellow().bold().to_string()
        } else {
            "warning:".to_owned()
        };
        let _closed_pipe = writeln!(io::stderr(), "{word} {}", self.safe(text));
    }

    /// Prints an error to standard error.
    pub(crate) fn report(&self, error: &dyn miette::Diagnostic) {
        let text = crate::report::render(error, self.color.on_stderr());
        let _closed_pipe = write!(io::stderr(), "{}", self.safe(text));
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

/// What a progress line may show.
fn shown(text: &str) -> String {
    harmless(text, false).into_owned()
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
        let text = shown(&text.into());
        if self.plain {
            let _closed_pipe = writeln!(io::stderr(), "{text}");
        }
        self.bar.0.set_style(spinner());
        self.bar.0.set_message(text);
    }

    /// What a step is at: shown on terminals only.
    pub(crate) fn detail(&self, text: impl Into<String>) {
        self.bar.0.set_message(shown(&text.into()));
    }

    /// The phase `number` of `total` begins.
    pub(crate) fn phase(&self, number: usize, total: usize, text: &str) {
        let text = shown(text);
        if self.plain {
            let _closed_pipe = writeln!(io::stderr(), "[{number}/{total}] {text}");
        }
        self.bar.0.set_style(phases());
        self.bar.0.set_length(total as u64);
        self.bar.0.set_position(number as u64);
        self.bar.0.set_message(text);
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
        let text = shown(text);
        self.bar.0.suspend(|| {
            let _closed_pipe = writeln!(io::stderr(), "{text}");
        });
    }
}
