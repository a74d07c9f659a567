//! What an application decides once about its sessions on the web.

use rekindle::clock::Seconds;

use super::CsrfKey;

/// Where a browser keeps the refresh cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Cookies {
    /// Every request of the site carries it, so that a page can be rendered with a session whose access token has expired (`mint`).
    #[default]
    Ssr,
    /// Only requests below `{base}/session` carry it: for applications whose pages are scripts.
    Spa,
}

/// Which of another site's requests carry the cookies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SameSite {
    /// A followed link does, a form or a script does not.
    #[default]
    Lax,
    /// None does, not even a followed link.
    Strict,
    /// Those of a page that embeds this one, in a jar of their own for each such page (`Partitioned`).
    None,
}

/// What an application decides once. The defaults are safe; a development server on `http://localhost` sets
/// [`Settings::development`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// Under which path the routes are, like `/auth`.
    pub base: String,
    /// Where the refresh cookie is sent.
    pub cookies: Cookies,
    /// Which of another site's requests carry the cookies.
    pub same_site: SameSite,
    /// Goes before the cookies' names, so that two applications can share a host: `shop` makes `__Host-shop-rekindle-access`.
    pub prefix: String,
    /// A browser reaches this server as `http://localhost`: there, and only there, cookies go without `Secure` and name prefix.
    pub development: bool,
    /// Other origins whose scripts may use the session, like `https://app.shop.example`.
    pub origins: Vec<String>,
    /// The path of the page on which a user signs in.
    pub sign_in: String,
    /// How long ago a user may have signed in to end other sessions.
    pub fresh_for: Seconds,
    /// Whether the end of a session is answered with the status 440 instead of 401.
    pub ended_as_440: bool,
    /// Asks unsafe requests with cookies for the header `anti-csrf`, too.
    pub csrf_token: Option<CsrfKey>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            base: "/auth".into(),
            cookies: Cookies::default(),
            same_site: SameSite::default(),
            prefix: String::new(),
            development: false,
            origins: Vec::new(),
            sign_in: "/login".into(),
            fresh_for: Seconds(15 * 60),
            ended_as_440: false,
            csrf_token: None,
        }
    }
}

/// Why settings were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSettings {
    /// A path that is none, or that would need quoting in a cookie or a page.
    #[error(
        "`{field}` is `{given}`: give a path of letters, digits and `-._~/` that starts with one `/` and does not end with `/`"
    )]
    Path {
        /// Of which setting.
        field: &'static str,
        /// What was given.
        given: String,
    },
    /// A prefix that cannot stand in a cookie's name.
    #[error("`prefix` is `{0}`: give at most 32 letters, digits and `-`")]
    Prefix(String),
    /// Not an origin.
    #[error(
        "`origins` has `{0}`: give `https://`, a host in lower case, and a port if it is not 443 (in development `http://` too)"
    )]
    Origin(String),
}

/// Valid [`Settings`], and the names that follow from them.
#[derive(Debug, Clone)]
pub struct Web {
    pub(super) settings: Settings,
    pub(super) secure: Names,
    pub(super) plain: Names,
}

/// The names of the cookies.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) access: String,
    pub(super) refresh: String,
    pub(super) marker: String,
}

impl Web {
    /// Checks the settings.
    pub fn new(settings: Settings) -> Result<Self, InvalidSettings> {
        check_path("base", &settings.base)?;
        check_path("sign_in", &settings.sign_in)?;
        let named = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if settings.prefix.len() > 32 || !settings.prefix.bytes().all(named) {
            return Err(InvalidSettings::Prefix(settings.prefix));
        }
        if let Some(bad) = settings.origins.iter().find(|origin| !is_origin(origin, settings.development)) {
            return Err(InvalidSettings::Origin(bad.clone()));
        }
        let own = match settings.prefix.as_str() {
            "" => String::new(),
            prefix => format!("{prefix}-"),
        };
        let names = |host: &str, refresh: &str| Names {
            access: format!("{host}{own}rekindle-access"),
            refresh: format!("{refresh}{own}rekindle-refresh"),
            marker: format!("{host}{own}rekindle-session"),
        };
        let refresh = match settings.cookies {
            Cookies::Ssr => "__Host-",
            Cookies::Spa => "__Secure-",
        };
        Ok(Self { secure: names("__Host-", refresh), plain: names("", ""), settings })
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

fn check_path(field: &'static str, path: &str) -> Result<(), InvalidSettings> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~/".contains(&b);
    let good = path.starts_with('/')
        && path.bytes().all(allowed)
        && path.len() <= 256
        && ((path == "/" && field == "sign_in") || !path.ends_with('/'))
        && !path.contains("//");
    if good { Ok(()) } else { Err(InvalidSettings::Path { field, given: path.chars().take(80).collect() }) }
}

fn is_origin(text: &str, development: bool) -> bool {
    let rest = match text.split_once("://") {
        Some(("https", rest)) => rest,
        Some(("http", rest)) if development => rest,
        _ => return false,
    };
    let (host, port) = match rest.rsplit_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (rest, None),
    };
    let in_host = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'.' || b == b'-';
    !host.is_empty() && host.bytes().all(in_host) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|p| p > 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn with(change: impl FnOnce(&mut Settings)) -> Result<Web, InvalidSettings> {
        let mut settings = Settings::default();
        change(&mut settings);
        Web::new(settings)
    }

    #[test]
    fn the_names_of_cookies_follow_from_the_mode_and_the_prefix() {
        let ssr = with(|s| s.prefix = "shop".into()).unwrap();
        assert_eq!(ssr.secure.access, "__Host-shop-rekindle-access");
        assert_eq!(ssr.secure.refresh, "__Host-shop-rekindle-refresh");
        assert_eq!(ssr.plain.marker, "shop-rekindle-session");
        let spa = with(|s| s.cookies = Cookies::Spa).unwrap();
        assert_eq!(spa.secure.refresh, "__Secure-rekindle-refresh");
        assert_eq!(spa.secure.marker, "__Host-rekindle-session");
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_name() {
        for path in ["", "auth", "/auth/", "//evil.example", "/a b", "/a;Domain=x", "/\"", "/a//b", "/"] {
            assert!(
                matches!(with(|s| s.base = path.into()), Err(InvalidSettings::Path { field: "base", .. })),
                "{path}"
            );
        }
        assert!(with(|s| s.sign_in = "/".into()).is_ok());
        for prefix in ["a b", "é", "=", &"a".repeat(33)] {
            assert!(with(|s| s.prefix = (*prefix).into()).is_err(), "{prefix}");
        }
        for origin in ["https://a.example/", "http://a.example", "https://", "https://A.example", "null", "https://a:0"]
        {
            assert!(with(|s| s.origins = vec![origin.into()]).is_err(), "{origin}");
        }
        assert!(with(|s| s.origins = vec!["https://app.shop.example:8443".into()]).is_ok());
        assert!(
            with(|s| {
                s.development = true;
                s.origins = vec!["http://localhost:5173".into()];
            })
            .is_ok()
        );
    }

    proptest! {
        #[test]
        fn any_settings_are_read_or_refused(base in ".{0,20}", prefix in ".{0,40}", origin in ".{0,40}") {
            let accepted = with(|s| {
                s.base = base.clone();
                s.prefix = prefix.clone();
                s.origins = vec![origin.clone()];
            }).is_ok();
            let plain = |text: &str| !text.contains([';', '"', '<', '\'', '\r', '\n', ' ', '=']);
            prop_assert!(!accepted || (plain(&base) && plain(&prefix) && plain(&origin)));
        }
    }
}
