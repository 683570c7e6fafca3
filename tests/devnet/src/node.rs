//! The state under its lock, and the clients that hear of what it does.

use std::sync::{Arc, Mutex, MutexGuard, Weak};

use bitcoin::Transaction;

use crate::server::{Client, Shared, lock, make_ready};
use crate::state::{News, State};

/// A client that has shaken hands, and how it is spoken to.
#[derive(Debug)]
struct Listener {
    client: Weak<Client>,
    server: Weak<Shared>,
}

/// What all listeners serve.
#[derive(Debug)]
pub struct Node {
    state: Mutex<State>,
    listeners: Mutex<Vec<Listener>>,
}

impl Node {
    /// A node that nobody listens to yet.
    pub fn new(state: State) -> Self {
        Self {
            state: Mutex::new(state),
            listeners: Mutex::new(Vec::new()),
        }
    }

    /// The state, to look at. Whoever changes it goes through [`Node::change`].
    pub fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Changes the state and tells the clients what came of it, in order.
    pub fn change<T>(&self, step: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let result = step(&mut state);
        let news = state.take_news();
        // Still under the lock: two changes must not be told in the wrong order.
        self.tell(&news);
        result
    }

    fn tell(&self, news: &[News]) {
        if news.is_empty() {
            return;
        }
        lock(&self.listeners).retain(|listener| {
            let (client, server) = (listener.client.upgrade(), listener.server.upgrade());
            if let (Some(client), Some(server)) = (&client, &server) {
                client.announce(server.config.magic, server.behaviour().latency(), news);
            }
            client.is_some()
        });
    }

    /// Takes in a transaction from a client. What does not fit is passed over.
    pub(crate) fn hear(&self, tx: Transaction) {
        let _ = self.change(|state| state.submit(tx));
    }

    /// From now on this client hears of everything.
    pub(crate) fn register(&self, client: &Arc<Client>, server: &Arc<Shared>) {
        let state = self.state();
        make_ready(client);
        if server.config.announce_pool {
            let latency = server.behaviour().latency();
            client.announce(server.config.magic, latency, &state.pool_news());
        }
        let listener = Listener {
            client: Arc::downgrade(client),
            server: Arc::downgrade(server),
        };
        lock(&self.listeners).push(listener);
    }
}
