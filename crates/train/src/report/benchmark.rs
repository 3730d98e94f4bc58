//! A page about the answers of one model to one set of problems.

use std::fmt::Write;

use minke_eval::published::Figure;
use minke_eval::{Answer, Header, Interval, Problem, TaskReport, Transcript};

use super::bars::{Bar, bars};
use super::markup::{escape, interval, percent};
use super::page::{answer, head, mode};

/// Answers that are shown whole, of each verdict.
const SHOWN: usize = 50;

/// What the page is made of.
pub struct Benchmark<'a> {
    /// What the answers are about.
    pub header: &'a Header,
    /// What they come to.
    pub report: &'a TaskReport,
    /// The problems, in order.
    pub problems: &'a [Problem],
    /// The answers, in the order of the problems.
    pub answers: &'a [Answer],
    /// What the makers of the model say.
    pub published: Option<&'a Figure>,
}

/// The page, which loads nothing else.
pub fn benchmark(page: &Benchmark<'_>) -> String {
    let Benchmark { header, report, .. } = page;
    let title = escape(&format!("{}: {}", header.model, header.task));
    let mut html = head(&title);
    let facts = [
        ("minke", header.minke.clone()),
        ("mode", mode(report)),
        ("model", short(&header.model_sha256)),
        ("problems", format!("{} of the file {}", header.problems, short(&header.data))),
        ("answers to each", header.samples.to_string()),
    ];
    let facts: Vec<String> = facts.iter().map(|(key, value)| format!("{key} {}", escape(value))).collect();
    let _ = writeln!(html, "<p><small>{}</small></p>", facts.join(" · "));
    let point =
        |name: &str, score: f64| Bar { name: name.to_owned(), value: score, interval: (score, score), blind: None };
    let measured = Bar {
        name: "measured".into(),
        value: report.pass_at_1.mean,
        interval: (report.pass_at_1.low.max(0.0), report.pass_at_1.high.min(1.0)),
        blind: None,
    };
    let beside = page.published.map(|figure| point("published", figure.score));
    let least = report.constant.as_ref().map(|(answer, score)| point(&format!("always {answer}"), *score));
    let shown: Vec<Bar> = [measured].into_iter().chain(beside).chain(least).collect();
    let _ = writeln!(html, "<div class=\"lead\">");
    html.extend(bars("pass@1 with 95 % interval", &shown));
    let _ = writeln!(html, "</div>");
    table(&mut html, page);
    problems(&mut html, page);
    transcripts(&mut html, page);
    html.push_str("</body></html>\n");
    html
}

/// The first digits of a hash.
fn short(hash: &str) -> String {
    hash.chars().take(12).collect()
}

fn table(html: &mut String, page: &Benchmark<'_>) {
    let report = page.report;
    let row = |name: &str, value: String| format!("<tr><td class=\"l\">{}</td><td>{value}</td></tr>", escape(name));
    let some = |name: &str, value: Option<String>| value.map(|value| row(name, value));
    let consensus = report.cons_at_k.filter(|_| page.header.samples > 1).map(|share: Interval| interval(&share));
    let mut rows = vec![row("pass@1, in %", interval(&report.pass_at_1))];
    rows.extend(report.pass_at_k.iter().skip(1).map(|(k, share)| row(&format!("pass@{k}"), percent(*share))));
    rows.extend(some(&format!("cons@{}", page.header.samples), consensus));
    rows.extend(page.published.map(|figure| row(&format!("published: {}", figure.source), percent(figure.score))));
    let constant =
        report.constant.as_ref().map(|(answer, share)| row(&format!("the answer {answer} to all"), percent(*share)));
    rows.extend(constant);
    rows.extend(some("tokens of an answer, mean", report.mean_tokens.map(|tokens| format!("{tokens:.1}"))));
    rows.extend(some("cut off", report.truncated.map(percent)));
    let dropped = (report.unusable > 0).then(|| report.unusable.to_string());
    rows.extend(some("problems that cannot be graded and do not count", dropped));
    let _ = writeln!(
        html,
        "<div class=\"scrolls\"><table>{}</table></div><p><small>95 % interval over problems, or over their clusters where the file names such. pass@k: \
         chance that one of k answers is right; cons@k: the majority's answer is right.</small></p>",
        rows.concat()
    );
}

/// A row for each problem.
fn problems(html: &mut String, page: &Benchmark<'_>) {
    let _ = writeln!(
        html,
        "<details><summary>Problem by problem</summary><div class=\"scrolls\"><table><tr><th class=\"l\">problem</th><th>right</th>\
         <th>answers</th><th class=\"l\">first answer</th></tr>"
    );
    for (problem, answers) in page.problems.iter().zip(page.answers.chunks(page.header.samples.max(1))) {
        let right = answers.iter().filter(|answer| answer.is_right()).count();
        let vote = answers.first().and_then(|answer| answer.vote.as_deref()).unwrap_or("–");
        let (name, vote) = (escape(&problem.name), escape(vote));
        let count = answers.len();
        let _ = writeln!(
            html,
            "<tr><td class=\"l\">{name}</td><td>{right}</td><td>{count}</td><td class=\"l\">{vote}</td></tr>"
        );
    }
    let _ = writeln!(html, "</table></div></details>");
}

/// The first answers to the first problems, wrong ones apart.
fn transcripts(html: &mut String, page: &Benchmark<'_>) {
    let first = |right: bool| {
        let answers = page.answers.chunks(page.header.samples.max(1)).filter_map(<[_]>::first);
        let of_kind = page.problems.iter().zip(answers).filter(move |(_, answer)| answer.is_right() == right);
        of_kind.take(SHOWN)
    };
    for (title, right) in [("Wrong answers", false), ("Right answers", true)] {
        let _ = writeln!(html, "<details><summary>{title}: the first {SHOWN}</summary>");
        for (problem, given) in first(right) {
            let tokens = given.drawn.as_ref().map(|drawn| drawn.tokens);
            let (question, text) = (problem.question.clone(), given.text.clone());
            answer(html, &Transcript { question, text, verdict: given.verdict, tokens });
        }
        let _ = writeln!(html, "</details>");
    }
}
