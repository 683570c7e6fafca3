//! A client of the protocol that knows nothing and says only what it is told to.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use bitcoin::block::Header;
use bitcoin::consensus::{deserialize, serialize};
use bitcoin::hashes::{Hash, sha256d};
use bitcoin::p2p::address::Address;
use bitcoin::p2p::message::{NetworkMessage, RawNetworkMessage};
use bitcoin::p2p::message_blockdata::GetHeadersMessage;
use bitcoin::p2p::message_network::VersionMessage;
use bitcoin::p2p::{Magic, ServiceFlags};
use bitcoin::{Block, BlockHash, Network, Transaction};

pub struct Client {
    stream: TcpStream,
    magic: Magic,
    pings: u64,
}

pub fn checksum(payload: &[u8]) -> [u8; 4] {
    sha256d::Hash::hash(payload).to_byte_array()[..4]
        .try_into()
        .unwrap()
}

impl Client {
    pub fn connect(addr: SocketAddr, network: Network) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream,
            magic: network.magic(),
            pings: 100,
        }
    }

    pub fn send(&mut self, message: NetworkMessage) {
        let bytes = serialize(&RawNetworkMessage::new(self.magic, message));
        self.stream.write_all(&bytes).unwrap();
    }

    pub fn raw_head(&mut self) -> [u8; 24] {
        let mut head = [0; 24];
        self.stream.read_exact(&mut head).unwrap();
        head
    }

    pub fn raw(&mut self) -> ([u8; 24], Vec<u8>) {
        let head = self.raw_head();
        let length = u32::from_le_bytes(head[16..20].try_into().unwrap());
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).unwrap();
        (head, payload)
    }

    pub fn receive(&mut self) -> NetworkMessage {
        let (head, payload) = self.raw();
        let message: RawNetworkMessage = deserialize(&[&head[..], &payload].concat()).unwrap();
        assert_eq!(*message.magic(), self.magic);
        message.into_payload()
    }

    /// All that comes until the server closes the connection.
    pub fn until_the_end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => rest,
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => rest,
            Err(error) => panic!("connection still open: {error}"),
        }
    }

    /// The next message that is wanted; others are passed over, pings answered.
    pub fn wait(&mut self, wanted: impl Fn(&NetworkMessage) -> bool) -> NetworkMessage {
        loop {
            let message = self.receive();
            if wanted(&message) {
                return message;
            }
            if let NetworkMessage::Ping(nonce) = message {
                self.send(NetworkMessage::Pong(nonce));
            }
        }
    }

    pub fn shake_hands(&mut self, wtxid_relay: bool) -> VersionMessage {
        let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let address = Address::new(&nobody, ServiceFlags::NONE);
        self.send(NetworkMessage::Version(VersionMessage {
            version: 70_016,
            services: ServiceFlags::NONE,
            timestamp: 0,
            receiver: address.clone(),
            sender: address,
            nonce: 1,
            user_agent: "/test:1/".to_owned(),
            start_height: 0,
            relay: true,
        }));
        let NetworkMessage::Version(version) = self.receive() else {
            panic!("not a version")
        };
        assert_eq!(self.receive(), NetworkMessage::WtxidRelay);
        assert_eq!(self.receive(), NetworkMessage::SendAddrV2);
        assert_eq!(self.receive(), NetworkMessage::Verack);
        if wtxid_relay {
            self.send(NetworkMessage::WtxidRelay);
        }
        self.send(NetworkMessage::Verack);
        assert_eq!(self.receive(), NetworkMessage::SendHeaders);
        assert!(matches!(self.receive(), NetworkMessage::SendCmpct(_)));
        assert!(matches!(self.receive(), NetworkMessage::FeeFilter(_)));
        version
    }

    /// Waits until everything sent before has been seen to, and returns what came before the answer.
    pub fn ping(&mut self) -> Vec<NetworkMessage> {
        self.pings += 1;
        let nonce = self.pings;
        self.send(NetworkMessage::Ping(nonce));
        let mut before = Vec::new();
        loop {
            match self.receive() {
                NetworkMessage::Pong(answer) if answer == nonce => return before,
                NetworkMessage::Ping(theirs) => self.send(NetworkMessage::Pong(theirs)),
                other => before.push(other),
            }
        }
    }

    pub fn headers(&mut self, locator: Vec<BlockHash>) -> Vec<Header> {
        // Announcements that came before are not the answer.
        self.ping();
        let ask = GetHeadersMessage::new(locator, BlockHash::all_zeros());
        self.send(NetworkMessage::GetHeaders(ask));
        match self.wait(|message| matches!(message, NetworkMessage::Headers(_))) {
            NetworkMessage::Headers(headers) => headers,
            _ => unreachable!(),
        }
    }

    pub fn block(&mut self) -> Block {
        match self.wait(|message| matches!(message, NetworkMessage::Block(_))) {
            NetworkMessage::Block(block) => block,
            _ => unreachable!(),
        }
    }

    pub fn transaction(&mut self) -> Transaction {
        match self.wait(|message| matches!(message, NetworkMessage::Tx(_))) {
            NetworkMessage::Tx(tx) => tx,
            _ => unreachable!(),
        }
    }
}
