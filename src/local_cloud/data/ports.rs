//! The ports that a cloud listened on: signed URLs hold one, and work after a restart only where it is the same.

use std::{collections::BTreeMap, io, sync::Arc};

use tokio::net::TcpListener;

use super::{DataDirectory, Journal, Loose, commit};

const PORTS: &str = "port/";

/// By the name of who listened.
pub(in super::super) struct Ports {
    journal: Option<Arc<Journal>>,
    before: BTreeMap<String, u16>,
}

impl Ports {
    pub(in super::super) fn of(data: Option<&DataDirectory>) -> io::Result<Self> {
        let journal = data.map(|data| Arc::clone(&data.journal));
        let before = match &journal {
            Some(journal) => journal.read(PORTS)?.into_iter().collect(),
            None => BTreeMap::new(),
        };
        Ok(Self { journal, before })
    }

    /// The port of 127.0.0.1 that it was, or one that is free.
    pub(in super::super) async fn bind(&self, name: &str) -> io::Result<TcpListener> {
        let before = self.before.get(name).copied();
        let again = match before {
            Some(port) => TcpListener::bind(("127.0.0.1", port)).await.ok(),
            None => None,
        };
        let listener = match again {
            Some(listener) => listener,
            None => TcpListener::bind(("127.0.0.1", 0)).await?,
        };
        let port = listener.local_addr()?.port();
        if self.journal.is_some() && before != Some(port) {
            let mut record = Loose::put(self.journal.as_ref(), &format!("{PORTS}{name}"), &port);
            commit(&mut [&mut record]).map_err(io::Error::other)?;
        }
        Ok(listener)
    }
}
