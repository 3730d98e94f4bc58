use std::path::{Path, PathBuf};

use minke_text::Role;

use super::*;
use crate::tasks::{Task, TrainingProblem};

fn published(name: &str) -> PathBuf {
    let folder = if name == "humaneval.jsonl" { "code" } else { "problems" };
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata").join(folder).join(name)
}

fn files(format: SetFormat, test: &Path) -> SetFiles {
    SetFiles {
        format,
        path: None,
        train: None,
        validation: None,
        test: Some(test.into()),
        examples: None,
        sha256: None,
    }
}

fn gsm8k() -> SetFiles {
    SetFiles { train: Some(published("gsm8k_train.jsonl")), ..files(SetFormat::Gsm8k, &published("gsm8k_test.jsonl")) }
}

/// A file with this text, in a folder that is kept as long as it.
fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("problems.jsonl");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn published_files_are_read_as_they_are() {
    let of = |format, file: &str| ProblemSet::read(files(format, &published(file))).unwrap();
    let gsm8k = of(SetFormat::Gsm8k, "gsm8k_test.jsonl");
    let first = gsm8k.on_side(Split::Test).next().unwrap();
    assert_eq!(
        (gsm8k.on_side(Split::Test).len(), first.name.as_str(), &first.gold),
        (4, "1", &Gold::Math("18".into()))
    );
    assert!(first.question.starts_with("Janet") && first.question.ends_with("\\boxed{}."));
    // `jq -r .answer` of the fourth line ends in "#### 540".
    assert_eq!(gsm8k.on_side(Split::Test).nth(3).unwrap().gold, Gold::Math("540".into()));

    let svamp = of(SetFormat::Svamp, "svamp.json");
    let second = svamp.on_side(Split::Test).nth(1).unwrap();
    assert_eq!((second.name.as_str(), &second.gold), ("chal-2", &Gold::Math("1".into())));
    let asked = "If he had $ 4 at the start. How much did the candy bar cost?\n";
    assert!(second.question.contains(asked), "{}", second.question);

    let humaneval = of(SetFormat::HumanEval, "humaneval.jsonl");
    let first = humaneval.on_side(Split::Test).next().unwrap();
    let Gold::Code(gold) = &first.gold else { panic!("a program is asked for") };
    assert_eq!((first.name.as_str(), gold.entry_point.as_str()), ("HumanEval/0", "has_close_elements"));
    assert!(first.question.contains(gold.prompt.trim_end()));

    let mbpp = SetFiles::held_out(SetFormat::Mbpp, published("mbpp.jsonl"));
    let mbpp = ProblemSet::read(mbpp).unwrap();
    assert_eq!(mbpp.on_side(Split::Test).map(|problem| problem.name.as_str()).collect::<Vec<_>>(), ["11", "12", "510"]);
    let first = mbpp.on_side(Split::Test).next().unwrap();
    assert!(first.question.contains("assert remove_Occ(\"hello\",\"l\") == \"heo\""), "{}", first.question);
}

#[test]
fn formats_are_recognized_by_their_fields() {
    for (file, format) in [
        ("gsm8k_train.jsonl", SetFormat::Gsm8k),
        ("svamp.json", SetFormat::Svamp),
        ("humaneval.jsonl", SetFormat::HumanEval),
        ("mbpp.jsonl", SetFormat::Mbpp),
    ] {
        assert_eq!(SetFormat::recognize(&std::fs::read_to_string(published(file)).unwrap()), format);
    }
    assert_eq!(SetFormat::recognize("\n{\"question\": \"2+2?\", \"answer\": \"4\"}"), SetFormat::Jsonl);
    assert_eq!(SetFormat::recognize(""), SetFormat::Jsonl);
}

#[test]
fn own_lines_say_what_is_asked() {
    let (_folder, path) = written(
        r#"{"question": "2+2?", "answer": 4}
{"id": "p", "cluster": "text 1", "prompt": "Say 2.0", "answer": "2.50"}

{"id": 7, "cluster": "text 1", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "5?"}], "answer": 5.0}"#,
    );
    let set = ProblemSet::read(files(SetFormat::Jsonl, &path)).unwrap();
    let [first, second, third] = &set.on_side(Split::Test).cloned().collect::<Vec<_>>()[..] else {
        panic!("three problems")
    };
    assert_eq!((first.name.as_str(), &first.gold), ("1", &Gold::Math("4".into())));
    assert!(first.question.starts_with("2+2?\n") && first.question.contains("\\boxed"));
    assert_eq!(
        (second.name.as_str(), second.question.as_str(), &second.gold),
        ("p", "Say 2.0", &Gold::Math("2.50".into()))
    );
    assert_eq!((third.name.as_str(), third.question.as_str(), &third.gold), ("7", "5?", &Gold::Math("5".into())));
    let roles: Vec<Role> = third.messages().iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::System, Role::User]);
    assert_eq!(second.cluster, third.cluster);
    assert_ne!(first.cluster, second.cluster);
}

#[test]
fn broken_lines_are_named() {
    let good = r#"{"question": "2+2?", "answer": "4"}"#;
    for (format, line, expected) in [
        (SetFormat::Jsonl, r#"{"question": "a", "anwser": "4"}"#, "line 2: unknown field `anwser`"),
        (SetFormat::Jsonl, r#"{"question": "a"}"#, "line 2: missing field `answer`"),
        (SetFormat::Jsonl, r#"{"answer": "4"}"#, "line 2: needs one of question, prompt and messages"),
        (SetFormat::Jsonl, r#"{"question": "a", "prompt": "b", "answer": "4"}"#, "line 2: needs one of"),
        (SetFormat::Jsonl, r#"{"question": " ", "answer": "4"}"#, "line 2: it asks nothing"),
        (SetFormat::Jsonl, r#"{"question": "a", "answer": ""}"#, "line 2: its answer is empty"),
        (SetFormat::Jsonl, r#"{"question": "a", "answer": "2\n#### 4"}"#, "line 2: its answer has a ####"),
        (SetFormat::Jsonl, r#"{"messages": [], "answer": "4"}"#, "line 2: messages must end with one of the user"),
        (SetFormat::Jsonl, r#"{"messages": [{"role": "user"}], "answer": "4"}"#, "line 2: message 1 has no text"),
        (SetFormat::Jsonl, "{\"question\": \"a", "line 2: EOF"),
        (SetFormat::Jsonl, "[1, 2]", "line 2: "),
        (SetFormat::Jsonl, r#"{"id": "1", "question": "b", "answer": "4"}"#, "are both called \"1\""),
        (SetFormat::Gsm8k, good, "line 1: its answer has no ####"),
        (SetFormat::HumanEval, good, "line 1: unknown field `question`"),
        (SetFormat::Mbpp, good, "line 1: unknown field `question`"),
        (SetFormat::Svamp, good, "is not svamp as it is published"),
    ] {
        let (_folder, path) = written(&format!("{good}\n{line}\n"));
        let message = ProblemSet::read(files(format, &path)).unwrap_err().to_string();
        assert!(message.contains(expected) && message.contains("problems.jsonl"), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
    let (_folder, path) = written("\n");
    assert!(ProblemSet::read(files(SetFormat::Jsonl, &path)).unwrap_err().to_string().contains("has no problems"));
    std::fs::write(&path, b"\xff\xfe").unwrap();
    assert!(
        ProblemSet::read(files(SetFormat::Jsonl, &path)).unwrap_err().to_string().contains("not UTF-8 from byte 1")
    );
    let missing = files(SetFormat::Jsonl, Path::new("nowhere.jsonl"));
    assert!(ProblemSet::read(missing).unwrap_err().to_string().starts_with("cannot read nowhere.jsonl"));
}

#[test]
fn nothing_held_out_is_trained_on() {
    let task = Task::Set(ProblemSet::read(gsm8k()).unwrap());
    task.validate().unwrap();
    let trained: HashSet<String> =
        (0..400).map(|number| TrainingProblem::draw(&task, 3, number).question.clone()).collect();
    assert_eq!(trained.len(), 9, "every problem of the training file is drawn");
    for number in 0..100 {
        let problem = task.problem(3, Split::Test, number);
        assert!(!trained.contains(&problem.question) && TrainingProblem::new(&task, problem).is_none());
    }
    assert_eq!(task.problem_set(Split::Test, 0, 3).len(), 3);
    // A problem of another set is on no side of this one.
    let svamp = Task::Set(ProblemSet::read(files(SetFormat::Svamp, &published("svamp.json"))).unwrap());
    assert!(TrainingProblem::new(&task, svamp.problem(1, Split::Test, 0)).is_none());

    // A set has a side to choose by if a file of it is named.
    assert!(task.problem_set(Split::Validation, 0, 9).is_empty());
    let (_folder, path) = written("{\"question\": \"1+1?\", \"answer\": \"#### 2\"}\n");
    let with = SetFiles { validation: Some(path.clone()), ..gsm8k() };
    let with = Task::Set(ProblemSet::read(with).unwrap());
    let chosen_by = with.problem_set(Split::Validation, 0, 9);
    assert_eq!((chosen_by.len(), with.side(&chosen_by[0])), (1, Split::Validation));
    assert_eq!(TrainingProblem::new(&with, chosen_by[0].clone()), None);
    let twice = SetFiles { validation: Some(path.clone()), train: Some(path), ..gsm8k() };
    let message = ProblemSet::read(twice).unwrap_err().to_string();
    assert!(message.contains("problem 1 is also problem 1 of the held-out file"), "{message}");

    // The same problem on both sides, spaced and capitalized otherwise.
    let test = std::fs::read_to_string(published("gsm8k_test.jsonl")).unwrap();
    let (_folder, path) =
        written(&test.lines().nth(1).unwrap().replace("A robe  ", "A ROBE").replace("A robe", "a  robe"));
    let shared = SetFiles { train: Some(path), ..gsm8k() };
    let message = ProblemSet::read(shared).unwrap_err().to_string();
    assert!(message.contains("problem 1 is also problem 2 of the held-out file"), "{message}");
}

#[test]
fn one_file_is_split_by_what_is_asked() {
    let lines = |numbers: &mut dyn Iterator<Item = u32>| -> String {
        numbers.map(|n| format!("{{\"question\": \"{n}+1?\", \"answer\": \"{}\"}}\n", n + 1)).collect()
    };
    let read = |text: &str| {
        let (_folder, path) = written(text);
        let one = SetFiles { path: Some(path), test: None, ..files(SetFormat::Jsonl, Path::new("")) };
        Task::Set(ProblemSet::read(one).unwrap())
    };
    let task = read(&lines(&mut (0..400)));
    let held_out: HashSet<String> =
        task.problem_set(Split::Test, 0, 400).into_iter().map(|problem| problem.question).collect();
    assert!((30..75).contains(&held_out.len()), "{} of 400 are held out, not an eighth", held_out.len());
    let chosen_by = task.problem_set(Split::Validation, 0, 400);
    assert!((30..75).contains(&chosen_by.len()) && chosen_by.iter().all(|p| !held_out.contains(&p.question)));
    for number in 0..400 {
        assert!(!held_out.contains(&TrainingProblem::draw(&task, 1, number).question));
    }
    // The side of a problem does not depend on what stands beside it.
    let fewer = read(&lines(&mut (0..400).rev().step_by(2)));
    assert!(fewer.problem_set(Split::Test, 0, 400).iter().all(|problem| held_out.contains(&problem.question)));

    let mbpp = SetFiles::held_out(SetFormat::Mbpp, published("mbpp.jsonl"));
    let mbpp = Task::Set(ProblemSet::read(mbpp).unwrap());
    let trained: HashSet<String> = (0..100).map(|n| TrainingProblem::draw(&mbpp, 1, n).name.clone()).collect();
    assert_eq!(trained, ["601", "602"].map(str::to_owned).into());
    let chosen_by = mbpp.problem_set(Split::Validation, 0, 9);
    assert_eq!(chosen_by.iter().map(|problem| problem.name.as_str()).collect::<Vec<_>>(), ["511"]);
    // A task of the test that stands on the validation side too, with a test of its own, is on that of the test alone.
    let text = std::fs::read_to_string(published("mbpp.jsonl")).unwrap();
    let mut rows: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let at = |rows: &[serde_json::Value], id: u64| rows.iter().position(|row| row["task_id"] == id).unwrap();
    let tested = rows[at(&rows, 11)]["text"].clone();
    let twice = at(&rows, 511);
    rows[twice]["text"] = tested;
    let (_folder, path) = written(&rows.iter().map(|row| format!("{row}\n")).collect::<String>());
    let mbpp = Task::Set(ProblemSet::read(SetFiles::held_out(SetFormat::Mbpp, path)).unwrap());
    assert_eq!((mbpp.problem_set(Split::Validation, 0, 9).len(), mbpp.problem_set(Split::Test, 0, 9).len()), (0, 3));
    // HumanEval has nothing to train on.
    let humaneval =
        SetFiles { path: Some(published("humaneval.jsonl")), test: None, ..files(SetFormat::HumanEval, Path::new("")) };
    let message = Task::Set(ProblemSet::read(humaneval).unwrap()).validate().unwrap_err().to_string();
    assert!(message.starts_with("task humaneval: it has no problem to train on"), "{message}");
}

#[test]
fn files_are_known_by_their_hash() {
    let set = ProblemSet::read(gsm8k()).unwrap();
    let sum = set.sha256().to_owned();
    let toml = serde_json::to_string(&Task::Set(set.clone())).unwrap();
    assert!(toml.contains(r#""family":"file""#) && toml.contains(&sum), "{toml}");
    assert_eq!(serde_json::from_str::<Task>(&toml).unwrap(), Task::Set(set));
    let changed = toml.replace(&sum, &"0".repeat(64));
    let message = serde_json::from_str::<Task>(&changed).unwrap_err().to_string();
    assert!(message.contains(&format!("the files have the hash {sum}")), "{message}");
    // `cat gsm8k_train.jsonl gsm8k_test.jsonl | sha256sum` is another order than that of one file alone.
    assert_ne!(ProblemSet::read(files(SetFormat::Gsm8k, &published("gsm8k_test.jsonl"))).unwrap().sha256(), sum);
    for neither in ["{\"family\":\"file\",\"format\":\"gsm8k\"}", "{\"family\":\"file\",\"format\":\"gsm9k\"}"] {
        assert!(serde_json::from_str::<Task>(neither).is_err());
    }
}

#[test]
fn few_shot_prompts_are_those_of_the_papers() {
    let set = ProblemSet::read(gsm8k()).unwrap();
    let problem = set.on_side(Split::Test).next().unwrap().clone();
    let (text, stops) = set.few_shot(&problem, 8).unwrap();
    assert_eq!((text.matches("Question: ").count(), text.matches("The answer is ").count()), (9, 8));
    assert!(text.starts_with("Question: Natalia") && text.ends_with("\nAnswer:"), "{text}");
    assert!(text.contains("Natalia sold 48/2 = 24 clips in May.") && !text.contains("<<") && !text.contains("boxed"));
    assert_eq!(stops, ["Question:"]);
    // An example is not shown with its own solution.
    let Problem { name, .. } = &set.problem(1, Split::Train, 0);
    let own = set.problems.entries[0].iter().find(|entry| entry.problem.name == *name).unwrap();
    let (text, _) = set.few_shot(&own.problem, 8).unwrap();
    assert_eq!(text.matches(own.head.as_str()).count(), 1, "{text}");
    let message = set.few_shot(&problem, 10).unwrap_err().to_string();
    assert!(message.contains("10 solved examples were asked for, and there are 9"), "{message}");

    // Those of another file, in another format.
    let svamp = files(SetFormat::Svamp, &published("svamp.json"));
    let svamp = SetFiles { examples: Some(published("gsm8k_train.jsonl")), ..svamp };
    let svamp = ProblemSet::read(svamp).unwrap();
    let (text, _) = svamp.few_shot(svamp.on_side(Split::Test).next().unwrap(), 2).unwrap();
    assert!(text.starts_with("Question: Natalia") && text.contains("Question: Each pack of dvds"));

    let mbpp = ProblemSet::read(SetFiles::held_out(SetFormat::Mbpp, published("mbpp.jsonl"))).unwrap();
    let (text, stops) = mbpp.few_shot(mbpp.on_side(Split::Test).next().unwrap(), 3).unwrap();
    assert_eq!((text.matches("You are an expert Python programmer").count(), text.matches("[DONE]").count()), (4, 3));
    assert!(text.contains("def similar_elements") && text.ends_with("[BEGIN]\n") && stops == ["[DONE]"]);

    let humaneval = ProblemSet::read(files(SetFormat::HumanEval, &published("humaneval.jsonl"))).unwrap();
    let (text, _) = humaneval.few_shot(humaneval.on_side(Split::Test).next().unwrap(), 0).unwrap();
    assert!(text.starts_with("from typing import List") && text.ends_with("\"\"\"\n"));
    let mixed = SetFiles { examples: Some(published("svamp.json")), ..humaneval.files().clone() };
    assert!(ProblemSet::read(mixed).unwrap_err().to_string().contains("which are no examples for humaneval"));
}
