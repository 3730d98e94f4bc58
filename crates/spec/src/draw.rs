//! Random numbers: a function, never a state.
//!
//! Every random number of the project is `draw(seed, domain, index)`: a stream of a counter-based generator
//! (ChaCha8) that is keyed by what the number is *for*. No generator outlives the call that made it, so none is saved
//! in a checkpoint, and no draw depends on a batch slot, on the order of work or on a thread.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a draw is for. Streams of different domains are independent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// Initial weights; index: hash of the parameter's name.
    Initialization,
    /// Training data; index: stage, step, row.
    Data,
    /// Seeds of rollouts; index: stage, step, question, sample.
    Rollout,
    /// Sampled tokens; index: position in the sequence.
    Token,
    /// Generated problems; index: split, number of the problem.
    Problem,
}

/// The stream of random numbers for one purpose, keyed by everything that identifies it.
///
/// # Examples
/// ```
/// use minke_spec::draw::{Domain, draw};
/// let a = draw(7, Domain::Data, &[1, 42]).uniform();
/// assert_eq!(a, draw(7, Domain::Data, &[1, 42]).uniform());
/// assert_ne!(a, draw(7, Domain::Data, &[1, 43]).uniform());
/// ```
pub fn draw(seed: u64, domain: Domain, index: &[u64]) -> Stream {
    // The index is folded into the 256-bit key; `hash` mixes well enough that neighbours share no bits.
    let mut key = [0u8; 32];
    let mut state = hash(seed ^ 0x6d69_6e6b_6500_0000 ^ domain as u64);
    for (i, &part) in index.iter().enumerate() {
        state = hash(state ^ hash(part.wrapping_add((i as u64 + 1) << 56)));
    }
    for word in key.chunks_exact_mut(8) {
        word.copy_from_slice(&state.to_le_bytes());
        state = hash(state);
    }
    Stream(ChaCha8Rng::from_seed(key))
}

/// A 64-bit hash of a name, for use as the index of a draw (FNV-1a, then mixed).
pub fn hash_name(name: &str) -> u64 {
    let fnv = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    hash(fnv)
}

/// A well-mixed function of one 64-bit word (the finalizer of SplitMix64).
pub fn hash(word: u64) -> u64 {
    let mut z = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A finite need's worth of random numbers. Made by [`draw`], used at once, never stored.
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number in `[0, 1)` with 53 random bits.
    pub fn uniform(&mut self) -> f64 {
        (self.bits() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// An integer in `[0, n)` without bias.
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "below(0) has no value to return");
        let limit = u64::MAX - (u64::MAX % n + 1) % n;
        loop {
            let bits = self.bits();
            if bits <= limit {
                return bits % n;
            }
        }
    }

    /// An integer in `[low, high]`, both included.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as u64) as i64
    }

    /// Whether an event of the given probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.uniform() < probability
    }

    /// A standard normal number (Box-Muller).
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// One element of a slice that is not empty.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// Puts the elements of a slice in random order (Fisher-Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_every_part_of_the_key() {
        let keys: [(u64, Domain, &[u64]); 6] = [
            (0, Domain::Data, &[0, 0]),
            (1, Domain::Data, &[0, 0]),
            (0, Domain::Token, &[0, 0]),
            (0, Domain::Data, &[1, 0]),
            (0, Domain::Data, &[0, 1]),
            (0, Domain::Data, &[0]),
        ];
        let mut firsts: Vec<u64> = keys.iter().map(|&(s, d, i)| draw(s, d, i).bits()).collect();
        firsts.sort_unstable();
        firsts.dedup();
        assert_eq!(firsts.len(), keys.len());
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut stream = draw(3, Domain::Data, &[9]);
        let n = 100_000;
        let (mut sum, mut square, mut uniform) = (0.0, 0.0, 0.0);
        let mut counts = [0u32; 7];
        for _ in 0..n {
            let x = stream.normal();
            sum += x;
            square += x * x;
            uniform += stream.uniform();
            counts[stream.below(7) as usize] += 1;
        }
        let n = f64::from(n);
        assert!((sum / n).abs() < 0.02 && (square / n - 1.0).abs() < 0.03 && (uniform / n - 0.5).abs() < 0.01);
        assert!(counts.iter().all(|&c| (f64::from(c) / n - 1.0 / 7.0).abs() < 0.01));
    }
}
