//! Work that would keep the runtime from answering others.

/// Work on more bytes than this takes too long.
const AT_ONCE: u64 = 128 << 10;

/// Works on so many bytes: at once, or beside the runtime if they are many. Fails if the work panicked.
pub(crate) async fn beside<T: Send + 'static>(
    bytes: u64,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    if bytes <= AT_ONCE { Ok(work()) } else { tokio::task::spawn_blocking(work).await }
}
