//! One test for each trap that a real client sets (`hawkbit-ddi.md` §1 and §5).

use serde_json::{Value, json};

use crate::world::{Device, World};

fn assigned(world: &World) -> Device<'_> {
    world.artifact("fw", "1.0", &[7; 2048]);
    let device = world.device("dev1");
    world.rollout(&json!({"artifact": "fw@1.0"}));
    device
}

fn deployment(device: &Device<'_>) -> Value {
    device.get("/deploymentBase/1").expect(200).json()
}

#[test]
fn zephyr_finds_its_tenant_in_the_case_it_wrote() {
    let world = World::new();
    let mut device = assigned(&world);
    device.tenant = "DEFAULT";
    let poll = device.get("").expect(200).text();
    assert!(
        poll.contains("/DEFAULT/controller/v1/dev1/deploymentBase/1"),
        "{poll}"
    );
    let base = device.get("/deploymentBase/1").expect(200).text();
    assert!(
        base.contains("/DEFAULT/controller/v1/dev1/softwaremodules/"),
        "{base}"
    );
    assert!(
        !poll.contains('\\') && !base.contains('\\'),
        "it decodes no escapes"
    );
}

#[test]
fn zephyr_reads_sleep_as_eight_characters() {
    for (seconds, expected) in [(1, "00:00:01"), (300, "00:05:00"), (86_399, "23:59:59")] {
        let world =
            World::with(|config| config.poll_interval = std::time::Duration::from_secs(seconds));
        assert_eq!(
            world.device("dev1").poll()["config"]["polling"]["sleep"],
            expected
        );
    }
}

#[test]
fn ids_are_decimal_text_that_fits_an_int() {
    let world = World::new();
    let base = deployment(&assigned(&world));
    let id: i32 = base["id"].as_str().expect("a string").parse().unwrap();
    assert!(id >= 1);
}

#[test]
fn swupdate_is_never_told_to_skip() {
    let world = World::new();
    let base = deployment(&assigned(&world));
    assert_eq!(base["deployment"]["update"], "forced");
    assert_eq!(base["deployment"]["download"], "forced");
    assert_eq!(base["deployment"].get("maintenanceWindow"), None);
}

#[test]
fn rauc_and_zephyr_get_exactly_one_chunk_with_one_artifact() {
    let world = World::new();
    let base = deployment(&assigned(&world));
    assert_eq!(base["deployment"]["chunks"].as_array().unwrap().len(), 1);
    let chunk = &base["deployment"]["chunks"][0];
    assert_eq!(chunk["artifacts"].as_array().unwrap().len(), 1);
    for key in ["part", "version", "name"] {
        assert!(chunk[key].is_string(), "{key}");
    }
}

#[test]
fn swupdate_reads_the_size_as_a_number_and_every_client_finds_its_hash_and_link() {
    let world = World::new();
    let base = deployment(&assigned(&world));
    let artifact = &base["deployment"]["chunks"][0]["artifacts"][0];
    assert_eq!(artifact["size"].as_i64(), Some(2048));
    assert!(artifact["filename"].as_str().unwrap().ends_with(".swu"));
    for (hash, digits) in [("sha1", 40), ("md5", 32), ("sha256", 64)] {
        assert_eq!(
            artifact["hashes"][hash].as_str().unwrap().len(),
            digits,
            "{hash}"
        );
    }
    for link in ["download", "download-http", "md5sum", "md5sum-http"] {
        let href = artifact["_links"][link]["href"].as_str().unwrap();
        assert!(
            href.starts_with("http://hub.test:8470/default/controller/v1/dev1/"),
            "{href}"
        );
    }
}

#[test]
fn applications_have_the_part_that_zephyr_wants() {
    let world = World::new();
    world
        .call("POST", "/api/v1/artifacts/fw/1.0/fw.bin?part=application")
        .bearer(&world.admin)
        .body("x")
        .send()
        .expect(201);
    let device = world.device("dev1");
    world.rollout(&json!({"artifact": "fw@1.0"}));
    assert_eq!(
        deployment(&device)["deployment"]["chunks"][0]["part"],
        "bApp"
    );
}

#[test]
fn rauc_takes_only_200_for_put_and_post() {
    let world = World::new();
    let device = assigned(&world);
    let put = device
        .call("PUT", "/configData")
        .json(&json!({"data": {"a": "b"}}))
        .send();
    let post = device.report(1, "proceeding", "none", "x");
    for reply in [put, post] {
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("content-length"), Some("0"));
    }
}

#[test]
fn every_client_writes_the_id_in_its_own_way() {
    let world = World::new();
    let device = assigned(&world);
    for id in [json!(1), json!("1"), json!(null), json!([])] {
        let body = json!({"id": id, "time": "20260101T000000", "status":
            {"execution": "proceeding", "result": {"finished": "none"}, "details": null}});
        let call = device
            .call("POST", "/deploymentBase/1/feedback")
            .json(&body);
        assert_eq!(call.send().status, 200, "{id}");
    }
}

#[test]
fn a_closed_action_is_410_but_a_lost_answer_may_be_asked_again() {
    let world = World::new();
    let device = assigned(&world);
    let closing = |time: i64| {
        let body = json!({"timestamp": time, "status": {"execution": "closed",
            "result": {"finished": "success"}, "details": ["done"]}});
        device
            .call("POST", "/deploymentBase/1/feedback")
            .json(&body)
            .send()
            .status
    };
    assert_eq!(closing(1), 200);
    assert_eq!(closing(2), 200, "the same report, sent again later");
    assert_eq!(device.report(1, "closed", "failure", "done").status, 410);
    assert_eq!(device.report(1, "proceeding", "none", "x").status, 410);
    assert_eq!(world.rollout_state(1).0, "finished");
}

#[test]
fn actions_of_others_and_wrong_numbers_are_unknown() {
    let world = World::new();
    let _assigned = assigned(&world);
    let other = world.device("dev2");
    for id in ["1", "0", "-1", "2147483648", "99999999999999999999", "x"] {
        for below in ["deploymentBase", "cancelAction", "installedBase"] {
            assert_eq!(
                other.get(&format!("/{below}/{id}")).status,
                404,
                "{below}/{id}"
            );
        }
        let body = json!({"status": {"execution": "closed", "result": {"finished": "success"}}});
        for below in ["deploymentBase", "cancelAction"] {
            let call = other
                .call("POST", &format!("/{below}/{id}/feedback"))
                .json(&body);
            assert_eq!(call.send().status, 404, "{below}/{id}");
        }
    }
    assert_eq!(other.get("/softwaremodules/1/artifacts").status, 404);
    assert_eq!(other.get("/softwaremodules/1/artifacts/fw.swu").status, 404);
}

#[test]
fn a_cancellation_comes_before_the_next_deployment() {
    let world = World::new();
    let device = assigned(&world);
    device.get("/deploymentBase/1").expect(200);
    world.artifact("fw", "2.0", &[8; 10]);
    world.rollout(&json!({"artifact": "fw@2.0"}));
    let links = device.poll()["_links"].clone();
    assert!(links.get("cancelAction").is_some() && links.get("deploymentBase").is_none());
    device.report_cancel(1, "closed", "success").expect(200);
    assert_eq!(device.action(), 2);
}

#[test]
fn what_the_device_never_saw_is_replaced_at_once() {
    let world = World::new();
    let device = assigned(&world);
    world.artifact("fw", "2.0", &[8; 10]);
    world.rollout(&json!({"artifact": "fw@2.0"}));
    assert_eq!(device.action(), 2);
    assert_eq!(
        world.rollout_state(1).0,
        "finished",
        "it waits for nobody any more"
    );
    let history = world.get("/api/v1/devices/dev1").json()["history"].clone();
    assert_eq!(history[1]["status"], "cancelled");
    assert_eq!(history[1]["message"], "replaced by rollout 2");
}

#[test]
fn attributes_are_wanted_again_after_each_success() {
    let world = World::new();
    let device = assigned(&world);
    device
        .call("PUT", "/configData")
        .json(&json!({"data": {"a": "b"}}))
        .send()
        .expect(200);
    assert_eq!(device.link("configData"), None);
    device.succeed();
    assert!(device.link("configData").is_some());
    assert_eq!(
        device.link("installedBase").as_deref(),
        Some("/installedBase/1")
    );
}

#[test]
fn a_burst_of_log_lines_is_kept_and_an_endless_one_is_stopped() {
    let world = World::new();
    let device = assigned(&world);
    let lines: Vec<String> = (0..48).map(|n| format!("line {n}")).collect();
    device
        .report(1, "proceeding", "none", &lines.join("\n"))
        .expect(200);
    let history = world.get("/api/v1/devices/dev1").json()["history"].clone();
    let messages = history[0]["messages"].as_array().unwrap();
    assert_eq!(
        messages.last().unwrap()["details"]
            .as_array()
            .unwrap()
            .len(),
        48
    );
    let mut status = 200;
    for n in 0..1100 {
        status = device
            .report(1, "proceeding", "none", &format!("again {n}"))
            .status;
        if status != 200 {
            break;
        }
    }
    assert_eq!(status, 429);
    device
        .report(1, "closed", "success", "but its end counts")
        .expect(200);
}

#[test]
fn links_follow_a_trusted_proxy_only() {
    let forwarded = |world: &World| {
        let device = world.device("dev1");
        let reply = device
            .call("GET", "")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "fleet.example")
            .send();
        reply.expect(200).json()["_links"]["configData"]["href"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let trusting =
        World::with(|config| config.trusted_proxies = vec!["127.0.0.1".parse().unwrap()]);
    let href = "https://fleet.example/default/controller/v1/dev1/configData";
    assert_eq!(forwarded(&trusting), href);
    let wary = World::new();
    assert_eq!(
        forwarded(&wary),
        "http://hub.test:8470/default/controller/v1/dev1/configData"
    );
    let named =
        World::with(|config| config.external_url = Some("https://fleet.example/".parse().unwrap()));
    assert_eq!(forwarded(&named), href);
}

#[test]
fn a_host_header_that_is_no_host_is_refused() {
    let world = World::new();
    let device = world.device("dev1");
    for host in ["evil\"onload=", "a b", "a/b"] {
        let reply = device.call("GET", "").header("host", host).send();
        assert_eq!(reply.status, 400, "{host}");
    }
}
