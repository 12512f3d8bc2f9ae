//! Which wheels fit: names (PEP 427), tags (PEP 425), manylinux (PEP 600), musllinux (PEP 656).
//! The best one is chosen as pip does it: by ABI, then platform, then build number.

use pytheas_release::Platform;

/// The part of a wheel's name that says where it fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tags {
    python: String,
    abi: String,
    platform: String,
    /// The build number, mostly empty.
    build: String,
}

/// Where a wheel is to fit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Site<'a> {
    pub(crate) platform: &'a Platform,
    /// Minor version of Python 3.
    pub(crate) minor: u8,
    pub(crate) free_threaded: bool,
    pub(crate) glibc: Option<(u16, u16)>,
}

impl Tags {
    /// The tags of the wheel `file_name`; none when it is no wheel's name.
    pub(crate) fn parse(file_name: &str) -> Option<Self> {
        let parts: Vec<&str> = file_name.strip_suffix(".whl")?.split('-').collect();
        let [_, _, .., python, abi, platform] = parts.as_slice() else {
            return None;
        };
        (parts.len() == 5 || parts.len() == 6).then(|| Self {
            python: (*python).to_owned(),
            abi: (*abi).to_owned(),
            platform: (*platform).to_owned(),
            build: if parts.len() == 6 {
                parts[2].to_owned()
            } else {
                String::new()
            },
        })
    }

    /// The tags as in the name: `cp311-cp311-manylinux_2_17_x86_64`.
    pub(crate) fn shown(&self) -> String {
        format!("{}-{}-{}", self.python, self.abi, self.platform)
    }

    /// How well it fits: the greatest is the best. None when it does not fit.
    ///
    /// The order is that of PEP 425's implementation in `packaging`: compiled for just this Python,
    /// for its stable ABI, for none; a newer manylinux before an older one; `any` last.
    pub(crate) fn rank(&self, site: Site<'_>) -> Option<Rank> {
        let pythons = self.python.split('.');
        let best = pythons
            .flat_map(|python| self.abi.split('.').map(move |abi| (python, abi)))
            .filter_map(|(python, abi)| python_rank(python, abi, site))
            .max()?;
        let platform = self
            .platform
            .split('.')
            .filter_map(|tag| platform_rank(tag, site))
            .max()?;
        let digits = self.build.bytes().take_while(u8::is_ascii_digit).count();
        let number = self.build[..digits].parse().unwrap_or(0);
        let build = (number, self.build[digits..].to_owned());
        let is_compiled = platform > 0;
        Some(Rank(is_compiled, best, platform, build))
    }

    /// Whether it is for the platform's CPU and C library, whatever the Python and its age.
    pub(crate) fn is_for(&self, platform: &Platform) -> bool {
        let site = Site {
            platform,
            minor: 0,
            free_threaded: false,
            glibc: (!platform.is_musl()).then_some((u16::MAX, u16::MAX)),
        };
        let mut tags = self.platform.split('.');
        tags.any(|tag| platform_rank(tag, site).is_some())
    }

    /// Whether it fits at all.
    #[cfg(test)]
    fn fits(&self, site: Site<'_>) -> bool {
        self.rank(site).is_some()
    }
}

/// How well a wheel fits; only for comparing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank(bool, (u8, u8), u32, (u64, String));

/// Minor version that the tags are made for, and how near they are to the interpreter.
fn python_rank(python: &str, abi: &str, site: Site<'_>) -> Option<(u8, u8)> {
    let own_abi = format!(
        "cp3{}{}",
        site.minor,
        if site.free_threaded { "t" } else { "" }
    );
    let minor_of = |prefix: &str| -> Option<u8> { python.strip_prefix(prefix)?.parse::<u8>().ok() };
    match (minor_of("cp3"), abi) {
        (Some(minor), "abi3") if minor <= site.minor && !site.free_threaded => {
            // Before another ABI only for the very version: `cp311-none` comes before `cp310-abi3`.
            Some((if minor == site.minor { 5 } else { 3 }, minor))
        }
        (Some(minor), "none") if minor == site.minor => Some((4, minor)),
        (Some(minor), abi) if minor == site.minor && abi == own_abi => Some((6, minor)),
        (None, "none") if python == "py3" => Some((1, site.minor)),
        (None, "none") => {
            let minor = minor_of("py3").filter(|minor| *minor <= site.minor)?;
            Some((
                if minor == site.minor { 2 } else { 1 },
                minor.min(site.minor),
            ))
        }
        _ => None,
    }
}

/// 0 for `any`; the newer the C library a wheel was made for, the more.
fn platform_rank(tag: &str, site: Site<'_>) -> Option<u32> {
    if tag == "any" {
        return Some(0);
    }
    let arch = match site.platform.arch() {
        "armv7" => "armv7l",
        other => other,
    };
    let base = tag.strip_suffix(arch)?.strip_suffix('_')?;
    let version = |text: &str| -> Option<(u16, u16)> {
        let (major, minor) = text.split_once('_')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let rank = |(major, minor): (u16, u16)| 2 + u32::from(major) * 1000 + u32::from(minor.min(999));
    if base == "linux" {
        return Some(1);
    }
    if let Some(rest) = base.strip_prefix("musllinux_") {
        // The device's musl is not known; 1.2 has been everywhere since 2020.
        return version(rest)
            .filter(|needs| site.platform.is_musl() && *needs <= (1, 2))
            .map(rank);
    }
    let needs = match base {
        "manylinux1" => (2, 5),
        "manylinux2010" => (2, 12),
        "manylinux2014" => (2, 17),
        _ => base.strip_prefix("manylinux_").and_then(version)?,
    };
    site.glibc.filter(|has| needs <= *has).map(|_| rank(needs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(file_name: &str, expected: bool) {
        let platform: Platform = "linux-x86_64".parse().unwrap();
        let site = Site {
            platform: &platform,
            minor: 11,
            free_threaded: false,
            glibc: Some((2, 36)),
        };
        assert_eq!(
            Tags::parse(file_name).is_some_and(|tags| tags.fits(site)),
            expected,
            "{file_name}"
        );
    }

    #[test]
    fn a_wheel_fits_by_python_abi_and_platform() {
        check("a-1-py3-none-any.whl", true);
        check("a-1-py2.py3-none-any.whl", true);
        check("a-1-2-py311-none-any.whl", true);
        check("a-1-py312-none-any.whl", false);
        check("a-1-py2-none-any.whl", false);
        check(
            "a-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            true,
        );
        check("a-1-cp311-cp311-manylinux_2_39_x86_64.whl", false);
        check("a-1-cp312-cp312-manylinux2014_x86_64.whl", false);
        check("a-1-cp39-abi3-manylinux1_x86_64.whl", true);
        check("a-1-cp312-abi3-manylinux1_x86_64.whl", false);
        check("a-1-py3-none-manylinux2014_x86_64.whl", true);
        check("a-1-cp311-cp311-musllinux_1_2_x86_64.whl", false);
        check("a-1-cp311-cp311-manylinux2014_aarch64.whl", false);
        check("a-1-cp311-cp311-win_amd64.whl", false);
        check("a-1-cp311-cp311-linux_x86_64.whl", true);
        check("a-1.tar.gz", false);
        check("a-1-cp311.whl", false);
    }

    #[test]
    fn the_best_wheel_is_the_one_pip_takes() {
        // Each list from the best to the worst.
        for (platform, glibc, wheels) in [
            (
                "linux-aarch64",
                Some((2, 36)),
                &[
                    "a-1-cp311-cp311-manylinux_2_28_aarch64.whl",
                    "a-1-2-cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64.whl",
                    "a-1-cp311-cp311-manylinux2014_aarch64.whl",
                    "a-1-cp311-cp311-linux_aarch64.whl",
                    "a-1-cp311-abi3-manylinux2014_aarch64.whl",
                    "a-1-cp39-abi3-manylinux2014_aarch64.whl",
                    "a-1-cp38-abi3-manylinux_2_28_aarch64.whl",
                    "a-1-py3-none-manylinux2014_aarch64.whl",
                    "a-1-cp311-none-any.whl",
                    "a-1-py3-none-any.whl",
                ][..],
            ),
            (
                "linux-armv7",
                Some((2, 36)),
                &[
                    "a-1-cp311-cp311-manylinux_2_31_armv7l.whl",
                    "a-1-cp311-cp311-linux_armv7l.whl",
                    "a-1-py2.py3-none-any.whl",
                ],
            ),
            (
                "linux-x86_64-musl",
                None,
                &[
                    "a-1-cp311-cp311-musllinux_1_2_x86_64.whl",
                    "a-1-cp311-cp311-musllinux_1_1_x86_64.whl",
                    "a-1-py3-none-any.whl",
                ],
            ),
        ] {
            let platform: Platform = platform.parse().unwrap();
            let site = Site {
                platform: &platform,
                minor: 11,
                free_threaded: false,
                glibc,
            };
            let ranks: Vec<Rank> = wheels
                .iter()
                .map(|name| Tags::parse(name).unwrap().rank(site).expect(name))
                .collect();
            for (index, pair) in ranks.windows(2).enumerate() {
                assert!(pair[0] > pair[1], "{} {}", wheels[index], wheels[index + 1]);
            }
            for wrong in [
                "a-1-cp311-cp311-manylinux_2_99_aarch64.whl",
                "a-1-cp311-cp311-manylinux2014_i686.whl",
            ] {
                assert_eq!(Tags::parse(wrong).unwrap().rank(site), None);
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn any_name_is_parsed_without_a_panic(name in "[a-z0-9._-]{0,60}(\\.whl)?") {
            let _ = Tags::parse(&name).map(|tags| tags.shown());
        }
    }
}
