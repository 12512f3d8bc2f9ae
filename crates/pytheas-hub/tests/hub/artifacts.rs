//! Uploaded files, and how devices download them.

use serde_json::json;

use crate::{
    wire::Reply,
    world::{Device, World},
};

const BYTES: &[u8] = b"0123456789abcdefghijklmnopqrstuvwxyz";
const FILE: &str = "/softwaremodules/1/artifacts/fw.swu";

fn assigned(world: &World) -> Device<'_> {
    world.artifact("fw", "1.0", BYTES);
    let device = world.device("dev1");
    world.rollout(&json!({"artifact": "fw@1.0"}));
    device
}

fn range(device: &Device<'_>, range: &str) -> Reply {
    device.call("GET", FILE).header("range", range).send()
}

#[test]
fn a_whole_download_has_all_headers_and_is_noted() {
    let world = World::new();
    let device = assigned(&world);
    insta::assert_snapshot!(device.get(FILE).shown(), @r#"
    200
    etag: "a26704c04fc5f10db5aab58468035531cc542485"
    last-modified: [DATE]
    accept-ranges: bytes
    x-content-type-options: nosniff
    content-disposition: attachment;filename="fw.swu"
    content-type: application/octet-stream
    content-length: 36

    0123456789abcdefghijklmnopqrstuvwxyz
    "#);
    let detail = world.get("/api/v1/devices/dev1").json();
    assert_eq!(detail["device"]["action"]["status"], "downloading");
    let head = device.call("HEAD", FILE).send().expect(200);
    assert_eq!(
        (head.header("content-length"), head.body.len()),
        (Some("36"), 0)
    );
}

#[test]
fn the_md5_sum_has_two_blanks() {
    let world = World::new();
    let device = assigned(&world);
    let sum = device.get(&format!("{FILE}.MD5SUM"));
    insta::assert_snapshot!(sum.shown(), @r#"
    200
    content-type: text/plain
    content-disposition: attachment;filename="fw.swu.MD5SUM"
    content-length: 40

    e9b1713db620f1e3a14b6812de523f4b  fw.swu
    "#);
}

#[test]
fn one_range_is_206_and_is_not_noted_as_a_download() {
    let world = World::new();
    let device = assigned(&world);
    insta::assert_snapshot!(range(&device, "bytes=10-13").shown(), @r#"
    206
    etag: "a26704c04fc5f10db5aab58468035531cc542485"
    last-modified: [DATE]
    accept-ranges: bytes
    x-content-type-options: nosniff
    content-disposition: attachment;filename="fw.swu"
    content-range: bytes 10-13/36
    content-type: application/octet-stream
    content-length: 4

    abcd
    "#);
    assert_eq!(range(&device, "bytes=30-").text(), "uvwxyz");
    assert_eq!(range(&device, "bytes=-2").text(), "yz");
    let detail = world.get("/api/v1/devices/dev1").json();
    assert_eq!(detail["device"]["action"]["status"], "pending");
}

#[test]
fn several_ranges_are_parts_in_their_order() {
    let world = World::new();
    let device = assigned(&world);
    let reply = range(&device, "bytes=34-35, 0-1").expect(206);
    assert!(
        reply
            .header("content-type")
            .unwrap()
            .starts_with("multipart/byteranges; boundary=")
    );
    insta::assert_snapshot!(reply.text().replace('\r', ""), @"
    --pytheas-part-5d0c1e
    Content-Type: application/octet-stream
    Content-Range: bytes 34-35/36

    yz
    --pytheas-part-5d0c1e
    Content-Type: application/octet-stream
    Content-Range: bytes 0-1/36

    01
    --pytheas-part-5d0c1e--
    ");
}

#[test]
fn what_is_not_there_is_416_with_the_length() {
    let world = World::new();
    let device = assigned(&world);
    for header in ["bytes=36-", "bytes=5-2", "bytes=x"] {
        let reply = range(&device, header).expect(416);
        assert_eq!(
            reply.header("content-range"),
            Some("bytes */36"),
            "{header}"
        );
    }
}

#[test]
fn conditions_are_honoured() {
    let world = World::new();
    let device = assigned(&world);
    let whole = device.get(FILE);
    let etag = whole.header("etag").unwrap().to_owned();
    let with = |name: &str, value: &str| {
        device
            .call("GET", FILE)
            .header("range", "bytes=0-0")
            .header(name, value)
            .send()
            .status
    };
    assert_eq!(with("if-range", &etag), 206);
    assert_eq!(
        with("if-range", "\"other\""),
        200,
        "it changed: the whole file"
    );
    assert_eq!(
        with("if-range", whole.header("last-modified").unwrap()),
        206
    );
    assert_eq!(with("if-match", &etag), 206);
    assert_eq!(with("if-match", "\"other\""), 412);
    assert_eq!(with("if-none-match", &etag), 304);
}

#[test]
fn files_are_there_only_while_they_are_assigned() {
    let world = World::new();
    let device = assigned(&world);
    assert_eq!(
        device
            .get("/softwaremodules/1/artifacts")
            .json()
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        device.get("/softwaremodules/1/artifacts/other.swu").status,
        404
    );
    assert_eq!(
        device.get("/softwaremodules/9/artifacts/fw.swu").status,
        404
    );
    device.succeed();
    assert_eq!(device.get(FILE).status, 404);
    assert_eq!(
        device.get("/softwaremodules/1/artifacts").status,
        200,
        "still the installed one"
    );
}

#[test]
fn an_artifact_never_changes_under_its_name() {
    let world = World::new();
    let upload = |path: &str, body: &[u8]| {
        world
            .call("POST", &format!("/api/v1/artifacts/{path}"))
            .bearer(&world.admin)
            .body(body)
            .send()
    };
    insta::assert_snapshot!(upload("fw/1.0/fw.swu", BYTES).shown(), @r#"
    201
    content-type: application/json
    content-length: 204

    {
      "filename": "fw.swu",
      "md5": "e9b1713db620f1e3a14b6812de523f4b",
      "sha1": "a26704c04fc5f10db5aab58468035531cc542485",
      "sha256": "74e7e5bb9d22d6db26bf76946d40fff3ea9f0346b884fd0694920fccfad15e33",
      "size_bytes": 36
    }
    "#);
    upload("fw/1.0/fw.swu", BYTES).expect(201);
    insta::assert_snapshot!(upload("fw/1.0/fw.swu", b"other").shown(), @r#"
    409
    content-type: application/json
    content-length: 147

    {
      "error": {
        "code": "artifact-exists",
        "help": "what was uploaded stays as it is: use a new version",
        "message": "`fw@1.0` has another `fw.swu` already"
      }
    }
    "#);
    upload("fw/1.0/more.bin", b"more").expect(201);
    upload("fw/1.0/x.bin?part=bApp", b"x").expect(409);
    for path in [
        "fw/1.0/%2e%2e",
        "fw/1.0/a%2Fb",
        "-fw/1.0/a",
        "fw/1 0/a",
        "fw/1.0/a?part=%3Cb%3E",
    ] {
        let status = upload(path, b"x").status;
        assert!(matches!(status, 400 | 422), "{path}: {status}");
    }
    let listed = world.get("/api/v1/artifacts").json();
    assert_eq!(listed[0]["files"].as_array().unwrap().len(), 2);
}

#[test]
fn an_upload_over_the_limit_leaves_nothing_behind() {
    let world = World::with(|config| config.upload_limit_bytes = 10);
    let reply = world
        .call("POST", "/api/v1/artifacts/fw/1.0/fw.swu")
        .bearer(&world.admin)
        .body(BYTES)
        .send()
        .expect(413);
    assert_eq!(reply.json()["error"]["code"], "too-large");
    let left = std::fs::read_dir(world.dir.path().join("data/incoming"))
        .unwrap()
        .count();
    assert_eq!(left, 0);
    assert_eq!(world.get("/api/v1/artifacts").json(), json!([]));
}
