//! Connections that can be broken: the client gets no answer at all, as when a cable is cut. Over HTTP/2 that ends all
//! requests on the connection.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A connection, as its requests see it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Line(Arc<AtomicBool>);

impl Line {
    /// Breaks the connection: nothing more is sent on it, and the client sees it reset.
    pub(crate) fn cut(&self) {
        self.0.store(true, Ordering::Release);
    }

    fn whole(&self, stream: &TcpStream) -> io::Result<()> {
        if !self.0.load(Ordering::Acquire) {
            return Ok(());
        }
        // Without this the client would see an orderly end.
        let _ = stream.set_zero_linger();
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

/// A listener whose connections can be broken.
pub(crate) struct Lines<L>(pub(crate) L);

impl<L: Listener<Io = TcpStream, Addr = SocketAddr>> Listener for Lines<L> {
    type Io = LineIo;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (LineIo, SocketAddr) {
        let (stream, address) = self.0.accept().await;
        (LineIo { stream, line: Line::default() }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// A connection that reads and writes until its line is cut.
pub(crate) struct LineIo {
    stream: TcpStream,
    line: Line,
}

impl LineIo {
    /// What can break it.
    pub(crate) fn line(&self) -> Line {
        self.line.clone()
    }

    fn stream(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        let Self { stream, line } = self.get_mut();
        line.whole(stream)?;
        Ok(Pin::new(stream))
    }
}

impl AsyncRead for LineIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buf)
    }
}

impl AsyncWrite for LineIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }
}
