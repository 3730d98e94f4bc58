//! A worker whose weights are replaced: a request ends with those that it began with, and says which they were.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{Script, scripted};
use minke_chat::{
    ChatModel, Error, Event, Events, FinishReason, PolicyVersion, Prompt, Request, SamplingOptions, Worker,
    WorkerConfig,
};
use minke_tensor::Device;

fn version(number: u64) -> PolicyVersion {
    PolicyVersion { run: 7, number }
}

fn open(path: &Path, number: u64) -> ChatModel {
    ChatModel::open(path, &Device::open("cpu", 1).unwrap()).unwrap().with_policy_version(version(number))
}

/// A model that writes one letter for ever behind itself.
fn letter(folder: &Path, letter: &str, number: u64) -> ChatModel {
    open(&scripted(folder, letter, &[&["x", letter, letter]]), number)
}

fn request(worker: &Worker, max_tokens: usize) -> Request {
    let ids = worker.model().tokenizer.encode_plain(&"x".repeat(70));
    let options =
        SamplingOptions { max_tokens: Some(max_tokens), temperature: Some(0.0), ..SamplingOptions::default() };
    Request::new(Prompt::continued(ids)).with_options(options)
}

/// All events of a request, and its text.
fn all(events: &Events) -> (Vec<Event>, String) {
    let (mut seen, mut reply) = (Vec::new(), minke_chat::Reply::default());
    loop {
        let event = events.recv().unwrap();
        reply.add(&event);
        seen.push(event);
        if seen.last().is_some_and(|event| event.finish.is_some()) {
            return (seen, reply.content);
        }
    }
}

#[test]
fn requests_end_with_the_weights_that_they_began_with() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (letter(folder.path(), "a", 3), letter(folder.path(), "b", 4));
    let worker = Worker::start(Arc::new(a), WorkerConfig::default().with_max_running(4).for_rollouts()).unwrap();
    let before = worker.submit(request(&worker, 400)).unwrap();
    // It has begun, and its prompt is in the prefix cache.
    while before.recv().unwrap().token.is_none() {}
    worker.replace_model(Arc::new(b)).unwrap();
    let after = worker.submit(request(&worker, 20)).unwrap();
    let (events, text) = all(&before);
    assert_eq!(
        (text.trim_start_matches('a').len(), events.last().unwrap().finish.clone()),
        (0, Some(FinishReason::Length))
    );
    assert!(events.iter().all(|event| event.policy_version == Some(version(3))));
    let (events, text) = all(&after);
    assert_eq!(text, "b".repeat(20));
    assert!(events.iter().all(|event| event.policy_version == Some(version(4))));
    // Nothing of the old weights was found in the cache.
    assert_eq!(events.last().unwrap().usage.cached_tokens, 0);
    assert_eq!(worker.model().policy_version, Some(version(4)));
    // The same prompt again is found.
    let (events, _) = all(&worker.submit(request(&worker, 20)).unwrap());
    assert_eq!(events.last().unwrap().usage.cached_tokens, 64);
}

#[test]
fn weights_of_another_model_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let worker = Worker::start(Arc::new(letter(folder.path(), "a", 3)), WorkerConfig::default()).unwrap();
    let other = Script { chains: &[&["x", "b", "b"]], context: 128, ..Script::default() };
    let other = open(&other.write(folder.path(), "shorter"), 4);
    assert!(matches!(worker.replace_model(Arc::new(other)), Err(Error::AnotherModel)));
    let (events, text) = all(&worker.submit(request(&worker, 5)).unwrap());
    assert_eq!((text.as_str(), events.last().unwrap().policy_version), ("aaaaa", Some(version(3))));
}
