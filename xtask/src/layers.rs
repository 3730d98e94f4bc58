//! Dependencies: between crates as ARCHITECTURE.md allows them, between the modules of a crate without a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::source::{Token, read, rust_files, tokens, without_tests};
use crate::{metadata, relative};

/// Heading of ARCHITECTURE.md above the fenced block with the arrows.
const HEADING: &str = "## Allowed arrows";
/// Word of the block that stands for every other crate.
const EVERYTHING: &str = "everything";

/// From each crate to those it may use.
pub type Arrows = BTreeMap<String, BTreeSet<String>>;

/// One line for each arrow between crates or circle of modules that should not be.
///
/// # Errors
/// If ARCHITECTURE.md has no readable list of arrows, or cargo or the file system fails.
pub fn complaints(root: &Path) -> Result<Vec<String>> {
    let allowed = allowed_arrows(&read(&root.join("ARCHITECTURE.md"))?)?;
    let mut found = crate_complaints(&allowed, &uses(root)?);
    for name in allowed.keys() {
        let folder = if name == "xtask" { root.join("xtask") } else { root.join("crates").join(name) };
        found.extend(Modules::read(root, &folder.join("src"))?.circle().map(|circle| format!("{name}: {circle}")));
    }
    Ok(found)
}

/// The arrows that the fenced block under the heading lists, one crate per line: `engine -> model tensor spec`.
///
/// # Errors
/// If the block is missing, a line cannot be read, a name is not a crate of the list, or the arrows form a circle.
pub fn allowed_arrows(architecture: &str) -> Result<Arrows> {
    let (_, section) = architecture
        .split_once(HEADING)
        .with_context(|| format!("ARCHITECTURE.md has no heading `{HEADING}`: the check reads its list there"))?;
    let block = section.split("```").nth(1).with_context(|| format!("no fenced block under `{HEADING}`"))?;
    let mut arrows = Arrows::new();
    for line in block.lines().skip(1).filter(|l| !l.trim().is_empty()) {
        let (from, to) = line.split_once("->").with_context(|| format!("`{line}` is not `crate -> crates`"))?;
        arrows.insert(from.trim().to_string(), to.split_whitespace().map(str::to_string).collect());
    }
    let names: BTreeSet<String> = arrows.keys().cloned().collect();
    for (from, to) in &mut arrows {
        if to.remove(EVERYTHING) {
            to.extend(names.iter().filter(|n| *n != from && *n != "xtask").cloned());
        }
        if let Some(unknown) = to.iter().find(|name| !names.contains(*name)) {
            bail!("`{from} -> {unknown}`: {unknown} has no line of its own under `{HEADING}`");
        }
    }
    match arrows.keys().find(|name| reaches(&arrows, name, name)) {
        Some(name) => bail!("the list under `{HEADING}` leads from {name} back to {name}"),
        None => Ok(arrows),
    }
}

/// Whether one or more arrows lead from one crate to another.
fn reaches(arrows: &Arrows, from: &str, to: &str) -> bool {
    arrows.get(from).is_some_and(|next| next.iter().any(|n| n == to || reaches(arrows, n, to)))
}

/// One dependency between two crates of the workspace.
struct Use {
    from: String,
    to: String,
    only_tests: bool,
}

/// The dependencies between the crates of the workspace, a crate being named after its folder.
fn uses(root: &Path) -> Result<Vec<Use>> {
    let folder = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let mut found = Vec::new();
    for package in metadata(root)? {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let from = folder(manifest.parent().unwrap_or(manifest));
        // The arrow to itself makes a crate without dependencies known, and is dropped by the check.
        found.push(Use { from: from.clone(), to: from.clone(), only_tests: false });
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            if let Some(path) = dependency["path"].as_str() {
                let only_tests = dependency["kind"] == "dev";
                found.push(Use { from: from.clone(), to: folder(Path::new(path)), only_tests });
            }
        }
    }
    Ok(found)
}

fn crate_complaints(allowed: &Arrows, uses: &[Use]) -> Vec<String> {
    let mut found = Vec::new();
    for Use { from, to, only_tests } in uses {
        match allowed.get(from) {
            None => {
                found.push(format!("{from} has no line under `{HEADING}` of ARCHITECTURE.md: decide what it may use"))
            }
            Some(_) if from == to => {}
            Some(_) if *only_tests && reaches(allowed, to, from) => {
                found.push(format!("the tests of {from} use {to}, which stands above it: move the test to {to}"));
            }
            Some(next) if !only_tests && !next.contains(to) => found.push(format!(
                "{from} -> {to} is not allowed by ARCHITECTURE.md: pass a value or a closure down, or move the code"
            )),
            Some(_) => {}
        }
    }
    found.dedup();
    found
}

/// The modules of one crate, by path from its root (`a::b`; the root is the empty path).
#[derive(Default)]
struct Modules(BTreeMap<Vec<String>, Module>);

struct Module {
    /// The file, from the root of the repository.
    file: String,
    tokens: Vec<Token>,
    /// Paths that the module names, in `use` and elsewhere.
    paths: Vec<Named>,
}

/// A path that stands in a module.
#[derive(Clone, Debug, PartialEq)]
struct Named {
    /// The path from the root of the crate.
    path: Vec<String>,
    /// The name it gets where it is re-exported; `*` for all names.
    exported_as: Option<String>,
    line: usize,
}

impl Modules {
    fn read(root: &Path, src: &Path) -> Result<Self> {
        let mut modules = Self::default();
        for file in rust_files(src)? {
            let mut path: Vec<String> =
                relative(src, &file).trim_end_matches(".rs").split('/').map(str::to_string).collect();
            path.pop_if(|last| ["lib", "main", "mod"].contains(&last.as_str()));
            // A file of tests is no part of what the crate is made of.
            if path.last().is_none_or(|last| last != "tests") && path.first().is_none_or(|first| first != "bin") {
                modules.insert(path, relative(root, &file), &read(&file)?);
            }
        }
        Ok(modules)
    }

    fn insert(&mut self, path: Vec<String>, file: String, text: &str) {
        let tokens = without_tests(&tokens(text));
        let paths = named_paths(&tokens, &path);
        match self.0.entry(path) {
            // A package with a library and a program: `main.rs` adds to the root.
            std::collections::btree_map::Entry::Occupied(mut root) => root.get_mut().paths.extend(paths),
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(Module { file, tokens, paths });
            }
        }
    }

    /// The module in which the thing behind a path is written, following re-exports.
    fn home(&self, path: &[String], depth: usize) -> Option<Vec<String>> {
        let length = (0..=path.len()).rev().find(|&n| self.0.contains_key(&path[..n]))?;
        let (module, rest) = path.split_at(length);
        if let Some(name) = rest.first().filter(|_| depth < 8) {
            for named in &self.0[module].paths {
                let hit = match named.exported_as.as_deref() {
                    Some("*") => self.0.get(&named.path).is_some_and(|target| defines(&target.tokens, name)),
                    other => other == Some(name),
                };
                if hit && named.path != path {
                    return self.home(&named.path, depth + 1);
                }
            }
        }
        Some(module.to_vec())
    }

    /// The arrows from a module with the line of each. A module is the table of contents of those below it, so
    /// an arrow down to them does not count.
    fn arrows(&self, from: &[String]) -> BTreeMap<Vec<String>, usize> {
        let mut found = BTreeMap::new();
        for named in &self.0[from].paths {
            if let Some(to) = self.home(&named.path, 0).filter(|to| !to.starts_with(from)) {
                found.entry(to).or_insert(named.line);
            }
        }
        found
    }

    /// A sentence about one circle of modules, if there is one.
    fn circle(&self) -> Option<String> {
        let mut done = BTreeSet::new();
        self.0.keys().find_map(|start| self.walk(start, &mut Vec::new(), &mut done))
    }

    fn walk(&self, at: &[String], trail: &mut Vec<Vec<String>>, done: &mut BTreeSet<Vec<String>>) -> Option<String> {
        if let Some(start) = trail.iter().position(|m| m == at) {
            let steps: Vec<String> = (start..trail.len())
                .map(|i| {
                    let to = trail.get(i + 1).map_or(at, |next| next);
                    format!(
                        "{} uses {} ({}:{})",
                        show(&trail[i]),
                        show(to),
                        self.0[&trail[i]].file,
                        self.arrows(&trail[i])[to]
                    )
                })
                .collect();
            return Some(format!(
                "modules form a circle: {}: move what they share into one of its own",
                steps.join(", ")
            ));
        }
        if done.contains(at) {
            return None;
        }
        trail.push(at.to_vec());
        let circle = self.arrows(at).keys().find_map(|to| self.walk(to, trail, done));
        trail.pop();
        done.insert(at.to_vec());
        circle
    }
}

fn show(module: &[String]) -> String {
    if module.is_empty() { "the root".to_string() } else { module.join("::") }
}

/// Whether an item of that name is written in the tokens.
fn defines(tokens: &[Token], name: &str) -> bool {
    const ITEMS: [&str; 8] = ["fn", "struct", "enum", "trait", "type", "const", "static", "macro_rules"];
    tokens.windows(2).any(|w| ITEMS.contains(&w[0].text.as_str()) && w[1].text == name)
}

/// Every path that starts in the crate: those of `use`, and those that begin with `crate`, `self` or `super`.
fn named_paths(tokens: &[Token], module: &[String]) -> Vec<Named> {
    let mut found = Vec::new();
    // One entry per open brace: the name of the inline module that it opens, if it does.
    let mut scopes: Vec<Option<String>> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let text = tokens[at].text.as_str();
        let before = |n: usize| at.checked_sub(n).map_or("", |i| tokens[i].text.as_str());
        let here = || module.iter().cloned().chain(scopes.iter().flatten().cloned()).collect::<Vec<_>>();
        match text {
            "{" => scopes.push((before(2) == "mod").then(|| before(1).to_string())),
            "}" => {
                scopes.pop();
            }
            "use" if tokens.get(at + 1).is_some_and(|t| t.text != "<") => {
                let end = tokens[at..].iter().position(|t| t.text == ";").map_or(tokens.len(), |n| at + n);
                // `pub use` and `pub(crate) use` alike hand the name on.
                let exported = ["pub", ")"].contains(&before(1));
                let (line, here) = (tokens[at].line, here());
                use_tree(&tokens[at + 1..end], &[], &mut |path, name| {
                    let exported_as = exported.then(|| name.to_string());
                    found.extend(absolute(&here, path, true).map(|path| Named { path, exported_as, line }));
                });
                at = end;
            }
            "crate" | "self" | "super" if before(1) != "::" => {
                let mut path = vec![text.to_string()];
                while tokens.get(at + 1).is_some_and(|t| t.text == "::") && tokens.get(at + 2).is_some_and(is_name) {
                    path.push(tokens[at + 2].text.clone());
                    at += 2;
                }
                let line = tokens[at].line;
                // `self.x` and `pub(crate)` are no paths.
                found.extend((path.len() > 1).then(|| absolute(&here(), &path, false)).flatten().map(|path| Named {
                    path,
                    exported_as: None,
                    line,
                }));
            }
            _ => {}
        }
        at += 1;
    }
    found
}

fn is_name(token: &Token) -> bool {
    token.text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Calls `leaf` with each path of a `use` and the name under which it is known here.
fn use_tree(tokens: &[Token], prefix: &[String], leaf: &mut dyn FnMut(&[String], &str)) {
    let mut path = prefix.to_vec();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            "::" => {}
            "{" => {
                let mut depth = 0;
                let inside = &tokens[at + 1..tokens.len() - 1];
                let parts = inside.split(|t| {
                    depth += i32::from(t.text == "{") - i32::from(t.text == "}");
                    depth == 0 && t.text == ","
                });
                parts.filter(|part| !part.is_empty()).for_each(|part| use_tree(part, &path, leaf));
                return;
            }
            "*" => return leaf(&path, "*"),
            "as" => return leaf(&path, tokens.get(at + 1).map_or("", |t| t.text.as_str())),
            // `a::{self}` means `a`.
            "self" if !path.is_empty() => {}
            name => path.push(name.to_string()),
        }
        at += 1;
    }
    leaf(&path, path.last().map_or("", String::as_str));
}

/// A path counted from the root of the crate; none if it leads out of it. In a `use`, a bare name may be a
/// module below; elsewhere it may be anything, and is not looked at.
fn absolute(here: &[String], path: &[String], bare: bool) -> Option<Vec<String>> {
    let (mut base, mut rest) = (here.to_vec(), path);
    match path.first()?.as_str() {
        "crate" => {
            base.clear();
            rest = &path[1..];
        }
        "self" => rest = &path[1..],
        "super" => {
            while rest.first().is_some_and(|p| p == "super") {
                base.pop()?;
                rest = &rest[1..];
            }
        }
        _ if bare => {}
        _ => return None,
    }
    Some(base.into_iter().chain(rest.iter().cloned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# A\n## Allowed arrows\nwords\n```text\nspec -> \nkernels -> spec\ntensor -> kernels spec\ncli -> everything\n```\n";

    fn arrow(from: &str, to: &str, only_tests: bool) -> Use {
        Use { from: from.into(), to: to.into(), only_tests }
    }

    #[test]
    fn the_list_is_read_and_must_be_sound() {
        let arrows = allowed_arrows(LIST).unwrap();
        assert_eq!(arrows["cli"], ["kernels", "spec", "tensor"].map(String::from).into());
        assert!(arrows["spec"].is_empty());
        for broken in ["spec -> cli", "spec -> nobody", "spec is free"] {
            assert!(allowed_arrows(&LIST.replace("spec -> \n", &format!("{broken}\n"))).is_err(), "{broken}");
        }
        assert!(allowed_arrows("# A").is_err());
    }

    #[test]
    fn arrows_outside_the_list_are_named() {
        let allowed = allowed_arrows(LIST).unwrap();
        let cases = [
            (arrow("tensor", "kernels", false), None),
            (arrow("spec", "tensor", false), Some("spec -> tensor is not allowed")),
            (arrow("spec", "tensor", true), Some("stands above")),
            (arrow("cli", "spec", true), None),
            (arrow("new", "spec", false), Some("new has no line")),
            (arrow("spec", "spec", false), None),
        ];
        for (case, expected) in cases {
            let found = crate_complaints(&allowed, &[case]);
            assert_eq!(found.len(), usize::from(expected.is_some()), "{found:?}");
            assert!(expected.is_none_or(|e| found[0].contains(e)), "{found:?}");
        }
    }

    fn circle(files: &[(&str, &str)]) -> Option<String> {
        let mut modules = Modules::default();
        for (path, text) in files {
            let path: Vec<String> = path.split("::").filter(|p| !p.is_empty()).map(str::to_string).collect();
            modules.insert(path.clone(), format!("{}.rs", path.join("/")), text);
        }
        modules.circle()
    }

    #[test]
    fn circles_are_found_in_every_way_of_writing_them() {
        let root = ("", "mod a; mod b; pub use b::{B, c as d}; pub use b::*;");
        let towards_b = [
            "use crate::b::B;",
            "use crate::{x, b::{self, C}};",
            "use super::b as other;",
            "use crate::B;",
            "use crate::d;",
            "use crate::by_glob;",
            "fn f() -> crate::b::B { g() }",
            "mod inner { use super::super::b::B; }",
            "pub(crate) use super::b::*;",
        ];
        for text in towards_b {
            let found = circle(&[root, ("a", text), ("b", "\nuse crate::a::A; fn by_glob() {} struct B;")]);
            assert!(found.as_ref().is_some_and(|f| f.contains("b uses a (b.rs:2)")), "{text}: {found:?}");
        }
    }

    #[test]
    fn what_is_no_circle_is_left_alone() {
        let root = "mod a; mod b; pub use a::A; use crate::b::B; fn f() { a::g() }";
        let harmless = [
            "struct B;",
            "#[cfg(test)] mod tests { use crate::a::A; }",
            "// use crate::a::A;",
            "fn f() -> &'static str { \"crate::a\" }",
            "use super::helper_of_the_root;",
            "use std::a::A; mod inner { use super::B; } pub(crate) fn f(self) { self.a() }",
        ];
        for text in harmless {
            assert_eq!(
                circle(&[("", root), ("a", "use crate::b::B; use crate::f; use super::*;"), ("b", text)]),
                None,
                "{text}"
            );
        }
        // A folder's module may use the files below it and hand its own types down to them.
        let ops = [
            ("", "mod ops;"),
            ("ops", "mod cpu; use self::cpu::run; struct Shape;"),
            ("ops::cpu", "use super::Shape;"),
        ];
        assert_eq!(circle(&ops), None);
    }

    #[test]
    fn longer_circles_are_told_step_by_step() {
        let found = circle(&[
            ("", ""),
            ("a", "use crate::b::x;"),
            ("b", "use crate::c::y;"),
            ("c", "use crate::a::z;"),
            ("d", "use crate::a::z;"),
        ]);
        let expected = "a uses b (a.rs:1), b uses c (b.rs:1), c uses a (c.rs:1)";
        assert!(found.as_ref().is_some_and(|f| f.contains(expected)), "{found:?}");
    }
}
