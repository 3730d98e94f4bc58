//! Compares chat templates with transformers: reads the cases that `testdata/make/templates.py FOLDER` prints, renders each
//! with the template of the same folder, and prints how many differ, template by template.
//!
//! ```text
//! python3 testdata/make/templates.py FOLDER | cargo run -p minke-text --example render FOLDER
//! ```

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use minke_text::{ChatTemplate, Message, RenderOptions, SpecialTokens};
use serde_json::Value;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("give the folder of the templates")?;
    let mut templates: HashMap<String, minke_text::Result<ChatTemplate>> = HashMap::new();
    let mut differing: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let (mut compared, mut failed) = (0, 0);
    for line in std::io::stdin().lines() {
        let line = line?;
        let case: Value = serde_json::from_str(&line)?;
        let Some(expected) = case["rendered"].as_str() else {
            failed += 1;
            continue;
        };
        let name = case["template"].as_str().ok_or("a case has no template")?;
        let template = templates.entry(name.to_owned()).or_insert_with(|| {
            let special =
                SpecialTokens::new("<|bos|>", "<|eos|>").with("unk_token", "<unk>").with("pad_token", "<|pad|>");
            let source = std::fs::read(Path::new(&folder).join(name)).unwrap_or_default();
            ChatTemplate::new(String::from_utf8_lossy(&source), special)
        });
        // As they stand in the line: the order of their keys matters.
        let (_, after) = line.split_once("\"tools\": ").ok_or("a case has no tools")?;
        let (tools, _) = after.rsplit_once(", \"gen\": ").ok_or("a case has no gen")?;
        let options = RenderOptions {
            add_generation_prompt: case["gen"] == true,
            tools: (tools != "null").then(|| tools.to_owned()),
            thinking: case["think"].as_bool(),
        };
        let messages: Vec<Message> = serde_json::from_value(case["messages"].clone())?;
        let rendered = match template {
            Ok(template) => template.render_with(&messages, &options).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        compared += 1;
        if rendered.as_deref() != Ok(expected) {
            let how = rendered.err().unwrap_or_else(|| "another text".into());
            differing.entry(name.to_owned()).or_default().push(format!("{}: {how}", case["name"]));
        }
    }
    for (name, cases) in &differing {
        println!("{name}: {} differ, such as {}", cases.len(), cases[0]);
    }
    let all: usize = differing.values().map(Vec::len).sum();
    println!(
        "{compared} renderings of {} templates compared, {all} of {} templates differ; {failed} that transformers refuses",
        templates.len(),
        differing.len()
    );
    Ok(())
}
