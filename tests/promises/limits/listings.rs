//! Listings of large directories, asked for by many at once, and kept only as long as they are right.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt, symlink};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::harness::{get, wait_until};
use support::process::PATIENCE;

use super::Bed;

const NAMES: usize = 10_000;

#[test]
fn many_who_list_a_large_directory_keep_a_small_file_waiting_for_a_moment_only() {
    let bed = Bed::make();
    let many = bed.path("root/many");
    std::fs::create_dir(&many).expect("ours");
    for n in 0..NAMES {
        File::create(many.join(format!("a file with a name of usual length, number {n}"))).expect("ours");
    }
    bed.file("small", "small");
    let server = bed.start(1024, &["--directory-listing"]);
    let addr = server.address();
    let listing = b"GET /many/ HTTP/1.1\r\nhost: t\r\n\r\n".repeat(19);
    let last = b"GET /many/ HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n";
    let asked = [&listing[..], last].concat();
    let began = Instant::now();
    let readers: Vec<_> = (0..60)
        .map(|_| {
            let mut stream = TcpStream::connect(addr).expect("the server listens");
            stream.set_read_timeout(Some(3 * PATIENCE)).expect("a timeout");
            stream.write_all(&asked).expect("the server reads");
            std::thread::spawn(move || {
                let (mut chunk, mut all) = (vec![0; 1 << 20], 0);
                loop {
                    match stream.read(&mut chunk).expect("an answer") {
                        0 => return all,
                        n => all += n,
                    }
                }
            })
        })
        .collect();
    let (mut longest, mut asked) = (Duration::ZERO, 0);
    while readers.iter().any(|reader| !reader.is_finished()) {
        let began = Instant::now();
        assert!(get(addr, "/small").ends_with("small"));
        longest = longest.max(began.elapsed());
        asked += 1;
    }
    let bytes: usize = readers.into_iter().map(|reader| reader.join().expect("it reads")).sum();
    println!(
        "{bytes} bytes of listings in {:?}; {asked} small files, the slowest {longest:?}",
        began.elapsed()
    );
    assert!(bytes > 60 * 20 * NAMES * 50, "{bytes} bytes");
    // A build without optimization, beside other tests and 60 readers on the same cores, is given more time.
    let most = Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 200 });
    assert!(longest < most, "{longest:?}");
}

#[test]
fn a_listing_is_right_although_it_is_kept() {
    let bed = Bed::make();
    let (dir, target) = (bed.path("root/dir"), bed.path("root/target"));
    std::fs::create_dir(&dir).expect("ours");
    std::fs::create_dir(bed.path("root/plain")).expect("ours");
    File::create(dir.join("file")).expect("ours");
    File::create(&target).expect("ours");
    symlink(&target, dir.join("link")).expect("ours");
    let server = bed.start(1024, &["--directory-listing"]);
    let addr = server.address();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let changed = |name: &str| std::fs::metadata(bed.path(name)).expect("ours").ctime().unsigned_abs();
    // From then on the page for a directory that stays as it is is kept.
    wait_until("both are old", &server, || now() > changed("root/dir").max(changed("root/plain")) + 3);
    let lists = |dir: &str, name: &str| get(addr, dir).contains(&format!("<a href=\"{name}\">"));
    assert!(lists("/dir/", "link") && !lists("/plain/", "new"));
    // Another name is seen at once, and so is one less.
    File::create(bed.path("root/plain/new")).expect("ours");
    assert!(lists("/plain/", "new"));
    std::fs::remove_file(bed.path("root/plain/new")).expect("ours");
    assert!(!lists("/plain/", "new"));
    // What a link points to, within a moment.
    std::fs::remove_file(&target).expect("ours");
    std::fs::create_dir(&target).expect("ours");
    let began = Instant::now();
    wait_until("the link leads to a directory", &server, || lists("/dir/", "link/"));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // An index is served instead, also where a page is kept.
    assert!(lists("/plain/", "../"));
    std::fs::write(bed.path("root/plain/index.html"), "index").expect("ours");
    assert!(get(addr, "/plain/").ends_with("index"));
}
