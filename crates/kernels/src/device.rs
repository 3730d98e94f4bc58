//! Devices, and the buffers that belong to them.
//!
//! A buffer goes back to its device when it is dropped and is handed out again, so a step that repeats allocates
//! nothing from the system; [`Device::system_allocations`] counts, and a test of the engine holds it at zero.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::{DEVICE_NAMES, Error};
use crate::isa::Isa;
use crate::pod::Pod;
use crate::threads::Threads;
use crate::view::{View, ViewMut};

/// What computes: every operation matches on it once. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Device {
    /// The tuned kernels, on threads of this process.
    Cpu(Cpu),
    /// The references of all operations: plain loops in f64 on one thread, rounded to f32 where a result is stored.
    Reference(Reference),
}

impl Device {
    /// The names that [`Device::open`] takes.
    pub const NAMES: [&str; 2] = DEVICE_NAMES;

    /// The device called `name`, with `threads` threads where a device has threads.
    ///
    /// # Errors
    /// If there is no such device, or the system does not give the threads.
    pub fn open(name: &str, threads: usize) -> Result<Self, Error> {
        match name {
            "cpu" => Self::cpu(threads, Isa::detect()),
            "reference" => Ok(Self::reference()),
            _ => Err(Error::UnknownDevice { name: name.into() }),
        }
    }

    /// The processor with `threads` threads (the caller's is one of them) on an instruction-set path.
    ///
    /// # Errors
    /// If the system does not give the threads.
    pub fn cpu(threads: usize, isa: Isa) -> Result<Self, Error> {
        Cpu::new(threads, isa).map(Self::Cpu)
    }

    /// The device of references.
    pub fn reference() -> Self {
        Self::Reference(Reference::default())
    }

    /// Every path of this machine with `threads` threads, the fastest first, and the device of references.
    ///
    /// # Errors
    /// If the system does not give the threads.
    pub fn all(threads: usize) -> Result<Vec<Self>, Error> {
        let paths = Isa::available().into_iter().map(|isa| Self::cpu(threads, isa));
        paths.chain([Ok(Self::reference())]).collect()
    }

    /// What results depend on beside the inputs: the instruction-set path, or `reference`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cpu(cpu) => cpu.isa().name(),
            Self::Reference(_) => "reference",
        }
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        match self {
            Self::Cpu(cpu) => cpu.threads(),
            Self::Reference(_) => 1,
        }
    }

    /// The same device, which keeps to the thread of the caller: for several callers at once.
    pub fn serial(&self) -> Self {
        match self {
            Self::Cpu(cpu) => Self::Cpu(cpu.serial()),
            Self::Reference(reference) => Self::Reference(reference.clone()),
        }
    }

    /// A buffer for `len` values of type `T`; its contents are unspecified but initialized.
    pub fn buffer<T: Pod>(&self, len: usize) -> Buffer {
        match self {
            Self::Cpu(cpu) => cpu.buffer::<T>(len),
            Self::Reference(reference) => Buffer::new::<T>(&reference.store, len),
        }
    }

    /// A buffer of `len` zeros of type `T`.
    pub fn zeros<T: Pod>(&self, len: usize) -> Buffer {
        let mut buffer = self.buffer::<T>(len);
        match self {
            Self::Cpu(_) | Self::Reference(_) => buffer.as_mut_slice::<u8>().fill(0),
        }
        buffer
    }

    /// A buffer with a copy of values of the host.
    pub fn upload<T: Pod>(&self, values: &[T]) -> Buffer {
        let mut buffer = self.buffer::<T>(values.len());
        buffer.view_mut().write(values);
        buffer
    }

    /// How often memory was asked of the system since the device was made.
    pub fn system_allocations(&self) -> u64 {
        self.store().allocations.load(Ordering::Relaxed)
    }

    /// The bytes that the device holds, in use or waiting for reuse.
    pub fn held_bytes(&self) -> u64 {
        self.store().held_bytes.load(Ordering::Relaxed)
    }

    fn store(&self) -> &Store {
        match self {
            Self::Cpu(cpu) => &cpu.inner.store,
            Self::Reference(reference) => &reference.store,
        }
    }
}

/// The device of references. Cheap to clone.
#[derive(Clone, Default)]
pub struct Reference {
    store: Arc<Store>,
}

impl std::fmt::Debug for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reference")
    }
}

/// The processor as a device: threads, an instruction-set path and a store of buffers. Cheap to clone.
#[derive(Clone)]
pub struct Cpu {
    inner: Arc<Inner>,
    /// Whether `run` keeps to the caller's thread.
    serial: bool,
}

struct Inner {
    isa: Isa,
    threads: Threads,
    store: Arc<Store>,
}

impl Cpu {
    fn new(threads: usize, isa: Isa) -> Result<Self, Error> {
        let threads = threads.max(1);
        let threads = Threads::new(threads).map_err(|source| Error::Thread { threads, source })?;
        let inner = Inner { isa, threads, store: Arc::default() };
        Ok(Self { inner: Arc::new(inner), serial: false })
    }

    /// The same device restricted to the caller's thread: for work inside a task.
    pub(crate) fn serial(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), serial: true }
    }

    /// The instruction-set path.
    pub(crate) fn isa(&self) -> Isa {
        self.inner.isa
    }

    /// The number of threads.
    pub(crate) fn threads(&self) -> usize {
        if self.serial { 1 } else { self.inner.threads.count() }
    }

    /// Runs `task(0)` to `task(tasks - 1)`, each once, on any thread. Tasks must write disjoint memory, and no sum may
    /// cross a task, so that results depend on neither threads nor timing.
    pub(crate) fn run(&self, tasks: usize, task: impl Fn(usize) + Sync) {
        self.run_if(true, tasks, task);
    }

    /// Runs the tasks as [`run`](Self::run) does if the work is worth other threads, and on the caller's if not.
    pub(crate) fn run_if(&self, worth_it: bool, tasks: usize, task: impl Fn(usize) + Sync) {
        if worth_it && !self.serial { self.inner.threads.run(tasks, &task) } else { (0..tasks).for_each(task) }
    }

    /// A buffer for `len` values of type `T`; its contents are unspecified but initialized.
    pub(crate) fn buffer<T: Pod>(&self, len: usize) -> Buffer {
        Buffer::new::<T>(&self.inner.store, len)
    }
}

impl std::fmt::Debug for Cpu {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cpu({}, {} threads)", self.isa().name(), self.threads())
    }
}

/// Freed memory by size class.
#[derive(Default)]
struct Store {
    free: Mutex<Vec<Vec<NonNull<u8>>>>,
    allocations: AtomicU64,
    held_bytes: AtomicU64,
}

// SAFETY: the pointers are unique owners of plain memory; the mutex guards them.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

const ALIGN: usize = 64;
/// Bytes of a huge page on x86-64, and on aarch64 with pages of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;

/// The class that holds `bytes`, four classes per power of two. Under the sanitizer (`cargo xtask sanitize`) every size
/// is a class of its own and freed when it is given back, so that an access behind a buffer or after its end is found.
fn class_of(bytes: usize) -> usize {
    if cfg!(exact_buffers) {
        return bytes;
    }
    let units = bytes.div_ceil(256).max(4);
    let log = units.ilog2() as usize;
    let quarter = (units - (1 << log)).div_ceil(1 << (log - 2));
    (log - 2) * 4 + quarter
}

/// The bytes of a class.
fn class_bytes(class: usize) -> usize {
    if cfg!(exact_buffers) {
        return class.max(1);
    }
    ((4 + class % 4) << (class / 4)) * 256
}

/// How many classes above its own a buffer may come from: up to twice its size. Batches have many sizes, and a buffer of each
/// would be held if every class had only its own.
const CLASSES_ABOVE: usize = 4;

impl Store {
    /// Memory of a class or of one above it, and which.
    fn take(&self, class: usize) -> (usize, NonNull<u8>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        for class in class..=class + CLASSES_ABOVE {
            if let Some(pointer) = free.get_mut(class).and_then(Vec::pop) {
                return (class, pointer);
            }
        }
        drop(free);
        let layout = Self::layout(class);
        let pointer = zeroed(layout);
        self.allocations.fetch_add(1, Ordering::Relaxed);
        self.held_bytes.fetch_add(layout.size() as u64, Ordering::Relaxed);
        (class, NonNull::new(pointer).unwrap_or_else(|| handle_alloc_error(layout)))
    }

    fn give_back(&self, class: usize, pointer: NonNull<u8>) {
        if cfg!(exact_buffers) {
            // SAFETY: the memory came from `take` with the same class, and its one owner gives it up here.
            return unsafe { release(pointer, Self::layout(class)) };
        }
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() <= class {
            free.resize_with(class + 1, Vec::new);
        }
        free[class].push(pointer);
    }

    fn layout(class: usize) -> Layout {
        let bytes = class_bytes(class);
        let align = if bytes >= HUGE_PAGE { HUGE_PAGE } else { ALIGN };
        Layout::from_size_align(bytes, align).expect("invariant: a class is smaller than memory")
    }
}

/// Whether memory of this layout is mapped on its own.
fn is_mapped(layout: Layout) -> bool {
    cfg!(all(target_os = "linux", not(exact_buffers))) && layout.align() >= HUGE_PAGE
}

/// Zeros from the system. It makes pages of a mapping when they are first written, hence on the threads that write them and only
/// so many, and makes huge ones where it can, so that fewer translations of addresses are missed.
fn zeroed(layout: Layout) -> *mut u8 {
    // SAFETY: the layout is not empty.
    if is_mapped(layout) { map(layout.size()) } else { unsafe { alloc_zeroed(layout) } }
}

/// Gives memory from [`zeroed`] back.
///
/// # Safety
/// The memory has this layout, and nothing uses it any more.
unsafe fn release(pointer: NonNull<u8>, layout: Layout) {
    // SAFETY: the caller's promise.
    unsafe {
        if is_mapped(layout) { unmap(pointer.as_ptr(), layout.size()) } else { dealloc(pointer.as_ptr(), layout) }
    }
}

/// Maps whole huge pages; null if there are none.
#[cfg(target_os = "linux")]
fn map(bytes: usize) -> *mut u8 {
    let whole = bytes + HUGE_PAGE;
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping; of it so many bytes from a multiple of HUGE_PAGE on are kept, and what lies around them is given back.
    unsafe {
        let pointer = libc::mmap(std::ptr::null_mut(), whole, protection, flags, -1, 0);
        if pointer == libc::MAP_FAILED {
            return std::ptr::null_mut();
        }
        let pointer: *mut u8 = pointer.cast();
        let before = pointer.align_offset(HUGE_PAGE);
        let start = pointer.add(before);
        if before > 0 {
            unmap(pointer, before);
        }
        unmap(start.add(bytes), HUGE_PAGE - before);
        // Advice: if it is not taken, pages are small.
        libc::madvise(start.cast(), bytes, libc::MADV_HUGEPAGE);
        start
    }
}

/// Unmaps whole pages.
///
/// # Safety
/// They are mapped, and nothing uses them any more.
#[cfg(target_os = "linux")]
unsafe fn unmap(pointer: *mut u8, bytes: usize) {
    // SAFETY: the caller's promise.
    unsafe { libc::munmap(pointer.cast(), bytes) };
}

#[cfg(not(target_os = "linux"))]
fn map(_bytes: usize) -> *mut u8 {
    unreachable!("invariant: memory is mapped on Linux alone")
}

#[cfg(not(target_os = "linux"))]
unsafe fn unmap(_pointer: *mut u8, _bytes: usize) {
    unreachable!("invariant: memory is mapped on Linux alone")
}

impl Drop for Store {
    fn drop(&mut self) {
        let free = self.free.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (class, pointers) in free.iter().enumerate() {
            for pointer in pointers {
                // SAFETY: the memory came from `take` with the same class, and nothing else holds it.
                unsafe { release(*pointer, Self::layout(class)) };
            }
        }
    }
}

/// Memory of a device, given back when dropped. What lies in it is reached through views.
pub struct Buffer {
    pointer: NonNull<u8>,
    bytes: usize,
    class: usize,
    store: Arc<Store>,
}

// SAFETY: a buffer owns its memory like a `Vec<u8>`.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    fn new<T: Pod>(store: &Arc<Store>, len: usize) -> Self {
        let bytes = len.checked_mul(size_of::<T>()).expect("invariant: sizes were checked by the caller");
        let (class, pointer) = store.take(class_of(bytes));
        Self { pointer, bytes, class, store: Arc::clone(store) }
    }

    /// The size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The contents as values of type `T`.
    pub fn view<T: Pod>(&self) -> View<'_, T> {
        View::of(self.as_slice())
    }

    /// The contents as values of type `T`, for writing.
    pub fn view_mut<T: Pod>(&mut self) -> ViewMut<'_, T> {
        ViewMut::of(self.as_mut_slice())
    }

    /// The contents as values of type `T`.
    pub(crate) fn as_slice<T: Pod>(&self) -> &[T] {
        // SAFETY: the memory is initialized (zeroed once, then only written), aligned to 64, and `T` is plain.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr().cast(), self.bytes / size_of::<T>()) }
    }

    /// The contents as values of type `T`, for writing.
    pub(crate) fn as_mut_slice<T: Pod>(&mut self) -> &mut [T] {
        // SAFETY: as in `as_slice`; the borrow is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr().cast(), self.bytes / size_of::<T>()) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.store.give_back(self.class, self.pointer);
    }
}

/// Reads one float behind a buffer: the overflow that `cargo xtask sanitize` plants.
#[cfg(exact_buffers)]
pub fn read_behind_a_buffer() -> f32 {
    let buffer = Device::reference().zeros::<f32>(1000);
    let values = buffer.as_slice::<f32>();
    // SAFETY: none, the read is out of bounds; without the sanitizer it may give any number.
    unsafe { values.as_ptr().add(std::hint::black_box(values.len())).read_volatile() }
}

/// A mutable slice that tasks of [`Cpu::run`] write disjoint parts of.
pub(crate) struct Parts<'a, T> {
    pointer: *mut T,
    len: usize,
    _borrow: std::marker::PhantomData<&'a mut [T]>,
}

// SAFETY: tasks get disjoint parts, by the contract of `part`.
unsafe impl<T: Send> Sync for Parts<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for Parts<'_, T> {}

impl<'a, T> Parts<'a, T> {
    pub(crate) fn new(slice: &'a mut [T]) -> Self {
        Self { pointer: slice.as_mut_ptr(), len: slice.len(), _borrow: std::marker::PhantomData }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The part `[start, start + len)`.
    ///
    /// # Safety
    /// No two parts that are alive at once overlap.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, start: usize, len: usize) -> &mut [T] {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: within the slice, checked above; disjoint by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.add(start), len) }
    }

    /// The pointer to element `at`, for strided writes within the slice.
    pub(crate) fn pointer(&self, at: usize) -> *mut T {
        assert!(at <= self.len);
        self.pointer.wrapping_add(at)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[cfg(not(exact_buffers))]
    #[test]
    fn classes_hold_what_they_are_asked_for_and_waste_at_most_a_quarter() {
        for bytes in (1..100_000).chain([1 << 20, (1 << 20) + 1, 123_456_789]) {
            let held = class_bytes(class_of(bytes));
            assert!(held >= bytes && (bytes < 1024 || held as f64 <= bytes as f64 * 1.25 + 256.0), "{bytes} in {held}");
        }
    }

    #[cfg(not(exact_buffers))]
    #[test]
    fn a_dropped_buffer_is_handed_out_again() {
        for device in Device::all(1).unwrap() {
            let first = device.buffer::<f32>(1000);
            drop(first);
            let _second = device.buffer::<f32>(990);
            assert_eq!(device.system_allocations(), 1);
            let third = device.upload(&[7u32; 990]);
            assert_eq!((device.system_allocations(), third.view::<u32>().read()[989]), (2, 7));
        }
    }

    #[cfg(not(exact_buffers))]
    #[test]
    fn buffers_of_many_sizes_hold_little_more_than_the_largest() {
        for device in Device::all(1).unwrap() {
            for len in (1000..100_000).rev().step_by(500).chain((1000..100_000).step_by(700)) {
                drop(device.buffer::<f32>(len));
            }
            assert!(device.held_bytes() < 3 * 400_000, "{}", device.held_bytes());
        }
    }

    #[test]
    fn a_device_that_cannot_be_had_is_an_error() {
        let refused = Device::open("cuda", 1).err().unwrap().to_string();
        assert_eq!(refused, "no device is called 'cuda'; there are cpu and reference");
    }
}
