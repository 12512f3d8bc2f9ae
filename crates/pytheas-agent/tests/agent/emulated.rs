//! The agent of real devices' processors, emulated: whole updates with an app for that processor.
//!
//! `cargo xtask test --all` (or `cargo xtask cross`) compiles the agent and the app for Arm and
//! names their folder in `PYTHEAS_TEST_CROSS`; qemu's user mode runs both. Only what the kernel
//! does (files, sockets, processes) is this machine's.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use pytheas_release::Ready;

use crate::support::{App, Device, World, until};

/// The agent, the app, and what runs them on this machine.
struct Cpu {
    name: &'static str,
    bits: u8,
    folder: PathBuf,
    emulator: PathBuf,
}

impl Cpu {
    /// What is there for the processor `name`; says so when something is missing.
    fn find(name: &'static str, bits: u8, emulator: &str) -> Option<Self> {
        let Some(folder) = std::env::var_os("PYTHEAS_TEST_CROSS") else {
            testkit::skip("the Arm agents take minutes to build; run `cargo xtask test --all`");
            return None;
        };
        let folder = Path::new(&folder).join(name);
        if !folder.join("pytheas-agent").exists() {
            testkit::skip(&format!("there is no agent in `{}`", folder.display()));
            return None;
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path)
            .map(|dir| dir.join(emulator))
            .find(|program| program.exists());
        let Some(emulator) = found else {
            testkit::skip(&format!("`{emulator}` is not installed"));
            return None;
        };
        Some(Self {
            name,
            bits,
            folder,
            emulator,
        })
    }

    /// A release whose program is for this processor: every version brings the agent's megabytes
    /// too, so that a delta has machine code to go through.
    fn app(&self, version: &str, behaviour: &str) -> App {
        let mut payload = fs::read(self.folder.join("pytheas-agent")).unwrap();
        payload.extend(version.bytes());
        let mut app = App::good(version)
            .file("bin/machine", fs::read(self.folder.join("app")).unwrap())
            .file("lib/payload.so", payload)
            .file("lib/behaviour", format!("{behaviour}\n").into_bytes())
            // Nothing here tells the kernel how to run a foreign program: the script does.
            .script(&format!(
                "exec '{}' \"$here/bin/machine\" \"$here\"",
                self.emulator.display()
            ))
            .health(Ready::Notify, 20_000);
        app.platform = format!("linux-{}", self.name).parse().unwrap();
        app
    }

    fn device(&self, world: &World) -> Device {
        let wrapper = world.path(&format!("agent-{}", self.name));
        let script = format!(
            "#!/bin/sh\nexec '{}' '{}' \"$@\"\n",
            self.emulator.display(),
            self.folder.join("pytheas-agent").display()
        );
        pytheas_durable::replace(&wrapper, script.as_bytes()).unwrap();
        fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
        let mut device = world.device("device");
        device.program = Some(wrapper);
        device
    }

    #[track_caller]
    fn runs(&self, device: &Device, version: &str) {
        let wanted = format!("{version} {} bits", self.bits);
        until(&format!("`{wanted}`"), || {
            (device.running() == wanted).then_some(())
        });
    }
}

fn updates_go_as_everywhere(cpu: &Cpu) {
    let world = World::new();
    let first = world.publish(&cpu.app("1.0.0", "ready"));
    let mut device = cpu.device(&world);
    let root = world.root_file();
    let url = world.hub.url();
    let root = root.to_str().unwrap();
    let enrolled = device.output("enrol", &["--hub", &url, "--root", root, "--id", "dev1"]);
    assert!(enrolled.status.success(), "{enrolled:?}");

    device.start();
    let action = world.hub.offer(&first.target);
    assert_eq!(world.hub.closed(&action), Ok(()));
    cpu.runs(&device, "1.0.0");

    // By the delta, in spite of a power cut on the way.
    let second = world.publish(&cpu.app("1.1.0", "ready"));
    world.hub.talk().sent_bytes = 0;
    let action = world.hub.offer(&second.target);
    until("the update has begun", || {
        (device.state_name() != "idle").then_some(())
    });
    device.kill();
    device.start();
    assert_eq!(world.hub.closed(&action), Ok(()));
    cpu.runs(&device, "1.1.0");
    assert_eq!(device.current(), Some(second.tree));
    let sent = world.hub.talk().sent_bytes;
    assert!(sent < 40_000, "{sent} bytes were sent");

    // One that ends, one that never says that it is ready.
    let crashing = world.publish(&cpu.app("1.2.0", "crash"));
    let action = world.hub.offer(&crashing.target);
    let told = world.hub.closed(&action).unwrap_err().join("\n");
    assert!(told.contains("exit status 7"), "{told}");
    cpu.runs(&device, "1.1.0");
    let mut silent = cpu.app("1.3.0", "silent");
    silent.health.deadline_ms = 1500;
    let silent = world.publish(&silent);
    let action = world.hub.offer(&silent.target);
    let told = world.hub.closed(&action).unwrap_err().join("\n");
    assert!(told.contains("did not say `READY=1`"), "{told}");
    cpu.runs(&device, "1.1.0");
    assert_eq!(device.current(), Some(second.tree));

    device.is_idle();
    assert_eq!(device.status()["release"], "app@1.1.0");
    let verified = device.output("verify", &[]);
    assert!(verified.status.success(), "{verified:?}");
    assert!(device.stop().success());
}

/// The agent is what it should be: an emulator also runs a program of this machine, some do.
fn is_for(cpu: &Cpu, machine: u16) {
    let program = fs::read(cpu.folder.join("pytheas-agent")).unwrap();
    assert_eq!(u16::from_le_bytes([program[18], program[19]]), machine);
    let version = Command::new(&cpu.emulator)
        .arg(cpu.folder.join("pytheas-agent"))
        .arg("--version")
        .output()
        .unwrap();
    assert!(version.status.success(), "{version:?}");
}

#[test]
fn an_aarch64_device_updates_and_rolls_back() {
    if let Some(cpu) = Cpu::find("aarch64", 64, "qemu-aarch64-static") {
        is_for(&cpu, 183);
        updates_go_as_everywhere(&cpu);
    }
}

#[test]
fn an_armv7_device_updates_and_rolls_back() {
    if let Some(cpu) = Cpu::find("armv7", 32, "qemu-arm-static") {
        is_for(&cpu, 40);
        updates_go_as_everywhere(&cpu);
    }
}
