//! The structure of the sources: the modules of a package do not depend on each other in a cycle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

type Graph = BTreeMap<String, BTreeSet<String>>;

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a folder").flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// Returns the top-level module to which a file belongs.
fn module(root: &Path, file: &Path) -> String {
    let below = file.strip_prefix(root).expect("it is below").with_extension("");
    below.iter().next().expect("it has a name").to_string_lossy().into_owned()
}

/// Strips the comments and the test module at the end.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Returns the names behind each occurrence of the prefix: `a` in `crate::a::B`, `a` and `b` in `crate::{a, b::C}`.
fn named<'a>(code: &'a str, prefix: &str) -> Vec<&'a str> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let first = |text: &'a str| text.split(|c| !is_name(c)).next().unwrap_or_default();
    let mut names = vec![];
    for (at, _) in code.match_indices(prefix) {
        let (before, rest) = (&code[..at], &code[at + prefix.len()..]);
        if before.ends_with("super::") || before.ends_with(is_name) {
            continue;
        }
        match rest.strip_prefix('{').and_then(|rest| rest.split_once(';')) {
            Some((list, _)) => names.extend(list.split(',').map(|item| first(item.trim_start()))),
            None => names.push(first(rest)),
        }
    }
    names
}

/// Returns the modules that each module uses; `exclude` is the folder of another package.
fn graph(root: &Path, exclude: &str) -> Graph {
    let mut graph = Graph::new();
    for file in files(root) {
        let below = file.strip_prefix(root).expect("it is below");
        let is_rust = file.extension().is_some_and(|extension| extension == "rs");
        let is_test = below.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests"));
        if !is_rust || is_test || (!exclude.is_empty() && below.starts_with(exclude)) {
            continue;
        }
        let (of, text) = (module(root, &file), code(&fs::read_to_string(&file).expect("UTF-8")));
        let up = "super::".repeat(below.components().count());
        let of_root = named(&text, "crate::").into_iter().find(|name| name.starts_with(char::is_uppercase));
        assert!(of_root.is_none() || of == "lib", "{}: {of_root:?} has a module", file.display());
        let uses = named(&text, "crate::").into_iter().chain(named(&text, &up));
        let uses: Vec<_> =
            uses.filter(|name| *name != of && root.join(format!("{name}.rs")).exists()).collect();
        graph.entry(of).or_default().extend(uses.into_iter().map(str::to_owned));
    }
    graph.remove("lib");
    graph.remove("main");
    graph
}

/// Removes modules that depend on no remaining module, until none is left or the remaining ones form a cycle.
fn circle(mut graph: Graph) -> Graph {
    loop {
        let is_free = |uses: &BTreeSet<String>| uses.iter().all(|name| !graph.contains_key(name));
        let free: Vec<_> =
            graph.iter().filter(|(_, uses)| is_free(uses)).map(|(name, _)| name.clone()).collect();
        if free.is_empty() {
            return graph;
        }
        free.iter().for_each(|name| drop(graph.remove(name)));
    }
}

#[test]
fn no_module_depends_on_one_that_depends_on_it() {
    for (root, exclude) in [("src", "cli"), ("src/cli", "")] {
        let graph = graph(&support::root().join(root), exclude);
        assert!(graph.len() > 10 && graph.values().flatten().count() > 15, "{graph:?}");
        let circle = circle(graph);
        assert!(circle.is_empty(), "{root}: {circle:#?}");
    }
}
