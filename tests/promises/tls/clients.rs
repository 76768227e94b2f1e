//! Real clients with TLS across handovers: h2load, curl and openssl, where they are installed.

use std::process::{Command, Stdio};

use support::harness::{hand_over, skip};

use super::{Bed, Pair};
use crate::clients::{requests, run, text, version};

#[test]
fn h2load_loses_nothing_over_tls_in_ten_handovers() {
    if version("h2load").is_none() {
        return skip("h2load is not installed");
    }
    let bed = Bed::make();
    let server = bed.start(&[]);
    let url = format!("https://{}/", server.address());
    // Keep-alive connections over HTTP/1, and HTTP/2 by ALPN with many connections that send all their requests at once:
    // h2load counts requests as failed that it has not sent yet when GOAWAY arrives, which says nothing about the server.
    let loads: [&[&str]; 2] =
        [&["--h1", "-n", "20000", "-c", "20"], &["-n", "10000", "-c", "1000", "-r", "250", "-m", "10"]];
    let (mut pid, mut generation) = (server.first_pid(), 1);
    for load in loads {
        let began = generation;
        while generation < began + 10 {
            let load = run("h2load", &[load, &[&url]].concat());
            while !load.is_finished() {
                pid = hand_over(&server, generation, pid);
                generation += 1;
            }
            let output = load.join().expect("h2load was started");
            let summary = ["succeeded", "failed", "errored", "timeout"].map(|name| requests(&output, name));
            assert_eq!(summary[1..], [0, 0, 0], "{}\n{}", text(&output.stdout), server.log().history());
            assert!(summary[0] >= 10_000, "{}", text(&output.stdout));
        }
    }
}

#[test]
fn curl_gets_every_answer_over_https_without_trying_again() {
    if !version("curl").is_some_and(|version| version.contains("HTTP2")) {
        return skip("no curl that speaks HTTP/2 is installed");
    }
    let bed = Bed::make();
    let server = bed.start(&[]);
    let cert = bed.path("cert.pem");
    let (mut pid, mut generation) = (server.first_pid(), 1);
    for http in ["--http1.1", "--http2"] {
        let urls = format!("https://{}/?[1-800]", server.address());
        let flags = ["--fail", "--silent", "--show-error", "--verbose", "--rate", "400/s", http, "--cacert"];
        let curl = run("curl", &[&flags[..], &[cert.to_str().expect("UTF-8"), &urls]].concat());
        while !curl.is_finished() {
            pid = hand_over(&server, generation, pid);
            generation += 1;
        }
        let output = curl.join().expect("curl was started");
        let (answers, said) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(answers.lines().filter(|line| line.starts_with("generation=")).count(), 800, "{said}");
        assert!(!said.contains("retrying"), "{said}");
    }
}

#[test]
fn openssl_sees_the_new_certificate_after_a_handover() {
    if version("openssl").is_none() {
        return skip("openssl is not installed");
    }
    let bed = Bed::make();
    let server = bed.start(&[]);
    let shown = || {
        let address = server.address().to_string();
        let mut client = Command::new("openssl");
        client.args(["s_client", "-connect", &address, "-showcerts"]).stdin(Stdio::null());
        text(&client.stderr(Stdio::null()).output().expect("it is installed").stdout)
    };
    // Compares one line of the signature: rcgen and openssl both write lines of 64 characters, with different line ends.
    let body = |pem: &str| pem.lines().nth_back(2).map(|line| line.trim().to_owned()).expect("base64");
    let (before, after) = (body(&bed.pair.cert), Pair::new());
    assert!(shown().contains(&before));
    bed.install(&after);
    assert!(shown().contains(&before), "the certificate was read again after the start");
    hand_over(&server, 1, server.first_pid());
    let now = shown();
    assert!(now.contains(&body(&after.cert)) && !now.contains(&before), "{now}");
}
