//! `pytheas device delete`: devices that are gone.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use miette::Diagnostic;
use pytheas_api::{DeviceDetail, DeviceId};
use serde::Serialize;
use thiserror::Error;

use crate::{
    context::Context,
    hub_client::{HubArgs, HubClient, encoded},
    output::{Paint, Show, ago, now_ms},
};

/// Delete devices with their tokens, settings and history
///
/// Their tokens are worthless from then on; rollouts go on without them. A
/// device that still runs keeps its app, and may ask to be admitted anew.
#[derive(Debug, clap::Args)]
pub(crate) struct DeleteArgs {
    /// Their ids
    #[arg(required = true)]
    ids: Vec<DeviceId>,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    hub: HubArgs,
}

/// Nobody agreed.
#[derive(Debug, Error, Diagnostic)]
enum NotDeleted {
    /// Nobody to ask.
    #[error("nobody is there to agree that devices are deleted")]
    #[diagnostic(code(pytheas::device::not_agreed), help("`--yes` agrees"))]
    NobodyToAsk,
    /// The answer was another.
    #[error("nothing was deleted")]
    #[diagnostic(code(pytheas::device::kept), help("answer `yes`, or give `--yes`"))]
    Kept,
    /// No answer came.
    #[error("cannot read the answer")]
    #[diagnostic(code(pytheas::device::read))]
    Answer(#[source] io::Error),
}

#[derive(Serialize)]
struct Deleted {
    deleted: Vec<DeviceId>,
}

impl Show for Deleted {
    fn text(&self, out: &mut Paint<'_>) -> io::Result<()> {
        for id in &self.deleted {
            out.line(format!("deleted device `{id}`"))?;
        }
        Ok(())
    }
}

/// Deletes them: all are looked for before any is deleted.
pub(super) fn run(args: &DeleteArgs, context: &Context) -> miette::Result<()> {
    let hub = HubClient::new(&args.hub)?;
    let mut ids = args.ids.clone();
    ids.sort();
    ids.dedup();
    let found = ids
        .iter()
        .map(|id| hub.get(&format!("devices/{}", encoded(id.as_str()))))
        .collect::<Result<Vec<DeviceDetail>, _>>()?;
    if !args.yes {
        agreed(&found)?;
    }
    for id in &ids {
        hub.delete(&format!("devices/{}", encoded(id.as_str())))?;
    }
    context.show(&Deleted { deleted: ids })
}

/// Asks whether these are to be deleted.
fn agreed(devices: &[DeviceDetail]) -> Result<(), NotDeleted> {
    if !io::stdin().is_terminal() {
        return Err(NotDeleted::NobodyToAsk);
    }
    let (mut err, now) = (io::stderr(), now_ms());
    let mut asked = String::new();
    for DeviceDetail { device, .. } in devices {
        let seen = device.last_seen_ms.map_or("never seen".into(), |then| {
            format!("seen {}", ago(then, now))
        });
        let runs = device.release.as_deref().unwrap_or("nothing");
        let (id, name) = (&device.id, &device.name);
        asked.push_str(&format!("  {id} ({name}), runs {runs}, {seen}\n"));
    }
    asked.push_str("Delete? [yes/no] ");
    let asked = crate::output::harmless(&asked, false);
    let _shown_as_far_as_it_goes = err.write_all(asked.as_bytes()).and_then(|()| err.flush());
    let mut answer = String::new();
    io::stdin()
        .lock()
        .read_line(&mut answer)
        .map_err(NotDeleted::Answer)?;
    match answer.trim() {
        "yes" | "y" => Ok(()),
        _ => Err(NotDeleted::Kept),
    }
}
