use super::*;
use proptest::prelude::*;
use serde::Deserialize;

#[derive(Deserialize)]
struct Row {
    kind: String,
    gold: String,
    answer: String,
    verdict: Verdict,
}

fn rows(file: &str) -> Vec<Row> {
    let path = format!("{}/../../testdata/math/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Prints counts and returns the rows whose verdict is another.
fn misjudged(file: &str) -> (usize, Vec<String>) {
    let rows = rows(file);
    let (mut rights, mut wrongs, mut unusable) = ((0, 0), (0, 0), (0, 0));
    let mut misjudged = Vec::new();
    for Row { kind, gold, answer, verdict } in &rows {
        let found = judge(gold, answer);
        let (missed, all) = match verdict {
            Verdict::Right => &mut rights,
            Verdict::Wrong => &mut wrongs,
            Verdict::GoldUnusable => &mut unusable,
        };
        *all += 1;
        if found != *verdict {
            *missed += 1;
            misjudged.push(format!("{kind}: gold {gold:?}, answer {answer:?}: {found:?} instead of {verdict:?}"));
        }
    }
    println!(
        "{file}: {} of {} right answers rejected, {} of {} wrong answers accepted, {} of {} unusable golds used",
        rights.0, rights.1, wrongs.0, wrongs.1, unusable.0, unusable.1
    );
    (rows.len(), misjudged)
}

#[test]
fn the_table_holds() {
    let (count, misjudged) = misjudged("table.jsonl");
    assert!(count >= 240);
    assert!(misjudged.is_empty(), "{}", misjudged.join("\n"));
}

#[test]
fn the_rows_that_were_held_out_hold_too() {
    let (count, misjudged) = misjudged("held-out.jsonl");
    assert!(count >= 60);
    assert!(misjudged.is_empty(), "{}", misjudged.join("\n"));
}

#[test]
fn no_hostile_answer_is_accepted() {
    let (_, misjudged) = misjudged("hostile.jsonl");
    assert!(misjudged.is_empty(), "{}", misjudged.join("\n"));
}

#[test]
fn the_answer_of_a_text_is_found() {
    #[derive(Deserialize)]
    struct Reading {
        text: String,
        answer: Option<String>,
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/math/reading.jsonl");
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let Reading { text, answer } = serde_json::from_str(line).unwrap();
        assert_eq!(read(&text).map(|answer| answer.text), answer, "{text:?}");
    }
}

#[test]
fn long_and_deep_texts_end_soon() {
    let megabyte = 1 << 20;
    let texts = [
        "{".repeat(megabyte),
        "\\boxed{".repeat(megabyte / 8),
        "\\boxed{".to_string() + &"{".repeat(megabyte),
        "$".repeat(megabyte),
        "the answer is ".repeat(megabyte / 16),
        "1 ".repeat(megabyte / 2),
        "\\boxed{".to_string() + &"(".repeat(2000) + "}",
        "\\boxed{".to_string() + &"\\frac".repeat(400) + "}",
        "\\boxed{".to_string() + &"9^".repeat(900) + "9}",
        "\\boxed{".to_string() + &"2!".repeat(900) + "}",
        "\\boxed{".to_string() + &"\\sqrt{".repeat(300) + "}",
        "\\boxed{".to_string() + &"(x+1/7)^{99}".repeat(150) + "}",
        "\\boxed{".to_string() + &"1/3+1/7+".repeat(240) + "1}",
        "\\boxed{".to_string() + &"9".repeat(1990) + "}",
        "\\boxed{".to_string() + &"[0,1]\\cup".repeat(180) + "[0,1]}",
    ];
    for text in texts {
        let start = std::time::Instant::now();
        for gold in ["4", "x^{99}", "\\sqrt{2}", "[0,2]"] {
            assert_eq!(judge(gold, &text), Verdict::Wrong, "{gold} {:.40}", text);
        }
        // Generous: counted steps are what bounds it.
        assert!(start.elapsed().as_secs() < 10, "{:.40}: {:?}", text, start.elapsed());
    }
}

/// Pieces of answers, of which any row is something that a model might write.
fn scraps() -> impl Strategy<Value = String> {
    let scraps = prop::sample::select(vec![
        "\\frac",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "\\boxed{",
        "1",
        "2",
        "10",
        "0",
        "x",
        "y",
        "i",
        "e",
        "\\pi",
        "+",
        "-",
        "*",
        "/",
        "^",
        "_",
        "=",
        "<",
        "\\le",
        ",",
        " ",
        "or",
        "and",
        "$",
        "\\sqrt",
        "!",
        "%",
        "|",
        "\\infty",
        "\\cup",
        "\\{",
        "\\}",
        "\\text{",
        "cm",
        ".",
        "\n",
        "####",
        "answer is",
        "\\begin{pmatrix}",
        "\\end{pmatrix}",
        "&",
        "\\\\",
        "\\pm",
        "ln",
        "\\sin",
        "^\\circ",
        ":",
        "½",
        "²",
        "é",
        "0.5",
        "1,000",
    ]);
    prop::collection::vec(scraps, 0..24).prop_map(|scraps| scraps.concat())
}

/// Scalars that have a meaning.
fn scalars() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        (1..60i32).prop_map(|n| n.to_string()),
        (1..40i32, 2..9i32).prop_map(|(a, b)| format!("\\frac{{{a}}}{{{b}}}")),
        prop::sample::select(vec!["x", "y", "\\pi", "\\sqrt{2}", "0.25", "e"]).prop_map(str::to_string),
    ];
    leaf.prop_recursive(3, 12, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) + ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})({b})")),
            (inner, 2..4i32).prop_map(|(a, n)| format!("({a})^{{{n}}}")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(gold in scraps(), text in scraps()) {
        judge(&gold, &text);
        judge(&text, &gold);
    }

    #[test]
    fn no_string_makes_it_panic(text in any::<String>()) {
        judge(&text, &text);
    }

    #[test]
    fn a_gold_in_a_box_is_right(gold in scalars()) {
        let boxed = format!("So it is $\\boxed{{{gold}}}$.");
        prop_assert_eq!(judge(&gold, &boxed), Verdict::Right, "{}", gold);
    }

    #[test]
    fn scalars_without_decimals_are_equal_both_ways(a in scalars(), b in scalars()) {
        prop_assume!(!a.contains('.') && !b.contains('.'));
        let boxed = |text: &str| format!("\\boxed{{{text}}}");
        prop_assert_eq!(judge(&a, &boxed(&b)), judge(&b, &boxed(&a)), "{} {}", a, b);
    }

    #[test]
    fn one_more_is_wrong(gold in scalars()) {
        let more = format!("\\boxed{{{gold} + 1}}");
        prop_assert_eq!(judge(&gold, &more), Verdict::Wrong, "{}", gold);
        let twice = format!("\\boxed{{2({gold})}}");
        prop_assert_eq!(judge(&gold, &twice), Verdict::Wrong, "{}", gold);
    }
}
