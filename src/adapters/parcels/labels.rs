//! From the cells of the code and name columns to a class.
//!
//! Contract: each distinct code or name is classified once; the memory for that is bounded, beyond the bound
//! rows are classified one by one.
//! Trap: the code column may be text, integer or real in the same table; a real that is a whole number reads
//! like the integer.

use std::fmt::Write;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use rusqlite::types::ValueRef;

use crate::domain::class_table::{ClassTable, Lookup};

/// Distinct codes, names and unknown pairs that are remembered, each.
const REMEMBERED: usize = 65_536;

/// Longest text that is remembered or reported, bytes.
const LONGEST: usize = 200;

/// Classifies rows; one per thread.
#[derive(Debug)]
pub(super) struct Labeller {
    table: Arc<ClassTable>,
    /// By the bytes in the file.
    codes: HashMap<Box<[u8]>, Lookup>,
    names: HashMap<Box<[u8]>, Lookup>,
    unknown: HashMap<Box<str>, Arc<str>>,
    code: String,
    name: String,
}

impl Labeller {
    pub(super) fn new(table: Arc<ClassTable>) -> Self {
        let (codes, names, unknown) = (HashMap::new(), HashMap::new(), HashMap::new());
        Self { table, codes, names, unknown, code: String::new(), name: String::new() }
    }

    /// The class of a row; `name` is read only when the code does not decide.
    pub(super) fn classify<'a>(&mut self, code: ValueRef<'_>, name: impl FnOnce() -> ValueRef<'a>) -> Lookup {
        let table = &self.table;
        let text = bytes(code, &mut self.code);
        let by_code = remember(&mut self.codes, text, |code| table.by_code(code));
        if by_code != Lookup::Unknown {
            return by_code;
        }
        keep(code, &mut self.code);
        let name = name();
        let text = bytes(name, &mut self.name);
        let by_name = remember(&mut self.names, text, |name| table.by_name(name));
        if by_name == Lookup::Unknown {
            keep(name, &mut self.name);
        }
        by_name
    }

    /// Code and name of the row classified last if its class is unknown, for a report on unknown codes.
    pub(super) fn label(&mut self) -> Arc<str> {
        let text = format!("{} {}", self.code.trim(), self.name.trim());
        let text = text.trim();
        let text = text.char_indices().nth(LONGEST).map_or(text, |(end, _)| &text[..end]);
        let text = if text.is_empty() { "(empty)" } else { text };
        if let Some(label) = self.unknown.get(text) {
            return Arc::clone(label);
        }
        let label: Arc<str> = Arc::from(text);
        if self.unknown.len() < REMEMBERED {
            self.unknown.insert(Box::from(text), Arc::clone(&label));
        }
        label
    }
}

fn remember(known: &mut HashMap<Box<[u8]>, Lookup>, text: &[u8], find: impl FnOnce(&str) -> Lookup) -> Lookup {
    if let Some(lookup) = known.get(text) {
        return *lookup;
    }
    let lookup = find(&String::from_utf8_lossy(text));
    if known.len() < REMEMBERED && text.len() <= LONGEST {
        known.insert(Box::from(text), lookup);
    }
    lookup
}

/// A value as text; numbers are written to `number`, blobs and NULL read as empty.
fn bytes<'a>(value: ValueRef<'a>, number: &'a mut String) -> &'a [u8] {
    number.clear();
    // Writing to a `String` cannot fail.
    match value {
        ValueRef::Text(bytes) => return bytes,
        ValueRef::Integer(n) => drop(write!(number, "{n}")),
        ValueRef::Real(n) => drop(write!(number, "{n}")),
        ValueRef::Null | ValueRef::Blob(_) => {}
    }
    number.as_bytes()
}

/// Puts a text where [`bytes`] has put numbers.
fn keep(value: ValueRef<'_>, out: &mut String) {
    if let ValueRef::Text(bytes) = value {
        out.push_str(&String::from_utf8_lossy(bytes));
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn labeller() -> Labeller {
        let text = "class,5,cereals,#ddcc44\nprefix,33010101,5,\nexact,3301010102,,\nname,barley,5,\n";
        Labeller::new(Arc::new(ClassTable::parse(text, "test").unwrap()))
    }

    #[test]
    fn a_code_reads_the_same_as_text_integer_or_real() {
        let mut l = labeller();
        let class = Lookup::Class(5.try_into().unwrap());
        let none = || ValueRef::Null;
        for code in [ValueRef::Text(b" 3301010100 "), ValueRef::Integer(3_301_010_100), ValueRef::Real(3_301_010_100.0)]
        {
            assert_eq!(l.classify(code, none), class, "{code:?}");
        }
        assert_eq!(l.classify(ValueRef::Text(b"3301010102.0"), none), Lookup::Excluded);
        assert_eq!(l.classify(ValueRef::Null, || ValueRef::Text(b" Barley")), class);
        assert_eq!(l.classify(ValueRef::Blob(b"3301010100"), none), Lookup::Unknown);
        assert_eq!(&*l.label(), "(empty)");
        assert_eq!(l.classify(ValueRef::Integer(99), || ValueRef::Text(b"maize")), Lookup::Unknown);
        assert_eq!(&*l.label(), "99 maize");
    }

    #[test]
    fn endless_distinct_codes_do_not_fill_the_memory() {
        let mut l = labeller();
        for n in 0..(REMEMBERED as i64 + 1000) {
            assert_eq!(l.classify(ValueRef::Integer(n), || ValueRef::Null), Lookup::Unknown);
            l.label();
        }
        assert_eq!((l.codes.len(), l.unknown.len()), (REMEMBERED, REMEMBERED));
    }
}
