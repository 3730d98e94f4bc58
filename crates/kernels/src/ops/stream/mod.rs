//! Speed of reading memory: a sum over a whole buffer, as products with one row of x read their weights.

use crate::{Device, View};

/// The sum of all words, modulo 2^32, for the host.
pub fn sum(device: &Device, words: View<'_, u32>) -> u32 {
    let sum = |words: &[u32]| words.iter().fold(0u32, |sum, word| sum.wrapping_add(*word));
    match device {
        Device::Cpu(cpu) => {
            let (words, tasks, total) = (words.host(), 4 * cpu.threads(), std::sync::atomic::AtomicU32::new(0));
            cpu.run(tasks, |task| {
                let part = &words[words.len() * task / tasks..words.len() * (task + 1) / tasks];
                total.fetch_add(sum(part), std::sync::atomic::Ordering::Relaxed);
            });
            total.into_inner()
        }
        Device::Reference(_) => sum(words.host()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{random_ids, view};

    #[test]
    fn every_word_is_read_once() {
        let words = random_ids(1, 100_003, u32::MAX as usize);
        let want = words.iter().fold(0u32, |sum, word| sum.wrapping_add(*word));
        for device in Device::all(3).unwrap() {
            assert_eq!(sum(&device, view(&words)), want);
        }
    }
}
