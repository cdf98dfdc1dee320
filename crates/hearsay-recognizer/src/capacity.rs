//! Tells gateways how many streams are heard here and how many more there is room for.
//!
//! Cost: one task a gateway, and some twenty bytes a second.

use std::{sync::Arc, time::Duration};

use hearsay_rpc::v1::{self, capacity_server};
use hearsay_runtime::Tasks;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::{ladder::Load, slots::Slots};

/// How often it is looked whether something changed.
const LOOK: Duration = Duration::from_millis(50);
/// How long nothing is said when nothing changes.
const SAY: Duration = Duration::from_secs(1);
/// How long a gateway may leave what was said unread.
const UNREAD: Duration = Duration::from_secs(10);

pub(crate) struct Capacity {
    pub(crate) slots: Arc<Slots>,
    pub(crate) rated: usize,
    pub(crate) load: Arc<Load>,
    pub(crate) tasks: Tasks,
}

#[tonic::async_trait]
impl capacity_server::Capacity for Capacity {
    type WatchStream = ReceiverStream<Result<v1::Load, Status>>;

    async fn watch(&self, _: tonic::Request<v1::WatchRequest>) -> Result<tonic::Response<Self::WatchStream>, Status> {
        let drain = self.tasks.drain();
        if drain.is_draining() {
            return Err(Status::unavailable("this recognizer drains"));
        }
        let (said, saying) = mpsc::channel(1);
        let (slots, load, rated) = (Arc::clone(&self.slots), Arc::clone(&self.load), count(self.rated));
        drop(self.tasks.spawn_background("load", async move {
            let mut look = interval(LOOK);
            look.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut last: Option<(u32, u32, Instant)> = None;
            loop {
                tokio::select! {
                    _ = look.tick() => {}
                    () = said.closed() => return,
                    () = drain.cancelled() => break,
                }
                let (streams, ladder) = (count(slots.taken()), load.step());
                let is_new =
                    |(were, was, at): &(u32, u32, Instant)| (*were, *was) != (streams, ladder) || at.elapsed() >= SAY;
                if last.as_ref().is_none_or(is_new) {
                    last = Some((streams, ladder, Instant::now()));
                    let now = v1::Load { streams, rated, behind_ms: load.behind_ms(), ladder };
                    if !matches!(timeout(UNREAD, said.send(Ok(now))).await, Ok(Ok(()))) {
                        return;
                    }
                }
            }
            // A gateway that does not read is gone.
            let _ = timeout(UNREAD, said.send(Err(Status::unavailable("this recognizer drains")))).await;
        }));
        Ok(tonic::Response::new(ReceiverStream::new(saying)))
    }
}

fn count(places: usize) -> u32 {
    u32::try_from(places).unwrap_or(u32::MAX)
}
