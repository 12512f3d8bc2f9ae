//! Reads `[[board]]` tables: the boards on this device's ports.

use std::{path::Path, time::Duration};

use pytheas_board::link::{Address, repl::Options};
use pytheas_release::Name;
use toml::de::DeValue;

use super::{DURATION, File, Value, Wanted, from_str, parse_duration};
use crate::settings::{BoardSettings, SettingsError};

/// Every setting of a board.
const KEYS: &[&str] = &["name", "port", "app", "baud", "wait", "telemetry"];
/// How long an update waits for a board that does not answer.
const WAIT: Duration = Duration::from_secs(600);

pub(super) fn parse(
    file: &File<'_>,
    value: &Value<'_>,
) -> Result<Vec<BoardSettings>, SettingsError> {
    let wrong = |value: &Value<'_>, key: &str, problem: String| SettingsError::Value {
        place: file.place(value.span().start),
        key: key.to_owned(),
        problem,
    };
    let DeValue::Array(items) = value.get_ref() else {
        let problem = "write `[[board]]` on a line, once for each board, and its settings below";
        return Err(wrong(value, "board", problem.into()));
    };
    let mut boards: Vec<BoardSettings> = Vec::new();
    for item in items {
        let board = one(file, item)?;
        if let Some(same) = boards.iter().find(|other| other.name == board.name) {
            let problem = format!("there are two boards called `{}`", same.name);
            return Err(wrong(item, "board.name", problem));
        }
        if let Some(same) = boards.iter().find(|other| other.port == board.port) {
            let problem = format!("`{}` is on `{}` as well", same.name, board.port);
            return Err(wrong(item, "board.port", problem));
        }
        boards.push(board);
    }
    Ok(boards)
}

fn one(file: &File<'_>, item: &Value<'_>) -> Result<BoardSettings, SettingsError> {
    let missing = |key: &str| SettingsError::Value {
        place: file.place(item.span().start),
        key: format!("board.{key}"),
        problem: "each board has to have it".into(),
    };
    let DeValue::Table(table) = item.get_ref() else {
        return Err(SettingsError::Value {
            place: file.place(item.span().start),
            key: "board".into(),
            problem: "write `[[board]]` on a line, and its settings below".into(),
        });
    };
    let (mut name, mut port, mut app) = (None, None, None);
    let (mut baud, mut wait) = (Options::default().baud, WAIT);
    let mut telemetry = None;
    for (key, value) in table {
        let path = format!("board.{}", key.get_ref());
        let one = |what| Wanted {
            file,
            key: &path,
            value,
            what,
        };
        match key.get_ref().as_ref() {
            "name" => name = Some(one("a name").read(from_str::<Name>)?),
            "port" => port = Some(one("a port").read(from_str::<Address>)?),
            "app" => app = Some(one("the name of an app").read(from_str::<Name>)?),
            "baud" => baud = one("a number such as `115200`").number()?,
            "wait" => wait = one(DURATION).read(parse_duration)?,
            "telemetry" => telemetry = Some(one(DURATION).read(parse_duration)?),
            _ => {
                return Err(SettingsError::UnknownKey {
                    place: file.place(key.span().start),
                    help: format!("there are: board.{}", KEYS.join(", board.")),
                    key: path,
                });
            }
        }
    }
    Ok(BoardSettings {
        name: name.ok_or_else(|| missing("name"))?,
        port: match port.ok_or_else(|| missing("port"))? {
            // As all paths of the file.
            Address::Serial(path) if path.is_relative() => {
                Address::Serial(file.path.parent().unwrap_or(Path::new(".")).join(path))
            }
            port => port,
        },
        app: app.ok_or_else(|| missing("app"))?,
        baud,
        wait,
        telemetry,
    })
}
