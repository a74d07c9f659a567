//! The part about the SuperTokens face. Its names are those of the configuration that SuperTokens' users have.

mod yaml;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

pub use yaml::Translated;

use super::{Network, Secret, Span, Whole};

/// The SuperTokens face: published SuperTokens SDKs find here what they expect of their core.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct SuperTokens {
    /// Whether there is one.
    pub enabled: bool,
    /// What stands before every path of it, like `/auth`.
    pub base_path: String,
    /// The keys of which a caller must send one as `api-key`, beside Rekindle's own; each of at least 20 of A-Z, a-z, 0-9, `=` and `-`.
    #[serde(deserialize_with = "core_keys")]
    pub api_keys: Vec<Secret>,
    /// From where callers need no key: addresses and networks. Outside of development everybody else needs one.
    #[schemars(with = "Vec<String>")]
    pub keyless_from: Vec<Network>,
    /// How long an access token lives.
    pub access_token_validity: Span<1, 604_800>,
    /// A session ends when it is not refreshed for so long.
    pub refresh_token_validity: Span<1, 315_360_000>,
    /// A session ends after so long, however often it was refreshed; never before its refresh token.
    pub session_lifetime: Span<1, 315_360_000>,
    /// For how long a client from CDI 5.6 on may repeat a refresh whose answer was lost.
    pub refresh_token_rotation_grace_period: Span<0, 300>,
    /// What clients from CDI 5.6 on are told when the last refresh token comes back after that time.
    pub recent_token_reuse_behaviour: RecentTokenReuse,
    /// How access tokens are signed by keys that are replaced, for clients from CDI 2.21 on.
    pub access_token_algorithm: TokenAlgorithm,
    /// Whether clients up to CDI 2.20 have each access token looked up.
    pub access_token_blacklisting: bool,
    /// Whether clients up to CDI 2.20 get access tokens of keys that are replaced.
    pub access_token_signing_key_dynamic: bool,
    /// For clients up to CDI 2.5: whether access tokens come with an anti-CSRF token. By default in 1.0, and not later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enable_anti_csrf: Option<bool>,
    /// For clients up to CDI 2.3: the domain of their cookies. By default `localhost` up to 2.1, and later the answering host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie_domain: Option<String>,
    /// For clients up to CDI 2.3: whether their cookies are for HTTPS only.
    pub cookie_secure: bool,
    /// For clients up to CDI 2.3: `none`, `lax` or `strict`.
    pub cookie_same_site: SameSite,
    /// For clients up to CDI 2.3: the path of the access token's cookie.
    pub access_token_path: String,
    /// For clients up to CDI 2.3: the path of the refresh token's cookie. By default `/refresh` in 1.0, and `/session/refresh` later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh_api_path: Option<String>,
    /// For clients up to CDI 2.3: the status that their users get when a session is over.
    pub session_expired_status_code: Whole<400, 599>,
}

impl Default for SuperTokens {
    fn default() -> Self {
        Self {
            enabled: true,
            base_path: String::new(),
            api_keys: Vec::new(),
            keyless_from: Vec::new(),
            access_token_validity: Span::secs(3600),
            refresh_token_validity: Span::secs(100 * 86_400),
            session_lifetime: Span::secs(365 * 86_400),
            refresh_token_rotation_grace_period: Span::secs(30),
            recent_token_reuse_behaviour: RecentTokenReuse::TokenTheft,
            access_token_algorithm: TokenAlgorithm::Rs256,
            access_token_blacklisting: false,
            access_token_signing_key_dynamic: true,
            enable_anti_csrf: None,
            cookie_domain: None,
            cookie_secure: true,
            cookie_same_site: SameSite::Lax,
            access_token_path: "/".into(),
            refresh_api_path: None,
            session_expired_status_code: Whole::new(401),
        }
    }
}

/// The status word for a refresh token that was replaced a moment ago.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[expect(missing_docs, reason = "the names that SuperTokens' users have")]
pub enum RecentTokenReuse {
    TokenTheft,
    Unauthorised,
}

/// A signature of access tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TokenAlgorithm {
    /// What every SDK takes.
    Rs256,
    /// A twentieth of the work. SDKs from CDI 2.21 on take it: the key set says how each key signs.
    Es256,
}

/// Keys, each of which is one that could be sent.
fn core_keys<'de, D: Deserializer<'de>>(keys: D) -> Result<Vec<Secret>, D::Error> {
    let keys = Vec::<Secret>::deserialize(keys)?;
    for key in &keys {
        match crate::supertokens::api_keys(key.expose()) {
            Ok(parts) if parts == [key.expose()] => {}
            Ok(_) => return Err(de::Error::custom("each element must be one key of at least 20 characters")),
            Err(reason) => return Err(de::Error::custom(reason)),
        }
    }
    Ok(keys)
}

/// Which requests of other sites carry a cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the cookie attribute's values")]
pub enum SameSite {
    None,
    Lax,
    Strict,
}

impl SameSite {
    /// The value of the attribute, in lower case.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lax => "lax",
            Self::Strict => "strict",
        }
    }
}
