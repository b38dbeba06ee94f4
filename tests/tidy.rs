//! The house rules that a compiler does not know: which room may use which, what the domain may not touch, and what
//! every file owes its reader.
//!
//! Contract: reads the sources as text, comments left out where code is meant; every failure lists all places and says
//! how to mend them.
//! Trap: this file is searched like any other, so forbidden words are put together from pieces.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Who may use whom; a room may always use itself.
const ARROWS: [(&str, &[&str]); 6] = [
    ("bin", &["node"]),
    ("node", &["demo", "actors", "adapters", "domain"]),
    ("demo", &["domain"]),
    ("actors", &["adapters", "domain"]),
    ("adapters", &["domain"]),
    ("domain", &[]),
];

/// What a pure computation has no use for: other programs' doors, files, clocks, threads, chance.
const IMPURE: [&str; 24] = [
    "tokio",
    "actix",
    "rdkafka",
    "gdal",
    "rusqlite",
    "reqwest",
    "axum",
    "getrandom",
    "rand",
    "rayon",
    "tracing",
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::path",
    "std::os",
    "std::io",
    "SystemTime",
    "Instant",
    "Utc::now",
    "Local::now",
    "println!",
];

const MOST_LINES: usize = 500;
const UNWANTED_NAMES: [&str; 8] = ["util", "utils", "helper", "helpers", "manager", "misc", "common", "stuff"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Files below a directory, sorted; build products, data of runs and other tools' directories are left out.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_str().unwrap();
        let kept = [".ci", ".github", ".gitignore", ".dockerignore"].contains(&name);
        let product = ["target", "demo-out", "__pycache__"].contains(&name) || name.starts_with('.') && !kept;
        match path.is_dir() {
            _ if product => {}
            true => found.extend(files_below(&path)),
            false => found.push(path),
        }
    }
    found
}

/// The Rust files of `src`, with their path below it and their text.
fn sources() -> Vec<(String, String)> {
    let src = root().join("src");
    let rust = files_below(&src).into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs"));
    let read = |p: PathBuf| (p.strip_prefix(&src).unwrap().display().to_string(), fs::read_to_string(&p).unwrap());
    let all: Vec<_> = rust.map(read).collect();
    assert!(all.len() > 50, "only {} files found below src", all.len());
    all
}

/// Code lines with their numbers: comments cut off. A `//` inside a string ends the line too, which hides code only
/// behind a URL.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(n, line)| (n + 1, line.split("//").next().unwrap_or_default()))
}

fn room(file: &str) -> Option<&str> {
    file.split_once('/').map(|(room, _)| room)
}

fn fail_if_any(found: &[String], mend: &str) {
    assert!(found.is_empty(), "{mend}\n  {}", found.join("\n  "));
}

fn is_word(text: &str, at: usize, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    let before = text[..at].chars().next_back().is_some_and(part);
    let after = text[at + word.len()..].chars().next().is_some_and(part);
    !(before || after && word.ends_with(|c: char| part(c)))
}

fn holds_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| is_word(text, at, word))
}

/// The first names after each `PREFIX::` of a text, groups opened: `crate::{a::b, c}` gives a and c.
fn first_names(text: &str, prefix: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(prefix).filter(|(at, _)| is_word(text, *at, prefix)) {
        let rest = &text[at + prefix.len()..];
        let name = |s: &str| s.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
        match rest.strip_prefix('{') {
            None => found.push((at, name(rest))),
            Some(group) => {
                let (mut depth, mut fresh) = (0, true);
                for (i, c) in group.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth == 0 => break,
                        '}' => depth -= 1,
                        ',' if depth == 0 => fresh = true,
                        c if fresh && (c.is_alphanumeric() || c == '_') => {
                            found.push((at, name(&group[i..])));
                            fresh = false;
                        }
                        _ => {}
                    }
                }
            }
        }
    }
    found
}

#[test]
fn arrows_run_one_way() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let Some(from) = room(&file) else { continue };
        let (_, allowed) = ARROWS.iter().find(|(name, _)| *name == from).unwrap_or_else(|| {
            panic!("src/{from}/ is not a room this test knows: put the file into one, or draw its arrows in ARROWS")
        });
        let code: String = code(&text).map(|(_, line)| format!("{line}\n")).collect();
        let prefixes: &[&str] = if from == "bin" { &["satellite_pipeline::"] } else { &["crate::"] };
        for prefix in prefixes {
            for (at, to) in first_names(&code, prefix) {
                let known = ARROWS.iter().any(|(name, _)| *name == to);
                if known && to != from && !allowed.contains(&&*to) {
                    let line = code[..at].lines().count();
                    wrong.push(format!("src/{file}:{line}: {from} uses {to}"));
                }
            }
        }
    }
    fail_if_any(
        &wrong,
        "arrows run bin -> node -> actors -> adapters -> domain, and node -> demo -> domain: move the code down, or hand \
         it what it needs from above",
    );
}

#[test]
fn nobody_climbs_out_of_a_room_by_super() {
    let mut wrong = Vec::new();
    for (file, text) in sources() {
        let parts = file.split('/').count();
        let module_depth = if file.ends_with("/mod.rs") { parts - 1 } else { parts };
        let mut inline = 0;
        for (n, line) in code(&text) {
            inline += usize::from(line.trim_start().starts_with("mod ") && line.trim_end().ends_with('{'));
            let longest = line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
            let climbed = longest.map(|path| path.matches("super::").count()).max().unwrap_or(0);
            if module_depth > 1 && climbed >= module_depth + inline {
                wrong.push(format!("src/{file}:{n}: {}", line.trim()));
            }
        }
    }
    fail_if_any(&wrong, "write `crate::ROOM::…` where a path leaves the room, so that the arrows can be read");
}

#[test]
fn the_domain_is_pure() {
    let mut wrong = Vec::new();
    for (file, text) in sources().into_iter().filter(|(file, _)| file.starts_with("domain/")) {
        for (n, line) in code(&text) {
            for word in IMPURE.into_iter().filter(|word| holds_word(line, word)) {
                wrong.push(format!("src/{file}:{n}: {word}"));
            }
            let grouped = first_names(line, "std::").into_iter().filter(|_| line.contains("std::{"));
            for (_, name) in grouped.filter(|(_, name)| IMPURE.contains(&&*format!("std::{name}"))) {
                wrong.push(format!("src/{file}:{n}: std::{name}"));
            }
        }
    }
    fail_if_any(
        &wrong,
        "the domain computes and does nothing else: move this into an adapter, or take its value as an argument",
    );
}

#[test]
fn every_source_file_says_what_it_is_for() {
    let silent: Vec<_> = sources()
        .into_iter()
        .filter(|(_, text)| !text.starts_with("//! "))
        .map(|(file, _)| format!("src/{file}"))
        .collect();
    fail_if_any(&silent, "open the file with `//!`: purpose, contract, units and trap");
}

#[test]
fn no_source_file_is_long() {
    let long = sources().into_iter().map(|(file, text)| (file, text.lines().count()));
    let long: Vec<_> =
        long.filter(|(_, n)| *n > MOST_LINES).map(|(file, n)| format!("src/{file}: {n} lines")).collect();
    fail_if_any(&long, "aim at 400 lines, never more than 500: split the file by its nouns");
}

#[test]
fn files_are_named_after_what_they_hold() {
    let stem = |p: &Path| p.file_stem().unwrap().to_str().unwrap().to_owned();
    let all = files_below(&root().join("src")).into_iter().chain(files_below(&root().join("tests")));
    let vague: Vec<_> = all.filter(|p| UNWANTED_NAMES.contains(&&*stem(p))).map(|p| p.display().to_string()).collect();
    fail_if_any(&vague, "name the file after the noun it holds");
}

#[test]
fn nothing_depends_on_one_machine() {
    let place = concat!("/wo", "rk/");
    let hosts = [
        concat!("static.", "crates.io"),
        concat!("index.", "crates.io"),
        concat!("pypi", ".org"),
        concat!("python", "hosted.org"),
        concat!("repo1.", "maven.org"),
        concat!("repo.", "maven.apache.org"),
        concat!("deb.", "debian.org"),
        concat!("arti", "factory"),
        concat!("index", "-url"),
    ];
    let mut wrong = Vec::new();
    for path in files_below(root()) {
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        for (n, line) in text.lines().enumerate() {
            let absolute = line.match_indices(place).any(|(at, _)| {
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '}'))
            });
            if absolute || hosts.iter().any(|host| line.contains(host)) {
                let shown: String = line.trim().chars().take(100).collect();
                wrong.push(format!("{}:{}: {shown}", path.strip_prefix(root()).unwrap().display(), n + 1));
            }
        }
    }
    fail_if_any(&wrong, "use paths relative to the repository, and the package managers' own settings");
}

#[test]
fn every_key_of_the_default_configuration_is_explained() {
    let text = fs::read_to_string(root().join("config/default.toml")).unwrap();
    let mut bare = Vec::new();
    // A comment speaks for the keys right below it, up to the next empty line or section.
    let (mut explained, mut keys) = (false, 0);
    for (n, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('[') {
            explained &= line.starts_with('[');
        } else if line.starts_with('#') {
            explained = true;
        } else if line.contains('=') {
            keys += 1;
            if !explained && !line.contains(" # ") {
                bare.push(format!("config/default.toml:{}: {line}", n + 1));
            }
        }
    }
    assert!(keys > 50, "only {keys} keys found");
    fail_if_any(&bare, "write a comment above the key: meaning, [unit or allowed values]");
}

#[test]
fn the_readme_shows_every_command() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md is missing: write it");
    let help = Command::new(env!("CARGO_BIN_EXE_node")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let commands = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    let commands: Vec<_> = commands.filter(|l| l.starts_with("  ") && !l.starts_with("   ")).collect();
    let mut wanted: Vec<String> =
        commands.iter().map(|l| format!("node {}", l.split_whitespace().next().unwrap())).collect();
    assert!(wanted.len() >= 6, "the commands were not found in:\n{help}");
    wanted.extend(["master", "worker", "monitor", "all"].map(|role| format!("--role {role}")));
    wanted.extend(["scripts/demo", "scripts/test", "scripts/kafka"].map(str::to_owned));
    let absent: Vec<_> = wanted.into_iter().filter(|command| !readme.contains(command)).collect();
    fail_if_any(&absent, "show the command and its output in README.md");
}

/// The targets of a page's links in brackets and parentheses, with their lines; what stands in blocks of code is text.
fn links(page: &str) -> Vec<(usize, &str)> {
    let (mut found, mut fenced) = (Vec::new(), false);
    for (n, line) in page.lines().enumerate() {
        fenced ^= line.starts_with("```");
        let starts = line.match_indices("](").filter(|_| !fenced).map(|(at, _)| &line[at + 2..]);
        found.extend(starts.filter_map(|rest| rest.split_once(')')).map(|(target, _)| (n + 1, target)));
    }
    found
}

/// A heading as the address that GitHub gives it.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>().replace(' ', "-")
}

#[test]
fn every_link_of_the_documents_leads_somewhere() {
    let pages: Vec<PathBuf> =
        files_below(root()).into_iter().filter(|p| p.extension().is_some_and(|e| e == "md")).collect();
    let (mut seen, mut dead) = (0, Vec::new());
    for page in &pages {
        let text = fs::read_to_string(page).unwrap();
        for (line, target) in links(&text).into_iter().filter(|(_, t)| !t.contains("://")) {
            let (file, place) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { page.clone() } else { page.parent().unwrap().join(file) };
            let there = match fs::read_to_string(&file) {
                Ok(text) if !place.is_empty() => text.lines().any(|l| l.starts_with('#') && anchor(l) == place),
                _ => file.exists(),
            };
            seen += 1;
            if !there {
                dead.push(format!("{}:{line}: {target}", page.strip_prefix(root()).unwrap().display()));
            }
        }
    }
    assert!(seen > 30, "only {seen} links found in {} pages", pages.len());
    fail_if_any(&dead, "correct the link, or the heading that it names");
}
