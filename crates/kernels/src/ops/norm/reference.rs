//! Reference implementation of RMSNorm.

/// The normalised rows. x [T, n], weight `[n]` -> [T, n]
pub fn rms_norm(x: &[f64], weight: &[f64], eps: f64) -> Vec<f64> {
    let rows = x.chunks_exact(weight.len());
    rows.flat_map(|x| x.iter().zip(weight).map(move |(v, w)| v * inv_rms(x, eps) * w)).collect()
}

/// The inverse root mean square of one row, 1 / sqrt(mean(x^2) + eps).
pub fn inv_rms(x: &[f64], eps: f64) -> f64 {
    1.0 / (x.iter().map(|v| v * v).sum::<f64>() / x.len() as f64 + eps).sqrt()
}

/// The gradients dx and dweight. inv_rms `[T]` is that of the forward.
pub fn rms_norm_backward(x: &[f64], weight: &[f64], inv_rms: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let n = weight.len();
    let (mut dx, mut dweight) = (vec![0.0; x.len()], vec![0.0; n]);
    for (t, &r) in inv_rms.iter().enumerate() {
        let (x, dy) = (&x[t * n..][..n], &dy[t * n..][..n]);
        let dot: f64 = (0..n).map(|i| weight[i] * dy[i] * x[i]).sum();
        for j in 0..n {
            dx[t * n + j] = r * (weight[j] * dy[j] - x[j] * r * r / n as f64 * dot);
            dweight[j] += dy[j] * x[j] * r;
        }
    }
    (dx, dweight)
}
