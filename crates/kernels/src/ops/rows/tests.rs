use super::*;
use crate::ops::testing::*;

#[test]
fn columns_are_cut_joined_and_given_back() {
    for (rows, width, start, len) in [(0, 4, 1, 2), (1, 1, 0, 1), (3, 7, 2, 0), (5, 40, 3, 33), (400, 90, 17, 73)] {
        let (x, dy) = (random(1, rows * width), random(2, rows * len));
        let run = |device: &Device| {
            let (mut y, mut dx, mut joined) = (unwritten(rows * len), x.clone(), unwritten(rows * (width + len)));
            columns(device, view(&x), width, start, len, view_mut(&mut y));
            columns_backward_add(device, view(&dy), width, start, len, view_mut(&mut dx));
            concat_columns(device, view(&x), width, view(&y), len, view_mut(&mut joined));
            vec![y, dx, joined]
        };
        on_every_path(run, |out, path| {
            let (x, dy) = (wide(&x), wide(&dy));
            let y = reference::columns(&x, width, start, len);
            close(&out[0], &y, 0.0, path);
            let dx = reference::columns_backward(&dy, rows, width, start, len);
            close(&out[1], &x.iter().zip(dx).map(|(a, b)| a + b).collect::<Vec<_>>(), 1e-7, path);
            close(&out[2], &reference::concat_columns(&x, width, &y, len, rows), 0.0, path);
        });
    }
}

#[test]
fn heads_share_a_part_and_its_gradient_is_their_sum() {
    for (tokens, heads, n, r) in [(0, 2, 3, 4), (1, 1, 1, 1), (3, 2, 5, 0), (2, 3, 0, 4), (60, 6, 33, 64)] {
        let (x, shared) = (random(3, tokens * heads * n), random(4, tokens * r));
        let dy = random(5, tokens * heads * (n + r));
        let run = |device: &Device| {
            let (mut y, mut dx, mut dshared) = (unwritten(dy.len()), unwritten(x.len()), unwritten(shared.len()));
            append_shared(device, view(&x), view(&shared), (heads, n, r), view_mut(&mut y));
            append_shared_backward(device, view(&dy), (heads, n, r), view_mut(&mut dx), view_mut(&mut dshared));
            vec![y, dx, dshared]
        };
        on_every_path(run, |out, path| {
            close(&out[0], &reference::append_shared(&wide(&x), &wide(&shared), tokens, (heads, n, r)), 0.0, path);
            let (dx, dshared) = reference::append_shared_backward(&wide(&dy), tokens, (heads, n, r));
            close(&out[1], &dx, 0.0, path);
            close(&out[2], &dshared, 1e-6, path);
        });
    }
}

#[test]
fn a_row_is_added_to_rows_and_its_gradient_is_their_sum() {
    for (rows, width) in [(0, 3), (1, 1), (5, 40), (300, 131)] {
        let (x, row) = (random(6, rows * width), random(7, width));
        let run = |device: &Device| {
            let (mut y, mut drow) = (unwritten(x.len()), row.clone());
            add_row(device, view(&x), view(&row), view_mut(&mut y));
            column_sums_add(device, view(&x), width, view_mut(&mut drow));
            vec![y, drow]
        };
        on_every_path(run, |out, path| {
            close(&out[0], &reference::add_row(&wide(&x), &wide(&row)), 1e-7, path);
            let sums = reference::column_sums(&wide(&x), width);
            let drow: Vec<f64> = sums.iter().zip(&row).map(|(s, &r)| s + f64::from(r)).collect();
            close(&out[1], &drow, 1e-5, path);
        });
    }
}

#[test]
fn rows_are_gathered() {
    for (rows, width, ids) in [(3, 4, 0), (3, 0, 2), (1, 5, 4), (40, 70, 500)] {
        let (x, ids) = (random(8, rows * width), random_ids(9, ids, rows));
        let run = |device: &Device| {
            let mut y = unwritten(ids.len() * width);
            gather_rows(device, view(&x), width, view(&ids), view_mut(&mut y));
            vec![y]
        };
        on_every_path(run, |out, path| {
            close(&out[0], &reference::gather_rows(&wide(&x), width, &ids), 0.0, path);
        });
    }
}

#[test]
fn the_reference_backwards_are_derivatives() {
    let (x, dy) = (wide(&random(10, 15)), wide(&random(11, 6)));
    let dx = reference::columns_backward(&dy, 3, 5, 1, 2);
    is_derivative(&dx, &x, &dy, |x| reference::columns(x, 5, 1, 2));
    let (x, shared, dy) = (wide(&random(12, 12)), wide(&random(13, 6)), wide(&random(14, 24)));
    let (dx, dshared) = reference::append_shared_backward(&dy, 3, (2, 2, 2));
    is_derivative(&dx, &x, &dy, |x| reference::append_shared(x, &shared, 3, (2, 2, 2)));
    is_derivative(&dshared, &shared, &dy, |shared| reference::append_shared(&x, shared, 3, (2, 2, 2)));
    let (row, dy) = (wide(&random(15, 4)), wide(&random(16, 12)));
    is_derivative(&reference::column_sums(&dy, 4), &row, &dy, |row| reference::add_row(&x, row));
}
