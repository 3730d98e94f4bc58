//! Appending of new keys and values to their pages: each token's row is scattered to its place.

pub mod reference;
#[cfg(test)]
mod tests;

mod cpu;

use std::sync::Arc;

use super::attention::{Strides, TILE};
use crate::element::{Element, FloatsMut};
use crate::{Device, Pod, View, ViewMut};

/// Tokens per page.
pub const PAGE_TOKENS: usize = 32;
// Attention walks a page as one of its tiles.
const _: () = assert!(PAGE_TOKENS == TILE);

/// Where the rows of new tokens go: `page * 32 + row in the page`, all different. Clones share the list.
#[derive(Clone, Debug, Default)]
pub struct Places {
    list: Arc<[u32]>,
    pages: usize,
}

/// A place that two tokens were given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedPlace(pub u32);

impl std::fmt::Display for SharedPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (page, row) = (self.0 as usize / PAGE_TOKENS, self.0 as usize % PAGE_TOKENS);
        write!(f, "two tokens would go to row {row} of page {page}")
    }
}

impl std::error::Error for SharedPlace {}

impl Places {
    /// The places.
    ///
    /// # Errors
    /// If one appears twice.
    pub fn new(list: Vec<u32>) -> Result<Self, SharedPlace> {
        let mut sorted = list.clone();
        sorted.sort_unstable();
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(SharedPlace(pair[0]));
        }
        let pages = sorted.last().map_or(0, |&last| last as usize / PAGE_TOKENS + 1);
        Ok(Self { list: list.into(), pages })
    }

    /// The number of places.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The number of pages that a cache with all these places has at least.
    pub fn pages(&self) -> usize {
        self.pages
    }

    /// Copies the places to the host.
    pub fn read(&self) -> Vec<u32> {
        self.list.to_vec()
    }
}

/// Writes rows of heads to their places, rounded to the type of the pages.
///
/// # Shapes
/// x [T, heads, width], places `[T]`; `to` holds pages laid out by `strides`
pub fn append(
    device: &Device,
    x: View<'_, f32>,
    size: (usize, usize),
    places: &Places,
    strides: Strides,
    to: FloatsMut<'_>,
) {
    match to {
        FloatsMut::F32(to) => append_as(device, x, size, places, strides, to),
        FloatsMut::Bf16(to) => append_as(device, x, size, places, strides, to),
    }
}

fn append_as<T: Element>(
    device: &Device,
    x: View<'_, f32>,
    (heads, width): (usize, usize),
    places: &Places,
    strides: Strides,
    to: ViewMut<'_, T>,
) {
    assert_eq!(x.len(), places.len() * heads * width);
    if heads * width == 0 || places.is_empty() {
        return;
    }
    // No stride is negative, so that this is the last element of all.
    let last = (places.pages - 1) * strides.unit
        + (heads - 1) * strides.head
        + (PAGE_TOKENS - 1) * strides.key
        + (width - 1) * strides.component;
    assert!(last < to.len());
    match device {
        Device::Cpu(cpu) => cpu::append(cpu, x.host(), (heads, width), &places.list, strides, to.host()),
        Device::Reference(_) => reference::append(x.host(), (heads, width), &places.list, strides, to.host()),
    }
}

/// Copies one of `count` pages onto another.
///
/// # Shapes
/// pages [count, ..]
pub fn copy_page<T: Pod>(device: &Device, pages: ViewMut<'_, T>, count: usize, from: usize, to: usize) {
    assert!(from < count && to < count && pages.len().is_multiple_of(count));
    let len = pages.len() / count;
    match device {
        // A page is a few kilobytes: less than waking a thread costs.
        Device::Cpu(_) | Device::Reference(_) => pages.host().copy_within(from * len..(from + 1) * len, to * len),
    }
}
