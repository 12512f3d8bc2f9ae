//! Which wheels fit: names (PEP 427), tags (PEP 425), manylinux (PEP 600), musllinux (PEP 656).
//! Used to say early and clearly that a package has none; uv makes the choice itself.

use pytheas_release::Platform;

/// The part of a wheel's name that says where it fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tags {
    python: String,
    abi: String,
    platform: String,
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
        })
    }

    /// The tags as in the name: `cp311-cp311-manylinux_2_17_x86_64`.
    pub(crate) fn shown(&self) -> String {
        format!("{}-{}-{}", self.python, self.abi, self.platform)
    }

    pub(crate) fn fits(&self, site: Site<'_>) -> bool {
        self.platform.split('.').any(|tag| platform_fits(tag, site)) && self.python_fits(site)
    }

    fn python_fits(&self, site: Site<'_>) -> bool {
        let own_abi = format!(
            "cp3{}{}",
            site.minor,
            if site.free_threaded { "t" } else { "" }
        );
        let minor_of = |tag: &str, prefix: &str| {
            tag.strip_prefix(prefix)
                .and_then(|minor| minor.parse::<u8>().ok())
        };
        self.python.split('.').any(|python| {
            self.abi
                .split('.')
                .any(|abi| match (minor_of(python, "cp3"), abi) {
                    (Some(minor), "abi3") => minor <= site.minor && !site.free_threaded,
                    (Some(minor), "none") => minor == site.minor,
                    (Some(minor), abi) => minor == site.minor && abi == own_abi,
                    (None, "none") => {
                        python == "py3"
                            || minor_of(python, "py3").is_some_and(|minor| minor <= site.minor)
                    }
                    (None, _) => false,
                })
        })
    }
}

fn platform_fits(tag: &str, site: Site<'_>) -> bool {
    if tag == "any" {
        return true;
    }
    let arch = match site.platform.arch() {
        "armv7" => "armv7l",
        other => other,
    };
    let Some(base) = tag
        .strip_suffix(arch)
        .and_then(|base| base.strip_suffix('_'))
    else {
        return false;
    };
    let version = |text: &str| -> Option<(u16, u16)> {
        let (major, minor) = text.split_once('_')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    if base == "linux" {
        return true;
    }
    if let Some(rest) = base.strip_prefix("musllinux_") {
        return site.platform.is_musl() && version(rest).is_some();
    }
    let needs = match base {
        "manylinux1" => Some((2, 5)),
        "manylinux2010" => Some((2, 12)),
        "manylinux2014" => Some((2, 17)),
        _ => base.strip_prefix("manylinux_").and_then(version),
    };
    needs.is_some_and(|needs| site.glibc.is_some_and(|has| needs <= has))
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

    proptest::proptest! {
        #[test]
        fn any_name_is_parsed_without_a_panic(name in "[a-z0-9._-]{0,60}(\\.whl)?") {
            let _ = Tags::parse(&name).map(|tags| tags.shown());
        }
    }
}
