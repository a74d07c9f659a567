//! `docs/protocol-vectors.json` against the functions that production calls. `docs/PROTOCOL.md` describes the file.

use std::collections::HashSet;
use std::mem::discriminant;

use aws_lc_rs::{hkdf, hmac};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine as _};
use rekindle::clock::{Seconds, Timestamp};
use rekindle::refresh::{Commitment, Malformed, Opening, Presented, Proof, SecretRing};
use rekindle::rotation::{self, Decision, Expiry, MintDecision, OnMissingProof, Policy, Position, Row, TheftKind};
use rekindle::session::SessionId;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vectors {
    format: u32,
    tokens: Value,
    session_id: SessionId,
    decisions: Vec<DecisionVector>,
    mints: Vec<MintVector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DecisionVector {
    rule: u8,
    name: String,
    row: RowVector,
    presented: PresentedVector,
    proof: Option<Proof>,
    now: i64,
    policy: PolicyVector,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MintVector {
    name: String,
    row: RowVector,
    presented: PresentedVector,
    now: i64,
    expect: Expect,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RowVector {
    generation: u32,
    commitment: Option<Commitment>,
    issued_at: u32,
    confirmed: bool,
    revoked: bool,
    idle_expires_at: i64,
    expires_at: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PresentedVector {
    generation: u32,
    commitment: Option<Commitment>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyVector {
    on_missing_proof: OnMissingProof,
    reuse_leeway: Seconds,
}

#[derive(Deserialize)]
#[serde(tag = "decision", rename_all = "snake_case", deny_unknown_fields)]
enum Expect {
    Advance { commitment: Option<Commitment> },
    Reissue,
    FastForward,
    Superseded,
    ProofRequired,
    Theft { kind: TheftKind },
    Revoked,
    Expired { which: Expiry },
    InvalidProof,
    Serve,
}

impl Expect {
    fn of_refresh(&self) -> Decision {
        match *self {
            Self::Advance { commitment } => Decision::Advance(commitment.unwrap_or(Commitment::NONE)),
            Self::Reissue => Decision::Reissue,
            Self::FastForward => Decision::FastForward,
            Self::Superseded => Decision::Superseded,
            Self::ProofRequired => Decision::ProofRequired,
            Self::Theft { kind } => Decision::Theft(kind),
            Self::Revoked => Decision::Revoked,
            Self::Expired { which } => Decision::Expired(which),
            Self::InvalidProof => Decision::InvalidProof,
            Self::Serve => panic!("only a mint serves"),
        }
    }

    fn of_mint(&self) -> MintDecision {
        match *self {
            Self::Serve => MintDecision::Serve,
            Self::Superseded => MintDecision::Superseded,
            Self::Revoked => MintDecision::Revoked,
            Self::Expired { which } => MintDecision::Expired(which),
            _ => panic!("no mint leads there"),
        }
    }
}

impl RowVector {
    fn row(&self) -> Row {
        let commitment = self.commitment.unwrap_or(Commitment::NONE);
        Row {
            position: Position { generation: self.generation, commitment, issued_at: self.issued_at, kid: 1 },
            confirmed: self.confirmed,
            revoked: self.revoked,
            idle_expires_at: Timestamp::from_millis(self.idle_expires_at),
            expires_at: Timestamp::from_millis(self.expires_at),
        }
    }
}

impl PresentedVector {
    fn presented(&self, session: SessionId) -> Presented {
        let commitment = self.commitment.unwrap_or(Commitment::NONE);
        Presented { session, position: Position { generation: self.generation, commitment, issued_at: 0, kid: 1 } }
    }
}

fn vectors() -> Vectors {
    let vectors: Vectors = serde_json::from_str(include_str!("../../../docs/protocol-vectors.json")).unwrap();
    assert_eq!(vectors.format, 1);
    vectors
}

#[test]
fn every_decision_is_as_published() {
    let Vectors { session_id, decisions, .. } = vectors();
    let mut seen = HashSet::new();
    for DecisionVector { rule, name, row, presented, proof, now, policy, expect } in &decisions {
        let policy = Policy { on_missing_proof: policy.on_missing_proof, reuse_leeway: policy.reuse_leeway };
        let presented = presented.presented(session_id);
        let now = Timestamp::from_millis(*now);
        let decided = rotation::decide(session_id, &row.row(), &presented, proof.as_ref(), now, &policy);
        assert_eq!(decided, expect.of_refresh(), "rule {rule}, {name}");
        seen.insert((*rule, discriminant(&decided)));
    }
    let rules: HashSet<u8> = seen.iter().map(|(rule, _)| *rule).collect();
    let kinds: HashSet<_> = seen.iter().map(|(_, kind)| *kind).collect();
    assert_eq!((rules.len(), kinds.len()), (8, 9), "a rule or a kind of decision has no vector");
}

#[test]
fn every_mint_decision_is_as_published() {
    let Vectors { session_id, mints, .. } = vectors();
    for MintVector { name, row, presented, now, expect } in &mints {
        let presented = presented.presented(session_id);
        let decided = rotation::decide_mint(&row.row(), &presented, Timestamp::from_millis(*now));
        assert_eq!(decided, expect.of_mint(), "{name}");
    }
}

#[test]
fn the_tokens_are_what_production_makes_of_the_same_input() {
    let (published, made) = (vectors().tokens, tokens());
    assert_eq!(published, made, "docs/protocol-vectors.json: `tokens` should be\n{made:#}");
}

const SECRETS: [(u8, [u8; 32]); 2] = [(1, counting(0)), (2, counting(1))];

/// `from`, `from + 1`, …
const fn counting<const N: usize>(from: u8) -> [u8; N] {
    let mut bytes = [from; N];
    let mut i = 0;
    while i < N {
        bytes[i] = from + i as u8;
        i += 1;
    }
    bytes
}

/// The `tokens` part of the file.
fn tokens() -> Value {
    let lines: Vec<String> = SECRETS.iter().map(|(kid, secret)| format!("{kid}:{}", BASE64.encode(secret))).collect();
    let ring = SecretRing::parse(&lines.join("\n")).unwrap();
    let secrets: Vec<Value> = SECRETS
        .iter()
        .zip(ring.checks())
        .map(|((kid, secret), (_, check))| json!({ "kid": kid, "secret": BASE64.encode(secret), "check": BASE64.encode(check) }))
        .collect();
    json!({
        "secrets": secrets,
        "issued": issued(&ring),
        "refused": refused(&ring),
        "openings": openings(),
        "refused_openings": refused_openings(),
        "refused_commitments": refused_commitments(),
    })
}

fn issued(ring: &SecretRing) -> Vec<Value> {
    let session = SessionId::from_bytes(counting(0x10));
    let committed = Opening::from_bytes(&counting::<32>(0)).unwrap().commitment();
    let cases = [
        (1, 0, 0, Commitment::NONE),
        (1, 0, 1_800_000_000, committed),
        (2, 7, 1_800_000_001, committed),
        (2, u32::MAX, u32::MAX, Commitment::from_bytes([0xff; 16])),
    ];
    cases
        .into_iter()
        .map(|(kid, generation, issued_at, commitment)| {
            let position = Position { generation, commitment, issued_at, kid };
            let token = ring.issue(session, &position).unwrap();
            assert_eq!(token.expose(), by_hand(1, session, &position), "the description and production differ");
            assert_eq!(ring.authenticate(token.expose()), Ok(Presented { session, position }));
            json!({
                "kid": kid,
                "session_id": session,
                "generation": generation,
                "issued_at": issued_at,
                "commitment": commitment.is_some().then_some(commitment),
                "token": token.expose(),
            })
        })
        .collect()
}

/// A token as `docs/PROTOCOL.md` describes it, made without the production code.
fn by_hand(version: u8, session: SessionId, position: &Position) -> String {
    let Position { generation, commitment, issued_at, kid } = *position;
    let secret = SECRETS.iter().find(|(known, _)| *known == kid).map_or(counting(2), |(_, secret)| *secret);
    let mut key = [0; 32];
    let prk = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&secret);
    prk.expand(&[b"rekindle/v1/refresh"], hkdf::HKDF_SHA256).unwrap().fill(&mut key).unwrap();
    let mut bytes = vec![version, kid];
    bytes.extend(session.to_bytes());
    bytes.extend(generation.to_be_bytes());
    bytes.extend(issued_at.to_be_bytes());
    bytes.extend(commitment.to_bytes());
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), &bytes);
    bytes.extend(&mac.as_ref()[..16]);
    format!("rkr_{}", BASE64.encode(bytes))
}

fn refused(ring: &SecretRing) -> Vec<Value> {
    let session = SessionId::from_bytes(counting(0x10));
    let commitment = Commitment::from_bytes([0xff; 16]);
    let position = Position { generation: 7, commitment, issued_at: 1_800_000_000, kid: 1 };
    let good = by_hand(1, session, &position);
    assert!(ring.authenticate(&good).is_ok());
    let raw = BASE64.decode(&good[4..]).unwrap();
    let changed = |at: usize| {
        let mut raw = raw.clone();
        raw[at] ^= 1;
        format!("rkr_{}", BASE64.encode(raw))
    };
    // 58 bytes leave four unused bits in the last character.
    let (rest, last) = good.split_at(good.len() - 1);
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let sloppy = alphabet.as_bytes()[alphabet.find(last).unwrap() + 1] as char;
    let cases = [
        ("empty", String::new()),
        ("the prefix alone", "rkr_".into()),
        ("no prefix", good[4..].into()),
        ("another prefix", good.replacen("rkr_", "rkr-", 1)),
        ("white space before", format!(" {good}")),
        ("a line break after", format!("{good}\n")),
        ("one character short", rest.into()),
        ("one character more", format!("{good}A")),
        ("padded", format!("{good}==")),
        ("the standard alphabet of base64", format!("rkr_{}", good[4..].replace('_', "/").replace('-', "+"))),
        ("unused bits that are not zero", format!("{rest}{sloppy}")),
        ("version 0, authenticated", by_hand(0, session, &position)),
        ("version 2, authenticated", by_hand(2, session, &position)),
        ("a key id that is not configured", by_hand(1, session, &Position { kid: 9, ..position })),
        ("another configured key id", changed_kid(&raw)),
        ("a bit of the version changed", changed(0)),
        ("a bit of the key id changed", changed(1)),
        ("a bit of the session id changed", changed(17)),
        ("a bit of the generation changed", changed(21)),
        ("a bit of the time changed", changed(25)),
        ("a bit of the commitment changed", changed(41)),
        ("the MAC's first bit changed", changed(42)),
        ("the MAC's last bit changed", changed(57)),
    ];
    cases
        .into_iter()
        .map(|(why, token)| {
            assert_ne!(token, good, "{why}");
            assert_eq!(ring.authenticate(&token), Err(Malformed), "{why}");
            json!({ "why": why, "token": token })
        })
        .collect()
}

fn changed_kid(raw: &[u8]) -> String {
    let mut raw = raw.to_vec();
    raw[1] = 2;
    format!("rkr_{}", BASE64.encode(raw))
}

fn openings() -> Vec<Value> {
    [counting::<16>(0).to_vec(), counting::<32>(0).to_vec(), [0; 32].to_vec(), [0xff; 64].to_vec()]
        .iter()
        .map(|bytes| {
            let opening = Opening::from_bytes(bytes).unwrap();
            assert_eq!(Opening::parse(&opening.expose()), Ok(opening.clone()));
            json!({ "opening": *opening.expose(), "commitment": opening.commitment() })
        })
        .collect()
}

fn refused_openings() -> Vec<Value> {
    let text = BASE64.encode(counting::<16>(0));
    let cases = [
        ("empty", String::new()),
        ("15 bytes", BASE64.encode([7; 15])),
        ("65 bytes", BASE64.encode([7; 65])),
        ("padded", format!("{text}==")),
        ("the standard alphabet of base64", "/".repeat(22)),
        ("unused bits that are not zero", format!("{}x", &text[..21])),
    ];
    refusals(&cases, "opening", |text| Opening::parse(text).is_err())
}

fn refused_commitments() -> Vec<Value> {
    let text = Commitment::from_bytes(counting(0)).to_string();
    let cases = [
        ("empty", String::new()),
        ("zeros", BASE64.encode([0; 16])),
        ("15 bytes", BASE64.encode([7; 15])),
        ("17 bytes", BASE64.encode([7; 17])),
        ("padded", format!("{text}==")),
        ("unused bits that are not zero", format!("{}x", &text[..21])),
    ];
    refusals(&cases, "commitment", |text| Commitment::parse(text).is_err())
}

fn refusals(cases: &[(&str, String)], what: &str, refuses: impl Fn(&str) -> bool) -> Vec<Value> {
    cases
        .iter()
        .map(|(why, text)| {
            assert!(refuses(text), "{why}");
            json!({ "why": why, what: text })
        })
        .collect()
}
