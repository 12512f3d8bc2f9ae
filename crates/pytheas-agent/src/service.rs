//! `install-service`: the systemd unit that runs the agent, with the rights it needs and no more.
//!
//! What the app needs it needs too, since the app runs inside: devices stay reachable, and the
//! control group is the agent's to divide (limits of memory and processor). The agent says `READY=1`
//! itself once it is at work ([`ready`]).

use std::{fmt::Write as _, io::Write, os::unix::net::UnixDatagram, path::PathBuf};

use clap::Args;

use crate::{
    cli::{StateArgs, say},
    error::{AgentError, exit},
    supervisor::Confinement,
};

/// Where units of the machine's owner lie.
const UNITS: &str = "/etc/systemd/system";

/// Write a systemd unit that runs the agent, hardened
///
/// Enrol the device first. The unit starts the agent at boot and again whenever it ends.
#[derive(Debug, Clone, Args)]
pub struct InstallServiceArgs {
    /// Run the agent as this user instead of root; `--app-user` then cannot be used
    #[arg(long, value_name = "NAME", conflicts_with = "app_user")]
    pub user: Option<String>,
    /// Name of the unit
    #[arg(long, value_name = "NAME", default_value = "pytheas-agent", value_parser = parse_name)]
    pub name: String,
    /// Show the unit and write nothing
    #[arg(long)]
    pub print: bool,
    /// What the app may not.
    #[command(flatten)]
    pub confinement: Confinement,
    /// Where.
    #[command(flatten)]
    pub state: StateArgs,
}

fn parse_name(text: &str) -> Result<String, String> {
    let name = text.strip_suffix(".service").unwrap_or(text);
    let fits = (1..=100).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    match fits && !name.starts_with('.') {
        true => Ok(name.to_owned()),
        false => Err("letters, digits, `-`, `_` and `.` are wanted".into()),
    }
}

/// `install-service`.
///
/// # Errors
/// [`AgentError::Io`] when the unit cannot be written.
pub(crate) fn install(args: &InstallServiceArgs, out: &mut dyn Write) -> Result<u8, AgentError> {
    let own = std::path::Path::new("/proc/self/exe");
    let program = std::env::current_exe().map_err(AgentError::io("find", own))?;
    let text = unit(args, &program);
    if args.print {
        say(out, format_args!("{text}"))?;
        return Ok(exit::OK);
    }
    let path = PathBuf::from(UNITS).join(format!("{}.service", args.name));
    pytheas_durable::replace(&path, text.as_bytes()).map_err(AgentError::io("write", &path))?;
    say(
        out,
        format_args!(
            "wrote `{}`\nstart it: systemctl daemon-reload && systemctl enable --now {}\n",
            path.display(),
            args.name
        ),
    )?;
    Ok(exit::OK)
}

/// The unit's text.
fn unit(args: &InstallServiceArgs, program: &std::path::Path) -> String {
    let state = args.state.dir();
    let mut command = quote(&program.display().to_string());
    // `pytheas agent run` is the same program under another name.
    if program.file_name().is_some_and(|name| name == "pytheas") {
        command.push_str(" agent");
    }
    let _a_string_takes_all = write!(
        command,
        " run --state {}",
        quote(&state.root().display().to_string())
    );
    let mut option = |name: &str, value: String| {
        let _a_string_takes_all = write!(command, " {name} {}", quote(&value));
    };
    let confinement = &args.confinement;
    if let Some(user) = &confinement.app_user {
        option("--app-user", user.clone());
    }
    if let Some(bytes) = confinement.app_memory {
        option("--app-memory", bytes.to_string());
    }
    if let Some(percent) = confinement.app_cpu {
        option("--app-cpu", format!("{percent}%"));
    }
    for path in &confinement.app_writes {
        option("--app-writes", path.display().to_string());
    }
    if confinement.no_sandbox {
        command.push_str(" --no-sandbox");
    }
    let user = match &args.user {
        Some(user) => format!("User={user}\n"),
        None => String::new(),
    };
    // Only what the agent is for: give files and processes to the app's user, end them.
    let capabilities = match &args.user {
        Some(_) => "CAP_NET_BIND_SERVICE",
        None => {
            "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_KILL CAP_NET_BIND_SERVICE CAP_SETGID \
             CAP_SETUID CAP_SYS_PTRACE"
        }
    };
    let mut writable = quote(&state.root().display().to_string());
    for path in &confinement.app_writes {
        // `-`: one that is not there is no reason not to start.
        let _a_string_takes_all = write!(writable, " -{}", quote(&path.display().to_string()));
    }
    format!(
        "# Written by `pytheas-agent install-service`; do it again after an update of the agent.
[Unit]
Description=Pytheas device agent
After=network.target
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
EnvironmentFile=-/etc/pytheas/app.env
ExecStart={command}
ExecReload=/bin/kill -HUP $MAINPID
{user}Restart=always
RestartSec=2
# The agent ends its app itself; what is left after that is killed.
KillMode=mixed
TimeoutStopSec=30
Delegate=cpu memory pids
OOMPolicy=continue
UMask=0022

ReadWritePaths={writable}
ProtectSystem=strict
ProtectHome=read-only
PrivateTmp=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
NoNewPrivileges=yes
RestrictSUIDSGID=yes
LockPersonality=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_CAN AF_BLUETOOTH
CapabilityBoundingSet={capabilities}
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @debug @module @mount @obsolete @raw-io @reboot @swap
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"
    )
}

/// A word as systemd reads it (systemd.service(5), systemd.unit(5)): quoted, no `%` or `$` of it
/// taken for more than itself.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.,:=@+".contains(c);
    let text = word.replace('%', "%%").replace('$', "$$");
    if !text.is_empty() && word.chars().all(plain) {
        return text;
    }
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Tells who started the agent (systemd, by `NOTIFY_SOCKET`) that it is at work.
pub(crate) fn ready() {
    use std::os::{linux::net::SocketAddrExt as _, unix::net::SocketAddr};
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let bytes = name.as_encoded_bytes();
    let address = match bytes.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let told = address.and_then(|address| {
        UnixDatagram::unbound()?.send_to_addr(b"READY=1\nSTATUS=at work", &address)
    });
    if let Err(error) = told {
        tracing::warn!(
            "cannot tell `{}` that the agent is ready: {error}",
            name.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: InstallServiceArgs,
    }

    fn args(words: &[&str]) -> InstallServiceArgs {
        Cli::try_parse_from([&["x"], words].concat()).unwrap().args
    }

    #[test]
    fn words_reach_the_program_as_they_are() {
        assert_eq!(quote("/var/lib/pytheas"), "/var/lib/pytheas");
        assert_eq!(quote("/a b/100%"), "\"/a b/100%%\"");
        assert_eq!(quote("a\"$b\\"), "\"a\\\"$$b\\\\\"");
    }

    #[test]
    fn a_units_name_is_no_path() {
        assert_eq!(parse_name("agent.service").as_deref(), Ok("agent"));
        for wrong in ["", "../x", "a/b", ".hidden", "a b"] {
            assert!(parse_name(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_unit_says_how_the_agent_and_its_app_are_run() {
        let args = args(&[
            "--state",
            "/srv/my state",
            "--app-user",
            "app",
            "--app-memory",
            "200 MB",
            "--app-cpu",
            "50%",
            "--app-writes",
            "/var/log/app",
        ]);
        let text = unit(&args, std::path::Path::new("/usr/bin/pytheas"));
        let line = |name: &str| text.lines().find(|line| line.starts_with(name)).unwrap();
        insta::assert_snapshot!(line("ExecStart="), @r#"ExecStart=/usr/bin/pytheas agent run --state "/srv/my state" --app-user app --app-memory 200000000 --app-cpu "50%%" --app-writes /var/log/app"#);
        insta::assert_snapshot!(line("ReadWritePaths="), @r#"ReadWritePaths="/srv/my state" -/var/log/app"#);
    }

    #[test]
    fn systemd_takes_the_unit_and_finds_it_hardened() {
        let analyze = |words: &[&str], path: &std::path::Path| {
            std::process::Command::new("systemd-analyze")
                .args(words)
                .arg(path)
                .output()
        };
        if !analyze(&["--version"], std::path::Path::new("")).is_ok_and(|o| o.status.success()) {
            return testkit::skip("`systemd-analyze` is not installed");
        }
        let tmp = tempfile::tempdir().unwrap();
        for (words, most) in [(vec![], "55"), (vec!["--user", "daemon"], "50")] {
            let path = tmp.path().join("pytheas-agent.service");
            let text = unit(&args(&words), &std::env::current_exe().unwrap());
            pytheas_durable::replace(&path, text.as_bytes()).unwrap();
            let verified = analyze(&["verify", "--man=no"], &path).unwrap();
            let said = String::from_utf8_lossy(&verified.stderr).into_owned();
            assert!(
                verified.status.success() && !said.contains("agent.service"),
                "{said}"
            );
            let threshold = format!("--threshold={most}");
            let judged = analyze(&["security", "--offline=true", &threshold], &path).unwrap();
            let said = String::from_utf8_lossy(&judged.stdout).into_owned();
            assert!(judged.status.success(), "{said}");
        }
    }
}
