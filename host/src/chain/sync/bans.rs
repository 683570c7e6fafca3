//! Who may not connect to us and is not connected to, for how long, and why.
//!
//! Each offence is a rung of a ladder: minutes, hours, for good. A ban that has run out is remembered for a while, so
//! that the next offence is on the next rung.

mod subnet;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

pub use subnet::{NoSubnet, Subnet};

/// The most bans; those that end first make room.
const MAX_BANS: usize = 10_000;
/// A ban that ran out so long ago is forgotten, and its rung with it.
const FORGIVEN: u64 = 7 * 24 * 60 * 60;
/// Characters of a reason that are kept.
const MAX_REASON: usize = 160;

/// How long a range is banned for its first and its second offence. From the third on it is for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ladder {
    /// For the first.
    pub first: Duration,
    /// For the second.
    pub second: Duration,
}

impl Ladder {
    fn rung(&self, number: u32) -> Option<Duration> {
        match number {
            0 | 1 => Some(self.first),
            2 => Some(self.second),
            _ => None,
        }
    }
}

/// A ban.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ban {
    /// Since when, unix seconds.
    pub since: u64,
    /// Until when, unix seconds; none is for good.
    pub until: Option<u64>,
    /// How many offences; 0 when the operator banned who had none.
    pub offences: u32,
    /// Whether the operator said so.
    pub by_operator: bool,
    /// Why, for people.
    pub reason: String,
}

impl Ban {
    /// Whether it holds.
    pub fn holds(&self, now: u64) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// All bans.
#[derive(Clone, Debug, Default)]
pub struct Bans {
    bans: BTreeMap<Subnet, Ban>,
    /// Changes so far: tells who shows them that there is something new.
    changes: u64,
}

impl Bans {
    /// Those that were kept.
    pub fn restore(bans: impl IntoIterator<Item = (Subnet, Ban)>) -> Bans {
        let bans = bans.into_iter().take(MAX_BANS).collect();
        Bans { bans, changes: 1 }
    }

    /// The ban that an address is under.
    pub fn of(&self, ip: IpAddr, now: u64) -> Option<(Subnet, &Ban)> {
        if self.bans.is_empty() {
            return None;
        }
        Subnet::all_around(ip).find_map(|subnet| {
            let ban = self.bans.get(&subnet)?;
            ban.holds(now).then_some((subnet, ban))
        })
    }

    /// Puts an address on the next rung. Returns the ban.
    pub fn offence(&mut self, ip: IpAddr, reason: &str, ladder: &Ladder, now: u64) -> Ban {
        let subnet = Subnet::of_owner(ip);
        let before = self.bans.get(&subnet);
        let offences = before.map_or(0, |ban| ban.offences).saturating_add(1);
        let rung = ladder.rung(offences);
        let until = rung.map(|time| now.saturating_add(time.as_secs().max(1)));
        // What the operator said is not shortened by an offence.
        let kept = before.filter(|ban| {
            ban.by_operator && ban.holds(now) && (ban.until.is_none() || ban.until >= until)
        });
        let ban = Ban {
            since: now,
            until: if kept.is_some_and(|ban| ban.until.is_none()) {
                None
            } else {
                kept.and_then(|ban| ban.until).or(until)
            },
            offences,
            by_operator: kept.is_some(),
            reason: cut(reason),
        };
        self.insert(subnet, ban.clone(), now);
        ban
    }

    /// The operator bans a range.
    pub fn ban(&mut self, subnet: Subnet, until: Option<u64>, reason: &str, now: u64) {
        let offences = self.bans.get(&subnet).map_or(0, |ban| ban.offences);
        let ban = Ban {
            since: now,
            until,
            offences,
            by_operator: true,
            reason: cut(reason),
        };
        self.insert(subnet, ban, now);
    }

    /// The operator lifts a ban, and forgives the offences. Returns whether there was one that held.
    pub fn lift(&mut self, subnet: &Subnet, now: u64) -> bool {
        let held = self.bans.remove(subnet).is_some_and(|ban| ban.holds(now));
        self.changes += 1;
        held
    }

    /// Those that hold.
    pub fn holding(&self, now: u64) -> impl Iterator<Item = (&Subnet, &Ban)> {
        self.bans.iter().filter(move |(_, ban)| ban.holds(now))
    }

    /// All, those that have run out too.
    pub fn all(&self) -> impl Iterator<Item = (&Subnet, &Ban)> {
        self.bans.iter()
    }

    /// Goes up with each change.
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Forgets what is long over.
    pub fn tidy(&mut self, now: u64) {
        let before = self.bans.len();
        self.bans.retain(|_, ban| {
            ban.until
                .is_none_or(|until| now < until.saturating_add(FORGIVEN))
        });
        self.changes += u64::from(self.bans.len() != before);
    }

    fn insert(&mut self, subnet: Subnet, ban: Ban, now: u64) {
        self.changes += 1;
        if self.bans.len() >= MAX_BANS && !self.bans.contains_key(&subnet) {
            self.tidy(now);
        }
        if self.bans.len() >= MAX_BANS && !self.bans.contains_key(&subnet) {
            let first = self
                .bans
                .iter()
                .min_by_key(|(_, ban)| (ban.by_operator, ban.until.unwrap_or(u64::MAX), ban.since))
                .map(|(subnet, _)| *subnet);
            if let Some(first) = first {
                self.bans.remove(&first);
            }
        }
        self.bans.insert(subnet, ban);
    }
}

fn cut(reason: &str) -> String {
    let printable = reason.chars().filter(|c| !c.is_control());
    printable.take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

    use super::*;

    const LADDER: Ladder = Ladder {
        first: Duration::from_secs(600),
        second: Duration::from_secs(86_400),
    };

    #[test]
    fn each_offence_is_a_rung_minutes_hours_for_good_and_patience_forgives() {
        let (mut bans, ip) = (Bans::default(), IpAddr::from([8, 8, 8, 8]));
        assert_eq!(
            bans.offence(ip, "bad header", &LADDER, 1_000).until,
            Some(1_600)
        );
        assert!(bans.of(ip, 1_599).is_some() && bans.of(ip, 1_600).is_none());
        assert!(bans.of([8, 8, 8, 9].into(), 1_000).is_none());
        assert_eq!(
            bans.offence(ip, "again", &LADDER, 2_000).until,
            Some(88_400)
        );
        let last = bans.offence(ip, "again", &LADDER, 90_000);
        assert_eq!((last.until, last.offences), (None, 3));
        assert!(bans.of(ip, u64::MAX).is_some());

        // A week after the end of a ban the ladder begins anew.
        let other = IpAddr::from([9, 9, 9, 9]);
        bans.offence(other, "bad header", &LADDER, 1_000);
        bans.tidy(1_600 + FORGIVEN - 1);
        assert_eq!(bans.all().count(), 2);
        bans.tidy(1_600 + FORGIVEN);
        assert_eq!(bans.all().count(), 1);
        assert_eq!(
            bans.offence(other, "bad header", &LADDER, 900_000).offences,
            1
        );
    }

    #[test]
    fn the_operator_bans_ranges_and_lifts_what_the_host_banned() {
        let mut bans = Bans::default();
        let range: Subnet = "10.0.0.0/8".parse().unwrap();
        bans.ban(range, Some(500), "noise", 100);
        let (subnet, ban) = bans.of([10, 200, 1, 1].into(), 400).unwrap();
        assert_eq!((subnet, ban.reason.as_str()), (range, "noise"));
        assert!(bans.of([10, 200, 1, 1].into(), 500).is_none());
        let ip: IpAddr = "2001:db8::7".parse().unwrap();
        bans.offence(ip, "malformed\x1b[2J", &LADDER, 100);
        let (subnet, ban) = bans.of(ip, 100).unwrap();
        assert_eq!(
            (subnet.to_string().as_str(), ban.reason.as_str()),
            ("2001:db8::/64", "malformed[2J")
        );
        assert!(bans.lift(&subnet, 100) && !bans.lift(&subnet, 100));
        assert!(bans.of(ip, 100).is_none());
        assert_eq!(bans.offence(ip, "malformed", &LADDER, 200).offences, 1);
    }

    #[test]
    fn an_offence_does_not_shorten_what_the_operator_said() {
        let (mut bans, ip) = (Bans::default(), IpAddr::from([8, 8, 8, 8]));
        bans.ban(Subnet::one(ip), None, "never", 100);
        assert_eq!(bans.offence(ip, "bad header", &LADDER, 200).until, None);
        let other = IpAddr::from([9, 9, 9, 9]);
        bans.ban(Subnet::one(other), Some(150), "for a moment", 100);
        let ban = bans.offence(other, "bad header", &LADDER, 120);
        assert_eq!((ban.until, ban.by_operator), (Some(720), false));
    }

    #[test]
    fn there_is_room_for_a_bounded_number_and_the_operators_stay() {
        let mut bans = Bans::default();
        let own: Subnet = "1.2.3.4".parse().unwrap();
        bans.ban(own, Some(1_001), "mine", 1_000);
        for n in 0..MAX_BANS as u32 + 50 {
            bans.offence(
                IpAddr::from((0x0800_0000 + n).to_be_bytes()),
                "x",
                &LADDER,
                1_000,
            );
        }
        assert_eq!(bans.all().count(), MAX_BANS);
        assert!(bans.all().any(|(subnet, _)| *subnet == own));
    }
}
