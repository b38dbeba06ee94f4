//! A listener whose connections can be cut from a handler with a TCP reset.
//!
//! Contract: after [`Peer::cut`] the next write of that connection fails and the socket is closed with RST, as a
//! crashed or overloaded server would close it.
//! Trap: the switch works at the next write, so a handler that cuts must still return some answer.

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};

/// One connection's far end and its switch.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    cut: Arc<AtomicBool>,
}

impl Peer {
    fn new() -> Self {
        Self { cut: Arc::new(AtomicBool::new(false)) }
    }

    /// Resets the connection at its next write.
    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::Release);
    }
}

impl Connected<IncomingStream<'_, CuttableListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, CuttableListener>) -> Self {
        stream.remote_addr().clone()
    }
}

/// A TCP listener that hands out [`Cuttable`] streams.
pub(super) struct CuttableListener {
    inner: TcpListener,
    addr: SocketAddr,
}

impl CuttableListener {
    pub(super) async fn bind(addr: SocketAddr) -> io::Result<Self> {
        let inner = TcpListener::bind(addr).await?;
        let addr = inner.local_addr()?;
        Ok(Self { inner, addr })
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Listener for CuttableListener {
    type Io = Cuttable;
    type Addr = Peer;

    async fn accept(&mut self) -> (Cuttable, Peer) {
        loop {
            match self.inner.accept().await {
                Ok((stream, _)) => {
                    // Without it the last piece of an answer waits for the peer's delayed acknowledgement.
                    let _ = stream.set_nodelay(true);
                    let peer = Peer::new();
                    return (Cuttable { stream, cut: peer.cut.clone() }, peer);
                }
                // Out of descriptors or a peer that left early: neither is a reason to stop listening.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<Peer> {
        Ok(Peer::new())
    }
}

/// A TCP stream that fails on demand.
pub(super) struct Cuttable {
    stream: TcpStream,
    cut: Arc<AtomicBool>,
}

impl Cuttable {
    fn check(&self) -> io::Result<()> {
        if !self.cut.load(Ordering::Acquire) {
            return Ok(());
        }
        // Zero linger makes the close below a RST instead of a FIN.
        let _ = self.stream.set_zero_linger();
        Err(io::ErrorKind::ConnectionReset.into())
    }
}

impl AsyncRead for Cuttable {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cuttable {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check()?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
