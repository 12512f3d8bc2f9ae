//! `pytheas board setup`: makes a board take signed releases.

use std::{
    io,
    path::{Path, PathBuf},
};

use include_dir::{Dir, include_dir};
use miette::{IntoDiagnostic, WrapErr};
use pytheas_board::{
    deploy::{Files, rom::MainPy, setup},
    link::Facts,
    romfs,
};
use pytheas_build::micropython::{CompileOptions, Source};
use pytheas_repo::keys::boards;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{BoardArgs, deploy::compiler};
use crate::{
    context::Context,
    output::{Paint, Show},
};

static PACKAGE: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../../micropython/pytheas");

/// Prepare a board: the guard, keys it trusts, and where its hub is
///
/// Afterwards the board takes signed images only, over the air and with
/// `pytheas board deploy`, in two slots, and goes back by itself when one does
/// not confirm itself. May be repeated; what is not named stays as it is.
///
/// Example: `pytheas board setup --keys keys --hub https://hub.example:8440
/// --ca ca.crt --id node-7 --token TOKEN`
#[derive(Debug, clap::Args)]
pub(crate) struct SetupArgs {
    /// The keys the board trusts: a folder of keys (its targets role), or a file by `keys export --board -o`
    #[arg(long, value_name = "DIR|FILE")]
    keys: Option<PathBuf>,
    /// A public key the board trusts, 64 hexadecimal digits; may be repeated
    #[arg(long = "key", value_name = "HEX")]
    key: Vec<String>,
    /// Address of the hub
    #[arg(long, env = "PYTHEAS_HUB", value_name = "URL")]
    hub: Option<String>,
    /// The certificate that the hub's was issued by, PEM or DER; `https` needs it
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The device's id at the hub
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// The device's token, as `pytheas device add` shows it
    #[arg(
        long,
        env = "PYTHEAS_DEVICE_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN"
    )]
    token: Option<String>,
    /// The board's model, which releases may require
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The firmware's name, which releases may require
    #[arg(long, value_name = "NAME")]
    firmware: Option<String>,
    /// Seconds between questions to the hub
    #[arg(long, value_name = "SECONDS")]
    poll: Option<u32>,
    /// A setting of `/pytheas/config.json`: a JSON value, or text; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE")]
    set: Vec<String>,
    /// Put a `main.py` that Pytheas did not write aside, as `main.py.bak`
    #[arg(long)]
    force: bool,
    /// Use no network
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    board: BoardArgs,
}

#[derive(Serialize)]
struct Shown {
    port: String,
    #[serde(flatten)]
    done: setup::SetUp,
}

impl Show for Shown {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let package = &self.done.package;
        if !package.changed() && self.done.written.is_empty() {
            return out.line(format!("the board on {} is set up already", self.port));
        }
        out.line(format!(
            "set up the board on {}: {} files of the package written, {} unchanged",
            self.port, package.written, package.unchanged
        ))?;
        for path in &self.done.written {
            out.line(format!("wrote {path}"))?;
        }
        out.line("it takes signed images now: `pytheas board deploy`, or a rollout of the hub")
    }
}

/// Prepares it.
pub(super) fn run(args: &SetupArgs, context: &Context) -> miette::Result<()> {
    let mut keys = match &args.keys {
        Some(path) if path.is_file() => exported(path)?,
        Some(dir) => boards::board_keys(dir)?,
        None => Vec::new(),
    };
    for text in &args.key {
        keys.push(public_key(text)?);
    }
    let settings = settings(args)?;
    let ca = args.ca.as_deref().map(certificate).transpose()?;
    let (mut board, facts) = args.board.ask(context)?;
    let package = package(&facts, args.offline, context)?;
    let progress = context.progress();
    progress.detail("setting up the board");
    let wanted = setup::Setup {
        package,
        settings,
        ca,
        keys,
        main_py: if args.force {
            MainPy::PutAside
        } else {
            MainPy::Keep
        },
    };
    let mut done = setup::setup(&mut board, &facts, &wanted, &mut |_, _| {})?;
    board.leave()?;
    drop(progress);
    for remark in done.remarks.drain(..) {
        context.warn(remark);
    }
    context.show(&Shown {
        port: board.port().to_owned(),
        done,
    })
}

fn read(path: &Path) -> miette::Result<Vec<u8>> {
    std::fs::read(path)
        .into_diagnostic()
        .wrap_err_with(|| format!("cannot read `{}`", path.display()))
}

/// Raw keys, one after the other.
fn exported(path: &Path) -> miette::Result<Vec<[u8; 32]>> {
    let bytes = read(path)?;
    let (keys, rest) = bytes.as_chunks::<32>();
    if keys.is_empty() || !rest.is_empty() {
        return Err(miette::miette!(
            code = "pytheas::board::key",
            help = "`pytheas keys export --board -o FILE` writes one; `--keys DIR` takes the folder of keys itself",
            "`{}` is no file of a board's keys: 32 bytes for each",
            path.display()
        ));
    }
    Ok(keys.to_vec())
}

/// The one certificate in the file, as DER.
fn certificate(path: &Path) -> miette::Result<Vec<u8>> {
    let bytes = read(path)?;
    // A certificate as DER is a sequence.
    if bytes.first() == Some(&0x30) {
        return Ok(bytes);
    }
    let mut found = ureq::tls::parse_pem(&bytes).filter_map(|item| match item {
        Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate.der().to_vec()),
        _ => None,
    });
    match (found.next(), found.next()) {
        (Some(certificate), None) => Ok(certificate),
        (first, _) => Err(miette::miette!(
            code = "pytheas::board::ca",
            help = "a board holds one: that of the authority which issued the hub's (of a chain, the last)",
            "`{}` has {}",
            path.display(),
            if first.is_some() {
                "several certificates"
            } else {
                "no certificate"
            }
        )),
    }
}

fn public_key(text: &str) -> miette::Result<[u8; 32]> {
    let wrong = || {
        miette::miette!(
            code = "pytheas::board::key",
            help = "`pytheas keys show` has the public keys; `--keys DIR` takes those of a folder",
            "`{text}` is no Ed25519 public key in hexadecimal"
        )
    };
    let digit = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(digit).collect();
    let bytes = bytes.filter(|_| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()));
    bytes
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(wrong)
}

fn settings(args: &SetupArgs) -> miette::Result<Map<String, Value>> {
    let mut all = Map::new();
    let texts = [
        ("hub", &args.hub),
        ("id", &args.id),
        ("token", &args.token),
        ("model", &args.model),
        ("firmware", &args.firmware),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            all.insert(name.into(), json!(value));
        }
    }
    if let Some(poll) = args.poll {
        all.insert("poll".into(), json!(poll));
    }
    for text in &args.set {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            miette::miette!(
                code = "pytheas::board::set",
                help = "write `--set NAME=VALUE`, such as `--set confirm=120`",
                "`{text}` sets nothing"
            )
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        all.insert(name.to_owned(), value);
    }
    Ok(all)
}

/// The package for this board, compiled.
pub(super) fn package(facts: &Facts, offline: bool, context: &Context) -> miette::Result<Files> {
    let mut paths = Vec::new();
    let mut sources = Vec::new();
    for file in PACKAGE.files() {
        let name = file.path().to_string_lossy().into_owned();
        let Some(stem) = name.strip_suffix(".py") else {
            continue;
        };
        // Stands in for `machine` on Linux.
        if stem == "unix" && facts.platform != "linux" {
            continue;
        }
        paths.push(romfs::path(format!("{stem}.mpy").as_bytes())?);
        sources.push(Source {
            name: format!("pytheas/{name}"),
            bytes: file.contents().to_vec(),
        });
    }
    let compiled = compiler(offline, context)?
        .compile(
            &sources,
            CompileOptions {
                arch: None,
                optimize: 3,
            },
        )
        .into_diagnostic()
        .wrap_err("cannot compile the package for the board")?;
    Ok(paths.into_iter().zip(compiled).collect())
}
