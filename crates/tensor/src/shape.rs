//! Shapes of tensors.

/// Up to four dimensions, held inline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    dims: [usize; 4],
    rank: u8,
}

impl Shape {
    /// The shape with the given dimensions, outermost first.
    ///
    /// # Panics
    /// If there are more than four.
    pub fn new(dims: &[usize]) -> Self {
        let mut inline = [1; 4];
        inline[..dims.len()].copy_from_slice(dims);
        Self { dims: inline, rank: dims.len() as u8 }
    }

    /// The dimensions, outermost first.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..usize::from(self.rank)]
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.dims().iter().product()
    }

    /// The last dimension; 1 for a scalar.
    pub fn width(&self) -> usize {
        self.dims().last().copied().unwrap_or(1)
    }

    /// The product of all dimensions but the last.
    pub fn rows(&self) -> usize {
        let dims = self.dims();
        dims[..dims.len().saturating_sub(1)].iter().product()
    }

    /// The shape with another last dimension.
    pub fn with_width(mut self, width: usize) -> Self {
        if self.rank == 0 {
            return Self::new(&[width]);
        }
        self.dims[usize::from(self.rank) - 1] = width;
        self
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}

impl std::fmt::Debug for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.dims())
    }
}
