//! Rows of tokens that one forward computes, packed, whatever they are for.

use std::sync::Arc;

use minke_tensor::{Device, Error, Indices, PAGE_TOKENS, Places, Span, Tensor};

use crate::Result;

/// Packed rows of tokens: whole training sequences, prefill chunks and decode rows are the same thing.
///
/// A batch is checked when it is made, so that no operation has to: rows of sequences lie one behind the other, pages
/// suffice, and no two rows have one place in the cache.
///
/// # Examples
/// ```
/// use minke_model::Batch;
/// use minke_tensor::Device;
/// let device = Device::open("cpu", 1)?;
/// // Two sequences of three and two tokens: rows 0..3 and 3..5.
/// let batch = Batch::packed(&device, &[&[5, 6, 7], &[8, 9]]);
/// assert_eq!(batch.positions().read(), [0, 1, 2, 0, 1]);
/// assert_eq!(batch.spans()[1].first_row, 3);
/// # Ok::<(), minke_tensor::DeviceError>(())
/// ```
#[derive(Clone)]
pub struct Batch {
    /// What `token_ids` holds, on the host.
    tokens: Arc<[u32]>,
    token_ids: Indices,
    positions: Indices,
    spans: Arc<[Span]>,
    page_table: Arc<[u32]>,
    places: Places,
    asked: Option<Arc<Asked>>,
}

/// The rows of a batch whose states are asked for, where those are not all: in the last layer the others end with their keys and
/// values.
pub(crate) struct Asked {
    /// Which rows these are. `[R]`
    pub rows: Indices,
    /// They alone. They write nothing: their keys and values are those of the whole batch.
    pub batch: Batch,
}

/// Rows that attend, or whose keys and values are attended to.
pub(crate) struct Rows<'a> {
    /// Their states as attention reads them. [T, D]
    pub x: &'a Tensor,
    pub batch: &'a Batch,
    /// [T, R]
    pub cos_sin: &'a Tensor,
}

impl Rows<'_> {
    /// Whether both are the same states, not others that happen to be equal.
    pub(crate) fn are(&self, other: &Self) -> bool {
        std::ptr::eq(self.x, other.x)
    }
}

/// Neighbouring tokens of one sequence whose keys and values live in pages.
pub struct Chunk<'a> {
    /// The tokens.
    pub token_ids: &'a [u32],
    /// Position of the first of them.
    pub first_position: usize,
    /// Pages of the whole sequence so far, these tokens included.
    pub pages: &'a [u32],
    /// How many of the last tokens' states are asked for.
    pub asked: usize,
}

/// What multi-token prediction computes: the rows of a batch that have two more tokens behind them in their sequence.
pub(crate) struct MtpRows {
    /// These rows.
    pub batch: Batch,
    /// Which rows of the whole batch they are. `[R]`
    pub rows: Vec<u32>,
    /// The token behind each. `[R]`
    pub next_ids: Indices,
    /// The token behind that. `[R]`
    pub target_ids: Indices,
}

impl Batch {
    /// A batch of whole sequences that need no cache.
    pub fn packed(device: &Device, sequences: &[&[u32]]) -> Self {
        let (mut ids, mut positions, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        for tokens in sequences {
            spans.push(Span { first_row: ids.len(), rows: tokens.len(), first_position: 0, first_tile: 0 });
            ids.extend_from_slice(tokens);
            positions.extend(0..tokens.len() as u32);
        }
        Self {
            token_ids: Indices::from_slice(device, &ids),
            tokens: ids.into(),
            positions: Indices::from_slice(device, &positions),
            spans: spans.into(),
            page_table: Arc::default(),
            places: Places::default(),
            asked: None,
        }
    }

    /// A batch of chunks that read and write pages.
    ///
    /// # Errors
    /// If a chunk has too few pages for its tokens or is asked for more states than it has, or two chunks would write to the same
    /// place.
    pub fn paged(device: &Device, chunks: &[Chunk<'_>]) -> Result<Self> {
        let (mut ids, mut positions, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        let (mut page_table, mut places, mut asked) = (Vec::new(), Vec::new(), Vec::new());
        for chunk in chunks {
            let rows = chunk.token_ids.len();
            let end = chunk.first_position + rows;
            if chunk.pages.len() * PAGE_TOKENS < end {
                let (left, right) = (format!("a sequence of {end} tokens"), format!("{} pages", chunk.pages.len()));
                return Err(Error::Shape { op: "batch", left, right }.into());
            }
            let Some(not_asked) = rows.checked_sub(chunk.asked) else {
                let (left, right) = (format!("{} states", chunk.asked), format!("{rows} tokens"));
                return Err(Error::Shape { op: "batch", left, right }.into());
            };
            asked.extend(ids.len() + not_asked..ids.len() + rows);
            spans.push(Span {
                first_row: ids.len(),
                rows,
                first_position: chunk.first_position,
                first_tile: page_table.len(),
            });
            ids.extend_from_slice(chunk.token_ids);
            positions.extend(chunk.first_position as u32..end as u32);
            let place = |p: usize| chunk.pages[p / PAGE_TOKENS] * PAGE_TOKENS as u32 + (p % PAGE_TOKENS) as u32;
            places.extend((chunk.first_position..end).map(place));
            page_table.extend_from_slice(chunk.pages);
        }
        let mut batch = Self {
            token_ids: Indices::from_slice(device, &ids),
            tokens: ids.into(),
            positions: Indices::from_slice(device, &positions),
            spans: spans.into(),
            page_table: page_table.into(),
            places: Places::new(places).map_err(Error::from)?,
            asked: None,
        };
        if asked.len() < batch.rows() {
            batch.asked = Some(batch.last_rows(device, &asked, chunks).into());
        }
        Ok(batch)
    }

    /// The rows that are asked for: the last ones of each chunk.
    fn last_rows(&self, device: &Device, rows: &[usize], chunks: &[Chunk<'_>]) -> Asked {
        let of = |list: &[u32]| -> Vec<u32> { rows.iter().map(|&row| list[row]).collect() };
        let mut first_row = 0;
        let spans = self.spans.iter().zip(chunks).map(|(span, chunk)| {
            first_row += chunk.asked;
            Span {
                first_row: first_row - chunk.asked,
                rows: chunk.asked,
                first_position: span.first_position + span.rows - chunk.asked,
                first_tile: span.first_tile,
            }
        });
        let ids = of(&self.tokens);
        let batch = Self {
            token_ids: Indices::from_slice(device, &ids),
            tokens: ids.into(),
            positions: Indices::from_slice(device, &of(&self.positions.read())),
            spans: spans.filter(|span| span.rows > 0).collect(),
            page_table: Arc::clone(&self.page_table),
            places: Places::default(),
            asked: None,
        };
        let rows: Vec<u32> = rows.iter().map(|&row| row as u32).collect();
        Asked { rows: Indices::from_slice(device, &rows), batch }
    }

    /// The number of rows, T.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// The token of each row, on the host. `[T]`
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The token of each row. `[T]`
    pub fn token_ids(&self) -> &Indices {
        &self.token_ids
    }

    /// The position of each row in its sequence. `[T]`
    pub fn positions(&self) -> &Indices {
        &self.positions
    }

    /// The rows of each sequence.
    pub fn spans(&self) -> &Arc<[Span]> {
        &self.spans
    }

    /// Pages of each sequence, in order, one list behind the other (`Span::first_tile`); empty without a cache.
    pub fn page_table(&self) -> &[u32] {
        &self.page_table
    }

    /// Where each row's keys and values go; empty without a cache. `[T]`
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// The rows whose states are asked for, if they are not all.
    pub(crate) fn asked(&self) -> Option<&Asked> {
        self.asked.as_deref()
    }

    /// The rows for multi-token prediction. Only for batches of whole sequences.
    pub(crate) fn mtp_rows(&self, device: &Device) -> MtpRows {
        let range = |s: &Span| s.first_row..s.first_row + s.rows.saturating_sub(2);
        let sequences: Vec<&[u32]> = self.spans.iter().map(|s| &self.tokens[range(s)]).collect();
        let rows: Vec<u32> = self.spans.iter().flat_map(|s| range(s).map(|row| row as u32)).collect();
        let ahead = |by: usize| -> Vec<u32> { rows.iter().map(|&row| self.tokens[row as usize + by]).collect() };
        MtpRows {
            batch: Self::packed(device, &sequences),
            next_ids: Indices::from_slice(device, &ahead(1)),
            target_ids: Indices::from_slice(device, &ahead(2)),
            rows,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_when_a_batch_is_made() {
        let device = Device::open("cpu", 1).unwrap();
        let chunk =
            |first_position, pages: &'static [u32]| Chunk { token_ids: &[1, 2], first_position, pages, asked: 2 };
        let refused = |chunks: &[Chunk<'_>]| Batch::paged(&device, chunks).err().unwrap().to_string();
        assert_eq!(refused(&[chunk(31, &[4])]), "batch: a sequence of 33 tokens does not fit 1 pages");
        assert_eq!(refused(&[Chunk { asked: 3, ..chunk(0, &[4]) }]), "batch: 3 states does not fit 2 tokens");
        // The second token of the first chunk and the first of the second.
        assert_eq!(refused(&[chunk(2, &[4]), chunk(3, &[4])]), "two tokens would go to row 3 of page 4");
        let batch = Batch::paged(&device, &[chunk(31, &[4, 0]), chunk(0, &[7])]).unwrap();
        assert_eq!(batch.places().read(), [159, 0, 224, 225]);
        assert_eq!((batch.page_table(), batch.places().pages()), (&[4, 0, 7][..], 8));
    }
}
