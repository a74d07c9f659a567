//! `Rekindle-Proof`: what a client says of the session that it holds, as a structured field (RFC 9651).

use rekindle::{
    refresh::{Commitment, InvalidProof, Opening, Proof},
    session::SessionId,
};
use sfv::{BareItem, Dictionary, ListEntry, Parser};

use super::{PROOF, Request};
use crate::problem::Problem;

/// What a `Rekindle-Proof` header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// `c=:…:`: a client without a session offers the commitment for one that is about to start.
    First(Commitment),
    /// `sid="…", gen=7, c=:…:, o=:…:, newest`: a client at a session's generation.
    Step(Proof),
}

impl Claim {
    /// The first commitment, if it is one.
    pub fn first(&self) -> Option<Commitment> {
        match self {
            Self::First(commitment) => Some(*commitment),
            Self::Step(_) => None,
        }
    }

    /// The proof, if it is one.
    pub fn step(self) -> Option<Proof> {
        match self {
            Self::First(_) => None,
            Self::Step(proof) => Some(proof),
        }
    }

    /// Reads the header of a request; `None` without one. Names that are not known are ignored, as RFC 9651 advises.
    pub fn of(request: &Request<'_>) -> Result<Option<Self>, Problem> {
        match request.single(&PROOF) {
            Ok(None) => Ok(None),
            Ok(Some(text)) => Self::parse(text).map(Some),
            Err(_) => Err(invalid("must come once, as visible ASCII")),
        }
    }

    /// Reads a header's text.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.len() > MAX {
            return Err(invalid(format!("has {} bytes; at most {MAX}", text.len())));
        }
        let fields: Dictionary = Parser::new(text)
            .parse()
            .map_err(|_| invalid("is not a dictionary of RFC 9651, like `sid=\"…\", gen=7, c=:…:, o=:…:`"))?;
        let item = |key: &str| match fields.get(key) {
            None => Ok(None),
            Some(ListEntry::Item(item)) => Ok(Some(&item.bare_item)),
            Some(ListEntry::InnerList(_)) => Err(invalid(format!("`{key}` must be one value, not a list"))),
        };
        let commitment = match item("c")? {
            Some(BareItem::ByteSequence(bytes)) => commitment(bytes)?,
            Some(_) => return Err(invalid("`c` must be a byte sequence, like `c=:…:`")),
            None => return Err(invalid("`c` is missing: the commitment of the next generation")),
        };
        let session_id = match item("sid")? {
            None => None,
            Some(BareItem::String(text)) => {
                Some(text.as_str().parse::<SessionId>().map_err(|e| invalid(format!("`sid`: {e}")))?)
            }
            Some(_) => return Err(invalid("`sid` must be a string in quotes")),
        };
        let generation = match item("gen")? {
            None => None,
            Some(BareItem::Integer(number)) => {
                Some(u32::try_from(*number).map_err(|_| invalid("`gen` must be 0 to 4294967295"))?)
            }
            Some(_) => return Err(invalid("`gen` must be an integer")),
        };
        let opening = match item("o")? {
            None => None,
            Some(BareItem::ByteSequence(bytes)) => {
                Some(Opening::from_bytes(bytes).map_err(|e| invalid(e.to_string()))?)
            }
            Some(_) => return Err(invalid("`o` must be a byte sequence, like `o=:…:`")),
        };
        let newest = match item("newest")? {
            None => false,
            Some(BareItem::Boolean(newest)) => *newest,
            Some(_) => return Err(invalid("`newest` must be a boolean")),
        };
        match (session_id, generation) {
            (Some(session_id), Some(generation)) => {
                Ok(Self::Step(Proof { session_id, generation, commitment, opening, newest }))
            }
            (None, None) if opening.is_none() && !newest => Ok(Self::First(commitment)),
            _ => Err(invalid("names `sid` and `gen` together, and `o` or `newest` only with them")),
        }
    }
}

/// No proof is longer: a UUID, a number, 16 and 64 bytes.
const MAX: usize = 512;

fn commitment(bytes: &[u8]) -> Result<Commitment, Problem> {
    let bytes: [u8; 16] =
        bytes.try_into().map_err(|_| invalid(InvalidProof::CommitmentLength(bytes.len()).to_string()))?;
    let commitment = Commitment::from_bytes(bytes);
    if commitment.is_some() { Ok(commitment) } else { Err(invalid(InvalidProof::CommitmentZero.to_string())) }
}

fn invalid(detail: impl Into<String>) -> Problem {
    Problem::field("Rekindle-Proof", detail)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Sent;
    use super::*;
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    use proptest::prelude::*;

    const SID: &str = "0199a3b4-7c00-7000-8000-000000000001";

    fn bytes(raw: &[u8]) -> String {
        format!(":{}:", BASE64_STANDARD.encode(raw))
    }

    #[test]
    fn a_client_without_a_session_offers_its_first_commitment() {
        let claim = Claim::parse(&format!("c={}", bytes(&[7; 16]))).unwrap();
        assert_eq!(claim.first(), Some(Commitment::from_bytes([7; 16])));
        assert_eq!(claim.step(), None);
    }

    #[test]
    fn a_client_at_a_generation_proves_it() {
        let text = format!("sid=\"{SID}\", gen=7, c={}, o={}, newest", bytes(&[1; 16]), bytes(&[2; 32]));
        let proof = Claim::parse(&text).unwrap().step().unwrap();
        assert_eq!(proof.session_id.to_string(), SID);
        assert_eq!((proof.generation, proof.newest), (7, true));
        assert_eq!(proof.commitment, Commitment::from_bytes([1; 16]));
        assert_eq!(proof.opening, Some(Opening::from_bytes(&[2; 32]).unwrap()));
        let later = format!("sid=\"{SID}\", gen=4294967295, c={}, newest=?0, future=(1 2);x", bytes(&[1; 16]));
        assert!(!Claim::parse(&later).unwrap().step().unwrap().newest, "unknown names are for later versions");
    }

    #[test]
    fn what_is_no_proof_is_refused() {
        let c = bytes(&[1; 16]);
        for bad in [
            String::new(),
            "c".into(),
            "c=abc".into(),
            format!("c={}", bytes(&[0; 16])),
            format!("c={}", bytes(&[1; 15])),
            format!("c=({c})"),
            format!("c={c}, gen=1"),
            format!("c={c}, sid=\"{SID}\""),
            format!("c={c}, o={}", bytes(&[1; 16])),
            format!("c={c}, newest"),
            format!("c={c}, sid={SID}, gen=1"),
            format!("c={c}, sid=\"x\", gen=1"),
            format!("c={c}, sid=\"{SID}\", gen=-1"),
            format!("c={c}, sid=\"{SID}\", gen=1.0"),
            format!("c={c}, sid=\"{SID}\", gen=4294967296"),
            format!("c={c}, sid=\"{SID}\", gen=1, o={}", bytes(&[1; 15])),
            format!("c={c}, sid=\"{SID}\", gen=1, o={}", bytes(&[1; 65])),
            format!("c={c}, sid=\"{SID}\", gen=1, newest=1"),
            format!("c={c}, x={}", "a".repeat(600)),
        ] {
            let problem = Claim::parse(&bad).expect_err(&bad);
            assert_eq!(problem.code().as_str(), "invalid_request", "{bad}");
            assert!(problem.detail().starts_with("`Rekindle-Proof`: "), "{problem}");
        }
    }

    #[test]
    fn a_proof_that_comes_twice_proves_nothing() {
        let sent = Sent::post().with("rekindle-proof", "c=:AQEBAQEBAQEBAQEBAQEBAQ==:");
        assert!(Claim::of(&sent.request()).unwrap().is_some());
        let twice = sent.clone().with("rekindle-proof", "c=:AQEBAQEBAQEBAQEBAQEBAQ==:");
        assert!(Claim::of(&twice.request()).is_err());
        assert_eq!(Claim::of(&Sent::post().request()).unwrap(), None);
    }

    #[test]
    fn an_opening_is_never_printed() {
        let text = format!("sid=\"{SID}\", gen=7, c={}, o={}", bytes(&[1; 16]), bytes(&[2; 32]));
        assert!(format!("{:?}", Claim::parse(&text).unwrap()).contains("Opening(…)"));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(sid|gen|c|o|newest|[ -~]|=|:|\"|,|[0-9]){0,40}") {
            let _ = Claim::parse(&text);
        }

        #[test]
        fn what_a_client_writes_is_read_back(
            sid in any::<[u8; 16]>(), generation in any::<u32>(), c in any::<[u8; 16]>().prop_filter("zeros mean none", |c| *c != [0; 16]),
            o in prop::option::of(prop::collection::vec(any::<u8>(), 16..=64)), newest in any::<bool>(),
        ) {
            let session_id = SessionId::from_bytes(sid);
            let mut text = format!("sid=\"{session_id}\",gen={generation},c={}", bytes(&c));
            if let Some(o) = &o {
                text += &format!(" ,\to={}", bytes(o));
            }
            if newest {
                text += ", newest";
            }
            let opening = o.map(|o| Opening::from_bytes(&o).unwrap());
            let proof = Proof { session_id, generation, commitment: Commitment::from_bytes(c), opening, newest };
            prop_assert_eq!(Claim::parse(&text).unwrap(), Claim::Step(proof));
        }
    }
}
