//! Waiting for the request to stop.

/// Resolves at Ctrl-C, or when the system asks the process to end.
pub(crate) async fn requested() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
            return;
        }
    }
    // Where no handler can be had, the process ends by the signal itself; then there is nothing to wait for.
    let _ = tokio::signal::ctrl_c().await;
}
