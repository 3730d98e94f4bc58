use super::*;
use crate::tasks::Task;
use proptest::prelude::*;
use std::collections::HashSet;

fn settings(counts: &[usize]) -> Countdown {
    Countdown { counts: counts.to_vec(), ..Countdown::default() }
}

fn gold(problem: &Problem) -> &CountdownGold {
    match &problem.gold {
        Gold::Countdown(gold) => gold,
        other => panic!("{other:?}"),
    }
}

fn problem(numbers: &[u32], target: u32) -> Problem {
    CountdownGold { numbers: numbers.to_vec(), target }.into_problem()
}

/// Replays a line of a thought with nothing but its text: every step is true, takes what is there, and nothing is left
/// but the result.
fn replay(line: &str, numbers: &[u32]) -> u32 {
    let mut pool = numbers.to_vec();
    for step in line.split(", ") {
        let (left, value) = step.split_once('=').unwrap();
        let at = left.find(['+', '-', '*', '/']).unwrap();
        let (a, b): (u32, u32) = (left[..at].parse().unwrap(), left[at + 1..].parse().unwrap());
        let value: u32 = value.parse().unwrap();
        let truth = match &left[at..=at] {
            "+" => value == a + b,
            "-" => value + b == a,
            "*" => value == a * b,
            _ => value * b == a,
        };
        assert!(truth && value > 0 && value <= 199, "{step} in {line}");
        for operand in [a, b] {
            pool.swap_remove(pool.iter().position(|&n| n == operand).unwrap_or_else(|| panic!("{step} in {line}")));
        }
        pool.push(value);
    }
    assert_eq!(pool.len(), 1, "{line} uses all numbers");
    pool[0]
}

#[test]
fn settings_are_read_from_a_run_file_and_refuse_what_they_do_not_know() {
    let task: Task = serde_json::from_str(r#"{"family": "countdown", "counts": [3, 4], "self_check": false}"#).unwrap();
    assert_eq!(task, Task::Countdown(Countdown { self_check: false, ..settings(&[3, 4]) }));
    assert!(serde_json::from_str::<Task>(r#"{"family": "countdown", "count": 3}"#).is_err());
    assert!(task.validate().is_ok());
    for wrong in [
        settings(&[]),
        settings(&[5]),
        Countdown { largest_number: 0, ..Countdown::default() },
        Countdown { largest_target: 9, ..Countdown::default() },
        Countdown { largest_intermediate: 98, ..Countdown::default() },
        Countdown { largest_number: 1, ..Countdown::default() },
        Countdown { smallest_target: 99, counts: vec![2], ..Countdown::default() },
    ] {
        let message = wrong.validate().unwrap_err().to_string();
        assert!(message.starts_with("task countdown: ") && !message.contains('\n'), "{message}");
    }
}

#[test]
fn questions_typed_by_people_are_understood() {
    let asked = problem(&[3, 8, 1], 24);
    assert_eq!(asked.question, "make 24 from 3 8 1");
    for text in ["make 24 from 3 8 1", "  Make   24 from 3, 8 and 1. ", "from [3,8,1] make 24", "make 24 using 3 8 1\n"]
    {
        assert_eq!(Countdown::parse(text), Some(asked.clone()), "{text:?}");
    }
    assert_eq!(Countdown::parse("make 24 from 8 1 3").map(|problem| problem.id), Some(asked.id));
    let long = format!("make 24 from {}", "1 ".repeat(9));
    for text in
        ["", "make 24", "from 3 8 1", "make 24 25 from 3 8", "make -4 from 3 8", "make 24 from 3.5 8", "hello 24"]
            .into_iter()
            .chain(["make 0 from 3 3", "make 24 from 0 24", "make 24 from 99999 1", "24 3 8 1", &long])
    {
        assert_eq!(Countdown::parse(text), None, "{text:?}");
    }
}

#[test]
fn graders_see_through_wrong_answers() {
    let task = Countdown::default();
    let asked = problem(&[3, 8, 1], 24);
    for right in ["3*8*1", "3*8/1", " (1 * 8) * 3 ", "((3*8))*1"] {
        assert_eq!(task.grade(&asked, right), Verdict::Right, "{right}");
    }
    for wrong in ["", "24", "3*8", "3*8*1*1", "3+8+1", "3*8*1=24", "24*1", "3*8+1-1", "4*6*1", "1*38", "3*8*1 ok"] {
        assert_eq!(task.grade(&asked, wrong), Verdict::Wrong, "{wrong}");
    }
    assert_eq!(task.grade(&problem(&[3, 3, 8, 8], 24), "8/(3-8/3)"), Verdict::Right);
    assert_eq!(task.grade(&problem(&[3, 3, 8, 8], 24), "3*8"), Verdict::Wrong, "solvable through a fraction");
    for unusable in [problem(&[1, 1, 1], 24), problem(&[], 24), problem(&[0, 24], 24), problem(&[1; 9], 9)] {
        assert_eq!(task.grade(&unusable, "1+1+1"), Verdict::GoldUnusable, "{}", unusable.question);
    }
    assert_eq!(task.grade(&problem(&[1; 8], 8), "1+1+1+1+1+1+1+1"), Verdict::Right);
    let large = problem(&[9_999; 8], 1);
    assert_eq!(task.grade(&large, "9999/9999*9999/9999*9999/9999*9999/9999"), Verdict::Right, "nothing overflows");
}

#[test]
fn attempts_and_claims_are_read_from_the_lines() {
    let task = Countdown::default();
    let thought = "7-6=1, 1+1=2 ?13 no\n7+6=13, 13*1=13 ?13 ok";
    assert_eq!(task.attempts(thought), ["7-6=1, 1+1=2 ?13 no", "7+6=13, 13*1=13 ?13 ok"]);
    assert!(task.claims_success(thought));
    let thought = "7+6=13, 13*1=13 ?13 ok \nbook\n7-6=1, 1+1=2 no\r\nhm";
    assert_eq!((task.attempts(thought).len(), task.claims_success(thought)), (2, false));
    assert_eq!((task.attempts("who knows\nnano").len(), task.claims_success("ok")), (0, false));
}

#[test]
fn answers_are_counted_together_by_what_they_say() {
    let task = Countdown::default();
    let asked = problem(&[3, 8, 1], 24);
    assert_eq!(task.answer_key(&asked, "3*8*1"), task.answer_key(&asked, "1*(8*3)"));
    assert_ne!(task.answer_key(&asked, "3*8*1"), task.answer_key(&asked, "3*8/1"));
    assert_eq!(task.answer_key(&asked, "no idea"), None);
}

#[test]
fn each_split_has_enough_problems_and_its_share() {
    // Every multiset of three numbers: what the generator can draw in the end.
    let task = Countdown::default();
    let mut counts = [0u32; Split::ALL.len()];
    for a in 1..=task.largest_number {
        for b in a..=task.largest_number {
            for c in b..=task.largest_number {
                for target in task.reachable_targets(&[a, b, c]) {
                    counts[task.side(&problem(&[a, b, c], target)) as usize] += 1;
                }
            }
        }
    }
    // The sum was counted by a second, unrelated brute force over all ordered pairs of numbers.
    assert_eq!(counts.iter().sum::<u32>(), 12_142);
    for held_out in [Split::Validation, Split::Test].map(|split| f64::from(counts[split as usize]) / 12_142.0) {
        assert!(
            (0.09..0.16).contains(&held_out),
            "{held_out} is not about one in eight, as numbers have unequal shares"
        );
    }
}

#[test]
fn styles_are_what_they_promise() {
    for (task, split) in [(settings(&[3]), Split::Train), (settings(&[2, 4]), Split::Test)] {
        let (mut gave_up, mut noisy, mut lengths) = (0, [0u32; 9], [0u32; 8]);
        for number in 0..1_500 {
            let problem = task.problem(5, split, number);
            let CountdownGold { numbers, target } = gold(&problem);
            let mut stream = draw(5, Domain::Data, &[number]);
            let bare = task.demonstrate(&problem, Style::Bare, &mut stream);
            assert_eq!((bare.thought, task.grade(&problem, &bare.answer)), (None, Verdict::Right));
            for style in [Style::Noisy, Style::Clean] {
                let Demonstration { thought, answer } = task.demonstrate(&problem, style, &mut stream);
                let thought = thought.unwrap();
                let mut results = Vec::new();
                for line in thought.lines() {
                    let (steps, check) = line.split_once(" ?").unwrap();
                    let result = replay(steps, numbers);
                    assert_eq!(check, format!("{target} {}", if result == *target { "ok" } else { "no" }));
                    results.push(result);
                }
                assert_eq!(task.attempts(&thought).len(), results.len());
                assert_eq!(
                    results.iter().position(|result| result == target).unwrap_or(results.len() - 1),
                    results.len() - 1
                );
                let right = task.grade(&problem, &answer) == Verdict::Right;
                assert_eq!((right, right), (results.last() == Some(target), task.claims_success(&thought)));
                if style == Style::Noisy {
                    noisy[results.len()] += 1;
                    gave_up += u32::from(!right);
                } else {
                    assert!(right && results.len() <= 7);
                    assert_eq!(results.iter().collect::<HashSet<_>>().len(), results.len(), "no try twice:\n{thought}");
                    lengths[results.len()] += 1;
                }
            }
            let fact = task.demonstrate(&problem, Style::Fact, &mut stream);
            assert_eq!(fact.thought, None);
            let operands: Vec<u32> =
                fact.answer.split(['+', '-', '*', '/', '=']).take(2).map(|n| n.parse().unwrap()).collect();
            replay(&fact.answer, &operands);
        }
        assert!(noisy[1..].iter().all(|&count| count > 75), "noisy searches of every length: {noisy:?}");
        assert!((675..825).contains(&gave_up), "half of the noisy searches give up: {gave_up}");
        assert!(lengths[1..].iter().all(|&count| count > 75), "clean searches of every length: {lengths:?}");
    }
}

#[test]
fn without_self_check_the_target_is_not_restated() {
    let task = Countdown { self_check: false, ..Countdown::default() };
    let problem = task.problem(5, Split::Train, 0);
    let thought = task.demonstrate(&problem, Style::Clean, &mut draw(5, Domain::Data, &[])).thought.unwrap();
    assert!(!thought.contains('?') && task.claims_success(&thought), "{thought}");
}

proptest! {
    #[test]
    fn splits_are_disjoint_under_every_seed(seeds in any::<[u64; 2]>(), number: u64, count in 2usize..=4) {
        let task = settings(&[count]);
        let sides = Split::ALL.map(|split| seeds.map(|seed| task.problem(seed, split, number)));
        for (problems, split) in sides.iter().zip(Split::ALL) {
            for posed in problems {
                let CountdownGold { numbers, target } = gold(posed);
                // The side holds for every order of the numbers, so no permutation crosses over.
                let mut turned = numbers.clone();
                turned.rotate_left(1);
                prop_assert_eq!(problem(&turned, *target).id, posed.id);
                prop_assert_eq!(task.side(posed), split);
                // And for every target: what is tried in training is tried at no held-out question.
                let other = problem(numbers, target + 1);
                prop_assert_eq!((task.side(&other), other.cluster), (split, posed.cluster));
                prop_assert_eq!(Countdown::parse(&posed.question), Some(posed.clone()));
                prop_assert!(numbers.iter().all(|n| (1..=20).contains(n)) && (10..=99).contains(target));
            }
        }
        prop_assert_eq!(&sides[0][0], &task.problem(seeds[0], Split::Train, number), "a function of its arguments");
    }

    #[test]
    fn no_text_breaks_a_reader(bytes in prop::collection::vec(any::<u8>(), 0..400), expression in "[-+*/() 0-9=]{0,80}") {
        let task = Countdown::default();
        let asked = problem(&[3, 8, 1], 24);
        for text in [String::from_utf8_lossy(&bytes).as_ref(), &expression] {
            task.grade(&asked, text);
            task.answer_key(&asked, text);
            task.attempts(text);
            task.claims_success(text);
            if let Some(problem) = Countdown::parse(&format!("make 9 from {text}")) {
                task.grade(&problem, text);
            }
        }
    }
}
