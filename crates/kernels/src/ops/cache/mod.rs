//! How do new keys and values get into their pages? Each token's row is scattered to its place.

use super::attention::{Strides, TILE};
use crate::device::{Cpu, Parts};

/// Writes rows of heads to their places.
///
/// # Shapes
/// x [T, heads, width], places `[T]`: page * 32 + row in the page, all different; `to` holds pages laid out by `strides`
pub fn append(cpu: &Cpu, x: &[f32], (heads, width): (usize, usize), places: &[u32], strides: Strides, to: &mut [f32]) {
    assert_eq!(x.len(), places.len() * heads * width);
    if heads * width == 0 {
        return;
    }
    let last = |place: u32| {
        let (page, row) = (place as usize / TILE, place as usize % TILE);
        page * strides.unit + (heads - 1) * strides.head + row * strides.key + (width - 1) * strides.component
    };
    assert!(places.iter().all(|&place| last(place) < to.len()));
    let parts = Parts::new(to);
    const ROWS: usize = 32;
    cpu.run_if(x.len() > 20_000, places.len().div_ceil(ROWS), |task| {
        for t in task * ROWS..places.len().min((task + 1) * ROWS) {
            let (page, row) = (places[t] as usize / TILE, places[t] as usize % TILE);
            for h in 0..heads {
                let at = page * strides.unit + h * strides.head + row * strides.key;
                for (p, &value) in x[(t * heads + h) * width..][..width].iter().enumerate() {
                    // SAFETY: within the buffer (checked above); places differ, so tasks write different elements.
                    unsafe { *parts.pointer(at + p * strides.component) = value };
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn rows_land_in_both_layouts() {
        let cpu = Cpu::new(2, Isa::detect());
        let (heads, width) = (2, 3);
        let x: Vec<f32> = (0..2 * heads * width).map(|v| v as f32 + 1.0).collect();
        let places = [37u32, 5];
        let transposed = Strides { unit: heads * width * TILE, head: width * TILE, key: 1, component: TILE };
        let plain = Strides { unit: heads * width * TILE, head: width * TILE, key: width, component: 1 };
        for strides in [transposed, plain] {
            let mut to = vec![0.0; 2 * strides.unit];
            append(&cpu, &x, (heads, width), &places, strides, &mut to);
            for (t, (page, row)) in [(0, (1, 5)), (1, (0, 5))] {
                for h in 0..heads {
                    for p in 0..width {
                        let at = page * strides.unit + h * strides.head + row * strides.key + p * strides.component;
                        assert_eq!(to[at], x[(t * heads + h) * width + p]);
                    }
                }
            }
            assert_eq!(to.iter().filter(|v| **v != 0.0).count(), x.len());
        }
    }
}
