//! A board's settings before they are written to it: one that the guard cannot use would keep the board
//! from every start.

use serde_json::{Map, Value};

use super::DeployError;

/// A day, in seconds.
const DAY: u64 = 86_400;

/// Refuses the first setting that the package on the board (`micropython/pytheas`) could not use.
///
/// `platform` is the board's port, such as `rp2`.
///
/// # Errors
/// [`DeployError::Setting`].
pub(super) fn check(platform: &str, settings: &Map<String, Value>) -> Result<(), DeployError> {
    for (name, value) in settings {
        let Some((fits, wanted)) = wanted(platform, name, value) else {
            continue;
        };
        if !fits {
            return Err(DeployError::Setting {
                name: name.clone(),
                value: value.to_string(),
                wanted,
            });
        }
    }
    Ok(())
}

/// Whether the value is one of those wanted, and which those are; none for a setting of the app's.
fn wanted(platform: &str, name: &str, value: &Value) -> Option<(bool, String)> {
    let within = |least: u64, most: u64, what: &str| {
        let fits = value.as_u64().is_some_and(|n| (least..=most).contains(&n));
        let which = match least == most {
            true => format!("{least} only"),
            false => format!("a whole number from {least} to {most}"),
        };
        (fits, format!("{what}{which}"))
    };
    let one_of = |words: &[&str]| {
        let fits = value.as_str().is_some_and(|word| words.contains(&word));
        (fits, format!("one of `{}`", words.join("`, `")))
    };
    Some(match name {
        "hub" => {
            let has_scheme = |hub: &str| hub.starts_with("https://") || hub.starts_with("http://");
            let fits = value.as_str().is_some_and(has_scheme);
            (fits, "an address that begins with `https://`".into())
        }
        "tenant" | "id" | "token" | "ca" | "model" | "firmware" => {
            (value.is_string(), "text in quotation marks".into())
        }
        "poll" | "confirm" => within(1, DAY, "seconds, "),
        "attempts" => within(1, 1000, ""),
        // What the chip's watchdog can count to (`ports/*/machine_wdt.c`): beyond it, and on an ESP8266
        // with anything but its own five seconds, it is not started and raises an exception.
        "watchdog" => match platform {
            "rp2" => within(1, 8, "seconds on an RP2, "),
            "pyboard" => within(1, 32, "seconds on an STM32, "),
            "esp8266" => within(5, 5, "seconds on an ESP8266, "),
            _ => within(1, DAY, "seconds, "),
        },
        "backend" => one_of(&["rom", "file"]),
        "on_exit" => one_of(&["poll", "restart", "stop"]),
        "rom" => {
            let numbers = value.as_array().is_some_and(|numbers| {
                (1..=2).contains(&numbers.len()) && numbers.iter().all(|n| n.as_u64().is_some())
            });
            (
                numbers,
                "one or two numbers of partitions, such as `[0, 1]`".into(),
            )
        }
        "settings" => (value.is_object(), "a JSON object".into()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn checked(platform: &str, settings: Value) -> Result<(), DeployError> {
        let Value::Object(settings) = settings else {
            panic!("an object");
        };
        check(platform, &settings)
    }

    #[test]
    fn a_watchdog_that_the_chip_cannot_have_is_refused() {
        insta::assert_snapshot!(
            checked("rp2", json!({"watchdog": 9})).unwrap_err(),
            @"the setting `watchdog` cannot be 9: it is seconds on an RP2, a whole number from 1 to 8"
        );
        insta::assert_snapshot!(
            checked("esp8266", json!({"watchdog": 6})).unwrap_err(),
            @"the setting `watchdog` cannot be 6: it is seconds on an ESP8266, 5 only"
        );
        for (platform, most) in [("rp2", 8), ("pyboard", 32), ("esp8266", 5), ("esp32", 600)] {
            assert!(checked(platform, json!({"watchdog": most})).is_ok());
        }
        assert!(checked("pyboard", json!({"watchdog": 33})).is_err());
    }

    #[test]
    fn a_setting_that_would_keep_the_guard_from_a_start_is_refused() {
        for wrong in [
            json!({"watchdog": 0}),
            json!({"watchdog": 2.5}),
            json!({"watchdog": "8"}),
            json!({"attempts": 0}),
            json!({"poll": "often"}),
            json!({"poll": 0}),
            json!({"confirm": -1}),
            json!({"backend": "ROM"}),
            json!({"rom": []}),
            json!({"rom": [0, 1, 2]}),
            json!({"rom": 0}),
            json!({"on_exit": true}),
            json!({"settings": [1]}),
            json!({"id": 7}),
            json!({"hub": "hub.example:8440"}),
        ] {
            assert!(checked("esp32", wrong.clone()).is_err(), "{wrong}");
        }
        let right = json!({
            "hub": "https://hub.example:8440", "tenant": "default", "id": "7", "token": "t",
            "ca": "/pytheas/ca.der", "poll": 300, "backend": "rom", "rom": [0, 1], "attempts": 3,
            "confirm": 60, "watchdog": 8, "on_exit": "poll", "model": "m", "firmware": "f",
            "settings": {"pin": 4}, "mine": [null],
        });
        assert!(checked("rp2", right).is_ok());
    }
}
