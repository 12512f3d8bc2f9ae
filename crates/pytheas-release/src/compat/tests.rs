//! Plans judged by example, and small sets of components against brute force.

use proptest::prelude::*;

use super::*;

fn component(release: &str) -> Component {
    Component {
        release: release.parse().unwrap(),
        rules: Rules::default(),
    }
}

impl Component {
    fn requires(mut self, key: &str, value: &str) -> Self {
        self.rules.requires.insert(key.into(), value.into());
        self
    }

    fn conflicts(mut self, key: &str, value: &str) -> Self {
        self.rules.conflicts.insert(key.into(), value.into());
        self
    }
}

fn facts() -> Facts {
    Facts {
        agent: "0.1.0".into(),
        model: Some("Raspberry Pi 4 Model B Rev 1.4".into()),
        platform: "linux-aarch64".parse().unwrap(),
    }
}

fn judged(installed: &[Component], coming: &[Component]) -> String {
    match solve(&facts(), installed, coming, Downgrades::ByRelease) {
        Ok(order) => format!("{order:?}"),
        Err(problems) => problems
            .iter()
            .map(|problem| format!("{problem}\nhelp: {}", problem.help()))
            .collect::<Vec<_>>()
            .join("\n"),
    }
}

#[test]
fn what_is_missing_is_named() {
    let coming = component("app@2.0")
        .requires("agent", ">=0.2")
        .requires("model", "gw-1 | gw-2")
        .requires("platform", "linux-*-musl")
        .requires("current", ">=1.4")
        .requires("broker", ">=2,<3")
        .requires("feature:teleport", "1")
        .requires("no/name", "1")
        .conflicts("legacy", "<9");
    let installed = [component("app@1.3"), component("legacy@8.1")];
    insta::assert_snapshot!(judged(&installed, &[coming]), @r"
    `app@2.0` requires agent >=0.2; this is agent 0.1.0
    help: update the agent first
    `app@2.0` requires current >=1.4; `app@1.3` runs
    help: roll out a release that is >=1.4 first, then this one
    `app@2.0` requires `feature:teleport` 1, which this agent cannot judge
    help: update the agent first
    `app@2.0` requires model gw-1 | gw-2; this is `Raspberry Pi 4 Model B Rev 1.4`
    help: roll this release out to other devices, or correct the device's attribute
    `app@2.0` requires `no/name` 1, which this agent cannot judge
    help: update the agent first
    `app@2.0` requires platform linux-*-musl; this is `linux-aarch64`
    help: roll this release out to other devices, or correct the device's attribute
    `app@2.0` requires `broker` >=2,<3; it is not on this device
    help: roll out `broker` >=2,<3 in the same rollout, or before
    `app@2.0` conflicts with `legacy@8.1`: it rules out `legacy` <9
    help: roll out another version of `legacy` in the same rollout
    ");
}

#[test]
fn what_is_there_is_enough() {
    let app = component("app@2.0")
        .requires("agent", "0.1")
        .requires("model", "gw-1 | Raspberry Pi 4*")
        .requires("platform", "linux-aarch64")
        .requires("current", ">=1.4")
        .requires("feature:hooks", "1")
        .requires("broker", ">=2,<3")
        .conflicts("legacy", "<9");
    assert_eq!(
        judged(&[component("broker@2.5")], std::slice::from_ref(&app)),
        "[0]",
        "a first install"
    );
    let installed = [
        component("app@1.4"),
        component("broker@1.0"),
        component("legacy@8"),
    ];
    let coming = [app, component("broker@2.0"), component("legacy@9.0")];
    assert_eq!(judged(&installed, &coming), "[1, 0, 2]");
}

#[test]
fn components_that_stay_have_their_say_when_others_change() {
    let installed = [
        component("app@1.0")
            .requires("broker", "<2")
            .requires("gone", ">=1"),
        component("broker@1.0"),
        component("strict@1.0").conflicts("app", ">=2"),
    ];
    insta::assert_snapshot!(judged(&installed, &[component("broker@2.0")]), @r"
    `app@1.0` requires `broker` <2; `broker@2.0` would run
    help: roll out `broker` <2 in the same rollout, or before
    ");
    insta::assert_snapshot!(judged(&installed, &[component("app@2.0")]), @r"
    `strict@1.0` conflicts with `app@2.0`: it rules out `app` >=2
    help: roll out another version of `app` in the same rollout
    ");
    // That `gone` is not there is none of this plan's business.
    assert_eq!(judged(&installed, &[component("other@1.0")]), "[0]");
}

#[test]
fn older_releases_need_a_word() {
    let back = |from: Component, to: Component, downgrades| {
        solve(&facts(), &[from], &[to], downgrades).is_ok()
    };
    let at = component;
    assert!(!back(at("app@1.10"), at("app@1.9"), Downgrades::ByRelease));
    assert!(back(at("app@1.10"), at("app@1.9"), Downgrades::Allowed));
    assert!(back(at("app@1.9"), at("app@1.10"), Downgrades::ByRelease));
    assert!(back(at("app@1.9"), at("app@1.9"), Downgrades::ByRelease));
    assert!(!back(
        at("app@1.0"),
        at("app@1.0rc1"),
        Downgrades::ByRelease
    ));
    assert!(back(
        at("app@f3a9c01"),
        at("app@0b12d4e"),
        Downgrades::ByRelease
    ));
    let mut tolerant = at("app@1.10");
    tolerant.rules.allow_downgrade = true;
    assert!(back(tolerant, at("app@1.9"), Downgrades::ByRelease));
    insta::assert_snapshot!(judged(&[at("app@1.10")], &[at("app@1.9")]), @r"
    `app@1.9` is older than `app@1.10`, which runs
    help: start the rollout with `--allow-downgrade`, or set `allow-downgrade = true` in `[tool.pytheas]` of a release whose data older ones understand
    ");
}

#[test]
fn rules_that_cannot_be_judged_are_found_before_they_are_published() {
    let with = |key: &str, value: &str| {
        Component::requires(component("app@1"), key, value)
            .rules
            .problem()
    };
    for (key, value) in [
        ("agent", ">=0.2"),
        ("agent", "1"),
        ("model", "a | b"),
        ("broker", "~=1.2"),
        ("broker", "*"),
    ] {
        assert_eq!(with(key, value), None, "{key} {value}");
    }
    for (key, value) in [
        ("agent", "new"),
        ("model", ""),
        ("model", "a||b"),
        ("broker", "1.2"),
        ("a/b", "*"),
    ] {
        assert!(with(key, value).is_some(), "{key} {value}");
    }
    assert!(
        component("app@1")
            .conflicts("agent", "*")
            .rules
            .problem()
            .is_some()
    );
    insta::assert_snapshot!(with("broker", "2").unwrap(), @"`broker` in `requires`: `2` is no range of versions: write e.g. `>=1.2`, `>=2,<3`, `==1.4.*`, `~=2.1` or `*`");
}

#[test]
fn patterns_match_whole_names() {
    for (pattern, text, fits) in [
        ("gw-1", "gw-1", true),
        ("gw-1", "gw-10", false),
        ("gw-*", "gw-10", true),
        ("*4*B*", "Pi 4 Model B", true),
        ("*B*4*", "Pi 4 Model B", false),
        ("a*a", "a", false),
        ("a*a", "aa", true),
        ("*", "", true),
        ("x | a*", "abc", true),
    ] {
        assert_eq!(one_of(pattern, text), fits, "{pattern} {text}");
    }
}

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// A component with whole numbers as versions, and rules about `NAMES`.
fn some(name: usize) -> impl Strategy<Value = Component> {
    let rule = (
        0..4_usize,
        prop_oneof![Just(">="), Just("<"), Just("==")],
        1..4_u8,
    );
    let rules = || prop::collection::vec(rule.clone(), 0..3);
    (1..4_u8, rules(), rules()).prop_map(move |(version, requires, conflicts)| {
        let mut made = component(&format!("{}@{version}", NAMES[name]));
        for (other, operator, version) in requires {
            made = made.requires(NAMES[other], &format!("{operator}{version}"));
        }
        for (other, operator, version) in conflicts {
            made = made.conflicts(NAMES[other], &format!("{operator}{version}"));
        }
        made
    })
}

fn some_set() -> impl Strategy<Value = Vec<Component>> {
    let maybe = |name| prop::option::of(some(name));
    (maybe(0), maybe(1), maybe(2), maybe(3))
        .prop_map(|(a, b, c, d)| [a, b, c, d].into_iter().flatten().collect())
}

fn fits(range: &str, version: &str) -> bool {
    let version: u8 = version.parse().unwrap();
    match range.split_at(range.len() - 1) {
        (">=", n) => version >= n.parse::<u8>().unwrap(),
        ("<", n) => version < n.parse::<u8>().unwrap(),
        (_, n) => version == n.parse::<u8>().unwrap(),
    }
}

/// Every pair that a change touches, looked at one by one.
fn holds(installed: &[Component], coming: &[Component]) -> bool {
    let comes = |name: &str| coming.iter().find(|c| c.release.name.as_str() == name);
    let runs = |name: &str| {
        comes(name).or_else(|| installed.iter().find(|c| c.release.name.as_str() == name))
    };
    let after: Vec<&Component> = NAMES.iter().filter_map(|name| runs(name)).collect();
    let about = |c: &Component, other: &str| {
        comes(c.release.name.as_str()).is_some() || comes(other).is_some()
    };
    let back = coming.iter().any(|to| {
        installed.iter().any(|from| {
            from.release.name == to.release.name && from.release.version > to.release.version
        })
    });
    !back
        && after.iter().all(|c| {
            c.rules.requires.iter().all(|(name, range)| {
                !about(c, name)
                    || runs(name).is_some_and(|other| fits(range, other.release.version.as_str()))
            }) && c.rules.conflicts.iter().all(|(name, range)| {
                let other = runs(name).filter(|other| other.release.name != c.release.name);
                !about(c, name)
                    || other.is_none_or(|other| !fits(range, other.release.version.as_str()))
            })
        })
}

fn orders(len: usize) -> Vec<Vec<usize>> {
    if len == 0 {
        return vec![Vec::new()];
    }
    orders(len - 1)
        .into_iter()
        .flat_map(|order| {
            (0..len).map(move |at| {
                let mut order = order.clone();
                order.insert(at, len - 1);
                order
            })
        })
        .collect()
}

/// Whether each comes after all it requires.
fn is_in_order(coming: &[Component], order: &[usize]) -> bool {
    order.iter().enumerate().all(|(at, which)| {
        coming[*which].rules.requires.keys().all(|name| {
            let there = order
                .iter()
                .position(|other| coming[*other].release.name.as_str() == name);
            there.is_none_or(|there| there <= at)
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn plans_hold_exactly_when_every_pair_does(installed in some_set(), coming in some_set()) {
        let solved = solve(&facts(), &installed, &coming, Downgrades::ByRelease);
        prop_assert_eq!(solved.is_ok(), holds(&installed, &coming), "{:?}", solved);
    }

    #[test]
    fn the_order_is_right_whenever_there_is_a_right_one(coming in some_set()) {
        let found = order(&coming);
        let mut sorted = found.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..coming.len()).collect::<Vec<_>>());
        let possible = orders(coming.len()).iter().any(|order| is_in_order(&coming, order));
        prop_assert_eq!(is_in_order(&coming, &found), possible);
    }
}
