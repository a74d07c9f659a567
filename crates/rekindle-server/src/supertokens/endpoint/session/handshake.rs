//! `POST handshake`: what clients up to CDI 2.20 ask once, to verify access tokens by themselves.

use serde_json::Value;

use super::super::super::{
    Call,
    cdi::Cdi,
    reply::{Reply, object},
};
use super::ok;

pub(in super::super) async fn answer(call: &mut Call) -> Result<Reply, Reply> {
    let keys = call.keys().await?;
    let (config, settings, cdi) = (call.config(), &call.application.settings, call.cdi);
    let when = |spoken: bool, value: Value| if spoken { value } else { Value::Null };
    let (cookies, later_cookies) = (cdi < Cdi::V2_4, cdi < Cdi::V2_4 && cdi >= Cdi::V2_0);
    let anti_csrf = if cdi < Cdi::V2_6 { call.anti_csrf()?.into() } else { Value::Null };
    let access_path = || Value::from(config.access_token_path.as_str());
    Ok(ok([
        call.key_info(&keys)?,
        object([
            ("enableAntiCsrf", anti_csrf),
            ("accessTokenBlacklistingEnabled", settings.access_token_blacklisting.into()),
            ("accessTokenValidity", when(!cookies, (settings.access_token_validity.0 * 1000).into())),
            ("refreshTokenValidity", when(!cookies, (settings.refresh_token_validity.0 * 1000).into())),
            ("cookieDomain", when(cookies, call.cookie_domain().into())),
            ("cookieSecure", when(cookies, config.cookie_secure.into())),
            ("accessTokenPath", when(cookies, access_path())),
            ("refreshTokenPath", when(cookies, call.refresh_path().into())),
            ("cookieSameSite", when(later_cookies, config.cookie_same_site.as_str().into())),
            ("idRefreshTokenPath", when(later_cookies, access_path())),
            ("sessionExpiredStatusCode", when(later_cookies, config.session_expired_status_code.value().into())),
        ]),
    ]))
}
