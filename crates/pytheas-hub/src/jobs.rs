//! What the hub does on its own, again and again, until it stops. A job that fails is logged and
//! tried again; none of them can take another down.

use std::time::Duration;

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use crate::app::{App, stopped};

pub(crate) mod delta_keeping;
pub(crate) mod delta_making;
pub(crate) mod pruning;
pub(crate) mod renewal;
pub(crate) mod silence;
pub(crate) mod write_back;

/// Starts all jobs.
pub(crate) fn start(app: &App, jobs: &mut JoinSet<()>) {
    let stopping = &app.stopping;
    jobs.spawn(every(
        Duration::from_secs(1),
        stopping.clone(),
        app.clone(),
        |app| async move {
            silence::run(&app).await;
        },
    ));
    jobs.spawn(every(
        Duration::from_secs(2),
        stopping.clone(),
        app.clone(),
        |app| async move {
            write_back::run(&app).await;
        },
    ));
    jobs.spawn(every(
        pruning::EVERY,
        stopping.clone(),
        app.clone(),
        |app| async move {
            pruning::run(&app).await;
        },
    ));
    if app.config.made_deltas.is_some() {
        jobs.spawn(delta_making::run(app.clone()));
    }
    jobs.spawn(every(
        delta_keeping::EVERY,
        stopping.clone(),
        app.clone(),
        |app| async move {
            delta_keeping::run(&app).await;
        },
    ));
    if app.config.online_keys.is_some() {
        jobs.spawn(every(
            renewal::EVERY,
            stopping.clone(),
            app.clone(),
            |app| async move {
                renewal::run(&app).await;
            },
        ));
    }
}

async fn every<F: Future<Output = ()>>(
    period: Duration,
    mut stopping: watch::Receiver<bool>,
    app: App,
    run: impl Fn(App) -> F,
) {
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopped(&mut stopping) => return,
            _ = ticks.tick() => run(app.clone()).await,
        }
    }
}
