//! Days of the calendar, in UTC.

/// Seconds of a day.
pub const DAY: u64 = 86_400;

/// The day of a time in unix seconds, as `2009-01-03`.
pub fn text(time: u64) -> String {
    // Howard Hinnant's `civil_from_days`: years that begin in March put the odd day last.
    let days = time / DAY + 719_468;
    let era = days / 146_097;
    let of_era = days % 146_097;
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 {
        shifted + 3
    } else {
        shifted - 9
    };
    let year = year + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The first second of a day given as `2009-01-03`; none for what is no day since 1970.
pub fn parse(text: &str) -> Option<u64> {
    let number = |part: Option<&str>, length: usize| -> Option<u64> {
        let part = part.filter(|part| part.len() == length)?;
        part.bytes()
            .all(|digit| digit.is_ascii_digit())
            .then(|| part.parse().ok())?
    };
    let mut parts = text.split('-');
    let (year, month, day) = (
        number(parts.next(), 4)?,
        number(parts.next(), 2)?,
        number(parts.next(), 2)?,
    );
    if parts.next().is_some() || year < 1970 || !(1..=12).contains(&month) || day == 0 {
        return None;
    }
    let shifted = year - u64::from(month <= 2);
    let (era, of_era) = (shifted / 400, shifted % 400);
    let month = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    let time = days.checked_sub(719_468)? * DAY;
    // A day that its month does not have would be one of the next month.
    (self::text(time) == text).then_some(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_the_calendar_and_are_read_back() {
        // The genesis block, leap days, the ends of years; `date -u -d @… +%F` says the same.
        let known = [
            (0, "1970-01-01"),
            (1_231_006_505, "2009-01-03"),
            (1_582_934_400, "2020-02-29"),
            (1_709_164_800, "2024-02-29"),
            (1_735_689_599, "2024-12-31"),
            (1_735_689_600, "2025-01-01"),
            (4_107_542_400, "2100-03-01"),
            (u64::from(u32::MAX), "2106-02-07"),
        ];
        for (time, day) in known {
            assert_eq!(text(time), day);
            assert_eq!(parse(day), Some(time / DAY * DAY));
        }
        for time in (0..40_000).map(|day| day * DAY) {
            assert_eq!(parse(&text(time)), Some(time));
        }
    }

    #[test]
    fn what_is_no_day_is_refused() {
        for text in [
            "",
            "2009",
            "2009-01",
            "2009-01-03-",
            "2009-02-30",
            "2023-02-29",
            "2009-13-01",
            "2009-00-01",
            "2009-01-00",
            "1969-12-31",
            "+009-01-03",
            "2009-1-3",
            "2009-01-3x",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
