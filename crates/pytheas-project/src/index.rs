//! The package index that is configured on this machine, and its pages (PEP 503 HTML, PEP 691
//! JSON). The default index is not named here: pip and uv know it.

use std::path::PathBuf;

use serde::Deserialize;
use url::Url;

use crate::{
    environment::Environment,
    http::{Http, HttpError},
};

const PAGE_LIMIT_BYTES: u64 = 64 << 20;
const ACCEPT: &str = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1";

/// A package index: its simple API's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The address, ending with `/`.
    pub url: Url,
    /// What names it: a variable or a file.
    pub configured_by: String,
}

impl Index {
    /// The default index that this machine is configured for; none when nothing is configured.
    /// uv's settings come before pip's.
    pub fn configured(environment: &Environment) -> Option<Self> {
        Self::of_uv(environment).or_else(|| Self::of_pip(environment))
    }

    /// The default index of uv's variables and files.
    fn of_uv(environment: &Environment) -> Option<Self> {
        for name in ["UV_DEFAULT_INDEX", "UV_INDEX_URL"] {
            // `UV_DEFAULT_INDEX` may be written `name=address`.
            let value = environment
                .get(name)
                .map(|value| match value.split_once('=') {
                    Some((label, rest)) if !label.contains("://") => rest,
                    _ => value,
                });
            if let Some(index) = value.and_then(|value| Self::at(value, name.to_owned())) {
                return Some(index);
            }
        }
        let files = config_dir(environment)
            .into_iter()
            .map(|dir| dir.join("uv/uv.toml"))
            .chain(["/etc/uv/uv.toml".into()]);
        Self::of_files(files, uv_default_index)
    }

    /// The index of pip's variable and files, where uv has none.
    pub(crate) fn of_pip(environment: &Environment) -> Option<Self> {
        if Self::of_uv(environment).is_some() {
            return None;
        }
        let variable = environment
            .get("PIP_INDEX_URL")
            .and_then(|value| Self::at(value, "PIP_INDEX_URL".to_owned()));
        let home = environment.home();
        let files = environment
            .path("PIP_CONFIG_FILE")
            .into_iter()
            .chain(config_dir(environment).map(|dir| dir.join("pip/pip.conf")))
            .chain(home.map(|home| home.join(".pip/pip.conf")))
            .chain(["/etc/xdg/pip/pip.conf".into(), "/etc/pip.conf".into()]);
        variable.or_else(|| Self::of_files(files, pip_index_url))
    }

    fn of_files(
        mut files: impl Iterator<Item = PathBuf>,
        url: fn(&str) -> Option<String>,
    ) -> Option<Self> {
        files.find_map(|file| {
            let text = std::fs::read_to_string(&file).ok()?;
            Self::at(&url(&text)?, file.display().to_string())
        })
    }

    fn at(text: &str, configured_by: String) -> Option<Self> {
        let mut url: Url = text.trim().parse().ok()?;
        if !matches!(url.scheme(), "http" | "https") {
            return None;
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        Some(Self { url, configured_by })
    }

    /// The address without credentials, for messages.
    pub fn shown(&self) -> String {
        crate::requirements::without_credentials(self.url.as_str())
    }

    /// The address of the file `file_name` of `package`; none when the index has no such file.
    ///
    /// # Errors
    /// When the index does not answer.
    pub fn find(
        &self,
        http: &Http,
        package: &str,
        file_name: &str,
    ) -> Result<Option<Url>, HttpError> {
        let Ok(page) = self.url.join(&format!("{package}/")) else {
            return Ok(None);
        };
        let (body, kind) = http.get(&page, ACCEPT, PAGE_LIMIT_BYTES)?;
        let text = String::from_utf8_lossy(&body);
        let link = if kind.contains("json") {
            json_link(&text, file_name)
        } else {
            html_link(&text, file_name)
        };
        let mut url = link.and_then(|link| page.join(&link).ok());
        if let Some(url) = &mut url {
            url.set_fragment(None);
            if url.host_str() == self.url.host_str() {
                // The same host: the same credentials.
                let _ = url.set_username(self.url.username());
                let _ = url.set_password(self.url.password());
            }
        }
        Ok(url)
    }
}

fn config_dir(environment: &Environment) -> Option<PathBuf> {
    environment
        .path("XDG_CONFIG_HOME")
        .or_else(|| environment.home().map(|home| home.join(".config")))
}

/// `index-url`, or the `[[index]]` with `default = true`.
fn uv_default_index(text: &str) -> Option<String> {
    let table: toml::Table = text.parse().ok()?;
    let marked = table
        .get("index")
        .and_then(toml::Value::as_array)
        .and_then(|list| {
            list.iter()
                .find(|index| index.get("default").and_then(toml::Value::as_bool) == Some(true))
        });
    let url = marked
        .and_then(|index| index.get("url"))
        .or_else(|| table.get("index-url"));
    url.and_then(toml::Value::as_str).map(str::to_owned)
}

/// `index-url` of the section `[global]` (or of the only one).
fn pip_index_url(text: &str) -> Option<String> {
    let mut section = "global";
    text.lines().map(str::trim).find_map(|line| {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'))
        {
            section = match name {
                "global" | "download" | "install" => "global",
                _ => "other",
            };
            return None;
        }
        let (key, value) = line.split_once(['=', ':'])?;
        let key = key.trim().replace('_', "-");
        (section == "global" && key == "index-url").then(|| value.trim().to_owned())
    })
}

fn json_link(text: &str, file_name: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Page {
        files: Vec<File>,
    }
    #[derive(Deserialize)]
    struct File {
        filename: String,
        url: String,
    }
    let page: Page = serde_json::from_str(text).ok()?;
    page.files
        .into_iter()
        .find(|file| file.filename == file_name)
        .map(|file| file.url)
}

/// PEP 503: anchors whose text is the file's name.
fn html_link(text: &str, file_name: &str) -> Option<String> {
    let mut rest = text;
    while let Some(start) = rest.find("<a") {
        rest = &rest[start + 2..];
        let (attributes, after) = rest.split_once('>')?;
        let label = after.split('<').next().unwrap_or("").trim();
        if unescaped(label) == file_name {
            let value = attributes
                .split_once("href")?
                .1
                .trim_start()
                .strip_prefix('=')?
                .trim_start();
            let link = match value.strip_prefix(['"', '\'']) {
                Some(quoted) => quoted.split(['"', '\'']).next(),
                None => value.split_whitespace().next(),
            };
            return link.map(unescaped);
        }
        rest = after;
    }
    None
}

fn unescaped(text: &str) -> String {
    text.replace("&gt;", ">")
        .replace("&lt;", "<")
        .replace("&quot;", "\"")
        .replace("&#43;", "+")
        .replace("&amp;", "&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_index_pages_are_read() {
        let html = r#"<!DOCTYPE html><html><body>
            <a href="../../packages/uv-1.tar.gz#sha256=00">uv-1.tar.gz</a><br/>
            <a data-x="1" href='https://f.example/uv-1-py3-none-any.whl?a=1&amp;b=2#sha256=11' >uv-1-py3-none-any.whl</a>"#;
        assert_eq!(
            html_link(html, "uv-1.tar.gz").as_deref(),
            Some("../../packages/uv-1.tar.gz#sha256=00")
        );
        assert_eq!(
            html_link(html, "uv-1-py3-none-any.whl").as_deref(),
            Some("https://f.example/uv-1-py3-none-any.whl?a=1&b=2#sha256=11")
        );
        assert_eq!(html_link(html, "uv-2.tar.gz"), None);
        assert_eq!(
            html_link("<a href=é/uv-1.tar.gz x>uv-1.tar.gz</a>", "uv-1.tar.gz").as_deref(),
            Some("é/uv-1.tar.gz")
        );
        let json = r#"{"meta":{"api-version":"1.1"},"files":[{"filename":"uv-1.tar.gz","url":"/p/uv-1.tar.gz","hashes":{}}]}"#;
        assert_eq!(
            json_link(json, "uv-1.tar.gz").as_deref(),
            Some("/p/uv-1.tar.gz")
        );
    }

    #[test]
    fn the_index_is_where_pip_or_uv_were_told_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let home = Environment::default().with("HOME", dir.path());
        assert_eq!(
            Index::configured(&home.clone().with("PIP_CONFIG_FILE", "/none"))
                .map(|i| i.configured_by),
            None
        );

        std::fs::create_dir_all(dir.path().join(".config/pip")).unwrap();
        let text = b"[install]\nuser = no\n[global]\nindex-url = https://mirror.example/simple\n";
        pytheas_durable::replace(&dir.path().join(".config/pip/pip.conf"), text).unwrap();
        let found = Index::configured(&home).unwrap();
        assert_eq!(found.url.as_str(), "https://mirror.example/simple/");
        assert!(found.configured_by.ends_with("pip.conf"));

        let variable = home.with(
            "UV_DEFAULT_INDEX",
            "mine=https://me:secret@other.example/simple/",
        );
        let found = Index::configured(&variable).unwrap();
        assert_eq!(found.shown(), "https://other.example/simple/");
        assert_eq!(found.configured_by, "UV_DEFAULT_INDEX");
    }

    #[test]
    fn uv_toml_may_name_the_default_index() {
        assert_eq!(
            uv_default_index("index-url = 'https://a.example'").as_deref(),
            Some("https://a.example")
        );
        let table = "[[index]]\nurl = 'https://b.example'\n[[index]]\nurl = 'https://c.example'\ndefault = true\n";
        assert_eq!(
            uv_default_index(table).as_deref(),
            Some("https://c.example")
        );
        assert_eq!(
            uv_default_index("[[index]]\nurl = 'https://b.example'\n"),
            None
        );
    }
}
