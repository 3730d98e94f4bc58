//! `minke launch`: what it prints sets an agent up, and what it starts is set up so; nothing of a person's files changes.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::{Done, Serving, command, minke, thinker};
use serde_json::{Value, json};

/// The variables that a shell has behind these lines.
fn variables(lines: &str, name: &str) -> String {
    let script = format!("{lines}\nprintf %s \"${name}\"");
    let output = Command::new("sh").args(["-c", &script]).env("MINKE_API_KEY", "key-of-a-person").output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn what_is_printed_sets_agents_up() {
    let folder = tempfile::tempdir().unwrap();
    thinker(folder.path());
    fs::write(folder.path().join("keys"), "key-of-a-person\n").unwrap();
    let server = Serving::start(folder.path(), "thinker", &["--key-file", "keys", "--model-name", "a 'quoted' name"]);
    let url = &server.1;
    let print = |agent: &str| {
        let mut command = command(folder.path(), &["launch", agent, "--print", "--url", url]);
        let done = Done::of(command.env("MINKE_API_KEY", "key-of-a-person").output().unwrap());
        assert_eq!((done.code, done.err.as_str()), (0, ""), "{agent}");
        assert!(!done.out.contains("key-of-a-person"), "{}", done.out);
        done.out
    };

    let codex: toml::Table = print("codex").parse().unwrap();
    let provider = &codex["model_providers"]["minke"];
    assert_eq!(codex["model"].as_str(), Some("a 'quoted' name"));
    assert_eq!(
        (codex["model_provider"].as_str(), codex["model_context_window"].as_integer()),
        (Some("minke"), Some(256))
    );
    assert_eq!(provider["base_url"].as_str(), Some(format!("{url}/v1").as_str()));
    assert_eq!(
        (provider["wire_api"].as_str(), provider["env_key"].as_str()),
        (Some("responses"), Some("MINKE_API_KEY"))
    );

    let claude = print("claude");
    for (name, value) in [
        ("ANTHROPIC_BASE_URL", url.as_str()),
        ("ANTHROPIC_AUTH_TOKEN", "key-of-a-person"),
        ("ANTHROPIC_MODEL", "a 'quoted' name"),
        ("ANTHROPIC_DEFAULT_HAIKU_MODEL", "a 'quoted' name"),
        ("CLAUDE_STREAM_IDLE_TIMEOUT_MS", "3600000"),
    ] {
        assert_eq!(variables(&claude, name), value, "{name}");
    }

    let opencode: Value = serde_json::from_str(&variables(&print("opencode"), "OPENCODE_CONFIG_CONTENT")).unwrap();
    let provider = &opencode["provider"]["minke"];
    assert_eq!(opencode["model"], "minke/a 'quoted' name");
    assert_eq!(
        provider["options"],
        json!({"baseURL": format!("{url}/v1"), "timeout": false, "apiKey": "{env:MINKE_API_KEY}"})
    );
    assert_eq!(provider["models"]["a 'quoted' name"]["limit"]["context"], 256);

    let refused = minke(folder.path(), &["launch", "claude", "--print", "--url", url]);
    assert_eq!((refused.code, refused.err.lines().count()), (5, 1), "{refused:?}");
    assert!(refused.err.contains("MINKE_API_KEY"), "{refused:?}");
}

#[test]
fn an_agent_is_started_with_the_same() {
    let folder = tempfile::tempdir().unwrap();
    thinker(folder.path());
    let server = Serving::start(folder.path(), "thinker", &[]);
    let url = &server.1;
    let home = folder.path().join("home");
    let bin = folder.path().join("bin");
    fs::create_dir_all(&bin).unwrap();
    fs::create_dir_all(&home).unwrap();
    for agent in ["codex", "claude", "opencode"] {
        let path = bin.join(agent);
        fs::write(
            &path,
            "#!/bin/sh\nprintf '%s\\n' \"$0\" \"$@\" \"$ANTHROPIC_BASE_URL\" \"$OPENCODE_CONFIG_CONTENT\"\nexit 7\n",
        )
        .unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let launch = |agent: &str, path: &str| {
        let mut command = command(folder.path(), &["launch", agent, "--url", url, "--", "exec", "say hello"]);
        Done::of(command.env("PATH", path).env("HOME", &home).output().unwrap())
    };
    let path = format!("{}:/usr/bin:/bin", bin.display());
    for (agent, told) in [
        ("codex", format!("-c\nmodel_providers.minke.base_url=\"{url}/v1\"\n")),
        ("claude", format!("exec\nsay hello\n{url}\n")),
        ("opencode", format!("{{\"baseURL\":\"{url}/v1\",\"timeout\":false}}")),
    ] {
        let done = launch(agent, &path);
        assert_eq!(done.code, 7, "its exit code: {done:?}");
        assert!(done.out.contains(&told) && done.out.contains("exec\nsay hello\n"), "{agent}: {}", done.out);
        let missing = launch(agent, "/nonexistent");
        assert_eq!((missing.code, missing.err.lines().count()), (1, 1), "{missing:?}");
        assert!(
            missing.err.contains(&format!("{agent} is not installed")) && missing.err.contains("npm install"),
            "{missing:?}"
        );
    }
    assert_eq!(fs::read_dir(&home).unwrap().count(), 0, "nothing is written");
}

#[test]
fn no_server_is_said_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, code, part) in [
        (&["launch", "codex", "--url", "http://127.0.0.1:1"][..], 5, "start one with minke serve"),
        (&["launch", "codex", "--url", "https://127.0.0.1:1"][..], 2, "http://HOST:PORT"),
        (&["launch", "vi"][..], 2, "codex"),
    ] {
        let done = minke(folder.path(), arguments);
        assert_eq!((done.code, done.out.as_str(), done.err.lines().count()), (code, "", 1), "{done:?}");
        assert!(done.err.contains(part), "{done:?}");
    }
    // The address of the settings, where none is given.
    let mut command = command(folder.path(), &["launch", "claude"]);
    let done = Done::of(command.env("MINKE_PORT", "1").output().unwrap());
    assert!(done.code == 5 && done.err.contains("http://127.0.0.1:1: "), "{done:?}");
}
