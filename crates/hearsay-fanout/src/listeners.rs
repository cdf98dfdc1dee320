//! The listeners of one core: rows of a table, without task, buffer or timer of their own.
//!
//! What an idle listener costs in user memory: a [`Slot`] of 64 bytes and 4 bytes in its group's list, each up to twice
//! while its vector grows (100 to 150 bytes measured at 9,000: example `fanout_cost`). The read buffer is the core's. A row
//! owns bytes only while a message of its client is incomplete (at most `listener_message` and a header) or while its
//! socket takes no more: then a queue of shared buffers and offsets, at most `listener_queue` bytes of events, and write
//! interest. Durable events wait in it, partials are skipped; past the bound the row is cut with its resume point. Rates:
//! one `send` per row and flush; one look at each row per `ping_every`.
//!
//! Every byte a row sends goes through [`Listeners::send`]: events, pongs and closes share one order. All sockets hang
//! on one epoll, of which the runtime sees a single descriptor.

use std::{
    collections::{HashMap, VecDeque},
    io,
    mem::MaybeUninit,
    net::TcpStream,
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use hearsay_protocol::{
    CloseCode, MeetingKey, Position,
    client::{ClientError, ClientMessage, ErrorCode, Secret},
    wire,
};
use rustix::{
    event::{
        Timespec,
        epoll::{self, EventData, EventFlags},
    },
    io::Errno,
    net::SendFlags,
};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    FanoutConfig, frame,
    inbox::{GroupId, GroupLink, Joiner, RowKey, Who},
    metrics::{self, CoreMetrics, Since},
    outbox,
    registry::Inner,
    trace::Passed,
};

/// Read at once from one socket; a listener rarely sends more than a few bytes.
const READ: usize = 16 * 1024;
/// Sockets looked at before other work of the core has its turn.
const EVENTS: usize = 256;
/// How often a part of the rows is looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// How often a drain closes a share of the rows.
const DRAIN_STEP: Duration = Duration::from_millis(50);

/// What is written to one group.
#[derive(Debug, Clone)]
pub(crate) struct Flush {
    pub(crate) group: GroupId,
    pub(crate) bytes: Bytes,
    /// Contiguous pieces of `bytes`, each of whole frames.
    pub(crate) parts: Arc<[Part]>,
    pub(crate) since: Since,
    /// Durable events and ephemeral ones.
    pub(crate) events: [usize; 2],
    /// What of it is traced.
    pub(crate) passed: Passed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Where it ends in the buffer.
    pub(crate) end: u32,
    /// Waits for a blocked row; otherwise it is skipped there.
    pub(crate) durable: bool,
    /// Where a reader is that has read it.
    pub(crate) reaches: Option<Position>,
}

/// What a core is told to do. Carried out in order.
pub(crate) enum Post {
    Attach(Box<Attach>),
    /// The row becomes a member of the group: `bytes` first, which take it from `from` to `reaches`.
    Enter {
        row: RowKey,
        link: Arc<GroupLink>,
        bytes: Bytes,
        from: Option<Position>,
        reaches: Option<Position>,
    },
    /// Bytes for one row that is catching up; `written` is dropped when the row is gone.
    Page {
        row: RowKey,
        bytes: Bytes,
        from: Option<Position>,
        reaches: Option<Position>,
        written: oneshot::Sender<()>,
    },
    Flush(Arc<[Flush]>),
    /// Last frames of one row, the close frame among them.
    CloseRow {
        row: RowKey,
        last: Bytes,
        reason: &'static str,
    },
    /// The same of all members of a group.
    CloseGroup {
        group: GroupId,
        last: Bytes,
        reason: &'static str,
    },
    Drain {
        spread: Duration,
        done: oneshot::Sender<()>,
    },
    Renewals(Arc<dyn Renewals>),
}

/// Knows tokens, which this crate does not.
pub trait Renewals: Send + Sync + 'static {
    /// How long a listener of this meeting may stay by this token. Never waits.
    ///
    /// # Errors
    /// What the listener is told.
    fn renew(&self, meeting: &MeetingKey, token: &Secret) -> Result<Duration, ClientError>;
}

/// A socket that becomes a row.
pub(crate) struct Attach {
    pub(crate) socket: TcpStream,
    pub(crate) leftover: Bytes,
    pub(crate) session: u32,
    pub(crate) good_for: Option<Duration>,
    pub(crate) permit: Box<dyn Send>,
    pub(crate) link: Arc<GroupLink>,
    /// Makes the letter that tells the group's owner of its new member.
    pub(crate) joiner: Box<dyn FnOnce(RowKey) -> Joiner + Send>,
}

/// One listener.
struct Row {
    socket: TcpStream,
    generation: u32,
    /// Index of its group here; [`NOWHERE`] once it is being closed.
    group: u32,
    /// Where it stands in its group's list.
    seat: u32,
    parser: frame::Parser,
    blocked: Option<Box<Blocked>>,
    permit: Box<dyn Send>,
    session: u32,
    /// Seconds since the core began: when it came, and when its token expires ([`NEVER`] for none).
    opened: u32,
    expires: u32,
    /// Messages since the last look.
    heard: u16,
    flags: Flags,
}

const NOWHERE: u32 = u32::MAX;
const NEVER: u32 = u32::MAX;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Flags(u8);

impl Flags {
    /// Something was read since the last look, a message or a part of one.
    const HEARD: u8 = 1;
    /// Was asked for a sign of life at the last look.
    const ASKED: u8 = 2;
    /// Took no byte since the last look, and is blocked.
    const STALLED: u8 = 4;
    /// The close frame is sent or queued; only the peer's close is awaited.
    const CLOSING: u8 = 8;
    /// Was told at the last look that its token has expired.
    const EXPIRED: u8 = 16;

    fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }

    fn set(&mut self, flag: u8, on: bool) {
        if on { self.0 |= flag } else { self.0 &= !flag }
    }
}

/// What a row's socket did not take.
struct Blocked {
    queue: VecDeque<Chunk>,
    /// Bytes in `queue`.
    bytes: usize,
    /// Where the reader is with everything before `queue`.
    resume: Option<Position>,
    /// Told when all is written.
    written: Option<oneshot::Sender<()>>,
}

struct Chunk {
    bytes: Bytes,
    /// Some of the chunk before `bytes` is written: the rest must follow.
    begun: bool,
    reaches: Option<Position>,
}

enum Slot {
    Row(Row),
    Free { generation: u32 },
}

/// Members of one audience on this core.
struct Group {
    link: Arc<GroupLink>,
    members: Vec<u32>,
    /// Where members are that are not blocked.
    reached: Option<Position>,
    flushed: Option<Instant>,
    pending: Vec<Flush>,
    /// When `pending` is written at the latest.
    due: Option<Instant>,
}

struct Pace {
    until: Instant,
    next: Instant,
    at: usize,
    done: Option<oneshot::Sender<()>>,
}

/// All rows of a core.
pub(crate) struct Listeners {
    core: u32,
    began: Instant,
    queue_limit: usize,
    frame_limits: frame::Limits,
    messages: u16,
    renewals: Option<Arc<dyn Renewals>>,
    hold: Duration,
    hold_members: usize,
    ping_every: Duration,
    close_linger: Duration,
    epoll: Arc<OwnedFd>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    rows: usize,
    groups: Vec<Option<Group>>,
    free_groups: Vec<u32>,
    by_id: HashMap<GroupId, u32>,
    /// Groups with something to write.
    dirty: Vec<u32>,
    buffer: Box<[u8]>,
    /// Rows that wait for their peer's close, in the order of their deadlines.
    closing: VecDeque<(Instant, RowKey)>,
    next_sweep: Instant,
    /// When the present round over the rows began, and how many had their turn.
    round: Instant,
    swept: usize,
    drain: Option<Pace>,
    metrics: CoreMetrics,
}

/// What became of a write.
enum Sent {
    All,
    Waiting,
    Slow,
    Gone,
}

impl Listeners {
    pub(crate) fn new(core: usize, config: &FanoutConfig) -> io::Result<Self> {
        let now = Instant::now();
        Ok(Self {
            core: core as u32,
            began: now,
            queue_limit: config.listener_queue.as_usize(),
            frame_limits: frame::Limits { message: config.listener_message.as_usize(), ..frame::Limits::default() },
            messages: config.listener_messages.get(),
            renewals: None,
            hold: config.hold.get(),
            hold_members: config.hold_members.get(),
            ping_every: config.ping_every.get(),
            close_linger: config.close_linger.get(),
            epoll: Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?),
            slots: Vec::new(),
            free: Vec::new(),
            rows: 0,
            groups: Vec::new(),
            free_groups: Vec::new(),
            by_id: HashMap::new(),
            dirty: Vec::new(),
            buffer: vec![0; READ].into(),
            closing: VecDeque::new(),
            next_sweep: now + SWEEP,
            round: now,
            swept: 0,
            drain: None,
            metrics: CoreMetrics::new(),
        })
    }

    /// Readable when a row has something to say.
    pub(crate) fn epoll(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.epoll)
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// When [`Listeners::tick`] has something to do.
    pub(crate) fn next_tick(&self) -> Instant {
        let held = self.dirty.iter().filter_map(|&group| self.groups[group as usize].as_ref()?.due).min();
        let drain = self.drain.as_ref().map(|pace| pace.next);
        let closing = self.closing.front().map(|(deadline, _)| *deadline);
        [held, drain, closing].into_iter().flatten().fold(self.next_sweep, Instant::min)
    }

    /// How many rows a post concerns, at most.
    pub(crate) fn reach(&self, post: &Post) -> usize {
        let members = |id: &GroupId| {
            let group = self.by_id.get(id).and_then(|&index| self.groups[index as usize].as_ref());
            group.map_or(0, |group| group.members.len())
        };
        match post {
            Post::Attach(_) | Post::Enter { .. } | Post::Page { .. } | Post::CloseRow { .. } | Post::Renewals(_) => 1,
            Post::Flush(flushes) => flushes.iter().map(|flush| members(&flush.group)).sum(),
            Post::CloseGroup { group, .. } => members(group),
            Post::Drain { .. } => self.rows,
        }
    }

    pub(crate) fn handle(&mut self, post: Post, now: Instant) {
        match post {
            Post::Attach(attach) => self.attach(*attach, now),
            Post::Enter { row, link, bytes, from, reaches } => self.enter(row, link, &bytes, from, reaches, now),
            Post::Page { row, bytes, from, reaches, written } => self.page(row, &bytes, from, reaches, written),
            Post::Flush(flushes) => {
                for flush in flushes.iter() {
                    self.take_flush(flush.clone(), now);
                }
            }
            Post::CloseRow { row, last, reason } => {
                if self.row(row).is_some() {
                    self.close(row.index, &last, reason, now);
                }
            }
            Post::CloseGroup { group, last, reason } => {
                let Some(&group) = self.by_id.get(&group) else { return };
                self.flush(group, now);
                let members = self.groups[group as usize].as_ref().map(|group| group.members.clone());
                for index in members.unwrap_or_default() {
                    self.close(index, &last, reason, now);
                }
            }
            Post::Renewals(renewals) => self.renewals = Some(renewals),
            Post::Drain { spread, done } => {
                self.drain = Some(Pace { until: now + spread, next: now, at: 0, done: Some(done) });
            }
        }
    }

    /// Writes what need not be held. To be called at the end of each pass.
    pub(crate) fn flush_dirty(&mut self, now: Instant) {
        let mut held = Vec::new();
        for group in std::mem::take(&mut self.dirty) {
            match self.groups[group as usize].as_ref().map(|group| group.due) {
                Some(Some(due)) if due > now => held.push(group),
                Some(_) => self.flush(group, now),
                None => (),
            }
        }
        held.append(&mut self.dirty);
        self.dirty = held;
    }

    /// What time brings: held flushes, signs of life, deadlines.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.flush_dirty(now);
        while let Some(&(deadline, row)) = self.closing.front()
            && deadline <= now
        {
            self.closing.pop_front();
            if self.row(row).is_some() {
                self.remove(row.index, "closed");
            }
        }
        if self.next_sweep <= now {
            self.next_sweep = now + SWEEP;
            self.sweep(now);
        }
        if self.drain.as_ref().is_some_and(|pace| pace.next <= now) {
            self.drain_step(now);
        }
    }

    /// Serves rows that are ready; answers whether there may be more.
    pub(crate) fn poll(&mut self, now: Instant) -> io::Result<bool> {
        let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        let ready = match epoll::wait(&self.epoll, &mut room[..], Some(&Timespec::default())) {
            Ok((ready, _)) => ready,
            Err(Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let more = !ready.is_empty();
        for event in ready {
            let (data, flags) = (event.data.u64(), event.flags);
            let key = RowKey { core: self.core, index: data as u32, generation: (data >> 32) as u32 };
            if self.row(key).is_none() {
                continue;
            }
            if flags.contains(EventFlags::OUT) {
                self.write_on(key.index, now);
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR | EventFlags::RDHUP)
                && self.row(key).is_some()
            {
                self.read(key.index, now);
            }
        }
        Ok(more)
    }

    /// Since the core began; below [`NEVER`].
    fn seconds(&self, at: Instant) -> u32 {
        at.saturating_duration_since(self.began).as_secs().min(u64::from(NEVER - 1)) as u32
    }

    fn row(&mut self, key: RowKey) -> Option<&mut Row> {
        match self.slots.get_mut(key.index as usize) {
            Some(Slot::Row(row)) if row.generation == key.generation => Some(row),
            _ => None,
        }
    }

    /// Known to be there: the index stands in a group, or was just looked up.
    fn at(&mut self, index: u32) -> Option<&mut Row> {
        match self.slots.get_mut(index as usize) {
            Some(Slot::Row(row)) => Some(row),
            _ => None,
        }
    }

    fn attach(&mut self, attach: Attach, now: Instant) {
        let Attach { socket, leftover, session, good_for, permit, link, joiner } = attach;
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.slots.push(Slot::Free { generation: 0 });
                (self.slots.len() - 1) as u32
            }
        };
        let generation = match self.slots[index as usize] {
            Slot::Free { generation } => generation,
            Slot::Row(_) => unreachable!("a free index has no row"),
        };
        let key = RowKey { core: self.core, index, generation };
        let made = socket.set_nonblocking(true).and_then(|()| socket.set_nodelay(true)).and_then(|()| {
            Ok(epoll::add(&self.epoll, &socket, EventData::new_u64(key.data()), EventFlags::IN | EventFlags::RDHUP)?)
        });
        if let Err(error) = made {
            tracing::warn!(session, %error, "a listener's socket could not be taken over");
            self.free.push(index);
            link.owner.left(Some(link.id), Who::Row(key));
            return;
        }
        let expires = good_for.map_or(NEVER, |good_for| self.seconds(now + good_for));
        let opened = self.seconds(now);
        self.slots[index as usize] = Slot::Row(Row {
            socket,
            generation,
            group: NOWHERE,
            seat: 0,
            parser: frame::Parser::default(),
            blocked: None,
            permit,
            session,
            opened,
            expires,
            heard: 0,
            flags: Flags(Flags::HEARD),
        });
        self.rows += 1;
        self.metrics.rows.increment(1.0);
        let owner = Arc::clone(&link.owner);
        self.sit(index, link);
        if let Err(joiner) = owner.join(joiner(key)) {
            // The lobby closed in this moment: the gateway is shutting down.
            drop(joiner);
            self.close(index, &frame::close(CloseCode::Return, ""), "draining", now);
            return;
        }
        if self.drain.is_some() {
            self.close(index, &frame::close(CloseCode::Return, ""), "draining", now);
        } else if !leftover.is_empty() {
            let mut bytes = leftover.to_vec();
            self.hear(index, &mut bytes, now);
        }
    }

    /// The row becomes a member of the group.
    fn sit(&mut self, index: u32, link: Arc<GroupLink>) {
        let group = match self.by_id.get(&link.id) {
            Some(&group) => group,
            None => {
                let id = link.id;
                let made =
                    Group { link, members: Vec::new(), reached: None, flushed: None, pending: Vec::new(), due: None };
                let group = match self.free_groups.pop() {
                    Some(group) => {
                        self.groups[group as usize] = Some(made);
                        group
                    }
                    None => {
                        self.groups.push(Some(made));
                        (self.groups.len() - 1) as u32
                    }
                };
                self.by_id.insert(id, group);
                group
            }
        };
        let Some(members) = self.groups[group as usize].as_mut().map(|group| &mut group.members) else { return };
        let seat = members.len() as u32;
        members.push(index);
        if let Some(row) = self.at(index) {
            (row.group, row.seat) = (group, seat);
        }
    }

    /// The row is no member of its group any more, and the group's owner hears of it.
    fn stand_up(&mut self, index: u32) {
        let core = self.core;
        let Some(row) = self.at(index) else { return };
        let (group, seat) = (std::mem::replace(&mut row.group, NOWHERE), row.seat);
        let key = RowKey { core, index, generation: row.generation };
        let Some(Some(found)) = self.groups.get_mut(group as usize) else { return };
        found.members.swap_remove(seat as usize);
        found.link.owner.left(Some(found.link.id), Who::Row(key));
        let moved = found.members.get(seat as usize).copied();
        if found.members.is_empty() {
            self.by_id.remove(&found.link.id);
            self.groups[group as usize] = None;
            self.free_groups.push(group);
            self.dirty.retain(|&dirty| dirty != group);
        }
        if let Some(row) = moved.and_then(|moved| self.at(moved)) {
            row.seat = seat;
        }
    }

    fn enter(
        &mut self,
        key: RowKey,
        link: Arc<GroupLink>,
        bytes: &Bytes,
        from: Option<Position>,
        reaches: Option<Position>,
        now: Instant,
    ) {
        if self.row(key).is_none_or(|row| row.flags.has(Flags::CLOSING)) {
            link.owner.left(Some(link.id), Who::Row(key));
            return;
        }
        // What waits for the group was said before this member came.
        if let Some(&group) = self.by_id.get(&link.id) {
            self.flush(group, now);
        }
        let id = link.id;
        self.stand_up(key.index);
        self.sit(key.index, link);
        if let Some(&group) = self.by_id.get(&id)
            && let Some(group) = self.groups[group as usize].as_mut()
            && reaches.is_some()
        {
            group.reached = reaches;
        }
        let part = [Part { end: bytes.len() as u32, durable: true, reaches }];
        let sent = self.send(key.index, bytes, &part, from);
        self.after(key.index, &sent, now);
    }

    fn page(
        &mut self,
        key: RowKey,
        bytes: &Bytes,
        from: Option<Position>,
        reaches: Option<Position>,
        written: oneshot::Sender<()>,
    ) {
        if self.row(key).is_none_or(|row| row.flags.has(Flags::CLOSING)) {
            return;
        }
        let part = [Part { end: bytes.len() as u32, durable: true, reaches }];
        match self.send(key.index, bytes, &part, from) {
            Sent::All => drop(written.send(())),
            Sent::Gone => self.remove(key.index, "lost"),
            // A page may fill the queue: the next one waits for it.
            Sent::Waiting | Sent::Slow => {
                if let Some(blocked) = self.row(key).and_then(|row| row.blocked.as_mut()) {
                    blocked.written = Some(written);
                }
            }
        }
    }

    fn take_flush(&mut self, flush: Flush, now: Instant) {
        let Some(&index) = self.by_id.get(&flush.group) else { return };
        let Some(group) = self.groups[index as usize].as_mut() else { return };
        if group.pending.is_empty() {
            let hot = group.members.len() >= self.hold_members;
            group.due = group.flushed.map(|flushed| flushed + self.hold).filter(|due| hot && *due > now);
            self.dirty.push(index);
        }
        group.pending.push(flush);
    }

    /// Writes what waits for a group to all its members: the one way events take to rows.
    fn flush(&mut self, index: u32, now: Instant) {
        let Some(group) = self.groups[index as usize].as_mut() else { return };
        group.due = None;
        let mut pending = std::mem::take(&mut group.pending);
        let since = pending.iter().fold(Since::default(), |since, flush| since.older(flush.since));
        let events = [0, 1].map(|kind| pending.iter().map(|flush| flush.events[kind]).sum());
        let passed: Vec<_> = pending.iter_mut().filter_map(|flush| flush.passed.take()).collect();
        let (bytes, parts) = match pending.len() {
            0 => return,
            1 => match pending.pop() {
                Some(flush) => (flush.bytes, flush.parts),
                None => return,
            },
            _ => merge(&pending),
        };
        group.flushed = Some(now);
        let before = group.reached;
        group.reached = parts.iter().rev().find_map(|part| part.reaches).or(before);
        // Members change only after the walk.
        let members = std::mem::take(&mut group.members);
        let began = std::time::Instant::now();
        let mut troubled = Vec::new();
        for &row in &members {
            match self.send(row, &bytes, &parts, before) {
                Sent::All | Sent::Waiting => (),
                sent => troubled.push((row, sent)),
            }
        }
        self.metrics.flushed(members.len(), bytes.len(), began.elapsed());
        self.metrics.reached(members.len(), events, since, Inner::wall());
        for passing in passed.iter().flat_map(|passed| passed.iter()) {
            passing.flushed(began, self.core, members.len());
        }
        if let Some(group) = self.groups[index as usize].as_mut() {
            group.members = members;
        }
        for (row, sent) in troubled {
            self.after(row, &sent, now);
        }
    }

    fn after(&mut self, index: u32, sent: &Sent, now: Instant) {
        match sent {
            Sent::All | Sent::Waiting => (),
            Sent::Slow => self.cut(index, now),
            Sent::Gone => self.remove(index, "lost"),
        }
    }

    /// Writes to one row, or queues what its socket does not take. `before`: where the reader is before these bytes.
    fn send(&mut self, index: u32, bytes: &Bytes, parts: &[Part], before: Option<Position>) -> Sent {
        let (core, limit) = (self.core, self.queue_limit);
        let Some(Slot::Row(row)) = self.slots.get_mut(index as usize) else { return Sent::All };
        if let Some(blocked) = &mut row.blocked {
            let queued = blocked.bytes;
            blocked.push(bytes, parts, 0);
            self.metrics.queued.increment((blocked.bytes - queued) as f64);
            return if blocked.bytes > limit { Sent::Slow } else { Sent::Waiting };
        }
        let written = match write(&row.socket, bytes) {
            Ok(written) => written,
            Err(()) => return Sent::Gone,
        };
        if written == bytes.len() {
            return Sent::All;
        }
        let mut blocked = Box::new(Blocked { queue: VecDeque::new(), bytes: 0, resume: before, written: None });
        blocked.push(bytes, parts, written);
        if blocked.queue.is_empty() {
            return Sent::All;
        }
        let key = RowKey { core, index, generation: row.generation };
        let interest = EventFlags::IN | EventFlags::RDHUP | EventFlags::OUT;
        if epoll::modify(&self.epoll, &row.socket, EventData::new_u64(key.data()), interest).is_err() {
            return Sent::Gone;
        }
        let full = blocked.bytes > limit;
        self.metrics.blocked.increment(1.0);
        self.metrics.queued.increment(blocked.bytes as f64);
        row.blocked = Some(blocked);
        if full { Sent::Slow } else { Sent::Waiting }
    }

    /// The socket takes bytes again.
    fn write_on(&mut self, index: u32, now: Instant) {
        let core = self.core;
        let Some(Slot::Row(row)) = self.slots.get_mut(index as usize) else { return };
        let Some(blocked) = &mut row.blocked else { return };
        row.flags.set(Flags::STALLED, false);
        while let Some(chunk) = blocked.queue.front_mut() {
            let Ok(written) = write(&row.socket, &chunk.bytes) else { return self.remove(index, "lost") };
            blocked.bytes -= written;
            self.metrics.queued.decrement(written as f64);
            if written < chunk.bytes.len() {
                chunk.begun |= written > 0;
                let _ = chunk.bytes.split_to(written);
                return;
            }
            blocked.resume = chunk.reaches.or(blocked.resume);
            blocked.queue.pop_front();
        }
        if let Some(written) = blocked.written.take() {
            let _ = written.send(());
        }
        row.blocked = None;
        self.metrics.blocked.decrement(1.0);
        let key = RowKey { core, index, generation: row.generation };
        if epoll::modify(&self.epoll, &row.socket, EventData::new_u64(key.data()), EventFlags::IN | EventFlags::RDHUP)
            .is_err()
        {
            return self.remove(index, "lost");
        }
        if row.flags.has(Flags::CLOSING) {
            self.half_close(index, now);
        }
    }

    /// Too slow: the reader hears where to continue, as far as its socket takes even that.
    fn cut(&mut self, index: u32, now: Instant) {
        metrics::cut("slow");
        let Some(row) = self.at(index) else { return };
        let mut resume = None;
        let mut dropped = 0;
        if let Some(blocked) = &mut row.blocked {
            // What is begun must be completed: the stream of frames goes on behind it.
            let begun = blocked.queue.pop_front().filter(|chunk| chunk.begun);
            resume = begun.as_ref().and_then(|chunk| chunk.reaches).or(blocked.resume);
            let kept = begun.as_ref().map_or(0, |chunk| chunk.bytes.len());
            dropped = blocked.bytes - kept;
            blocked.queue = begun.into_iter().collect();
            blocked.bytes = kept;
            blocked.written = None;
        }
        self.metrics.queued.decrement(dropped as f64);
        self.close(index, &outbox::slow_reader(resume), "slow", now);
    }

    /// Sends the last frames and waits a little for the peer's close.
    fn close(&mut self, index: u32, last: &Bytes, reason: &'static str, now: Instant) {
        let (core, linger) = (self.core, self.close_linger);
        let Some(row) = self.at(index) else { return };
        if row.flags.has(Flags::CLOSING) {
            return;
        }
        tracing::debug!(session = row.session, reason, "closing a listener");
        row.flags.set(Flags::CLOSING, true);
        let key = RowKey { core, index, generation: row.generation };
        self.stand_up(index);
        self.closing.push_back((now + linger, key));
        let part = [Part { end: last.len() as u32, durable: true, reaches: None }];
        match self.send(index, last, &part, None) {
            Sent::All => self.half_close(index, now),
            Sent::Gone => self.remove(index, "lost"),
            Sent::Waiting | Sent::Slow => (),
        }
    }

    /// Nothing more is written; the peer's own close ends the row.
    fn half_close(&mut self, index: u32, _now: Instant) {
        if let Some(row) = self.at(index)
            && row.socket.shutdown(std::net::Shutdown::Write).is_err()
        {
            self.remove(index, "closed");
        }
    }

    fn remove(&mut self, index: u32, reason: &'static str) {
        self.stand_up(index);
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        let generation = match slot {
            Slot::Row(row) => row.generation.wrapping_add(1),
            Slot::Free { .. } => return,
        };
        let Slot::Row(row) = std::mem::replace(slot, Slot::Free { generation }) else { return };
        self.free.push(index);
        self.rows -= 1;
        self.metrics.rows.decrement(1.0);
        if let Some(blocked) = &row.blocked {
            self.metrics.blocked.decrement(1.0);
            self.metrics.queued.decrement(blocked.bytes as f64);
        }
        let seconds = self.began.elapsed().as_secs().saturating_sub(u64::from(row.opened));
        tracing::info!(session = row.session, core = self.core, seconds, reason, "listener gone");
        // Closing the descriptor takes it out of the epoll: it has no other owner.
        drop(row.socket);
        drop(row.permit);
    }

    fn read(&mut self, index: u32, now: Instant) {
        let mut buffer = std::mem::take(&mut self.buffer);
        let read = match self.at(index) {
            Some(row) => rustix::io::read(&row.socket, &mut buffer[..]),
            None => Ok(0),
        };
        match read {
            Ok(0) => self.remove(index, "left"),
            Ok(read) => self.hear(index, &mut buffer[..read], now),
            Err(Errno::AGAIN | Errno::INTR) => (),
            Err(_) => self.remove(index, "lost"),
        }
        self.buffer = buffer;
    }

    fn hear(&mut self, index: u32, bytes: &mut [u8], now: Instant) {
        enum End {
            Peer(Option<u16>),
            Stop,
            Flood,
        }
        let (limits, most) = (self.frame_limits, self.messages);
        let Some(row) = self.at(index) else { return };
        row.flags.set(Flags::HEARD, true);
        let (mut replies, mut tokens, mut end) = (Vec::new(), Vec::new(), None);
        let mut count = row.heard;
        let fed = row.parser.feed(bytes, limits, |message| {
            count = count.saturating_add(1);
            if count > most {
                end = Some(End::Flood);
                return false;
            }
            match message {
                frame::Incoming::Text(text) => match reply(text) {
                    Reply::Text(text) => frame::put_text(&text, &mut replies),
                    Reply::Token(token) => tokens.push(token),
                    Reply::Stop => end = Some(End::Stop),
                },
                frame::Incoming::Ping(payload) => replies.extend_from_slice(&frame::pong(payload)),
                frame::Incoming::Binary | frame::Incoming::Pong => (),
                frame::Incoming::Close { code } => end = Some(End::Peer(code)),
            }
            end.is_none()
        });
        row.heard = count;
        if row.flags.has(Flags::CLOSING) {
            if matches!(end, Some(End::Peer(_) | End::Flood)) || fed.is_err() {
                self.remove(index, "closed");
            }
            return;
        }
        for token in tokens {
            if let Err(error) = self.renew(index, &token, now) {
                frame::put_text(&wire::error(error.code, &error.details, None), &mut replies);
            }
        }
        if !replies.is_empty() {
            let bytes = Bytes::from(replies);
            let part = [Part { end: bytes.len() as u32, durable: true, reaches: None }];
            let reached = self.reached(index);
            let sent = self.send(index, &bytes, &part, reached);
            self.after(index, &sent, now);
        }
        match (end, fed) {
            (Some(End::Peer(code)), _) => {
                // Codes that may not be sent are answered by an empty frame.
                let code = code.filter(|code| !matches!(code, 1005 | 1006 | 1015) && (1_000..5_000).contains(code));
                self.close(index, &frame::close_raw(code, ""), "left", now);
            }
            (Some(End::Flood), _) => {
                metrics::cut("flood");
                let details = format!("more than {most} messages in {:?}; fewer are accepted", self.ping_every);
                let mut last = Vec::new();
                frame::put_text(&wire::error(ErrorCode::TooFast, &details, None), &mut last);
                last.extend_from_slice(&frame::close(CloseCode::Policy, "too_fast"));
                self.close(index, &last.into(), "flood", now);
            }
            (Some(End::Stop), _) => self.close(index, &frame::close(CloseCode::Normal, ""), "stopped", now),
            (None, Err(violation)) => {
                metrics::cut("violation");
                let last = frame::close_raw(Some(violation.code()), &violation.to_string());
                self.close(index, &last, "violation", now);
            }
            (None, Ok(())) => (),
        }
    }

    /// A listener sent a new token.
    fn renew(&mut self, index: u32, token: &Secret, now: Instant) -> Result<(), ClientError> {
        let Some(renewals) = self.renewals.clone() else { return Ok(()) };
        let group = self.at(index).map_or(NOWHERE, |row| row.group);
        let Some(Some(group)) = self.groups.get(group as usize) else { return Ok(()) };
        let good_for = renewals.renew(&group.link.owner.meeting, token)?;
        let expires = self.seconds(now + good_for);
        if let Some(row) = self.at(index) {
            row.expires = expires;
            row.flags.set(Flags::EXPIRED, false);
        }
        Ok(())
    }

    /// Where a row is that is not blocked.
    fn reached(&mut self, index: u32) -> Option<Position> {
        let group = self.at(index)?.group;
        self.groups.get(group as usize)?.as_ref()?.reached
    }

    /// Looks at the share of the rows whose turn it is; each has one in a round, which takes `ping_every`.
    fn sweep(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.round).as_secs_f64() / self.ping_every.as_secs_f64();
        let until = (self.slots.len() as f64 * passed.min(1.0)) as usize;
        while self.swept < until {
            self.look(self.swept as u32, now);
            self.swept += 1;
        }
        if passed >= 1.0 {
            (self.round, self.swept) = (now, 0);
        }
    }

    fn look(&mut self, index: u32, now: Instant) {
        let second = self.seconds(now);
        let grace = self.ping_every;
        let Some(row) = self.at(index) else { return };
        if row.flags.has(Flags::CLOSING) {
            return;
        }
        let (blocked, was) = (row.blocked.is_some(), row.flags);
        let (heard, expired) = (was.has(Flags::HEARD), row.expires <= second);
        row.heard = 0;
        row.flags = Flags::default();
        row.flags.set(Flags::ASKED, !heard && !blocked);
        row.flags.set(Flags::STALLED, blocked);
        row.flags.set(Flags::EXPIRED, expired);
        if (blocked && was.has(Flags::STALLED)) || (was.has(Flags::ASKED) && !heard) {
            metrics::cut("dead");
            return self.remove(index, "dead");
        }
        if expired && was.has(Flags::EXPIRED) {
            metrics::cut("token_expired");
            return self.close(index, &frame::close(CloseCode::Policy, "token_expired"), "token expired", now);
        }
        let mut bytes = Vec::new();
        if expired {
            let details = format!(
                "access_token has expired; a good one in {{\"type\":\"token\",\"access_token\":…}} is accepted for {grace:?} more"
            );
            frame::put_text(&wire::error(ErrorCode::TokenExpired, &details, None), &mut bytes);
        }
        if !heard && !blocked {
            bytes.extend_from_slice(&frame::ping());
        }
        if bytes.is_empty() {
            return;
        }
        let part = [Part { end: bytes.len() as u32, durable: true, reaches: None }];
        let reached = self.reached(index);
        let sent = self.send(index, &bytes.into(), &part, reached);
        self.after(index, &sent, now);
    }

    fn drain_step(&mut self, now: Instant) {
        let Some(mut pace) = self.drain.take() else { return };
        let steps = pace.until.saturating_duration_since(now).as_nanos() / DRAIN_STEP.as_nanos() + 1;
        let left = (pace.at..self.slots.len())
            .filter(|&index| matches!(&self.slots[index], Slot::Row(row) if !row.flags.has(Flags::CLOSING)));
        let left = left.count();
        if left == 0 {
            // What is behind is vacant, or closing already.
            pace.at = self.slots.len();
        }
        let share = (left as u128).div_ceil(steps);
        let mut closed = 0;
        while closed < share && pace.at < self.slots.len() {
            if matches!(&self.slots[pace.at], Slot::Row(row) if !row.flags.has(Flags::CLOSING)) {
                self.close(pace.at as u32, &frame::close(CloseCode::Return, ""), "draining", now);
                closed += 1;
            }
            pace.at += 1;
        }
        if pace.at >= self.slots.len()
            && let Some(done) = pace.done.take()
        {
            let _ = done.send(());
        }
        pace.next = now + if pace.done.is_some() { DRAIN_STEP } else { Duration::from_secs(3_600) };
        self.drain = Some(pace);
    }
}

impl Blocked {
    /// Queues what follows `written` of a buffer: the rest of what is begun, and what may not be lost.
    fn push(&mut self, bytes: &Bytes, parts: &[Part], written: usize) {
        let mut start = 0;
        for part in parts {
            let end = part.end as usize;
            if end <= written {
                self.resume = part.reaches.or(self.resume);
            } else if part.durable || start < written {
                let from = start.max(written);
                self.bytes += end - from;
                self.queue.push_back(Chunk {
                    bytes: bytes.slice(from..end),
                    begun: from > start,
                    reaches: part.reaches,
                });
            } else {
                metrics::conflated(1);
            }
            start = end;
        }
    }
}

fn merge(pending: &[Flush]) -> (Bytes, Arc<[Part]>) {
    let mut bytes = BytesMut::with_capacity(pending.iter().map(|flush| flush.bytes.len()).sum());
    let mut parts = Vec::with_capacity(pending.iter().map(|flush| flush.parts.len()).sum());
    for flush in pending {
        let base = bytes.len() as u32;
        bytes.extend_from_slice(&flush.bytes);
        parts.extend(flush.parts.iter().map(|part| Part { end: base + part.end, ..*part }));
    }
    (bytes.freeze(), parts.into())
}

/// How much the socket took; an error when it is gone.
fn write(socket: &TcpStream, bytes: &[u8]) -> Result<usize, ()> {
    loop {
        match rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(written) => return Ok(written),
            Err(Errno::AGAIN) => return Ok(0),
            Err(Errno::INTR) => (),
            Err(_) => return Err(()),
        }
    }
}

/// What a listener's text is answered with.
#[derive(Debug)]
pub enum Reply {
    Text(String),
    /// A new token, which is to be looked at.
    Token(Secret),
    /// It wants to go.
    Stop,
}

/// A listener has nothing to ask for, but is answered politely.
pub fn reply(text: &str) -> Reply {
    match ClientMessage::parse(text) {
        Ok(ClientMessage::Ping) => Reply::Text(wire::PONG.to_owned()),
        Ok(ClientMessage::Stop) => Reply::Stop,
        Ok(ClientMessage::Token { token }) => Reply::Token(token),
        Ok(_) => Reply::Text(wire::error(ErrorCode::Forbidden, "this connection only listens", None)),
        Err(error) => Reply::Text(wire::error(error.code, &error.details, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_as_small_as_the_header_says() {
        assert_eq!(size_of::<Slot>(), 64);
    }

    #[test]
    fn a_blocked_row_keeps_what_is_begun_and_what_may_not_be_lost() {
        let at = |offset| Position { epoch: hearsay_protocol::Epoch(1), offset: hearsay_protocol::Offset(offset) };
        let bytes = Bytes::from_static(b"aabbccddee");
        let part = |end, durable, reaches: Option<u64>| Part { end, durable, reaches: reaches.map(at) };
        // Two durable pieces, a partial, a durable piece, a partial.
        let parts = [
            part(2, true, Some(1)),
            part(4, true, Some(2)),
            part(6, false, None),
            part(8, true, Some(3)),
            part(10, false, None),
        ];
        // How much was written; what is queued; whether the first of it is begun; where the reader is before it.
        let cases: [(usize, &str, bool, u64); 6] = [
            (0, "aa bb dd", false, 0),
            (1, "a bb dd", true, 0),
            (2, "bb dd", false, 1),
            (5, "c dd", true, 2),
            (6, "dd", false, 2),
            (9, "e", true, 3),
        ];
        for (written, queued, begun, resume) in cases {
            let mut blocked = Blocked { queue: VecDeque::new(), bytes: 0, resume: Some(at(0)), written: None };
            blocked.push(&bytes, &parts, written);
            let chunks: Vec<_> = blocked.queue.iter().map(|chunk| std::str::from_utf8(&chunk.bytes).unwrap()).collect();
            assert_eq!(chunks.join(" "), queued, "{written}");
            assert_eq!(blocked.queue[0].begun, begun, "{written}");
            assert_eq!(blocked.resume, Some(at(resume)), "{written}");
            assert_eq!(blocked.bytes, queued.replace(' ', "").len(), "{written}");
        }
    }
}
