//! Answers of a server that are refusals, kept with their status: a layer between `object_store` and its HTTP client.
//!
//! Contract: an answer that says that there is no such object, or that there is one already, passes; any other refusal
//! becomes a [`Refusal`] with the server's own code and message, which is found again in the chain of causes. Nothing is
//! tried again here. Trap: a refusal's body may quote the signed request and the access key: only its code and message
//! are kept.

use std::fmt;

use async_trait::async_trait;
use futures_util::StreamExt as _;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::{ClientOptions, Result};

/// Longest text of a server that is passed on, bytes.
const MOST_SAID: usize = 300;

/// What of a refusal's body is read, bytes; they are a few hundred long.
const MOST_READ: usize = 1 << 16;

/// Statuses that speak of one object, and that `object_store` has words for.
const PASSES: [u16; 3] = [304, 404, 412];

/// What the server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    /// HTTP status.
    pub(super) status: u16,
    /// S3's word for it: `SlowDown`, `AccessDenied`, …; may be empty.
    pub(super) code: String,
    /// S3's words for it; may be empty.
    pub(super) message: String,
}

impl Refusal {
    fn read(status: u16, body: &str) -> Self {
        Self { status, code: between(body, "Code"), message: between(body, "Message") }
    }
}

/// The text of an XML element that holds no others; empty when there is none.
fn between(xml: &str, name: &str) -> String {
    let inside = xml.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once(&format!("</{name}>")));
    let text = inside.map_or("", |(text, _)| text);
    text.chars().filter(|c| !c.is_control()).take(MOST_SAID).collect()
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the server answered {}", self.status)?;
        if !self.code.is_empty() {
            write!(f, " {}", self.code)?;
        }
        if self.message.is_empty() { Ok(()) } else { write!(f, " ({})", self.message.trim_end_matches('.')) }
    }
}

impl std::error::Error for Refusal {}

/// Makes clients that tell refusals.
#[derive(Debug)]
pub(super) struct Telling;

impl HttpConnector for Telling {
    fn connect(&self, options: &ClientOptions) -> Result<HttpClient> {
        Ok(HttpClient::new(Client(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct Client(HttpClient);

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let head = request.method().as_str() == "HEAD";
        let answer = self.0.execute(request).await?;
        let status = answer.status().as_u16();
        if status < 300 || (head && PASSES.contains(&status)) {
            return Ok(answer);
        }
        let (parts, body) = answer.into_parts();
        let (mut said, mut coming) = (Vec::new(), body.bytes_stream());
        while said.len() < MOST_READ
            && let Some(piece) = coming.next().await
        {
            said.extend_from_slice(&piece?);
        }
        let refusal = Refusal::read(status, &String::from_utf8_lossy(&said));
        if PASSES.contains(&status) && refusal.code != "NoSuchBucket" {
            return Ok(HttpResponse::from_parts(parts, said.into()));
        }
        Err(HttpError::new(HttpErrorKind::Unknown, refusal))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_the_server_said_and_quotes_no_signature() {
        let body = "<?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>The request signature we \
                    calculated does not match.</Message><AWSAccessKeyId>AKIA1</AWSAccessKeyId><StringToSign>AWS4\
                    </StringToSign></Error>";
        let said = Refusal::read(403, body).to_string();
        assert_eq!(
            said,
            "the server answered 403 SignatureDoesNotMatch (The request signature we calculated does not match)"
        );
        assert_eq!(Refusal::read(502, "<html>bad gateway").to_string(), "the server answered 502");
    }
}
