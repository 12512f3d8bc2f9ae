//! Requirements of packages that `[tool.uv]` changes or takes away, whatever the packages say.

use std::collections::BTreeSet;

use crate::{Project, normalised_name, requirements};

impl Project {
    /// The normalised names in `override-dependencies` and `exclude-dependencies` of `[tool.uv]`.
    pub fn overridden(&self) -> BTreeSet<String> {
        let uv = self.uv_settings.as_deref().unwrap_or("{}");
        let document: toml::Table = toml::from_str(&format!("uv = {uv}")).unwrap_or_default();
        let lists = ["override-dependencies", "exclude-dependencies"].into_iter();
        lists
            .filter_map(|list| document.get("uv")?.get(list)?.as_array())
            .flatten()
            .filter_map(|item| requirements::parse(item.as_str()?))
            .map(|requirement| normalised_name(requirement.name.as_ref()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_overridden_or_excluded_is_told_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pyproject.toml");
        let project = |uv: &str| {
            let text = format!("[project]\nname = 'app'\nversion = '1'\n{uv}");
            pytheas_durable::replace(&path, text.as_bytes()).unwrap();
            Project::load(dir.path()).unwrap().overridden()
        };
        let names = project(
            "[tool.uv]\noverride-dependencies = [\"Open_CV ; sys_platform == 'never'\", 'x>=2']\n\
             exclude-dependencies = ['six']\n",
        );
        assert_eq!(names, ["open-cv", "six", "x"].map(str::to_owned).into());
        assert!(project("").is_empty());
    }
}
