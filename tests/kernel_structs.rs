//! Structs that Rust passes to a kernel by value, compared with the kernel's own field by field: a launch checks neither.

use std::fs;
use std::path::{Path, PathBuf};

/// A number or a pointer of a struct: its offset in bytes, the field's name, and its type as Rust spells it.
type Field = (usize, String, String);

/// A field as it is declared: name, type, how many of it, and whether it is an array.
struct Declared {
    name: String,
    kind: String,
    count: usize,
    array: bool,
}

fn files(folder: &Path, endings: &[&str], found: &mut Vec<(String, String)>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, endings, found);
        } else if path.extension().is_some_and(|e| endings.contains(&e.to_str().unwrap())) {
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
            found.push((name, fs::read_to_string(&path).unwrap()));
        }
    }
}

fn read(folder: &str, endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder), endings, &mut found);
    found
}

/// What stands between the braces of a struct that begins at the start of a line, without comments.
fn body(text: &str, name: &str) -> Option<String> {
    let begins = |line: &&str| line.strip_prefix("pub ").unwrap_or(line) == format!("struct {name} {{");
    let mut lines = text.lines();
    lines.find(begins)?;
    let within = lines.take_while(|line| !line.starts_with('}'));
    Some(within.map(|l| l.split("//").next().unwrap().trim()).collect::<Vec<_>>().join(" "))
}

/// A number, or a constant of that name in one of the texts, the nearest first.
fn length(text: &str, places: &[&str]) -> usize {
    let text = text.trim();
    let named = |place: &&str| {
        let found = [format!(" {text}: usize = "), format!(" {text} = ")].iter().find_map(|start| place.split_once(start)).map(|f| f.1);
        found.and_then(|rest| rest[..rest.find([';', ',']).unwrap()].trim().parse().ok())
    };
    text.parse().ok().or_else(|| places.iter().find_map(named)).unwrap_or_else(|| panic!("the length {text} is not known"))
}

/// `name: type, name: [type; length]` as the kernel's types are spelled in Rust.
fn rust_fields(body: &str, places: &[&str]) -> Vec<Declared> {
    let field = |field: &str| {
        let (name, kind) = field.split_once(':')?;
        let (kind, count) = match kind.trim().strip_prefix('[').and_then(|k| k.strip_suffix(']')).and_then(|k| k.split_once(';')) {
            Some((kind, count)) => (kind, Some(length(count, places))),
            None => (kind, None),
        };
        let kind = if kind.trim() == "DevicePtr" { "pointer" } else { kind.trim() }.to_string();
        let name = name.trim().rsplit(' ').next()?.to_string();
        Some(Declared { name, kind, count: count.unwrap_or(1), array: count.is_some() })
    };
    body.split(',').filter_map(field).collect()
}

/// `const float *a[N], *b[N]; int c, d;`
fn kernel_fields(body: &str, places: &[&str]) -> Vec<Declared> {
    let mut all = Vec::new();
    for line in body.split(';').map(str::trim).filter(|l| !l.is_empty()) {
        let line = line.trim_start_matches("const ");
        let end = line.find([' ', '*']).unwrap_or_else(|| panic!("{line:?} declares nothing"));
        let kind = match &line[..end] {
            "float" => "f32",
            "double" => "f64",
            "int" => "i32",
            "unsigned" => "u32",
            other => other,
        };
        for declared in line[end..].split(',') {
            let kind = if declared.contains('*') { "pointer" } else { kind }.to_string();
            let (name, count) = match declared.split_once('[') {
                Some((name, count)) => (name, Some(length(count.trim().trim_end_matches(']'), places))),
                None => (declared, None),
            };
            let name = name.replace('*', "").trim().to_string();
            all.push(Declared { name, kind, count: count.unwrap_or(1), array: count.is_some() });
        }
    }
    all
}

/// The numbers and pointers that fields are made of, each aligned to its size; `inner` has the fields of a struct within.
fn lay_out(fields: &[Declared], inner: &dyn Fn(&str) -> Vec<Declared>) -> Vec<Field> {
    let (mut all, mut end) = (Vec::new(), 0usize);
    for field in fields {
        for _ in 0..field.count {
            let size = match field.kind.as_str() {
                "pointer" | "f64" | "i64" | "u64" => 8,
                "f32" | "i32" | "u32" => 4,
                name => {
                    let within = lay_out(&inner(name), inner);
                    assert!(within.iter().all(|f| !["pointer", "f64", "i64", "u64"].contains(&&*f.2)), "{name} is aligned to four bytes");
                    all.extend(within.iter().map(|(at, inner, kind)| (end + at, format!("{}.{inner}", field.name), kind.clone())));
                    end += 4 * within.len();
                    continue;
                }
            };
            let at = end.next_multiple_of(size);
            all.push((at, if field.array { format!("{}[]", field.name) } else { field.name.clone() }, field.kind.clone()));
            end = at + size;
        }
    }
    all
}

/// What is not the same on both sides. A Rust array may stand for fields of other names, and `unused` fills up the end.
fn difference(rust: &[Field], kernel: &[Field]) -> Option<String> {
    let rust: Vec<&Field> = rust.iter().filter(|f| f.1 != "unused").collect();
    let differ = |(r, k): &(&&Field, &Field)| (r.0, &r.2) != (k.0, &k.2) || (r.1 != k.1 && (!r.1.ends_with("[]") || k.1.ends_with("[]")));
    let found = rust.iter().zip(kernel).find(differ).map(|(r, k)| format!("Rust has {r:?}, the kernel {k:?}"));
    let (a, b) = (rust.len(), kernel.len());
    found.or_else(|| (a != b).then(|| format!("Rust has {a} numbers and pointers, the kernel {b}")))
}

#[test]
fn structs_have_the_same_fields_on_both_sides() {
    let (rust, kernels) = (read("src", &["rs"]), read("kernels", &["cu", "cuh"]));
    let texts = |all: &[(String, String)]| all.iter().map(|(_, text)| text.clone()).collect::<Vec<_>>();
    let (rust_texts, kernel_texts) = (texts(&rust), texts(&kernels));
    let near = |folder: &str| rust.iter().filter(|(path, _)| path.starts_with(folder)).map(|(_, text)| &text[..]).collect::<Vec<&str>>();
    let rust_body = |name: &str| rust_texts.iter().filter(|t| t.contains(&format!("kernel_struct!({name});"))).find_map(|t| body(t, name));
    let kernel_body = |name: &str| kernel_texts.iter().find_map(|text| body(text, name));
    let mut seen = Vec::new();
    for (path, text) in rust.iter().filter(|(path, _)| !path.ends_with("kernel.rs")) {
        for name in text.split("kernel_struct!(").skip(1).filter_map(|rest| rest.split_once(");")).map(|(name, _)| name) {
            let places: Vec<&str> = [&text[..]].into_iter().chain(near(path.rsplit_once('/').unwrap().0)).collect();
            let fields = rust_fields(&rust_body(name).unwrap_or_else(|| panic!("{path}: no struct {name}")), &places);
            let kernel = kernel_body(name).unwrap_or_else(|| panic!("no kernel has a struct {name}"));
            let constants: Vec<&str> = kernel_texts.iter().map(String::as_str).collect();
            let rust_laid = lay_out(&fields, &|inner| rust_fields(&rust_body(inner).unwrap(), &[]));
            let kernel_laid =
                lay_out(&kernel_fields(&kernel, &constants), &|inner| kernel_fields(&kernel_body(inner).unwrap(), &constants));
            assert_eq!(difference(&rust_laid, &kernel_laid), None, "{name} of {path}");
            seen.push(name);
        }
    }
    assert!(seen.len() >= 8 && seen.contains(&"Window"), "{seen:?}");
}

#[test]
fn a_field_in_another_place_is_found() {
    let kernel = "struct S {\n    const float *mean[2], *var[2]; // (n)\n    int count;\n    float rate, other;\n}\n";
    let laid = |text: &str| lay_out(&kernel_fields(&body(text, "S").unwrap(), &[]), &|_| Vec::new());
    let right = "pub struct S {\n    mean: [DevicePtr; 2],\n    var: [DevicePtr; 2],\n    count: i32,\n    rate: f32,\n    other: f32,\n    unused: i32,\n}\n";
    let found = |rust: &str| difference(&lay_out(&rust_fields(&body(rust, "S").unwrap(), &[]), &|_| Vec::new()), &laid(kernel));
    assert_eq!(found(right), None);
    for (from, to) in [
        ("mean: [DevicePtr; 2],\n    var: [DevicePtr; 2]", "var: [DevicePtr; 2],\n    mean: [DevicePtr; 2]"),
        ("count: i32", "count: u32"),
        ("rate: f32,\n    other: f32", "other: f32,\n    rate: f32"),
        ("    count: i32,\n", ""),
        ("    unused: i32,\n", "    more: i32,\n"),
        ("var: [DevicePtr; 2]", "var: [DevicePtr; 3]"),
    ] {
        assert!(right.contains(from) && found(&right.replace(from, to)).is_some(), "{from}");
    }
}
