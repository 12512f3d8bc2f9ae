//! What a device's report means: where the action stands after it, and which lines are kept.

use pytheas_api::{
    ActionStatus,
    ddi::{Execution, Feedback, Finished, Progress as Step},
};

use super::Base;
use crate::secret::{self, Hash};

/// Lines kept of one report, characters of one line, and bytes of all: with the limit of reports
/// per action, what a device that went wild can make the hub store.
const LINES_MAX: usize = 200;
const LINE_CHARS_MAX: usize = 2000;
const BYTES_MAX: usize = 32 << 10;

/// What a report means apart from its time: a repeat may carry a new one.
pub(super) fn digest(base: Base, feedback: &Feedback) -> Hash {
    let status = serde_json::to_string(&feedback.status).unwrap_or_default();
    secret::hash(&format!("{base:?} {status}"))
}

/// Where the action stands after a report on its assignment.
pub(super) fn after_deployment_report(status: ActionStatus, feedback: &Feedback) -> ActionStatus {
    use ActionStatus as S;
    match (feedback.status.execution, feedback.status.result.finished) {
        (Execution::Closed, Finished::Failure) => S::Failed,
        (Execution::Closed, Finished::Success | Finished::None) => S::Succeeded,
        // While it is taken back, only its end counts.
        _ if status == S::Cancelling => S::Cancelling,
        (Execution::Download | Execution::Downloaded, _) => S::Downloading,
        (Execution::Proceeding, _) => match feedback.status.code.and_then(Step::from_code) {
            Some(Step::Downloading) => S::Downloading,
            Some(Step::Probation) => S::Probation,
            Some(Step::Staged | Step::Switched) | None => S::Installing,
        },
        (
            Execution::Scheduled | Execution::Resumed | Execution::Rejected | Execution::Canceled,
            _,
        ) => {
            if status == S::Pending {
                S::Retrieved
            } else {
                status
            }
        }
    }
}

/// Where the action stands after a report on its cancellation.
pub(super) fn after_cancel_report(feedback: &Feedback) -> ActionStatus {
    match (feedback.status.execution, feedback.status.result.finished) {
        (Execution::Closed, Finished::Success | Finished::None) => ActionStatus::Cancelled,
        // The device refuses: it is past the point, and goes on.
        (Execution::Closed, Finished::Failure) | (Execution::Rejected, _) => {
            ActionStatus::Installing
        }
        _ => ActionStatus::Cancelling,
    }
}

/// `details` as lines, bounded.
fn bounded(details: &[String]) -> Vec<String> {
    let mut bytes = 0;
    details
        .iter()
        .flat_map(|text| text.split('\n')) // a traceback may come in one piece
        .take(LINES_MAX)
        .map(|line| -> String {
            line.chars()
                .filter(|c| !c.is_control() || *c == '\t')
                .take(LINE_CHARS_MAX)
                .collect()
        })
        .take_while(|line| {
            bytes += line.len();
            bytes <= BYTES_MAX
        })
        .collect()
}

/// What was said at the device beside a word.
pub(super) fn said(word: &str, details: &[String]) -> Vec<String> {
    let mut lines = bounded(details);
    match lines.first_mut().filter(|line| !line.is_empty()) {
        Some(first) => *first = format!("{word}: {first}"),
        None => lines = vec![word.to_owned()],
    }
    lines
}

/// The report's lines, bounded; never empty, the first one short enough for a table.
pub(super) fn lines(feedback: &Feedback, status: ActionStatus) -> Vec<String> {
    let mut lines = bounded(&feedback.status.details);
    if lines.iter().all(String::is_empty) {
        lines = vec![match status {
            ActionStatus::Failed => "the device gave no reason".to_owned(),
            status => status.as_str().to_owned(),
        }];
    }
    if let Some(steps) = feedback.status.result.progress.filter(|steps| steps.of > 0) {
        lines[0].push_str(&format!(" ({} of {})", steps.cnt, steps.of));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(status: ActionStatus, execution: Execution, finished: Finished) -> ActionStatus {
        after_deployment_report(status, &Feedback::new(execution, finished))
    }

    #[test]
    fn reports_move_an_action_as_ddi_says() {
        use ActionStatus as S;
        let open = S::Retrieved;
        assert_eq!(
            after(open, Execution::Closed, Finished::Success),
            S::Succeeded
        );
        assert_eq!(after(open, Execution::Closed, Finished::None), S::Succeeded);
        assert_eq!(after(open, Execution::Closed, Finished::Failure), S::Failed);
        assert_eq!(
            after(open, Execution::Proceeding, Finished::None),
            S::Installing
        );
        assert_eq!(
            after(open, Execution::Downloaded, Finished::None),
            S::Downloading
        );
        assert_eq!(
            after(open, Execution::Rejected, Finished::None),
            S::Retrieved
        );
        assert_eq!(
            after(open, Execution::Canceled, Finished::None),
            S::Retrieved
        );
        assert_eq!(
            after(S::Cancelling, Execution::Proceeding, Finished::None),
            S::Cancelling
        );
        assert_eq!(
            after(S::Cancelling, Execution::Closed, Finished::Success),
            S::Succeeded
        );
        let probation = Feedback::proceeding(Step::Probation);
        assert_eq!(after_deployment_report(open, &probation), S::Probation);
    }

    #[test]
    fn lines_are_bounded_and_say_something() {
        let silent = Feedback::new(Execution::Closed, Finished::Failure);
        assert_eq!(
            lines(&silent, ActionStatus::Failed),
            ["the device gave no reason"]
        );
        let long = silent
            .clone()
            .details((0..500).map(|_| "x\u{7}".repeat(5000)));
        let kept = lines(&long, ActionStatus::Failed);
        assert_eq!(
            (kept.len(), kept[0].len()),
            (BYTES_MAX / LINE_CHARS_MAX, LINE_CHARS_MAX)
        );
        let many = silent.clone().details((0..500).map(|_| "x"));
        assert_eq!(lines(&many, ActionStatus::Failed).len(), LINES_MAX);
        assert!(!kept[0].contains('\u{7}'));
    }
}
