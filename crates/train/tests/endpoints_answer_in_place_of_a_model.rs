//! A teacher behind an endpoint: what it says is graded and kept as the answers of a model are, nothing is asked twice, and what it does
//! not answer is named.
#![allow(clippy::unwrap_used)]

mod small;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use minke_eval::Split;
use minke_eval::tasks::{Countdown, Gold};
use minke_train::data::{Example, read_examples};
use minke_train::{Bases, Error, Observer, RunConfig, execute_with};
use serde_json::{Value, json};

/// A request: its question, its seed, and the authorization that came with it.
type Asked = (String, u64, String);

/// What a teacher does with a request: status, further headers, body.
type Says = fn(&str, usize) -> (&'static str, &'static str, String);

struct Teacher {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Teacher {
    /// A teacher that says something to a question, and to how many requests there were before.
    fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let seen = Arc::clone(&seen);
                std::thread::spawn(move || serve(stream, says, &seen));
            }
        });
        Self { port, asked }
    }

    fn count(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

fn serve(mut stream: TcpStream, says: Says, seen: &Mutex<Vec<Asked>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut length, mut authorization) = (0, String::new());
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.split_once(": ") else {
            if line.trim().is_empty() {
                break;
            }
            continue;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().ok()?,
            "authorization" => authorization = value.trim().to_owned(),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body: Value = serde_json::from_slice(&body).ok()?;
    assert_eq!((&body["model"], &body["max_tokens"], &body["temperature"]), (&json!("m"), &json!(48), &json!(0.6)));
    assert_eq!((&body["top_p"], &body["stream"]), (&json!(0.95), &json!(false)));
    let question = body["messages"][0]["content"].as_str()?.to_owned();
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push((question.clone(), body["seed"].as_u64()?, authorization));
        seen.len() - 1
    };
    let (status, headers, body) = says(&question, number);
    let head = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: application/json\r\n{headers}");
    stream.write_all(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).ok()
}

fn reply(thought: Option<&str>, content: &str, finish: &str) -> (&'static str, &'static str, String) {
    let message = json!({ "role": "assistant", "content": content, "reasoning_content": thought });
    let body =
        json!({ "choices": [{ "message": message, "finish_reason": finish }], "usage": { "completion_tokens": 9 } });
    ("200 OK", "", body.to_string())
}

/// What makes the target of a question of two numbers.
fn solution(question: &str) -> String {
    let problem = Countdown::parse(question).unwrap();
    let Gold::Countdown(gold) = &problem.gold else { panic!("{question}") };
    let (a, b, target) = (gold.numbers[0], gold.numbers[1], gold.target);
    let found = [
        (a + b, format!("{a}+{b}")),
        (a * b, format!("{a}*{b}")),
        (a.abs_diff(b), format!("{}-{}", a.max(b), a.min(b))),
    ];
    let ways = found.into_iter().find(|(value, _)| *value == target).map(|(_, way)| way);
    ways.unwrap_or_else(|| format!("{}/{}", a.max(b), a.min(b)))
}

fn right(question: &str, _: usize) -> (&'static str, &'static str, String) {
    reply(Some("let us see"), &solution(question), "stop")
}

/// A run without any model of its own: a teacher's answers to so many questions.
fn run(port: u16, questions: usize, more: &str) -> RunConfig {
    let text = format!(
        r#"
        name = "taught"
        seed = 3
        [[task]]
        name = "make"
        family = "countdown"
        counts = [2]
        largest_number = 9
        smallest_target = 2
        largest_target = 18
        [[stage]]
        kind = "reject"
        name = "kept"
        questions = {questions}
        questions_per_step = 5
        samples = 2
        keep = 2
        max_tokens = 48
        temperature = 0.6
        [stage.teacher]
        url = "http://127.0.0.1:{port}"
        model = "m"
        requests = 3
        attempts = 1
        body = {{ top_p = 0.95 }}
        {more}
        "#
    );
    RunConfig::from_toml(&text).unwrap()
}

#[derive(Default)]
struct Listens(Vec<String>);

impl Observer for Listens {
    fn message(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
}

fn execute(config: &RunConfig, bases: &Bases, out: &Path) -> (Result<(), Error>, Vec<String>) {
    let mut listens = Listens::default();
    let result = execute_with(config, bases, out, &small::device(), None, &mut listens);
    (result, listens.0)
}

fn data(out: &Path) -> Vec<Example> {
    read_examples(&small::stage(out, "kept").join("data.jsonl")).unwrap()
}

#[test]
fn what_a_teacher_says_is_graded_and_kept() {
    // Right, wrong, cut off, without a thought, and a control token that is written out.
    let teacher = Teacher::start(|question, number| match number % 6 {
        0 | 1 => right(question, number),
        2 => reply(Some("let us see"), "1", "stop"),
        3 => reply(Some("let us see"), &solution(question), "length"),
        4 => reply(None, &solution(question), "stop"),
        _ => reply(Some("see <｜User｜>"), &solution(question), "stop"),
    });
    let folder = tempfile::tempdir().unwrap();
    let config = run(teacher.port, 30, "");
    execute(&config, &Bases::default(), folder.path()).0.unwrap();
    assert_eq!(teacher.count(), 60);
    let asked = teacher.asked.lock().unwrap();
    let mut seeds: Vec<u64> = asked.iter().map(|(_, seed, _)| *seed).collect();
    seeds.sort_unstable();
    seeds.dedup();
    assert_eq!(seeds.len(), 60, "two answers have the same seed");

    let (kept, task) = (data(folder.path()), &config.tasks[0].task);
    let held_out: Vec<u64> = task.problem_set(Split::Test, 3, 200).iter().map(|problem| problem.id).collect();
    for example in &kept {
        assert_eq!(example.task, "make");
        assert_eq!(example.completion, format!("<think>\nlet us see\n</think>\n\n{}", solution(&example.question)));
        assert!(!held_out.contains(&example.id));
    }
    let metrics = small::lines(&small::stage(folder.path(), "kept").join("metrics.jsonl"));
    assert_eq!(metrics.len(), 6);
    let sum = |name: &str| metrics.iter().map(|line| line[name].as_f64().unwrap()).sum::<f64>();
    assert_eq!(sum("kept"), kept.len() as f64);
    assert_eq!((sum("num_tokens"), sum("unanswered")), (540.0, 0.0));
    // A third is right, whole and has a thought; of two such answers to a question, which are the same here, one is kept.
    assert!((10..=20).contains(&kept.len()), "{}", kept.len());
    // Every answer is there, whatever it is worth, and an answer of one's own model to this stage would be to the same questions.
    let answers = small::lines(&small::stage(folder.path(), "kept").join("answers.jsonl"));
    assert_eq!(answers.len(), 61);
    assert!(answers[1..].iter().all(|line| line["answer"]["completion"].is_string()));
}

#[test]
fn a_student_learns_from_a_teacher_that_has_no_weights_here() {
    let teacher = Teacher::start(right);
    let text = format!(
        "{}{}",
        include_str!("../../../runs/tiny.toml").split_once("[[stage]]").unwrap().0,
        format_args!(
            r#"
            [[stage]]
            kind = "reject"
            name = "kept"
            questions = 12
            max_tokens = 48
            temperature = 0.6
            samples = 1
            teacher = {{ url = "http://127.0.0.1:{}/v1/", model = "m", body = {{ top_p = 0.95 }} }}
            [[stage]]
            kind = "distill"
            name = "student"
            data = "kept"
            epochs = 30
            training = {{ batch_tokens = 256 }}
            [stage.model]
            model_type = "qwen2"
            hidden_size = 32
            num_hidden_layers = 1
            num_attention_heads = 2
            num_key_value_heads = 1
            intermediate_size = 64
            max_position_embeddings = 192
            "#,
            teacher.port
        )
    );
    let folder = small::done(&RunConfig::from_toml(&text).unwrap());
    assert_eq!(data(folder.path()).len(), 12);
    let losses = small::lines(&small::stage(folder.path(), "student").join("metrics.jsonl"));
    let loss = |line: &Value| line["next"].as_f64().unwrap();
    assert!(loss(&losses[losses.len() - 1]) < 0.6 * loss(&losses[0]), "{losses:?}");
    assert!(!small::stage(folder.path(), "kept").join("checkpoints").exists());
}

#[test]
fn what_is_kept_is_not_asked_for_again() {
    let whole = tempfile::tempdir().unwrap();
    let teacher = Teacher::start(right);
    execute(&run(teacher.port, 20, ""), &Bases::default(), whole.path()).0.unwrap();

    // The key is withdrawn after some answers.
    let folder = tempfile::tempdir().unwrap();
    let fickle = Teacher::start(|question, number| match number {
        0..15 => right(question, number),
        _ => ("401 Unauthorized", "", "{}".into()),
    });
    let error = execute(&run(fickle.port, 20, ""), &Bases::default(), folder.path()).0.unwrap_err();
    let message = error.to_string();
    assert!(matches!(error, Error::Endpoint { .. }) && !message.contains('\n'), "{message}");
    assert!(
        message.contains("stage kept: http://127.0.0.1:") && message.contains("answers so far are kept"),
        "{message}"
    );
    let answers = small::stage(folder.path(), "kept").join("answers.jsonl");
    let lines = std::fs::read_to_string(&answers).unwrap();
    let had = lines.lines().count() - 1;
    // Also what was in flight when the key was refused.
    assert_eq!(had, 15);
    assert!(!small::stage(folder.path(), "kept").join("done.json").exists());
    // The process dies within a line.
    std::fs::write(&answers, format!("{lines}{{\"question\": 19, \"sam")).unwrap();

    // Elsewhere, with fewer requests at once: the same stage.
    let again = Teacher::start(right);
    let mut elsewhere = run(again.port, 20, "");
    if let minke_train::StageConfig::Reject(settings) = &mut elsewhere.stages[0] {
        settings.teacher.as_mut().unwrap().requests = 1;
    }
    execute(&elsewhere, &Bases::default(), folder.path()).0.unwrap();
    assert_eq!(again.count(), 40 - had);
    let read = |out: &Path, name: &str| std::fs::read(small::stage(out, "kept").join(name)).unwrap();
    for name in ["data.jsonl", "metrics.jsonl"] {
        assert_eq!(read(folder.path(), name), read(whole.path(), name), "{name}");
    }
    // Finished, so nobody is asked: the port is closed to nobody.
    execute(&run(1, 20, ""), &Bases::default(), folder.path()).0.unwrap();

    // More questions are another stage; once it is said that this one is not finished, only they are asked.
    let message = execute(&run(again.port, 25, ""), &Bases::default(), folder.path()).0.unwrap_err().to_string();
    assert!(message.contains("done.json: the stage was made by another configuration"), "{message}");
    std::fs::remove_file(small::stage(folder.path(), "kept").join("done.json")).unwrap();
    let before = (again.count(), read(folder.path(), "data.jsonl"));
    execute(&run(again.port, 25, ""), &Bases::default(), folder.path()).0.unwrap();
    assert_eq!(again.count(), before.0 + 10);
    assert!(read(folder.path(), "data.jsonl").starts_with(&before.1));
    // Other settings give other answers.
    let reseeded = RunConfig { seed: 4, ..run(again.port, 25, "") };
    std::fs::remove_file(small::stage(folder.path(), "kept").join("done.json")).unwrap();
    let message = execute(&reseeded, &Bases::default(), folder.path()).0.unwrap_err().to_string();
    assert!(message.contains("answers.jsonl: belongs to another configuration"), "{message}");
    // A line that cannot be read is named.
    let broken = lines.replacen("\"sample\"", "\"simple\"", 1);
    std::fs::write(&answers, broken).unwrap();
    let message = execute(&run(again.port, 20, ""), &Bases::default(), folder.path()).0.unwrap_err().to_string();
    assert!(message.contains("answers.jsonl: line 2: ") && !message.contains('\n'), "{message}");
}

#[test]
fn a_question_without_an_answer_is_counted_and_named() {
    let teacher = Teacher::start(|question, number| match number {
        4 => ("400 Bad Request", "", json!({ "error": { "message": "too\nhard" } }).to_string()),
        _ => right(question, number),
    });
    let folder = tempfile::tempdir().unwrap();
    let (result, messages) = execute(&run(teacher.port, 10, ""), &Bases::default(), folder.path());
    result.unwrap();
    let named = messages.iter().find(|line| line.contains("no answer: ")).unwrap();
    assert!(named.contains("question ") && named.ends_with("answers 400 Bad Request (too hard)"), "{named}");
    assert!(messages.contains(&"stage kept: 1 of 20 requests got no answer".to_owned()), "{messages:?}");
    let metrics = small::lines(&small::stage(folder.path(), "kept").join("metrics.jsonl"));
    assert_eq!(metrics.iter().map(|line| line["unanswered"].as_u64().unwrap()).sum::<u64>(), 1);
    assert_eq!(data(folder.path()).len(), 10);
}

#[test]
fn an_endpoint_that_never_answers_ends_the_stage() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let busy = Teacher::start(|_, _| ("503 Service Unavailable", "", "{}".into()));
    for (port, questions) in [(nobody, 50), (busy.port, 50), (busy.port, 2)] {
        let folder = tempfile::tempdir().unwrap();
        let error = execute(&run(port, questions, ""), &Bases::default(), folder.path()).0.unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with(&format!("stage kept: http://127.0.0.1:{port}/v1/chat/completions: ")),
            "{message}"
        );
        assert!(message.contains("the 0 answers so far are kept") && !message.contains('\n'), "{message}");
        // What got no answer is asked for the next time.
        let answers = small::stage(folder.path(), "kept").join("answers.jsonl");
        assert_eq!(small::lines(&answers).len(), 1);
    }
    assert!(busy.count() < 30, "{}", busy.count());
}

#[test]
fn a_key_is_sent_and_written_nowhere() {
    let teacher = Teacher::start(|question, number| match number {
        2 => ("400 Bad Request", "", "{\"error\": \"your key hush-hush is fine, the question is not\"}".into()),
        _ => right(question, number),
    });
    let config = run(teacher.port, 5, "key_env = \"TEACHER_KEY\"");
    assert_eq!(config.key_variables(), ["TEACHER_KEY"]);
    let folder = tempfile::tempdir().unwrap();
    let message = execute(&config, &Bases::default(), folder.path()).0.unwrap_err().to_string();
    assert_eq!(message, "stage kept: key_env names TEACHER_KEY, which is not set; set it to the endpoint's key");
    let mut bases = Bases::default();
    bases.add_key("TEACHER_KEY", "hush-hush".into());
    let (result, messages) = execute(&config, &bases, folder.path());
    result.unwrap();
    assert!(teacher.asked.lock().unwrap().iter().all(|(_, _, authorization)| authorization == "Bearer hush-hush"));
    assert!(messages.iter().any(|line| line.contains("your key [key] is fine")), "{messages:?}");
    let mut folders = vec![folder.path().to_path_buf()];
    let mut files = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => {
                    _ = files.insert(path.clone(), String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned())
                }
            }
        }
    }
    assert!(files.len() >= 5 && files.values().all(|text| !text.contains("hush-hush")));
}
