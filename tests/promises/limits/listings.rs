//! Listings of large directories: many concurrent requests, and a cache that is never stale.

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
    std::fs::create_dir(&many).expect("writable");
    for n in 0..NAMES {
        File::create(many.join(format!("a file with a name of usual length, number {n}"))).expect("writable");
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
    // An unoptimized build, which shares its cores with other tests and 60 readers, gets more time.
    let most = Duration::from_millis(if cfg!(debug_assertions) { 1000 } else { 200 });
    assert!(longest < most, "{longest:?}");
}

#[test]
fn a_listing_is_right_although_it_is_kept() {
    let bed = Bed::make();
    let (dir, target) = (bed.path("root/dir"), bed.path("root/target"));
    std::fs::create_dir(&dir).expect("writable");
    std::fs::create_dir(bed.path("root/plain")).expect("writable");
    File::create(dir.join("file")).expect("writable");
    File::create(&target).expect("writable");
    symlink(&target, dir.join("link")).expect("writable");
    let server = bed.start(1024, &["--directory-listing"]);
    let addr = server.address();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let changed = |name: &str| std::fs::metadata(bed.path(name)).expect("it exists").ctime().unsigned_abs();
    // From then on the server caches the page of a directory that does not change.
    wait_until("the changes are old", &server, || now() > changed("root/dir").max(changed("root/plain")) + 3);
    let lists = |dir: &str, name: &str| get(addr, dir).contains(&format!("<a href=\"{name}\">"));
    assert!(lists("/dir/", "link") && !lists("/plain/", "new"));
    // A new name appears at once, and a removed one disappears at once.
    File::create(bed.path("root/plain/new")).expect("writable");
    assert!(lists("/plain/", "new"));
    std::fs::remove_file(bed.path("root/plain/new")).expect("writable");
    assert!(!lists("/plain/", "new"));
    // A change of the target of a link appears within three seconds.
    std::fs::remove_file(&target).expect("writable");
    std::fs::create_dir(&target).expect("writable");
    let began = Instant::now();
    wait_until("the link leads to a directory", &server, || lists("/dir/", "link/"));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // An index file is served instead of a cached page.
    assert!(lists("/plain/", "../"));
    std::fs::write(bed.path("root/plain/index.html"), "index").expect("writable");
    assert!(get(addr, "/plain/").ends_with("index"));
}
