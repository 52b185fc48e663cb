//! Random numbers that are the same on every platform.

use super::math;

/// xoshiro256++ (Blackman and Vigna), seeded through splitmix64 as its authors advise.
#[derive(Debug, Clone)]
pub struct Rng {
    state: [u64; 4],
}

fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Rng {
    /// A generator determined by `seed`.
    pub fn new(seed: u64) -> Self {
        let mut s = seed;
        Self { state: [splitmix64(&mut s), splitmix64(&mut s), splitmix64(&mut s), splitmix64(&mut s)] }
    }

    /// A generator determined by `seed` and a label, so that each tensor has its own numbers whatever else is made.
    pub fn for_label(seed: u64, label: &str) -> Self {
        // FNV-1a.
        let hash = label
            .bytes()
            .fold(0xCBF2_9CE4_8422_2325_u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3));
        let mut s = seed;
        Self::new(splitmix64(&mut s) ^ hash)
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        let [s0, s1, s2, s3] = self.state;
        let result = s0.wrapping_add(s3).rotate_left(23).wrapping_add(s0);
        let (s2, s3) = (s2 ^ s0, s3 ^ s1);
        self.state = [s0 ^ s3, s1 ^ s2, s2 ^ (s1 << 17), s3.rotate_left(45)];
        result
    }

    /// Uniform in `[0, 1)`, a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Fills with values uniform in `[-bound, bound)`.
    pub fn fill_uniform(&mut self, out: &mut [f32], bound: f32) {
        for value in out {
            *value = ((2.0 * self.uniform() - 1.0) * f64::from(bound)) as f32;
        }
    }

    /// Fills with normal values of mean 0, by the method of Box and Muller.
    pub fn fill_normal(&mut self, out: &mut [f32], std: f32) {
        for pair in out.chunks_mut(2) {
            let radius = (-2.0 * math::ln(1.0 - self.uniform())).sqrt() * f64::from(std);
            let (sin, cos) = math::sin_cos(std::f64::consts::TAU * self.uniform());
            for (value, direction) in pair.iter_mut().zip([cos, sin]) {
                *value = (radius * direction) as f32;
            }
        }
    }
}
