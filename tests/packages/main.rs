//! The packages as users get them: the number of crates that each brings, the build from the packed form, and the choice of a
//! crypto provider, which the library leaves to the program.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Makes the tests run one after the other, because cargo uses all cores.
fn alone() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn done(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    assert!(output.status.success(), "{command:?}:\n{}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A folder of the target directory that outlives the test, so that the next run compiles less.
fn place(name: &str) -> PathBuf {
    support::target_dir().join("packages").join(name)
}

/// Returns the number of crates that a build compiles into a program, including the package itself.
fn crates(args: &[&str]) -> usize {
    let output =
        done(support::cargo().args(["tree", "--locked", "-e", "normal", "--prefix", "none"]).args(args));
    let tree = String::from_utf8(output.stdout).expect("UTF-8");
    let crates: BTreeSet<_> = tree
        .lines()
        .filter_map(|line| Some(line.trim_end_matches(" (*)")).filter(|l| !l.is_empty()))
        .collect();
    crates.len()
}

#[test]
fn the_library_brings_few_crates() {
    let _alone = alone();
    let counts = [
        ("library", crates(&["-p", "handover"]), 50),
        ("library with tls", crates(&["-p", "handover", "--features", "tls"]), 60),
        ("binary", crates(&["-p", "handover-cli"]), 140),
    ];
    for (what, count, most) in counts {
        println!("{what}: {count} crates, at most {most}");
    }
    assert!(counts.iter().all(|(_, count, most)| count <= most), "{counts:?}");
}

/// Unpacks a `.crate` file, which makes a folder named after package and version.
fn unpack(packed: &Path, into: &Path) {
    done(Command::new("tar").arg("-xzf").arg(packed).arg("-C").arg(into));
}

/// Removes what cargo has unpacked of these packages from a registry without a name, which is the one that `cargo package` makes: cargo
/// keeps it for a version, even if the package has changed since.
fn forget_unpacked(packages: &[String]) {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let registries = home.and_then(|home| std::fs::read_dir(home.join("registry/src")).ok());
    let registries = registries.into_iter().flatten().flatten();
    for registry in registries.filter(|one| one.file_name().to_string_lossy().starts_with('-')) {
        // On the first run of a machine there is none.
        packages.iter().for_each(|package| drop(std::fs::remove_dir_all(registry.path().join(package))));
    }
}

#[test]
fn both_packages_build_from_what_is_packed() {
    let _alone = alone();
    // Empty, because cargo does not build a package of the same version again.
    let target = tempfile::tempdir_in(support::target_dir()).expect("the target directory is writable");
    let target = target.path();
    let name = |package: &str| format!("{package}-{}", env!("CARGO_PKG_VERSION"));
    forget_unpacked(&["handover", "handover-cli"].map(name));
    // `cargo package` also builds each package from its packed form, the binary with the packed library.
    let began = Instant::now();
    done(
        support::cargo()
            .args(["package", "--workspace", "--locked", "--allow-dirty", "--target-dir"])
            .arg(target),
    );
    println!("cargo package --workspace: {:.0?}", began.elapsed());

    let unpacked = tempfile::tempdir().expect("a directory");
    for package in ["handover", "handover-cli"] {
        unpack(&target.join("package").join(format!("{}.crate", name(package))), unpacked.path());
        let has = |file: &str| unpacked.path().join(name(package)).join(file).is_file();
        assert!(
            ["README.md", "LICENSE-MIT", "LICENSE-APACHE"].into_iter().all(has),
            "{package} lacks a file"
        );
    }
    let [library, binary] = ["handover", "handover-cli"].map(|package| unpacked.path().join(name(package)));
    let cold = tempfile::tempdir_in(place(".")).expect("writable");
    let began = Instant::now();
    done(support::cargo().args(["build", "--lib", "--target-dir"]).arg(cold.path()).current_dir(&library));
    println!("the library alone: {:.0?}", began.elapsed());
    let patch = format!("patch.crates-io.handover.path={:?}", library.to_str().expect("UTF-8"));
    done(
        support::cargo().args(["build", "--config", &patch, "--target-dir"]).arg(target).current_dir(&binary),
    );
    let said = done(Command::new(target.join("debug/handover")).arg("--version"));
    assert_eq!(
        String::from_utf8_lossy(&said.stdout).trim(),
        format!("handover {}", env!("CARGO_PKG_VERSION"))
    );
}

/// Returns the programs of a text, each with the dependencies that stand beside it.
fn programs(text: &str) -> Vec<(String, String)> {
    let mut blocks =
        text.split("\n```").skip(1).step_by(2).map(|block| block.split_once('\n').unwrap_or((block, "")));
    let mut programs = vec![];
    while let Some((kind, program)) = blocks.next() {
        if kind == "rust" {
            let beside = blocks.next();
            let dependencies =
                beside.filter(|(kind, text)| *kind == "toml" && text.starts_with("[dependencies]"));
            let (_, dependencies) =
                dependencies.unwrap_or_else(|| panic!("no [dependencies] beside {program}"));
            programs.push((program.to_owned(), dependencies.to_owned()));
        }
    }
    programs
}

#[test]
fn the_library_builds_with_every_program_of_the_readme_from_the_dependencies_beside_it() {
    let _alone = alone();
    let readme = std::fs::read_to_string(support::root().join("README.md")).expect("it is there");
    let programs = programs(&readme);
    assert!(programs.len() >= 3, "{programs:?}");
    let library = support::root();
    for (number, (program, dependencies)) in programs.iter().enumerate() {
        let project = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(project.path().join("src")).expect("writable");
        std::fs::write(project.path().join("src/main.rs"), program).expect("writable");
        let manifest = format!(
            "[package]\nname = \"readme-{number}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n{dependencies}\n\
             [patch.crates-io]\nhandover = {{ path = {library:?} }}\n\n[workspace]\n"
        );
        std::fs::write(project.path().join("Cargo.toml"), manifest).expect("writable");
        // The versions that are tested, as far as they are named there.
        std::fs::copy(library.join("Cargo.lock"), project.path().join("Cargo.lock")).expect("writable");
        let mut build = support::cargo();
        done(build.arg("build").current_dir(project.path()).arg("--target-dir").arg(place("readme")));
    }
}

#[test]
fn a_program_with_reqwest_as_it_comes_serves_tls() {
    let _alone = alone();
    let (target, manifest) = (place("reqwest"), support::root().join("tests/packages/reqwest/Cargo.toml"));
    let mut build = support::cargo();
    done(build.args(["build", "--locked", "--manifest-path"]).arg(manifest).arg("--target-dir").arg(&target));
    let dir = tempfile::tempdir().expect("a directory");
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("random numbers");
    let [cert, key] = ["cert.pem", "key.pem"].map(|name| dir.path().join(name));
    std::fs::write(&cert, made.cert.pem()).expect("writable");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("writable");
    let said = done(Command::new(target.join("debug/beside-reqwest")).arg(cert).arg(key));
    assert_eq!(String::from_utf8_lossy(&said.stdout), "hello over TLS\n");
}
