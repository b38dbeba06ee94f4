//! From one page of a search to the next (STAC API, "Item Search", section on paging).
//!
//! Contract: a `next` link becomes the next request: POST with a full body or with fields to merge into the last one, or
//! a plain GET. It must lead to the search's own origin, because what an answer says is not trusted. Trap: headers that
//! a link asks for are not sent; no known server of Sentinel-2 needs them.

use reqwest::Method;
use serde_json::{Map, Value};
use url::Url;

use crate::adapters::http::redact;

use super::error::CatalogError;

/// One request of a search.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PageRequest {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) body: Value,
}

impl PageRequest {
    pub(super) fn first(url: Url, body: Value) -> Self {
        Self { method: Method::POST, url, body }
    }

    /// Tells one request from another.
    pub(super) fn key(&self) -> String {
        format!("{} {} {}", self.method, self.url, self.body)
    }

    /// The request for the page after `page`, if there is one.
    pub(super) fn next(&self, page: &Value, endpoint: &Url) -> Result<Option<Self>, CatalogError> {
        let is_next = |link: &&Value| link.get("rel").and_then(Value::as_str) == Some("next");
        let Some(link) = page.get("links").and_then(Value::as_array).and_then(|l| l.iter().find(is_next)) else {
            return Ok(None);
        };
        let unreadable = |why: String| CatalogError::NotAPage { endpoint: redact(endpoint.as_str()), why };
        let link: stac::Link =
            serde_json::from_value(link.clone()).map_err(|e| unreadable(format!("unreadable next link: {e}")))?;
        let url = self.url.join(&link.href).map_err(|e| unreadable(format!("next link `{}`: {e}", link.href)))?;
        if url.origin() != endpoint.origin() {
            let next = redact(url.as_str());
            return Err(CatalogError::ForeignNext { endpoint: redact(endpoint.as_str()), next });
        }
        match link.method.as_deref().unwrap_or("GET").to_ascii_uppercase().as_str() {
            "GET" => Ok(Some(Self { method: Method::GET, url, body: Value::Null })),
            "POST" => {
                let body = self.next_body(link.body, link.merge.unwrap_or(false));
                Ok(Some(Self { method: Method::POST, url, body }))
            }
            other => Err(unreadable(format!("next link with method {other:.20}"))),
        }
    }

    /// A link without a body of its own repeats the last one.
    fn next_body(&self, body: Option<Map<String, Value>>, merge: bool) -> Value {
        match (body, self.body.as_object()) {
            (Some(fields), Some(last)) if merge => last.clone().into_iter().chain(fields).collect::<Map<_, _>>().into(),
            (Some(fields), _) => fields.into(),
            (None, _) => self.body.clone(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn next(link: Value) -> Result<Option<PageRequest>, CatalogError> {
        let endpoint: Url = "https://stac.example/v1/search".parse().unwrap();
        let first = PageRequest::first(endpoint.clone(), json!({"limit": 100, "bbox": [0, 0, 1, 1]}));
        first.next(&json!({"features": [], "links": [{"rel": "root", "href": "x"}, link]}), &endpoint)
    }

    #[test]
    fn full_body_merged_body_and_get() {
        let href = "https://stac.example/v1/search";
        let full = next(json!({"rel": "next", "href": href, "method": "POST", "merge": false, "body": {"next": "t"}}));
        assert_eq!(full.unwrap().unwrap().body, json!({"next": "t"}));
        let merged =
            next(json!({"rel": "next", "href": href, "method": "POST", "merge": true, "body": {"token": "t"}}));
        assert_eq!(merged.unwrap().unwrap().body, json!({"limit": 100, "bbox": [0, 0, 1, 1], "token": "t"}));
        let get = next(json!({"rel": "next", "href": "?token=t"})).unwrap().unwrap();
        assert_eq!((get.method, get.url.as_str()), (Method::GET, "https://stac.example/v1/search?token=t"));
        assert_eq!(next(json!({"rel": "prev", "href": href})).unwrap(), None);
    }

    #[test]
    fn links_that_lead_away_or_nowhere() {
        for foreign in ["https://evil.example/search", "http://stac.example/v1/search", "file:///etc/passwd"] {
            let error = next(json!({"rel": "next", "href": foreign})).unwrap_err();
            assert!(matches!(error, CatalogError::ForeignNext { .. }), "{error}");
        }
        assert!(matches!(next(json!({"rel": "next"})), Err(CatalogError::NotAPage { .. })));
        let odd = next(json!({"rel": "next", "href": "?x", "method": "DELETE"}));
        assert!(odd.unwrap_err().to_string().contains("DELETE"));
    }
}
