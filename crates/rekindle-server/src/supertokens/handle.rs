//! Session handles and refresh tokens: ours, with the tenant behind them where it is not `public`.
//!
//! What they say of the tenant is a hint for where to look; the engine refuses a session of another scope. A client that keeps its
//! refresh token itself can put a [`Step`] behind it, and so have the protocol's rules for committed clients: SDKs hand the text on as it is.

use std::{fmt, str::FromStr};

use rekindle::{
    refresh::{Commitment, Opening, Presented, Proof},
    session::{Env, Session, SessionId},
};

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

/// A refresh token as it was sent: `<ours>[.<tenant>][~<commitment>[~<opening>[~newest]]]`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SentToken<'a> {
    /// Our refresh token.
    pub(super) ours: &'a str,
    /// Where its session should be.
    pub(super) tenant: Env,
    /// What its client proves.
    pub(super) step: Option<Step>,
}

/// What a client proves of the very token that it sends: the values of a [`Proof`], which says the rest.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Step {
    commitment: Commitment,
    opening: Option<Opening>,
    newest: bool,
}

impl Step {
    /// The proof, for the token that it came with.
    pub(super) fn proof(self, token: &Presented) -> Proof {
        let Self { commitment, opening, newest } = self;
        Proof { session_id: token.session, generation: token.position.generation, commitment, opening, newest }
    }
}

impl<'a> SentToken<'a> {
    /// Takes a text apart, if it has that shape.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split('~');
        let token = parts.next()?;
        let step = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (None, ..) => None,
            (Some(commitment), opening, newest, None) if matches!(newest, None | Some("newest")) => Some(Step {
                commitment: Commitment::parse(commitment).ok()?,
                opening: opening.map(Opening::parse).transpose().ok()?,
                newest: newest.is_some(),
            }),
            _ => return None,
        };
        let (ours, tenant) = match token.split_once('.') {
            None => (token, path::public()),
            Some((ours, tenant)) => (ours, tenant.parse().ok()?),
        };
        Some(Self { ours, tenant, step })
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
            let _ = SentToken::parse(&text);
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
        let sent = |ours, tenant: &str| SentToken { ours, tenant: tenant.parse().unwrap(), step: None };
        assert_eq!(SentToken::parse(&token), Some(sent("rkr_x", "t1")));
        assert_eq!(SentToken::parse(&refresh_token("rkr_x", &path::public())), Some(sent("rkr_x", "public")));
        assert_eq!(SentToken::parse("rkr_x.Nope"), None);
    }

    #[test]
    fn a_client_that_keeps_its_token_can_prove_it() {
        let opening = Opening::from_bytes(&[7; 32]).unwrap();
        let (text, commitment) = (opening.expose(), opening.commitment());
        let step = |text: &str| SentToken::parse(text).and_then(|sent| sent.step);
        let first = Step { commitment, opening: None, newest: false };
        assert_eq!(step(&format!("rkr_x~{commitment}")), Some(first));
        let later = format!("rkr_x.t1~{commitment}~{}", *text);
        assert_eq!(step(&later), Some(Step { commitment, opening: Some(opening.clone()), newest: false }));
        assert_eq!(step(&format!("{later}~newest")), Some(Step { commitment, opening: Some(opening), newest: true }));
        let none = "A".repeat(22);
        for wrong in ["~".into(), format!("~{none}"), format!("~{commitment}~"), format!("~{commitment}~short")] {
            assert_eq!(SentToken::parse(&format!("rkr_x{wrong}")), None, "{wrong}");
        }
        for wrong in ["~", "~old", "~newest~"] {
            assert_eq!(SentToken::parse(&format!("{later}{wrong}")), None, "{wrong}");
        }
    }
}
