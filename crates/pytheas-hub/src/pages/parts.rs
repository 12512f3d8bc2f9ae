//! Pieces that several pages show: states, times, progress, buttons.

use jiff::Timestamp;
use maud::{Markup, html};
use pytheas_api::{
    ActionStatus, DeviceState, GroupSize, GroupState, GroupView, Role, RolloutState, RolloutView,
    UpdateState,
};

use crate::auth::{Session, covers};

/// A word with a dot that repeats its meaning in colour.
fn state(class: &str, word: &str) -> Markup {
    html! { span class=(format!("state {class}")) { (word) } }
}

pub(crate) fn device_state(value: DeviceState) -> Markup {
    let class = match value {
        DeviceState::Pending => "warn",
        DeviceState::Accepted => "idle",
        DeviceState::Online => "good",
        DeviceState::Offline => "off",
    };
    state(class, value.as_str())
}

pub(crate) fn update_state(value: UpdateState) -> Markup {
    match value {
        UpdateState::None => html! {},
        UpdateState::Updating => state("busy", "updating"),
        UpdateState::InSync => state("good", "in sync"),
        UpdateState::Error => state("bad", "failed"),
    }
}

pub(crate) fn action_status(value: ActionStatus) -> Markup {
    let class = match value {
        ActionStatus::Unconfirmed | ActionStatus::Pending => "idle",
        ActionStatus::Succeeded => "good",
        ActionStatus::Failed => "bad",
        ActionStatus::Cancelled | ActionStatus::Cancelling => "off",
        _ => "busy",
    };
    state(class, value.as_str())
}

pub(crate) fn rollout_state(value: RolloutState) -> Markup {
    let class = match value {
        RolloutState::Running => "busy",
        RolloutState::Paused => "warn",
        RolloutState::Finished => "good",
        RolloutState::Aborted => "off",
    };
    state(class, value.as_str())
}

/// A sentence whose literals stand in backticks.
pub(crate) fn prose(text: &str) -> Markup {
    let parts: Vec<&str> = text.split('`').collect();
    let paired = parts.len() % 2 == 1; // otherwise somebody else's lonely backtick is in it
    html! {
        @if paired {
            @for (index, part) in parts.iter().enumerate() {
                @if index % 2 == 1 { code { (part) } } @else { (part) }
            }
        } @else { (text) }
    }
}

/// A group's size, for people.
fn size(group: &GroupView) -> String {
    match group.size {
        GroupSize::Count(1) => "1 device".to_owned(),
        GroupSize::Count(count) => format!("{count} devices"),
        GroupSize::Percent(percent) => format!("to {percent}%"),
    }
}

/// How long ago, with the exact time behind it.
pub(crate) fn ago(at_ms: i64, now_ms: i64) -> Markup {
    let exact = Timestamp::from_millisecond(at_ms).unwrap_or_default();
    let exact = exact.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let words = match (now_ms - at_ms).max(0) / 1000 {
        0..=9 => "just now".to_owned(),
        seconds @ 10..=119 => format!("{seconds} s ago"),
        seconds @ 120..=7199 => format!("{} min ago", seconds / 60),
        seconds @ 7200..=172_799 => format!("{} h ago", seconds / 3600),
        seconds => format!("{} days ago", seconds / 86_400),
    };
    html! { time datetime=(exact) title=(exact) { (words) } }
}

/// A length of time, in the largest unit that says it exactly.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        s if s % 3600 == 0 => format!("{} h", s / 3600),
        s if s % 60 == 0 => format!("{} min", s / 60),
        s => format!("{s} s"),
    }
}

/// Like [`ago`], for what may never have happened.
pub(crate) fn maybe_ago(at_ms: Option<i64>, now_ms: i64) -> Markup {
    html! { @match at_ms { Some(at_ms) => (ago(at_ms, now_ms)), None => span.soft { "never" } } }
}

/// One group's bar: succeeded, active, failed, taken back; the rest waits.
fn progress(group: &GroupView) -> Markup {
    let share = |count: u32| 100.0 * f64::from(count) / f64::from(group.total.max(1));
    let segments = [
        ("good", group.succeeded),
        ("busy", group.active),
        ("bad", group.failed),
        ("off", group.cancelled),
    ];
    let mut x = 0.0;
    let mut drawn = Vec::new();
    for (class, count) in segments.into_iter().filter(|(_, count)| *count > 0) {
        drawn.push((class, x, share(count)));
        x += share(count);
    }
    html! {
        svg.progress role="img" aria-label=(words(group)) preserveAspectRatio="none" {
            rect.track width="100%" height="100%" {}
            @for (class, x, width) in drawn {
                rect class=(class) x=(format!("{x:.3}%")) width=(format!("{width:.3}%")) height="100%" {}
            }
        }
    }
}

fn words(group: &GroupView) -> String {
    let mut words = format!("{} of {} succeeded", group.succeeded, group.total);
    for (count, word) in [
        (group.active, "active"),
        (group.failed, "failed"),
        (group.cancelled, "cancelled"),
    ] {
        if count > 0 {
            words.push_str(&format!(", {count} {word}"));
        }
    }
    words
}

/// A rollout with its groups, why it is paused, and what can be done about it.
pub(crate) fn rollout_card(rollout: &RolloutView, session: &Session, now_ms: i64) -> Markup {
    html! {
        article.card {
            div.row {
                h3 { a href=(format!("/rollouts/{}", rollout.id)) { (rollout.release) } }
                span {
                    (rollout_state(rollout.state)) " "
                    span.soft { "by " (rollout.created_by) ", " (ago(rollout.created_ms, now_ms)) }
                }
            }
            @if let Some(reason) = &rollout.reason { p.reason { (prose(reason)) } }
            @for (index, group) in rollout.groups.iter().enumerate() {
                div.group {
                    span { "Group " (index + 1) " " span.soft { (size(group)) } }
                    (progress(group))
                    span.note {
                        @if group.state == GroupState::Waiting { "waits, " (group.total) " devices" }
                        @else { (words(group)) }
                    }
                }
            }
            (rollout_buttons(rollout, session))
        }
    }
}

fn rollout_buttons(rollout: &RolloutView, session: &Session) -> Markup {
    if !covers(session.token.role, Role::Operator)
        || matches!(
            rollout.state,
            RolloutState::Finished | RolloutState::Aborted
        )
    {
        return html! {};
    }
    let at = |verb: &str| format!("/rollouts/{}/{verb}", rollout.id);
    let question = format!(
        "Take {} back from every device that has not ended?",
        rollout.release
    );
    html! {
        div.buttons {
            @if rollout.state == RolloutState::Paused {
                (button(&at("resume"), "Resume", "main", None, session))
            } @else {
                (button(&at("pause"), "Pause", "", None, session))
            }
            (button(&at("abort"), "Abort", "risky", Some(&question), session))
        }
    }
}

/// A button that does something.
pub(crate) fn button(
    action: &str,
    word: &str,
    class: &str,
    question: Option<&str>,
    session: &Session,
) -> Markup {
    let id = format!("do{}", action.replace('/', "-"));
    html! {
        form.inline method="post" action=(action) data-live data-confirm=[question] {
            input type="hidden" name="word" value=(session.form_word);
            button id=(id) class=(class) { (word) }
        }
    }
}
