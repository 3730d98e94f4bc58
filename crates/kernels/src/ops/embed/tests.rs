use super::*;
use crate::Bf16;
use crate::ops::testing::*;

#[test]
fn every_path_agrees_with_the_reference() {
    for (rows, width, tokens) in [(1, 1, 1), (5, 3, 0), (7, 33, 20), (50, 200, 300), (11, 0, 4)] {
        let (table, ids, dy) = (random(1, rows * width), random_ids(2, tokens, rows), random(3, tokens * width));
        let run = |device: &Device| {
            let (mut y, mut dtable) = (unwritten(tokens * width), vec![0.5; rows * width]);
            embed(device, Floats::F32(view(&table)), width, view(&ids), view_mut(&mut y));
            let held: Vec<Bf16> = table.iter().map(|&v| Bf16::from_f32(v)).collect();
            let mut rounded = unwritten(tokens * width);
            embed(device, Floats::Bf16(view(&held)), width, view(&ids), view_mut(&mut rounded));
            assert!(rounded.iter().zip(&y).all(|(a, &b)| *a == Bf16::from_f32(b).to_f32()), "{device:?}");
            embed_backward_add(device, width, view(&ids), view(&dy), view_mut(&mut dtable));
            vec![y, dtable]
        };
        on_every_path(run, |out, path| {
            close(&out[0], &reference::embed(&wide(&table), width, &ids), 0.0, path);
            let mut want = reference::embed_backward(rows, width, &ids, &wide(&dy));
            want.iter_mut().for_each(|v| *v += 0.5);
            close(&out[1], &want, 1e-5, path);
        });
    }
}

#[test]
fn the_reference_backward_is_the_derivative() {
    let (table, dy, ids) = (wide(&random(4, 12)), wide(&random(5, 15)), [3, 0, 3, 3, 1]);
    let dtable = reference::embed_backward(4, 3, &ids, &dy);
    is_derivative(&dtable, &table, &dy, |table| reference::embed(table, 3, &ids));
}

#[test]
fn an_unknown_id_is_refused_forward_and_backward() {
    let refused = |f: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(f)).is_err();
    for device in devices([1]) {
        assert!(refused(&|| embed(&device, Floats::F32(view(&[0.0; 6])), 2, view(&[3]), view_mut(&mut [0.0; 2]))));
        let table = [Bf16::ZERO; 6];
        assert!(refused(&|| embed(&device, Floats::Bf16(view(&table)), 2, view(&[3]), view_mut(&mut [0.0; 2]))));
        assert!(refused(&|| embed_backward_add(&device, 2, view(&[3]), view(&[0.0; 2]), view_mut(&mut [0.0; 6]))));
    }
}
