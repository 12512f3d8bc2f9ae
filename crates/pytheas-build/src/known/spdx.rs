//! Licences in SPDX's words: expressions (SPDX 2.3, annex D) and whether a policy allows them,
//! and a small table from what packages wrote before PEP 639 to SPDX identifiers.

/// Whether the identifier `entry` of a policy names the licence `id`, whatever the case. GNU's
/// identifiers of before SPDX 3 mean what they meant: `GPL-3.0` all of that version, `GPL-3.0+` what
/// is now `GPL-3.0-or-later`.
pub(crate) fn names(entry: &str, id: &str) -> bool {
    let (entry, id) = (current(entry), current(id));
    let only = |text: &str| format!("{text}-only");
    entry == id
        || is_gnus(&entry) && id.strip_prefix(&entry).is_some_and(is_which)
        || is_gnus(&id) && entry == only(&id)
}

/// In small letters and without the old `+`.
fn current(id: &str) -> String {
    let id = id.to_ascii_lowercase();
    match id.strip_suffix('+').filter(|base| is_gnus(base)) {
        Some(base) => format!("{base}-or-later"),
        None => id,
    }
}

fn is_gnus(id: &str) -> bool {
    ["gpl-", "lgpl-", "agpl-", "gfdl-"]
        .iter()
        .any(|start| id.starts_with(start))
}

/// Whether this is how an identifier of GNU's ends after its version.
fn is_which(end: &str) -> bool {
    ["-only", "-or-later"].contains(&end)
}

/// An SPDX licence expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expression {
    /// `MIT`, `GPL-2.0-or-later`, `Apache-2.0 WITH LLVM-exception`, `LicenseRef-…`.
    Id(String),
    /// All of them hold.
    And(Vec<Expression>),
    /// Any of them may be chosen.
    Or(Vec<Expression>),
}

impl Expression {
    /// Parses an expression; none when it is none. Operators may be written in small letters.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let spaced = text.replace('(', " ( ").replace(')', " ) ");
        let tokens: Vec<&str> = spaced.split_whitespace().collect();
        let mut parser = Parser {
            tokens: &tokens,
            at: 0,
        };
        // An expression of a thousand brackets is no licence.
        if tokens.len() > 200 {
            return None;
        }
        let expression = parser.any()?;
        (parser.at == tokens.len()).then_some(expression)
    }

    /// Whether one can keep to the licence with only identifiers that `is_fine`.
    pub(crate) fn is_satisfied(&self, is_fine: &dyn Fn(&str) -> bool) -> bool {
        match self {
            Self::Id(id) => is_fine(id),
            Self::And(parts) => parts.iter().all(|part| part.is_satisfied(is_fine)),
            Self::Or(parts) => parts.iter().any(|part| part.is_satisfied(is_fine)),
        }
    }

    /// Every identifier in it.
    pub(crate) fn ids(&self) -> Vec<&str> {
        match self {
            Self::Id(id) => vec![id],
            Self::And(parts) | Self::Or(parts) => parts.iter().flat_map(Self::ids).collect(),
        }
    }
}

struct Parser<'a> {
    tokens: &'a [&'a str],
    at: usize,
}

impl Parser<'_> {
    fn next_is(&mut self, word: &str) -> bool {
        let is = self
            .tokens
            .get(self.at)
            .is_some_and(|token| token.eq_ignore_ascii_case(word));
        if is {
            self.at += 1;
        }
        is
    }

    fn any(&mut self) -> Option<Expression> {
        let mut parts = vec![self.all()?];
        while self.next_is("OR") {
            parts.push(self.all()?);
        }
        Some(if parts.len() == 1 {
            parts.remove(0)
        } else {
            Expression::Or(parts)
        })
    }

    fn all(&mut self) -> Option<Expression> {
        let mut parts = vec![self.one()?];
        while self.next_is("AND") {
            parts.push(self.one()?);
        }
        Some(if parts.len() == 1 {
            parts.remove(0)
        } else {
            Expression::And(parts)
        })
    }

    fn one(&mut self) -> Option<Expression> {
        if self.next_is("(") {
            let inner = self.any()?;
            return self.next_is(")").then_some(inner);
        }
        let id = self.id()?;
        if self.next_is("WITH") {
            let exception = self.id()?;
            return Some(Expression::Id(format!("{id} WITH {exception}")));
        }
        Some(Expression::Id(id))
    }

    fn id(&mut self) -> Option<String> {
        let token = *self.tokens.get(self.at)?;
        let is_word = ["AND", "OR", "WITH"]
            .iter()
            .any(|word| token.eq_ignore_ascii_case(word));
        let is_id = token
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '+' | ':'));
        (is_id && !is_word).then(|| {
            self.at += 1;
            canonical(token).unwrap_or(token).to_owned()
        })
    }
}

/// The identifiers that Python packages use, in SPDX's spelling.
const KNOWN: &[&str] = &[
    "0BSD",
    "AFL-2.1",
    "AFL-3.0",
    "AGPL-3.0",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "Apache-1.1",
    "Apache-2.0",
    "Artistic-1.0",
    "Artistic-2.0",
    "BlueOak-1.0.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-2-Clause-Patent",
    "BSD-3-Clause",
    "BSD-3-Clause-Clear",
    "BSD-4-Clause",
    "BSL-1.0",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "CECILL-2.1",
    "CECILL-B",
    "CECILL-C",
    "CDDL-1.0",
    "CNRI-Python",
    "curl",
    "EPL-1.0",
    "EPL-2.0",
    "EUPL-1.1",
    "EUPL-1.2",
    "FSFAP",
    "FSFUL",
    "FSFULLR",
    "FTL",
    "GPL-1.0-or-later",
    "GPL-2.0",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "HPND",
    "ICU",
    "IJG",
    "ISC",
    "LGPL-2.0-only",
    "LGPL-2.0-or-later",
    "LGPL-2.1",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "libpng-2.0",
    "Libpng",
    "libtiff",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MPL-1.1",
    "MPL-2.0",
    "MulanPSL-2.0",
    "NCSA",
    "OFL-1.1",
    "OLDAP-2.8",
    "OpenSSL",
    "PostgreSQL",
    "PSF-2.0",
    "Python-2.0",
    "Python-2.0.1",
    "Ruby",
    "SSPL-1.0",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "UPL-1.0",
    "Vim",
    "W3C",
    "WTFPL",
    "X11",
    "Zlib",
    "ZPL-2.0",
    "ZPL-2.1",
    "bzip2-1.0.6",
    "blessing",
    "TCL",
    "Beerware",
    "BUSL-1.1",
];

/// Whether it is an identifier of ours or SPDX's, as far as the table goes; a reference (`LicenseRef-…`)
/// is one.
pub(crate) fn is_known(id: &str) -> bool {
    let id = id.trim();
    let is_reference = ["LicenseRef-", "DocumentRef-"]
        .iter()
        .any(|start| id.starts_with(start));
    is_reference || canonical(id).is_some() || canonical(id.trim_end_matches('+')).is_some()
}

/// The identifier of the table that is written most like it.
pub(crate) fn nearest(id: &str) -> Option<&'static str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace([' ', '_'], "-");
    let id = plain(id);
    let longer = || {
        let mut longer = KNOWN.iter().filter(|known| plain(known).starts_with(&id));
        longer.next().copied().filter(|_| id.len() > 2)
    };
    let lower: Vec<String> = KNOWN.iter().map(|known| plain(known)).collect();
    let near = pytheas_project::closest(&id, lower.iter().map(String::as_str));
    longer().or_else(|| {
        let at = lower
            .iter()
            .position(|known| Some(known.as_str()) == near)?;
        KNOWN.get(at).copied()
    })
}

/// SPDX's spelling of an identifier; none for one that is not in the table.
pub(crate) fn canonical(id: &str) -> Option<&'static str> {
    KNOWN
        .iter()
        .find(|known| known.eq_ignore_ascii_case(id))
        .copied()
}

/// The expression that a `License` header or a classifier means; none when it says too little.
pub(crate) fn from_words(text: &str) -> Option<String> {
    let text = text.trim().trim_end_matches('.');
    if text.len() > 120 || text.contains('\n') {
        return None;
    }
    if let Some(id) = canonical(text) {
        return Some(id.to_owned());
    }
    let words: String = text
        .to_lowercase()
        .replace(['"', '\'', ',', '(', ')', '_'], " ")
        .replace("licence", "license")
        .replace("version ", "")
        .split_whitespace()
        .filter(|word| !matches!(*word, "the" | "license" | "software" | "licensed" | "under"))
        .collect::<Vec<_>>()
        .join(" ");
    let id = match words.as_str() {
        "mit" | "expat" | "mit/expat" | "mit mit" => "MIT",
        "mit-cmu" | "historical permission notice and disclaimer hpnd" | "hpnd" => "HPND",
        "apache" | "apache 2" | "apache 2.0" | "apache v2" | "apache v2.0" | "apache2"
        | "apache2.0" | "apache-2" | "asl 2.0" | "asl 2" | "apache license 2.0" => "Apache-2.0",
        "bsd 3-clause"
        | "3-clause bsd"
        | "new bsd"
        | "modified bsd"
        | "bsd 3 clause"
        | "bsd3"
        | "bsd-3"
        | "bsd 3-clause new or revised"
        | "revised bsd" => "BSD-3-Clause",
        "bsd 2-clause" | "2-clause bsd" | "simplified bsd" | "bsd-2" | "bsd 2 clause" => {
            "BSD-2-Clause"
        }
        "psf" | "psfl" | "python foundation" | "python psf" | "psf-2" => "PSF-2.0",
        "mpl 2.0" | "mpl2" | "mpl-2" | "mozilla public 2.0 mpl 2.0" | "mozilla public 2.0" => {
            "MPL-2.0"
        }
        "mozilla public 1.1 mpl 1.1" => "MPL-1.1",
        "isc isc" | "isc iscl" | "isc l" => "ISC",
        "zlib/libpng" | "zlib" => "Zlib",
        "unlicense unlicense" | "unlicense" => "Unlicense",
        "cc0" | "cc0 1.0 universal cc0 1.0 public domain dedication" => "CC0-1.0",
        "zope public" | "zpl 2.1" => "ZPL-2.1",
        "boost 1.0 bsl-1.0" | "boost" => "BSL-1.0",
        "university of illinois/ncsa open source" => "NCSA",
        "gnu general public v2 gplv2" | "gplv2" | "gpl v2" | "gnu gplv2" => "GPL-2.0-only",
        "gnu general public v2 or later gplv2+" | "gplv2+" | "gpl-2.0+" => "GPL-2.0-or-later",
        "gnu general public v3 gplv3" | "gplv3" | "gpl v3" | "gnu gplv3" | "gnu gpl v3" => {
            "GPL-3.0-only"
        }
        "gnu general public v3 or later gplv3+" | "gplv3+" | "gpl-3.0+" => "GPL-3.0-or-later",
        "gnu lesser general public v2 lgplv2" => "LGPL-2.0-only",
        "gnu lesser general public v2 or later lgplv2+" => "LGPL-2.0-or-later",
        "gnu lesser general public v3 lgplv3" | "lgplv3" | "lgpl v3" => "LGPL-3.0-only",
        "gnu lesser general public v3 or later lgplv3+" | "lgplv3+" => "LGPL-3.0-or-later",
        "gnu affero general public v3" | "agplv3" | "agpl v3" => "AGPL-3.0-only",
        "gnu affero general public v3 or later agplv3+" | "agplv3+" => "AGPL-3.0-or-later",
        "eclipse public 2.0 epl-2.0" => "EPL-2.0",
        "eclipse public 1.0 epl-1.0" => "EPL-1.0",
        "european union public 1.2 eupl 1.2" => "EUPL-1.2",
        "do what the fuck you want to public wtfpl" | "wtfpl" => "WTFPL",
        _ => {
            // Someone who writes `MIT OR Apache-2.0` there means it.
            let expression = Expression::parse(text)?;
            let all_known = expression.ids().iter().all(|id| {
                let base = id.split(" WITH ").next().unwrap_or(id);
                canonical(base).is_some()
            });
            return all_known.then(|| text.to_owned());
        }
    };
    Some(id.to_owned())
}

/// The licence whose text this is, told by phrases that only its text has.
pub(crate) fn from_text(text: &str) -> Option<&'static str> {
    let text: String = text
        .to_lowercase()
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    let has = |phrase: &str| text.contains(phrase);
    if has("redistribution and use in source and binary forms") {
        return Some(
            if has("neither the name")
                || has("may not be used to endorse")
                || has("names of its contributors")
            {
                "BSD-3-Clause"
            } else {
                "BSD-2-Clause"
            },
        );
    }
    if has("permission is hereby granted, free of charge, to any person obtaining a copy") {
        return Some("MIT");
    }
    if has("permission to use, copy, modify, and/or distribute this software for any purpose")
        || has("permission to use, copy, modify, and distribute this software for any purpose")
    {
        return Some("ISC");
    }
    if has("apache license") && has("version 2.0, january 2004") {
        return Some("Apache-2.0");
    }
    if has("mozilla public license version 2.0") {
        return Some("MPL-2.0");
    }
    if has("python software foundation license version 2") {
        return Some("PSF-2.0");
    }
    if has("this is free and unencumbered software released into the public domain") {
        return Some("Unlicense");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_identifiers_of_gnu_name_what_they_named() {
        for (entry, id) in [
            ("GPL-3.0", "GPL-3.0-only"),
            ("GPL-3.0", "GPL-3.0-or-later"),
            ("gpl-3.0", "GPL-3.0+"),
            ("GPL-3.0-only", "GPL-3.0"),
            ("GPL-3.0-or-later", "GPL-3.0+"),
            ("AGPL-3.0", "AGPL-3.0-or-later"),
            ("mit", "MIT"),
        ] {
            assert!(names(entry, id), "{entry} {id}");
        }
        for (entry, id) in [
            ("GPL-3.0-only", "GPL-3.0-or-later"),
            ("GPL-3.0-or-later", "GPL-3.0"),
            ("GPL-3.0", "LGPL-3.0-only"),
            ("GPL-3", "GPL-3.0-only"),
            ("GPL-2.0", "GPL-2.0-only WITH Classpath-exception-2.0"),
            ("MIT", "MIT-0"),
        ] {
            assert!(!names(entry, id), "{entry} {id}");
        }
    }

    #[track_caller]
    fn check(expression: &str, allowed: &[&str], expected: bool) {
        let parsed = Expression::parse(expression).unwrap_or_else(|| panic!("{expression}"));
        assert_eq!(
            parsed.is_satisfied(&|id| allowed.contains(&id)),
            expected,
            "{expression}"
        );
    }

    #[test]
    fn or_is_a_choice_and_and_is_not() {
        check("MIT", &["MIT"], true);
        check("mit", &["MIT"], true);
        check("MIT OR GPL-3.0-only", &["MIT"], true);
        check("MIT AND GPL-3.0-only", &["MIT"], false);
        check(
            "(MIT OR Apache-2.0) AND BSD-3-Clause",
            &["Apache-2.0", "BSD-3-Clause"],
            true,
        );
        // `AND` binds tighter than `OR`.
        check("MIT OR ISC AND Zlib", &["MIT"], true);
        check("MIT OR ISC AND Zlib", &["ISC"], false);
        check("Apache-2.0 WITH LLVM-exception", &["Apache-2.0"], false);
        check("LicenseRef-Own", &["LicenseRef-Own"], true);
    }

    #[test]
    fn what_is_no_expression_is_none() {
        for wrong in [
            "",
            "MIT OR",
            "(MIT",
            "MIT)",
            "MIT Apache-2.0",
            "OR",
            "MIT WITH",
            "a/b",
        ] {
            assert_eq!(Expression::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Expression::parse(&"(".repeat(100_000)), None);
    }

    #[test]
    fn old_words_have_identifiers() {
        for (words, id) in [
            ("MIT License", "MIT"),
            ("The MIT License (MIT)", "MIT"),
            ("Apache Software License", "Apache-2.0"),
            ("Apache License, Version 2.0", "Apache-2.0"),
            ("Apache License 2.0", "Apache-2.0"),
            ("BSD 3-Clause License", "BSD-3-Clause"),
            ("Mozilla Public License 2.0 (MPL 2.0)", "MPL-2.0"),
            ("Python Software Foundation License", "PSF-2.0"),
            (
                "GNU General Public License v3 or later (GPLv3+)",
                "GPL-3.0-or-later",
            ),
            ("MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        ] {
            assert_eq!(from_words(words).as_deref(), Some(id), "{words}");
        }
        // One of several: the words do not say which.
        assert_eq!(from_words("BSD License"), None);
        assert_eq!(from_words("Other/Proprietary License"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_without_a_panic(text in "([()A-Za-z0-9.+ -]|OR|AND|WITH){0,60}") {
            let _ = (Expression::parse(&text), from_words(&text), from_text(&text));
        }
    }
}
