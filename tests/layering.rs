//! A module imports only from modules below it, and files stay short enough to be read.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the bottom to the top; those on one line do not know of each other.
const LAYERS: [&[&str]; 15] = [
    &["error"],
    &["base"],
    &["device"],
    &["ops"],
    &["ir"],
    &["pass"],
    &["exec"],
    &["selftest", "data"],
    &["weights"],
    &["models"],
    &["metrics"],
    &["report", "profile"],
    &["train"],
    &["experiment"],
    &["cli"],
];

/// Lines of a file.
const MOST: usize = 450;

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Every source file by its path below `src`, with its text.
fn sources() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    files(&src, &mut found);
    let name = |path: &Path| path.strip_prefix(&src).unwrap().to_str().unwrap().replace('\\', "/");
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// The code of a file without comments and without what is marked `#[cfg(test)]`; also the modules declared under that mark.
fn code(text: &str) -> (String, Vec<String>) {
    let (mut kept, mut test_modules) = (String::new(), Vec::new());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            kept += line.split("//").next().unwrap();
            kept.push('\n');
            continue;
        }
        let Some(item) = lines.next() else { break };
        let indent = &item[..item.len() - item.trim_start().len()];
        if item.ends_with('{') {
            lines.by_ref().find(|line| *line == format!("{indent}}}"));
        } else if let Some(name) = item.trim().strip_suffix(';').and_then(|i| i.rsplit_once("mod ")) {
            test_modules.push(name.1.to_string());
        }
    }
    (kept, test_modules)
}

/// The top-level modules that code names after `crate::`; macros live in no module.
fn named(code: &str) -> BTreeSet<String> {
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        if let Some(group) = rest.strip_prefix('{') {
            found.extend(group.split('}').next().unwrap().split(',').map(|part| word(part.trim())));
        } else if !rest[word(rest).len()..].starts_with('!') {
            found.insert(word(rest));
        }
    }
    found.remove("");
    found
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|names| names.contains(&module))
}

/// The imports against the order.
fn violations(sources: &[(String, String)]) -> Vec<String> {
    let mut tests: BTreeSet<String> = BTreeSet::new();
    for (path, text) in sources {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let inside = if path.ends_with("mod.rs") || !path.contains('/') { folder.to_string() } else { path.trim_end_matches(".rs").into() };
        for name in code(text).1 {
            tests.insert(format!("{inside}/{name}.rs"));
            tests.insert(format!("{inside}/{name}/mod.rs"));
        }
    }
    let mut wrong = Vec::new();
    for (path, text) in sources.iter().filter(|(path, _)| !tests.contains(path) && path != "lib.rs" && path != "main.rs") {
        let module = path.split('/').next().unwrap().trim_end_matches(".rs");
        let Some(own) = layer(module) else {
            wrong.push(format!("{path}: module {module} is not in the list of this test"));
            continue;
        };
        for other in named(&code(text).0).into_iter().filter(|other| other != module) {
            if layer(&other).is_some_and(|theirs| theirs >= own) {
                wrong.push(format!("{path} imports from {other}, which does not lie below {module}"));
            }
        }
    }
    wrong
}

#[test]
fn modules_import_from_below() {
    let wrong = violations(&sources());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_import_from_above_is_found() {
    let file = |path: &str, text: &str| (path.to_string(), text.to_string());
    let sources = [
        file("base/mod.rs", "#[cfg(test)]\nmod testing;\nuse crate::error::Error;\n"),
        file("base/testing.rs", "use crate::cli::run;\n"),
        file("base/shape.rs", "use crate::ir::Graph;\n"),
        file("report/svg.rs", "fn f(t: crate::profile::Times) {}\n"),
        file("stray.rs", ""),
    ];
    let found = violations(&sources);
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[0].starts_with("base/shape.rs imports from ir") && found[1].starts_with("report/svg.rs imports from profile"));
}

#[test]
fn files_can_be_read_in_one_go() {
    let lines =
        |(path, text): (String, String)| (text.lines().count() > MOST).then(|| format!("{path} has {} lines", text.lines().count()));
    let long: Vec<String> = sources().into_iter().filter_map(lines).collect();
    assert!(long.is_empty(), "more than {MOST} lines:\n{}", long.join("\n"));
}

#[test]
fn the_reader_of_imports_reads_imports() {
    let text = "use crate::error::Error; // crate::cli\nuse crate::{base, ops::Op};\n#[cfg(test)]\nmod tests {\n    use crate::cli;\n}\n\
                #[cfg(test)]\nmod testing;\ncrate::simd! {}\nfn f() -> crate::ir::Graph {}\n";
    let (code, tests) = code(text);
    assert_eq!(named(&code).into_iter().collect::<Vec<_>>(), ["base", "error", "ir", "ops"]);
    assert_eq!(tests, ["testing"]);
}
