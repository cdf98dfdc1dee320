//! Names of keys. One hash tag per meeting: everything of a meeting lies on one node, whatever the topology, and what
//! strangers chose is never part of a name.

use hearsay_protocol::{AccountId, ConversationId, ConversationKey, MeetingId, MeetingKey};

/// Sorted sets that hold all conversations by their next deadline, spread over the nodes.
pub(super) const DUE_SHARDS: usize = 32;
/// Sorted sets that hold all errands by when they are due, spread over the nodes.
pub(super) const LISTS: usize = 4;
const SLOTS: u16 = 16_384;

/// The keys of one conversation, and its channel.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    /// head, more, log, open: as the scripts number them.
    pub(super) names: [String; 4],
    pub(super) channel: String,
    pub(super) conversation: String,
    pub(super) slot: u16,
}

impl Keys {
    pub(super) fn of(key: &ConversationKey) -> Self {
        let tag = tag(&key.meeting);
        let conversation = key.conversation.to_string();
        let base = format!("{{{tag}}}:c:{conversation}");
        Self {
            names: [format!("{base}:head"), format!("{base}:more"), format!("{base}:log"), format!("{{{tag}}}:open")],
            channel: format!("{base}:events"),
            conversation,
            slot: slot_of_tag(tag.as_bytes()),
        }
    }
}

/// The key, and channel, that says which conversation a meeting has open.
pub(super) fn open(meeting: &MeetingKey) -> (String, u16) {
    let tag = tag(meeting);
    let slot = slot_of_tag(tag.as_bytes());
    (format!("{{{tag}}}:open"), slot)
}

/// Where a conversation's full name stands, found by its id alone.
pub(super) fn index(conversation: ConversationId) -> (String, u16) {
    let name = format!("conv:{conversation}");
    let slot = slot_of_tag(name.as_bytes());
    (name, slot)
}

/// The conversations a user took part in, by the time at which they came.
pub(super) fn visits(account: &AccountId, user: &str) -> (String, u16) {
    let mut hasher = blake3::Hasher::new();
    hasher.update(account.as_str().as_bytes());
    hasher.update(&[0]);
    hasher.update(user.as_bytes());
    let name = format!("visits:{}", &hasher.finalize().to_hex()[..32]);
    let slot = slot_of_tag(name.as_bytes());
    (name, slot)
}

/// The set of deadlines that this conversation's stands in.
pub(super) fn due_of(conversation: ConversationId) -> (String, u16) {
    due(usize::try_from(conversation.get() % DUE_SHARDS as u64).unwrap_or(0))
}

pub(super) fn due(shard: usize) -> (String, u16) {
    let name = format!("hearsay:due:{shard}");
    let slot = slot_of_tag(name.as_bytes());
    (name, slot)
}

/// What is known of a conversation's errands; beside its keys.
pub(super) fn errands(key: &ConversationKey) -> (String, u16) {
    let keys = Keys::of(key);
    (format!("{}:errands", keys.names[0].trim_end_matches(":head")), keys.slot)
}

/// The list that this conversation's errands stand on.
pub(super) fn listed_of(conversation: ConversationId) -> (String, u16) {
    listed(usize::try_from(conversation.get() % LISTS as u64).unwrap_or(0))
}

pub(super) fn listed(shard: usize) -> (String, u16) {
    let name = format!("hearsay:errands:{shard}");
    let slot = slot_of_tag(name.as_bytes());
    (name, slot)
}

/// A canary's channel that lies in one of these slots.
pub(super) fn canary(owns: impl Fn(u16) -> bool) -> Option<String> {
    // Each try hits any given slot with the same chance; a node owns many.
    (0..4 * u32::from(SLOTS)).map(|n| format!("hearsay:canary:{n}")).find(|name| owns(slot_of_tag(name.as_bytes())))
}

/// The slot of what stands between the braces, or of a whole name without any.
fn slot_of_tag(tag: &[u8]) -> u16 {
    crc16::State::<crc16::XMODEM>::calculate(tag) % SLOTS
}

fn tag(meeting: &MeetingKey) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(meeting.account.as_str().as_bytes());
    hasher.update(&[0]);
    hasher.update(meeting.meeting.as_str().as_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

/// A conversation's full name as one value; none of the parts can contain the separator.
pub(super) fn to_member(key: &ConversationKey) -> String {
    format!("{}\0{}\0{}", key.meeting.account, key.meeting.meeting, key.conversation)
}

pub(super) fn from_member(member: &[u8]) -> Option<ConversationKey> {
    let mut parts = std::str::from_utf8(member).ok()?.split('\0');
    let (account, meeting, conversation) = (parts.next()?, parts.next()?, parts.next()?);
    Some(ConversationKey {
        meeting: MeetingKey { account: AccountId::new(account).ok()?, meeting: MeetingId::new(meeting).ok()? },
        conversation: conversation.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(meeting: &str) -> ConversationKey {
        ConversationKey {
            meeting: MeetingKey { account: AccountId::dev(), meeting: MeetingId::new(meeting).expect("valid") },
            conversation: ConversationId::from_random(7),
        }
    }

    #[test]
    fn a_meeting_lies_in_one_slot() {
        // `CLUSTER KEYSLOT` of a real server gives these.
        assert_eq!(slot_of_tag(b"123456789"), 12_739);
        assert_eq!(slot_of_tag(b"foo"), 12_182);
        let keys = Keys::of(&key("standup}{"));
        assert_eq!((keys.names[3].clone(), keys.slot), open(&key("standup}{").meeting));
        assert!(keys.names.iter().all(|name| name.matches('{').count() == 1), "{keys:?}");
    }

    #[test]
    fn names_survive_as_members() {
        let key = key("dXNlckBleGFtcGxlLmNvbQ== é");
        assert_eq!(from_member(to_member(&key).as_bytes()), Some(key));
        assert_eq!(from_member(b"a\0b"), None);
        assert_eq!(from_member(b"\xff"), None);
    }
}
