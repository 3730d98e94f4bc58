//! Writes a model that follows a script, for tests of clients: it thinks `ab`, answers `8*3`, has a context of 65,536 tokens, and
//! says whatever a grammar leaves it. Where a request says nothing else it takes the most likely token, so that tests repeat.
//! Given a file with a JSON list of lines, its n-th answer in a conversation with tools is the n-th line, a call if it has the form of
//! one, and its context has 131,072 tokens.
//!
//! `cargo run --profile checked -p minke-server --example scripted_model FOLDER [LINES]`

#[path = "../../chat/tests/common/mod.rs"]
mod scripted;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| ".".into());
    let folder = std::path::Path::new(&folder);
    let model = match arguments.next() {
        None => scripted::scholar(folder),
        Some(path) => {
            let text = std::fs::read_to_string(path).expect("the file of lines can be read");
            let lines: Vec<String> = serde_json::from_str(&text).expect("a JSON list of lines");
            scripted::lines::write(folder, "lines", &lines.iter().map(String::as_str).collect::<Vec<_>>())
        }
    };
    std::fs::write(model.join("generation_config.json"), r#"{"do_sample": false}"#).expect("the folder was just made");
    println!("{}", model.display());
}
