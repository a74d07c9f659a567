//! Session handles and refresh tokens: ours, with the tenant behind them where it is not `public`.
//!
//! What they say of the tenant is a hint for where to look; the engine refuses a session of another scope.

use std::{fmt, str::FromStr};

use rekindle::session::{Env, Session, SessionId};

use super::path;

/// A session's handle: `<uuid>` or `<uuid>_<tenant>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handle {
    /// The session.
    pub(super) id: SessionId,
    /// Its tenant.
    pub(super) tenant: Env,
}

impl Handle {
    /// Of a session.
    pub(super) fn of(session: &Session) -> Self {
        Self { id: session.id, tenant: session.scope.env.clone() }
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.id)?;
        suffix(&self.tenant).map_or(Ok(()), |tenant| write!(f, "_{tenant}"))
    }
}

impl FromStr for Handle {
    type Err = ();
    fn from_str(s: &str) -> Result<Self, ()> {
        let (id, tenant) = s.split_once('_').map_or((s, None), |(id, tenant)| (id, Some(tenant)));
        let tenant = tenant.map_or_else(|| Ok(path::public()), |tenant| tenant.parse().map_err(drop))?;
        let handle = Self { id: id.parse().map_err(drop)?, tenant };
        // One spelling each: what was not handed out is not known.
        if handle.to_string() == s { Ok(handle) } else { Err(()) }
    }
}

/// A refresh token's text for a session of `tenant`.
pub(super) fn refresh_token(ours: &str, tenant: &Env) -> String {
    suffix(tenant).map_or_else(|| ours.to_owned(), |tenant| format!("{ours}.{tenant}"))
}

/// Our refresh token, and where its session should be.
pub(super) fn split_refresh_token(text: &str) -> Option<(&str, Env)> {
    match text.split_once('.') {
        None => Some((text, path::public())),
        Some((ours, tenant)) => Some((ours, tenant.parse().ok()?)),
    }
}

fn suffix(tenant: &Env) -> Option<&Env> {
    (*tenant != path::public()).then_some(tenant)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn handles_read_back(id in any::<[u8; 16]>(), tenant in "[a-z0-9][a-z0-9-]{0,31}") {
            let handle = Handle { id: SessionId::from_bytes(id), tenant: tenant.parse().unwrap() };
            prop_assert_eq!(handle.to_string().parse(), Ok(handle));
        }

        #[test]
        fn any_text_is_a_handle_or_none(text in ".{0,60}") {
            prop_assert!(text.parse::<Handle>().map_or(true, |handle| handle.to_string() == text));
            let _ = split_refresh_token(&text);
        }
    }

    #[test]
    fn the_tenant_public_is_not_spelt_out() {
        const ID: &str = "0193f0a0-0000-7000-8000-000000000001";
        let handle: Handle = ID.parse().unwrap();
        assert_eq!((handle.tenant.as_str(), handle.to_string().as_str()), ("public", ID));
        let spellings =
            [format!("{ID}_public"), ID.to_uppercase(), ID.replace('-', ""), format!("{ID}_"), String::new()];
        for other in spellings {
            assert_eq!(other.parse::<Handle>(), Err(()), "{other}");
        }
        let token = refresh_token("rkr_x", &"t1".parse().unwrap());
        assert_eq!(split_refresh_token(&token), Some(("rkr_x", "t1".parse().unwrap())));
        assert_eq!(refresh_token("rkr_x", &path::public()), "rkr_x");
        assert_eq!(split_refresh_token("rkr_x.Nope"), None);
    }
}
