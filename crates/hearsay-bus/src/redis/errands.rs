//! Errands: a hash beside each conversation of what they say, and sorted sets of when they are due. What one says is written
//! before it is listed and forgotten after it is struck off, so an errand on a list that says nothing is none.

use ::redis::cmd;
use uuid::Uuid;

use super::{keys::LISTS, *};
use crate::errand::{Errands, Taken, full};

const PUT: &str = "if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 0 end \
                   if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[3]) then return -1 end \
                   redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) redis.call('PEXPIRE', KEYS[1], ARGV[4]) return 1";
const SWAP: &str = "if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end \
                    redis.call('HSET', KEYS[1], ARGV[1], ARGV[3]) redis.call('PEXPIRE', KEYS[1], ARGV[4]) return 1";
/// With what the clock is moved by, and how long after now.
const LIST: &str = "local t = redis.call('TIME') \
                    local due = string.format('%.0f', t[1] * 1000000 + t[2] + ARGV[1] + ARGV[2]) \
                    if ARGV[4] == '1' then return redis.call('ZADD', KEYS[1], 'NX', due, ARGV[3]) end \
                    return redis.call('ZADD', KEYS[1], due, ARGV[3])";
const TAKE: &str = "local t = redis.call('TIME') local now = t[1] * 1000000 + t[2] + ARGV[1] \
                    local due = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now), 'LIMIT', 0, ARGV[3]) \
                    local again = string.format('%.0f', now + ARGV[2]) \
                    for _, member in ipairs(due) do redis.call('ZADD', KEYS[1], again, member) end \
                    due[#due + 1] = tostring(redis.call('ZCARD', KEYS[1])) return due";

fn member(key: &ConversationKey, id: Uuid) -> Vec<u8> {
    let mut member = id.as_bytes().to_vec();
    member.extend(keys::to_member(key).into_bytes());
    member
}

fn from_member(member: &[u8]) -> Option<(ConversationKey, Uuid)> {
    let (id, key) = member.split_at_checked(16)?;
    Some((keys::from_member(key)?, Uuid::from_slice(id).ok()?))
}

impl Inner {
    pub(super) async fn put_errand(
        &self,
        key: &ConversationKey,
        id: Uuid,
        what: &[u8],
        after: Duration,
        max: usize,
    ) -> Result<bool, Error> {
        let (name, slot) = keys::errands(key);
        let mut put = cmd("EVAL");
        put.arg(PUT).arg(1).arg(name).arg(id.as_bytes()).arg(what).arg(max).arg(self.kept(State::Compacted));
        let new = match self.plain::<i64>(slot, put).await? {
            1 => true,
            0 => false,
            _ => return Err(full()),
        };
        self.list_errand(key, id, after, true).await?;
        Ok(new)
    }

    async fn list_errand(&self, key: &ConversationKey, id: Uuid, after: Duration, new: bool) -> Result<(), Error> {
        let (list, slot) = keys::listed_of(key.conversation);
        let mut command = cmd("EVAL");
        command.arg(LIST).arg(1).arg(list).arg(self.nodes.shift.load(Ordering::Relaxed)).arg(micros(after));
        command.arg(member(key, id)).arg(u8::from(new));
        self.plain::<i64>(slot, command).await.map(|_| ())
    }

    async fn get_errand(&self, key: &ConversationKey, id: Uuid) -> Result<Option<Bytes>, Error> {
        let (name, slot) = keys::errands(key);
        let mut get = cmd("HGET");
        get.arg(name).arg(id.as_bytes());
        Ok(self.plain::<Option<Vec<u8>>>(slot, get).await?.map(Bytes::from))
    }

    async fn all_errands(&self, key: &ConversationKey) -> Result<Vec<(Uuid, Bytes)>, Error> {
        let (name, slot) = keys::errands(key);
        let mut get = cmd("HGETALL");
        get.arg(name);
        let known: Vec<(Vec<u8>, Vec<u8>)> = self.plain(slot, get).await?;
        let known = known.into_iter().filter_map(|(id, what)| Some((Uuid::from_slice(&id).ok()?, Bytes::from(what))));
        let mut known: Vec<_> = known.collect();
        known.sort_unstable_by_key(|(id, _)| *id);
        Ok(known)
    }

    async fn swap_errand(&self, key: &ConversationKey, id: Uuid, old: &[u8], new: &[u8]) -> Result<bool, Error> {
        let (name, slot) = keys::errands(key);
        let mut swap = cmd("EVAL");
        swap.arg(SWAP).arg(1).arg(name).arg(id.as_bytes()).arg(old).arg(new).arg(self.kept(State::Compacted));
        Ok(self.plain::<i64>(slot, swap).await? == 1)
    }

    async fn strike_errand(&self, key: &ConversationKey, id: Uuid) -> Result<(), Error> {
        let (list, slot) = keys::listed_of(key.conversation);
        let mut strike = cmd("ZREM");
        strike.arg(list).arg(member(key, id));
        self.plain::<i64>(slot, strike).await.map(|_| ())
    }

    async fn take_errands(&self, max: usize, lease: Duration) -> Result<Taken, Error> {
        let mut taken = Taken::default();
        // None of the lists comes last for everybody.
        let first = rand::random_range(0..LISTS);
        for shard in (first..LISTS).chain(0..first) {
            let (list, slot) = keys::listed(shard);
            let mut take = cmd("EVAL");
            take.arg(TAKE).arg(1).arg(list).arg(self.nodes.shift.load(Ordering::Relaxed)).arg(micros(lease));
            take.arg(max.saturating_sub(taken.errands.len()));
            let mut members: Vec<Vec<u8>> = self.plain(slot, take).await?;
            let listed = members.pop().and_then(|count| String::from_utf8(count).ok()?.parse().ok());
            taken.listed += listed.unwrap_or(0_usize);
            taken.errands.extend(members.iter().filter_map(|member| from_member(member)));
        }
        Ok(taken)
    }

    pub(super) async fn forget_errands(&self, key: &ConversationKey) -> Result<(), Error> {
        let (name, slot) = keys::errands(key);
        let mut forget = cmd("DEL");
        forget.arg(name);
        // Its places on the list say nothing any more, and are struck off by who takes them.
        self.plain::<i64>(slot, forget).await.map(|_| ())
    }
}

impl Errands for RedisBus {
    fn put<'a>(
        &'a self,
        key: &'a ConversationKey,
        id: Uuid,
        what: Bytes,
        after: Duration,
        max: usize,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move { self.inner.put_errand(key, id, &what, after, max).await })
    }

    fn get<'a>(&'a self, key: &'a ConversationKey, id: Uuid) -> BoxFuture<'a, Result<Option<Bytes>, Error>> {
        Box::pin(self.inner.get_errand(key, id))
    }

    fn all<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<Vec<(Uuid, Bytes)>, Error>> {
        Box::pin(self.inner.all_errands(key))
    }

    fn swap<'a>(
        &'a self,
        key: &'a ConversationKey,
        id: Uuid,
        old: &'a [u8],
        new: Bytes,
    ) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move { self.inner.swap_errand(key, id, old, &new).await })
    }

    fn again<'a>(
        &'a self,
        key: &'a ConversationKey,
        id: Uuid,
        after: Option<Duration>,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            match after {
                Some(after) => self.inner.list_errand(key, id, after, false).await,
                None => self.inner.strike_errand(key, id).await,
            }
        })
    }

    fn take(&self, max: usize, lease: Duration) -> BoxFuture<'_, Result<Taken, Error>> {
        Box::pin(self.inner.take_errands(max, lease))
    }

    fn forget<'a>(&'a self, key: &'a ConversationKey) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.inner.forget_errands(key))
    }
}
