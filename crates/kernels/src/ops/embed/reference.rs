//! Reference implementation of the embedding.

/// The rows with the given ids. table [W, width], ids `[T]` -> [T, width]
pub fn embed(table: &[f64], width: usize, ids: &[u32]) -> Vec<f64> {
    ids.iter().flat_map(|&id| table[id as usize * width..][..width].iter().copied()).collect()
}

/// The gradient of the table. ids `[T]`, dy [T, width] -> [rows, width]
pub fn embed_backward(rows: usize, width: usize, ids: &[u32], dy: &[f64]) -> Vec<f64> {
    let mut dtable = vec![0.0; rows * width];
    for (t, &id) in ids.iter().enumerate() {
        for j in 0..width {
            dtable[id as usize * width + j] += dy[t * width + j];
        }
    }
    dtable
}
