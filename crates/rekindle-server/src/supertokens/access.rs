//! Access tokens as SuperTokens SDKs know them, versions 1 to 5. Pure: whoever calls brings key and time.
//!
//! Versions 1 and 2 are three parts of padded standard base64 with a header whose bytes are fixed; 3 to 5 are JWTs (RFC 7519)
//! that name their key.

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use rekindle::{clock::Timestamp, keys::Algorithm};
use serde_json::{Map, Value, json};

/// The five formats.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    V1,
    V2,
    V3,
    V4,
    V5,
}

impl Version {
    /// The names that a user's payload cannot have in this format.
    pub(super) fn protected(self) -> &'static [&'static str] {
        const ALL: &[&str] = &[
            "sub",
            "exp",
            "iat",
            "sessionHandle",
            "refreshTokenHash1",
            "parentRefreshTokenHash1",
            "antiCsrfToken",
            "tId",
            "rsub",
        ];
        match self {
            Self::V1 | Self::V2 => &[],
            Self::V3 => &ALL[..7],
            Self::V4 => &ALL[..8],
            Self::V5 => ALL,
        }
    }

    /// Whether a payload has a name that this format needs for itself.
    pub(super) fn clashes(self, payload: &Map<String, Value>) -> bool {
        self.protected().iter().any(|name| payload.contains_key(*name))
    }

    fn number(self) -> &'static str {
        match self {
            Self::V1 => "1",
            Self::V2 => "2",
            Self::V3 => "3",
            Self::V4 => "4",
            Self::V5 => "5",
        }
    }

    /// Whether it is a JWT, and not of a format that came before.
    pub(super) fn is_jwt(self) -> bool {
        self >= Self::V3
    }
}

/// What an access token says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Claims {
    /// The session's handle.
    pub(super) handle: String,
    /// Whose it is.
    pub(super) user_id: String,
    /// As which the user signed in (version 5); the same one, unless an SDK linked accounts.
    pub(super) recipe_user_id: String,
    /// The tenant (from version 4 on).
    pub(super) tenant: String,
    /// `refreshTokenHash1`.
    pub(super) refresh_hash: String,
    /// `parentRefreshTokenHash1`: there until the generation is known to have reached its client.
    pub(super) parent_hash: Option<String>,
    /// `antiCsrfToken`.
    pub(super) anti_csrf: Option<String>,
    /// The user's payload.
    pub(super) user_data: Map<String, Value>,
    /// When it was issued. In a JWT whole seconds, rounded down.
    pub(super) issued_at: Timestamp,
    /// From when on it is expired. In a JWT whole seconds, rounded down.
    pub(super) expires_at: Timestamp,
}

/// A key, as much of it as minting a token needs.
pub(super) struct Signer<'a, S> {
    /// What a JWT names it by.
    pub(super) kid: &'a str,
    /// RS256 in the first two formats.
    pub(super) algorithm: Algorithm,
    /// Signs a text.
    pub(super) sign: S,
}

/// Writes a token.
pub(super) fn mint<S: FnOnce(&[u8]) -> Vec<u8>>(version: Version, claims: &Claims, key: Signer<'_, S>) -> String {
    let Signer { kid, algorithm, sign } = key;
    if !version.is_jwt() {
        let header = header(version);
        let payload = BASE64_STANDARD.encode(Value::Object(plain(claims)).to_string());
        let message = format!("{header}.{payload}");
        let signature = BASE64_STANDARD.encode(sign(message.as_bytes()));
        return format!("{message}.{signature}");
    }
    let header = json!({ "alg": algorithm.as_str(), "kid": kid, "typ": "JWT", "version": version.number() });
    jwt(&header, flat(version, claims), sign)
}

/// A JWT of a header and a payload.
pub(super) fn jwt(header: &Value, payload: Map<String, Value>, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let encode = |text: String| BASE64_URL_SAFE_NO_PAD.encode(text);
    let message = format!("{}.{}", encode(header.to_string()), encode(Value::Object(payload).to_string()));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

/// A token taken apart. Nothing is believed yet.
#[derive(Debug)]
pub(super) struct Unverified<'a> {
    /// Its format.
    pub(super) version: Version,
    /// The key that it names; the first two formats name none.
    pub(super) kid: Option<String>,
    /// How it says that it is signed: RS256 or ES256.
    pub(super) algorithm: Algorithm,
    /// What was signed.
    pub(super) message: &'a str,
    /// The signature.
    pub(super) signature: Vec<u8>,
    payload: Vec<u8>,
}

/// Takes a token apart, if it has one of the five shapes.
pub(super) fn parse(token: &str) -> Option<Unverified<'_>> {
    if token.len() > rekindle::access::MAX_TOKEN {
        return None;
    }
    let (message, signature) = token.rsplit_once('.')?;
    let (head, payload) = message.split_once('.')?;
    if let Some(version) = [Version::V1, Version::V2].into_iter().find(|version| head == header(*version)) {
        let decode = |part| BASE64_STANDARD.decode(part).ok();
        return Some(Unverified {
            version,
            kid: None,
            algorithm: Algorithm::Rs256,
            message,
            signature: decode(signature)?,
            payload: decode(payload)?,
        });
    }
    let decode = |part| BASE64_URL_SAFE_NO_PAD.decode(part).ok();
    let header: Map<String, Value> = serde_json::from_slice(&decode(head)?).ok()?;
    let says = |name: &str| header.get(name).and_then(Value::as_str);
    let version = [Version::V3, Version::V4, Version::V5].into_iter().find(|v| says("version") == Some(v.number()))?;
    let algorithm = [Algorithm::Rs256, Algorithm::Es256].into_iter().find(|a| says("alg") == Some(a.as_str()))?;
    if says("typ") != Some("JWT") || header.contains_key("crit") {
        return None;
    }
    let kid = Some(says("kid")?.to_owned());
    Some(Unverified { version, kid, algorithm, message, signature: decode(signature)?, payload: decode(payload)? })
}

impl Unverified<'_> {
    /// What it says; to be asked only once its signature is verified.
    pub(super) fn claims(&self) -> Option<Claims> {
        let mut payload: Map<String, Value> = serde_json::from_slice(&self.payload).ok()?;
        if self.version.is_jwt() { read_flat(self.version, payload) } else { read_plain(&mut payload) }
    }
}

/// The first part of every token of the first two formats. Its bytes are what SDKs compare.
fn header(version: Version) -> String {
    BASE64_STANDARD.encode(format!(r#"{{"alg":"RS256","typ":"JWT","version":"{}"}}"#, version.number()))
}

/// The payload of versions 1 and 2.
fn plain(claims: &Claims) -> Map<String, Value> {
    super::reply::object([
        ("userId", json!(claims.user_id)),
        ("expiryTime", json!(claims.expires_at.millis())),
        ("timeCreated", json!(claims.issued_at.millis())),
        ("sessionHandle", json!(claims.handle)),
        ("refreshTokenHash1", json!(claims.refresh_hash)),
        ("parentRefreshTokenHash1", json!(claims.parent_hash)),
        ("antiCsrfToken", json!(claims.anti_csrf)),
        ("userData", json!(claims.user_data)),
    ])
}

fn read_plain(payload: &mut Map<String, Value>) -> Option<Claims> {
    let user_data = match payload.remove("userData")? {
        Value::Object(user_data) => user_data,
        _ => return None,
    };
    let user_id = text(payload, "userId")?;
    Some(Claims {
        recipe_user_id: user_id.clone(),
        user_id,
        handle: text(payload, "sessionHandle")?,
        tenant: "public".into(),
        refresh_hash: text(payload, "refreshTokenHash1")?,
        parent_hash: optional_text(payload, "parentRefreshTokenHash1")?,
        anti_csrf: optional_text(payload, "antiCsrfToken")?,
        user_data,
        issued_at: Timestamp::from_millis(payload.get("timeCreated")?.as_i64()?),
        expires_at: Timestamp::from_millis(payload.get("expiryTime")?.as_i64()?),
    })
}

/// The payload of versions 3 to 5: the user's own, and over it what the format needs.
fn flat(version: Version, claims: &Claims) -> Map<String, Value> {
    let mut payload = claims.user_data.clone();
    let values = [
        json!(claims.user_id),
        json!(claims.expires_at.secs()),
        json!(claims.issued_at.secs()),
        json!(claims.handle),
        json!(claims.refresh_hash),
        json!(claims.parent_hash),
        json!(claims.anti_csrf),
        json!(claims.tenant),
        json!(claims.recipe_user_id),
    ];
    payload.extend(version.protected().iter().map(|name| (*name).to_owned()).zip(values));
    payload
}

fn read_flat(version: Version, mut payload: Map<String, Value>) -> Option<Claims> {
    let user_id = text(&payload, "sub")?;
    let claims = Claims {
        handle: text(&payload, "sessionHandle")?,
        recipe_user_id: if version >= Version::V5 { text(&payload, "rsub")? } else { user_id.clone() },
        tenant: if version >= Version::V4 { text(&payload, "tId")? } else { "public".into() },
        user_id,
        refresh_hash: text(&payload, "refreshTokenHash1")?,
        parent_hash: optional_text(&payload, "parentRefreshTokenHash1")?,
        anti_csrf: optional_text(&payload, "antiCsrfToken")?,
        issued_at: Timestamp::from_secs(payload.get("iat")?.as_i64()?),
        expires_at: Timestamp::from_secs(payload.get("exp")?.as_i64()?),
        user_data: Map::new(),
    };
    payload.retain(|name, _| !version.protected().contains(&name.as_str()));
    Some(Claims { user_data: payload, ..claims })
}

fn text(payload: &Map<String, Value>, name: &str) -> Option<String> {
    payload.get(name)?.as_str().map(str::to_owned)
}

/// A text, or null or nothing; `None` if it is something else.
fn optional_text(payload: &Map<String, Value>, name: &str) -> Option<Option<String>> {
    match payload.get(name) {
        None | Some(Value::Null) => Some(None),
        Some(Value::String(text)) => Some(Some(text.clone())),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: [Version; 5] = [Version::V1, Version::V2, Version::V3, Version::V4, Version::V5];

    fn claims() -> Claims {
        Claims {
            handle: "h_t1".into(),
            user_id: "ann".into(),
            recipe_user_id: "bob".into(),
            tenant: "t1".into(),
            refresh_hash: "aa".into(),
            parent_hash: None,
            anti_csrf: None,
            user_data: json!({ "role": "admin", "none": null }).as_object().unwrap().clone(),
            issued_at: Timestamp::from_millis(1_800_000_000_123),
            expires_at: Timestamp::from_millis(1_800_003_600_123),
        }
    }

    fn minted(version: Version, claims: &Claims, kid: &str) -> String {
        mint(version, claims, Signer { kid, algorithm: Algorithm::Rs256, sign })
    }

    /// Not a signature; it shows what would be signed.
    fn sign(message: &[u8]) -> Vec<u8> {
        format!("signed {}", message.len()).into_bytes()
    }

    fn payload(token: &str) -> Value {
        serde_json::from_slice(&parse(token).unwrap().payload).unwrap()
    }

    #[test]
    fn the_headers_of_the_first_two_formats_are_frozen() {
        let start = |version| minted(version, &claims(), "d-1").split('.').next().unwrap().to_owned();
        assert_eq!(start(Version::V1), "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsInZlcnNpb24iOiIxIn0=");
        assert_eq!(start(Version::V2), "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsInZlcnNpb24iOiIyIn0=");
    }

    #[test]
    fn each_format_has_its_members() {
        assert_eq!(
            payload(&minted(Version::V2, &claims(), "d-1")),
            json!({
                "userId": "ann", "expiryTime": 1_800_003_600_123_i64, "timeCreated": 1_800_000_000_123_i64,
                "sessionHandle": "h_t1", "refreshTokenHash1": "aa", "userData": { "role": "admin", "none": null },
            })
        );
        let mut v3 = json!({
            "sub": "ann", "exp": 1_800_003_600, "iat": 1_800_000_000, "sessionHandle": "h_t1", "refreshTokenHash1": "aa",
            "parentRefreshTokenHash1": null, "antiCsrfToken": null, "role": "admin", "none": null,
        });
        assert_eq!(payload(&minted(Version::V3, &claims(), "d-1")), v3);
        v3["tId"] = json!("t1");
        assert_eq!(payload(&minted(Version::V4, &claims(), "d-1")), v3);
        v3["rsub"] = json!("bob");
        let v5 = minted(Version::V5, &claims(), "d-1");
        assert_eq!(payload(&v5), v3);
        let header = BASE64_URL_SAFE_NO_PAD.decode(v5.split('.').next().unwrap()).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&header).unwrap(),
            json!({ "alg": "RS256", "kid": "d-1", "typ": "JWT", "version": "5" })
        );
    }

    #[test]
    fn what_is_written_reads_back() {
        for version in ALL {
            let full = Claims { parent_hash: Some("bb".into()), anti_csrf: Some("cc".into()), ..claims() };
            let token = minted(version, &full, "s-1");
            let parsed = parse(&token).unwrap();
            assert_eq!(parsed.algorithm, Algorithm::Rs256);
            let (message, signature) = token.rsplit_once('.').unwrap();
            assert_eq!((parsed.version, parsed.message), (version, message));
            assert_eq!(parsed.kid.as_deref(), (version >= Version::V3).then_some("s-1"));
            assert_eq!(parsed.signature, sign(message.as_bytes()), "{signature}");
            let tenant = if version >= Version::V4 { "t1" } else { "public" };
            let recipe_user_id = if version >= Version::V5 { "bob" } else { "ann" };
            let rounded = |t: Timestamp| if version >= Version::V3 { Timestamp::from_secs(t.secs()) } else { t };
            let expected = Claims {
                tenant: tenant.into(),
                recipe_user_id: recipe_user_id.into(),
                issued_at: rounded(full.issued_at),
                expires_at: rounded(full.expires_at),
                ..full
            };
            assert_eq!(parsed.claims(), Some(expected));
        }
    }

    #[test]
    fn a_payload_cannot_pass_for_what_the_format_says() {
        for version in ALL {
            for name in version.protected() {
                let mut forged = claims();
                forged.user_data.insert((*name).to_owned(), json!("forged"));
                assert!(version.clashes(&forged.user_data));
                assert_eq!(payload(&minted(version, &forged, "d-1")), payload(&minted(version, &claims(), "d-1")));
            }
            assert!(!version.clashes(&claims().user_data));
        }
    }

    #[test]
    fn tokens_that_lack_something_say_nothing() {
        for name in ["sub", "exp", "iat", "sessionHandle", "refreshTokenHash1", "tId", "rsub"] {
            let mut payload = flat(Version::V5, &claims());
            payload.remove(name);
            assert_eq!(read_flat(Version::V5, payload), None, "{name}");
        }
        let header = |header: Value| jwt(&header, flat(Version::V5, &claims()), sign);
        let whole = json!({ "alg": "RS256", "kid": "d-1", "typ": "JWT", "version": "5" });
        assert!(parse(&header(whole.clone())).is_some());
        let es256 = json!({ "alg": "ES256", "kid": "d-1", "typ": "JWT", "version": "5" });
        assert_eq!(parse(&header(es256)).unwrap().algorithm, Algorithm::Es256);
        for (name, value) in [
            ("alg", json!("none")),
            ("alg", json!("HS256")),
            ("version", json!("6")),
            ("version", json!("2")),
            ("kid", json!(1)),
        ] {
            let mut other = whole.clone();
            other[name] = value;
            assert!(parse(&header(other)).is_none(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_taken_apart_or_refused(text in "[A-Za-z0-9+/=._-]{0,80}", head in 0..3_usize) {
            let head = [header(Version::V1), header(Version::V2), String::new()][head].clone();
            for token in [text.clone(), format!("{head}.{text}")] {
                let _ = parse(&token).and_then(|parsed| parsed.claims());
            }
        }
    }
}
