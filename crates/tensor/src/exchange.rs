//! Expert parallelism: rows travel to the rank that has their expert, and back.
//!
//! The ranks have some experts each, in their order. A rank has its rows sorted by expert, so what goes to another rank lies together.
//! There the rows of all ranks are sorted by expert, those of one expert by rank: the order that the tokens have in the whole batch.

use minke_kernels::Device;

use crate::comm::Comm;
use crate::shape::Shape;
use crate::tensor::{Exchange, Indices, Result, Tensor};

impl Exchange {
    /// The way of rows that lie as `offsets` says: the first row of every expert of all ranks, and the end.
    ///
    /// # Paper
    /// - V3 3.2.2 (all-to-all of expert parallelism)
    pub(crate) fn new(device: &Device, ranks: &Comm, offsets: &Indices) -> Result<Self> {
        let counts: Vec<u32> = offsets.read().windows(2).map(|pair| pair[1] - pair[0]).collect();
        let (experts, count) = (counts.len(), ranks.ranks());
        let parts: Vec<&[u32]> =
            (0..count).map(|rank| &counts[experts * rank / count..experts * (rank + 1) / count]).collect();
        let total = |part: &[u32]| part.iter().map(|&rows| rows as usize).sum::<usize>();
        let sent = parts.iter().map(|part| total(part)).collect();
        // Of every rank, how many rows it has for each expert here.
        let coming = ranks.all_to_all(&parts)?;
        let received: Vec<usize> = coming.iter().map(|part| total(part)).collect();
        let starts =
            |rank: usize, expert: usize| received[..rank].iter().sum::<usize>() + total(&coming[rank][..expert]);
        let (mut sorted, mut first) = (Vec::new(), vec![0]);
        for expert in 0..coming[0].len() {
            for (rank, part) in coming.iter().enumerate() {
                let start = starts(rank, expert) as u32;
                sorted.extend(start..start + part[expert]);
            }
            first.push(sorted.len() as u32);
        }
        let offsets = Indices::from_slice(device, &first);
        Ok(Self { ranks: ranks.clone(), sent, received, sorted, offsets })
    }

    /// The number of rows here.
    pub(crate) fn rows(&self) -> usize {
        self.sorted.len()
    }

    /// Rows of this rank's tokens to the ranks of their experts; returns the rows of all ranks for the experts here.
    pub(crate) fn there(&self, device: &Device, rows: &Tensor) -> Result<Tensor> {
        let width = rows.shape().width();
        let come = self.travel(&rows.read(), &self.sent, width)?;
        let mut values = Vec::with_capacity(come.len());
        for &row in &self.sorted {
            values.extend_from_slice(&come[row as usize * width..][..width]);
        }
        Ok(Tensor::from_slice(device, &[self.rows(), width], &values))
    }

    /// The other way: results, or gradients, of the rows here to the ranks of their tokens.
    pub(crate) fn back(&self, device: &Device, rows: &Tensor) -> Result<Tensor> {
        let (width, from) = (rows.shape().width(), rows.read());
        let mut values = vec![0.0; from.len()];
        for (&row, value) in self.sorted.iter().zip(from.chunks_exact(width)) {
            values[row as usize * width..][..width].copy_from_slice(value);
        }
        let come = self.travel(&values, &self.received, width)?;
        Ok(Tensor::from_slice(device, Shape::new(&[come.len() / width, width]).dims(), &come))
    }

    /// Sends so many rows to each rank, as they lie, and returns those that come, in the order of ranks.
    fn travel(&self, rows: &[f32], counts: &[usize], width: usize) -> Result<Vec<f32>> {
        let mut rest = rows;
        let cut = |count: &usize| {
            let (part, behind) = rest.split_at(count * width);
            rest = behind;
            part
        };
        let parts: Vec<&[f32]> = counts.iter().map(cut).collect();
        Ok(self.ranks.all_to_all(&parts)?.concat())
    }
}
