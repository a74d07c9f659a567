//! Signing keys.
use crate::{clock::Timestamp, session::Scope};
use serde::{Deserialize, Serialize};
/// A key id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub String);
/// An algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Algorithm {
    /// Ed25519.
    EdDsa,
    /// P-256.
    Es256,
    /// RSA.
    Rs256,
}
/// A signing key's record.
#[derive(Debug, Clone)]
pub struct SigningKey {
    /// Id.
    pub kid: KeyId,
    /// Scope.
    pub scope: Scope,
    /// Algorithm.
    pub algorithm: Algorithm,
    /// Public part.
    pub public_jwk: String,
    /// Private part, wrapped.
    pub wrapped: Vec<u8>,
    /// Created.
    pub created_at: Timestamp,
    /// Signs from.
    pub signs_from: Timestamp,
}
