//! Channels, and messages as bytes on them. Pure.
//!
//! A message is `version | kind | tenant | node | [document | body] | MAC`. The MAC (BLAKE3, keyed with the tenant's bus key) covers
//! all that stands before it, so whoever can write into Redis, but not read PostgreSQL, makes nobody believe anything.

use super::BusKey;
use bytes::{Buf as _, BufMut as _, Bytes};
use contextnexus_actors::ids::{DocumentId, DocumentKey, NodeId, Position, TenantId, Tip, UserId};
use contextnexus_actors::ports::bus::{BusMessage, Claim, Owner};
use contextnexus_actors::ports::log::Authorship;
use uuid::Uuid;

/// Another one is dropped, so that nodes of two versions can run side by side: they read each other's commits from the log.
const VERSION: u8 = 2;
const MAC_BYTES: usize = blake3::OUT_LEN;

const COMMITTED: u8 = 1;
const PRESENCE: u8 = 2;
const PRESENCE_QUERY: u8 = 3;
const ACCESS_CHANGED: u8 = 4;

/// A channel of Redis.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Channel {
    /// Everything about one document.
    Document(DocumentKey),
    /// Changes of rights in one tenant.
    Access(TenantId),
    /// One node's own heartbeat.
    Node(NodeId),
}

impl Channel {
    /// Its name in Redis. Ids only, so there is nothing to escape.
    pub fn name(&self) -> String {
        match self {
            Self::Document(key) => format!("t:{}:d:{}", key.tenant.0.simple(), key.document.0.simple()),
            Self::Access(tenant) => format!("t:{}:access", tenant.0.simple()),
            Self::Node(node) => format!("n:{}", node.0.simple()),
        }
    }

    /// The channel of that name.
    pub fn parse(name: &[u8]) -> Option<Self> {
        let name = std::str::from_utf8(name).ok()?;
        if let Some(node) = name.strip_prefix("n:") {
            return Some(Self::Node(NodeId(id(node)?)));
        }
        let (tenant, rest) = name.strip_prefix("t:")?.split_once(':')?;
        let tenant = TenantId(id(tenant)?);
        if rest == "access" {
            return Some(Self::Access(tenant));
        }
        let document = DocumentId(id(rest.strip_prefix("d:")?)?);
        Some(Self::Document(DocumentKey { tenant, document }))
    }

    /// The channel that a message belongs on.
    pub fn of(message: &BusMessage) -> Self {
        message.key().map_or_else(|| Self::Access(message.tenant()), Self::Document)
    }
}

fn id(text: &str) -> Option<Uuid> {
    Uuid::try_parse(text).ok().filter(|_| text.len() == 32)
}

/// A message as bytes.
pub fn encode(message: &BusMessage, key: &BusKey) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(message.weight_bytes() + MAC_BYTES);
    let kind = match message {
        BusMessage::Committed { .. } => COMMITTED,
        BusMessage::Presence { .. } => PRESENCE,
        BusMessage::PresenceQuery { .. } => PRESENCE_QUERY,
        BusMessage::AccessChanged { .. } => ACCESS_CHANGED,
    };
    bytes.extend([VERSION, kind]);
    bytes.put_slice(message.tenant().0.as_bytes());
    bytes.put_slice(message.node().0.as_bytes());
    if let Some(key) = message.key() {
        bytes.put_slice(key.document.0.as_bytes());
    }
    match message {
        BusMessage::Committed { from, through, updates, authorship, .. } => {
            put_position(&mut bytes, *from);
            put_position(&mut bytes, *through);
            bytes.put_u32(updates.len() as u32);
            for update in updates {
                put_bytes(&mut bytes, update);
            }
            bytes.put_u32(authorship.len() as u32);
            for authorship in authorship {
                put_user(&mut bytes, matches!(authorship, Authorship::WrittenBy(_)).into(), authorship.user());
            }
        }
        BusMessage::Presence { update, owners, .. } => {
            put_bytes(&mut bytes, update);
            bytes.put_u32(owners.len() as u32);
            for owner in owners {
                put_user(&mut bytes, owner.map_or(0, |owner| owner.claim as u8), owner.map(|owner| owner.user));
            }
        }
        BusMessage::PresenceQuery { .. } | BusMessage::AccessChanged { .. } => {}
    }
    let mac = blake3::keyed_hash(key, &bytes);
    bytes.put_slice(mac.as_bytes());
    bytes
}

/// Why a message is not believed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unbelievable {
    /// Another version, or a stranger's bytes.
    #[error("it is of no known version")]
    Version,
    /// Nobody who has the tenant's key wrote it.
    #[error("its authentication code is wrong")]
    Mac,
    /// It belongs on another channel.
    #[error("it came on a channel that is not its own")]
    Channel,
    /// Well signed, and no message.
    #[error("it is malformed")]
    Malformed,
}

impl Unbelievable {
    /// The name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Mac => "mac",
            Self::Channel => "channel",
            Self::Malformed => "malformed",
        }
    }
}

/// Bytes as a message, if they may be believed on this channel.
pub fn decode(mut payload: Vec<u8>, channel: &Channel, key: &BusKey) -> Result<BusMessage, Unbelievable> {
    if payload.first() != Some(&VERSION) {
        return Err(Unbelievable::Version);
    }
    let signed = payload.len().checked_sub(MAC_BYTES).ok_or(Unbelievable::Mac)?;
    let mac = <[u8; MAC_BYTES]>::try_from(&payload[signed..]).map_err(|_| Unbelievable::Mac)?;
    if blake3::keyed_hash(key, &payload[..signed]) != mac {
        return Err(Unbelievable::Mac); // compared in constant time
    }
    payload.truncate(signed);
    let mut bytes = Bytes::from(payload).split_off(1);
    let message = read(&mut bytes).filter(|_| bytes.is_empty()).ok_or(Unbelievable::Malformed)?;
    if Channel::of(&message) != *channel {
        return Err(Unbelievable::Channel);
    }
    Ok(message)
}

fn read(bytes: &mut Bytes) -> Option<BusMessage> {
    let kind = bytes.try_get_u8().ok()?;
    let tenant = TenantId(take_id(bytes)?);
    let node = NodeId(take_id(bytes)?);
    if kind == ACCESS_CHANGED {
        return Some(BusMessage::AccessChanged { tenant, node });
    }
    let key = DocumentKey { tenant, document: DocumentId(take_id(bytes)?) };
    match kind {
        COMMITTED => {
            let (from, through) = (take_position(bytes)?, take_position(bytes)?);
            let count = bytes.try_get_u32().ok()?;
            let updates = (0..count).map(|_| take_bytes(bytes)).collect::<Option<_>>()?;
            let count = bytes.try_get_u32().ok()?;
            let authorship = (0..count).map(|_| take_user(bytes).map(authorship)).collect::<Option<_>>()?;
            Some(BusMessage::Committed { key, node, from, through, updates, authorship })
        }
        PRESENCE => {
            let update = take_bytes(bytes)?;
            let count = bytes.try_get_u32().ok()?;
            let owner = |(claim, user): (u8, Option<UserId>)| match (claim_of(claim)?, user) {
                (claim, Some(user)) => Some(Some(Owner { user, claim })),
                (_, None) => Some(None),
            };
            let owners = (0..count).map(|_| take_user(bytes).and_then(owner)).collect::<Option<_>>()?;
            Some(BusMessage::Presence { key, node, update, owners })
        }
        PRESENCE_QUERY => Some(BusMessage::PresenceQuery { key, node }),
        _ => None,
    }
}

fn put_bytes(to: &mut Vec<u8>, bytes: &[u8]) {
    to.put_u32(bytes.len() as u32);
    to.put_slice(bytes);
}

/// A user, if there is one, and what he is.
fn put_user(to: &mut Vec<u8>, what: u8, user: Option<UserId>) {
    to.put_u8(what);
    // The nil id is no user's.
    to.put_slice(user.map_or(Uuid::nil(), |user| user.0).as_bytes());
}

fn put_position(to: &mut Vec<u8>, position: Position) {
    to.put_u64(position.seq);
    to.put_slice(position.tip.0.as_bytes());
}

fn take_bytes(from: &mut Bytes) -> Option<Bytes> {
    let length = from.try_get_u32().ok()? as usize;
    (length <= from.len()).then(|| from.split_to(length))
}

fn take_id(from: &mut Bytes) -> Option<Uuid> {
    (from.len() >= 16).then(|| Uuid::from_slice(&from.split_to(16)).ok()).flatten()
}

fn take_user(from: &mut Bytes) -> Option<(u8, Option<UserId>)> {
    let what = from.try_get_u8().ok()?;
    let id = take_id(from)?;
    Some((what, (!id.is_nil()).then_some(UserId(id))))
}

fn authorship((is_author, user): (u8, Option<UserId>)) -> Authorship {
    match user {
        Some(user) if is_author == 1 => Authorship::WrittenBy(user),
        Some(user) => Authorship::RelayedBy(user),
        None => Authorship::Unknown,
    }
}

fn claim_of(claim: u8) -> Option<Claim> {
    [Claim::Reader, Claim::Editor, Claim::Writer].into_iter().find(|known| *known as u8 == claim)
}

fn take_position(from: &mut Bytes) -> Option<Position> {
    Some(Position { seq: from.try_get_u64().ok()?, tip: Tip(take_id(from)?) })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const KEY: BusKey = [7; 32];

    fn messages() -> Vec<BusMessage> {
        let (tenant, node) = (TenantId(Uuid::from_u128(1)), NodeId(Uuid::from_u128(2)));
        let key = DocumentKey { tenant, document: DocumentId(Uuid::from_u128(3)) };
        let at = |seq| Position { seq, tip: Tip(Uuid::from_u128(u128::from(seq))) };
        let updates = vec![Bytes::new(), Bytes::from_static(b"update")];
        let user = UserId(Uuid::from_u128(4));
        let authorship = vec![Authorship::WrittenBy(user), Authorship::RelayedBy(user), Authorship::Unknown];
        let owner = |claim| Some(Owner { user, claim });
        let owners = vec![owner(Claim::Reader), None, owner(Claim::Writer)];
        vec![
            BusMessage::Committed { key, node, from: at(u64::MAX - 1), through: at(u64::MAX), updates, authorship },
            BusMessage::Presence { key, node, update: Bytes::from_static(b"presence"), owners },
            BusMessage::PresenceQuery { key, node },
            BusMessage::AccessChanged { tenant, node },
        ]
    }

    #[test]
    fn every_message_comes_back() {
        for message in messages() {
            let bytes = encode(&message, &KEY);
            assert_eq!(decode(bytes, &Channel::of(&message), &KEY), Ok(message));
        }
    }

    #[test]
    fn one_changed_bit_anywhere_is_noticed() {
        for message in messages() {
            let bytes = encode(&message, &KEY);
            for at in 0..bytes.len() * 8 {
                let mut changed = bytes.clone();
                changed[at / 8] ^= 1 << (at % 8);
                assert!(decode(changed, &Channel::of(&message), &KEY).is_err(), "bit {at} of {message:?}");
            }
            for length in 0..bytes.len() {
                assert!(decode(bytes[..length].to_vec(), &Channel::of(&message), &KEY).is_err());
            }
        }
    }

    #[test]
    fn another_tenants_key_and_another_channel_are_not_believed() {
        let message = &messages()[0];
        let channel = Channel::of(message);
        assert_eq!(decode(encode(message, &[8; 32]), &channel, &KEY), Err(Unbelievable::Mac));
        let other = Channel::Access(message.tenant());
        assert_eq!(decode(encode(message, &KEY), &other, &KEY), Err(Unbelievable::Channel));
    }

    #[test]
    fn what_is_well_signed_and_no_message_is_refused_without_panic() {
        for message in messages() {
            let whole = encode(&message, &KEY);
            let body = &whole[..whole.len() - MAC_BYTES];
            let sign = |mut body: Vec<u8>| {
                let mac = blake3::keyed_hash(&KEY, &body);
                body.extend(mac.as_bytes());
                body
            };
            for length in 1..body.len() {
                assert!(decode(sign(body[..length].to_vec()), &Channel::of(&message), &KEY).is_err(), "{length}");
            }
            let longer = sign([body, b"x"].concat());
            assert_eq!(decode(longer, &Channel::of(&message), &KEY), Err(Unbelievable::Malformed));
        }
    }

    #[test]
    fn channels_have_one_name_each() {
        let message = &messages()[0];
        for channel in [Channel::of(message), Channel::Access(message.tenant()), Channel::Node(message.node())] {
            assert_eq!(Channel::parse(channel.name().as_bytes()), Some(channel));
        }
        for name in ["", "t:", "n:x", "t:1:access", "t:00000000000000000000000000000001:d:", "other", "t:é"] {
            assert_eq!(Channel::parse(name.as_bytes()), None, "{name}");
        }
    }
}
