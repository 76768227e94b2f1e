//! A successor refuses a broken config, and its own error message reaches each of the three ways to ask for a reload: the
//! command, the admin address and the signal.

use nix::sys::signal::Signal;
use support::harness::{Traffic, wait_until};
use support::load::Clients;
use support::process::signal;

use super::Operated;

const MISTAKE: &str = "config.toml:2:11: standby: cannot use";

#[test]
fn every_way_to_ask_for_a_reload_reports_why_the_config_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = dir.path().join("config.toml");
    let say = |text: &str| std::fs::write(&config, text).expect("writable");
    say("# nothing yet\n");
    let it = Operated::start(&["--admin=127.0.0.1:0", "--config", config.to_str().expect("UTF-8")]);
    let traffic = Traffic::start(it.address(), Clients::Fresh, 4);
    say("# a mistake\nstandby = \"soon\"\nstop-delay = \"0s\"\n");

    it.ask(&["reload"]).assert(1, &["exit status: 1", MISTAKE, "goes on serving"]);
    let admin = it.server.addresses(1)[1];
    let (status, body) = crate::admin::ask(admin, "POST", "/reload", "");
    let said: serde_json::Value = serde_json::from_str(&body).expect("JSON");
    let words = said["stderr"].to_string();
    assert!(status == 500 && words.contains("standby: cannot use"), "{status} {body}");
    signal(it.server.first_pid(), Signal::SIGHUP);
    wait_until("the log names the mistake a third time", &it.server, || {
        it.server.log().lines().iter().filter(|line| line.message().contains(MISTAKE)).count() == 3
    });

    say("# mended\nstop-delay = \"0s\"\n");
    it.ask(&["reload"]).assert(0, &["generation 2, pid", "serves"]);
    traffic.stop_lossless(&it.server);
}
