//! A run laid out on a page.

use std::fmt::Write;

use minke_eval::{EvalConfig, TaskReport, Transcript, Verdict};

use super::bars::{Bar, bars};
use super::markup::{escape, interval, percent};
use super::plot::{Series, lines};
use super::read::{RunFiles, StageFiles};
use crate::grpo::{Finding, Tally};
use crate::metric;

const STYLE: &str = include_str!("style.css");

/// Steps that the curve of a run takes the mean of.
const WINDOW: usize = 9;

/// The page.
pub fn render(run: &RunFiles) -> String {
    let name = escape(run.run["name"].as_str().unwrap_or("run"));
    let mut html = head(&name);
    let facts = [
        ("seed", &run.run["seed"]),
        ("precision", &run.run["config"]["precision"]),
        ("commit", &run.run["commit"]),
        ("machine", &run.run["machine"]),
    ];
    let facts: Vec<String> = facts
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(key, value)| format!("{key} {}", escape(value.as_str().unwrap_or(&value.to_string()))))
        .collect();
    let _ = writeln!(html, "<p><small>{}</small></p>", facts.join(" · "));
    overview(&mut html, run);
    for stage in &run.stages {
        section(&mut html, stage);
    }
    let config = serde_json::to_string_pretty(&run.run["config"]).unwrap_or_default();
    let _ = writeln!(
        html,
        "<details><summary>Configuration</summary><pre>{}</pre></details></body></html>",
        escape(&config)
    );
    html
}

/// The beginning of a page with a title, which is markup already.
pub(super) fn head(title: &str) -> String {
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>{title}</title><style>{STYLE}</style></head>\
         <body><h1>{title}</h1>\n"
    )
}

/// The share of right answers over the steps of every stage of reinforcement learning as SVG; nothing if no stage
/// has begun.
pub fn curve(run: &RunFiles) -> Option<String> {
    let series: Vec<Series> = run
        .stages
        .iter()
        .filter(|stage| stage.kind == "grpo")
        .map(|stage| Series { name: stage.name.clone(), points: smoothed(&stage.curve(metric::ACCURACY)) })
        .filter(|series| !series.points.is_empty())
        .collect();
    lines("share of right answers to training questions, by step (mean of 9)", &series)
}

/// Each point with the mean of its window in place of its value: a step asks few questions.
fn smoothed(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mean = |window: &[(f64, f64)]| window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64;
    let window = |i: usize| &points[i.saturating_sub(WINDOW / 2)..points.len().min(i + WINDOW / 2 + 1)];
    points.iter().enumerate().map(|(i, point)| (point.0, mean(window(i)))).collect()
}

/// The curve of the run beside a figure of scores by task, and the table of scores.
fn overview(html: &mut String, run: &RunFiles) {
    let rows: Vec<(&StageFiles, &TaskReport)> =
        run.stages.iter().flat_map(|stage| stage.scores.iter().map(move |report| (stage, report))).collect();
    let tasks: std::collections::BTreeSet<(&str, &str)> =
        rows.iter().map(|(_, report)| (report.task.as_str(), report.side.name())).collect();
    let _ = writeln!(html, "<div class=\"plots\">{}", curve(run).unwrap_or_default());
    for (task, side) in tasks {
        let of_task: Vec<Bar> = rows
            .iter()
            .filter(|(_, report)| (report.task.as_str(), report.side.name()) == (task, side))
            .map(|(stage, report)| Bar {
                name: bar_name(stage, report),
                value: report.pass_at_1.mean,
                interval: (report.pass_at_1.low, report.pass_at_1.high),
                blind: report.search.map(|search| search.blind),
            })
            .collect();
        let line = if of_task.iter().any(|bar| bar.blind.is_some()) { "; line: blind search" } else { "" };
        html.extend(bars(&format!("{task}, {side}: pass@1 with 95 % interval{line}"), &of_task));
    }
    let _ = writeln!(html, "</div><h2>Held-out scores</h2>");
    let broken: Vec<(&StageFiles, &String)> =
        run.stages.iter().flat_map(|stage| stage.broken.iter().map(move |reason| (stage, reason))).collect();
    for (stage, reason) in &broken {
        let _ = writeln!(html, "<p><b>{}: {}</b></p>", escape(&stage.name), escape(reason));
    }
    if rows.is_empty() {
        if broken.is_empty() {
            let _ = writeln!(html, "<p>Not evaluated yet.</p>");
        }
        return;
    }
    let _ = writeln!(
        html,
        "<div class=\"scrolls\"><table><tr><th class=\"l\">stage</th><th class=\"l\">task</th><th class=\"l\">side</th><th class=\"l\">mode</th><th>problems</th>\
         <th>pass@1</th><th>blind</th><th>over blind</th><th>no repeats</th><th>constant</th><th>pass@k</th><th>cons@k</th><th>greedy</th><th>tokens</th><th>thought, right / wrong</th>\
         <th>attempts (blind's)</th><th>repeats</th><th>format</th><th>cut off</th><th>false claims</th></tr>"
    );
    for (stage, report) in &rows {
        row(html, stage, report);
    }
    let _ = writeln!(
        html,
        "</table></div><p><small>95 % intervals over problems, or over their clusters: problems about the same numbers or the \
         same program. Blind: the share that random attempts with a perfect check would solve, as many as the model makes; over \
         blind: how much better the model is; no repeats: the same without an attempt made twice; constant: one answer to all; \
         blind's: attempts that end with the first right one and are right as often as the model. Repeats: the share of \
         attempts that a thought makes again. pass@k: chance that one of k answers is right; \
         cons@k: the majority's answer is right. False claims: of the thoughts that end by claiming success, the share \
         before wrong answers.</small></p>"
    );
    differences(html, &rows);
}

fn bar_name(stage: &StageFiles, report: &TaskReport) -> String {
    let Some(config) = &report.config else { return stage.name.clone() };
    let forced = if config.force_thought { " forced" } else { "" };
    let cooler = if config.temperature == 1.0 { String::new() } else { format!(" T{}", config.temperature) };
    format!("{}{cooler}{forced}", stage.name)
}

/// What was asked, and how: scores of other questions cannot be compared.
fn question(report: &TaskReport) -> (&str, &'static str, &Option<EvalConfig>) {
    (&report.task, report.side.name(), &report.config)
}

/// What each stage gained over each other at the same problems in the same mode.
fn differences(html: &mut String, rows: &[(&StageFiles, &TaskReport)]) {
    let _ = writeln!(html, "<details><summary>Paired differences in pass@1, row less column, in points</summary>");
    let mut seen: Vec<(&str, &str, &Option<EvalConfig>)> = Vec::new();
    for (_, first) in rows {
        let mode = question(first);
        if seen.contains(&mode) {
            continue;
        }
        seen.push(mode);
        let alike: Vec<_> = rows.iter().filter(|(_, other)| question(other) == mode).collect();
        if alike.len() < 2 {
            continue;
        }
        let heads: String =
            alike.iter().map(|(stage, report)| format!("<th>{}</th>", escape(&bar_name(stage, report)))).collect();
        let _ = writeln!(
            html,
            "<div class=\"scrolls\"><table><tr><th class=\"l\">{}, {}</th>{heads}</tr>",
            escape(mode.0),
            mode.1
        );
        for (stage, report) in &alike {
            let cell = |(_, other): &&(&StageFiles, &TaskReport)| match report.gain_over(other) {
                Some(gain) if !std::ptr::eq(*report, *other) => format!("<td>{}</td>", interval(&gain)),
                _ => "<td></td>".into(),
            };
            let cells: String = alike.iter().map(cell).collect();
            let _ = writeln!(html, "<tr><td class=\"l\">{}</td>{cells}</tr>", escape(&bar_name(stage, report)));
        }
        let _ = writeln!(html, "</table></div>");
    }
    let _ = writeln!(html, "</details>");
}

fn row(html: &mut String, stage: &StageFiles, report: &TaskReport) {
    let (k, pass) = report.pass_at_k.last().copied().unwrap_or((1, 0.0));
    let number = |value: Option<f64>| value.map_or("–".into(), |v| format!("{v:.1}"));
    let share = |share: Option<f64>| share.map_or("–".into(), percent);
    let blind_attempts = report.search.and_then(|search| search.attempts_as_right);
    let blind_attempts = blind_attempts.map_or(String::new(), |attempts| format!(" ({attempts:.2})"));
    let cells = [
        report.problems.to_string(),
        interval(&report.pass_at_1),
        share(report.search.map(|search| search.blind)),
        report.search.map_or("–".into(), |search| interval(&search.gain)),
        share(report.search.map(|search| search.without_repeats)),
        share(report.constant.as_ref().map(|(_, share)| *share)),
        format!("{} (k = {k})", percent(pass)),
        report.cons_at_k.as_ref().map_or("–".into(), interval),
        report.greedy.as_ref().map_or("–".into(), interval),
        number(report.mean_tokens),
        format!("{} / {}", number(report.thought_tokens_right), number(report.thought_tokens_wrong)),
        report.attempts.map_or("–".into(), |attempts| format!("{attempts:.2}{blind_attempts}")),
        share(report.repeats),
        percent(report.format_rate),
        share(report.truncated),
        share(report.false_claims),
    ];
    let cells: String = cells.iter().map(|cell| format!("<td>{cell}</td>")).collect();
    let _ = writeln!(
        html,
        "<tr><td class=\"l\">{}</td><td class=\"l\">{}</td><td class=\"l\">{}</td><td class=\"l\">{}</td>{cells}</tr>",
        escape(&stage.name),
        escape(&report.task),
        report.side.name(),
        mode(report)
    );
}

/// How a model was asked.
pub(crate) fn mode(report: &TaskReport) -> String {
    let Some(config) = &report.config else { return "given".into() };
    let sampled = match config.temperature {
        0.0 => "greedy".to_owned(),
        temperature => format!("T = {temperature}"),
    };
    let top_p = if config.top_p < 1.0 { format!(", top-p {}", config.top_p) } else { String::new() };
    let forced = if config.force_thought { ", thought forced" } else { "" };
    let shots = config.shots.map_or(String::new(), |shots| format!(", {shots} shots"));
    format!("{sampled}{top_p}{forced}{shots}")
}

/// One stage: curves and rollouts.
fn section(html: &mut String, stage: &StageFiles) {
    let _ = writeln!(html, "<h2>{} <small>{}</small></h2>", escape(&stage.name), escape(&stage.kind));
    let steps = stage.metrics.len();
    let seconds: f64 = stage.timings.iter().filter_map(|line| line[metric::STEP_TIME].as_f64()).sum();
    let _ = writeln!(html, "<p><small>{steps} steps, {seconds:.0} s</small></p><div class=\"plots\">");
    let evals = stage.metric_names(metric::EVAL);
    let loads = stage.metric_names(metric::EXPERT_LOAD);
    let named = |names: &[&str]| names.iter().map(|name| (*name).to_string()).collect::<Vec<_>>();
    let figures = [
        ("loss", named(&[metric::LOSS, metric::NEXT, metric::MTP])),
        ("held-out accuracy", evals.into_iter().filter(|name| name.ends_with(metric::PASS_AT_1)).collect()),
        ("reward", named(&[metric::REWARD, metric::ACCURACY, metric::FORMAT])),
        ("length in tokens", named(&[metric::MEAN_LENGTH])),
        ("attempts", named(&[metric::ATTEMPTS])),
        ("entropy in nats", named(&[metric::ENTROPY])),
        (
            "groups without gradient",
            named(&[metric::FRAC_REWARD_ZERO_STD, metric::ALL_RIGHT, metric::ALL_WRONG, metric::CUT_OFF]),
        ),
        ("divergence from the reference", named(&[metric::KL])),
        ("gradient norm", named(&[metric::GRAD_NORM])),
        ("expert load: fullest over mean, less 1", loads),
    ];
    for (title, names) in figures {
        let series: Vec<Series> = names
            .into_iter()
            .map(|name| Series { points: stage.curve(&name), name })
            .filter(|series| !series.points.is_empty())
            .collect();
        html.extend(lines(title, &series));
    }
    let _ = writeln!(html, "</div>");
    reasons(html, stage);
    for (origin, transcripts) in stage.transcripts.iter().filter(|(_, transcripts)| !transcripts.is_empty()) {
        let _ = writeln!(html, "<details><summary>Answers to read: {}</summary>", escape(origin));
        transcripts.iter().for_each(|transcript| answer(html, transcript));
        let _ = writeln!(html, "</details>");
    }
}

/// Why a reward may not have risen: in how many steps of a stage of reinforcement learning each reason held.
fn reasons(html: &mut String, stage: &StageFiles) {
    let mut tally = Tally::default();
    for line in &stage.metrics {
        if let Some(step) = line[metric::STEP].as_u64() {
            tally.step(step, |name| line[name].as_f64(), stage.format_is_rewarded);
        }
    }
    let rows: String = tally
        .findings()
        .map(|Finding { reason, steps, first, last, .. }| {
            format!("<tr><td class=\"l\">{}</td><td>{steps}</td><td>{first}</td><td>{last}</td></tr>\n", reason.name())
        })
        .collect();
    if stage.kind == "grpo" && !rows.is_empty() {
        let head = "<tr><th class=\"l\">why a reward may not rise</th><th>steps</th><th>first</th><th>last</th></tr>";
        let _ = writeln!(html, "<div class=\"scrolls\"><table>{head}\n{rows}</table></div>");
    }
}

/// One answer with its question.
pub(super) fn answer(html: &mut String, transcript: &Transcript) {
    let (class, verdict) = match transcript.verdict {
        Verdict::Right => ("right", "right"),
        Verdict::Wrong => ("wrong", "wrong"),
        Verdict::GoldUnusable => ("", "problem unusable"),
    };
    let (thought, rest) = match transcript.text.split_once("</think>") {
        Some((thought, rest)) => (format!("{thought}</think>"), rest),
        None => (String::new(), transcript.text.as_str()),
    };
    let _ = writeln!(
        html,
        "<div class=\"rollout {class}\"><small>{verdict}{}</small><pre>{}</pre><pre><span \
         class=\"thought\">{}</span>{}</pre></div>",
        transcript.tokens.map_or(String::new(), |tokens| format!(", {tokens} tokens")),
        escape(&transcript.question),
        escape(&thought),
        escape(rest)
    );
}

#[cfg(test)]
mod tests {
    /// The report and the pages of a server look alike: what they call by the same name is the same.
    #[test]
    fn the_report_has_the_colours_of_the_pages() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../server/page/src/");
        let read = |name: &str| std::fs::read_to_string(format!("{page}{name}")).unwrap();
        let sheets = read("tokens.css") + &read("dashboard.css");
        let named = super::STYLE.lines().map(str::trim).filter(|line| line.starts_with("--"));
        let missing: Vec<&str> = named.clone().filter(|line| !sheets.contains(line)).collect();
        assert!(missing.is_empty() && named.count() > 10, "not as in the pages: {missing:?}");
    }
}
