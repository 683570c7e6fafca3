//! Numbers and texts, written as JSON.

/// Appends a number with at least `least` digits.
pub(super) fn digits(mut number: u64, least: usize, to: &mut String) {
    let mut reversed = [b'0'; 20];
    let mut count = 0;
    for place in &mut reversed {
        if number == 0 && count >= least {
            break;
        }
        *place = b'0' + (number % 10) as u8;
        number /= 10;
        count += 1;
    }
    to.extend(
        reversed
            .iter()
            .take(count)
            .rev()
            .map(|digit| char::from(*digit)),
    );
}

pub(super) fn real(mut number: f64, to: &mut String) {
    if !number.is_finite() {
        return to.push_str("null");
    }
    if number < 0.0 {
        to.push('-');
        number = -number;
    }
    let mut exponent = 0;
    while number >= 1e15 {
        number /= 10.0;
        exponent += 1;
    }
    // A double has fifteen digits that can be relied on.
    let decimals = match number {
        n if n < 1e6 => 9,
        n if n < 1e9 => 6,
        n if n < 1e12 => 3,
        _ => 0,
    };
    let unit = 10u64.pow(decimals);
    let mut whole = number as u64;
    let mut fraction = ((number - whole as f64) * unit as f64 + 0.5) as u64;
    if fraction >= unit {
        whole += 1;
        fraction -= unit;
    }
    digits(whole, 1, to);
    to.push('.');
    let start = to.len();
    digits(fraction, decimals.max(1) as usize, to);
    while to.len() > start + 1 && to.ends_with('0') {
        to.pop();
    }
    if exponent > 0 {
        to.push('e');
        digits(exponent, 1, to);
    }
}

pub(super) fn quoted(text: &str, to: &mut String) {
    to.push('"');
    for c in text.chars() {
        match c {
            '"' => to.push_str("\\\""),
            '\\' => to.push_str("\\\\"),
            '\n' => to.push_str("\\n"),
            '\t' => to.push_str("\\t"),
            c if (c as u32) < 0x20 => {
                to.push_str("\\u00");
                to.push_str(&crate::hex::encode(&[c as u8]));
            }
            c => to.push(c),
        }
    }
    to.push('"');
}
