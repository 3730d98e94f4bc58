//! Exported and imported pages equal those that stayed, to the bit, and nothing else is found.
#![allow(clippy::unwrap_used)]

mod common;

use common::{KINDS, assert_same, config, device, params, random};
use minke_engine::{Engine, EngineConfig, Error};
use minke_model::MlaForm;
use minke_tensor::{Dtype, Isa};

const PAGES: usize = 16;

fn sizes(form: MlaForm, dtype: Dtype) -> EngineConfig {
    let config = EngineConfig::default().with_cache_dtype(dtype);
    config.with_pages(PAGES).with_max_sequences(2).with_chunk_tokens(64).with_form(form)
}

fn exported(engine: &Engine, ids: &[u32]) -> Vec<Result<Vec<u8>, Error>> {
    engine.export_prefix(0, ids, 0).map(Ok).collect()
}

#[test]
fn answers_behind_imported_pages_are_the_same_to_the_bit() {
    let device = device(1, Isa::detect());
    for (name, form, dtype) in KINDS {
        let config = config(name);
        let model = random(&device, &config);
        let engine = || Engine::new(&device, &config, sizes(form, dtype)).unwrap();
        let prompt: Vec<u32> = (0..150).map(|i| (i * 7 + 3) % config.vocab_size as u32).collect();
        let params = params(1.0, 5, 20);
        let (mut first, mut second) = (engine(), engine());
        first.submit(&prompt, &params, 1).unwrap();
        let want = first.run(&model).unwrap().remove(0);

        let pages = exported(&first, &prompt);
        assert_eq!((pages.len(), first.page_bytes()), (4, pages[0].as_ref().unwrap().len()));
        assert_eq!(second.import_prefix(0, &prompt, 0, pages).unwrap(), 128);
        // What is known already stays as it is.
        assert_eq!(second.import_prefix(0, &prompt, 0, exported(&first, &prompt)).unwrap(), 128);
        assert_eq!(second.stats().pages_free, PAGES);
        second.submit(&prompt, &params, 1).unwrap();
        let got = second.run(&model).unwrap().remove(0);
        assert_eq!((got.counts.cached, got.counts.prefilled), (128, 22));
        assert_same(&got, &want, name);
        assert_eq!((second.stats().prefix_hits, second.stats().prefilled), (128, 22));
        // A page in the middle comes behind those that are known.
        let mut third = engine();
        let mut pages = exported(&first, &prompt);
        let rest = pages.split_off(2);
        assert_eq!(third.import_prefix(0, &prompt, 2, exported(&first, &prompt)).unwrap(), 0, "nothing is known");
        assert_eq!(third.import_prefix(0, &prompt, 0, pages).unwrap(), 64);
        assert_eq!(third.import_prefix(0, &prompt, 2, rest).unwrap(), 128);
        assert_eq!((third.known_prefix(0, &prompt), third.known_prefix(1, &prompt)), (128, 0));
        // Other tokens find nothing.
        let other: Vec<u32> = prompt.iter().map(|id| id ^ 1).collect();
        assert_eq!(second.export_prefix(0, &other, 0).len(), 0);
    }
}

#[test]
fn pages_of_another_size_and_broken_sources_are_refused_and_what_came_before_stays() {
    let device = device(1, Isa::detect());
    let config = config("tiny-qwen2");
    let model = random(&device, &config);
    let mut first = Engine::new(&device, &config, sizes(MlaForm::Expanded, Dtype::F32)).unwrap();
    let prompt: Vec<u32> = (0..100).collect();
    first.submit(&prompt, &params(0.0, 0, 1), 1).unwrap();
    first.run(&model).unwrap();
    // A page of the other type is half as long.
    let half = exported(&first, &prompt).remove(0).unwrap().split_off(first.page_bytes() / 2);
    for broken in [Ok(vec![0; 3]), Ok(half), Err(Error::EmptyPrompt)] {
        let mut second = Engine::new(&device, &config, sizes(MlaForm::Expanded, Dtype::F32)).unwrap();
        let pages = exported(&first, &prompt).into_iter().take(1).chain([broken]);
        assert!(second.import_prefix(0, &prompt, 0, pages).is_err());
        assert_eq!((second.stats().pages_free, second.export_prefix(0, &prompt, 0).len()), (PAGES, 1));
    }
}

#[test]
fn a_small_cache_takes_the_beginning() {
    let device = device(1, Isa::detect());
    let config = config("tiny-qwen2");
    let model = random(&device, &config);
    let mut first = Engine::new(&device, &config, sizes(MlaForm::Expanded, Dtype::F32)).unwrap();
    let prompt: Vec<u32> = (0..190).collect();
    first.submit(&prompt, &params(0.0, 0, 1), 1).unwrap();
    first.run(&model).unwrap();
    let small = sizes(MlaForm::Expanded, Dtype::F32).with_pages(3);
    let mut second = Engine::new(&device, &config, small).unwrap();
    assert_eq!(second.import_prefix(0, &prompt, 0, exported(&first, &prompt)).unwrap(), 96);
    assert_eq!(second.export_prefix(0, &prompt, 0).len(), 3);
}
