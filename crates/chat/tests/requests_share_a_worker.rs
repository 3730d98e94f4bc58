//! Many requests, one engine thread: each as if it were alone, whatever becomes of the others.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Script, brooder, circler, talker, thinker, wanderer};
use minke_chat::{
    ChatModel, DiskCache, Error, Event, Events, FinishReason, MemoryPlanner, Prompt, Reply, Request, Result,
    SamplingOptions, ThoughtLimit, Worker, WorkerConfig,
};
use minke_engine::{Constraint, Speculation, Tenant};
use minke_tensor::{Device, PAGE_TOKENS};
use minke_text::{Message, RenderOptions};
use minke_weights::Archive;

fn start(path: &Path, config: WorkerConfig) -> Worker {
    Worker::start(Arc::new(ChatModel::open(path, &Device::open("cpu", 1).unwrap()).unwrap()), config).unwrap()
}

fn worker(model: fn(&Path) -> std::path::PathBuf) -> Worker {
    let folder = tempfile::tempdir().unwrap();
    start(&model(folder.path()), WorkerConfig::default())
}

fn request(worker: &Worker, question: &str, options: SamplingOptions) -> Request {
    let render = RenderOptions { add_generation_prompt: true, ..RenderOptions::default() };
    let prompt = worker.model().prompt(&[Message::user(question)], &render).unwrap();
    Request::new(prompt).with_options(options)
}

fn tokens(max_tokens: usize) -> SamplingOptions {
    SamplingOptions { max_tokens: Some(max_tokens), ..SamplingOptions::default() }
}

/// All events to the last, and what they add up to.
fn all(events: &Events) -> Result<(Vec<Event>, Reply)> {
    let (mut seen, mut reply) = (Vec::new(), Reply::default());
    loop {
        let event = events.recv()?;
        reply.add(&event);
        seen.push(event);
        if seen.last().is_some_and(|event| event.finish.is_some()) {
            return Ok((seen, reply));
        }
    }
}

fn ask(worker: &Worker, question: &str, options: SamplingOptions) -> Reply {
    all(&worker.submit(request(worker, question, options)).unwrap()).unwrap().1
}

/// Tokens, and the bits of their log-probabilities.
fn bits(events: &[Event]) -> Vec<(u32, u32)> {
    events
        .iter()
        .filter_map(|event| event.token.as_ref().map(|token| (token.token_id, token.log_prob.to_bits())))
        .collect()
}

#[test]
fn a_reply_has_thought_answer_and_counts() {
    let worker = worker(thinker);
    let (events, reply) = all(&worker.submit(request(&worker, "hello", tokens(50))).unwrap()).unwrap();
    assert_eq!((reply.reasoning.as_deref(), reply.content.as_str()), (Some("ab"), "8*3"));
    assert_eq!((reply.finish, reply.thought_closed), (FinishReason::Stop, None));
    let usage = reply.usage;
    // `<think>`, a, b, `</think>`, 8, *, 3 and the end of sentence.
    assert_eq!((usage.completion_tokens, usage.reasoning_tokens, events.len()), (8, 3, 8));
    assert_eq!((usage.prompt_tokens, usage.prefilled_tokens, usage.cached_tokens), (8, 8, 0));
    assert!(0.0 < usage.prompt_seconds && usage.prompt_seconds <= usage.seconds);
    let end = worker.submit(request(&worker, "hello", tokens(50))).unwrap();
    all(&end).unwrap();
    assert!(matches!(end.recv(), Err(Error::Stopped)), "nothing comes behind the last event");
}

#[test]
fn two_requests_progress_together() {
    let worker = worker(wanderer);
    let [one, two] = ["one", "two"].map(|question| worker.submit(request(&worker, question, tokens(400))).unwrap());
    let (one, two) = (all(&one).unwrap(), all(&two).unwrap());
    assert_eq!((one.1.usage.completion_tokens, two.1.usage.completion_tokens), (400, 400));
    // A step brings both a token; one after the other would take 800. The first may run ahead while the other is sent.
    let steps = worker.stats().unwrap().steps;
    assert!((400..750).contains(&steps), "{steps} steps");
}

#[test]
fn a_prompt_progresses_by_itself_while_another_answers() {
    let worker = worker(talker);
    let other = worker.submit(request(&worker, "other", tokens(400))).unwrap();
    other.recv().unwrap();
    let long = worker.submit(request(&worker, &"x".repeat(1000), tokens(2))).unwrap();
    let (events, reply) = all(&long).unwrap();
    let read: Vec<usize> = events.iter().map(|event| event.usage.prefilled_tokens).collect();
    // Half a chunk of 256 tokens beside one that answers.
    assert_eq!((read[0], *read.last().unwrap()), (128, reply.usage.prompt_tokens), "{read:?}");
    assert!(read.is_sorted() && reply.usage.prompt_tokens == 1003, "{read:?}");
    // The same prompt again is found in the cache, in pages of 32; the other's prompt is counted apart.
    let again = ask(&worker, &"x".repeat(1000), tokens(2));
    assert_eq!((again.usage.cached_tokens, again.usage.prefilled_tokens), (992, 1003));
    assert_eq!(all(&other).unwrap().1.usage.prompt_tokens, 8);
}

#[test]
fn cancelling_one_leaves_the_others_bits_unchanged() {
    let worker = worker(wanderer);
    let options = SamplingOptions { temperature: Some(1.0), seed: 5, ..tokens(300) };
    let alone = all(&worker.submit(request(&worker, "hello", options.clone())).unwrap()).unwrap().0;
    let cancelled = worker.submit(request(&worker, "another question", tokens(10_000))).unwrap();
    let kept = worker.submit(request(&worker, "hello", options.clone())).unwrap();
    let dropped = worker.submit(request(&worker, "a third one", tokens(10_000))).unwrap();
    (0..30).for_each(|_| drop(cancelled.recv().unwrap()));
    cancelled.cancel();
    drop(dropped);
    let kept = all(&kept).unwrap().0;
    assert_eq!(bits(&kept), bits(&alone));
    assert_eq!(bits(&alone).len(), 300);
    let (_, reply) = all(&cancelled).unwrap();
    assert_eq!(reply.finish, FinishReason::Cancelled);
    assert!(reply.usage.completion_tokens >= 30 && reply.usage.completion_tokens < 10_000);
    assert_eq!(worker.stats().unwrap().running, 0);
}

#[test]
fn a_dropped_receiver_cancels() {
    let worker = worker(brooder);
    let events = worker.submit(request(&worker, "hello", tokens(60_000))).unwrap();
    events.recv().unwrap();
    drop(events);
    let begun = Instant::now();
    while worker.stats().unwrap().running > 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "it goes on");
        std::thread::sleep(Duration::from_millis(1));
    }
    let stats = worker.stats().unwrap();
    assert!(stats.generated < 60_000 && stats.pages_free == stats.pages, "{stats:?}");
}

#[test]
fn a_budget_closes_a_thought_and_an_answer_follows() {
    let worker = worker(wanderer);
    let options = SamplingOptions { think_budget: Some(9), ..SamplingOptions::default() };
    let (events, reply) = all(&worker.submit(request(&worker, "hello", options.clone())).unwrap()).unwrap();
    assert_eq!((reply.thought_closed, reply.finish), (Some(ThoughtLimit::Budget), FinishReason::Stop));
    assert_eq!((reply.reasoning.as_ref().unwrap().len(), reply.content.as_str()), (9, "8*3"));
    assert_eq!(reply.usage.reasoning_tokens, 9);
    assert_eq!(events.iter().filter(|event| event.thought_closed.is_some()).count(), 1);
    // The opening tag, the thought, the closing tag with its newlines, `8*3` and the end.
    assert_eq!(reply.usage.completion_tokens, 1 + 9 + 4 + 4);
    // The largest number of tokens is that of both parts.
    let short = ask(&worker, "hello", SamplingOptions { max_tokens: Some(16), ..options.clone() });
    assert_eq!((short.finish, short.content.as_str()), (FinishReason::Length, "8*"));
    assert_eq!(short.usage.completion_tokens, 16);
    let shorter = ask(&worker, "hello", SamplingOptions { max_tokens: Some(12), ..options });
    assert_eq!((shorter.finish, shorter.content.as_str()), (FinishReason::Length, ""));
}

#[test]
fn a_loop_is_closed_beside_a_thought_that_is_none() {
    let worker = worker(circler);
    let loops = worker.submit(request(&worker, "hello", tokens(1000))).unwrap();
    let short = worker.submit(request(&worker, "hello", tokens(100))).unwrap();
    let (_, reply) = all(&loops).unwrap();
    assert_eq!((reply.thought_closed, reply.finish), (Some(ThoughtLimit::Repetition), FinishReason::Stop));
    // Four spans of 32 tokens.
    assert_eq!((reply.reasoning, reply.content.as_str()), (Some("ab".repeat(64)), "8*3"));
    let (_, reply) = all(&short).unwrap();
    assert_eq!((reply.thought_closed, reply.finish), (None, FinishReason::Length));
}

#[test]
fn a_request_that_does_not_fit_is_refused_alone() {
    let worker = worker(thinker);
    let fine = worker.submit(request(&worker, "hello", tokens(50))).unwrap();
    let long = worker.submit(request(&worker, &"x".repeat(300), tokens(50))).unwrap();
    let hot = SamplingOptions { temperature: Some(-1.0), ..tokens(50) };
    let hot = worker.submit(request(&worker, "hello", hot)).unwrap();
    let mut empty = Prompt::new("", &worker.model().tokenizer);
    empty.token_ids.clear();
    let empty = worker.submit(Request::new(empty)).unwrap();
    for (events, part) in [(long, "303 tokens"), (hot, "temperature = -1"), (empty, "prompt")] {
        let error = all(&events).unwrap_err();
        assert!(matches!(error, Error::Engine(_)) && error.to_string().contains(part), "{part}: {error}");
    }
    assert_eq!(all(&fine).unwrap().1.content, "8*3");
    assert_eq!(worker.limit(), 256);
}

#[test]
fn more_than_may_wait_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = WorkerConfig::default().with_max_running(1).with_max_waiting(1);
    let worker = start(&brooder(folder.path()), config);
    let running = worker.submit(request(&worker, "one", tokens(60_000))).unwrap();
    running.recv().unwrap();
    let waiting = worker.submit(request(&worker, "two", tokens(3))).unwrap();
    let refused = worker.submit(request(&worker, "three", tokens(3)));
    assert!(matches!(refused, Err(Error::Busy { unfinished: 2 })));
    drop(running);
    assert_eq!(all(&waiting).unwrap().1.usage.completion_tokens, 3);
    assert_eq!(ask(&worker, "three", tokens(3)).usage.completion_tokens, 3);
}

#[test]
fn a_dropped_worker_ends_what_it_works_on() {
    let folder = tempfile::tempdir().unwrap();
    let worker = start(&brooder(folder.path()), WorkerConfig::default().with_max_running(1));
    let running = worker.submit(request(&worker, "one", tokens(60_000))).unwrap();
    let mut begun = Reply::default();
    (0..5).for_each(|_| begun.add(&running.recv().unwrap()));
    let waiting = worker.submit(request(&worker, "two", tokens(60_000))).unwrap();
    drop(worker);
    let (_, reply) = all(&running).unwrap();
    assert_eq!(reply.finish, FinishReason::Cancelled);
    assert!(begun.reasoning.is_some_and(|thought| thought.starts_with("ab")));
    assert!((5..60_000).contains(&reply.usage.completion_tokens));
    assert_eq!(all(&waiting).unwrap().1.finish, FinishReason::Cancelled);
}

#[test]
fn stop_strings_end_the_answer_and_not_the_thought() {
    let worker = worker(thinker);
    let stopped = |stop: &[&str]| {
        let request = request(&worker, "hello", tokens(50)).with_stop(stop.iter().copied());
        all(&worker.submit(request).unwrap()).unwrap().1
    };
    let reply = stopped(&["b", "*3"]);
    assert_eq!((reply.reasoning.as_deref(), reply.content.as_str()), (Some("ab"), "8"));
    assert_eq!(reply.finish, FinishReason::StopString("*3".into()));
    // What only begins like one is given out at the end.
    let reply = stopped(&["*3 "]);
    assert_eq!((reply.content.as_str(), reply.finish), ("8*3", FinishReason::Stop));
}

#[test]
fn tags_count_by_id_special_or_not() {
    let folder = tempfile::tempdir().unwrap();
    let opens: &[&[&str]] = &[common::THINKS_AND_ANSWERS];
    let inside: &[&[&str]] = &[&["\n", "a", "b", "</think>", "8", "*", "3", minke_text::EOS]];
    let unopened: &[&[&str]] = &[&[minke_text::ASSISTANT, "a", "b", "</think>", "8", "*", "3", minke_text::EOS]];
    for (name, chains, prompt_opens) in
        [("opens", opens, false), ("inside", inside, true), ("unopened", unopened, false)]
    {
        for special_tags in [false, true] {
            let script = Script { chains, prompt_opens, special_tags, ..Script::default() };
            let worker =
                start(&script.write(folder.path(), &format!("{name}-{special_tags}")), WorkerConfig::default());
            let reply = ask(&worker, "hello", SamplingOptions::default());
            let found = (reply.reasoning.as_deref(), reply.content.as_str(), reply.usage.reasoning_tokens);
            assert_eq!(found, (Some("ab"), "8*3", 3), "{name}, special: {special_tags}");
        }
    }
    // A thought that must be closed is closed by the id, too.
    let wanders: &[&str] = &[minke_text::ASSISTANT, "<think>", "a", "a", "b", "b", "a"];
    let chains: &[&[&str]] = &[wanders, &["\n", "8", "*", "3", minke_text::EOS]];
    let script = Script { chains, special_tags: true, ..Script::default() };
    let worker = start(&script.write(folder.path(), "wanders"), WorkerConfig::default());
    let reply = ask(&worker, "hello", SamplingOptions { think_budget: Some(5), ..SamplingOptions::default() });
    assert_eq!((reply.reasoning.map(|thought| thought.len()), reply.content.as_str()), (Some(5), "8*3"));
}

#[test]
fn beginnings_of_prompts_outlive_the_worker() {
    let (folder, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = talker(folder.path());
    let disk = DiskCache { folder: cache.path().into(), most_bytes: 1 << 30, warn: |line| panic!("{line}") };
    let begin = || start(&path, WorkerConfig::default().with_disk_cache(disk.clone()));
    let long = "x".repeat(1000);
    let first = begin();
    let request_of = |worker: &Worker, tenant: u64| {
        let tenant = Tenant { share: tenant, prefixes: tenant };
        request(worker, &long, SamplingOptions { temperature: Some(1.0), ..tokens(40) }).with_tenant(tenant)
    };
    let alone = all(&first.submit(request_of(&first, 1)).unwrap()).unwrap().0;
    drop(first);
    let second = begin();
    let (events, reply) = all(&second.submit(request_of(&second, 1)).unwrap()).unwrap();
    assert_eq!(reply.usage.cached_tokens, 992);
    assert_eq!(bits(&events), bits(&alone));
    // Not for another tenant.
    let other = all(&second.submit(request_of(&second, 2)).unwrap()).unwrap().1;
    assert_eq!(other.usage.cached_tokens, 0);
    // A page in the middle that is gone: what stands before it is used.
    drop(second);
    let mut pages: Vec<_> = std::fs::read_dir(cache.path())
        .unwrap()
        .flat_map(|model| std::fs::read_dir(model.unwrap().path()).unwrap().map(|file| file.unwrap().path()))
        .collect();
    pages.sort();
    assert!(pages.len() > 60);
    pages.iter().step_by(2).for_each(|page| std::fs::remove_file(page).unwrap());
    let third = begin();
    let (events, reply) = all(&third.submit(request_of(&third, 1)).unwrap()).unwrap();
    assert!(reply.usage.cached_tokens < 992);
    assert_eq!(bits(&events), bits(&alone));
}

/// Thoughts and their budgets, stop strings, constraints, alternatives and counts of the embedded model, together, with
/// drafts and without.
#[test]
fn replies_are_the_same_with_drafts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/first-light");
    let ask_all = |speculation: Speculation| {
        let worker = start(&folder, WorkerConfig::default().with_max_running(4).with_speculation(speculation));
        let requests = (0..24u64).map(|i| {
            let options = SamplingOptions {
                temperature: Some([0.0, 0.6, 1.0][i as usize % 3]),
                seed: i,
                max_tokens: Some(20 + 7 * i as usize),
                think_budget: [None, Some(0), Some(5), Some(30)][i as usize % 4],
                ..SamplingOptions::default()
            };
            let question = format!("Use the numbers {}, {i} and 9 to make {}.", i + 3, 3 * i + 20);
            let request = request(&worker, &question, options).with_top_log_probs(2);
            match i % 5 {
                1 => request.with_stop(["1", "2", "3", "4", "5"]),
                // No token twice in a row.
                2 => request.with_answer(Constraint::new(|ids, mask| {
                    ids.iter().last().into_iter().for_each(|&id| mask.forbid(id))
                })),
                _ => request,
            }
        });
        let events: Vec<Events> = requests.map(|request| worker.submit(request).unwrap()).collect();
        let replies: Vec<_> = events
            .iter()
            .map(|events| {
                let (seen, reply) = all(events).unwrap();
                let usage = (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.reasoning_tokens);
                let alternatives: Vec<_> =
                    seen.iter().filter_map(|event| Some(event.token.as_ref()?.top_log_probs.clone())).collect();
                (bits(&seen), alternatives, reply.reasoning, reply.content, reply.finish, reply.thought_closed, usage)
            })
            .collect();
        (replies, worker.stats().unwrap())
    };
    let (want, plain) = ask_all(Speculation::Off);
    let (got, stats) = ask_all(Speculation::Always);
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        assert_eq!(got, want, "reply {i}");
    }
    assert_eq!(plain.drafted, 0);
    assert!(stats.accepted > 100 && stats.drafted > stats.accepted + 50, "{stats:?}");
    let ends = |end: fn(&FinishReason) -> bool| want.iter().any(|reply| end(&reply.4));
    assert!(ends(|end| *end == FinishReason::Stop) && ends(|end| *end == FinishReason::Length));
    assert!(ends(|end| matches!(end, FinishReason::StopString(_))));
}

#[test]
fn one_seed_gives_the_same_bits_a_hundred_times() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/first-light");
    let question = "Using the numbers [3, 5, 8], make 24.";
    let open = |threads: usize, context: Option<usize>| {
        let mut model = ChatModel::open(&path, &Device::open("cpu", threads).unwrap()).unwrap();
        model.context = context.unwrap_or(model.context);
        Worker::start(Arc::new(model), WorkerConfig::default()).unwrap()
    };
    let seeded = SamplingOptions { temperature: Some(0.6), seed: 16, ..tokens(60) };
    let told = |events: &Events| {
        let (events, reply) = all(events).unwrap();
        ((bits(&events), reply.reasoning, reply.content), reply.usage.cached_tokens)
    };
    let submit =
        |worker: &Worker, seeded: &SamplingOptions| worker.submit(request(worker, question, seeded.clone())).unwrap();
    let (alone, _) = told(&submit(&open(1, None), &seeded));
    assert_eq!(alone.0.len(), 60);
    let other = SamplingOptions { seed: 17, ..seeded.clone() };
    assert_ne!(told(&submit(&open(1, None), &other)).0, alone);
    let mut runs = 0;
    let mut check = |events: &Events, how: &str| {
        let (again, cached) = told(events);
        assert_eq!(again, alone, "{how}");
        runs += 1;
        cached
    };
    for threads in [1, 2] {
        // Alone, computed first and found in the cache then.
        let worker = open(threads, None);
        let cached: Vec<usize> = (0..17).map(|_| check(&submit(&worker, &seeded), "alone")).collect();
        assert!(cached[0] == 0 && cached[1..].iter().all(|cached| *cached >= 32), "{cached:?}");
        // In every place of a batch of eight, and beside seven others that come and go.
        for slot in 0..8 {
            let beside = |i: usize| SamplingOptions { seed: i as u64, ..tokens(5 + 9 * i) };
            let batch: Vec<Events> = (0..8)
                .map(|i| if i == slot { submit(&worker, &seeded) } else { submit(&worker, &beside(i)) })
                .collect();
            check(&batch[slot], "in a batch");
        }
        // With room for two of eight, so that pages are given up and computed again.
        let worker = open(threads, Some(8 * PAGE_TOKENS));
        for _ in 0..2 {
            let batch: Vec<Events> = (0..8).map(|_| submit(&worker, &seeded)).collect();
            for events in &batch {
                check(events, "after others");
            }
        }
        assert!(worker.stats().unwrap().preemptions > 0);
    }
    let worker = open(2, None);
    while runs < 100 {
        assert_eq!(told(&submit(&worker, &seeded)).0, alone);
        runs += 1;
    }
}

#[test]
fn every_request_takes_a_row_of_logits_from_the_context() {
    let archive = Archive::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/first-light")).unwrap();
    let planner = |max_running| MemoryPlanner::new(&archive).with_max_running(max_running);
    let (alone, many) = (planner(1).plan(512), planner(64).plan(512));
    let row = 4 * archive.config.vocab_size as u64;
    assert_eq!((many.work - alone.work, many.total - alone.total), (63 * row, 63 * row));
    // Each request decodes a row of its own, also where these are more than a chunk has.
    assert!(planner(1024).plan(512).work > alone.work + 1023 * row);
    // What does not fit beside those rows is refused before weights are read.
    assert_eq!(planner(1).context(alone.total, Some(512)).unwrap(), 512);
    assert!(matches!(planner(64).context(alone.total, Some(512)), Err(Error::DoesNotFit { .. })));
}
