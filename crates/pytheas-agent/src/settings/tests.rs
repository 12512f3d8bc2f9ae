//! What settings files say, and what is said about those that say nothing.

use super::*;

fn parse(text: &str) -> Result<AgentSettings, SettingsError> {
    AgentSettings::parse(Path::new("/etc/agent.toml"), text)
}

fn refusal(text: &str) -> String {
    let error = parse(text).unwrap_err();
    let help = error.help().map(|help| help.to_string());
    format!("{error}\nhelp: {}", help.unwrap_or_default())
}

/// Everything, in the several ways TOML has.
const WHOLE: &str = r#"
time-zone = "-03:30"
poll = { interval = "90s", jitter = "25%" }
install.consent = true
install.windows = [
    "mon-fri 22:00-04:00", # nights
    'sun 00:00-24:00',
]
[download]
limit = "1.5 MB/s"
[proxy]
url = "http://me:pass@proxy.example:3128"
no-proxy = ["localhost", "*.lan"]
[tls]
ca = "ca.pem"
pins = ["0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"]
certificate = "/secret/device.pem"
[timeouts]
connect = "3s"
"#;

#[test]
fn every_setting_is_read() {
    let settings = parse(WHOLE).unwrap();
    assert_eq!(settings.poll_interval, Some(Duration::from_secs(90)));
    assert_eq!(settings.jitter_percent, 25);
    assert!(settings.install.consent && settings.download.windows.is_always());
    let at = |text: &str| settings.install.windows.is_open(text.parse().unwrap());
    assert!(at("2026-11-24T01:30:00Z") && !at("2026-11-24T01:29:59Z"));
    let network = &settings.network;
    assert_eq!(network.limit.unwrap().bytes_per_second(), 1_500_000);
    assert_eq!(network.tls.ca.as_deref(), Some(Path::new("/etc/ca.pem")));
    assert_eq!(network.tls.pins.len(), 1);
    assert_eq!(
        (network.connect, network.answer),
        (Duration::from_secs(3), Duration::from_secs(30))
    );
    let shown = format!("{settings:?}");
    assert!(shown.contains("proxy.example:3128"), "{shown}");
    assert!(!shown.contains("pass@"), "{shown}");
    assert_eq!(parse("").unwrap(), AgentSettings::default());
    assert_eq!(parse("[poll]\n").unwrap(), AgentSettings::default());
}

#[test]
fn what_is_not_known_is_refused_with_its_line_and_what_was_meant() {
    insta::assert_snapshot!(refusal("[download]\nlimmit = \"1 MB/s\"\n"), @"
    /etc/agent.toml:2:1: there is no setting `download.limmit`
    help: did you mean `download.limit`?
    ");
    insta::assert_snapshot!(refusal("[install]\nlimit = \"1 MB/s\"\n"), @"
    /etc/agent.toml:2:1: there is no setting `install.limit`
    help: did you mean `download.limit`?
    ");
    insta::assert_snapshot!(refusal("[downloads]\nwindows = []\n"), @"
    /etc/agent.toml:1:2: there is no setting `downloads`
    help: did you mean `download.windows`?
    ");
    insta::assert_snapshot!(refusal("poll = \"5m\"\n"), @"
    /etc/agent.toml:1:1: there is no setting `poll`
    help: `poll` is a table: write `[poll]` on a line, and its settings below
    ");
    insta::assert_snapshot!(refusal("\n\n  colour = \"red\"\n"), @"
    /etc/agent.toml:3:3: there is no setting `colour`
    help: there are: time-zone, poll.interval, poll.jitter, peers.share, peers.listen, peers.limit, peers.list, peers.discover, download.limit, download.windows, install.windows, install.consent, config.apply, proxy.url, proxy.no-proxy, tls.ca, tls.pins, tls.certificate, tls.key, tls.key-command, timeouts.connect, timeouts.answer, timeouts.silence, board
    ");
}

#[test]
fn what_does_not_fit_is_refused_with_its_line() {
    let refusals: Vec<_> = [
        "[poll]\ninterval = \"5 minutes\"",
        "[poll]\ninterval = 300",
        "[poll]\njitter = \"110%\"",
        "[download]\nlimit = \"fast\"",
        "[install]\nwindows = [\"mon 01:00-02:00\",\n  \"tomorrow\"]",
        "[install]\nwindows = \"mon 01:00-02:00\"",
        "[install]\nconsent = \"yes\"",
        "[proxy]\nurl = \"ftp://me:secret@proxy\"",
        "[proxy]\nno-proxy = [\"*\"]",
        "[tls]\npins = [\"abc\"]",
        "[tls]\nca = \"\"",
        "time-zone = \"Mars/Olympus\"",
        "time-zone = \"+2\"",
        "[poll\ninterval = 1",
        "[poll]\ninterval = \"1m\"\ninterval = \"2m\"",
    ]
    .iter()
    .map(|text| parse(text).unwrap_err().to_string())
    .collect();
    assert!(!refusals.join("\n").contains("secret"));
    insta::assert_snapshot!(refusals.join("\n"), @r#"
    /etc/agent.toml:2:12: `poll.interval`: `5 minutes` is no time; write `500ms`, `30s`, `5m`, `1h`
    /etc/agent.toml:2:12: `poll.interval`: a time as `"30s"`, `"5m"`, `"1h"` is wanted
    /etc/agent.toml:2:10: `poll.jitter`: `110%` is no share; write `10%`, at most `100%`
    /etc/agent.toml:2:9: `download.limit`: `fast` is no rate; write bytes per second: `200 kB/s`, `1.5 MB/s`
    /etc/agent.toml:3:3: `install.windows`: `tomorrow` is no time of day like `01:00-05:00`
    /etc/agent.toml:2:11: `install.windows`: a list as `["mon-fri 01:00-05:00"]` is wanted
    /etc/agent.toml:2:11: `install.consent`: `true` or `false` is wanted
    /etc/agent.toml:2:7: `proxy.url`: an address that begins with `http://` or `https://` is wanted, or `none`; `@`, `:` and `/` in a password are written `%40`, `%3A`, `%2F`
    /etc/agent.toml: `proxy.no-proxy`: without `proxy.url` the environment's `NO_PROXY` counts
    /etc/agent.toml:2:9: `tls.pins`: `abc` is not a SHA-256 digest: 64 lower-case hex digits are wanted
    /etc/agent.toml:2:6: `tls.ca`: an empty path
    /etc/agent.toml:1:13: `time-zone`: this device knows no time zone `Mars/Olympus`; install `tzdata`, or write an offset as `+02:00`
    /etc/agent.toml:1:13: `time-zone`: `+2` is no offset; write `+02:00`
    /etc/agent.toml:1:6: unclosed table, expected `]`
    /etc/agent.toml:3:1: duplicate key
    "#);
}

#[test]
fn flags_come_before_the_file_and_a_file_that_was_named_must_be_there() {
    let folder = tempfile::tempdir().unwrap();
    let dir = StateDir::new(folder.path());
    let mut args = NetworkArgs::default();
    assert_eq!(
        AgentSettings::resolve(&dir, &args).unwrap(),
        AgentSettings::default()
    );
    pytheas_durable::replace(&dir.settings(), WHOLE.as_bytes()).unwrap();
    args.limit = Some("2 kB/s".parse().unwrap());
    args.proxy = Some("none".into());
    let settings = AgentSettings::resolve(&dir, &args).unwrap();
    assert_eq!(settings.network.limit.unwrap().bytes_per_second(), 2000);
    assert_eq!(settings.network.proxy, ProxyChoice::None);
    assert!(settings.install.consent);
    args.config = Some(folder.path().join("elsewhere.toml"));
    assert!(matches!(
        AgentSettings::resolve(&dir, &args),
        Err(SettingsError::Read { .. })
    ));
}

#[test]
fn a_file_that_became_unusable_leaves_what_was_in_force() {
    use pytheas_update::{Installed, Machine};
    let folder = tempfile::tempdir().unwrap();
    let dir = StateDir::new(folder.path());
    let args = NetworkArgs::default();
    let broken = "[install]\nwindow = [\"daily 02:00-04:00\"]\n";
    let write = |text: &str| pytheas_durable::replace(&dir.settings(), text.as_bytes()).unwrap();
    let resolve = || AgentSettings::resolve_or_last_good(&dir, &args);
    write(broken);
    resolve().expect_err("nothing is installed: whoever wrote it stands beside the device");
    let installed = Installed {
        tree: pytheas_release::TreeId(Sha256::of(b"tree")),
        release: "app@1.0.0".parse().unwrap(),
    };
    let machine = Machine::recovered(Some(installed), None, Vec::new());
    pytheas_durable::replace(&dir.state(), &machine.encode()).unwrap();
    // Until then there was no file.
    let (settings, error) = resolve().unwrap();
    assert_eq!(settings, AgentSettings::default());
    assert!(error.unwrap().to_string().contains("`install.window`"));
    write(WHOLE);
    let (good, error) = resolve().unwrap();
    assert!(error.is_none() && good.install.consent);
    for unusable in [broken, "[tls\n", "\u{1}"] {
        write(unusable);
        let (settings, error) = resolve().unwrap();
        assert_eq!(settings, good, "{unusable}");
        error.expect("what is wrong is told");
    }
    // The state is lost, too: the app still has to run.
    pytheas_durable::replace(&dir.state(), b"{torn").unwrap();
    resolve().expect_err("nothing that could run");
    let tree = pytheas_release::TreeId(Sha256::of(b"tree"));
    std::fs::create_dir_all(dir.slot(tree)).unwrap();
    std::os::unix::fs::symlink(StateDir::current_target(tree), dir.current()).unwrap();
    assert_eq!(resolve().unwrap().0, good);
    std::fs::remove_file(dir.settings()).unwrap();
    let (settings, error) = resolve().unwrap();
    assert!(error.is_none() && settings == AgentSettings::default());
    assert!(!dir.settings_in_force().exists());
}

#[test]
fn settings_of_a_newer_agent_take_the_device_from_no_older_one() {
    let folder = tempfile::tempdir().unwrap();
    let dir = StateDir::new(folder.path());
    let tree = pytheas_release::TreeId(Sha256::of(b"tree"));
    std::fs::create_dir_all(dir.slot(tree)).unwrap();
    std::os::unix::fs::symlink(StateDir::current_target(tree), dir.current()).unwrap();
    // In force while the newer agent worked, so it is the copy, too.
    let newer = "hologram = true\n[poll]\ninterval = \"7m\"\nmoon = \"full\"\n\
                 [download]\nlimit = \"fast enough\"\n[sky]\nblue = 1\n";
    let both = |text: &str| {
        for path in [dir.settings(), dir.settings_in_force()] {
            pytheas_durable::replace(&path, text.as_bytes()).unwrap();
        }
        let args = NetworkArgs::default();
        let (settings, error) = AgentSettings::resolve_or_last_good(&dir, &args).unwrap();
        error.expect("what is not understood is told");
        settings
    };
    let settings = both(newer);
    assert_eq!(settings.poll_interval, Some(Duration::from_secs(420)));
    assert_eq!(settings.network, Network::default());
    assert!(!settings.install.consent);
    // When to install is not understood: then somebody has to say so.
    for install in ["windows = [\"at full moon\"]", "tide = \"low\""] {
        let settings = both(&format!(
            "[poll]\ninterval = \"7m\"\n[install]\n{install}\n"
        ));
        assert!(settings.install.consent, "{install}");
    }
    // Whatever else the file says of consent, and in whatever order.
    for text in [
        "[install]\nat = \"low tide\"\nconsent = false\nwindows = [\"01:00-05:00\"]\n",
        "time-zone = \"Mars/Olympus\"\n[install]\nconsent = false\nwindows = [\"01:00-05:00\"]\n",
    ] {
        assert!(both(text).install.consent, "{text}");
    }
    assert_eq!(both("[tls\n"), AgentSettings::default());
}

proptest::proptest! {
    #[test]
    fn any_text_is_taken_or_refused(text in ".{0,120}", value in ".{0,20}", key in 0_usize..16) {
        let _refused = parse(&text);
        let keys = ["time-zone", "poll.interval", "poll.jitter", "download.limit", "proxy.url", "tls.pins"];
        let value = value.replace(['"', '\\'], "");
        let _refused = parse(&format!("{} = \"{value}\"", keys[key % keys.len()]));
    }
}

#[test]
fn boards_are_read_in_their_order() {
    let settings = parse(
        "[[board]]\nname = \"left\"\nport = \"/dev/ttyACM0\"\napp = \"node\"\n\
         [[board]]\nname = \"right\"\nport = \"tcp://10.0.0.7:5000\"\napp = \"node\"\n\
         baud = 921_600\nwait = \"90s\"\n",
    )
    .unwrap();
    let [left, right] = settings.boards.as_slice() else {
        panic!("{:?}", settings.boards);
    };
    assert_eq!((left.name.as_str(), left.baud), ("left", 115_200));
    assert_eq!(
        (left.wait, right.wait),
        (Duration::from_secs(600), Duration::from_secs(90))
    );
    assert_eq!(
        (right.port.to_string().as_str(), right.baud),
        ("tcp://10.0.0.7:5000", 921_600)
    );
}

#[test]
fn a_board_that_cannot_be_used_is_named_with_its_line() {
    let board = |rest: &str| {
        refusal(&format!(
            "[[board]]\nname = \"a\"\nport = \"ttyACM0\"\n{rest}"
        ))
    };
    let all = [
        board(""),
        board("app = \"node\"\nbauds = 9600"),
        board("app = \"node\"\nbaud = 0"),
        board("app = \"node\"\n[[board]]\nname = \"b\"\nport = \"/dev/ttyACM0\"\napp = \"x\""),
        board("app = \"node\"\n[[board]]\nname = \"a\"\nport = \"tcp://h:1\"\napp = \"x\""),
        refusal("[[board]]\nport = \"tcp://nowhere\""),
        refusal("[board]\nname = \"a\""),
    ];
    insta::assert_snapshot!(all.join("\n"), @"
    /etc/agent.toml:1:1: `board.app`: each board has to have it
    help: docs/guides/updates-network.md has an example of each setting
    /etc/agent.toml:5:1: there is no setting `board.bauds`
    help: there are: board.name, board.port, board.app, board.baud, board.wait, board.telemetry
    /etc/agent.toml:5:8: `board.baud`: a number such as `115200` is wanted
    help: docs/guides/updates-network.md has an example of each setting
    /etc/agent.toml:5:1: `board.port`: `a` is on `/dev/ttyACM0` as well
    help: docs/guides/updates-network.md has an example of each setting
    /etc/agent.toml:5:1: `board.name`: there are two boards called `a`
    help: docs/guides/updates-network.md has an example of each setting
    /etc/agent.toml:2:8: `board.port`: `tcp://nowhere` is no port of a board: it has no port number
    help: docs/guides/updates-network.md has an example of each setting
    /etc/agent.toml:1:1: `board`: write `[[board]]` on a line, once for each board, and its settings below
    help: docs/guides/updates-network.md has an example of each setting
    ");
}
