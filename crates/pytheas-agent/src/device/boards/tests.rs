//! What the hub is told of many boards.

use super::*;

fn board(number: usize) -> (BoardSettings, Known) {
    let at = BoardSettings {
        name: format!("board-{number:02}").parse().unwrap(),
        app: format!("app-{number:02}").parse().unwrap(),
        port: "/dev/ttyACM0".parse().unwrap(),
        baud: 115_200,
        wait: Duration::from_secs(1),
        telemetry: None,
    };
    let known = Known {
        platform: Some("micropython-armv7m".parse().unwrap()),
        runs: Some("node 1.2".into()),
        health: vec![("uptime".into(), "7".into()); 9],
        config: Some(Given {
            tag: "2-b".into(),
            sha256: Sha256::of(b""),
            because: Some("OSError: 28".into()),
            has: Some("1-a".into()),
        }),
        ..Known::default()
    };
    (at, known)
}

#[track_caller]
fn told(boards: usize) -> Vec<String> {
    let (settings, known): (Vec<_>, Vec<_>) = (0..boards).map(board).unzip();
    let names = settings.iter().map(|at| at.name.clone());
    let boards = Boards {
        known: names.zip(known).collect(),
        work: None,
        works: 0,
        waits_since: None,
        look_at: Instant::now(),
        on_boards: BTreeMap::new(),
    };
    boards.attributes(&settings).into_keys().collect()
}

#[test]
fn of_however_many_boards_the_hub_is_told_no_more_than_it_takes() {
    let of = |told: &[String], what: &str| told.iter().filter(|key| key.starts_with(what)).count();
    let some = told(10);
    assert_eq!(of(&some, ATTRIBUTE_BOARD_CONFIG), 10);
    assert_eq!(of(&some, ATTRIBUTE_BOARD_CONFIG_REFUSED), 10);
    // 40 are their own: two more for each, which are one here.
    assert_eq!(some.len(), 50);
    for boards in [15, 29, 40, 100] {
        let told = told(boards);
        assert_eq!(told.len(), health::ATTRIBUTES_MAX, "{boards}");
        assert_eq!(
            of(&told, ATTRIBUTE_BOARD_APP),
            boards.min(health::ATTRIBUTES_MAX)
        );
    }
}
