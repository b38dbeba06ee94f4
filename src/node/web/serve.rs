//! Connections: how many, how long, and how patient we are with each.
//!
//! Contract: HTTP/1 on one listener. A client has [`HEAD_TIME`] for a request's head of at most [`HEAD_BYTES`] and
//! [`MAX_HEADERS`] lines, must take what it asked for without a pause of [`WRITE_PAUSE`], and is disconnected after
//! [`LIFE`] whatever it does; so [`super::CONNECTIONS`] bounds what all of them together can hold. Bodies of requests are
//! never read. Trap: browsers open a stream of updates again by themselves, which is why a life may end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutWriter;
use tokio_util::sync::CancellationToken;

use super::CONNECTIONS;

const HEAD_TIME: Duration = Duration::from_secs(10);
const HEAD_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;
const WRITE_PAUSE: Duration = Duration::from_secs(20);
const LIFE: Duration = Duration::from_secs(15 * 60);

/// After a connection could not be taken, for want of file descriptors or the like.
const BREATH: Duration = Duration::from_millis(100);

/// Serves until `stop`.
pub(in crate::node) async fn serve(listener: TcpListener, app: Router, stop: CancellationToken) {
    let free = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = async {
            let permit = free.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (app, stop) = (app.clone(), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        _ = tokio::time::timeout(LIFE, connection(stream, app)) => {}
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a connection to the web page could not be taken");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, app: Router) {
    // Err: the client is gone already.
    let _ = stream.set_nodelay(true);
    let mut stream = TimeoutWriter::new(stream);
    stream.set_timeout(Some(WRITE_PAUSE));
    let io = TokioIo::new(Box::pin(stream));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_BYTES)
        .max_headers(MAX_HEADERS)
        .serve_connection(io, TowerToHyperService::new(app))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the web page ended early");
    }
}
