//! Deadlines, and what becomes of conversations when they pass.

use bytes::Bytes;

use super::*;

/// With what the clock is moved by, and how many of each list.
const DUE: &str = "local t = redis.call('TIME') \
                   local now = string.format('%.0f', t[1] * 1000000 + t[2] + ARGV[1]) local due = {} \
                   for _, key in ipairs(KEYS) do \
                     for _, member in ipairs(redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, ARGV[2])) do \
                       due[#due + 1] = member end end return due";

impl Inner {
    /// How long a conversation's keys are kept from now on.
    pub(super) fn kept(&self, state: State) -> u64 {
        let time = match state {
            State::Open | State::Lingering => LIVE,
            State::Ended | State::Compacted | State::Deleted => self.limits.record_retention + DAY,
        };
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
    }

    /// When to come again: in time for what is known, and soon enough for what may have been lost.
    pub(super) fn next(&self, life: &Life, now: Timestamp) -> Option<Timestamp> {
        let next = life.next(&self.limits);
        if life.is_live() { Some(next.map_or(now + VISIT, |next| next.min(now + VISIT))) } else { next }
    }

    /// A deadline is written before the state it belongs to, and after it once more: a visitor who looked in between may
    /// have put it off.
    pub(super) async fn due_by(&self, key: &ConversationKey, at: Timestamp) -> Result<(), Error> {
        let (set, slot) = keys::due_of(key.conversation);
        let mut command = ::redis::cmd("ZADD");
        command.arg(set).arg("LT").arg(at.micros()).arg(keys::to_member(key));
        self.plain::<i64>(slot, command).await.map(|_| ())
    }

    pub(super) async fn due(&self, max: usize) -> Result<Vec<ConversationKey>, Error> {
        // One call where all lists lie on one node: a second's visit is not to hold up what is said meanwhile.
        let (lists, each) = match self.nodes.config().topology {
            RedisTopology::Cluster => (keys::DUE_SHARDS, 1),
            RedisTopology::Single | RedisTopology::Sentinel { .. } => (1, keys::DUE_SHARDS),
        };
        let asked = (0..lists).map(|list| async move {
            let mut command = ::redis::cmd("EVAL");
            command.arg(DUE).arg(each);
            for shard in list * each..(list + 1) * each {
                command.arg(keys::due(shard).0);
            }
            command.arg(self.nodes.shift.load(Ordering::Relaxed)).arg(max);
            self.plain::<Vec<Vec<u8>>>(keys::due(list * each).1, command).await
        });
        let mut due = Vec::new();
        let mut failed = None;
        for found in futures::future::join_all(asked).await {
            match found {
                Ok(members) => due.extend(members.iter().filter_map(|member| keys::from_member(member))),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = failed
            && due.is_empty()
        {
            return Err(error);
        }
        // In any order: several visitors do not queue behind one another.
        for last in (1..due.len()).rev() {
            due.swap(last, rand::random_range(0..=last));
        }
        due.truncate(max);
        Ok(due)
    }

    pub(super) async fn tick(&self, key: &ConversationKey) -> Result<Ticked, Error> {
        let (set, slot) = keys::due_of(key.conversation);
        let member = keys::to_member(key);
        let mut score = ::redis::cmd("ZSCORE");
        score.arg(&set).arg(&member);
        // Read before the state, so that a deadline set meanwhile is not put off.
        let before: Option<String> = self.plain(slot, score).await?;
        let limits = &self.limits;
        let changed = self
            .change(key, None, |loaded, life| {
                let events = life.tick(loaded.top, loaded.analyst, loaded.now, limits);
                let acts = !events.is_empty() || life.state() != loaded.life.state();
                acts.then_some(events)
            })
            .await;
        let loaded = match changed {
            Ok(_) => self.load(key).await,
            Err(error) => Err(error),
        };
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(Error::Refused(Refusal::Gone)) => return self.tick_gone(key).await,
            Err(error) => return Err(error),
        };
        let (now, life) = (loaded.now, &loaded.life);
        let ended = life.ended();
        let passed = |after: Duration| ended.is_some_and(|ended| ended + after <= now);
        if !life.is_live() && passed(limits.record_retention) {
            self.forget(key).await?;
            return Ok(Ticked { state: life.state(), next: None, compact: false });
        }
        if !life.is_live() && !loaded.head.dropped && passed(limits.log_retention) {
            let mut dropped = life.clone();
            dropped.compacted();
            self.close(key, &loaded, &dropped, &Bytes::new()).await?;
            self.put_off(key, before.as_deref(), self.next(&dropped, now)).await?;
            return Ok(Ticked { state: State::Compacted, next: dropped.next(limits), compact: false });
        }
        let compact = life.state() == State::Ended && !loaded.head.dropped && passed(limits.compact_after);
        if !compact {
            self.put_off(key, before.as_deref(), self.next(life, now)).await?;
            if life.is_live() {
                self.refresh(key).await?;
            }
        }
        Ok(Ticked { state: life.state(), next: life.next(limits), compact })
    }

    /// Of a deleted conversation only the mark remains, and of a forgotten one its deadline at most.
    async fn tick_gone(&self, key: &ConversationKey) -> Result<Ticked, Error> {
        let keys = Keys::of(key);
        let mut exists = ::redis::cmd("PTTL");
        exists.arg(&keys.names[0]);
        let left: i64 = self.plain(keys.slot, exists).await?;
        if left <= 0 {
            self.forget(key).await?;
            return Err(Refusal::Gone.into());
        }
        // The key ends by itself; the deadline then has nothing to point to.
        let next = self.now().await? + Duration::from_millis(left.unsigned_abs());
        let (set, slot) = keys::due_of(key.conversation);
        let mut command = ::redis::cmd("ZADD");
        command.arg(set).arg(next.micros()).arg(keys::to_member(key));
        self.plain::<i64>(slot, command).await?;
        Ok(Ticked { state: State::Deleted, next: Some(next), compact: false })
    }

    /// Moves a deadline to later, unless somebody set it meanwhile.
    async fn put_off(&self, key: &ConversationKey, before: Option<&str>, next: Option<Timestamp>) -> Result<(), Error> {
        let Some(next) = next else { return Ok(()) };
        let (set, slot) = keys::due_of(key.conversation);
        let mut command = ::redis::cmd("EVAL");
        command
            .arg(
                "local now = redis.call('ZSCORE', KEYS[1], ARGV[1]) \
                 if (now or '') == ARGV[2] then redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1]) end return 0",
            )
            .arg(1)
            .arg(set)
            .arg(keys::to_member(key))
            .arg(before.unwrap_or_default())
            .arg(next.micros());
        self.plain::<i64>(slot, command).await.map(|_| ())
    }

    /// A live conversation does not run out of its time.
    async fn refresh(&self, key: &ConversationKey) -> Result<(), Error> {
        let keys = Keys::of(key);
        let ttl = self.kept(State::Open);
        for name in &keys.names {
            let mut command = ::redis::cmd("PEXPIRE");
            command.arg(name).arg(ttl);
            self.plain::<i64>(keys.slot, command).await?;
        }
        let (index, slot) = keys::index(key.conversation);
        let mut command = ::redis::cmd("PEXPIRE");
        command.arg(index).arg(ttl);
        self.plain::<i64>(slot, command).await.map(|_| ())
    }

    async fn forget(&self, key: &ConversationKey) -> Result<(), Error> {
        let keys = Keys::of(key);
        for name in &keys.names[..3] {
            let mut command = ::redis::cmd("DEL");
            command.arg(name);
            self.plain::<i64>(keys.slot, command).await?;
        }
        let (index, slot) = keys::index(key.conversation);
        let mut command = ::redis::cmd("DEL");
        command.arg(index);
        self.plain::<i64>(slot, command).await?;
        // Last: what was not done is found again by it.
        let (set, slot) = keys::due_of(key.conversation);
        let mut command = ::redis::cmd("ZREM");
        command.arg(set).arg(keys::to_member(key));
        self.plain::<i64>(slot, command).await.map(|_| ())
    }

    /// Drops the entries; a record may take their place.
    pub(super) async fn close(
        &self,
        key: &ConversationKey,
        loaded: &Loaded,
        life: &Life,
        record: &[u8],
    ) -> Result<bool, Error> {
        let keys = Keys::of(key);
        let mut packed = Vec::with_capacity(21);
        packed.put_u8(codec::state_byte(life.state()));
        packed.put_u32(loaded.head.life);
        packed.put_u64(if life.state() == State::Deleted { 0 } else { loaded.top.0 });
        packed.put_u64(self.kept(life.state()));
        let life = life.encode();
        let mut args: Vec<&[u8]> = vec![&packed, &life, keys.conversation.as_bytes()];
        args.extend(record.chunks(RECORD_PART));
        let raw = bytes_of(self.run(Script::Close, &keys, &args).await?)?;
        match self.noted(&raw, key)?.code {
            Code::Done => Ok(true),
            Code::Gone => Err(Refusal::Gone.into()),
            _ => {
                metrics::contended();
                Ok(false)
            }
        }
    }

    pub(super) async fn compact(&self, key: &ConversationKey, top: Offset, record: &[u8]) -> Result<(), Error> {
        let loaded = self.load(key).await?;
        let state = loaded.life.state();
        let ended = loaded.life.ended().filter(|_| state == State::Ended);
        let due = ended.is_some_and(|ended| ended + self.limits.compact_after <= loaded.now);
        let mut life = loaded.life.clone();
        life.compacted();
        let next = self.next(&life, loaded.now);
        if !due || top != loaded.top || !self.close(key, &loaded, &life, record).await? {
            return Err(Refusal::Invalid(format!(
                "a record of {top} entries for a conversation in state {state:?} with {} entries",
                loaded.top
            ))
            .into());
        }
        let (set, slot) = keys::due_of(key.conversation);
        let mut command = ::redis::cmd("ZADD");
        command.arg(set).arg(next.map_or(0, Timestamp::micros)).arg(keys::to_member(key));
        self.plain::<i64>(slot, command).await.map(|_| ())
    }
}
