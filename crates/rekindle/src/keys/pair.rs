//! Key pairs of the three algorithms, and public keys as JWKs.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, RsaPublicKeyComponents,
};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{Algorithm, KeyId, SigningKey};
use crate::rng::{self, Rng};

/// A private key with its public half.
pub(super) enum Pair {
    EdDsa(Ed25519KeyPair),
    Es256(EcdsaKeyPair),
    Rs256(RsaKeyPair),
}

impl Pair {
    pub(super) fn generate(algorithm: Algorithm, rng: &dyn Rng) -> Self {
        const WORKS: &str = "aws-lc generates keys unless memory or the system's random generator fails";
        match algorithm {
            Algorithm::EdDsa => {
                let seed = Zeroizing::new(rng::bytes::<32>(rng));
                Self::EdDsa(Ed25519KeyPair::from_seed_unchecked(&*seed).expect("32 bytes are a seed"))
            }
            Algorithm::Es256 => Self::Es256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect(WORKS)),
            Algorithm::Rs256 => Self::Rs256(RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).expect(WORKS)),
        }
    }

    pub(super) fn from_pkcs8(algorithm: Algorithm, der: &[u8]) -> Option<Self> {
        Some(match algorithm {
            Algorithm::EdDsa => Self::EdDsa(Ed25519KeyPair::from_pkcs8(der).ok()?),
            Algorithm::Es256 => Self::Es256(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).ok()?),
            Algorithm::Rs256 => Self::Rs256(RsaKeyPair::from_pkcs8(der).ok()?),
        })
    }

    pub(super) fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        const ENCODES: &str = "a parsed private key has an encoding";
        Zeroizing::new(match self {
            Self::EdDsa(pair) => pair.to_pkcs8().expect(ENCODES).as_ref().to_vec(),
            Self::Es256(pair) => pair.to_pkcs8v1().expect(ENCODES).as_ref().to_vec(),
            Self::Rs256(pair) => {
                AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(pair).expect(ENCODES).as_ref().to_vec()
            }
        })
    }

    pub(super) fn public_jwk(&self, kid: &KeyId) -> String {
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let (alg, material) = match self {
            Self::EdDsa(pair) => {
                let x = encode(pair.public_key().as_ref());
                (Algorithm::EdDsa, Material::Okp { crv: "Ed25519".into(), x })
            }
            Self::Es256(pair) => {
                // SEC 1, uncompressed: 4, x, y.
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                (Algorithm::Es256, Material::Ec { crv: "P-256".into(), x: encode(x), y: encode(y) })
            }
            Self::Rs256(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
                (Algorithm::Rs256, Material::Rsa { n: encode(&public.n), e: encode(&public.e) })
            }
        };
        let jwk = Jwk { material, alg, kid: kid.clone(), usage: "sig".into() };
        serde_json::to_string(&jwk).expect("a JWK is JSON")
    }
}

/// A public key as RFC 7517, RFC 7518 (section 6) and RFC 8037 write it.
#[derive(Serialize, Deserialize)]
pub(super) struct Jwk {
    #[serde(flatten)]
    material: Material,
    alg: Algorithm,
    kid: KeyId,
    #[serde(rename = "use")]
    usage: String,
}

#[derive(Serialize, Deserialize)]
#[serde(tag = "kty")]
enum Material {
    #[serde(rename = "OKP")]
    Okp { crv: String, x: String },
    #[serde(rename = "EC")]
    Ec { crv: String, x: String, y: String },
    #[serde(rename = "RSA")]
    Rsa { n: String, e: String },
}

impl Jwk {
    /// The public key of a record, if its parts agree.
    pub(super) fn verifier(record: &SigningKey) -> Option<ParsedPublicKey> {
        let (kid, algorithm, public) = Self::read(&record.public_jwk)?;
        (kid == record.kid && algorithm == record.chain.algorithm()).then_some(public)
    }

    /// A JWK's id, algorithm and key, if it is one of ours.
    pub(super) fn read(jwk: &str) -> Option<(KeyId, Algorithm, ParsedPublicKey)> {
        let jwk: Self = serde_json::from_str(jwk).ok()?;
        let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).ok();
        let public = match (jwk.alg, &jwk.material) {
            (Algorithm::EdDsa, Material::Okp { crv, x }) if crv == "Ed25519" => {
                ParsedPublicKey::new(&ED25519, decode(x)?).ok()
            }
            (Algorithm::Es256, Material::Ec { crv, x, y }) if crv == "P-256" => {
                ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, [vec![4], decode(x)?, decode(y)?].concat()).ok()
            }
            (Algorithm::Rs256, Material::Rsa { n, e }) => RsaPublicKeyComponents { n: decode(n)?, e: decode(e)? }
                .to_parsed_public_key(&RSA_PKCS1_2048_8192_SHA256)
                .ok(),
            _ => None,
        }?;
        Some((jwk.kid, jwk.alg, public))
    }
}
