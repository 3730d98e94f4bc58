//! The checks by reading of `cargo xtask check`, so that plain `cargo test` makes them too.

use anyhow::Result;
use std::path::Path;

fn check(reading: fn(&Path) -> Result<Vec<String>>) {
    let complaints = reading(&xtask::root()).expect("the check could run");
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn crates_and_modules_use_only_what_the_architecture_allows() {
    check(xtask::layers::complaints);
}

#[test]
fn unsafe_features_and_environment_stay_in_their_places() {
    check(xtask::quarantine::complaints);
}

#[test]
fn the_paper_map_is_complete_and_fresh() {
    check(xtask::paper_map::complaints);
}

#[test]
fn every_file_of_the_test_data_says_where_it_comes_from() {
    check(xtask::golden::complaints);
}

#[test]
fn every_path_that_a_page_names_exists() {
    check(xtask::pages::complaints);
}
