//! The files of a crate import each other in one direction only. Reads the sources: every `use` of
//! the crate's own modules, every path through `crate`, `self` or `super` in the code, and every
//! path into a module that the file declares. Tests in the sources do not count.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// The folders of the crates whose files import each other in one direction only.
const STRICT: &[&str] = &["installer"];

/// The folders of the crates in which a file and the modules that it declares may import each
/// other, as parts of one.
const BY_MODULE: &[&str] = &["agent", "controller-stub", "host", "protocol"];

#[test]
fn no_two_files_of_a_crate_import_each_other_by_whatever_way_around() {
    for folder in STRICT {
        let circles = circles_in(folder);
        assert!(circles.is_empty(), "circles in {folder}:\n{}", circles.join("\n"));
    }
}

#[test]
fn no_two_modules_of_a_crate_import_each_other_by_whatever_way_around() {
    for folder in BY_MODULE {
        let mut circles = circles_in(folder);
        circles.retain(|circle| !is_within_one_module(circle));
        assert!(circles.is_empty(), "circles in {folder}:\n{}", circles.join("\n"));
    }
    assert!(is_within_one_module("a -> a::b -> a::b::c -> a"));
    assert!(!is_within_one_module("a -> ab -> a") && !is_within_one_module("a::b -> a::c -> a::b"));
}

fn circles_in(folder: &str) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(folder).join("src");
    let files = files(&root);
    assert!(files.len() > 10, "{folder} has hardly any files; is this still its folder?");
    circles(&imports(&files))
}

/// Whether one file of the circle declares all others, itself or through them.
fn is_within_one_module(circle: &str) -> bool {
    let modules: Vec<&str> = circle.split(" -> ").collect();
    modules.iter().any(|top| {
        modules.iter().all(|module| {
            module == top || module.strip_prefix(top).is_some_and(|rest| rest.starts_with("::"))
        })
    })
}

#[test]
fn a_circle_is_found_however_the_import_is_written() {
    let of = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(module, text)| ((*module).to_owned(), (*text).to_owned())).collect();
        circles(&imports(&files))
    };
    let a = ("a", "use crate::b::Thing;\n");
    for back in [
        "use crate::a;",
        "use crate::{\n    a::{self, x},\n    c,\n};",
        "pub(crate) use super::a::x;",
        "fn f() { crate::a::x() }",
    ] {
        assert_eq!(of(&[a, ("b", back), ("c", "")]), ["a -> b -> a"], "{back}");
    }
    // By way of a third, and of a parent's own child.
    assert_eq!(
        of(&[a, ("b", "mod c;\nfn f() { c::x() }"), ("b::c", "use crate::a;")]),
        ["a -> b -> b::c -> a"]
    );
    assert_eq!(of(&[("b", "mod c;\nuse self::c::X;"), ("b::c", "use super::Y;")]), ["b -> b::c -> b"]);
    for forward in ["", "// use crate::a;\n", "#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n"] {
        assert_eq!(of(&[a, ("b", forward)]), Vec::<String>::new(), "{forward}");
    }
}

/// The text of each module's file, without comments and tests. The crate's root is the module without a name.
fn files(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if root.join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let module = path.with_extension("").to_str().unwrap().replace('/', "::");
                let is_test = module.split("::").any(|name| name == "tests");
                if !is_test && module != "main" {
                    let module = if module == "lib" { String::new() } else { module };
                    found.insert(module, fs::read_to_string(root.join(&path)).unwrap());
                }
            }
        }
    }
    found
}

/// Which modules each module imports.
fn imports(files: &BTreeMap<String, String>) -> BTreeMap<String, BTreeSet<String>> {
    files.iter().map(|(module, text)| (module.clone(), imports_of(module, text, files))).collect()
}

fn imports_of(module: &str, text: &str, files: &BTreeMap<String, String>) -> BTreeSet<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: String =
        text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let children = code
        .lines()
        .filter_map(|line| line.trim().strip_suffix(';')?.rsplit_once("mod "))
        .map(|(_, name)| name.to_owned());
    let starts: Vec<String> =
        ["crate", "self", "super"].map(str::to_owned).into_iter().chain(children).collect();
    let mut found = BTreeSet::new();
    let bytes = code.as_bytes();
    for (at, _) in code.match_indices("::") {
        let start =
            code[..at].rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |before| before + 1);
        let first = &code[start..at];
        if !starts.iter().any(|name| name == first) || start >= 2 && &bytes[start - 2..start] == b"::" {
            continue;
        }
        for path in paths(&mut code[start..].chars().peekable()) {
            if let Some(target) = resolve(module, &path, files).filter(|target| target != module) {
                found.insert(target);
            }
        }
    }
    found
}

/// All paths of a tree such as `crate::{a::{self, b}, c}`.
fn paths(text: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Vec<Vec<String>> {
    let mut path = Vec::new();
    loop {
        while text.next_if(|c| c.is_whitespace()).is_some() {}
        if text.next_if_eq(&'{').is_some() {
            let mut all = Vec::new();
            while text.peek().is_some_and(|c| *c != '}') {
                all.extend(paths(text).into_iter().map(|rest| [path.clone(), rest].concat()));
                while text.next_if(|c| *c != ',' && *c != '}').is_some() {}
                text.next_if_eq(&',');
                while text.next_if(|c| c.is_whitespace()).is_some() {}
            }
            text.next();
            return all;
        }
        let mut name = String::new();
        while let Some(c) = text.next_if(|c| c.is_alphanumeric() || *c == '_' || *c == '*') {
            name.push(c);
        }
        path.push(name);
        if !(text.next_if_eq(&':').is_some() && text.next_if_eq(&':').is_some()) {
            return vec![path];
        }
    }
}

/// The file in which `path`, written in `module`, finds its item.
fn resolve(module: &str, path: &[String], files: &BTreeMap<String, String>) -> Option<String> {
    let mut at: Vec<&str> = if module.is_empty() { Vec::new() } else { module.split("::").collect() };
    let mut names = path.iter().map(String::as_str).peekable();
    match *names.peek()? {
        "crate" => {
            at.clear();
            names.next();
        }
        "self" => drop(names.next()),
        // A child that the file declares.
        _ => {}
    }
    while names.next_if_eq(&"super").is_some() {
        at.pop();
    }
    for name in names {
        let child = [at.as_slice(), &[name]].concat();
        if !files.contains_key(&child.join("::")) {
            break;
        }
        at = child;
    }
    Some(at.join("::"))
}

/// One way around for each circle that a walk along the imports finds.
fn circles(imports: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    fn walk<'i>(
        at: &'i str,
        imports: &'i BTreeMap<String, BTreeSet<String>>,
        way: &mut Vec<&'i str>,
        done: &mut BTreeSet<&'i str>,
        found: &mut Vec<String>,
    ) {
        if let Some(begin) = way.iter().position(|before| *before == at) {
            let around =
                way[begin..].iter().chain([&at]).map(|name| if name.is_empty() { "lib" } else { name });
            found.push(around.collect::<Vec<_>>().join(" -> "));
            return;
        }
        if !done.insert(at) {
            return;
        }
        way.push(at);
        for next in imports.get(at).into_iter().flatten() {
            walk(next, imports, way, done, found);
        }
        way.pop();
    }
    let (mut done, mut found) = (BTreeSet::new(), Vec::new());
    for module in imports.keys() {
        walk(module, imports, &mut Vec::new(), &mut done, &mut found);
    }
    found
}
