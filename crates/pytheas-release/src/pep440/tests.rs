//! Versions against the reference's answers and against the resolver's library.

use proptest::prelude::*;

use super::*;

#[test]
fn versions_are_ordered_as_pep_440_says() {
    let sorted = [
        "1.dev0",
        "1.0.dev456",
        "1.0a1",
        "1.0a2.dev456",
        "1.0a12.dev456",
        "1.0a12",
        "1.0b1.dev456",
        "1.0b2",
        "1.0b2.post345.dev456",
        "1.0b2.post345",
        "1.0rc1.dev456",
        "1.0rc1",
        "1.0",
        "1.0+abc.5",
        "1.0+abc.7",
        "1.0+5",
        "1.0.post456.dev34",
        "1.0.post456",
        "1.0.15",
        "1.1.dev1",
        "1.10",
        "1!0.1",
    ];
    for pair in sorted.windows(2) {
        let (a, b): (Pep440, Pep440) = (pair[0].parse().unwrap(), pair[1].parse().unwrap());
        assert!(a < b, "{pair:?}");
        assert!(b > a, "{pair:?}");
    }
    for (a, b) in [
        ("1", "1.0.0"),
        ("1.0-1", "1.post1"),
        ("v1.0RC1", "1.0-c-1"),
        ("1.0_a", "1a0"),
    ] {
        assert_eq!(a.parse::<Pep440>().unwrap(), b.parse().unwrap(), "{a} {b}");
    }
    for wrong in [
        "",
        "one",
        "1..2",
        "1.0x",
        "1+",
        "1+a..b",
        "99999999999999999999",
        "1 2",
        "1.0-",
        "é",
    ] {
        assert!(wrong.parse::<Pep440>().is_err(), "{wrong}");
    }
}

#[test]
fn what_is_no_range_is_refused() {
    for wrong in [
        "1.2", "=1", ">=", ">=1,", "~=1", ">=1.*", "==1.*.2", "===", ">=1+abc", "=>1", "^1.2",
    ] {
        assert!(wrong.parse::<Specifiers>().is_err(), "{wrong}");
    }
    assert!("".parse::<Specifiers>().unwrap().is_any());
    assert!(
        "*".parse::<Specifiers>()
            .unwrap()
            .contain("a1b2c3d")
            .unwrap()
    );
    assert!(
        ">=1"
            .parse::<Specifiers>()
            .unwrap()
            .contain("a1b2c3d")
            .is_err()
    );
    assert!(
        "===a1b2c3d"
            .parse::<Specifiers>()
            .unwrap()
            .contain("A1B2C3D")
            .unwrap()
    );
}

/// What `packaging` 21.3 says, with pre-releases allowed.
#[test]
fn ranges_hold_what_the_reference_says() {
    let versions =
        "1 1.0.1 2 2.0.0 2a0 2a1 2.dev0 2.post0 2.post1.dev0 2.1 2.1rc1 2.10 1!2 2+local 3";
    for (range, expected) in [
        ("<2a1", "1 1.0.1 2a0 2.dev0"),
        ("<2", "1 1.0.1"),
        ("<2.post0", "1 1.0.1 2 2.0.0 2+local"),
        ("<2.post0.dev0", "1 1.0.1 2 2.0.0 2a0 2a1 2.dev0 2+local"),
        (">2", "2.1 2.1rc1 2.10 1!2 3"),
        (">2a0", "2 2.0.0 2a1 2.1 2.1rc1 2.10 1!2 3"),
        (">2.post0", "2.post1.dev0 2.1 2.1rc1 2.10 1!2 3"),
        (
            ">=2",
            "2 2.0.0 2.post0 2.post1.dev0 2.1 2.1rc1 2.10 1!2 2+local 3",
        ),
        ("<=2", "1 1.0.1 2 2.0.0 2a0 2a1 2.dev0 2+local"),
        ("==2", "2 2.0.0 2+local"),
        (
            "!=2",
            "1 1.0.1 2a0 2a1 2.dev0 2.post0 2.post1.dev0 2.1 2.1rc1 2.10 1!2 3",
        ),
        ("==2.1.*", "2.1 2.1rc1"),
        (
            "!=2.1.*",
            "1 1.0.1 2 2.0.0 2a0 2a1 2.dev0 2.post0 2.post1.dev0 2.10 1!2 2+local 3",
        ),
        (
            "==2.*",
            "2 2.0.0 2a0 2a1 2.dev0 2.post0 2.post1.dev0 2.1 2.1rc1 2.10 2+local",
        ),
        (
            "~=2.0",
            "2 2.0.0 2.post0 2.post1.dev0 2.1 2.1rc1 2.10 2+local",
        ),
        ("~=2.1rc1", "2.1 2.1rc1 2.10"),
        ("==2+local", "2+local"),
        (
            ">1,<2.10",
            "1.0.1 2 2.0.0 2a0 2a1 2.dev0 2.post0 2.post1.dev0 2.1 2.1rc1 2+local",
        ),
        ("===2", "2"),
    ] {
        let range: Specifiers = range.parse().unwrap();
        let held: Vec<&str> = versions
            .split(' ')
            .filter(|version| range.contain(version).unwrap())
            .collect();
        assert_eq!(held.join(" "), expected, "{range}");
    }
}

fn versions() -> impl Strategy<Value = String> {
    "(1!)?[0-2](\\.[0-2]){0,2}((a|b|rc)[0-2])?(\\.post[0-1])?(\\.dev[0-1])?"
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    #[test]
    fn order_and_ranges_agree_with_the_resolvers(a in versions(), b in versions(), operator in 0..5_usize) {
        let theirs = |text: &str| text.parse::<pep440_rs::Version>().unwrap();
        let ours = |text: &str| text.parse::<Pep440>().unwrap();
        prop_assert_eq!(ours(&a).cmp(&ours(&b)), theirs(&a).cmp(&theirs(&b)));
        // uv's library departs from the PEP in `<` and `>` with pre-releases: see the table above.
        let operator = ["==", "!=", "~=", ">=", "<="][operator];
        let text = format!("{operator}{b}");
        let specifier = text.parse::<pep440_rs::VersionSpecifiers>();
        let found = text.parse::<Specifiers>();
        prop_assert_eq!(specifier.is_ok(), found.is_ok(), "{}", &text);
        if let (Ok(theirs_say), Ok(ours_say)) = (specifier, found) {
            prop_assert_eq!(ours_say.contain(&a).unwrap(), theirs_say.contains(&theirs(&a)), "{} {}", &a, &text);
        }
    }

    #[test]
    fn no_text_is_too_strange(text in "\\PC{0,30}") {
        let _any = text.parse::<Pep440>();
        let _any = text.parse::<Specifiers>().map(|s| s.contain(&text));
    }
}
