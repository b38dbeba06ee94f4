//! `/metrics`, `/healthz` and `/readyz` of a node.
//!
//! Contract: all answer GET at once or within [`super::probes::PATIENCE`], and change nothing. `/healthz` is 200
//! while the process serves; `/readyz` is 200 when every check passes, else 503, with one line for each check;
//! `/metrics` is Prometheus' text. A taken port is no reason to stop: the next ones are tried, so several
//! workers of one machine need no settings of their own. Trap: nobody is asked who he is; names of hosts and of
//! workers can be read by whoever reaches the address, which is why the default is this machine alone.

use std::net::SocketAddr;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::error::NodeError;
use super::probes::Probes;
use super::web;

/// Ports that are tried, the configured one included.
pub const PORTS: u16 = 64;

/// Media type of the text.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The three routes.
pub fn router(probes: Probes) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(probes)
}

async fn metrics(State(probes): State<Probes>) -> impl IntoResponse {
    match probes.text() {
        Some(text) => (StatusCode::OK, [(header::CONTENT_TYPE, TEXT)], text),
        None => (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, TEXT)], "nothing is recorded\n".into()),
    }
}

async fn ready(State(probes): State<Probes>) -> (StatusCode, String) {
    let checks = probes.ready().await;
    let all = checks.iter().all(|check| check.answer.is_ok());
    let line = |(name, answer): (&str, Result<(), String>)| match answer {
        Ok(()) => format!("{name}: ok\n"),
        Err(why) => format!("{name}: {}\n", why.replace(['\n', '\r'], " ")),
    };
    let text: String = checks.into_iter().map(|check| line((check.name, check.answer))).collect();
    (if all { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text)
}

/// Serves the routes until `end`; the answer is where, `None` when every port was taken.
///
/// # Errors
/// An address this machine does not have, or may not listen at.
pub async fn serve(
    listen: SocketAddr,
    probes: Probes,
    end: CancellationToken,
) -> Result<Option<SocketAddr>, NodeError> {
    let Some(listener) = bind(listen).await? else {
        let last = listen.port().saturating_add(PORTS - 1);
        tracing::warn!("no metrics: ports {} to {last} of metrics.listen are all taken", listen.port());
        return Ok(None);
    };
    let at = listener.local_addr().map_err(NodeError::system("listening at metrics.listen"))?;
    tracing::info!("metrics at http://{at}/metrics");
    // With the web page's bounds on connections and patience.
    tokio::spawn(web::serve::serve(listener, router(probes), end));
    Ok(Some(at))
}

/// The configured port, or the first free one of those behind it.
async fn bind(listen: SocketAddr) -> Result<Option<TcpListener>, NodeError> {
    let tries = if listen.port() == 0 { 1 } else { PORTS };
    for port in (0..tries).filter_map(|n| listen.port().checked_add(n)) {
        match TcpListener::bind(SocketAddr::new(listen.ip(), port)).await {
            Ok(listener) => return Ok(Some(listener)),
            Err(e) if e.kind() == std::io::ErrorKind::AddrInUse => {}
            Err(e) => return Err(NodeError::Setting { key: "metrics.listen", why: format!("{listen}: {e}") }),
        }
    }
    Ok(None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn get(at: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn ready_means_every_check_and_a_taken_port_is_passed_over() {
        let (probes, end) = (Probes::default(), CancellationToken::new());
        probes.ask("broker", || async { Ok(()) });
        let first = serve("127.0.0.1:0".parse().unwrap(), probes.clone(), end.clone()).await.unwrap().unwrap();
        assert!(get(first, "/readyz").await.ends_with("\r\n\r\nbroker: ok\n"));
        assert!(get(first, "/healthz").await.starts_with("HTTP/1.1 200 "));
        assert!(get(first, "/metrics").await.starts_with("HTTP/1.1 404 "), "no recorder in this process");
        assert!(get(first, "/etc/passwd").await.starts_with("HTTP/1.1 404 "));

        let sick = Probes::default();
        sick.ask("output", || async { Err("output.dir is\nnot there".into()) });
        let second = serve(first, sick, end.clone()).await.unwrap().unwrap();
        assert!(second.port() > first.port());
        let answer = get(second, "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503 ") && answer.ends_with("output: output.dir is not there\n"),
            "{answer}"
        );
        let nowhere = serve("192.0.2.1:9464".parse().unwrap(), Probes::default(), end.clone()).await;
        assert!(nowhere.unwrap_err().to_string().starts_with("metrics.listen: 192.0.2.1:9464: "));
        end.cancel();
    }
}
