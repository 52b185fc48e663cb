//! Elementary functions whose bits do not depend on the platform's C library.

use std::f64::consts::{FRAC_PI_2, LN_2};

/// Natural logarithm of a positive, normal number; error near 1e-15.
pub(crate) fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    let mut exponent = ((bits >> 52) & 0x7FF) as f64 - 1023.0;
    let mut mantissa = f64::from_bits((bits & 0x000F_FFFF_FFFF_FFFF) | 0x3FF0_0000_0000_0000);
    if mantissa > std::f64::consts::SQRT_2 {
        mantissa *= 0.5;
        exponent += 1.0;
    }
    // ln m = 2 artanh((m - 1) / (m + 1)), whose argument is below 0.172.
    let z = (mantissa - 1.0) / (mantissa + 1.0);
    let z2 = z * z;
    let mut sum = 0.0;
    for k in (0..12).rev() {
        sum = sum * z2 + 1.0 / (2 * k + 1) as f64;
    }
    2.0 * z * sum + exponent * LN_2
}

/// `base` to the power `-exponent`, for a base above 1 and an exponent from 0 to 1.
pub(crate) fn inverse_power(base: f64, exponent: f64) -> f64 {
    let x = ln(base) * exponent;
    // exp(-x) = exp(-x / 1024)^1024: the Taylor series needs few terms for a small argument.
    let small = -x / 1024.0;
    let mut sum = 1.0;
    for k in (1..9).rev() {
        sum = 1.0 + sum * small / k as f64;
    }
    for _ in 0..10 {
        sum *= sum;
    }
    sum
}

/// Sine and cosine of an angle of moderate size (up to some thousands), to about 1e-12.
pub(crate) fn sin_cos(angle: f64) -> (f64, f64) {
    let quarter = (angle / FRAC_PI_2 + 0.5).floor();
    let x = angle - quarter * FRAC_PI_2;
    let x2 = x * x;
    let (mut sin, mut cos) = (1.0, 1.0);
    for k in (1..10).rev() {
        let n = (2 * k) as f64;
        cos = 1.0 - cos * x2 / ((n - 1.0) * n);
        sin = 1.0 - sin * x2 / (n * (n + 1.0));
    }
    sin *= x;
    match (quarter as i64).rem_euclid(4) {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}

/// e^x in `f32` with a relative error near 1e-7; arguments beyond +-87 are clamped. Branch-free, so that loops over it
/// become vector code; the polynomial is that of Cephes' expf.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    // Adding and subtracting 1.5 * 2^23 rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 87.0);
    let shifted = x * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    // ln 2 in two parts, the first with trailing zeros so that its product with n is exact.
    let r = x - n * 0.693_359_4 + n * 2.121_944_4e-4;
    let p = 1.987_569_2e-4;
    let p = p * r + 1.398_2e-3;
    let p = p * r + 8.333_452e-3;
    let p = p * r + 4.166_579_6e-2;
    let p = p * r + 1.666_666_5e-1;
    let p = p * r + 0.5;
    let p = p * r * r + r + 1.0;
    // The low bits of `shifted` hold n; moved to the exponent field they make 2^n.
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3F80_0000));
    p * power
}

/// e^x in `f64` with a relative error near 1e-15; infinite where the result is too large, zero where it is too small
/// for a normal number.
pub(crate) fn exp_f64(x: f64) -> f64 {
    if x > 709.0 {
        return f64::INFINITY;
    }
    if x < -708.0 {
        return 0.0;
    }
    let n = (x * std::f64::consts::LOG2_E).round();
    // ln 2 in two parts, the first with trailing zeros so that its product with n is exact.
    let r = x - n * 0.693_147_180_369_123_8 - n * 1.908_214_929_270_587_7e-10;
    let mut sum = 1.0;
    for k in (1..14).rev() {
        sum = 1.0 + sum * r / k as f64;
    }
    sum * f64::from_bits(((1023 + n as i64) as u64) << 52)
}

/// Runs loops compiled for the widest vectors that the processor has. Nothing is contracted or reordered, so the bits of
/// the result are the same on all of them.
#[inline(always)]
pub(crate) fn vectorized<R>(work: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(work)
}

/// Sum with eight running totals: vector code, in an order that depends on the length only.
#[inline(always)]
pub(crate) fn sum_by(len: usize, term: impl Fn(usize) -> f32) -> f32 {
    let mut lanes = [0.0_f32; 8];
    let whole = len - len % 8;
    let mut start = 0;
    while start < whole {
        for (lane, total) in lanes.iter_mut().enumerate() {
            *total += term(start + lane);
        }
        start += 8;
    }
    for (lane, total) in lanes.iter_mut().enumerate().take(len - whole) {
        *total += term(whole + lane);
    }
    let [a, b, c, d, e, f, g, h] = lanes;
    ((a + e) + (c + g)) + ((b + f) + (d + h))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_standard_library() {
        for i in 1..2000 {
            let x = f64::from(i) * 0.37;
            assert!((ln(x) - x.ln()).abs() < 1e-13 * x.ln().abs().max(1.0));
            let (sin, cos) = sin_cos(x);
            assert!((sin - x.sin()).abs() < 1e-12 && (cos - x.cos()).abs() < 1e-12, "{x}");
            let e = f64::from(i) / 2000.0;
            let power = 10_000_f64.powf(-e);
            assert!((inverse_power(10_000.0, e) - power).abs() < 1e-12 * power.max(1e-2));
            let y = (x as f32 - 370.0) * 0.2;
            let exact = f64::from(y).exp();
            assert!((f64::from(exp(y)) - exact).abs() <= 3e-7 * exact, "{y}");
        }
        for i in -700..=700 {
            let x = f64::from(i) * 1.01;
            assert!((exp_f64(x) - x.exp()).abs() <= 1e-14 * x.exp(), "{x}");
        }
        assert_eq!([exp_f64(0.0), exp_f64(-1e300), exp_f64(1e300)], [1.0, 0.0, f64::INFINITY]);
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NEG_INFINITY) < 1e-37);
    }
}
