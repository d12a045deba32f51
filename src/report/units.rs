//! Numbers with units, short enough for a table.

/// Thousands apart: `14,714,688`.
pub fn grouped(n: impl TryInto<u64>) -> String {
    let digits = n.try_into().unwrap_or(u64::MAX).to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Memory in powers of 1024, four characters and a unit: `1.25 GiB`, `87.0 MiB`, `960 B`.
pub fn bytes(n: impl TryInto<u64>) -> String {
    scaled(n.try_into().unwrap_or(u64::MAX) as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB"])
}

/// Floating-point operations in powers of 1000: `30.7 GFLOP`.
pub fn flops(n: impl TryInto<u64>) -> String {
    scaled(n.try_into().unwrap_or(u64::MAX) as f64, 1000.0, &["FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP"])
}

/// Three significant digits in the largest unit that leaves at least one before the point.
fn scaled(mut x: f64, step: f64, units: &[&str]) -> String {
    let mut unit = 0;
    while x >= step * 0.9995 && unit + 1 < units.len() {
        x /= step;
        unit += 1;
    }
    let digits = match x {
        _ if unit == 0 || x >= 99.95 => 0,
        _ if x >= 9.995 => 1,
        _ => 2,
    };
    format!("{x:.digits$} {}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([0usize, 999, 1000, 14_714_688].map(grouped), ["0", "999", "1,000", "14,714,688"]);
        assert_eq!([0usize, 960, 1024, 1_342_177_280].map(bytes), ["0 B", "960 B", "1.00 KiB", "1.25 GiB"]);
        assert_eq!(flops(30_712_000_000u64), "30.7 GFLOP");
        assert_eq!(bytes(1024 * 1024 - 1usize), "1.00 MiB");
    }
}
