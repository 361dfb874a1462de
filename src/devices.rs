//! Browsers on which somebody has signed in before.
//!
//! Such a browser keeps a cookie that names the user and the device, signed with a key of the tenant. It opens nothing; it has
//! a count of its own when passwords are guessed ([`crate::rest`]'s `limits`), so that strangers who guess an account's
//! password do not lock its owner out. All nodes know the key, and nothing is stored for a device.

use contextnexus_actors::ids::UserId;
use std::fmt;
use uuid::Uuid;

/// What keys are derived for. Changing it forgets all devices.
const CONTEXT: &str = "contextnexus 2026-11-30 cookies of devices that have signed in";

/// Signs the cookies of one tenant's users.
#[derive(Clone)]
pub struct DeviceKey([u8; 32]);

impl fmt::Debug for DeviceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeviceKey(redacted)")
    }
}

impl DeviceKey {
    /// Derived from the tenant's own key, which nodes alone can read.
    #[must_use]
    pub fn of_tenant(key: &[u8]) -> Self {
        Self(blake3::derive_key(CONTEXT, key))
    }

    /// What the cookie of this user's device holds.
    #[must_use]
    pub fn sign(&self, user: UserId, device: Uuid) -> String {
        format!("{}{}", device.simple(), self.mac(user, device).to_hex())
    }

    /// The device of a cookie that was signed for this user.
    #[must_use]
    pub fn device(&self, user: UserId, cookie: &str) -> Option<Uuid> {
        let (device, mac) = cookie.split_at_checked(32)?;
        let device = Uuid::try_parse(device).ok()?;
        let mac = blake3::Hash::from_hex(mac).ok()?;
        (self.mac(user, device) == mac).then_some(device) // compared in constant time
    }

    fn mac(&self, user: UserId, device: Uuid) -> blake3::Hash {
        blake3::keyed_hash(&self.0, &[user.0.into_bytes(), device.into_bytes()].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_to_the_user_who_signed_in_on_it_and_to_nobody_else() {
        let key = DeviceKey::of_tenant(&[7; 32]);
        let (ada, eve) = (UserId(Uuid::from_u128(1)), UserId(Uuid::from_u128(2)));
        let device = Uuid::from_u128(3);
        let cookie = key.sign(ada, device);
        assert_eq!(key.device(ada, &cookie), Some(device));
        assert_eq!(key.device(eve, &cookie), None);
        assert_eq!(DeviceKey::of_tenant(&[8; 32]).device(ada, &cookie), None);
        for at in 0..cookie.len() {
            let mut forged = cookie.clone().into_bytes();
            forged[at] = if forged[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(key.device(ada, &String::from_utf8(forged).unwrap()), None, "at {at}");
            assert_eq!(key.device(ada, &cookie[..at]), None);
        }
        assert_eq!(key.device(ada, "ä".repeat(48).as_str()), None);
    }
}
