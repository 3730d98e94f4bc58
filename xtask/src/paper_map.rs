//! The map from the papers to the code: the `# Paper` sections of the rustdoc, collected into `docs/paper-map.md`.
//!
//! CONTRIBUTING.md ("How code names its paper") describes the lines that are read here.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use anyhow::Result;

use crate::relative;
use crate::source::{read, rust_files};

/// The page that is written.
pub const PAGE: &str = "docs/paper-map.md";

/// A row that the map must have.
struct Row {
    citation: &'static str,
    what: &'static str,
    /// Whether numbers from outside the project exist for it, so that a vector must be named.
    vector: bool,
}

const fn row(citation: &'static str, what: &'static str, vector: bool) -> Row {
    Row { citation, what, vector }
}

const ROWS: [Row; 16] = [
    row("V3 2.1.1 eqs. 1-11", "Multi-head latent attention", true),
    row("V3 4.3", "YaRN: rotation and softmax scale of long contexts", true),
    row("V3 2.1.2 eqs. 12-16", "Gate: scores, groups, choice with bias, weights without", true),
    row("V3 2.1.2 eqs. 17-20", "Balance loss of a sequence, update of the bias", true),
    row("V3 2.2 eqs. 21-25", "Multi-token prediction", true),
    row("V3 3.3", "FP8 blocks", true),
    row("R1 2.2.1 eq. 1", "GRPO: clipped objective", true),
    row("R1 2.2.1 eq. 2", "GRPO: divergence from the reference", true),
    row("R1 2.2.1 eq. 3", "GRPO: group-relative advantage", true),
    row("R1 2.2.2", "Rewards for accuracy and format", false),
    row("R1 2.2.3", "Template of R1-Zero", true),
    row("R1 2.3.1", "Cold start", false),
    row("R1 2.3.3", "Rejection sampling and fine-tuning", false),
    row("R1 2.4", "Distillation", false),
    row("R1 3", "pass@k and cons@64", true),
    row("costs", "Parameter counts, FLOPs, bytes of the KV cache", true),
];

/// A place in a paper.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Citation {
    paper: String,
    section: String,
    /// First and last equation.
    equations: Option<(u32, u32)>,
}

/// What one `# Paper` section says.
#[derive(Debug, Default)]
struct Entry {
    /// `file:item`
    place: String,
    /// Whether the item is a function: a type or a module may cite, only a function computes.
    function: bool,
    citations: Vec<Citation>,
    tests: Vec<String>,
    vectors: Vec<String>,
    /// Lines that look like a citation and cannot be read.
    unreadable: Vec<String>,
}

/// The generated page and what is wrong with what it shows.
pub struct PaperMap {
    /// The text of [`PAGE`].
    pub page: String,
    /// One line for each row without code, test or vector, and for each file that is named and missing.
    pub complaints: Vec<String>,
}

/// The map of all crates.
///
/// # Errors
/// If the sources cannot be read.
pub fn generate(root: &Path) -> Result<PaperMap> {
    let mut entries = Vec::new();
    for path in rust_files(&root.join("crates"))? {
        let name = relative(root, &path);
        if name.contains("/src/") {
            entries.extend(entries_of(&name, &read(&path)?));
        }
    }
    let mut complaints = Vec::new();
    for entry in &entries {
        complaints.extend(entry_complaints(root, entry));
    }
    let page = page(&entries, &mut complaints);
    Ok(PaperMap { page, complaints })
}

/// The complaints of [`generate`], and one more if the page in the repository is not the one that it makes.
///
/// # Errors
/// If the sources cannot be read.
pub fn complaints(root: &Path) -> Result<Vec<String>> {
    let PaperMap { page, mut complaints } = generate(root)?;
    if std::fs::read_to_string(root.join(PAGE)).unwrap_or_default() != page {
        complaints.push(format!("{PAGE} is stale: run `cargo xtask paper-map`"));
    }
    Ok(complaints)
}

/// The `# Paper` sections of one file.
fn entries_of(file: &str, text: &str) -> Vec<Entry> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let (mut found, mut at) = (Vec::new(), 0);
    while at < lines.len() {
        let Some(mark) = ["///", "//!"].into_iter().find(|mark| lines[at].starts_with(mark)) else {
            at += 1;
            continue;
        };
        let end = at + lines[at..].iter().take_while(|line| line.starts_with(mark)).count();
        let block = lines[at..end].iter().map(|line| line[mark.len()..].trim());
        if let Some(mut entry) = entry(block) {
            entry.place = file.to_string();
            if mark == "///" {
                let (name, function) = item(text, end);
                (entry.place, entry.function) = (format!("{file}:{name}"), function);
            }
            found.push(entry);
        }
        at = end;
    }
    found
}

/// What the `# Paper` section of a block of documentation says, if there is one.
fn entry<'a>(block: impl Iterator<Item = &'a str>) -> Option<Entry> {
    let mut section = block.skip_while(|line| !is_heading(line)).peekable();
    section.peek()?;
    let mut entry = Entry::default();
    for (i, line) in section.enumerate() {
        let line = if i == 0 { line.trim_start_matches("# Paper").trim() } else { line };
        if line.starts_with("# ") {
            break;
        }
        let line = line.trim_start_matches(['-', '*']).trim();
        let value = |name: &str| line.strip_prefix(name).map(|v| v.trim().trim_matches('`').to_string());
        if let Some(test) = value("Test:") {
            entry.tests.push(test);
        } else if let Some(vector) = value("Vector:") {
            entry.vectors.push(vector);
        } else {
            for part in line.split(';') {
                match Citation::parse(part.trim()) {
                    Some(Ok(citation)) => entry.citations.push(citation),
                    Some(Err(())) => entry.unreadable.push(part.trim().to_string()),
                    None => {}
                }
            }
        }
    }
    Some(entry)
}

fn is_heading(line: &str) -> bool {
    line == "# Paper" || line.starts_with("# Paper ")
}

impl Citation {
    /// The citation that a text begins with; none if it is ordinary prose.
    fn parse(text: &str) -> Option<Result<Self, ()>> {
        let mut words = text.split_whitespace().map(|w| w.trim_end_matches([',', ':', '.', ')']));
        let paper = words.next()?;
        if paper == "costs" {
            return Some(Ok(Self { paper: paper.into(), section: String::new(), equations: None }));
        }
        let section = words.next()?;
        if !["V2", "V3", "R1"].contains(&paper) || !section.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let sound = section.split('.').all(|n| n.parse::<u32>().is_ok());
        let equations = match words.next() {
            Some("eq" | "eqs") => words.next().and_then(range).map(Some),
            _ => Some(None),
        };
        let (true, Some(equations)) = (sound, equations) else { return Some(Err(())) };
        Some(Ok(Self { paper: paper.into(), section: section.into(), equations }))
    }

    /// Whether a citation belongs to a row: same section and overlapping equations, or, where the row has no
    /// equations, a section within its own.
    fn falls_into(&self, row: &Self) -> bool {
        let same = self.section == row.section;
        let place = match (self.equations, row.equations) {
            (_, None) => same || self.section.strip_prefix(&row.section).is_some_and(|rest| rest.starts_with('.')),
            (None, Some(_)) => false,
            (Some((a, b)), Some((c, d))) => same && a <= d && c <= b,
        };
        self.paper == row.paper && place
    }
}

/// First and last of `16` or `12-16`.
fn range(text: &str) -> Option<(u32, u32)> {
    let (first, last) = text.split_once(['-', '–']).unwrap_or((text, text));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last).then_some((first, last))
}

impl std::fmt::Display for Citation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}{}", self.paper, if self.section.is_empty() { "" } else { " " }, self.section)?;
        match self.equations {
            Some((a, b)) if a == b => write!(f, " eq. {a}"),
            Some((a, b)) => write!(f, " eqs. {a}-{b}"),
            None => Ok(()),
        }
    }
}

/// The name of the item that starts at or after a line, with its type in front if it is a method, and whether
/// it is a function.
fn item(text: &str, line: usize) -> (String, bool) {
    let mut brackets = 0i32;
    let item = text.lines().skip(line).find(|line| {
        let attribute = brackets > 0 || line.trim().starts_with("#[");
        if attribute {
            brackets += line.matches('[').count() as i32 - line.matches(']').count() as i32;
        }
        !attribute && !line.trim().is_empty() && !line.trim().starts_with("//")
    });
    let item = item.unwrap_or_default();
    let (name, function) = name_in(item);
    let owner = || text.lines().take(line).filter(|l| l.starts_with("impl") || l.starts_with("pub trait")).last();
    match item.starts_with(' ').then(owner).flatten() {
        Some(owner) => (format!("{}::{name}", owner_in(owner)), function),
        None => (name, function),
    }
}

/// The name that the first line of an item introduces, and whether it is that of a function.
fn name_in(item: &str) -> (String, bool) {
    const KINDS: [&str; 9] = ["fn", "struct", "enum", "trait", "type", "const", "static", "mod", "macro_rules!"];
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == '!';
    let words: Vec<&str> = item.split(|c| !is_word(c)).filter(|w| !w.is_empty()).collect();
    let after = |kind: &&str| words.iter().position(|w| w == kind).and_then(|i| words.get(i + 1));
    // `fn` first: in `const fn` the name follows the second word.
    let name = KINDS.iter().find_map(after).or(words.first()).unwrap_or(&"?");
    (name.to_string(), after(&"fn").is_some())
}

/// The type of a line `impl<T> Trait for Type<T> {` or `pub trait Type {`.
fn owner_in(line: &str) -> String {
    let line = line.split_once(" for ").map_or(line, |(_, owner)| owner);
    let mut depth = 0;
    let plain: String = line
        .chars()
        .map(|c| {
            depth += i32::from(c == '<') - i32::from(c == '>');
            if depth > 0 || c == '>' { ' ' } else { c }
        })
        .collect();
    let mut words = plain.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|w| !w.is_empty());
    words.find(|w| !["impl", "pub", "trait", "unsafe"].contains(w)).unwrap_or("?").to_string()
}

/// What is wrong with the files that an entry names.
fn entry_complaints(root: &Path, entry: &Entry) -> Vec<String> {
    let place = &entry.place;
    let mut found: Vec<String> =
        entry.unreadable.iter().map(|line| format!("{place}: cannot read the citation `{line}`")).collect();
    if entry.citations.is_empty() && !(entry.tests.is_empty() && entry.vectors.is_empty()) {
        found.push(format!("{place}: names a test or a vector and no section of a paper: add the citation"));
    }
    let mut sources = String::new();
    for test in &entry.tests {
        let (file, function) = test.split_once("::").unwrap_or((test, ""));
        match std::fs::read_to_string(root.join(file)) {
            Ok(text) if text.contains(&format!("fn {function}")) => sources += &text,
            Ok(_) => found.push(format!("{place}: {file} has no `fn {function}`")),
            Err(_) => found.push(format!("{place}: the test {file} does not exist")),
        }
    }
    for vector in &entry.vectors {
        let stem = Path::new(vector).file_stem().unwrap_or_default().to_string_lossy();
        if !vector.starts_with("testdata/") || !root.join(vector).exists() {
            found.push(format!("{place}: the vector {vector} does not exist under testdata/"));
        } else if !sources.contains(&*stem) {
            found
                .push(format!("{place}: no test named beside {vector} mentions `{stem}`: name the test that reads it"));
        }
    }
    found
}

/// The page, and adds a complaint for each row that lacks something.
fn page(entries: &[Entry], complaints: &mut Vec<String>) -> String {
    let mut text = String::from(
        "# Paper map\n\nFrom an equation to the code, its test and its numbers. Generated by `cargo xtask paper-map` \
         from the `# Paper` sections of the rustdoc; `cargo test` fails if it is stale.\n\nV3 is the DeepSeek-V3 report \
         (arXiv 2412.19437), R1 the DeepSeek-R1 paper in its first version (arXiv 2501.12948v1).\n\n\
         | Paper | What | Where | Test | Vector |\n|---|---|---|---|---|\n",
    );
    let citations: Vec<&Citation> = entries.iter().flat_map(|e| &e.citations).collect();
    let mut listed: BTreeSet<&Citation> = BTreeSet::new();
    for Row { citation: key, what, vector } in &ROWS {
        let key = Citation::parse(key).and_then(Result::ok).expect("invariant: the table cites as the code must");
        listed.extend(citations.iter().filter(|c| c.falls_into(&key)));
        let of_row = || entries.iter().filter(|e| e.citations.iter().any(|c| c.falls_into(&key)));
        let tests: BTreeSet<&str> = of_row().flat_map(|e| &e.tests).map(String::as_str).collect();
        let vectors: BTreeSet<&str> = of_row().flat_map(|e| &e.vectors).map(String::as_str).collect();
        let functions = || of_row().filter(|e| e.function);
        let covered = |n: u32| {
            let equation = Citation { equations: Some((n, n)), ..key.clone() };
            functions().flat_map(|e| &e.citations).any(|c| c.falls_into(&equation))
        };
        let holes: Vec<String> = key
            .equations
            .map_or(vec![], |(first, last)| (first..=last).filter(|&n| !covered(n)).map(|n| n.to_string()).collect());
        let mut missing = vec![];
        if functions().next().is_none() {
            missing.push("no function cites it".to_string());
        } else {
            missing
                .extend((!holes.is_empty()).then(|| format!("no function cites its equations {}", holes.join(", "))));
            missing.extend(tests.is_empty().then(|| "no `Test:` line".to_string()));
            missing.extend((*vector && vectors.is_empty()).then(|| "no `Vector:` line".to_string()));
        }
        complaints.extend(missing.into_iter().map(|m| format!("{key} ({what}): {m}")));
        let places = of_row().map(|e| e.place.as_str()).collect();
        let _ = writeln!(text, "| {key} | {what} | {} | {} | {} |", cell(&places), cell(&tests), cell(&vectors));
    }
    text += &further(entries, &listed);
    text
}

/// The second table: citations that belong to no row of the first.
fn further(entries: &[Entry], listed: &BTreeSet<&Citation>) -> String {
    let rest: BTreeSet<&Citation> = entries.iter().flat_map(|e| &e.citations).filter(|c| !listed.contains(c)).collect();
    let mut text = String::new();
    if !rest.is_empty() {
        text += "\n## Further places\n\n| Paper | Where |\n|---|---|\n";
    }
    for citation in rest {
        let places = entries.iter().filter(|e| e.citations.contains(citation)).map(|e| e.place.as_str()).collect();
        let _ = writeln!(text, "| {citation} | {} |", cell(&places));
    }
    text
}

fn cell(items: &BTreeSet<&str>) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("`{item}`")).collect();
    if items.is_empty() { "-".to_string() } else { items.join("<br>") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn citations_are_read_and_prose_is_not() {
        let cite = |paper: &str, section: &str, equations| {
            Some(Ok(Citation { paper: paper.into(), section: section.into(), equations }))
        };
        let cases = [
            ("V3 2.1.2 eq. 16", cite("V3", "2.1.2", Some((16, 16)))),
            ("V3 2.1.2 eqs. 12-16 (gate)", cite("V3", "2.1.2", Some((12, 16)))),
            ("V3 2.1.2 eqs. 12-16: the gate", cite("V3", "2.1.2", Some((12, 16)))),
            ("R1 3 (pass@k)", cite("R1", "3", None)),
            ("R1 2.2.3, Table 1", cite("R1", "2.2.3", None)),
            ("costs", cite("costs", "", None)),
            ("V3 2.1.2 eq. sixteen", Some(Err(()))),
            ("V3 2.x eq. 1", Some(Err(()))),
            ("R1 was trained so", None),
            ("Kingma and Ba 2014", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(Citation::parse(text), expected, "{text}");
        }
    }

    #[test]
    fn subsections_belong_to_rows_without_equations() {
        let cases = [
            ("V3 3.3.2", "V3 3.3", true),
            ("V3 3.31", "V3 3.3", false),
            ("V3 3.3", "V3 3.3", true),
            ("R1 3.3", "V3 3.3", false),
            ("V3 2.1.2 eq. 16", "V3 2.1.2 eqs. 12-16", true),
            ("V3 2.1.2 eq. 17", "V3 2.1.2 eqs. 12-16", false),
            ("V3 2.1 eq. 16", "V3 2.1.2 eqs. 12-16", false),
        ];
        for (cited, row, expected) in cases {
            let [cited, row] = [cited, row].map(|text| Citation::parse(text).unwrap().unwrap());
            assert_eq!(cited.falls_into(&row), expected, "{cited} in {row}");
        }
    }

    #[test]
    fn every_row_is_written_in_the_form_that_it_demands() {
        for Row { citation, .. } in &ROWS {
            assert_eq!(Citation::parse(citation).unwrap().unwrap().to_string(), *citation);
        }
    }

    #[test]
    fn a_section_belongs_to_the_item_below_it() {
        let text = "//! Module.\n//! # Paper\n//! - V3 4.3\n\n/// Doc.\n/// # Paper\n/// - V3 2.1.2 eq. 16; V3 2.1.2 eq. 12\n\
                    /// - Test: a.rs\n/// - Vector: `testdata/x.json`\n/// # Errors\n/// V3 3.3\n#[inline]\n#[cfg(\n  x[1],\n)]\n\
                    pub const fn one() {}\n/// No section.\nfn two() {}\nimpl<T: A<B>> Shape for Mla<T> {\n    /// # Paper V3 2.2 eq. 21\n    \
                    pub(crate) fn three(&self) {}\n}\n";
        let found = entries_of("f.rs", text);
        let places: Vec<_> = found.iter().map(|e| (e.place.as_str(), e.function)).collect();
        assert_eq!(places, [("f.rs", false), ("f.rs:one", true), ("f.rs:Mla::three", true)]);
        assert_eq!(found[1].citations.len(), 2);
        assert_eq!((found[1].tests[0].as_str(), found[1].vectors[0].as_str()), ("a.rs", "testdata/x.json"));
        assert_eq!(found[2].citations[0].to_string(), "V3 2.2 eq. 21");
    }

    #[test]
    fn a_row_needs_all_its_equations_a_test_and_a_vector() {
        let entry = |cited: &str, tests: &[&str], vectors: &[&str]| Entry {
            place: "p".into(),
            function: true,
            citations: vec![Citation::parse(cited).unwrap().unwrap()],
            tests: tests.iter().map(|t| t.to_string()).collect(),
            vectors: vectors.iter().map(|t| t.to_string()).collect(),
            unreadable: vec![],
        };
        let check = |entries: &[Entry]| {
            let mut complaints = vec![];
            let page = page(entries, &mut complaints);
            complaints.retain(|c| c.starts_with("V3 2.1.2 eqs. 12-16"));
            (page, complaints.join("; "))
        };
        assert!(check(&[]).1.contains("no function cites it"));
        assert!(check(&[entry("V3 2.1.2", &[], &[])]).1.contains("no function cites it"));
        let part = check(&[entry("V3 2.1.2 eqs. 12-14", &["t"], &["v"]), entry("V3 2.1.2 eq. 16", &[], &[])]).1;
        assert!(part.ends_with("no function cites its equations 15"), "{part}");
        let config = Entry { function: false, ..entry("V3 2.1.2 eqs. 12-16", &["t"], &["v"]) };
        assert!(check(&[config]).1.contains("no function cites it"));
        let bare = check(&[entry("V3 2.1.2 eqs. 12-16", &[], &[])]).1;
        assert!(bare.contains("no `Test:`") && bare.contains("no `Vector:`"), "{bare}");
        let (page, none) = check(&[entry("V3 2.1.2 eqs. 12-17", &["t"], &["v"]), entry("R1 4.2", &[], &[])]);
        assert_eq!(none, "");
        assert!(page.contains(
            "| V3 2.1.2 eqs. 12-16 | Gate: scores, groups, choice with bias, weights without | `p` | `t` | `v` |"
        ));
        assert!(page.contains("| R1 4.2 | `p` |"));
    }

    #[test]
    fn files_that_are_named_must_exist_and_belong_together() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("testdata")).unwrap();
        std::fs::write(root.path().join("testdata/gate.json"), "{}").unwrap();
        std::fs::write(root.path().join("t.rs"), "fn works() { vector(\"gate\") }").unwrap();
        std::fs::write(root.path().join("u.rs"), "fn other() {}").unwrap();
        let cases = [
            ("t.rs", "testdata/gate.json", ""),
            ("t.rs::works", "testdata/gate.json", ""),
            ("t.rs::fails", "testdata/gate.json", "has no `fn fails`"),
            ("no.rs", "testdata/gate.json", "no.rs does not exist"),
            ("t.rs", "testdata/no.json", "testdata/no.json does not exist"),
            ("u.rs", "testdata/gate.json", "mentions `gate`"),
        ];
        for (test, vector, expected) in cases {
            let entry = Entry {
                citations: vec![Citation::parse("costs").unwrap().unwrap()],
                tests: vec![test.into()],
                vectors: vec![vector.into()],
                ..Entry::default()
            };
            let found = entry_complaints(root.path(), &entry).join("; ");
            assert!(found.contains(expected) && (found.is_empty() == expected.is_empty()), "{test} {vector}: {found}");
        }
    }
}
