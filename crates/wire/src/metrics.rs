//! How the metrics of a call's chunks become the metrics of the call (SDK 0.38.0, `wire` section 10 of the types).

use std::collections::BTreeMap;

/// Metrics by name; a name ends in `:<reduction>`.
pub type Metrics = BTreeMap<String, f64>;

/// A metric's name does not have exactly one colon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("metric '{0}' does not have the form <name>:<reduction>")]
pub struct MetricNameError(pub String);

/// Merges the metrics of chunks. `chunks` pairs each chunk's metrics with its number of datums. Only names that
/// every chunk has survive; a name with an unknown reduction is dropped, as in the official client.
pub fn combine(chunks: &[(Metrics, usize)]) -> Result<Metrics, MetricNameError> {
    let Some((first, _)) = chunks.first() else { return Ok(Metrics::new()) };
    let mut combined = Metrics::new();
    for name in first.keys() {
        let values: Vec<(f64, f64)> =
            chunks.iter().filter_map(|(m, n)| m.get(name).map(|&v| (v, *n as f64))).collect();
        let mut parts = name.split(':');
        let (Some(_), Some(reduction), None) = (parts.next(), parts.next(), parts.next()) else {
            return Err(MetricNameError(name.clone()));
        };
        if values.len() != chunks.len() {
            continue;
        }
        let max = values.iter().map(|v| v.0).fold(f64::NEG_INFINITY, f64::max);
        let value = match reduction {
            "sum" => values.iter().map(|v| v.0).sum(),
            "min" => values.iter().map(|v| v.0).fold(f64::INFINITY, f64::min),
            "max" => max,
            "mean" => weighted_mean(&values),
            "slack" => max - weighted_mean(&values),
            "hash2" => {
                let sum = values.iter().fold(0u64, |acc, v| acc.wrapping_add(low_bits(v.0)));
                sum as f64
            }
            "unique" => {
                for (i, (value, _)) in values.iter().enumerate().skip(1) {
                    combined.insert(format!("{name}_{i}"), *value);
                }
                values.first().map_or(0.0, |v| v.0)
            }
            _ => continue,
        };
        combined.insert(name.clone(), value);
    }
    Ok(combined)
}

/// The lowest 64 bits of a value's whole part, in two's complement.
fn low_bits(value: f64) -> u64 {
    const BEYOND: f64 = 18_446_744_073_709_551_616.0;
    (value % BEYOND) as i128 as u64
}

fn weighted_mean(values: &[(f64, f64)]) -> f64 {
    values.iter().map(|(v, w)| v * w).sum::<f64>() / values.iter().map(|(_, w)| w).sum::<f64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(pairs: &[(&str, f64)]) -> Metrics {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect()
    }

    #[test]
    fn reductions() {
        let a = metrics(&[
            ("l:sum", 1.0),
            ("m:mean", 1.0),
            ("s:slack", 4.0),
            ("u:unique", 5.0),
            ("x:last", 1.0),
            ("only:sum", 1.0),
        ]);
        let b =
            metrics(&[("l:sum", 2.0), ("m:mean", 4.0), ("s:slack", 1.0), ("u:unique", 6.0), ("x:last", 1.0)]);
        let c = combine(&[(a, 1), (b, 2)]).unwrap();
        assert_eq!(
            c,
            metrics(&[
                ("l:sum", 3.0),
                ("m:mean", 3.0),
                ("s:slack", 2.0),
                ("u:unique", 5.0),
                ("u:unique_1", 6.0)
            ])
        );
    }

    #[test]
    fn hashes_wrap_around() {
        let sum = |values: &[f64]| {
            let chunks: Vec<_> = values.iter().map(|value| (metrics(&[("h:hash2", *value)]), 1)).collect();
            combine(&chunks).unwrap()["h:hash2"]
        };
        assert_eq!(sum(&[-1.5, 3.9]), 2.0);
        assert_eq!(sum(&[-1.0]), u64::MAX as f64);
        // Multiples of 2^64, and one beyond.
        assert_eq!(sum(&[1e300, -1e300, 18_446_744_073_709_555_712.0]), 4096.0);
    }

    #[test]
    fn a_name_without_a_reduction_is_an_error() {
        assert_eq!(combine(&[(metrics(&[("loss", 1.0)]), 1)]), Err(MetricNameError("loss".into())));
    }
}
