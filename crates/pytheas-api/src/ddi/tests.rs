//! DDI as real servers and clients write it.

use proptest::prelude::*;

use super::*;

#[test]
fn a_poll_answer_reads_as_hawkbit_writes_it() {
    let answer = r#"{"config":{"polling":{"sleep":"00:05:00"}},
     "_links":{"deploymentBase":{"href":"http://h:8080/default/controller/v1/dev1/deploymentBase/7?c=-1187"},
               "configData":{"href":"http://h:8080/default/controller/v1/dev1/configData"}}}"#;
    let root: PollRoot = serde_json::from_str(answer).unwrap();
    assert_eq!(
        root.config.polling.interval(),
        Some(Duration::from_secs(300))
    );
    assert!(
        root.links
            .deployment_base
            .unwrap()
            .href
            .ends_with("?c=-1187")
    );
    assert!(root.links.config_data.is_some() && root.links.cancel_action.is_none());
}

#[test]
fn nothing_to_do_leaves_the_links_out() {
    let root = PollRoot {
        config: PollConfig::default(),
        links: PollLinks::default(),
    };
    insta::assert_snapshot!(serde_json::to_string(&root).unwrap(), @r#"{"config":{"polling":{"sleep":"00:05:00"}}}"#);
}

#[test]
fn sleep_is_eight_characters_and_other_servers_texts_are_understood() {
    for (seconds, text) in [(0, "00:00:01"), (30, "00:00:30"), (90_000, "23:59:59")] {
        assert_eq!(Polling::every(Duration::from_secs(seconds)).sleep, text);
    }
    for (text, seconds) in [
        ("01:02:03", Some(3723)),
        ("PT36H", Some(129_600)),
        ("P1DT1M", Some(86_460)),
        ("00:00:00", None),
        ("5 min", None),
        ("PT5", None),
        ("1:2", None),
        ("1:2:3:4", None),
    ] {
        let polling = Polling { sleep: text.into() };
        assert_eq!(polling.interval().map(|d| d.as_secs()), seconds, "{text}");
    }
}

#[test]
fn feedback_of_every_known_client_is_read() {
    for (client, json, finished) in [
        (
            "swupdate",
            r#"{"id":7,"time":"20260101T000000","status":{"result":{"finished":"none","progress":{"cnt":0,"of":1}},"execution":"proceeding","details":["Installing Update Chunk Artifacts."]}}"#,
            Finished::None,
        ),
        (
            "rauc",
            r#"{"id":"7","status":{"result":{"finished":"success"},"execution":"closed","details":["done"]}}"#,
            Finished::Success,
        ),
        (
            "zephyr",
            r#"{"id":"7","time":"","status":{"execution":"closed","result":{"finished":"failure"},"details":null}}"#,
            Finished::Failure,
        ),
    ] {
        let feedback: Feedback = serde_json::from_str(json).unwrap();
        assert_eq!(feedback.status.result.finished, finished, "{client}");
    }
}

#[test]
fn unknown_words_are_refused() {
    let wrong = r#"{"status":{"execution":"exploded","result":{"finished":"none"}}}"#;
    assert!(serde_json::from_str::<Feedback>(wrong).is_err());
}

#[test]
fn the_agents_report_is_drawn_here() {
    let report = Feedback::proceeding(Progress::Probation).detail("started `greenhouse@1.1.0`");
    insta::assert_snapshot!(serde_json::to_string(&report).unwrap(), @r#"{"status":{"execution":"proceeding","code":4,"details":["started `greenhouse@1.1.0`"],"result":{"finished":"none"}}}"#);
    assert_eq!(Progress::from_code(4), Some(Progress::Probation));
    assert_eq!(Progress::from_code(5), None);
}

proptest! {
    #[test]
    fn no_sleep_text_makes_the_reader_panic(sleep in "[P0-9TDHMS:.]{0,24}") {
        let _read = Polling { sleep }.interval();
    }

    #[test]
    fn intervals_below_a_day_survive(seconds in 1u64..86_400) {
        let interval = Duration::from_secs(seconds);
        prop_assert_eq!(Polling::every(interval).interval(), Some(interval));
    }
}
