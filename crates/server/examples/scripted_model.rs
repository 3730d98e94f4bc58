//! Writes a model that follows a script, for tests of clients: it thinks `ab`, answers `8*3`, has a context of 65,536 tokens, and
//! says whatever a grammar leaves it. Where a request says nothing else it takes the most likely token, so that tests repeat.
//!
//! `cargo run --profile checked -p minke-server --example scripted_model FOLDER`

#[path = "../../chat/tests/common/mod.rs"]
mod scripted;

fn main() {
    let folder = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let model = scripted::scholar(std::path::Path::new(&folder));
    std::fs::write(model.join("generation_config.json"), r#"{"do_sample": false}"#).expect("the folder was just made");
    println!("{}", model.display());
}
