//! Memory that a step takes from the system: once the engine is warm, none for tensors.
#![allow(clippy::unwrap_used)]
// Under the sanitizer every buffer is memory of its own.
#![cfg(not(exact_buffers))]

mod common;

use common::{KINDS, cases, config, params, random, run, spacious};
use minke_engine::Engine;
use minke_tensor::Device;

#[test]
fn a_step_allocates_nothing() {
    for (name, form, dtype) in KINDS {
        // One thread: with two, the most scratch that is held at once depends on how their tasks overlap.
        let device = Device::open("cpu", 1).unwrap();
        let model = random(&device, &config(name));
        let mut engine = Engine::new(&device, model.config(), spacious(form).with_cache_dtype(dtype)).unwrap();
        // Decoding: whatever page or tile is entered.
        engine.submit(&[1, 2, 3], &params(1.0, 0, 200), 16).unwrap();
        (0..3).for_each(|_| drop(engine.step(&model).unwrap()));
        let warm = device.system_allocations();
        assert!(warm > 0);
        while !engine.is_idle() {
            assert_eq!(engine.step(&model).unwrap().len(), 16);
            assert_eq!(device.system_allocations(), warm, "{name}, {form:?}, {dtype:?}, after {:?}", engine.stats());
        }
        // A mixed load of the same kind as one before.
        let cases = cases(30, model.config().vocab_size);
        run(&mut engine, &model, &cases);
        let warm = device.system_allocations();
        assert_eq!(run(&mut engine, &model, &cases).len(), 30);
        assert_eq!(device.system_allocations(), warm, "{name}, {form:?}, {dtype:?}, mixed");
    }
}
