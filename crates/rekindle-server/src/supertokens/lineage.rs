//! What SuperTokens tokens carry and we keep nowhere: derived from session, generation and master secret.

use rekindle::{rotation::Position, session::SessionId};
use subtle::ConstantTimeEq;

/// Computes a MAC that only servers with a master secret can: its key id, the message.
pub(super) type Tag<'a> = &'a dyn Fn(u8, &[u8]) -> Option<[u8; 32]>;

/// A session's generation, and the key id of the secret that vouches for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lineage {
    /// The session.
    pub(super) session: SessionId,
    /// Its generation.
    pub(super) generation: u32,
    /// The secret.
    pub(super) kid: u8,
}

impl Lineage {
    /// Of a session at a position.
    pub(super) fn of(session: SessionId, position: &Position) -> Self {
        Self { session, generation: position.generation, kid: position.kid }
    }

    /// The generation before; nothing for a session that never refreshed.
    pub(super) fn parent(self) -> Option<Self> {
        Some(Self { generation: self.generation.checked_sub(1)?, ..self })
    }

    /// `refreshTokenHash1`: 64 digits that say the generation and prove that we wrote them.
    pub(super) fn refresh_hash(self, tag: Tag<'_>) -> Option<String> {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&self.generation.to_be_bytes());
        bytes[4] = self.kid;
        bytes[5..].copy_from_slice(&self.mac("refresh-hash", tag)?[..27]);
        Some(hex(&bytes))
    }

    /// Reads what [`Lineage::refresh_hash`] wrote for a session.
    pub(super) fn read(session: SessionId, hash: &str, tag: Tag<'_>) -> Option<Self> {
        let bytes = unhex(hash)?;
        let generation = u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"));
        let lineage = Self { session, generation, kid: bytes[4] };
        let mac = lineage.mac("refresh-hash", tag)?;
        bool::from(mac[..27].ct_eq(&bytes[5..])).then_some(lineage)
    }

    /// The anti-CSRF value of this generation, in the form of a UUID.
    pub(super) fn anti_csrf(self, tag: Tag<'_>) -> Option<String> {
        let mac = self.mac("anti-csrf", tag)?;
        Some(uuid::Builder::from_random_bytes(mac[..16].try_into().expect("16 bytes")).into_uuid().to_string())
    }

    fn mac(self, label: &str, tag: Tag<'_>) -> Option<[u8; 32]> {
        let message =
            [b"supertokens ", label.as_bytes(), b"\0", &self.session.to_bytes(), &self.generation.to_be_bytes()]
                .concat();
        tag(self.kid, &message)
    }
}

/// 64 lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8; 32]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads what [`hex`] wrote.
pub(super) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b)) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).expect("ASCII");
        *byte = u8::from_str_radix(pair, 16).expect("two digits");
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rekindle::refresh::SecretRing;

    fn ring() -> SecretRing {
        SecretRing::parse("7:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8").unwrap()
    }

    fn lineage(generation: u32) -> Lineage {
        Lineage { session: SessionId::from_bytes([1; 16]), generation, kid: 7 }
    }

    proptest! {
        #[test]
        fn only_what_we_wrote_is_read(generation: u32, at in 0..64_usize, text in "[0-9a-f]{0,70}") {
            let ring = ring();
            let tag = |kid, message: &[u8]| ring.tag(kid, message);
            let hash = lineage(generation).refresh_hash(&tag).unwrap();
            prop_assert_eq!(hash.len(), 64);
            prop_assert_eq!(Lineage::read(lineage(0).session, &hash, &tag), Some(lineage(generation)));
            prop_assert_eq!(Lineage::read(SessionId::from_bytes([2; 16]), &hash, &tag), None);
            let mut other = hash.clone().into_bytes();
            other[at] = if other[at] == b'0' { b'1' } else { b'0' };
            prop_assert_eq!(Lineage::read(lineage(0).session, std::str::from_utf8(&other).unwrap(), &tag), None);
            prop_assert_eq!(Lineage::read(lineage(0).session, &text, &tag), None);
        }
    }

    #[test]
    fn the_derived_values_are_frozen() {
        let ring = ring();
        let tag = |kid, message: &[u8]| ring.tag(kid, message);
        let (hash, csrf) = (lineage(3).refresh_hash(&tag).unwrap(), lineage(3).anti_csrf(&tag).unwrap());
        assert!(hash.starts_with("0000000307"), "{hash}");
        assert_ne!(Some(csrf.clone()), lineage(4).anti_csrf(&tag));
        assert_eq!(csrf.parse::<uuid::Uuid>().unwrap().get_version_num(), 4);
        assert_eq!(lineage(3).parent(), Some(lineage(2)));
        assert_eq!(lineage(0).parent(), None);
        let unknown = Lineage { kid: 8, ..lineage(3) };
        assert_eq!((unknown.refresh_hash(&tag), unknown.anti_csrf(&tag)), (None, None));
    }
}
