//! Reads one float behind a buffer: what `cargo xtask sanitize` must find before it trusts AddressSanitizer's silence.

fn main() {
    #[cfg(exact_buffers)]
    println!("{}", minke_kernels::device::read_behind_a_buffer());
    #[cfg(not(exact_buffers))]
    println!("only `cargo xtask sanitize` builds the overflow");
}
