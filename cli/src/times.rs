//! Time stamps for people and for JSON, and the zone of guests that do not record one.

use guest_fs::{Metadata, Timestamp};
use jiff::{civil::DateTime, tz::TimeZone};
use std::{str::FromStr, time::Duration};

/// The zone of `--tz`: for display, and for FAT's local times.
#[derive(Clone, Debug)]
pub(crate) struct Zone {
    zone: TimeZone,
    utc: bool,
}

impl Default for Zone {
    fn default() -> Self {
        Self {
            zone: TimeZone::UTC,
            utc: true,
        }
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let upper = text.to_ascii_uppercase();
        if matches!(upper.as_str(), "UTC" | "Z") {
            return Ok(Self::default());
        }
        if let Some(seconds) = offset(text) {
            let offset = jiff::tz::Offset::from_seconds(seconds).map_err(|e| e.to_string())?;
            return Ok(Self {
                zone: offset.to_time_zone(),
                utc: false,
            });
        }
        let zone = if text == "local" {
            TimeZone::system()
        } else {
            TimeZone::get(text).map_err(|_| {
                format!(
                    "{text:?} is no zone; expected UTC, local, +02:00 or a name like Europe/Berlin"
                )
            })?
        };
        Ok(Self { zone, utc: false })
    }
}

/// `+HH:MM`, `-HHMM`, `+HH` as seconds.
fn offset(text: &str) -> Option<i32> {
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let digits = rest.replace(':', "");
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let (hours, minutes) = match digits.len() {
        2 => (digits.parse::<i32>().ok()?, 0),
        4 => (
            digits.get(..2)?.parse::<i32>().ok()?,
            digits.get(2..)?.parse::<i32>().ok()?,
        ),
        _ => return None,
    };
    (hours <= 15 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

impl Zone {
    /// The zone's offset in seconds, if it is always the same.
    pub(crate) fn fixed(&self) -> Option<i32> {
        self.zone
            .to_fixed_offset()
            .ok()
            .map(jiff::tz::Offset::seconds)
    }

    /// A guest's time, its zone filled in where the guest recorded none and `--tz` was
    /// given.
    pub(crate) fn settle(&self, time: Timestamp, given: bool) -> Timestamp {
        if time.zoned || !given {
            return time;
        }
        let local =
            jiff::Timestamp::new(time.seconds, 0).map(|t| t.to_zoned(TimeZone::UTC).datetime());
        match local.and_then(|t| self.zone.to_timestamp(t)) {
            Ok(utc) => Timestamp {
                seconds: utc.as_second(),
                nanos: time.nanos,
                zoned: true,
            },
            Err(_) => time,
        }
    }

    /// The same for all times of a file.
    pub(crate) fn settle_all(&self, metadata: &mut Metadata, given: bool) {
        for time in [
            &mut metadata.created,
            &mut metadata.modified,
            &mut metadata.accessed,
            &mut metadata.changed,
        ] {
            *time = time.map(|t| self.settle(t, given));
        }
    }

    /// A time as users type it, in this zone unless it says another: seconds since 1970 and
    /// nanoseconds.
    pub(crate) fn parse(&self, text: &str) -> Option<(i64, u32)> {
        let time = match text.parse::<jiff::Timestamp>() {
            Ok(time) => time,
            Err(_) => {
                let civil: DateTime = text.parse().ok()?;
                self.zone.to_timestamp(civil).ok()?
            }
        };
        let nanos = time.as_nanosecond().rem_euclid(1_000_000_000);
        let seconds = time.as_nanosecond().div_euclid(1_000_000_000);
        Some((i64::try_from(seconds).ok()?, u32::try_from(nanos).ok()?))
    }

    /// RFC 3339 with nine digits; without an offset if the zone is not known.
    pub(crate) fn rfc3339(&self, time: Timestamp) -> String {
        match self.civil(time) {
            Some((t, offset)) => format!("{}.{:09}{offset}", civil_text(&t, 'T'), time.nanos),
            None => format!("@{}.{:09}", time.seconds, time.nanos),
        }
    }

    /// For a listing: to the second, with `Z`, an offset, or nothing.
    pub(crate) fn short(&self, time: Timestamp) -> String {
        match self.civil(time) {
            Some((t, offset)) => civil_text(&t, ' ') + &offset,
            None => format!("@{}", time.seconds),
        }
    }

    fn civil(&self, time: Timestamp) -> Option<(DateTime, String)> {
        let moment = jiff::Timestamp::new(time.seconds, 0).ok()?;
        if !time.zoned || self.utc {
            let offset = if time.zoned { "Z" } else { "" };
            return Some((TimeZone::UTC.to_datetime(moment), offset.to_owned()));
        }
        let zoned = moment.to_zoned(self.zone.clone());
        Some((zoned.datetime(), zoned.strftime("%:z").to_string()))
    }
}

/// Date and time with `between` between them. Listings of millions of files pay for a
/// general formatter.
fn civil_text(t: &DateTime, between: char) -> String {
    let mut text = String::with_capacity(40);
    let year = i32::from(t.year());
    if !(0..=9999).contains(&year) {
        text = format!("{year:05}");
    } else {
        digits(&mut text, year.unsigned_abs() / 100);
        digits(&mut text, year.unsigned_abs() % 100);
    }
    for (before, value) in [
        ('-', t.month()),
        ('-', t.day()),
        (between, t.hour()),
        (':', t.minute()),
        (':', t.second()),
    ] {
        text.push(before);
        digits(&mut text, u32::from(value.unsigned_abs()));
    }
    text
}

fn digits(text: &mut String, value: u32) {
    for digit in [value / 10 % 10, value % 10] {
        text.push(char::from(b'0' + (digit as u8)));
    }
}

/// 90s, 30m, 4h, 2d; seconds without a letter.
pub(crate) fn span(text: &str) -> Result<Duration, String> {
    let wrong = || "expected a time as 90s, 30m, 4h or 2d".to_owned();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(unit).ok_or_else(wrong)?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_in_every_zone() {
        let t = Timestamp::from_unix(1_700_000_000, 123_456_700);
        let show = |zone: &str| zone.parse::<Zone>().unwrap().rfc3339(t);
        assert_eq!(show("UTC"), "2023-11-14T22:13:20.123456700Z");
        assert_eq!(show("+05:30"), "2023-11-15T03:43:20.123456700+05:30");
        let local = Timestamp { zoned: false, ..t };
        assert_eq!(
            Zone::default().rfc3339(local),
            "2023-11-14T22:13:20.123456700"
        );
        let zone: Zone = "+02:00".parse().unwrap();
        assert_eq!(zone.settle(local, true).seconds, 1_700_000_000 - 7200);
        assert_eq!(zone.fixed(), Some(7200));
        assert!("Nowhere/At all".parse::<Zone>().is_err());
        // The largest FILETIME is past the year 9999.
        let far = Timestamp::from_filetime(u64::MAX);
        assert!(Zone::default().rfc3339(far).starts_with('@'));
    }
}
