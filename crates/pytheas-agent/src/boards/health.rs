//! How a board behind this device is: what it would tell a hub of itself, asked at each visit and
//! told under the board's name.
//!
//! ```text
//! pytheas.board.node-left.heap.free = 61232
//! pytheas.board.node-left.crash     = sensor-node 1.2.0
//! pytheas.board.node-left.crash.0   = Traceback (most recent call last):
//! ```

use pytheas_board::link::Board;
use serde_json::{Map, Value};

use crate::attributes::cut;

/// Heap, uptime, reset cause, the app's metrics and last log lines. It answers whatever the app has
/// put there, for nothing but texts and whole numbers of ours goes into the JSON.
const QUESTION: &str = "import gc,json,time,pytheas\n\
    _pT={'heap.free':gc.mem_free(),'heap.used':gc.mem_alloc(),'uptime':time.ticks_ms()//1000}\n\
    try:\n import machine\n _pT['reset']=int(machine.reset_cause())\nexcept Exception:\n pass\n\
    try:\n \
    for _pN,_pV in list(pytheas.metrics.items())[:8]:\n  _pT['metric.'+str(_pN)[:40]]=str(_pV)[:100]\n \
    for _pN,_pV in enumerate(pytheas.lines[-5:]):\n  _pT['log.%d'%_pN]=str(_pV)[:100]\nexcept Exception:\n pass\n\
    print(json.dumps(_pT))\ndel _pT";
/// The last lines of a traceback, which name the exception.
const CRASH_LINES: usize = 6;
/// A hub takes 100 attributes of a device, or none at all: so many are the boards', with their own,
/// which are the platforms of their apps, what they run and the settings that they have.
pub(crate) const ATTRIBUTES_MAX: usize = 60;

/// Name and value, the most telling first.
pub(crate) type Health = Vec<(String, String)>;

/// How the board is; nothing when it does not say, for an update does not depend on it. `crash` is the
/// last traceback, `of` the release that it is of.
pub(super) fn ask(board: &mut Board, crash: Option<&str>, of: Option<&str>) -> Health {
    let answer = board.exec(QUESTION).unwrap_or_default();
    read(&answer, crash, of)
}

fn read(answer: &[u8], crash: Option<&str>, of: Option<&str>) -> Health {
    let said: Map<String, Value> = serde_json::from_slice(answer.trim_ascii()).unwrap_or_default();
    let mut health: Health = said
        .into_iter()
        .map(|(name, value)| {
            // A hub refuses all attributes for one name that it cannot print.
            let name = name.replace(char::is_control, "?");
            match value {
                Value::String(text) => (name, cut(&text)),
                other => (name, cut(&other.to_string())),
            }
        })
        .collect();
    let lines: Vec<&str> = crash.unwrap_or_default().trim_end().lines().collect();
    if let Some(of) = of.filter(|_| !lines.is_empty()) {
        health.push(("crash".to_owned(), cut(&of.replace(char::is_control, "?"))));
    }
    let skip = lines.len().saturating_sub(CRASH_LINES);
    let crash = lines[skip..].iter().enumerate();
    health.extend(crash.map(|(n, line)| (format!("crash.{n}"), cut(line))));
    // Numbers first, then why it fell, then what the app says.
    let rank = |name: &str| {
        ["heap.", "uptime", "reset", "crash", "metric."]
            .iter()
            .position(|begin| name.starts_with(begin))
            .unwrap_or(usize::MAX)
    };
    health.sort_by_cached_key(|(name, _)| (rank(name), name.clone()));
    health
}

/// As many of a board's as may be told when the device has so many boards, with so many of their own.
pub(crate) fn told(health: &Health, boards: usize, own: usize) -> &[(String, String)] {
    let most = ATTRIBUTES_MAX.saturating_sub(own) / boards.max(1);
    &health[..health.len().min(most)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_board_says_is_put_in_order_and_never_too_much() {
        let answer = br#"{"uptime": 7, "log.0": "hello", "metric.t\n": "21.5", "heap.free": 61232, "reset": 3}"#;
        let crash = "Traceback (most recent call last):\n  File \"a.py\", line 3, in run\nValueError: no sensor\n";
        let health = read(answer, Some(crash), Some("node 1.2"));
        let shown: Vec<String> = health.iter().map(|(k, v)| format!("{k} = {v}")).collect();
        insta::assert_snapshot!(shown.join("\n"), @r#"
        heap.free = 61232
        uptime = 7
        reset = 3
        crash = node 1.2
        crash.0 = Traceback (most recent call last):
        crash.1 =   File "a.py", line 3, in run
        crash.2 = ValueError: no sensor
        metric.t? = 21.5
        log.0 = hello
        "#);
        assert_eq!(told(&health, 1, 3).len(), 9);
        assert_eq!(told(&health, 10, 30).len(), 3);
        assert_eq!(told(&health, 30, 70).len(), 0);
        assert_eq!(read(b"MemoryError", None, None), []);
    }
}
