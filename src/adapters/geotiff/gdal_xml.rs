//! The XML in which GDAL keeps what TIFF has no tag for: descriptions and scale of bands, items of the file.
//!
//! Contract: equal input gives equal bytes; what is not plain ASCII is left out. Trap: values are escaped twice, because
//! GDAL's driver and its XML writer both do, and its reader undoes both.

use std::fmt::Write as _;

/// GDAL's metadata XML while it is written.
pub(super) struct Xml(String);

impl Xml {
    /// Descriptions and scale of the bands, then items of the whole file.
    pub(super) fn new(bands: &[&str], items: &[(&str, &str)], scale: Option<f64>) -> Self {
        let mut xml = Self(String::with_capacity(4096));
        xml.0.push_str("<GDALMetadata>\n");
        for (i, band) in bands.iter().enumerate() {
            xml.item(format_args!("name=\"DESCRIPTION\" sample=\"{i}\" role=\"description\""), band);
            if let Some(scale) = scale {
                xml.item(format_args!("name=\"OFFSET\" sample=\"{i}\" role=\"offset\""), "0");
                xml.item(format_args!("name=\"SCALE\" sample=\"{i}\" role=\"scale\""), &scale.to_string());
            }
        }
        for (name, value) in items {
            xml.item(format_args!("name=\"{}\"", Escaped(name, "&")), value);
        }
        xml
    }

    /// One item. GDAL's driver escapes a value before its XML writer does so again, and its reader undoes both.
    pub(super) fn item(&mut self, attributes: std::fmt::Arguments<'_>, value: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "  <Item {attributes}>{}</Item>", Escaped(value, "&amp;"));
    }

    pub(super) fn end(mut self) -> String {
        self.0.push_str("</GDALMetadata>\n");
        self.0
    }
}

/// Text as XML, without what is not plain ASCII; entities begin with the second, which is longer when they are escaped.
struct Escaped<'a>(&'a str, &'static str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let plain = |c: char| matches!(c, ' '..='~') && !matches!(c, '&' | '<' | '>' | '"');
        let mut rest = self.0;
        while let Some(at) = rest.find(|c| !plain(c)) {
            f.write_str(&rest[..at])?;
            let mut chars = rest[at..].chars();
            let entity = match chars.next() {
                Some('&') => "amp;",
                Some('<') => "lt;",
                Some('>') => "gt;",
                Some('"') => "quot;",
                _ => "",
            };
            if !entity.is_empty() {
                f.write_str(self.1)?;
                f.write_str(entity)?;
            }
            rest = chars.as_str();
        }
        f.write_str(rest)
    }
}
