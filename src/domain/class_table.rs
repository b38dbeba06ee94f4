//! The rules that give a parcel its class, read from a CSV text such as `config/classes/eurocrops.csv`.
//!
//! Rows are `kind,key,class,note`. `class` declares one (key = id, class = short name, note = colour
//! `#rrggbb`); `exact` and `prefix` match crop codes; `name` matches crop names. An empty class column means
//! "known, and wanted in no class". Lines that are empty or begin with `#` are skipped.
//! Contract: exact beats the longest prefix, and both beat a name; the name is looked at only when no code
//! rule matched. Codes are compared without blanks and without a trailing `.0`, names without outer blanks and
//! in lower case.
//! Trap: an excluded code does not fall through to the name rules.

use std::collections::BTreeMap;

use super::classes::ClassId;

/// What the table says about a parcel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Lookup {
    /// It has this class.
    Class(ClassId),
    /// A rule says that it has none.
    Excluded,
    /// No rule knows it.
    Unknown,
}

impl Lookup {
    /// The class, if there is one.
    pub fn class(self) -> Option<ClassId> {
        match self {
            Self::Class(c) => Some(c),
            Self::Excluded | Self::Unknown => None,
        }
    }
}

/// A declared class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassInfo {
    /// Short name, for instance `olives`.
    pub name: String,
    /// Red, green, blue for the mask's palette and the reports.
    pub colour: [u8; 3],
}

/// Why a classes file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}, line {line}: {problem}")]
pub struct ClassTableError {
    /// Name of the file, as given by the caller.
    pub file: String,
    /// Line, from 1; 0 when the whole file is meant.
    pub line: usize,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What can be wrong in a classes file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not four columns.
    #[error("{0} columns where `kind,key,class,note` has 4: put a note that contains commas in double quotes")]
    Columns(usize),
    /// A quote that never ends, or text after it.
    #[error("a double quote is not closed, or text follows it: write a quote inside quotes twice")]
    Quotes,
    /// First column.
    #[error("kind `{0}` is not one of class, exact, prefix, name")]
    Kind(String),
    /// Key column of a `class` row, or class column of a rule.
    #[error("`{0}` is not a class number: use 1 to 254")]
    ClassNumber(String),
    /// A rule for a class that no `class` row declares.
    #[error("class {0} is not declared: add a row `class,{0},NAME,#rrggbb`")]
    Undeclared(ClassId),
    /// A `class` row without a usable name.
    #[error("class {0} needs a short name of letters, digits, `_` or `-` in the third column")]
    ClassName(ClassId),
    /// A `class` row whose note is not a colour.
    #[error("`{0}` is not a colour: write it as #rrggbb")]
    Colour(String),
    /// A rule without a key.
    #[error("the key is empty: name the code, prefix or crop name that the rule is for")]
    EmptyKey,
    /// The same key twice.
    #[error("`{0}` has a rule of this kind already (line {1}): remove one of them")]
    Duplicate(String, usize),
    /// The same class twice.
    #[error("class {0} is declared already: remove one of its `class` rows")]
    DeclaredTwice(ClassId),
    /// No `class` row at all.
    #[error("no class is declared: add rows `class,ID,NAME,#rrggbb`")]
    NoClasses,
}

/// Where a rule leads and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    class: Option<ClassId>,
    line: usize,
}

impl Rule {
    fn lookup(self) -> Lookup {
        self.class.map_or(Lookup::Excluded, Lookup::Class)
    }
}

/// The rules of one classes file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassTable {
    classes: BTreeMap<ClassId, ClassInfo>,
    exact: BTreeMap<String, Rule>,
    prefix: BTreeMap<String, Rule>,
    names: BTreeMap<String, Rule>,
    longest_prefix: usize,
}

impl ClassTable {
    /// Reads the rules; `file` is used in messages only.
    ///
    /// # Errors
    /// The first line that cannot be used.
    pub fn parse(text: &str, file: &str) -> Result<Self, ClassTableError> {
        let at = |line, problem| ClassTableError { file: file.to_owned(), line, problem };
        let mut table = Self {
            classes: BTreeMap::new(),
            exact: BTreeMap::new(),
            prefix: BTreeMap::new(),
            names: BTreeMap::new(),
            longest_prefix: 0,
        };
        for (n, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            table.add_line(n + 1, line).map_err(|problem| at(n + 1, problem))?;
        }
        if table.classes.is_empty() {
            return Err(at(0, Problem::NoClasses));
        }
        let rules = table.exact.values().chain(table.prefix.values()).chain(table.names.values());
        let undeclared = rules.filter_map(|r| r.class.filter(|c| !table.classes.contains_key(c)).map(|c| (r.line, c)));
        if let Some((line, class)) = undeclared.min() {
            return Err(at(line, Problem::Undeclared(class)));
        }
        table.longest_prefix = table.prefix.keys().map(String::len).max().unwrap_or(0);
        Ok(table)
    }

    /// The declared classes, ascending.
    pub fn classes(&self) -> &BTreeMap<ClassId, ClassInfo> {
        &self.classes
    }

    /// Class of a parcel with this crop code and crop name, as the file has them.
    pub fn classify(&self, code: Option<&str>, name: Option<&str>) -> Lookup {
        match self.by_code(code.unwrap_or_default()) {
            Lookup::Unknown => self.by_name(name.unwrap_or_default()),
            known => known,
        }
    }

    /// What the code alone says: exact rules, then the longest prefix.
    pub fn by_code(&self, code: &str) -> Lookup {
        let code = normal_code(code);
        if let Some(rule) = self.exact.get(&code) {
            return rule.lookup();
        }
        let longest = self.longest_prefix.min(code.len());
        let mut starts = (1..=longest).rev().filter_map(|n| code.get(..n));
        starts.find_map(|start| self.prefix.get(start)).map_or(Lookup::Unknown, |r| r.lookup())
    }

    /// What the name alone says.
    pub fn by_name(&self, name: &str) -> Lookup {
        self.names.get(&normal_name(name)).map_or(Lookup::Unknown, |r| r.lookup())
    }

    fn add_line(&mut self, line: usize, text: &str) -> Result<(), Problem> {
        if text.trim().is_empty() || text.starts_with('#') || text.trim_end() == "kind,key,class,note" {
            return Ok(());
        }
        let fields = split_row(text)?;
        let [kind, key, class, note] = fields.as_slice() else { return Err(Problem::Columns(fields.len())) };
        let (key, class) = (key.trim(), class.trim());
        let rules = match kind.trim() {
            "class" => return self.declare(key, class, note.trim()),
            "exact" => &mut self.exact,
            "prefix" => &mut self.prefix,
            "name" => &mut self.names,
            other => return Err(Problem::Kind(other.to_owned())),
        };
        let normal = if kind.trim() == "name" { normal_name(key) } else { normal_code(key) };
        if normal.is_empty() {
            return Err(Problem::EmptyKey);
        }
        let class = if class.is_empty() { None } else { Some(class_id(class)?) };
        match rules.insert(normal, Rule { class, line }) {
            Some(earlier) => Err(Problem::Duplicate(key.to_owned(), earlier.line)),
            None => Ok(()),
        }
    }

    fn declare(&mut self, id: &str, name: &str, colour: &str) -> Result<(), Problem> {
        let id = class_id(id)?;
        let fit = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        if name.is_empty() || !name.bytes().all(fit) {
            return Err(Problem::ClassName(id));
        }
        let colour = parse_colour(colour).ok_or_else(|| Problem::Colour(colour.to_owned()))?;
        match self.classes.insert(id, ClassInfo { name: name.to_owned(), colour }) {
            Some(_) => Err(Problem::DeclaredTwice(id)),
            None => Ok(()),
        }
    }
}

fn class_id(text: &str) -> Result<ClassId, Problem> {
    let number = text.parse::<u8>().ok().and_then(|n| ClassId::try_from(n).ok());
    number.ok_or_else(|| Problem::ClassNumber(text.to_owned()))
}

fn parse_colour(text: &str) -> Option<[u8; 3]> {
    let hex = text.strip_prefix('#').filter(|h| h.len() == 6 && h.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let [_, r, g, b] = u32::from_str_radix(hex, 16).ok()?.to_be_bytes();
    Some([r, g, b])
}

/// Without blanks, and without the `.0` that a numeric column leaves behind.
fn normal_code(code: &str) -> String {
    let mut code: String = code.chars().filter(|c| !c.is_whitespace()).collect();
    if let Some((whole, fraction)) = code.split_once('.')
        && fraction.bytes().all(|b| b == b'0')
        && whole.bytes().all(|b| b.is_ascii_digit())
    {
        code.truncate(whole.len());
    }
    code
}

fn normal_name(name: &str) -> String {
    name.trim().to_lowercase()
}

/// Splits one CSV row (RFC 4180, without line breaks inside quotes).
fn split_row(line: &str) -> Result<Vec<String>, Problem> {
    let mut fields = vec![String::new()];
    let mut chars = line.trim_end_matches('\r').chars().peekable();
    let (mut quoted, mut closed) = (false, false);
    while let Some(c) = chars.next() {
        let Some(field) = fields.last_mut() else { break };
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => (quoted, closed) = (false, true),
            '"' if field.is_empty() && !closed => quoted = true,
            ',' if !quoted => {
                fields.push(String::new());
                closed = false;
            }
            _ if closed => return Err(Problem::Quotes),
            other => field.push(other),
        }
    }
    if quoted { Err(Problem::Quotes) } else { Ok(fields) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
#[path = "class_table_tests.rs"]
mod tests;
