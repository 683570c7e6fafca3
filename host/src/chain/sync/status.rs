//! What the machine knows, for those who ask.

use bitcoin::BlockHash;
use bitcoin::block::Header;

use super::{PeerId, PeerInfo, Session, Sync};
use crate::chain::header_tree::HeaderTree;
use crate::network::Network;
use crate::wire::Moment;

impl Sync {
    /// Height and hash of the active chain's last block.
    pub fn tip(&self) -> (u32, BlockHash) {
        self.tree.tip()
    }

    /// The hash at `height` on the active chain.
    pub fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.tree.hash_at(height)
    }

    /// A header on whatever branch.
    pub fn header(&self, hash: &BlockHash) -> Option<Header> {
        self.tree.header(hash)
    }

    /// The height of a header on whatever branch.
    pub fn height_of(&self, hash: &BlockHash) -> Option<u32> {
        self.tree.height_of(hash)
    }

    /// The median time past of a header and the ten before it, unix seconds.
    pub fn median_time(&self, hash: &BlockHash) -> Option<u32> {
        self.tree.median_time(hash)
    }

    /// Height and hash of the last header of the branch with the most work.
    pub fn best_header(&self) -> (u32, BlockHash) {
        self.tree.best_header()
    }

    /// The tree itself, for what the above does not answer.
    pub fn tree(&self) -> &HeaderTree {
        &self.tree
    }

    /// Whether the active chain is the best that the network has, as far as we can know: its tip is the best header,
    /// with enough work, a peer is there, and the tip is recent or no peer has more. On regtest time means nothing.
    /// It stays so for [`synced_grace`](SyncConfig::synced_grace) while a block that was announced is fetched.
    pub fn synced(&self, now: Moment) -> bool {
        let connected = self.anybody_there();
        let lately = self
            .last_synced
            .is_some_and(|at| now.since(at) <= self.config.synced_grace);
        connected && (lately || self.at_the_end(now))
    }

    /// Whether anybody is there who could show more.
    pub(super) fn anybody_there(&self) -> bool {
        self.source_counts_as_peer() || self.peers.values().any(|session| session.peer.is_ready())
    }

    pub(super) fn at_the_end(&self, now: Moment) -> bool {
        let best = self.tree.best_id();
        if self.tree.tip_id() != best || self.tree.best_work() < self.config.minimum_work {
            return false;
        }
        let age = now
            .secs()
            .saturating_sub(u64::from(self.tree.node(best).time));
        let recent =
            self.params.base != Network::Regtest && age <= self.config.recent_tip.as_secs();
        // A recent tip may come from our own files: somebody must have shown that there is no more above it.
        let shown = self.caught_up || self.source_counts_as_peer();
        shown && (recent || (self.nobody_has_more() && self.somebody_can_tell()))
    }

    /// An old tip is the end only if a peer says so; our own files may have been left behind. On regtest they are all there is.
    fn somebody_can_tell(&self) -> bool {
        self.params.base == Network::Regtest
            || self.peers.values().any(|session| session.peer.is_ready())
    }

    /// The peers, for `status`.
    pub fn peers(&self) -> Vec<PeerInfo> {
        self.peers
            .iter()
            .map(|(id, session)| self.peer_info(*id, session))
            .collect()
    }

    fn peer_info(&self, id: PeerId, session: &Session) -> PeerInfo {
        let peer = &session.peer;
        PeerInfo {
            id,
            addr: peer.addr(),
            name: self.shown(peer.addr()),
            kind: session.life.kind,
            outbound: peer.is_outbound(),
            ready: peer.is_ready(),
            user_agent: peer.user_agent().to_owned(),
            transport: peer.transport(),
            session_id: peer.session_id(),
            version: peer.protocol_version(),
            services: peer.services(),
            start_height: peer.start_height(),
            height: session
                .best
                .map_or(peer.start_height(), |best| self.tree.node(best).height),
            since: peer.since(),
            latency: peer.latency(),
            time_offset: peer.time_offset(),
            fee_filter: peer.fee_filter(),
            bytes_in: peer.bytes_in(),
            bytes_out: peer.bytes_out(),
            inflight: session.in_flight.len(),
            blocks: session.life.blocks,
            misbehaviour: session
                .life
                .misbehaviour
                .saturating_add(session.unrequested_blocks)
                .saturating_add(session.unconnected),
            addresses_over: session.life.addresses_over,
        }
    }
}
