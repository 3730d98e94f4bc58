//! `path = "-"`: what is learned from standard input is what is learned from a file with the same bytes, and a run that goes on gets the
//! same bytes or is refused.
#![allow(clippy::unwrap_used)]

mod support;

use std::path::Path;

use minke_train::{Bases, Error, RunConfig, Silent, execute_with};

const CONVERSATIONS: &str = r#"{"messages":[{"role":"user","content":"make 7 from 3 4"},{"role":"assistant","content":"3+4"}]}
{"messages":[{"role":"user","content":"make 5 from 9 4"},{"role":"assistant","content":"9-4"}]}
"#;

fn run(path: &str) -> RunConfig {
    support::run(&format!(
        "[[stage]]\nkind = \"pretrain\"\nname = \"base\"\nsteps = 2\ntraining = {{ batch_tokens = 256 }}\n\
         [[stage]]\nkind = \"sft\"\nname = \"tuned\"\nfrom = \"base\"\nepochs = 2\n\
         data = [{{ kind = \"file\", path = {path:?} }}]\ntraining = {{ batch_tokens = 256 }}\n"
    ))
}

fn execute(path: &str, stdin: Option<&str>, out: &Path) -> Result<(), Error> {
    let mut bases = Bases::default();
    if let Some(text) = stdin {
        bases.set_stdin(text.into()).unwrap();
    }
    execute_with(&run(path), &bases, out, &support::device(), None, &mut Silent)
}

fn weights(out: &Path) -> Vec<u8> {
    std::fs::read(out.join("stages/tuned/model/model.safetensors")).unwrap()
}

#[test]
fn standard_input_is_as_good_as_a_file() {
    assert!(run("-").reads_stdin() && !run("data.jsonl").reads_stdin());
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let [file, stdin] = folders.each_ref().map(|folder| folder.path());
    let path = file.join("data.jsonl");
    std::fs::write(&path, CONVERSATIONS).unwrap();
    execute(path.to_str().unwrap(), None, file).unwrap();
    execute("-", Some(CONVERSATIONS), stdin).unwrap();
    assert_eq!(weights(file), weights(stdin));

    // Again with the same, with other data, with none, with what is no text.
    execute("-", Some(CONVERSATIONS), stdin).unwrap();
    let message = |text: Option<&str>, out: &Path| execute("-", text, out).unwrap_err().to_string();
    let other = CONVERSATIONS.replace("9-4", "4+1");
    let refused = message(Some(&other), stdin);
    assert!(refused.contains("run.json: the run was begun with other data on standard input"), "{refused}");
    for nothing in [None, Some("")] {
        let refused = message(nothing, stdin);
        assert!(refused.starts_with("stage tuned: learns from standard input, and nothing was given"), "{refused}");
    }
    let refused = Bases::default().set_stdin(vec![b'{', 0xff]).unwrap_err().to_string();
    assert_eq!(refused, "standard input: is no UTF-8 at byte 1; give JSON Lines");

    // A line that is no conversation is named.
    let fresh = tempfile::tempdir().unwrap();
    let broken = format!("{CONVERSATIONS}{{\"message\": []}}\n");
    let refused = message(Some(&broken), fresh.path());
    assert!(refused.starts_with("standard input: line 3: ") && !refused.contains('\n'), "{refused}");
}
