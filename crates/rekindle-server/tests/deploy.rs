//! What is shipped to deploy the server: the systemd unit and the container.

use std::{path::Path, process::Command};

use clap::Parser;
use rekindle_server::cli::Cli;

const UNIT: &str = include_str!("../../../deploy/rekindle.service");
const DOCKERFILE: &str = include_str!("../../../Dockerfile");

#[test]
fn the_unit_and_the_container_start_the_server_by_its_command_line() {
    let command = UNIT.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    Cli::try_parse_from(command.split(' ')).unwrap();
    let json = |key| {
        let line = DOCKERFILE.lines().find_map(|line| line.strip_prefix(key)).unwrap();
        serde_json::from_str::<Vec<String>>(line).unwrap()
    };
    Cli::try_parse_from([json("ENTRYPOINT "), json("CMD ")].concat()).unwrap();
    // What its comments tell to type, behind the image's name.
    let typed: Vec<&str> =
        DOCKERFILE.lines().filter_map(|line| line.split_once("\" rekindle ")).map(|(_, args)| args).collect();
    assert_eq!(typed.len(), 1);
    for args in typed {
        Cli::try_parse_from(["rekindle"].into_iter().chain(args.split(' '))).unwrap();
    }
}

/// Where systemd is not installed, nobody uses the unit.
#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let unit = dir.path().join("rekindle.service");
    // The unit names a binary and a user that this machine does not have.
    let here = UNIT.replace("/usr/local/bin/rekindle", "/bin/true");
    std::fs::write(&unit, here.replace("User=rekindle", "User=root").replace("Group=rekindle", "Group=root")).unwrap();
    let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let about_it: Vec<&str> = said.lines().filter(|line| line.contains("rekindle.service")).collect();
    assert!(output.status.success() && about_it.is_empty(), "{said}");
}
