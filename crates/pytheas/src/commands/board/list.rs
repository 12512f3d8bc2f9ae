//! `pytheas board list`: the serial ports that may have a board.

use std::io;

use pytheas_board::link::ports::{self, Port};
use serde::Serialize;

use crate::{
    context::Context,
    output::{Paint, Show},
};

/// List the serial ports of this machine, and who uses them
#[derive(Debug, clap::Args)]
pub(crate) struct ListArgs {}

#[derive(Serialize)]
#[serde(transparent)]
struct Ports(Vec<Port>);

impl Show for Ports {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        if self.0.is_empty() {
            return out.line("no serial ports; boards behind others are reached with `--port`");
        }
        let dash = || "-".to_owned();
        let rows: Vec<_> = self
            .0
            .iter()
            .map(|port| {
                let users: Vec<_> = port
                    .used_by
                    .iter()
                    .map(|user| format!("{} ({})", user.program, user.pid))
                    .collect();
                [
                    port.path.display().to_string(),
                    port.usb.clone().unwrap_or_else(dash),
                    port.product.clone().unwrap_or_else(dash),
                    port.serial.clone().unwrap_or_else(dash),
                    users.join(", "),
                ]
            })
            .collect();
        out.table(["PORT", "USB", "PRODUCT", "SERIAL", "USED BY"], &rows)
    }
}

/// Lists them.
pub(super) fn run(_args: &ListArgs, context: &Context) -> miette::Result<()> {
    context.show(&Ports(ports::list()))
}
