//! Conversations at a terminal: the program at a pseudo-terminal, and models that follow a script.
#![allow(clippy::unwrap_used)]
#![cfg(target_os = "linux")]

mod common;
mod terminal;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{circler, command, minke, scholar, talker, thinker, wanderer};
use terminal::Terminal;

/// How soon the prompt must be back after Ctrl-C.
const SOON: Duration = Duration::from_millis(200);

/// A text without what steers the terminal.
fn plain(text: &str) -> String {
    console::strip_ansi_codes(text).into_owned()
}

fn leave(mut terminal: Terminal) {
    terminal.send("\x04");
    assert_eq!(terminal.end(), 0);
}

/// The conversation as the terminal exports it.
fn exported(terminal: &mut Terminal, folder: &Path, name: &str) -> String {
    terminal.ask(&format!("/export {name}"));
    std::fs::read_to_string(folder.join(name)).unwrap()
}

#[test]
fn thoughts_are_shown_dim_folded_or_hidden() {
    let folder = tempfile::tempdir().unwrap();
    thinker(folder.path());
    let mut terminal = Terminal::talk(folder.path(), &["thinker"], &[]);
    let shown = terminal.ask("hello");
    assert!(shown.contains("\x1b[2mab\x1b[0m\n\n8*3\n"), "{shown:?}");
    assert!(shown.contains(" (thought 3 in 0.") && shown.contains("; context "), "{shown:?}");
    terminal.ask("/think fold");
    let folded = terminal.ask("hello");
    assert!(folded.contains("thought for 0 s, 3 tokens\n8*3\n") && !plain(&folded).contains("ab"), "{folded:?}");
    terminal.ask("/think hide");
    let hidden = terminal.ask("hello");
    assert!(hidden.contains("8*3\n") && !hidden.contains("ab"), "{hidden:?}");
    assert!(terminal.ask("/think last").contains("\x1b[2mab\x1b[0m\n"));
    leave(terminal);
    // Nothing is colored where NO_COLOR is set.
    let mut terminal = Terminal::talk(folder.path(), &["thinker"], &[("NO_COLOR", "1")]);
    let (shown, last) = (terminal.ask("hello"), terminal.ask("/think last"));
    assert!(shown.contains("ab\n\n8*3\n") && last.contains("ab\n"), "{shown:?}");
    assert!(![shown, last].concat().contains("\x1b[2m"));
    leave(terminal);
}

#[test]
fn a_folded_thought_is_one_line_of_any_terminal() {
    let folder = tempfile::tempdir().unwrap();
    wanderer(folder.path());
    let mut terminal = Terminal::talk(folder.path(), &["wanderer", "--think", "fold"], &[]);
    terminal.send("hello\r");
    terminal.expect("thinking... 0 s, ");
    terminal.resize(18);
    terminal.expect("thinking... 1 s,…");
    let narrow = terminal.expect("thinking... 2 s,…");
    assert!(narrow.split(['\r', '\n']).all(|line| console::measure_text_width(line) < 18), "{narrow:?}");
    terminal.send("\x03");
    let end = terminal.until_prompt();
    assert!(end.contains("thought for 2 s, ") && end.contains(" tokens\n"), "{end:?}");
}

#[test]
fn ctrl_c_gives_the_prompt_back_and_keeps_the_turn() {
    let folder = tempfile::tempdir().unwrap();
    wanderer(folder.path());
    talker(folder.path());
    let mut terminal = Terminal::talk(folder.path(), &["wanderer"], &[]);
    terminal.send(&format!("\x1b[200~{}\x1b[201~\r", "ab\n".repeat(10_000)));
    terminal.expect(" s left");
    let reading = terminal.interrupt();
    let text = exported(&mut terminal, folder.path(), "long.md");
    assert_eq!(text.matches("ab\n").count(), 10_000, "one message");
    assert!(text.ends_with("*(ended early: interrupted)*\n"));
    terminal.ask("/undo");
    terminal.send("hello\r");
    terminal.expect("\x1b[2m");
    std::thread::sleep(Duration::from_millis(100));
    let thinking = terminal.interrupt();
    let text = exported(&mut terminal, folder.path(), "thought.md");
    assert!(text.contains("<summary>Thought for") && text.contains("interrupted") && !text.contains("8*3"), "{text}");
    leave(terminal);

    let mut terminal = Terminal::talk(folder.path(), &["talker"], &[]);
    terminal.send(&format!("{}\r", "x".repeat(200)));
    terminal.expect("8*8*8*");
    let answering = terminal.interrupt();
    let text = exported(&mut terminal, folder.path(), "answer.md");
    assert!(text.contains("8*8*8*") && text.contains("interrupted"), "{text}");
    // The next turn starts from what is in the cache.
    terminal.send("hello\r");
    terminal.expect("8*8*8*");
    terminal.interrupt();
    let stats = terminal.ask("/stats");
    assert!(stats.contains(" 192 found in the cache"), "{stats}");
    println!("prompt {reading:?}, thought {thinking:?}, answer {answering:?}");
    // Other work on the machine can hold up one of them.
    let mut times = [reading, thinking, answering];
    times.sort();
    assert!(times[1] <= SOON && times[2] <= 5 * SOON, "{times:?}");
    leave(terminal);
}

#[test]
fn messages_have_many_lines_and_wide_characters() {
    let folder = tempfile::tempdir().unwrap();
    thinker(folder.path());
    let mut terminal = Terminal::talk(folder.path(), &["thinker"], &[]);
    terminal.resize(20);
    terminal.send("one\\\rtwo 你好\r");
    terminal.expect("; context ");
    terminal.send("\"\"\"\rthree\\\r\r  四 🐋🐋🐋🐋🐋🐋🐋🐋🐋🐋🐋🐋\r\"\"\"\r");
    terminal.expect("; context ");
    terminal.until_prompt();
    let text = exported(&mut terminal, folder.path(), "lines.md");
    for question in ["one\ntwo 你好", "three\\\n\n  四 🐋🐋🐋🐋🐋🐋🐋🐋🐋🐋🐋🐋"] {
        assert!(text.contains(&format!("## User\n\n{question}\n\n## Assistant\n")), "{text}");
    }
    // What does not fit is said with counts, and changes nothing.
    terminal.send(&format!("\x1b[200~{}\x1b[201~\r", "long\n".repeat(10_000)));
    let refused = terminal.expect("the context holds 256");
    assert!(refused.contains("nothing was asked: conversation and message have 50"), "{refused:?}");
    terminal.until_prompt();
    assert_eq!(exported(&mut terminal, folder.path(), "again.md"), text);
    leave(terminal);
    let history = std::fs::read_to_string(folder.path().join(".local/state/minke/history")).unwrap();
    assert!(history.contains("two 你好") && history.contains("/export again.md") && !history.contains("long"));
    let mut terminal = Terminal::talk(folder.path(), &["thinker"], &[]);
    terminal.send("\x1b[A\r");
    terminal.expect("again.md; nothing that exists is overwritten");
    leave(terminal);
}

#[test]
fn commands_change_the_conversation() {
    let folder = tempfile::tempdir().unwrap();
    wanderer(folder.path());
    std::fs::write(folder.path().join("note.txt"), "a note").unwrap();
    let editor = folder.path().join("editor");
    std::fs::write(&editor, "#!/bin/sh\nprintf edited > \"$1\"\n").unwrap();
    let editor = format!("sh {}", editor.display());
    let mut terminal = Terminal::talk(folder.path(), &["wanderer", "--think", "hide"], &[("EDITOR", &editor)]);
    assert!(terminal.ask("/hlep").contains("did you mean /help?"));
    assert!(terminal.ask("/set budgte 5").contains("did you mean budget?"));
    terminal.send("/hel\t\r");
    terminal.expect("/export FILE.md");
    terminal.until_prompt();
    terminal.ask("/set budget 5");
    terminal.ask("/set top_k 40");
    let settings = terminal.ask("/set");
    assert!(settings.contains("budget       5  ") && settings.contains("top_k        40\n"), "{settings}");
    terminal.ask("/system be brief");
    assert!(terminal.ask("/read note.txt").contains("tokens; they go in front"));
    let answer = terminal.ask("what is it?");
    assert!(answer.contains("its budget is spent") && answer.contains("8*3\n"), "{answer}");
    assert!(answer.contains(" (thought 5 in "), "{answer}");
    let context = terminal.ask("/ctx");
    assert!(context.contains("8 system\n") && context.contains("3 answer 1; its thought of 5"), "{context}");
    let text = exported(&mut terminal, folder.path(), "one.md");
    assert!(text.contains("## System\n\nbe brief\n") && text.contains("[file name]: note.txt\n"), "{text}");
    assert!(text.contains("a note\n[file content end]\nwhat is it?\n"), "{text}");
    assert!(terminal.ask("/edit").contains("8*3\n"));
    terminal.ask("/regen");
    let text = exported(&mut terminal, folder.path(), "two.md");
    assert!(text.contains("## User\n\nedited\n") && text.matches("## User").count() == 1, "{text}");
    assert!(terminal.ask("/undo").contains("taken back: edited"));
    assert!(terminal.ask("/undo").contains("there is no question yet"));
    terminal.ask("/new");
    assert_eq!(exported(&mut terminal, folder.path(), "three.md"), "# Conversation\n\n## System\n\nbe brief\n");
    leave(terminal);
}

#[test]
fn a_byte_that_is_not_utf_8_ends_no_conversation() {
    let folder = tempfile::tempdir().unwrap();
    thinker(folder.path());
    let refused = "nothing was asked: the line has a byte that is not UTF-8";
    for (what, typed) in [
        ("Latin-1", &b"caf\xe9\r"[..]),
        ("a byte that nothing begins with", b"a\xffb\r"),
        ("cut within a character", b"\xf0\x9f\x90\r"),
        ("pasted", b"\x1b[200~caf\xe9 and more\nlines\x1b[201~\r"),
    ] {
        let mut terminal = Terminal::talk(folder.path(), &["thinker"], &[]);
        assert!(terminal.ask("first").contains("8*3"), "{what}");
        terminal.send_bytes(typed);
        let said = terminal.until_prompt();
        assert!(said.contains(refused), "{what}: {said:?}");
        let said = terminal.ask("second");
        assert!(said.contains("8*3") && !said.contains("error"), "{what}: {said:?}");
        let text = exported(&mut terminal, folder.path(), &format!("{}.md", what.len()));
        assert_eq!(text.matches("## User").count(), 2, "{what}: {text}");
        leave(terminal);
    }
    // A terminal that cannot move its cursor.
    let mut terminal = Terminal::talk(folder.path(), &["thinker"], &[("TERM", "dumb")]);
    terminal.send_bytes(b"caf\xe9\r");
    terminal.expect(refused);
    terminal.expect("> ");
    terminal.send("second\r");
    terminal.expect("8*3");
    terminal.expect("> ");
    leave(terminal);
}

#[test]
fn words_that_mean_to_leave_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    thinker(folder.path());
    for word in ["exit", "quit", "Exit ", "/bye", "/exit", "/quit"] {
        let mut terminal = Terminal::talk(folder.path(), &["thinker"], &[]);
        terminal.send(&format!("{word}\r"));
        assert_eq!(terminal.end(), 0, "{word}");
    }
    let mut terminal = Terminal::talk(folder.path(), &["thinker"], &[]);
    for question in ["exit the room", "\"\"\"exit\"\"\"", "bye"] {
        assert!(terminal.ask(question).contains("8*3"), "{question}");
    }
    leave(terminal);
}

#[test]
fn thoughts_that_take_too_long_are_closed_and_an_answer_follows() {
    let folder = tempfile::tempdir().unwrap();
    circler(folder.path());
    wanderer(folder.path());
    let done = minke(folder.path(), &["run", "circler", "hello"]);
    // Four spans of 32 tokens.
    let thought = "ab".repeat(64);
    assert_eq!((done.code, done.out.as_str()), (0, format!("{thought}\n\n8*3\n").as_str()), "{done:?}");
    assert!(done.err.contains("the thought was closed: it repeats itself"), "{done:?}");
    let done = minke(folder.path(), &["run", "wanderer", "hello", "--think-budget", "9", "--think", "fold"]);
    assert_eq!((done.code, done.out.as_str()), (0, "8*3\n"), "{done:?}");
    assert!(done.err.contains("its budget is spent") && done.err.contains("thought for 0 s, 9 tokens"), "{done:?}");
    let json = minke(folder.path(), &["run", "wanderer", "hello", "--think-budget", "9", "--json"]).json();
    assert_eq!((json[0]["answer"].as_str(), json[0]["finish_reason"].as_str()), (Some("8*3"), Some("stop")));
    assert_eq!(json[0]["reasoning"].as_str().unwrap().len(), 9);
}

fn sessions(folder: &Path, name: &str) -> PathBuf {
    folder.join(".local/share/minke/sessions").join(name)
}

#[test]
fn sessions_come_back_and_what_is_broken_is_said() {
    let folder = tempfile::tempdir().unwrap();
    thinker(folder.path());
    let mut terminal = Terminal::talk(folder.path(), &["thinker", "--session", "first"], &[]);
    terminal.ask(&"x".repeat(100));
    terminal.ask("/set temperature 0.5");
    terminal.ask("/think hide");
    assert!(terminal.ask("/save second").contains("second: 1 turn and the cache of 96 tokens are kept"));
    assert!(terminal.ask("/list").contains("first\nsecond\n"));
    assert!(terminal.ask("/save ../third").contains("is no name"));
    leave(terminal);
    let mut terminal = Terminal::start(folder.path(), &["thinker", "--session", "first"], &[]);
    assert!(terminal.until_prompt().contains("first: 1 turn, 96 tokens from its cache"));
    assert!(terminal.ask("/set").contains("temperature  0.5\n"));
    assert!(!terminal.ask("hello").contains("ab"), "its thought is hidden");
    assert!(terminal.ask("/stats").contains(" 96 found in the cache"));

    let kv = sessions(folder.path(), "second.kv");
    let good = std::fs::read(&kv).unwrap();
    let changed = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] ^= value;
        bytes
    };
    for (bytes, reason) in [
        (changed(good.len() / 2, 1), "is damaged"),
        (changed(20, 1), "another model or another build"),
        (changed(8, 2), "is of another version"),
        (changed(55, 0x40), "is cut short"),
        (good[..good.len() - 7].to_vec(), "is cut short"),
        (good[..20].to_vec(), "is cut short"),
        (b"not a cache at all, but long enough to be looked at: 64 bytes or more".to_vec(), "is no cache"),
    ] {
        std::fs::write(&kv, bytes).unwrap();
        let said = terminal.ask("/load second");
        assert!(said.contains(reason) && said.contains("second: 1 turn, 0 tokens"), "{reason}: {said}");
    }
    let text = sessions(folder.path(), "second.json");
    let good = std::fs::read_to_string(&text).unwrap();
    std::fs::write(&text, good.replace("8*3", "8*4")).unwrap();
    assert!(terminal.ask("/load second").contains("is damaged or was changed"));
    std::fs::write(&text, "minke session 9 abc\n{}").unwrap();
    assert!(terminal.ask("/load second").contains("is no session of this version"));
    assert!(terminal.ask("/load secnd").contains("no such session"));
    leave(terminal);
    // Conversations are for terminals.
    let done = minke(folder.path(), &["run", "thinker", "hello", "--session", "first"]);
    assert_eq!(done.code, 2, "{done:?}");
    let mut piped = command(folder.path(), &["run", "thinker"]);
    assert_eq!(piped.env("HOME", folder.path()).output().unwrap().status.code(), Some(2), "no question in the pipe");
}

#[test]
fn fifty_kills_leave_a_session_that_is_old_or_new() {
    let folder = tempfile::tempdir().unwrap();
    scholar(folder.path());
    let mut terminal = Terminal::talk(folder.path(), &["scholar"], &[]);
    terminal.ask(&"x".repeat(2_000));
    terminal.ask("/save kept");
    leave(terminal);
    let temporary = [".kept.json.tmp", ".kept.kv.tmp"].map(|name| sessions(folder.path(), name));
    let mut inside = 0;
    for kill in 0..50_u64 {
        let mut terminal = Terminal::talk(folder.path(), &["scholar"], &[]);
        let loaded = terminal.ask("/load kept");
        assert!(loaded.contains("kept: 1 turn, 1984 tokens from its cache"), "kill {kill}: {loaded}");
        terminal.send("/save kept\r");
        terminal.expect("\x1b[?2004l");
        // Another moment each time, from before the first byte to after the last.
        std::thread::sleep(Duration::from_micros(kill * 7_919 % 14_000));
        terminal.child.kill().unwrap();
        terminal.child.wait().unwrap();
        inside += usize::from(temporary.iter().any(|path| path.exists()));
        temporary.iter().for_each(|path| drop(std::fs::remove_file(path)));
    }
    println!("{inside} of 50 kills inside a save");
    assert!(inside > 0, "no kill came inside a save");
}
