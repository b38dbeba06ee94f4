//! What every HTML document of ours begins with: the pages, the question for the token, and the report.
//!
//! Contract: pure; the head is the same everywhere but for what is handed in. No script or style stands in it by itself.

use maud::{DOCTYPE, Markup, html};

/// A whole document; `more` ends its head, `body` is what its body holds.
pub(crate) fn document(title: &str, more: &Markup, body: &Markup) -> String {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) }
                (more)
            }
            body { (body) }
        }
    }
    .into_string()
}

/// The files that pages of the monitor load, style sheet and sign.
pub(super) fn files() -> Markup {
    html! {
        link rel="stylesheet" href="/style.css";
        link rel="icon" href="/icon.svg";
    }
}
