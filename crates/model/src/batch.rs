//! What does the model compute in one forward? Rows of tokens, packed, whatever they are for.

use std::sync::Arc;

use minke_tensor::{Device, Indices, Span, TILE};

/// Packed rows of tokens: whole training sequences, prefill chunks and decode rows are the same thing.
///
/// # Examples
/// ```
/// use minke_model::Batch;
/// use minke_tensor::{Cpu, Device, Isa};
/// let device = Device::Cpu(Cpu::new(1, Isa::detect()));
/// // Two sequences of three and two tokens: rows 0..3 and 3..5.
/// let batch = Batch::packed(&device, &[&[5, 6, 7], &[8, 9]]);
/// assert_eq!(batch.positions.values(), [0, 1, 2, 0, 1]);
/// assert_eq!(batch.spans[1].first_row, 3);
/// ```
#[derive(Clone)]
pub struct Batch {
    /// Token of each row. `[T]`
    pub token_ids: Indices,
    /// Position of each row in its sequence. `[T]`
    pub positions: Indices,
    /// The rows of each sequence.
    pub spans: Arc<[Span]>,
    /// Pages of each sequence, in order, one list behind the other (`Span::first_tile`); empty without a cache.
    pub page_table: Arc<[u32]>,
    /// Where each row's keys and values go: page * 32 + row in the page; empty without a cache. `[T]`
    pub places: Arc<[u32]>,
}

/// Neighbouring tokens of one sequence whose keys and values live in pages.
pub struct Chunk<'a> {
    /// The tokens.
    pub token_ids: &'a [u32],
    /// Position of the first of them.
    pub first_position: usize,
    /// Pages of the whole sequence so far, these tokens included.
    pub pages: &'a [u32],
}

impl Batch {
    /// Returns a batch of whole sequences that need no cache.
    pub fn packed(device: &Device, sequences: &[&[u32]]) -> Self {
        let (mut ids, mut positions, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        for tokens in sequences {
            spans.push(Span { first_row: ids.len(), rows: tokens.len(), first_position: 0, first_tile: 0 });
            ids.extend_from_slice(tokens);
            positions.extend(0..tokens.len() as u32);
        }
        Self {
            token_ids: Indices::from_slice(device, &ids),
            positions: Indices::from_slice(device, &positions),
            spans: spans.into(),
            page_table: Arc::default(),
            places: Arc::default(),
        }
    }

    /// Returns a batch of chunks that read and write pages.
    ///
    /// # Panics
    /// If a chunk has too few pages for its tokens.
    pub fn paged(device: &Device, chunks: &[Chunk<'_>]) -> Self {
        let (mut ids, mut positions, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        let (mut page_table, mut places) = (Vec::new(), Vec::new());
        for chunk in chunks {
            let rows = chunk.token_ids.len();
            let end = chunk.first_position + rows;
            assert!(chunk.pages.len() * TILE >= end, "{end} tokens do not fit {} pages", chunk.pages.len());
            spans.push(Span {
                first_row: ids.len(),
                rows,
                first_position: chunk.first_position,
                first_tile: page_table.len(),
            });
            ids.extend_from_slice(chunk.token_ids);
            positions.extend(chunk.first_position as u32..end as u32);
            places.extend((chunk.first_position..end).map(|p| chunk.pages[p / TILE] * TILE as u32 + (p % TILE) as u32));
            page_table.extend_from_slice(chunk.pages);
        }
        Self {
            token_ids: Indices::from_slice(device, &ids),
            positions: Indices::from_slice(device, &positions),
            spans: spans.into(),
            page_table: page_table.into(),
            places: places.into(),
        }
    }

    /// Returns the number of rows, T.
    pub fn rows(&self) -> usize {
        self.token_ids.len()
    }

    /// Returns the batch of the rows that have two more tokens behind them in their sequence, and which rows they are.
    /// Only for batches of whole sequences.
    pub(crate) fn rows_before_the_last_two(&self, device: &Device) -> (Self, Indices) {
        let tokens = self.token_ids.values();
        let sequences: Vec<&[u32]> =
            self.spans.iter().map(|s| &tokens[s.first_row..s.first_row + s.rows.saturating_sub(2)]).collect();
        let rows: Vec<u32> = self
            .spans
            .iter()
            .flat_map(|s| s.first_row as u32..(s.first_row + s.rows.saturating_sub(2)) as u32)
            .collect();
        (Self::packed(device, &sequences), Indices::from_slice(device, &rows))
    }
}
