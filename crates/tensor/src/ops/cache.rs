//! The cache of keys and values of earlier tokens: pages of 32 tokens, one buffer per layer.

use minke_kernels::ops::attention::{Heads, Memory, Span, Strides};
use minke_kernels::ops::cache::{self, PAGE_TOKENS, Places};
use minke_kernels::{Device, Dtype, ViewMut};

use super::attention::run;
use crate::error::mismatch;
use crate::tensor::{Op, Pass, Result, Tensor};

/// The pages of one layer.
///
/// Keys of heads are stored transposed within a page, `[P, KV, W, 32]`, so that a page is a ready operand of the
/// product with queries; values are `[P, KV, 32, V]`. Latents are one buffer `[P, 32, C + R]` that serves as keys and,
/// in its first C columns, as values.
pub struct Pages {
    keys: Tensor,
    values: Option<Tensor>,
    heads: usize,
    width: usize,
    value_width: usize,
}

impl Pages {
    /// `pages` pages for keys and values of `heads` heads.
    pub fn keys_and_values(
        device: &Device,
        dtype: Dtype,
        pages: usize,
        heads: usize,
        width: usize,
        value_width: usize,
    ) -> Self {
        Self {
            keys: Tensor::zeros_as(device, dtype, &[pages, heads, width, PAGE_TOKENS]),
            values: Some(Tensor::zeros_as(device, dtype, &[pages, heads, PAGE_TOKENS, value_width])),
            heads,
            width,
            value_width,
        }
    }

    /// `pages` pages for latents of `width` columns, of which the first `value_width` are values.
    pub fn latents(device: &Device, dtype: Dtype, pages: usize, width: usize, value_width: usize) -> Self {
        let keys = Tensor::zeros_as(device, dtype, &[pages, PAGE_TOKENS, width]);
        Self { keys, values: None, heads: 1, width, value_width }
    }

    /// The number of pages.
    pub fn count(&self) -> usize {
        self.keys.shape().dims()[0]
    }

    /// The bytes of one page.
    pub fn page_bytes(&self) -> usize {
        let of = |x: &Tensor| x.shape().elements() * x.dtype().bytes();
        (of(&self.keys) + self.values.as_ref().map_or(0, of)) / self.count().max(1)
    }

    fn key_strides(&self) -> Strides {
        match self.values {
            Some(_) => {
                let head = self.width * PAGE_TOKENS;
                Strides { unit: self.heads * head, head, key: 1, component: PAGE_TOKENS }
            }
            None => Strides { unit: PAGE_TOKENS * self.width, head: 0, key: self.width, component: 1 },
        }
    }

    fn value_strides(&self) -> Strides {
        match self.values {
            Some(_) => {
                let head = self.value_width * PAGE_TOKENS;
                Strides { unit: self.heads * head, head, key: self.value_width, component: 1 }
            }
            None => self.key_strides(),
        }
    }

    /// Writes keys and values of new tokens, rounded to the type of the pages; the one operation that works in place, and it
    /// has no gradient.
    ///
    /// # Shapes
    /// k [T, KV, W], v [T, KV, V] (no v for latents: k [T, 1, C + R]), places `[T]`
    ///
    /// # Errors
    /// If the shapes do not fit the pages or a place lies outside.
    pub fn append(&mut self, pass: Pass<'_>, k: &Tensor, v: Option<&Tensor>, places: &Places) -> Result<()> {
        let tokens = places.len();
        let fits = |x: &Tensor, width: usize| x.shape().elements() == tokens * self.heads * width;
        if !fits(k, self.width) || v.is_some_and(|v| !fits(v, self.value_width)) || places.pages() > self.count() {
            return Err(mismatch("append", ("k", &k.shape()), ("pages", &self.keys.shape())));
        }
        let (key_strides, value_strides) = (self.key_strides(), self.value_strides());
        let write = |x: &Tensor, to: &mut Tensor, width: usize, strides: Strides| -> Result<()> {
            cache::append(pass.device, x.view("append")?, (self.heads, width), places, strides, to.floats_mut());
            Ok(())
        };
        write(k, &mut self.keys, self.width, key_strides)?;
        if let (Some(v), Some(values)) = (v, &mut self.values) {
            write(v, values, self.value_width, value_strides)?;
        }
        Ok(())
    }

    /// Copies one page onto another.
    pub fn copy_page(&mut self, device: &Device, from: usize, to: usize) {
        let count = self.count();
        for bytes in self.bytes_mut() {
            cache::copy_page(device, bytes, count, from, to);
        }
    }

    /// Appends the contents of one page to `bytes`: keys, then values, as they lie in memory.
    pub fn export_page(&self, page: usize, bytes: &mut Vec<u8>) {
        for buffer in [Some(&self.keys), self.values.as_ref()].into_iter().flatten() {
            let len = buffer.bytes().len() / self.count();
            bytes.extend(buffer.bytes().part(page * len..(page + 1) * len).read());
        }
    }

    /// Makes a page hold what [`Pages::export_page`] gave.
    ///
    /// # Panics
    /// If there are not exactly [`Pages::page_bytes`] bytes.
    pub fn import_page(&mut self, page: usize, bytes: &[u8]) {
        assert_eq!(bytes.len(), self.page_bytes(), "the contents of one page");
        let (count, mut rest) = (self.count(), bytes);
        for to in self.bytes_mut() {
            let len = to.len() / count;
            let (own, behind) = rest.split_at(len);
            to.part(page * len..(page + 1) * len).write(own);
            rest = behind;
        }
    }

    /// The bytes of keys, then of values, for writing.
    fn bytes_mut(&mut self) -> impl Iterator<Item = ViewMut<'_, u8>> {
        [Some(&mut self.keys), self.values.as_mut()].into_iter().flatten().map(Tensor::bytes_mut)
    }

    /// Causal attention of queries over the pages. Inference only.
    ///
    /// # Shapes
    /// q [T, H, W], tiles: the page list of every span -> [T, H, V]
    ///
    /// # Errors
    /// If the shapes do not fit the pages.
    pub fn attention(&self, pass: Pass<'_>, q: &Tensor, spans: &[Span], tiles: &[u32], scale: f32) -> Result<Tensor> {
        let shape = q.shape();
        let &[_, query, width] = shape.dims() else {
            return Err(mismatch("attention", ("q", &shape), ("pages", &self.keys.shape())));
        };
        if width != self.width || query % self.heads != 0 {
            return Err(mismatch("attention", ("q", &shape), ("pages", &self.keys.shape())));
        }
        let heads = Heads { query, key_value: self.heads, width, value_width: self.value_width };
        let memory = Memory {
            keys: self.keys.floats(),
            values: self.values.as_ref().unwrap_or(&self.keys).floats(),
            key_strides: self.key_strides(),
            value_strides: self.value_strides(),
            tiles,
        };
        let (out, _) = run(pass, q, memory, spans, heads, scale)?;
        Ok(out.made_by(pass, q.recorded(), || Op::Inference { op: "attention over pages", x: q.origin() }))
    }
}
