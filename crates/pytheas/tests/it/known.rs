//! What is known of a build, by the real command: vulnerabilities from a folder, a zip and a real
//! server with OSV's API; the version from the git tag; and where a bundle came from.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use serde_json::{Value, json};

use crate::common::{Running, json as run_json, ok, pytheas, wait_for};

fn put(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    pytheas_durable::replace(path, text.as_bytes()).unwrap();
}

/// What the databases say of Jinja2 before 3.1.5, shortened.
fn advisories() -> [Value; 3] {
    let affected = json!([{
        "package": {"ecosystem": "PyPI", "name": "jinja2"},
        "ranges": [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "3.1.5"}]}],
    }]);
    [
        json!({
            "id": "GHSA-q2x7-8rv6-6q7h", "aliases": ["CVE-2024-56326"],
            "summary": "Jinja has a sandbox breakout through indirect reference to format method",
            "affected": affected,
            "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:L/AC:L/PR:L/UI:N/S:U/C:H/I:H/A:H"}],
        }),
        json!({
            "id": "BIT-python-1", "aliases": ["CVE-2000-1"], "summary": "every CPython",
            "database_specific": {"severity": "LOW"},
            "affected": [{
                "package": {"ecosystem": "Bitnami", "name": "python"},
                "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}]}],
            }],
        }),
        json!({"id": "PYSEC-0", "withdrawn": "2020-01-01T00:00:00Z", "affected": affected}),
    ]
}

/// A project with a lock and, in `osv`, a database.
fn project(dir: &Path) -> PathBuf {
    let project = dir.join("demo");
    put(
        &project.join("pylock.toml"),
        "lock-version = '1.0'\ncreated-by = 'test'\n\
         [[packages]]\nname = 'jinja2'\nversion = '3.1.4'\nmarker = \"sys_platform == 'linux'\"\n\
         [[packages]]\nname = 'pywin32'\nversion = '308'\nmarker = \"sys_platform == 'win32'\"\n",
    );
    put(&project.join("requirements.txt"), "jinja2==3.1.4\n");
    put(
        &project.join("main.py"),
        "import jinja2\nprint(jinja2.__version__)\n",
    );
    for advisory in advisories() {
        let id = advisory["id"].as_str().unwrap();
        put(&dir.join(format!("osv/{id}.json")), &advisory.to_string());
    }
    project
}

#[test]
fn in_a_project_its_own_build_is_explained() {
    let dir = tempfile::tempdir().unwrap();
    put(
        &dir.path().join("pyproject.toml"),
        "[project]\nname = 'app'\nversion = '1'\n[tool.pytheas]\nentry = 'main.py'\n",
    );
    put(&dir.path().join("main.py"), "");
    let run = |args: &[&str]| {
        pytheas(dir.path())
            .current_dir(dir.path())
            .args(args)
            .output()
    };
    let said = run(&["why", "nothing"]).unwrap();
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(text.contains("`.` is no built tree"), "{text}");
    crate::common::script_tree(&dir.path().join("dist/app"), "1", "#!/bin/sh\n");
    let said = run(&["why", "nothing"]).unwrap();
    let text = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(text.contains("dist/app` has no module `nothing`"), "{text}");
    for verb in ["sbom", "licences"] {
        assert!(run(&[verb]).unwrap().status.success(), "{verb}");
    }
}

fn audit(dir: &Path, args: &[&str]) -> Command {
    let mut command = pytheas(dir);
    command.current_dir(dir).arg("audit").args(args);
    command
}

#[track_caller]
fn exit(output: &Output, expected: i32) -> Value {
    assert_eq!(output.status.code(), Some(expected), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

#[test]
fn what_a_lock_holds_is_audited_against_a_folder_and_a_zip() {
    let dir = tempfile::tempdir().unwrap();
    let project = project(dir.path());
    let folder = audit(
        dir.path(),
        &["demo", "--database", "osv", "--offline", "--json"],
    );
    let found = exit(&{ folder }.output().unwrap(), 1);
    let finding = &found["findings"][0];
    assert_eq!(found["findings"].as_array().unwrap().len(), 1, "{found}");
    assert_eq!(finding["id"], "GHSA-q2x7-8rv6-6q7h");
    assert_eq!(
        (&finding["severity"], &finding["fixed"]),
        (&json!("high"), &json!(["3.1.5"]))
    );
    assert_eq!(found["parts"], 2);
    let args = ["demo", "--database", "osv", "--format", "sarif"];
    let sarif = exit(&audit(dir.path(), &args).output().unwrap(), 1);
    let (result, rule) = (
        &sarif["runs"][0]["results"][0],
        &sarif["runs"][0]["tool"]["driver"]["rules"][0],
    );
    assert_eq!(
        (&sarif["version"], &result["level"], &rule["id"]),
        (&json!("2.1.0"), &json!("error"), &finding["id"])
    );
    let place = &result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"];
    assert_eq!(place, "demo/pylock.toml", "{result}");
    // On Arm Linux there is no pywin32.
    let arm = [
        "demo",
        "--database",
        "osv",
        "--platform",
        "linux-armv7",
        "--json",
    ];
    let arm = exit(&audit(dir.path(), &arm).output().unwrap(), 1);
    assert_eq!(arm["parts"], 1);

    let mut zip = zip_of(&advisories());
    put_bytes(&dir.path().join("all.zip"), &zip);
    let args = [
        "demo",
        "--database",
        "all.zip",
        "--fail-on",
        "critical",
        "--json",
    ];
    let mild = exit(&audit(dir.path(), &args).output().unwrap(), 0);
    assert_eq!(
        (&mild["advisories"], &mild["failing"]),
        (&json!(3), &json!(0))
    );
    zip.truncate(100);
    put_bytes(&dir.path().join("all.zip"), &zip);
    exit(&audit(dir.path(), &args).output().unwrap(), 3);

    // The project's own words: a database, and what was looked at, until a day.
    let settings = |until: &str| {
        put(
            &project.join("pyproject.toml"),
            &format!(
                "[tool.pytheas.audit]\ndatabase = '../osv'\nignore = [{{ id = 'CVE-2024-56326', until = {until}, reason = 'no sandbox here' }}]\n"
            ),
        );
    };
    settings("2999-01-01");
    let passed_over = exit(&audit(dir.path(), &["demo", "--json"]).output().unwrap(), 0);
    assert_eq!(passed_over["findings"][0]["ignored"], "no sandbox here");
    settings("'2020-01-01'");
    let late = audit(dir.path(), &["demo"]).output().unwrap();
    exit(&late, 1);
    let said = String::from_utf8_lossy(&late.stderr).into_owned();
    assert!(
        said.contains("the time for passing over `CVE-2024-56326` is up"),
        "{said}"
    );
    settings("'soon'");
    exit(&audit(dir.path(), &["demo"]).output().unwrap(), 2);
    exit(&audit(dir.path(), &["nowhere"]).output().unwrap(), 2);
    // OSV's own service is not asked where the network is forbidden.
    put(&project.join("pyproject.toml"), "");
    let offline = audit(dir.path(), &["demo", "--offline"]).output().unwrap();
    let said = String::from_utf8_lossy(&offline.stderr).into_owned();
    assert!(said.contains("which `--offline` forbids"), "{said}");
}

fn put_bytes(path: &Path, bytes: &[u8]) {
    pytheas_durable::replace(path, bytes).unwrap();
}

/// A zip file without compression, as OSV's `all.zip` is laid out.
fn zip_of(documents: &[Value]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("all.zip");
    let mut child = Command::new("python3")
        .args(["-c", "import json,sys,zipfile\nz=zipfile.ZipFile(sys.argv[1],'w',zipfile.ZIP_DEFLATED)\nfor d in json.load(sys.stdin): z.writestr(d['id']+'.json',json.dumps(d))\nz.close()"])
        .arg(&file)
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let text = Value::from(documents.to_vec()).to_string();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    assert!(child.wait().unwrap().success());
    std::fs::read(file).unwrap()
}

/// OSV's API over a folder of documents, one finding a page.
const SERVER: &str = r#"
import http.server, json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
documents = {d["id"]: d for d in map(json.loads, (p.read_text() for p in sorted(folder.glob("*.json"))))}
class Api(http.server.BaseHTTPRequestHandler):
    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert self.path == "/api/v1/querybatch", self.path
        results = []
        for query in asked["queries"]:
            fits = [i for i, d in documents.items() if any(
                a["package"]["name"] == query["package"]["name"]
                and a["package"]["ecosystem"] == query["package"]["ecosystem"] for a in d["affected"])]
            at = int(query.get("page_token", 0))
            result = {"vulns": [{"id": i, "modified": "2025-01-01T00:00:00Z"} for i in fits[at:at + 1]]}
            if at + 1 < len(fits):
                result["next_page_token"] = str(at + 1)
            results.append(result if fits else {})
        self.answer(200, {"results": results})
    def do_GET(self):
        found = documents.get(self.path.removeprefix("/api/v1/vulns/"))
        self.answer(200 if found else 404, found or {"code": 5})
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Api)
pathlib.Path(sys.argv[2]).write_text(str(server.server_port))
server.serve_forever()
"#;

#[test]
fn a_server_with_osvs_api_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    project(dir.path());
    let port_file = dir.path().join("port");
    let _server = Running::start(
        Command::new("python3")
            .args(["-c", SERVER])
            .arg(dir.path().join("osv"))
            .arg(&port_file),
        &dir.path().join("log"),
    );
    let port = wait_for("the server", Duration::from_secs(20), || {
        std::fs::read_to_string(&port_file)
            .ok()
            .filter(|text| !text.is_empty())
    });
    let url = format!("http://127.0.0.1:{port}/api");
    put(
        &dir.path().join("bom.json"),
        &json!({"bomFormat": "CycloneDX", "components": [
            {"purl": "pkg:pypi/jinja2@3.1.4"}, {"purl": "pkg:generic/cpython@3.11.7"},
        ]})
        .to_string(),
    );
    let args = ["bom.json", "--database", &url, "--json"];
    let found = exit(&audit(dir.path(), &args).output().unwrap(), 1);
    let ids: Vec<_> = found["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["id"])
        .collect();
    assert_eq!(ids, ["GHSA-q2x7-8rv6-6q7h", "BIT-python-1"]);
    let wrong = [
        "demo",
        "--database",
        &format!("http://127.0.0.1:{port}/other"),
    ];
    exit(&audit(dir.path(), &wrong).output().unwrap(), 3);
}

#[test]
fn a_bundle_has_the_tags_version_and_says_where_it_came_from() {
    let dir = tempfile::tempdir().unwrap();
    let project = project(dir.path());
    std::fs::remove_file(project.join("pylock.toml")).unwrap();
    put(&project.join("requirements.txt"), "");
    put(&project.join("main.py"), "print('here')\n");
    put(
        &project.join("pyproject.toml"),
        "[tool.pytheas]\napp = 'demo'\nversion = { from = 'git' }\n",
    );
    let git = |args: &[&str]| {
        ok(Command::new("git")
            .arg("-C")
            .arg(&project)
            .args(["-c", "user.name=n", "-c", "user.email=e@example"])
            .args(args))
    };
    git(&["init", "-q"]);
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "x"]);
    git(&["tag", "v2.5"]);
    git(&[
        "remote",
        "add",
        "origin",
        "https://me:secret@git.example/demo.git",
    ]);
    let build = |out: &str| {
        let mut command = pytheas(dir.path());
        command.current_dir(&project).args(["build", "-o", out]);
        run_json(&mut command)
    };
    let first = build("out");
    assert_eq!(first["record"]["version"], "2.5");
    let statement = std::fs::read_to_string(project.join("out.provenance.json")).unwrap();
    assert!(!statement.contains("secret"), "{statement}");
    let document: Value = serde_json::from_str(&statement).unwrap();
    let inputs = &document["predicate"]["buildDefinition"]["resolvedDependencies"];
    assert_eq!(inputs[0]["uri"], "git+https://git.example/demo.git");
    assert_eq!(
        inputs[0]["digest"]["gitCommit"],
        git(&["rev-parse", "HEAD"]).trim()
    );
    assert_eq!(document["subject"][0]["digest"]["sha256"], first["tree_id"]);
    // A statement of an earlier build is no part of the next one.
    assert_eq!(build("out")["tree_id"], first["tree_id"]);
    let again = std::fs::read_to_string(project.join("out.provenance.json")).unwrap();
    assert_eq!(statement, again);
    // A module that no commit has is in the artifact: the commit alone does not give these bytes.
    let dirty = |out: &str| {
        build(out);
        let text = std::fs::read_to_string(project.join(format!("{out}.provenance.json"))).unwrap();
        let document: Value = serde_json::from_str(&text).unwrap();
        let inputs = &document["predicate"]["buildDefinition"]["resolvedDependencies"];
        inputs[0]["annotations"]["dirty"].clone()
    };
    assert_eq!(dirty("out"), false);
    put(&project.join("notes/extra.py"), "x = 1\n");
    assert_eq!(dirty("dirty"), true);
    std::fs::remove_dir_all(project.join("notes")).unwrap();

    let verify = || {
        let mut command = pytheas(dir.path());
        command
            .current_dir(&project)
            .args(["provenance", "verify", "out"]);
        command.output().unwrap()
    };
    assert!(verify().status.success());

    // Published, the statement is signed, and speaks of the release.
    let keys = dir.path().join("keys");
    let repo = dir.path().join("repo");
    let run = |args: &[&str]| {
        let mut command = pytheas(dir.path());
        command
            .current_dir(&project)
            .env("PYTHEAS_KEYS", &keys)
            .args(args);
        command
    };
    ok(&mut run(&["keys", "init"]));
    let repo = repo.to_str().unwrap();
    ok(&mut run(&["publish", "out", "--repo", repo]));
    let verified = run_json(&mut run(&[
        "provenance",
        "verify",
        "demo@2.5",
        "--repo",
        repo,
        "--save",
        "envelope.json",
    ]));
    assert_eq!(verified["signed"], true);
    assert_eq!(verified["sha256"], first["tree_id"]);
    assert_eq!(verified["statement"], document);
    let signed = &[
        "provenance",
        "verify",
        "out",
        "--statement",
        "envelope.json",
    ];
    assert_eq!(run_json(&mut run(signed))["signed"], true);
    let envelope = std::fs::read_to_string(project.join("envelope.json")).unwrap();
    let mut forged: Value = serde_json::from_str(&envelope).unwrap();
    forged["payloadType"] = json!("application/json");
    put(&project.join("envelope.json"), &forged.to_string());
    exit(&run(signed).output().unwrap(), 4);

    put(&project.join("out/added.txt"), "x");
    exit(&verify(), 4);
}

#[test]
fn wheels_one_files_and_scripts_are_built_twice_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("meter");
    put(
        &project.join("pyproject.toml"),
        "[project]\nname = 'meter'\nversion = '1.2'\n\
         [build-system]\nrequires = ['hatchling']\nbuild-backend = 'hatchling.build'\n",
    );
    put(&project.join("meter/__init__.py"), "x = 1\n");
    let build = |args: &[&str]| {
        let mut command = pytheas(dir.path());
        command.current_dir(&project).arg("build").args(args);
        command.arg("--check-reproducible").output().unwrap()
    };
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let same = build(&["--form", "wheel"]);
    exit(&same, 0);
    assert!(
        said(&same).contains("gave the same bytes"),
        "{}",
        said(&same)
    );

    put(
        &project.join("hatch_build.py"),
        "import pathlib, time\n\
         from hatchling.builders.hooks.plugin.interface import BuildHookInterface\n\
         class When(BuildHookInterface):\n    def initialize(self, version, build_data):\n        \
         pathlib.Path(self.root, 'meter', 'when.py').write_text(repr(time.time_ns()))\n",
    );
    let text = std::fs::read_to_string(project.join("pyproject.toml")).unwrap();
    let hook = "[tool.hatch.build.hooks.custom]\n";
    put(&project.join("pyproject.toml"), &format!("{text}{hook}"));
    let differs = build(&["--form", "wheel"]);
    exit(&differs, 1);
    let file = "`meter/when.py` of `meter-1.2-";
    assert!(said(&differs).contains(file), "{}", said(&differs));

    // A script beside a project: the second build is of the script, too.
    put(
        &project.join("job.py"),
        "# /// script\n# dependencies = []\n# ///\nprint('job')\n",
    );
    let job = build(&["job.py", "--one-file", "-o", "job.run"]);
    exit(&job, 0);
    assert!(said(&job).contains("gave the same bytes"), "{}", said(&job));
    assert!(project.join("job.run").is_file());
}

#[test]
fn an_export_to_standard_output_is_the_requirements_alone() {
    let dir = tempfile::tempdir().unwrap();
    let project = dir.path().join("demo");
    put(&project.join("requirements.txt"), "");
    put(&project.join("main.py"), "print('here')\n");
    let mut command = pytheas(dir.path());
    command
        .current_dir(&project)
        .args(["lock", "--export", "-"]);
    let text = ok(&mut command);
    assert_eq!(
        text,
        "# Written by `pytheas lock --export` from pylock.toml, for every platform.\n"
    );
    assert!(!project.join("-").exists());
}

/// An index that keeps what it is sent, and takes it.
const INDEX: &str = r#"
import http.server, pathlib, sys
folder = pathlib.Path(sys.argv[1])
class Index(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        (folder / "body").write_bytes(body)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def do_GET(self):
        self.send_error(404)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Index)
(folder / "port").write_text(str(server.server_port))
server.serve_forever()
"#;

#[test]
fn attestations_go_to_the_index_with_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let make = "import zipfile\nz=zipfile.ZipFile('demo-1-py3-none-any.whl','w')\n\
        z.writestr('demo-1.dist-info/METADATA','Metadata-Version: 2.1\\nName: demo\\nVersion: 1\\n')\nz.close()\n\
        import base64,hashlib,json\n\
        h=hashlib.sha256(open('demo-1-py3-none-any.whl','rb').read()).hexdigest()\n\
        s=json.dumps({'subject':[{'name':'x','digest':{'sha256':h}}]}).encode()\n\
        json.dump({'version':1,'verification_material':{'certificate':'MA==','transparency_entries':[]},\
        'envelope':{'statement':base64.b64encode(s).decode(),'signature':'c2lnbmVk'}},\
        open('demo-1-py3-none-any.whl.publish.attestation','w'))\n";
    ok(Command::new("python3")
        .current_dir(dir.path())
        .args(["-c", make]));
    let _server = Running::start(
        Command::new("python3").args(["-c", INDEX]).arg(dir.path()),
        &dir.path().join("log"),
    );
    let port = wait_for("the index", Duration::from_secs(20), || {
        let text = std::fs::read_to_string(dir.path().join("port")).ok();
        text.filter(|text| !text.is_empty())
    });
    let publish = || {
        let mut command = pytheas(dir.path());
        command
            .current_dir(dir.path())
            .args(["publish", "--attestations", "--index"])
            .arg(format!("http://127.0.0.1:{port}/legacy/"))
            .args([
                "demo-1-py3-none-any.whl",
                "demo-1-py3-none-any.whl.publish.attestation",
            ]);
        command
    };
    run_json(&mut publish());
    let body = std::fs::read(dir.path().join("body")).unwrap();
    let body = String::from_utf8_lossy(&body);
    let field = body.split("name=\"attestations\"\r\n\r\n[").nth(1).unwrap();
    assert!(field.contains("\"signature\":\"c2lnbmVk\""), "{field}");
    // One that speaks of another file is not sent.
    std::fs::remove_file(dir.path().join("body")).unwrap();
    let path = dir
        .path()
        .join("demo-1-py3-none-any.whl.publish.attestation");
    let text = std::fs::read_to_string(&path).unwrap();
    put(
        &path,
        &text.replace("\"statement\": \"", "\"statement\": \"e30="),
    );
    exit(&publish().output().unwrap(), 1);
    assert!(!dir.path().join("body").exists());
}

#[test]
fn extras_are_synced_beside_the_app_and_frozen_locks_are_used_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let write = |requirement: &str| {
        put(
            &dir.path().join("pyproject.toml"),
            &format!(
                "[project]\nname = 'demo'\nversion = '1'\nrequires-python = '>=3.11'\ndependencies = ['{requirement}']\n\
                 [project.optional-dependencies]\nWeb = ['iniconfig==2.0.0']\n"
            ),
        );
    };
    write("idna==3.7");
    let sync = |args: &[&str]| {
        let mut command = pytheas(dir.path());
        command.current_dir(dir.path()).arg("sync").args(args);
        command
    };
    let with = run_json(&mut sync(&["--extra", "web"]));
    assert_eq!(
        with["changes"],
        json!(["+ idna==3.7", "+ iniconfig==2.0.0"])
    );
    assert!(dir.path().join("pylock.extra-web.toml").is_file());
    let without = run_json(&mut sync(&[]));
    assert_eq!(without["changes"], json!(["- iniconfig==2.0.0"]));
    write("idna==3.10");
    let locked = sync(&["--locked"]).output().unwrap();
    assert!(!locked.status.success());
    let frozen = run_json(&mut sync(&["--frozen", "--extra", "Web", "--offline"]));
    assert_eq!(frozen["changes"], json!(["+ iniconfig==2.0.0"]));
}
