//! The software bill of materials (CycloneDX 1.6, ECMA-424) that every bundle carries as
//! `sbom.cdx.json`: the app, each distribution, the interpreter and each shared library, with
//! licences, hashes and what depends on what.
//!
//! No time and nothing random: the serial number is made from the id of the tree without the file,
//! so the same tree has the same bill. It lies in the tree, so the tree's signature covers it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    str::FromStr,
};

use pep508_rs::{ExtraName, MarkerEnvironment, MarkerEnvironmentBuilder};
use pytheas_project::{LockedPackage, Pylock, normalised_name, parse_requirement};
use pytheas_release::{BuildRecord, Entry, RelPath, Sha256, Tree};
use serde_json::{Value, json};

use super::{
    inventory::{Distribution, Inventory, InventoryError},
    licence::{Licence, LicenceSource},
    spdx,
    system_packages::SystemPackages,
};
use crate::{
    error::{BuildError, io_error},
    scratch::{self, Kind},
};

/// The file's name, at the root of the tree.
pub const SBOM_FILE: &str = "sbom.cdx.json";

const APP_REF: &str = "app";
const INTERPRETER_REF: &str = "interpreter";

/// Writes the bill of the tree in `dir` into it, and adds it to `tree`.
pub(crate) fn add(
    dir: &Path,
    tree: &mut Tree,
    record: &BuildRecord,
    lock: &Pylock,
) -> Result<(), BuildError> {
    let requirements: Vec<String> = lock
        .inputs()
        .map(|inputs| inputs.requirements.iter().cloned().collect())
        .unwrap_or_default();
    let inventory = Inventory::with_record(dir, record.clone())?;
    let bytes = encode(&document(&inventory, tree, Some(lock), &requirements));
    let path = dir.join(SBOM_FILE);
    scratch::write(&path, &bytes, Kind::Data).map_err(io_error("write", &path))?;
    let entry = Entry::File {
        size_bytes: bytes.len() as u64,
        sha256: Sha256::of(&bytes),
        executable: false,
    };
    let name: RelPath = SBOM_FILE.parse().expect("a plain name");
    tree.insert(name, entry).map_err(|source| BuildError::Tree {
        source: source.into(),
    })
}

/// The bill of the built tree in `dir`: the file it carries, else one made from what lies there
/// (then without the hashes of the packages' archives, which only the lock knows).
///
/// # Errors
/// When it is no built tree or cannot be read.
pub fn sbom(dir: &Path) -> Result<Vec<u8>, InventoryError> {
    let inventory = Inventory::read(dir)?;
    if inventory.files.contains_key(SBOM_FILE) {
        let path = dir.join(SBOM_FILE);
        return std::fs::read(&path).map_err(super::inventory::read_error(&path));
    }
    let tree = pytheas_durable::trees::scan(dir).map_err(|error| InventoryError::Read {
        path: dir.to_owned(),
        source: std::io::Error::other(error),
    })?;
    Ok(encode(&document(&inventory, &tree, None, &[])))
}

fn encode(document: &Value) -> Vec<u8> {
    let mut text = format!("{document:#}");
    text.push('\n');
    text.into_bytes()
}

/// The document; `requirements` are the app's own.
fn document(
    inventory: &Inventory,
    tree: &Tree,
    lock: Option<&Pylock>,
    requirements: &[String],
) -> Value {
    let record = &inventory.record;
    let mut components = Vec::new();
    let mut depends: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();

    let own = normalised_name(record.name.as_str());
    let refs: BTreeMap<&str, String> = inventory
        .distributions
        .iter()
        .map(|distribution| (distribution.name.as_str(), purl(distribution)))
        .collect();
    for distribution in &inventory.distributions {
        let locked = lock.and_then(|lock| locked(lock, distribution));
        components.push(distribution_component(distribution, locked, lock.is_some()));
    }
    add_requirements(inventory, requirements, &own, &refs, &mut depends);

    if let Some(interpreter) = &record.interpreter {
        components.push(interpreter_component(interpreter));
        depends
            .entry(APP_REF.to_owned())
            .or_default()
            .insert(INTERPRETER_REF.to_owned());
    }
    add_libraries(inventory, tree, &refs, &mut components, &mut depends);
    components.sort_by_key(|component| component["bom-ref"].as_str().map(str::to_owned));

    let all: BTreeSet<String> = components
        .iter()
        .filter_map(|component| component["bom-ref"].as_str())
        .map(str::to_owned)
        .chain([APP_REF.to_owned()])
        .collect();
    let dependencies: Vec<Value> = all
        .iter()
        .map(|name| {
            let on: Vec<&String> = depends.get(name).into_iter().flatten().collect();
            if on.is_empty() {
                json!({"ref": name})
            } else {
                json!({"ref": name, "dependsOn": on})
            }
        })
        .collect();
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": format!("urn:uuid:{}", uuid(&tree.id().0)),
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [{
                "type": "application",
                "name": "pytheas",
                "version": env!("CARGO_PKG_VERSION"),
            }]},
            "component": app_component(inventory, &own),
        },
        "components": components,
        "dependencies": dependencies,
    })
}

fn app_component(inventory: &Inventory, own: &str) -> Value {
    let record = &inventory.record;
    let mut component = json!({
        "type": "application",
        "bom-ref": APP_REF,
        "name": record.name.as_str(),
        "version": record.version.as_str(),
        "properties": [
            {"name": "pytheas:form", "value": record.form},
            {"name": "pytheas:platform", "value": record.platform.as_str()},
            {"name": "pytheas:entry", "value": record.entry.as_str()},
        ],
    });
    let distribution = inventory
        .distributions
        .iter()
        .find(|distribution| distribution.name == own);
    if let Some(distribution) = distribution {
        set_licence(&mut component, &distribution.licence);
    }
    component
}

fn distribution_component(
    distribution: &Distribution,
    locked: Option<&LockedPackage>,
    has_lock: bool,
) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": purl(distribution),
        "name": distribution.name,
        "version": distribution.version,
    });
    // The project's own distribution is on no index; its name there may be somebody else's.
    let is_published = locked.is_some() || !has_lock;
    if is_published {
        component["purl"] = purl(distribution).into();
    }
    if let Some(summary) = &distribution.metadata.summary {
        component["description"] = summary.as_str().into();
    }
    set_licence(&mut component, &distribution.licence);
    let hashes = locked.map(|package| hashes(package, distribution));
    if let Some(hashes) = hashes.filter(|hashes| !hashes.is_empty()) {
        component["hashes"] = hashes.into();
    }
    let mut properties: Vec<Value> = Vec::new();
    for tag in &distribution.tags {
        properties.push(json!({"name": "pytheas:wheel-tag", "value": tag}));
    }
    for file in &distribution.licence.files {
        properties.push(json!({"name": "pytheas:licence-file", "value": file}));
    }
    if distribution.licence.source != LicenceSource::Unknown {
        let value = distribution.licence.source.as_str();
        properties.push(json!({"name": "pytheas:licence-from", "value": value}));
    }
    // Wheels may carry bills of what was compiled into them (PEP 770).
    let bills = format!("{}/sboms/", distribution.dist_info);
    for file in distribution
        .files
        .iter()
        .filter(|file| file.starts_with(&bills))
    {
        properties.push(json!({"name": "pytheas:sbom", "value": file}));
    }
    if !properties.is_empty() {
        component["properties"] = properties.into();
    }
    component
}

fn interpreter_component(interpreter: &pytheas_release::InterpreterRecord) -> Value {
    let version = &interpreter.version;
    let mut component = json!({
        "type": "platform",
        "bom-ref": INTERPRETER_REF,
        "name": interpreter.implementation,
        "version": version,
        "cpe": format!("cpe:2.3:a:python:python:{version}:*:*:*:*:*:*:*"),
        "purl": format!("pkg:generic/{}@{version}", interpreter.implementation),
        "licenses": [{"license": {"id": "PSF-2.0", "acknowledgement": "declared"}}],
        "properties": [{"name": "pytheas:provider", "value": interpreter.provider}],
    });
    if let Some(sha256) = &interpreter.sha256 {
        component["hashes"] = json!([{"alg": "SHA-256", "content": sha256.to_string()}]);
    }
    component
}

/// The shared libraries: those a wheel brought, and those beside the interpreter. Extension
/// modules are not listed one by one; they belong to their distribution or the interpreter.
fn add_libraries(
    inventory: &Inventory,
    tree: &Tree,
    refs: &BTreeMap<&str, String>,
    components: &mut Vec<Value>,
    depends: &mut BTreeMap<String, BTreeSet<String>>,
) {
    let owners = inventory.owners();
    let system = SystemPackages::of(&inventory.record);
    for (path, _, sha256) in tree.files() {
        let path = path.as_str();
        if !is_library(path, inventory) {
            continue;
        }
        let name = path.rsplit('/').next().unwrap_or(path);
        let bom_ref = format!("file:{path}");
        let mut component = json!({
            "type": "library",
            "bom-ref": bom_ref,
            "name": name,
            "hashes": [{"alg": "SHA-256", "content": sha256.to_string()}],
            "properties": [{"name": "pytheas:path", "value": path}],
        });
        let user = if let Some(owner) = owners.get(path) {
            refs.get(owner).cloned().unwrap_or_default()
        } else {
            if let Some(package) = system.owner_of(name) {
                component["version"] = package.version.as_str().into();
                component["purl"] = package.purl.as_str().into();
                let property = json!({"name": "pytheas:package", "value": package.name});
                if let Some(list) = component["properties"].as_array_mut() {
                    list.push(property);
                }
            }
            INTERPRETER_REF.to_owned()
        };
        depends.entry(user).or_default().insert(bom_ref);
        components.push(component);
    }
}

/// A library, not an extension module: a module's name has no version after `.so`, does not
/// begin with `lib`, and it lies among modules.
fn is_library(path: &str, inventory: &Inventory) -> bool {
    if !Inventory::is_shared_object(path) {
        return false;
    }
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    // What auditwheel adds lies in `PACKAGE.libs`.
    let is_vendored = inventory.sites.iter().any(|site| {
        folder
            .strip_prefix(site.as_str())
            .is_some_and(|rest| rest.split('/').any(|part| part.ends_with(".libs")))
    });
    is_vendored
        || folder == "python/lib"
        || (name.starts_with("lib") && !folder.ends_with("lib-dynload"))
}

fn set_licence(component: &mut Value, licence: &Licence) {
    let acknowledgement = if licence.source == LicenceSource::Text {
        "concluded"
    } else {
        "declared"
    };
    let choice = match (&licence.expression, &licence.words) {
        (Some(text), _) => match spdx::canonical(text) {
            Some(id) => json!({"license": {"id": id, "acknowledgement": acknowledgement}}),
            None => json!({"expression": text, "acknowledgement": acknowledgement}),
        },
        (None, Some(words)) => {
            json!({"license": {"name": words, "acknowledgement": acknowledgement}})
        }
        (None, None) => return,
    };
    component["licenses"] = json!([choice]);
}

/// The package URL of a distribution.
fn purl(distribution: &Distribution) -> String {
    let version = distribution.version.replace('+', "%2B").replace('!', "%21");
    format!("pkg:pypi/{}@{version}", distribution.name)
}

/// The lock's package of an installed distribution.
fn locked<'a>(lock: &'a Pylock, distribution: &Distribution) -> Option<&'a LockedPackage> {
    let same_version = |package: &&LockedPackage| {
        package
            .version
            .as_deref()
            .is_none_or(|version| same_version(version, &distribution.version))
    };
    lock.packages
        .iter()
        .filter(|package| normalised_name(&package.name) == distribution.name)
        .find(same_version)
}

fn same_version(one: &str, other: &str) -> bool {
    one == other
        || match (
            pep440_rs::Version::from_str(one),
            pep440_rs::Version::from_str(other),
        ) {
            (Ok(one), Ok(other)) => one == other,
            _ => false,
        }
}

/// The hashes of the archive that was installed: of the locked wheel with the installed tags, else
/// of the source distribution that it was built from.
fn hashes(package: &LockedPackage, distribution: &Distribution) -> Vec<Value> {
    let has_the_tags = |name: &str| {
        let all = expanded_tags(name);
        !distribution.tags.is_empty() && distribution.tags.iter().all(|tag| all.contains(tag))
    };
    let wheel = package
        .wheels
        .iter()
        .find(|file| has_the_tags(file.file_name()));
    let Some(file) = wheel.or(package.sdist.as_ref()) else {
        return Vec::new();
    };
    file.hashes
        .iter()
        .filter_map(|(algorithm, content)| {
            let name = match algorithm.as_str() {
                "sha256" => "SHA-256",
                "sha384" => "SHA-384",
                "sha512" => "SHA-512",
                _ => return None,
            };
            Some(json!({"alg": name, "content": content}))
        })
        .collect()
}

/// Every single tag that the compressed tags in a wheel's name stand for (PEP 425).
fn expanded_tags(file_name: &str) -> BTreeSet<String> {
    let Some(stem) = file_name.strip_suffix(".whl") else {
        return BTreeSet::new();
    };
    let mut parts = stem.rsplitn(4, '-');
    let (Some(platforms), Some(abis), Some(pythons)) = (parts.next(), parts.next(), parts.next())
    else {
        return BTreeSet::new();
    };
    let mut all = BTreeSet::new();
    for python in pythons.split('.') {
        for abi in abis.split('.') {
            all.extend(
                platforms
                    .split('.')
                    .map(|platform| format!("{python}-{abi}-{platform}")),
            );
        }
    }
    all
}

/// What depends on what, by the requirements whose markers hold on the tree's platform.
fn add_requirements(
    inventory: &Inventory,
    requirements: &[String],
    own: &str,
    refs: &BTreeMap<&str, String>,
    depends: &mut BTreeMap<String, BTreeSet<String>>,
) {
    let markers = markers(&inventory.record);
    let by_name: BTreeMap<&str, &Distribution> = inventory
        .distributions
        .iter()
        .map(|distribution| (distribution.name.as_str(), distribution))
        .collect();
    let mut extras: BTreeMap<String, BTreeSet<ExtraName>> = BTreeMap::new();
    let mut open: Vec<(String, String, Vec<String>)> = by_name
        .iter()
        .map(|(name, distribution)| {
            let user = refs.get(name).cloned().unwrap_or_default();
            let list = distribution.metadata.requires_dist.clone();
            ((*name).to_owned(), user, list)
        })
        .collect();
    let of_app: Vec<String> = if by_name.contains_key(own) {
        vec![own.to_owned()]
    } else {
        requirements.to_vec()
    };
    open.push((String::new(), APP_REF.to_owned(), of_app));
    // Extras asked for on the way make further requirements hold; so again until nothing changes.
    loop {
        let mut changed = false;
        for (name, user, list) in &open {
            let wanted: Vec<ExtraName> = extras.get(name).into_iter().flatten().cloned().collect();
            for text in list {
                let Some(requirement) = parse_requirement(text) else {
                    continue;
                };
                let target = normalised_name(requirement.name.as_ref());
                let holds = markers
                    .as_ref()
                    .is_none_or(|markers| requirement.evaluate_markers(markers, &wanted));
                let (true, Some(reference)) = (holds, refs.get(target.as_str())) else {
                    continue;
                };
                if target != *name {
                    changed |= depends
                        .entry(user.clone())
                        .or_default()
                        .insert(reference.clone());
                }
                let of_target = extras.entry(target).or_default();
                for extra in &requirement.extras {
                    changed |= of_target.insert(extra.clone());
                }
            }
        }
        if !changed {
            return;
        }
    }
}

/// The markers of the platform that the tree is for.
pub(crate) fn markers(record: &BuildRecord) -> Option<MarkerEnvironment> {
    let version = &record.interpreter.as_ref()?.version;
    let short = version.splitn(3, '.').take(2).collect::<Vec<_>>().join(".");
    let machine = match record.platform.arch() {
        "armv7" => "armv7l",
        other => other,
    };
    MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
        implementation_name: "cpython",
        implementation_version: version,
        os_name: "posix",
        platform_machine: machine,
        platform_python_implementation: "CPython",
        platform_release: "",
        platform_system: "Linux",
        platform_version: "",
        python_full_version: version,
        python_version: &short,
        sys_platform: "linux",
    })
    .ok()
}

/// A UUID of version 8 (RFC 9562 §5.8) from the first bytes of a hash.
fn uuid(hash: &Sha256) -> String {
    let hex = hash.to_string();
    let variant = match &hex[16..17] {
        "0" | "4" | "8" | "c" => '8',
        "1" | "5" | "9" | "d" => '9',
        "2" | "6" | "a" | "e" => 'a',
        _ => 'b',
    };
    format!(
        "{}-{}-8{}-{variant}{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[13..16],
        &hex[17..20],
        &hex[20..32]
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_number_is_a_uuid_of_the_tree() {
        let hash = Sha256::of(b"tree");
        let text = uuid(&hash);
        assert_eq!(text.len(), 36);
        assert_eq!(&text[14..15], "8");
        assert!("89ab".contains(&text[19..20]), "{text}");
        assert_eq!(text, uuid(&hash));
        assert_ne!(text, uuid(&Sha256::of(b"other")));
    }

    #[test]
    fn one_version_has_several_spellings() {
        assert!(same_version("1.0", "1.0.0"));
        assert!(same_version("2024.01", "2024.1"));
        assert!(!same_version("1.0", "1.1"));
        assert!(same_version("odd one", "odd one"));
    }
}
