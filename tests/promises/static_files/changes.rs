//! Files that change before, while and after they are sent.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use support::harness::{Client, hand_over, wait_until};

use super::{Bed, Response, noise, read_all, request};

/// More than the kernel takes from the server for a client that does not read.
const LARGE: usize = 24 << 20;

#[test]
fn the_next_request_gets_the_new_version_however_a_file_was_changed() {
    let bed = Bed::start(&[]);
    let set_back = |bed: &Bed| {
        let file = File::options().write(true).open(bed.path("file")).expect("ours");
        file.set_modified(SystemTime::now() - Duration::from_secs(1000)).expect("ours");
    };
    let until = Instant::now() + Duration::from_secs(4);
    let (mut n, mut last_tag) = (0, String::new());
    while Instant::now() < until {
        n += 1;
        let content = format!("{n:08}");
        match n % 3 {
            0 => bed.replace("file", &content),
            1 => bed.write("file", &content),
            // An old file is one that the server may keep in memory.
            _ => {
                bed.write("file", &content);
                set_back(&bed);
            }
        }
        for _ in 0..3 {
            let response = bed.get("/file", &[]);
            assert_eq!(String::from_utf8_lossy(&response.body), content, "change {n}");
            assert_ne!(response.field("etag"), last_tag, "change {n}");
        }
        bed.get("/file", &[]).field("etag").clone_into(&mut last_tag);
    }
    fs::remove_file(bed.path("file")).expect("ours");
    assert_eq!(bed.get("/file", &[]).status(), 404);
    assert!(n > 100, "{n} changes only");
}

#[test]
fn a_file_that_is_kept_in_memory_is_as_new_as_any_other() {
    let bed = Bed::start(&[]);
    let names = ["replaced", "written", "set-back", "removed"];
    names.iter().for_each(|name| bed.write(name, "old"));
    let modified = fs::metadata(bed.path("set-back")).and_then(|about| about.modified()).expect("ours");
    // Only what has not changed for a while is kept.
    wait_until("the files are old enough", &bed.server, || {
        modified.elapsed().is_ok_and(|age| age > Duration::from_millis(3500))
    });
    for _ in 0..3 {
        names.iter().for_each(|name| assert_eq!(bed.get(&format!("/{name}"), &[]).body, b"old"));
    }
    bed.replace("replaced", "new");
    bed.write("written", "new");
    bed.write("set-back", "new");
    let file = File::options().write(true).open(bed.path("set-back")).expect("ours");
    file.set_modified(modified).expect("ours");
    fs::remove_file(bed.path("removed")).expect("ours");
    for name in &names[..3] {
        assert_eq!(bed.get(&format!("/{name}"), &[]).body, b"new", "{name}");
    }
    assert_eq!(bed.get("/removed", &[]).status(), 404);
}

#[test]
fn a_file_that_is_written_to_all_the_time_is_served() {
    let bed = Bed::start(&[]);
    let line = b"a line of the log\n";
    bed.write("log", "");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut log = File::options().append(true).open(bed.path("log")).expect("ours");
            while !done.load(Ordering::Relaxed) {
                // Starts anew before it is too large to be read at once.
                for _ in 0..3000 {
                    log.write_all(line).expect("writable");
                }
                log.set_len(0).expect("ours");
            }
        });
        let (mut served, mut refused) = (0, 0);
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            let response = bed.get("/log", &[]);
            let is_log = response.body.chunks(line.len()).all(|chunk| line.starts_with(chunk));
            assert!(is_log && response.is_whole(), "{}", response.head);
            if response.status() == 200 { served += 1 } else { refused += 1 }
        }
        done.store(true, Ordering::Relaxed);
        // It cannot be served while it is truncated at every look.
        assert!(served > 10 * refused, "{served} served, {refused} refused");
    });
}

#[test]
fn a_link_to_another_release_is_followed_with_the_next_request() {
    let bed = Bed::start(&[]);
    for release in ["1", "2"] {
        fs::create_dir(bed.path(release)).expect("writable");
        bed.write(&format!("{release}/version"), release);
    }
    for n in 0..50 {
        let release = if n % 2 == 0 { "1" } else { "2" };
        symlink(release, bed.path("draft")).expect("writable");
        fs::rename(bed.path("draft"), bed.path("current")).expect("writable");
        assert_eq!(bed.get("/current/version", &[]).body, release.as_bytes());
    }
}

/// A client that has got the head of a response and waits.
struct Slow(Client, Vec<u8>);

impl Slow {
    fn begin(bed: &Bed, target: &str) -> Slow {
        let mut client = Client::connect(bed.server.address());
        client.write(request(target, &[]));
        let mut first = vec![0; 1000];
        client.0.read_exact(&mut first).expect("the beginning");
        Slow(client, first)
    }

    fn finish(mut self) -> Response {
        self.1.extend(read_all(&mut self.0));
        Response::of(&self.1)
    }
}

#[test]
fn a_file_that_changes_while_it_is_sent_is_sent_as_it_was_or_the_client_can_tell() {
    type Change = fn(&Bed, &str);
    let old = noise(LARGE, 1);
    let changes: [(&str, bool, Change); 8] = [
        ("replaced", true, |bed, name| bed.replace(name, noise(LARGE, 2))),
        ("removed", true, |bed, name| fs::remove_file(bed.path(name)).expect("ours")),
        ("unreadable", true, |bed, name| {
            fs::set_permissions(bed.path(name), fs::Permissions::from_mode(0o000)).expect("ours");
        }),
        ("grown", true, |bed, name| {
            File::options()
                .append(true)
                .open(bed.path(name))
                .expect("ours")
                .write_all(b"more")
                .expect("writable");
        }),
        ("truncated", false, |bed, name| {
            File::options().write(true).open(bed.path(name)).expect("ours").set_len(10 << 20).expect("ours");
        }),
        ("written-shorter", false, |bed, name| bed.write(name, noise(LARGE - 1, 2))),
        ("written-anew", false, |bed, name| bed.write(name, noise(LARGE, 2))),
        ("written-longer", false, |bed, name| bed.write(name, noise(LARGE + 1, 2))),
    ];
    let bed = Bed::start(&[]);
    let mut slow = vec![];
    for (name, ..) in &changes {
        bed.write(name, &old);
        slow.push(Slow::begin(&bed, &format!("/{name}")));
    }
    for (name, _, change) in &changes {
        change(&bed, name);
    }
    for ((name, is_sent, _), slow) in changes.iter().zip(slow) {
        let response = slow.finish();
        assert_eq!(response.is_whole(), *is_sent, "{name}: {} bytes", response.body.len());
        if *is_sent {
            assert!(response.body == old, "{name}: other bytes");
        } else {
            let sent = response.body.len().min(old.len());
            assert!(response.body[..sent] == old[..sent], "{name}: mixed");
        }
    }
    // The server goes on.
    assert!(bed.get("/replaced", &[]).body == noise(LARGE, 2));
}

#[test]
fn a_slow_download_outlives_a_handover() {
    let bed = Bed::start(&["--drain-timeout", "20s"]);
    let content = noise(LARGE, 1);
    bed.write("file", &content);
    let slow: Vec<Slow> = (0..3).map(|_| Slow::begin(&bed, "/file")).collect();
    let second = hand_over(&bed.server, 1, bed.server.first_pid());
    let third = hand_over(&bed.server, 2, second);
    assert_ne!(third, second);
    for slow in slow {
        assert!(slow.finish().body == content);
    }
}

#[test]
fn a_link_that_is_swapped_during_requests_leads_to_one_of_its_targets() {
    let bed = Bed::start(&["--directory-listing"]);
    fs::create_dir(bed.path("inside")).expect("writable");
    bed.write("inside/file", "inside");
    let outside = bed.dir.path().join("outside");
    fs::create_dir(&outside).expect("writable");
    fs::write(outside.join("secret-name"), "outside").expect("writable");
    let made = std::process::Command::new("mkfifo").arg(bed.path("fifo")).status();
    assert!(made.is_ok_and(|status| status.success()), "mkfifo is part of coreutils");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (0..4).cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                let target = [bed.path("inside"), outside.clone(), bed.path("fifo"), bed.path("inside/file")]
                    [n]
                    .clone();
                symlink(target, bed.path("draft")).expect("writable");
                fs::rename(bed.path("draft"), bed.path("link")).expect("writable");
            }
        });
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            let file = bed.get("/link/file", &[]);
            assert!(file.status() == 404 || file.body == b"inside", "{}", file.head);
            let listing = bed.get("/link/", &[]);
            let listed = String::from_utf8_lossy(&listing.body).into_owned();
            assert!(!listed.contains("secret-name"), "a directory outside of ROOT is listed");
            let link = bed.get("/link", &[]);
            assert!(matches!(link.status(), 200 | 307 | 404), "{}", link.head);
        }
        done.store(true, Ordering::Relaxed);
    });
}

#[test]
fn a_directory_that_is_replaced_by_a_link_while_it_is_listed_shows_nothing_outside() {
    let bed = Bed::start(&["--directory-listing"]);
    let (inside, aside) = (bed.path("inside"), bed.path(".aside"));
    fs::create_dir(&inside).expect("writable");
    bed.write("inside/name", "");
    let outside = bed.dir.path().join("outside");
    fs::create_dir(&outside).expect("writable");
    (0..300).for_each(|n| fs::write(outside.join(format!("secret-name-{n}")), "").expect("writable"));
    let (done, mut listed) = (AtomicBool::new(false), 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                fs::rename(&inside, &aside).expect("writable");
                symlink(&outside, &inside).expect("writable");
                fs::remove_file(&inside).expect("writable");
                fs::rename(&aside, &inside).expect("writable");
            }
        });
        let until = Instant::now() + Duration::from_secs(6);
        while Instant::now() < until {
            let listing = bed.get("/inside/", &[]);
            let text = String::from_utf8_lossy(&listing.body);
            assert!(!text.contains("secret-name"), "a directory outside of ROOT is listed");
            listed += u32::from(listing.status() == 200);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert!(listed > 100, "{listed} listings");
}
