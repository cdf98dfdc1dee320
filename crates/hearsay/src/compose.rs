//! Puts a gateway together from its parts. In `hearsay dev` they are joined to a recognizer by the same calls that join them
//! in a cluster; the gRPC hop goes through a loopback connection to the one public port.

use std::{net::SocketAddr, num::NonZeroUsize, sync::Arc, thread::available_parallelism};

use hearsay_auth::Auth;
use hearsay_bus::Bus;
use hearsay_fanout::{CoreSet, Hub};
use hearsay_gateway::Gateway;
use hearsay_protocol::GatewayId;
use hearsay_runtime::{Admin, Tasks};
use hearsay_uplink::Uplinks;
use tonic::service::Routes;

use crate::{config::Config, log, process::Process};

/// Starts one gateway. Returns where clients connect; readiness tells when they can speak.
pub(crate) async fn gateway(config: Config, auth: Auth, process: &Process) -> anyhow::Result<SocketAddr> {
    let edge = Edge::bind(config, &process.tasks)?;
    let address = edge.gateway.local_addr();
    let recognizers = edge.config.uplink.addresses().map_err(anyhow::Error::msg)?;
    let bus = log::open(&edge.config.bus, &process.readiness, &process.tasks).await?;
    edge.serve(recognizers, bus, auth, None, process)?;
    Ok(address)
}

/// The gateway's port is taken, and nothing is served yet.
pub(crate) struct Edge {
    pub(crate) config: Config,
    cores: CoreSet,
    pub(crate) gateway: Gateway,
}

impl Edge {
    pub(crate) fn bind(config: Config, tasks: &Tasks) -> anyhow::Result<Self> {
        let cores = CoreSet::start(available_parallelism().unwrap_or(NonZeroUsize::MIN), &config.fanout, tasks)?;
        let gateway = Gateway::bind(config.gateway.clone(), &cores)?;
        Ok(Self { config, cores, gateway })
    }

    /// With a recognizer of this process, all is answered on the one port; without, operators have their own.
    pub(crate) fn serve(
        self,
        recognizers: Vec<http::Uri>,
        bus: Arc<dyn Bus>,
        auth: Auth,
        own: Option<Routes>,
        process: &Process,
    ) -> anyhow::Result<()> {
        let Process { tasks, readiness, metrics, .. } = process.clone();
        let uplinks = Uplinks::start(self.config.uplink, recognizers, Arc::clone(&bus), &tasks)?;
        let id = GatewayId(uuid::Uuid::new_v4());
        let hub = Hub::start(self.config.fanout, Arc::clone(&bus), id, self.cores.clone(), &tasks);
        self.gateway.serve(hearsay_gateway::Parts {
            gateway: id,
            bus,
            uplinks,
            hub,
            cores: self.cores,
            auth,
            admin: own.is_some().then(|| Admin::new(readiness.clone(), metrics)),
            readiness,
            grpc: own,
            tasks,
        });
        Ok(())
    }
}
