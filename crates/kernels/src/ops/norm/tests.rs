use super::*;
use crate::Isa;
use crate::ops::testing::*;

const EPS: f32 = 1e-6;

#[test]
fn every_path_agrees_with_the_reference() {
    for (rows, n) in [(0, 5), (1, 1), (3, 7), (2, 64), (5, 129), (300, 97), (70, 576)] {
        let (x, w, dy) = (random(1, rows * n), random(2, n), random(3, rows * n));
        let run = |device: &Device| {
            let (mut y, mut inv) = (unwritten(rows * n), unwritten(rows));
            rms_norm(device, view(&x), view(&w), EPS, view_mut(&mut y), view_mut(&mut inv));
            let (mut dx, mut dw) = (unwritten(rows * n), vec![1.0; n]);
            rms_norm_backward(device, view(&x), view(&w), view(&inv), view(&dy), view_mut(&mut dx), view_mut(&mut dw));
            vec![y, inv, dx, dw]
        };
        on_every_path(run, |out, path| {
            let what = format!("{path} {rows} x {n}");
            let (x, w, dy, eps) = (wide(&x), wide(&w), wide(&dy), f64::from(EPS));
            let inv: Vec<f64> = x.chunks_exact(n).map(|x| reference::inv_rms(x, eps)).collect();
            close(&out[0], &reference::rms_norm(&x, &w, eps), 1e-6, &what);
            close(&out[1], &inv, 1e-6, &what);
            let (dx, mut dw) = reference::rms_norm_backward(&x, &w, &inv, &dy);
            dw.iter_mut().for_each(|v| *v += 1.0);
            close(&out[2], &dx, 5e-6, &what);
            close(&out[3], &dw, 1e-5, &what);
        });
    }
}

#[test]
fn the_reference_backward_is_the_derivative() {
    let (x, w, dy) = (wide(&random(4, 15)), wide(&random(5, 5)), wide(&random(6, 15)));
    let inv: Vec<f64> = x.chunks_exact(5).map(|x| reference::inv_rms(x, 1e-3)).collect();
    let (dx, dw) = reference::rms_norm_backward(&x, &w, &inv, &dy);
    is_derivative(&dx, &x, &dy, |x| reference::rms_norm(x, &w, 1e-3));
    is_derivative(&dw, &w, &dy, |w| reference::rms_norm(&x, w, 1e-3));
}

#[test]
fn a_row_has_the_same_bits_alone_and_in_any_batch() {
    for isa in Isa::available() {
        let device = path(2, isa);
        let (rows, n) = (260, 93);
        let (x, w, dy) = (random(7, rows * n), random(8, n), random(9, rows * n));
        let run = |at: std::ops::Range<usize>| {
            let (x, dy) = (&x[at.start * n..at.end * n], &dy[at.start * n..at.end * n]);
            let (mut y, mut inv) = (unwritten(x.len()), unwritten(at.len()));
            rms_norm(&device, view(x), view(&w), EPS, view_mut(&mut y), view_mut(&mut inv));
            let (mut dx, mut dw) = (unwritten(x.len()), vec![0.0; n]);
            rms_norm_backward(&device, view(x), view(&w), view(&inv), view(dy), view_mut(&mut dx), view_mut(&mut dw));
            (y, inv, dx)
        };
        let whole = run(0..rows);
        for t in [0, 1, 17, 259] {
            let alone = run(t..t + 1);
            assert_eq!((alone.0.as_slice(), alone.1[0]), (&whole.0[t * n..][..n], whole.1[t]), "{}", isa.name());
            assert_eq!(alone.2, whole.2[t * n..][..n]);
        }
    }
}
