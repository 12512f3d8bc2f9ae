//! Makes the deltas that devices have asked for, one at a time, on a thread that yields to all else.

use std::{io, sync::Arc, thread};

use pytheas_repo::on_demand::{self, OnDemandError};
use tokio::{runtime::Handle, sync::oneshot};

use crate::{
    app::{App, stopped},
    delta_orders::Pair,
    releases::ReleasesError,
};

/// The lowest there is: serving comes first.
const NICENESS: i32 = 19;

#[derive(Debug, thiserror::Error)]
enum NotMade {
    #[error(transparent)]
    Releases(#[from] ReleasesError),
    #[error(transparent)]
    Make(#[from] OnDemandError),
    #[error(transparent)]
    Store(#[from] pytheas_repo::store::StoreError),
    #[error("the work ended before its time")]
    Thread(#[source] Option<io::Error>),
}

/// Until the hub stops. A delta that is being made then is given up.
pub(crate) async fn run(app: App) {
    let mut stopping = app.stopping.clone();
    loop {
        let work = async {
            let pair = app.delta_orders.next().await;
            let made = make(&app, pair).await;
            (pair, made)
        };
        let ((from, to), made) = tokio::select! {
            () = stopped(&mut stopping) => return,
            done = work => done,
        };
        let (from, to) = (from.short(), to.short());
        match &made {
            Ok(Some(bytes)) => {
                tracing::info!(%from, %to, bytes, "made a delta of {bytes} bytes from tree {from} to {to}");
            }
            Ok(None) => {
                tracing::info!(%from, %to, "a delta from tree {from} to {to} saves nothing");
            }
            Err(error) => {
                tracing::warn!(%from, %to, error = chain(error), "no delta from tree {from} to {to}");
            }
        }
        let there_is_one = matches!(made, Ok(Some(_)));
        app.delta_orders.done(there_is_one, app.now_ms());
    }
}

/// The delta's length; none when it saves nothing, or the releases have gone.
async fn make(app: &App, (from, to): Pair) -> Result<Option<usize>, NotMade> {
    let Some((old, new)) = app.releases.pair(from, to).await? else {
        return Ok(None);
    };
    let (send, done) = oneshot::channel();
    let (shared, runtime) = (Arc::clone(app), Handle::current());
    let work = move || {
        // Threads that it starts inherit the niceness; it cannot be taken back, hence no pool.
        if let Err(error) = rustix::process::nice(NICENESS) {
            tracing::debug!(%error, "deltas are made as busily as all else");
        }
        let folder = shared.config.incoming();
        let scratch = tempfile::Builder::new()
            .prefix("delta-")
            .tempdir_in(&folder);
        let made = match scratch {
            Ok(dir) => on_demand::make(&shared.releases.store, &runtime, &old, &new, dir.path()),
            Err(source) => Err(OnDemandError::Scratch {
                path: folder,
                source,
            }),
        };
        let _nobody_waits_when_the_hub_stops = send.send(made);
    };
    thread::Builder::new()
        .name("deltas".into())
        .spawn(work)
        .map_err(|error| NotMade::Thread(Some(error)))?;
    let Some(delta) = done.await.map_err(|_| NotMade::Thread(None))?? else {
        return Ok(None);
    };
    let size = delta.len();
    let _not_while_removing = app.delta_orders.keeping.lock().await;
    on_demand::offer(&app.releases.store, from, to, delta).await?;
    Ok(Some(size))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}
