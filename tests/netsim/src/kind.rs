//! What a peer is: honest, or one of those that are not.

/// What a peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Does what it should, on a good line.
    Honest,
    /// Does what it should, on a bad line.
    Slow,
    /// Answers no question for blocks.
    Staller,
    /// Sends two kilobytes a second.
    Crawler,
    /// Says that it has a million blocks more, and shows none.
    Boaster,
    /// Says that it has nothing, and shows all of it when asked.
    Understater,
    /// Sends long branches with little work, asked or not.
    Flooder,
    /// Sends blocks that are not what their header says.
    Mutator,
    /// Spoils the checksum of a message now and then.
    Spoiler,
    /// Sends messages with more entries than there may be.
    Oversizer,
    /// Sends addresses without end.
    Gossip,
    /// Announces transactions that do not exist, without end.
    Announcer,
    /// Closes the connection in the middle of a message.
    Vanisher,
    /// Answers every question with something else.
    Contrarian,
    /// Its clock is off by hours, and it shows headers of tomorrow.
    Skewed,
    /// Sends compact blocks with the short ids of other transactions.
    Scrambler,
    /// Sends other transactions, or more or fewer, than a compact block lacks.
    Swapper,
    /// Does not send the transactions that a compact block lacks.
    Withholder,
    /// Sends compact blocks with transactions where there are none, with none at all, and with too many.
    Miscounter,
    /// Begins a handshake of version 2 of the transport with garbage that does not end.
    Babbler,
    /// Begins one and falls silent.
    Hush,
    /// Closes the connection in the middle of one.
    Quitter,
    /// Says nothing at all.
    Mute,
    /// Shakes hands, answers pings, and is good for nothing else.
    Idler,
}

impl Kind {
    /// All that are not honest.
    pub const BAD: [Kind; 22] = [
        Kind::Staller,
        Kind::Crawler,
        Kind::Boaster,
        Kind::Flooder,
        Kind::Mutator,
        Kind::Spoiler,
        Kind::Oversizer,
        Kind::Gossip,
        Kind::Announcer,
        Kind::Vanisher,
        Kind::Contrarian,
        Kind::Skewed,
        Kind::Understater,
        Kind::Mute,
        Kind::Idler,
        Kind::Scrambler,
        Kind::Swapper,
        Kind::Withholder,
        Kind::Miscounter,
        Kind::Babbler,
        Kind::Hush,
        Kind::Quitter,
    ];

    /// Whether the host has no reason to drop it.
    pub fn is_honest(self) -> bool {
        matches!(self, Kind::Honest | Kind::Slow)
    }

    /// Whether it spoils compact blocks: then it wants to be the first who has one.
    pub fn spoils_compact(self) -> bool {
        matches!(
            self,
            Kind::Scrambler | Kind::Swapper | Kind::Withholder | Kind::Miscounter
        )
    }

    /// Whether it never gets through a handshake of version 2.
    pub fn spoils_handshake(self) -> bool {
        matches!(self, Kind::Babbler | Kind::Hush | Kind::Quitter)
    }

    /// The bad kind with this number, by turns.
    pub fn by_turn(number: u64) -> Kind {
        let place = (number % Kind::BAD.len() as u64) as usize;
        Kind::BAD.get(place).copied().unwrap_or(Kind::Staller)
    }
}
