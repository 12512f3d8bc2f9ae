//! Who we are to an index: what was given, else the environment (ours, uv's, twine's), else the
//! address itself, else `netrc`.

use base64::Engine as _;
use pytheas_project::{Environment, login, netrc};
use url::Url;

/// The user name that goes with a token.
const TOKEN_USER: &str = "__token__";

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: String,
    /// Where they came from, for messages.
    pub origin: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials of `{}` from {}", self.user, self.origin)
    }
}

/// What the command line says.
#[derive(Clone, Default)]
pub struct Given {
    /// A token.
    pub token: Option<String>,
    /// A user.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<String>,
}

impl Credentials {
    /// Who to be to the index at `url`; none when nobody says.
    pub fn find(given: &Given, url: &Url, environment: &Environment) -> Option<Self> {
        let new = |user: &str, password: &str, origin: &str| Self {
            user: user.to_owned(),
            password: password.to_owned(),
            origin: origin.to_owned(),
        };
        if let Some(token) = &given.token {
            return Some(new(TOKEN_USER, token, "`--token`"));
        }
        if let Some(token) = environment.get("PYTHEAS_INDEX_TOKEN") {
            return Some(new(TOKEN_USER, token, "`PYTHEAS_INDEX_TOKEN`"));
        }
        if let Some(user) = given.username.as_deref() {
            let password = given.password.as_deref().unwrap_or_default();
            return Some(new(user, password, "`--username`"));
        }
        if let Some(token) = environment.get("UV_PUBLISH_TOKEN") {
            return Some(new(TOKEN_USER, token, "`UV_PUBLISH_TOKEN`"));
        }
        for (user, password) in [
            ("UV_PUBLISH_USERNAME", "UV_PUBLISH_PASSWORD"),
            ("TWINE_USERNAME", "TWINE_PASSWORD"),
        ] {
            if let Some(secret) = environment.get(password) {
                let name = environment.get(user).unwrap_or(TOKEN_USER);
                return Some(new(name, secret, &format!("`{password}`")));
            }
        }
        if !url.username().is_empty() || url.password().is_some() {
            let user = decoded(url.username());
            let password = decoded(url.password().unwrap_or_default());
            return Some(new(&user, &password, "the address"));
        }
        let (file, text) = netrc(environment)?;
        let (user, password) = login(&text, url.host_str()?)?;
        Some(new(&user, &password, &format!("`{}`", file.display())))
    }

    /// The header `authorization`.
    pub(super) fn header(&self) -> String {
        let text = format!("{}:{}", self.user, self.password);
        let text = base64::engine::general_purpose::STANDARD.encode(text);
        format!("Basic {text}")
    }

    /// Puts them into an address.
    pub(super) fn add_to(&self, url: &mut Url) {
        // Both fail only for addresses without a host.
        let _ = url.set_username(&self.user);
        let _ = url.set_password(Some(&self.password));
    }
}

fn decoded(text: &str) -> String {
    let pair = format!("x={}", text.replace('+', "%2B"));
    let mut pairs = url::form_urlencoded::parse(pair.as_bytes());
    pairs
        .next()
        .map_or(String::new(), |(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_counts() {
        let dir = tempfile::tempdir().unwrap();
        let netrc = dir.path().join("netrc");
        let text = "machine other login o password p\nmachine index.example\n  login me\n  password s3\ndefault login d password e\n";
        pytheas_durable::replace(&netrc, text.as_bytes()).unwrap();
        let mut environment = Environment::default().with("NETRC", &netrc);
        let url: Url = "https://index.example/legacy/".parse().unwrap();
        let check = |given: &Given, url: &Url, environment: &Environment, expected: &str| {
            let found = Credentials::find(given, url, environment).unwrap();
            assert_eq!(format!("{}:{}", found.user, found.password), expected);
        };
        let none = Given::default();
        check(&none, &url, &environment, "me:s3");
        check(
            &none,
            &"https://x.example/".parse().unwrap(),
            &environment,
            "d:e",
        );
        check(
            &none,
            &"https://a:b%40@x.example/".parse().unwrap(),
            &environment,
            "a:b@",
        );
        environment = environment.with("TWINE_PASSWORD", "t");
        check(&none, &url, &environment, "__token__:t");
        environment = environment.with("UV_PUBLISH_TOKEN", "u");
        check(&none, &url, &environment, "__token__:u");
        let given = Given {
            username: Some("x".into()),
            password: Some("y".into()),
            token: None,
        };
        check(&given, &url, &environment, "x:y");
        environment = environment.with("PYTHEAS_INDEX_TOKEN", "p");
        check(&none, &url, &environment, "__token__:p");
        assert!(!format!("{:?}", Credentials::find(&given, &url, &environment)).contains(":p"));
        assert!(Credentials::find(&none, &url, &Environment::default()).is_none());
    }
}
