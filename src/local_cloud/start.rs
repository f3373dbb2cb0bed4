//! How a cloud begins: what a directory has, a listener a peer, the loops behind them.

use std::{io, sync::Arc};

use tokio::sync::watch;

use super::{
    LocalCloud, World,
    bodies::Bodies,
    data::{self, DataDirectory},
    faults::Faults,
    front_door::FrontDoor,
    identity::Identity,
    jwks,
    kms::Kms,
    observe::Watchers,
    policy::Policies,
    pubsub::{self, Emulator, Pubsub},
    roles::AccountRole,
    server::{self, Peer, Site},
    settings::{Settings, Urls},
    storage::Storage,
};

impl LocalCloud {
    /// Makes the keys and opens one listener a peer on free ports of 127.0.0.1. Runs on the current Tokio runtime.
    ///
    /// # Errors
    ///
    /// When a port cannot be bound, or a key cannot be made.
    pub async fn start(settings: Settings) -> io::Result<Self> {
        Self::start_with(settings, None).await
    }

    /// The same with what a directory has, where every change is kept from now on: buckets, objects, topics, subscriptions and
    /// their messages, accounts and their keys, and KMS keys. The peers get the ports they had, as far as these are free. What
    /// waits for a push waits until [`LocalCloud::resume`].
    ///
    /// # Errors
    ///
    /// The same, and when the directory cannot be read or written.
    pub async fn start_with(settings: Settings, data: Option<DataDirectory>) -> io::Result<Self> {
        let (clock, project) = (settings.clock.clone(), settings.project.clone());
        let of_identity = data.clone();
        let identity = tokio::task::spawn_blocking(move || Identity::open(clock, project, of_identity.as_ref()))
            .await?
            .map_err(|error| data::unreadable(&error))?;
        let (worker, signer) = (&settings.worker_service_account, &settings.signer_service_account);
        for account in [worker, signer, &settings.push_service_account] {
            identity.add_account(account);
        }
        for account in [worker, signer] {
            identity.grants.grant(worker, account, AccountRole::TokenCreator);
        }
        let mut listeners = Vec::new();
        let mut urls = Vec::new();
        let peers = [
            Peer::Storage,
            Peer::Pubsub,
            Peer::Metadata,
            Peer::Iam,
            Peer::Sts,
            Peer::Jwks,
            Peer::Kms,
            Peer::FrontDoor,
        ];
        let ports = data::Ports::of(data.as_ref())?;
        for peer in peers {
            let listener = ports.bind(&format!("{peer:?}")).await?;
            urls.push(format!("http://{}", listener.local_addr()?));
            listeners.push((peer, listener));
        }
        let url = |peer| {
            peers
                .iter()
                .zip(&urls)
                .find(|(other, _)| **other == peer)
                .map_or_else(String::new, |(_, url)| url.clone())
        };
        let urls = Urls {
            storage: url(Peer::Storage),
            pubsub: url(Peer::Pubsub),
            metadata: url(Peer::Metadata),
            iam: url(Peer::Iam),
            sts: url(Peer::Sts),
            jwks: format!("{}{}", url(Peer::Jwks), jwks::PATH),
            kms: url(Peer::Kms),
            front_door: url(Peer::FrontDoor),
        };
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(io::Error::other)?;
        let (stop, stopped) = watch::channel(false);
        let (emulator, relay) = match &settings.pubsub_emulator {
            None => (None, None),
            Some(host) => {
                let (emulator, listener, orders) = Emulator::at(host).await?;
                (Some(emulator), Some((listener, orders)))
            }
        };
        let world = Arc::new(World {
            clock: settings.clock.clone(),
            urls,
            identity,
            policies: Policies::default(),
            storage: Storage::open(data.as_ref()).map_err(|error| data::unreadable(&error))?,
            pubsub: Pubsub::open(data.as_ref(), &settings.clock, emulator).map_err(|error| data::unreadable(&error))?,
            kms: Kms::open(data.as_ref()).map_err(|error| data::unreadable(&error))?,
            ports,
            front_door: FrontDoor::default(),
            faults: Faults::default(),
            watchers: Watchers::default(),
            settings,
            http,
            bodies: Bodies::default(),
            stopped: stopped.clone(),
        });
        for (peer, listener) in listeners {
            server::serve(Arc::clone(&world), Site::Deployment(peer), listener, stopped.clone());
        }
        if let Some((listener, orders)) = relay {
            server::serve(Arc::clone(&world), Site::PushRelay, listener, stopped.clone());
            tokio::spawn(pubsub::work(Arc::clone(&world), orders));
        }
        Ok(Self { world, stop })
    }
}
