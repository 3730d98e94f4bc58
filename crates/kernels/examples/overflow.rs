//! Reads one float behind a buffer. `cargo xtask sanitize` must find this, else its silence proves nothing.

fn main() {
    #[cfg(exact_buffers)]
    println!("{}", minke_kernels::device::read_behind_a_buffer());
    #[cfg(not(exact_buffers))]
    println!("only `cargo xtask sanitize` builds the overflow");
}
