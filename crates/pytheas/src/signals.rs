//! Ctrl-C and SIGTERM as a flag, for commands that have something to put in order before they end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use miette::{IntoDiagnostic, WrapErr};

/// Sets the flag on ctrl-C and SIGTERM, so that everything is ended in order.
pub(crate) fn set(stop: &Arc<AtomicBool>) -> miette::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .into_diagnostic()
        .wrap_err("cannot start a runtime for signals")?;
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        runtime.block_on(async {
            let (Ok(mut interrupt), Ok(mut terminate)) = (
                signal(SignalKind::interrupt()),
                signal(SignalKind::terminate()),
            ) else {
                return;
            };
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                stop.store(true, Ordering::Relaxed);
            }
        });
    });
    Ok(())
}
