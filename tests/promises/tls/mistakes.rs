//! Each mistake with a certificate or key gives one clear error line; a certificate that only clients reject is a warning.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use support::harness::{QUICK, hand_over, playground};
use support::process::{Server, command};

use super::{Bed, Pair, begin};
use crate::HANDOVER;

fn finish(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("it starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

impl Bed {
    fn check(&self) -> (Option<i32>, String, String) {
        finish(self.with_files(command(HANDOVER)).arg("--check"))
    }

    /// Asserts that a start and a check both fail with one line that has all these words.
    fn assert_refused(&self, words: &[&str]) {
        let mut start = self.with_files(command(HANDOVER));
        for (code, _, error) in [self.check(), finish(start.args(["--listen", "127.0.0.1:0"]))] {
            assert_eq!((code, error.lines().count()), (Some(1), 1), "{error}");
            words.iter().for_each(|word| assert!(error.contains(word), "{word:?} is missing: {error}"));
        }
    }
}

#[test]
fn each_unusable_file_is_named_with_what_is_wrong() {
    let bed = Bed::make();
    let (cert, key) = (bed.pair.cert.clone(), bed.pair.key.clone());
    let der = &bed.pair.certificate;
    let broken = cert.replacen("MII", "!!!", 1);
    let cases: [(&[u8], &[u8], &[&str]); 8] = [
        (b"garbage", key.as_bytes(), &["cert.pem", "no -----BEGIN CERTIFICATE-----"]),
        (b"", key.as_bytes(), &["cert.pem", "no -----BEGIN CERTIFICATE-----"]),
        (der, key.as_bytes(), &["cert.pem", "no -----BEGIN CERTIFICATE-----"]),
        (broken.as_bytes(), key.as_bytes(), &["cert.pem", "PEM is broken"]),
        (key.as_bytes(), cert.as_bytes(), &["cert.pem", "no -----BEGIN CERTIFICATE-----"]),
        (cert.as_bytes(), b"garbage", &["key.pem", "no -----BEGIN PRIVATE KEY-----"]),
        (
            cert.as_bytes(),
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            &["key.pem", "encrypted"],
        ),
        (
            cert.as_bytes(),
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            &["key.pem", "key"],
        ),
    ];
    for (cert, key, words) in cases {
        bed.file("cert.pem", cert);
        bed.file("key.pem", key);
        bed.assert_refused(words);
    }
    bed.file("cert.pem", &cert);
    bed.file("key.pem", Pair::new().key);
    bed.assert_refused(&["key.pem", "cert.pem", "does not belong to the first certificate"]);
    std::fs::remove_file(bed.path("key.pem")).expect("writable");
    bed.assert_refused(&["key.pem", "no such file"]);
    std::fs::create_dir(bed.path("key.pem")).expect("writable");
    bed.assert_refused(&["key.pem", "no regular file"]);
}

#[test]
fn one_file_without_the_other_is_a_mistake_wherever_it_was_named() {
    let bed = Bed::make();
    for (flag, file, other) in
        [("--tls-cert", "cert.pem", "--tls-key"), ("--tls-key", "key.pem", "--tls-cert")]
    {
        let (code, _, error) = finish(command(HANDOVER).arg(flag).arg(bed.path(file)));
        assert!(code == Some(1) && error.contains(file) && error.contains(other), "{error}");
        bed.file("handover.toml", format!("{} = {:?}\n", &flag[2..], bed.path(file)));
        let (code, _, error) = finish(command(HANDOVER).arg("--config").arg(bed.path("handover.toml")));
        assert!(code == Some(1) && error.contains("handover.toml:1:") && error.contains(other), "{error}");
    }
    // The config file may name one of the two, and a flag the other.
    let mut both = command(HANDOVER);
    both.arg("--config").arg(bed.path("handover.toml")).arg("--tls-cert").arg(bed.path("cert.pem"));
    let (code, said, error) = finish(both.arg("--check"));
    assert!(code == Some(0) && said.contains("with TLS"), "{said}{error}");
}

#[test]
fn an_expired_certificate_is_served_with_a_warning_by_a_successor_too() {
    let bed = Bed::make();
    let server = Server::start(bed.with_files({
        let mut served = command(HANDOVER);
        served.args(QUICK);
        served
    }));
    let expired = Pair::until(2001);
    bed.install(&expired);
    let (code, said, warned) = bed.check();
    assert!(code == Some(0) && said.contains("with TLS"), "{said}");
    assert!(warned.contains("WARN") && warned.contains("expired on Mon, 01 Jan 2001"), "{warned}");
    hand_over(&server, 1, server.first_pid());
    let warning = server.log().wait_for("expired on");
    assert_eq!((&warning.json["level"], warning.generation()), (&"WARN".into(), 2), "{}", warning.text);
    let mut client = begin(server.address(), &expired.config(&[]).into());
    let refused = client.0.conn.complete_io(&mut client.0.sock).expect_err("clients check the date");
    assert!(refused.to_string().contains("expired"), "{refused}");
}

#[test]
fn a_key_that_all_users_may_read_is_a_warning_and_one_for_a_group_is_not() {
    let bed = Bed::make();
    for (mode, warns) in [(0o600, false), (0o640, false), (0o644, true)] {
        std::fs::set_permissions(bed.path("key.pem"), PermissionsExt::from_mode(mode)).expect("writable");
        let (code, _, said) = bed.check();
        assert_eq!(
            (code, said.contains("WARN") && said.contains("chmod 600")),
            (Some(0), warns),
            "{mode:o}: {said}"
        );
    }
}

#[test]
fn keys_of_every_kind_that_openssl_writes_are_read() {
    if crate::clients::version("openssl").is_none() {
        return support::harness::skip("openssl is not installed");
    }
    let bed = Bed::make();
    let kinds = [
        "genrsa -traditional -out key.pem 2048",
        "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem",
        "ecparam -name prime256v1 -genkey -out key.pem",
        "ecparam -name secp384r1 -genkey -noout -out key.pem",
        "genpkey -algorithm ed25519 -out key.pem",
    ];
    for kind in kinds {
        for words in [kind, "req -x509 -new -key key.pem -subj /CN=localhost -days 3 -out cert.pem"] {
            let done = Command::new("openssl").args(words.split(' ')).current_dir(bed.dir.path()).output();
            assert!(done.as_ref().is_ok_and(|done| done.status.success()), "{words}: {done:?}");
        }
        let (code, _, error) = bed.check();
        assert_eq!((code, &*error), (Some(0), ""), "{kind}");
    }
    drop(Server::start(bed.with_files(playground(&[]))));
}
