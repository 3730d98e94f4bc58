//! Reference implementation of cutting, joining and gathering.

/// The columns. x [T, width] -> [T, len]
pub fn columns(x: &[f64], width: usize, start: usize, len: usize) -> Vec<f64> {
    x.chunks_exact(width).flat_map(|row| row[start..start + len].iter().copied()).collect()
}

/// The gradient dx. dy [T, len] -> [T, width]
pub fn columns_backward(dy: &[f64], rows: usize, width: usize, start: usize, len: usize) -> Vec<f64> {
    let mut dx = vec![0.0; rows * width];
    for t in 0..rows {
        for j in 0..len {
            dx[t * width + start + j] = dy[t * len + j];
        }
    }
    dx
}

/// The joined rows. a [T, a_width], b [T, b_width] -> [T, a_width + b_width]
pub fn concat_columns(a: &[f64], a_width: usize, b: &[f64], b_width: usize, rows: usize) -> Vec<f64> {
    let mut y = Vec::new();
    for t in 0..rows {
        y.extend(&a[t * a_width..][..a_width]);
        y.extend(&b[t * b_width..][..b_width]);
    }
    y
}

/// The heads. x [T, heads, n], shared [T, r] -> [T, heads, n + r]
pub fn append_shared(x: &[f64], shared: &[f64], tokens: usize, (heads, n, r): (usize, usize, usize)) -> Vec<f64> {
    let mut y = Vec::new();
    for t in 0..tokens {
        for h in 0..heads {
            y.extend(&x[(t * heads + h) * n..][..n]);
            y.extend(&shared[t * r..][..r]);
        }
    }
    y
}

/// The gradients dx and dshared. dy [T, heads, n + r]
pub fn append_shared_backward(dy: &[f64], tokens: usize, (heads, n, r): (usize, usize, usize)) -> (Vec<f64>, Vec<f64>) {
    let (mut dx, mut dshared) = (Vec::new(), vec![0.0; tokens * r]);
    for t in 0..tokens {
        for h in 0..heads {
            let head = &dy[(t * heads + h) * (n + r)..][..n + r];
            dx.extend(&head[..n]);
            for j in 0..r {
                dshared[t * r + j] += head[n + j];
            }
        }
    }
    (dx, dshared)
}

/// `x` with the row added to each of its rows.
pub fn add_row(x: &[f64], row: &[f64]) -> Vec<f64> {
    x.iter().enumerate().map(|(i, v)| v + row[i % row.len()]).collect()
}

/// The sum of the rows. dy [T, width] -> `[width]`
pub fn column_sums(dy: &[f64], width: usize) -> Vec<f64> {
    (0..width).map(|j| dy.iter().skip(j).step_by(width).sum()).collect()
}

/// The rows with the given ids. x [T, width], ids `[S]` -> [S, width]
pub fn gather_rows(x: &[f64], width: usize, ids: &[u32]) -> Vec<f64> {
    ids.iter().flat_map(|&id| (0..width).map(move |j| x[id as usize * width + j])).collect()
}
