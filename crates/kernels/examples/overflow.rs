//! Reads one float behind a buffer: what `cargo xtask sanitize` must find before it trusts AddressSanitizer's silence.

use minke_kernels::{Cpu, Isa};

fn main() {
    let cpu = Cpu::new(1, Isa::detect());
    let buffer = cpu.buffer::<f32>(1000);
    let values = buffer.as_slice::<f32>();
    // SAFETY: none, the read is out of bounds; without the sanitizer it may print any number.
    println!("{}", unsafe { values.as_ptr().add(std::hint::black_box(values.len())).read_volatile() });
}
