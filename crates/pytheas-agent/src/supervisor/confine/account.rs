//! The user an app runs as, from `/etc/passwd` and `/etc/group`: the agent is linked statically
//! and asks no name service.

use std::{fs, io, path::Path};

/// A user with its groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// All groups, `gid` included: `dialout` and `gpio` are what gateways live from.
    pub(super) groups: Vec<u32>,
}

impl Account {
    /// The user with this name or number.
    ///
    /// # Errors
    /// When there is no such user, or the files cannot be read.
    pub(super) fn find(user: &str) -> io::Result<Self> {
        let passwd = fs::read_to_string(Path::new("/etc/passwd"))?;
        let group = fs::read_to_string(Path::new("/etc/group")).unwrap_or_default();
        Self::parse(user, &passwd, &group).ok_or_else(|| {
            let text = format!("there is no user `{user}` in `/etc/passwd`");
            io::Error::new(io::ErrorKind::NotFound, text)
        })
    }

    fn parse(user: &str, passwd: &str, group: &str) -> Option<Self> {
        let (name, uid, gid) = passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?;
            let gid = fields.next()?.parse().ok()?;
            (name == user || uid == user).then_some((name, uid.parse().ok()?, gid))
        })?;
        let mut groups = vec![gid];
        for line in group.lines() {
            let fields: Vec<&str> = line.split(':').collect();
            let [_, _, number, members] = fields[..] else {
                continue;
            };
            if let Ok(number) = number.parse()
                && number != gid
                && members.split(',').any(|member| member == name)
            {
                groups.push(number);
            }
        }
        Some(Self {
            name: name.to_owned(),
            uid,
            gid,
            groups,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_name_or_number_with_all_its_groups() {
        let passwd =
            "root:x:0:0:root:/root:/bin/sh\nbroken\napp:x:1001:1002::/var/lib/app:/bin/false\n";
        let group = "app:x:1002:\ndialout:x:20:other,app\nodd:x\ngpio:x:997:app\nnot:x:5:apps\n";
        let expected = Account {
            name: "app".into(),
            uid: 1001,
            gid: 1002,
            groups: vec![1002, 20, 997],
        };
        for user in ["app", "1001"] {
            assert_eq!(
                Account::parse(user, passwd, group).as_ref(),
                Some(&expected)
            );
        }
        for nobody in ["", "nobody", "10", "ap"] {
            assert_eq!(Account::parse(nobody, passwd, group), None, "{nobody}");
        }
    }
}
