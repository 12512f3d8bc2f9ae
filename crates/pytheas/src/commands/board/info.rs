//! `pytheas board info`: what a board is and has.

use std::io;

use pytheas_board::{deploy::slots, link::Facts};
use serde::Serialize;

use super::BoardArgs;
use crate::{
    context::Context,
    output::{Paint, Show, bytes},
};

/// Show what a board is: firmware, memory, file systems, partitions, the app's slots
#[derive(Debug, clap::Args)]
pub(crate) struct InfoArgs {
    #[command(flatten)]
    board: BoardArgs,
}

#[derive(Serialize)]
struct Info {
    port: String,
    platform: String,
    #[serde(flatten)]
    facts: Facts,
    #[serde(skip_serializing_if = "Option::is_none")]
    slots: Option<serde_json::Value>,
}

impl Show for Info {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        let facts = &self.facts;
        out.fact("port", &self.port)?;
        out.fact("board", &facts.machine)?;
        if !facts.id.is_empty() {
            out.fact("id", &facts.id)?;
        }
        out.fact(
            "firmware",
            format!("{} {} ({})", facts.name, facts.version, facts.platform),
        )?;
        out.fact("platform", &self.platform)?;
        if facts.mpy > 0 {
            out.fact(
                "mpy",
                format!("version {}, native code {}", facts.mpy, facts.arch),
            )?;
        }
        out.fact(
            "heap",
            format!("{} free of {}", bytes(facts.heap_free), bytes(facts.heap)),
        )?;
        for fs in &facts.file_systems {
            let (free, size) = (bytes(fs.free), bytes(fs.size));
            out.fact(
                "file system",
                format!("{} {}, {free} free of {size}", fs.path, fs.kind),
            )?;
        }
        for rom in &facts.rom {
            out.fact(
                "ROMFS",
                format!("partition {}, {}", rom.number, bytes(rom.size)),
            )?;
        }
        let has = [
            ("deflate", facts.deflate),
            ("sha256", facts.sha256),
            ("TLS", facts.tls),
        ];
        let has: Vec<_> = has
            .iter()
            .filter(|(_, has)| *has)
            .map(|(name, _)| *name)
            .collect();
        out.fact("has", has.join(", "))?;
        match &self.slots {
            None if facts.prepared => {}
            None => out.fact("updates", "not set up (`pytheas board setup`)")?,
            Some(status) => {
                let slots = status["slots"]
                    .as_array()
                    .map(Vec::as_slice)
                    .unwrap_or_default();
                for (number, slot) in slots.iter().enumerate() {
                    let runs = status["active"].as_u64() == u64::try_from(number).ok();
                    let text = |key: &str| slot[key].as_str().unwrap_or("?").to_owned();
                    let state = match (slot.is_null(), runs, status["pending"] == true) {
                        (true, ..) => "empty".to_owned(),
                        (_, true, true) => format!("{} {}, pending", text("name"), text("version")),
                        (_, true, false) => format!("{} {}, runs", text("name"), text("version")),
                        _ if slot["bad"] == 1 => {
                            format!("{} {}, bad", text("name"), text("version"))
                        }
                        _ => format!("{} {}", text("name"), text("version")),
                    };
                    out.fact(&format!("slot {number}"), state)?;
                }
                if let Some(why) = status["why"].as_str() {
                    out.fact("last", why)?;
                }
            }
        }
        Ok(())
    }
}

/// Shows it.
pub(super) fn run(args: &InfoArgs, context: &Context) -> miette::Result<()> {
    let (mut board, facts) = args.board.ask(context)?;
    let slots = if facts.prepared {
        Some(slots::status(&mut board)?)
    } else {
        None
    };
    context.show(&Info {
        port: board.port().to_owned(),
        platform: facts.release_platform(),
        facts,
        slots,
    })
}
