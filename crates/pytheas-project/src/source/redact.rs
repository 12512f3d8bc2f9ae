//! Credentials out of texts that are shown, logged or stored.

/// The text with `user:password@` taken out of each address in it.
pub(crate) fn redacted(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        result.push_str(before);
        let ends = |c: char| {
            c.is_whitespace()
                || matches!(
                    c,
                    '/' | '?' | '#' | '"' | '\'' | '`' | '<' | '>' | ')' | '('
                )
        };
        let end = after.find(ends).unwrap_or(after.len());
        let authority = &after[..end];
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(user, host)| {
                // Without its user name an SSH address is another one; a password has no place in it.
                if before.ends_with("ssh://") {
                    let user = user.split(':').next().unwrap_or(user);
                    result.push_str(&format!("{user}@"));
                }
                host
            });
        result.push_str(host);
        rest = &after[end..];
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_taken_out_wherever_an_address_stands() {
        let check = |text: &str, expected: &str| assert_eq!(redacted(text), expected);
        check("https://u:p@h/s", "https://h/s");
        check(
            "index `http://u:p%40@h:80`, and (http://t@h)",
            "index `http://h:80`, and (http://h)",
        );
        check("git+ssh://git:p@h/o/r.git", "git+ssh://git@h/o/r.git");
        check("a@b.example, no address", "a@b.example, no address");
        check(
            "url = \"https://u:p@h/x\"\nnext = \"https://h2/y@z\"",
            "url = \"https://h/x\"\nnext = \"https://h2/y@z\"",
        );
    }
}
