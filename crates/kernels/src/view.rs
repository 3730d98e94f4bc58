//! Views of buffers: what operations take. A view says where values lie, not how to reach them; only this crate looks
//! through it, in the arm of the device that owns the memory.

use std::ops::Range;

use crate::pod::Pod;

/// Values in memory of a device, for reading.
#[derive(Debug)]
pub struct View<'a, T> {
    /// Of the devices that compute in memory of the host: the values.
    host: &'a [T],
}

impl<T> Clone for View<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for View<'_, T> {}

impl<'a, T: Pod> View<'a, T> {
    pub(crate) fn of(host: &'a [T]) -> Self {
        Self { host }
    }

    /// The number of values.
    pub fn len(self) -> usize {
        self.host.len()
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.host.is_empty()
    }

    /// The values from `range.start` to before `range.end`.
    ///
    /// # Panics
    /// If they do not lie in the view.
    pub fn part(self, range: Range<usize>) -> Self {
        Self { host: &self.host[range] }
    }

    /// Copies the values to the host.
    pub fn read(self) -> Vec<T> {
        self.host.to_vec()
    }

    /// Copies the values to memory of the host.
    ///
    /// # Panics
    /// If their number is another.
    pub fn read_into(self, to: &mut [T]) {
        to.copy_from_slice(self.host);
    }

    /// The values, for an arm of a device that computes in memory of the host.
    pub(crate) fn host(self) -> &'a [T] {
        self.host
    }
}

impl View<'_, f32> {
    /// The values in f64, as references compute.
    pub(crate) fn wide(self) -> Vec<f64> {
        self.host.iter().map(|&value| f64::from(value)).collect()
    }
}

/// Values in memory of a device, for writing.
#[derive(Debug)]
pub struct ViewMut<'a, T> {
    host: &'a mut [T],
}

impl<'a, T: Pod> ViewMut<'a, T> {
    pub(crate) fn of(host: &'a mut [T]) -> Self {
        Self { host }
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.host.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.host.is_empty()
    }

    /// The values from `range.start` to before `range.end`.
    ///
    /// # Panics
    /// If they do not lie in the view.
    pub fn part(self, range: Range<usize>) -> Self {
        Self { host: &mut self.host[range] }
    }

    /// The same values, for one operation of several.
    pub fn again(&mut self) -> ViewMut<'_, T> {
        ViewMut { host: self.host }
    }

    /// Copies values of the host into the view.
    ///
    /// # Panics
    /// If their number is not that of the view.
    pub fn write(self, values: &[T]) {
        self.host.copy_from_slice(values);
    }

    /// The values, for an arm of a device that computes in memory of the host.
    pub(crate) fn host(self) -> &'a mut [T] {
        self.host
    }
}

impl ViewMut<'_, f32> {
    /// Writes what a reference computed, rounded once.
    pub(crate) fn set(self, values: &[f64]) {
        assert_eq!(self.host.len(), values.len());
        self.host.iter_mut().zip(values).for_each(|(to, &value)| *to = value as f32);
    }

    /// Adds what a reference computed, rounded once.
    pub(crate) fn add(self, values: &[f64]) {
        assert_eq!(self.host.len(), values.len());
        self.host.iter_mut().zip(values).for_each(|(to, &value)| *to = (f64::from(*to) + value) as f32);
    }
}
