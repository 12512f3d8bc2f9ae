//! The demo is the main job; it must hold as a whole.

use crate::common::{pytheas, shown};

#[test]
fn the_demo_ends_well_and_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("demo");
    let mut command = pytheas(home.path());
    command
        .args(["demo", "--once", "--json", "--devices", "3", "--dir"])
        .arg(&dir);
    let rig =
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/micropython");
    let has_board = rig.join("unix/micropython").is_file();
    if has_board {
        command
            .env("PYTHEAS_MICROPYTHON", &rig)
            .env("PYTHEAS_MPY_CROSS", rig.join("bin/mpy-cross"));
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", shown(&output));
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcome["rolled_back"], true, "{outcome}");
    for number in 1..=3 {
        let device = format!("gateway-{number}");
        assert_eq!(outcome["devices"][&device], "greenhouse@1.1.0", "{outcome}");
    }
    if has_board {
        let board = &outcome["devices"]["node-1"];
        assert_eq!(board, "sensor-node@1.1.0", "{outcome}");
    }
    let update = outcome["update_bytes_per_device"].as_u64().unwrap();
    assert!(
        (1..100_000).contains(&update),
        "{update} bytes for the update"
    );
    let reason = outcome["reason"].as_str().unwrap();
    assert!(reason.contains("gateway-1"), "{reason}");

    let still = std::process::Command::new("pgrep")
        .arg("-f")
        .arg(&dir)
        .output()
        .unwrap();
    let still = String::from_utf8_lossy(&still.stdout).into_owned();
    assert!(still.is_empty(), "processes are left: {still}");
}
