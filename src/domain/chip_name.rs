//! Names of chips: the stem that image and mask share.
//!
//! Contract: a name is a pure function of the template and the chip, holds only
//! `A-Z a-z 0-9 . _ -`, never starts with a dot, and has at most [`MAX_LEN`] bytes, so that nothing
//! a message says can leave the output directory. Trap: a template without `{parcel}` and without
//! both `{task}` and `{chip}` gives two chips one name; it is refused when the template is read.

/// Longest stem, bytes: leaves room for suffixes within the 255 of common file systems.
pub const MAX_LEN: usize = 200;

/// The original pipeline's template.
pub const DEFAULT_TEMPLATE: &str = "worker{worker}_task{task}_class{class}_chip{chip}";

const PLACEHOLDERS: [&str; 7] = ["worker", "task", "class", "chip", "parcel", "run", "season"];

/// Why a template cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// A name in braces that is not known.
    #[error(
        "`{{{0}}}` is not a placeholder; allowed are {{worker}} {{task}} {{class}} {{chip}} {{parcel}} {{run}} {{season}}"
    )]
    Unknown(String),
    /// `{` without `}` or the reverse.
    #[error("unbalanced brace at byte {0}")]
    Brace(usize),
    /// A character that is not safe in a file name.
    #[error("character {0:?} is not allowed in file names; use letters, digits, `.`, `_`, `-`")]
    Character(char),
    /// Names would collide.
    #[error("the template must hold {{parcel}}, or both {{task}} and {{chip}}, or two chips would share a name")]
    NotUnique,
    /// Empty, or starts with a dot.
    #[error("the name would be empty or hidden")]
    Hidden,
}

/// What fills the placeholders.
#[derive(Debug, Clone, Copy)]
pub struct NameParts<'a> {
    /// Id of the worker that writes the chip.
    pub worker: &'a str,
    /// Task number.
    pub task: u64,
    /// Mask value of the centre parcel's class.
    pub class: u8,
    /// Number of the chip within the task, from 0, counted over the parcels drawn.
    pub chip: u32,
    /// Id of the centre parcel.
    pub parcel: i64,
    /// Run id.
    pub run: &'a str,
    /// Season the scene was taken in.
    pub season: &'a str,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Slot(&'static str),
}

/// A checked template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NameTemplate(Vec<Piece>);

impl NameTemplate {
    /// Reads a template such as [`DEFAULT_TEMPLATE`].
    ///
    /// # Errors
    /// See [`TemplateError`].
    pub fn parse(template: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < template.len() {
            let rest = &template[at..];
            let piece = if let Some(tail) = rest.strip_prefix('{') {
                let end = tail.find('}').ok_or(TemplateError::Brace(at))?;
                let name = &tail[..end];
                let slot = PLACEHOLDERS.into_iter().find(|p| *p == name);
                at += end + 2;
                Piece::Slot(slot.ok_or_else(|| TemplateError::Unknown(name.to_owned()))?)
            } else {
                let end = rest.find('{').unwrap_or(rest.len());
                let text = &rest[..end];
                if let Some(brace) = text.find('}') {
                    return Err(TemplateError::Brace(at + brace));
                }
                if let Some(bad) = text.chars().find(|c| !is_safe(*c)) {
                    return Err(TemplateError::Character(bad));
                }
                at += end;
                Piece::Text(text.to_owned())
            };
            pieces.push(piece);
        }
        let has = |name: &str| pieces.iter().any(|p| matches!(p, Piece::Slot(s) if *s == name));
        match pieces.first() {
            None => Err(TemplateError::Hidden),
            Some(Piece::Text(t)) if t.starts_with('.') => Err(TemplateError::Hidden),
            _ if !(has("parcel") || has("task") && has("chip")) => Err(TemplateError::NotUnique),
            _ => Ok(Self(pieces)),
        }
    }

    /// The same template for runs in which a parcel gives a chip of every season: `_{season}` is added unless the
    /// season stands in it already.
    #[must_use]
    pub fn of_a_series(mut self) -> Self {
        if !self.0.contains(&Piece::Slot("season")) {
            self.0.extend([Piece::Text("_".to_owned()), Piece::Slot("season")]);
        }
        self
    }

    /// Whether chips of different runs can share a directory.
    pub fn names_the_run(&self) -> bool {
        self.0.contains(&Piece::Slot("run"))
    }

    /// The stem of one chip. Characters of `worker` and `run` that are not safe become `-`.
    pub fn name(&self, parts: &NameParts<'_>) -> String {
        let mut name = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(t) => name.push_str(t),
                Piece::Slot("worker") => name.extend(parts.worker.chars().map(safe)),
                Piece::Slot("run") => name.extend(parts.run.chars().map(safe)),
                Piece::Slot("season") => name.extend(parts.season.chars().map(safe)),
                Piece::Slot("task") => name.push_str(&parts.task.to_string()),
                Piece::Slot("class") => name.push_str(&parts.class.to_string()),
                Piece::Slot("chip") => name.push_str(&parts.chip.to_string()),
                Piece::Slot(_) => name.push_str(&parts.parcel.to_string()),
            }
        }
        if name.starts_with('.') {
            name.insert(0, '_');
        }
        name
    }
}

/// Whether a stem read from a manifest may be joined to a directory.
pub fn is_safe_stem(name: &str) -> bool {
    (1..=MAX_LEN).contains(&name.len()) && !name.starts_with('.') && name.chars().all(is_safe)
}

fn is_safe(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

fn safe(c: char) -> char {
    if is_safe(c) { c } else { '-' }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const PARTS: NameParts<'_> =
        NameParts { worker: "w/1", task: 42, class: 3, chip: 7, parcel: -9, run: "r1", season: "summer" };

    #[test]
    fn the_default_gives_the_original_names() {
        let t = NameTemplate::parse(DEFAULT_TEMPLATE).unwrap();
        assert_eq!(t.name(&PARTS), "workerw-1_task42_class3_chip7");
        assert!(!t.names_the_run());
    }

    #[test]
    fn other_templates() {
        assert_eq!(NameTemplate::parse("p{parcel}").unwrap().name(&PARTS), "p-9");
        let t = NameTemplate::parse("{run}-{task}.{parcel}").unwrap();
        assert_eq!(t.name(&PARTS), "r1-42.-9");
        assert!(is_safe_stem(&t.name(&PARTS)));
    }

    #[test]
    fn a_series_has_the_season_in_its_names_once() {
        let name = |t| NameTemplate::parse(t).unwrap().of_a_series().name(&PARTS);
        assert_eq!(name("p{parcel}"), "p-9_summer");
        assert_eq!(name("{season}.{parcel}"), "summer.-9");
    }

    #[test]
    fn bad_templates_are_refused() {
        let err = |t| NameTemplate::parse(t).unwrap_err();
        assert_eq!(err("{task}_{chipp}"), TemplateError::Unknown("chipp".into()));
        assert_eq!(err("{task}_{chip"), TemplateError::Brace(7));
        assert_eq!(err("{task}}{chip}"), TemplateError::Brace(6));
        assert_eq!(err("a/{task}{chip}"), TemplateError::Character('/'));
        assert_eq!(err("{task}"), TemplateError::NotUnique);
        assert_eq!(err("class{class}_chip{chip}"), TemplateError::NotUnique);
        assert_eq!(err(".{task}{chip}"), TemplateError::Hidden);
        assert_eq!(err(""), TemplateError::Hidden);
    }

    #[test]
    fn stems_that_leave_the_directory_are_not_safe() {
        for bad in ["", ".", "..", "a/b", "../x", "a\\b", ".hidden", "ä"] {
            assert!(!is_safe_stem(bad), "{bad}");
        }
    }
}
