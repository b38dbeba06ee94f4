//! A plain table: columns as wide as their widest cell, numbers to the right, no colour.
//!
//! Contract: the same rows give the same bytes, on a terminal or in a file; no line ends in a blank.
//! Unit of width: characters (what is shown here is ASCII names and numbers).

use std::io::{self, Write};

/// A table under construction. Columns whose cells below the heading are all numbers (or `-`) align to the right.
#[derive(Debug)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings.
    pub fn new(headings: &[&str]) -> Self {
        Self { rows: vec![headings.iter().map(|h| (*h).to_owned()).collect()] }
    }

    /// Adds a row; missing cells stay empty.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Writes it.
    ///
    /// # Errors
    /// Whatever the writer answers.
    pub fn write(&self, out: &mut (dyn Write + Send)) -> io::Result<()> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let cells = |c: usize| self.rows.iter().filter_map(move |row| row.get(c));
        let shape: Vec<(usize, bool)> = (0..columns)
            .map(|c| {
                let width = cells(c).map(|cell| cell.chars().count()).max().unwrap_or(0);
                let mut body = cells(c).skip(1).peekable();
                let numeric = body.peek().is_some() && body.all(|cell| cell == "-" || cell.parse::<i64>().is_ok());
                (width, numeric)
            })
            .collect();
        for row in &self.rows {
            let padded = row.iter().zip(&shape).map(|(cell, (width, numeric))| {
                if *numeric { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            writeln!(out, "{}", padded.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn columns_align() {
        let mut table = Table::new(&["TOPIC", "LAG", "MEMBER"]);
        table.row(["tasks".into(), "7".into(), "w".into()]);
        table.row(["t".into(), "1200".into()]);
        let mut out = Vec::new();
        table.write(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "TOPIC   LAG  MEMBER\ntasks     7  w\nt      1200\n");
    }
}
