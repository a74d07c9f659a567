//! What an app is configured with: the server's defaults, and over them the app's own `coreConfig`.

use rekindle::{
    clock::Seconds,
    definition::{Definition, Lifetime},
    store::ApiKey,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::lineage::{hex, unhex};
use crate::config::{SuperTokens, TokenAlgorithm};

/// The settings in force for one app.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    /// How long an access token lives.
    pub(super) access_token_validity: Seconds,
    /// A session ends when it is not refreshed for so long.
    pub(super) refresh_token_validity: Seconds,
    /// A session ends after so long in any case.
    pub(super) session_lifetime: Seconds,
    /// Whether clients up to CDI 2.20 have each access token looked up.
    pub(super) access_token_blacklisting: bool,
    /// Whether clients up to CDI 2.20 get tokens of keys that are replaced.
    pub(super) dynamic_signing_key: bool,
    /// How keys that are replaced sign access tokens that are JWTs.
    pub(super) algorithm: TokenAlgorithm,
    /// For how long clients from CDI 5.6 on may repeat a refresh whose answer was lost.
    pub(super) grace_period: Seconds,
    /// The hashes of the keys of which a caller must have one.
    pub(super) api_keys: Vec<[u8; 32]>,
}

/// The keys of `coreConfig` that an app can set.
const APP_KEYS: [&str; 7] = [
    "access_token_validity",
    "refresh_token_validity",
    "access_token_blacklisting",
    "access_token_signing_key_dynamic",
    "access_token_algorithm",
    "refresh_token_rotation_grace_period",
    API_KEYS,
];

const API_KEYS: &str = "api_keys";

/// The members of a definition's metadata.
const CORE_CONFIG: &str = "core_config";

impl Settings {
    /// Those of an app whose definition has this metadata.
    pub(super) fn of(server: &SuperTokens, metadata: &Map<String, Value>) -> Self {
        let mut settings = Self {
            access_token_validity: Seconds(server.access_token_validity.as_secs()),
            refresh_token_validity: Seconds(server.refresh_token_validity.as_secs()),
            session_lifetime: Seconds(server.session_lifetime.as_secs()),
            access_token_blacklisting: server.access_token_blacklisting,
            dynamic_signing_key: server.access_token_signing_key_dynamic,
            algorithm: server.access_token_algorithm,
            grace_period: Seconds(server.refresh_token_rotation_grace_period.as_secs()),
            api_keys: server.api_keys.iter().map(|key| ApiKey::hash_of(key.expose())).collect(),
        };
        for (name, value) in metadata.get(CORE_CONFIG).and_then(Value::as_object).into_iter().flatten() {
            // What was accepted once is ignored if this version would not accept it.
            let _ = settings.set(name, value);
        }
        settings
    }

    /// The metadata of an app after `changes` to its `coreConfig`, if they make sense; null takes a key back.
    ///
    /// Numbers and truth values may be texts. Keys of callers are kept as their hashes.
    pub(super) fn changed(
        server: &SuperTokens,
        metadata: &Map<String, Value>,
        changes: &Map<String, Value>,
    ) -> Result<Map<String, Value>, String> {
        let mut metadata = metadata.clone();
        let config = metadata.entry(CORE_CONFIG).or_insert_with(|| Map::new().into());
        let Value::Object(config) = config else { return Err("Invalid core config: it was damaged".into()) };
        for (name, value) in changes {
            let invalid = |problem: String| format!("Invalid core config: {problem}");
            match value {
                Value::Null if APP_KEYS.contains(&name.as_str()) => drop(config.remove(name)),
                Value::String(keys) if name == API_KEYS => {
                    let hashes = api_keys(keys).map_err(invalid)?.into_iter().map(|key| hex(&ApiKey::hash_of(key)));
                    config.insert(name.clone(), hashes.collect::<Vec<_>>().into());
                }
                _ => {
                    Self::of(server, &Map::new()).set(name, value).map_err(invalid)?;
                    config.insert(name.clone(), value.clone());
                }
            }
        }
        let settings = Self::of(server, &metadata);
        if settings.refresh_token_validity <= settings.access_token_validity {
            return Err(
                "Invalid core config: 'refresh_token_validity' must be strictly greater than 'access_token_validity'."
                    .into(),
            );
        }
        Ok(metadata)
    }

    /// What of an app's `coreConfig` can be shown.
    pub(super) fn shown(metadata: &Map<String, Value>) -> Map<String, Value> {
        let mut config = metadata.get(CORE_CONFIG).and_then(Value::as_object).cloned().unwrap_or_default();
        config.remove(API_KEYS);
        config
    }

    /// The part of a definition that these settings are about, as a merge patch.
    pub(super) fn lifetimes(&self) -> Value {
        let absolute = self.session_lifetime.max(self.refresh_token_validity);
        json!({
            "access_token": { "lifetime": self.access_token_validity.0 },
            "refresh": { "idle_timeout": self.refresh_token_validity.0, "absolute_lifetime": absolute.0 },
        })
    }

    /// Whether a definition has these lifetimes.
    pub(super) fn fit(&self, definition: &Definition) -> bool {
        let (access, refresh) = (&definition.access_token, &definition.refresh);
        let absolute = self.session_lifetime.max(self.refresh_token_validity);
        (access.lifetime.seconds(), refresh.idle_timeout.seconds(), refresh.absolute_lifetime.seconds())
            == (self.access_token_validity, self.refresh_token_validity, absolute)
    }

    fn set(&mut self, name: &str, value: &Value) -> Result<(), String> {
        match name {
            "access_token_validity" => {
                let most = Definition::MAX_ACCESS_LIFETIME.seconds();
                self.access_token_validity = span(name, value, 1.0, Seconds(1), most)?;
            }
            "refresh_token_validity" => {
                self.refresh_token_validity = span(name, value, 60.0, Seconds(1), Lifetime::MAX.seconds())?;
            }
            "refresh_token_rotation_grace_period" => {
                self.grace_period = span(name, value, 1.0, Seconds(0), Seconds(300))?;
            }
            "access_token_blacklisting" => self.access_token_blacklisting = flag(name, value)?,
            "access_token_signing_key_dynamic" => self.dynamic_signing_key = flag(name, value)?,
            "access_token_algorithm" => {
                let algorithm = TokenAlgorithm::deserialize(value);
                self.algorithm = algorithm.map_err(|_| format!("'{name}' must be RS256 or ES256"))?;
            }
            API_KEYS => {
                let hashes =
                    value.as_array().and_then(|hashes| hashes.iter().map(|hash| unhex(hash.as_str()?)).collect());
                self.api_keys = hashes.ok_or_else(|| format!("'{name}' must be of type string"))?;
            }
            _ => return Err(format!("Invalid config key: {name}")),
        }
        Ok(())
    }
}

/// A time in `unit` seconds, rounded up to whole ones.
fn span(name: &str, value: &Value, unit: f64, least: Seconds, most: Seconds) -> Result<Seconds, String> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    let number = number.filter(|n: &f64| n.is_finite()).ok_or_else(|| format!("'{name}' must be a number"))?;
    // Rounded up, but for what floating point adds to a whole number.
    let seconds = Seconds((number * unit - 1e-6).ceil().max(0.0) as u64);
    if number < 0.0 || seconds < least || seconds > most {
        return Err(format!("'{name}' must be from {} to {}", least.0 as f64 / unit, most.0 as f64 / unit));
    }
    Ok(seconds)
}

fn flag(name: &str, value: &Value) -> Result<bool, String> {
    match value {
        Value::Bool(flag) => Ok(*flag),
        Value::String(text) if text.eq_ignore_ascii_case("true") => Ok(true),
        Value::String(text) if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err(format!("'{name}' must be true or false")),
    }
}

/// The keys in a comma-separated list.
pub(crate) fn api_keys(list: &str) -> Result<Vec<&str>, String> {
    let keys: Vec<&str> = list.split(',').map(str::trim).filter(|key| !key.is_empty()).collect();
    let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'=' || b == b'-';
    if keys.iter().any(|key| key.len() < 20) {
        return Err("One of the API keys is too short. Please use at least 20 characters".into());
    }
    if !keys.iter().all(|key| key.bytes().all(valid)) {
        return Err(
            "Invalid characters in API key. Please only use '=', '-' and alpha-numeric (including capitals)".into()
        );
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(changes: Value) -> Result<Settings, String> {
        let server = SuperTokens::default();
        let metadata = Settings::changed(&server, &Map::new(), changes.as_object().unwrap())?;
        assert!(!Value::Object(metadata.clone()).to_string().contains("secret-key"), "only hashes are kept");
        Ok(Settings::of(&server, &metadata))
    }

    #[test]
    fn an_app_may_say_numbers_as_texts() {
        let settings = changed(json!({
            "access_token_validity": "2", "refresh_token_validity": "0.1", "access_token_blacklisting": "true",
            "access_token_signing_key_dynamic": false, "access_token_algorithm": "ES256", "api_keys": "secret-key-of-twenty-characters, another-secret-key-of-twenty",
        }))
        .unwrap();
        assert_eq!((settings.access_token_validity, settings.refresh_token_validity), (Seconds(2), Seconds(6)));
        assert!(settings.access_token_blacklisting && !settings.dynamic_signing_key);
        assert_eq!(settings.algorithm, TokenAlgorithm::Es256);
        assert_eq!(settings.api_keys[1], ApiKey::hash_of("another-secret-key-of-twenty"));
        assert_eq!(changed(json!({ "refresh_token_validity": 144000 })).unwrap(), changed(json!({})).unwrap());
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (changes, said) in [
            (json!({ "access_token_validit": 1 }), "Invalid config key: access_token_validit"),
            (json!({ "access_token_validity": "soon" }), "'access_token_validity' must be a number"),
            (json!({ "access_token_validity": 0 }), "'access_token_validity' must be from 1 to 604800"),
            (json!({ "access_token_validity": 604_801 }), "'access_token_validity' must be from 1 to 604800"),
            (json!({ "access_token_validity": "1e400" }), "'access_token_validity' must be a number"),
            (json!({ "access_token_algorithm": "HS256" }), "'access_token_algorithm' must be RS256 or ES256"),
            (json!({ "access_token_blacklisting": 1 }), "'access_token_blacklisting' must be true or false"),
            (json!({ "api_keys": "short" }), "One of the API keys is too short. Please use at least 20 characters"),
            (
                json!({ "refresh_token_validity": 1 }),
                "'refresh_token_validity' must be strictly greater than 'access_token_validity'.",
            ),
        ] {
            assert_eq!(changed(changes).unwrap_err(), format!("Invalid core config: {said}"));
        }
        assert!(changed(json!({ "api_keys": "with_an_underscore_in_the_middle" })).is_err());
    }
}
