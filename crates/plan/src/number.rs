//! Numbers as people read them.

/// A number with its unit: dollars in front, bytes and rates with a prefix, counts in groups of three.
pub fn quantity(value: f64, unit: &str) -> String {
    match unit {
        "USD" => format!("${}", grouped(value)),
        "bytes" | "bytes/s" | "FLOP/s" | "FLOP" | "W" => {
            let (value, prefix) = scaled(value);
            let name = match unit {
                "bytes" => "B",
                "bytes/s" => "B/s",
                other => other,
            };
            format!("{value} {prefix}{name}")
        }
        "share" => format!("{:.1} %", 100.0 * value),
        "s" if value.abs() < 0.001 => format!("{} us", grouped(value * 1e6)),
        "s" if value.abs() < 1.0 => format!("{} ms", grouped(value * 1e3)),
        "" => grouped(value),
        _ => format!("{} {unit}", grouped(value)),
    }
}

/// A number below 1000 and the prefix of what it counts.
fn scaled(value: f64) -> (String, &'static str) {
    for (power, prefix) in [(1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")] {
        if value.abs() >= power {
            return (digits(value / power), prefix);
        }
    }
    (digits(value), "")
}

fn digits(value: f64) -> String {
    let text = if value.abs() >= 100.0 { format!("{value:.1}") } else { format!("{value:.2}") };
    trimmed(&text)
}

fn trimmed(text: &str) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text.to_owned() }
}

/// A number in groups of three digits, with as many decimals as it needs to have four digits.
pub fn grouped(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let magnitude = value.abs();
    let decimals = if magnitude >= 1000.0 || magnitude.fract() == 0.0 {
        0
    } else if magnitude >= 100.0 {
        1
    } else if magnitude >= 1.0 {
        2
    } else {
        4
    };
    let text = format!("{magnitude:.decimals$}");
    let (whole, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let mut groups = String::new();
    for (i, digit) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            groups.push(',');
        }
        groups.push(digit);
    }
    let sign = if value < 0.0 { "-" } else { "" };
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { format!("{sign}{groups}") } else { format!("{sign}{groups}.{fraction}") }
}
