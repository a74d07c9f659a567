//! The application with the engine in its process: what a browser or an app sees.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use rekindle::{
    refresh::{Commitment, Opening},
    rng::SystemRng,
};
use reqwest::Method;
use serde_json::json;

use crate::browser::{Browser, lost};
use crate::site::Site;

const ALL: [&str; 3] = ["rekindle-access", "rekindle-refresh", "rekindle-session"];

/// As long as the default definition's access tokens live, and a bit.
const EXPIRED: u64 = 3600;

fn bytes(raw: &[u8]) -> String {
    format!(":{}:", BASE64_STANDARD.encode(raw))
}

fn proof(browser: &Browser, next: &Opening, opening: Option<&Opening>) -> String {
    let marker = browser.cookie("rekindle-session").to_owned();
    let mut parts = marker.split('.');
    let (sid, generation) = (parts.next().unwrap(), parts.next().unwrap());
    let mut text = format!("sid=\"{sid}\", gen={generation}, c={}", bytes(&next.commitment().to_bytes()));
    if let Some(opening) = opening {
        let raw = base64::prelude::BASE64_URL_SAFE_NO_PAD.decode(&*opening.expose()).unwrap();
        text += &format!(", o={}", bytes(&raw));
    }
    text
}

#[tokio::test]
async fn a_user_signs_in_comes_back_after_the_access_token_expired_and_signs_out() {
    let site = Site::new().await;
    let mut browser = Browser::new(site.port);
    browser.get("/me").await.refused("token_malformed");
    let signed_in = browser.log_in("ada").await;
    assert_eq!(signed_in.header("cache-control"), Some("no-store"));
    signed_in.with(204);
    assert_eq!(browser.cookies(), ALL);
    let me = browser.get("/me").await;
    assert_eq!(me.header("cache-control"), Some("private, no-store"));
    assert_eq!(me.with(200)["user"], "ada");

    site.advance(EXPIRED);
    browser.get("/me").await.refused("access_token_expired");
    assert_eq!(browser.get("/maybe").await.with(200), json!(null));
    assert_eq!(browser.cookies(), ALL, "an expired access token takes nothing away");
    let refreshed = browser.refresh().await;
    assert!(refreshed.header("rekindle-session").is_some());
    let refreshed = refreshed.with(200);
    assert_eq!((&refreshed["generation"], &refreshed["commitment"]), (&json!(1), &json!(null)));
    assert!(!refreshed.to_string().contains("rkr_"));
    assert_eq!(browser.get("/maybe").await.with(200)["generation"], 1);

    let before = browser.clone();
    browser.sign_out().await.with(204);
    assert!(browser.cookies().is_empty());
    let mut kept = before;
    let refused = kept.get("/me").await;
    assert_eq!(refused.cookies().len(), 3);
    refused.refused("session_revoked");
    assert!(kept.cookies().is_empty(), "its session is over");
}

#[tokio::test]
async fn a_lost_answer_to_a_refresh_costs_nothing() {
    let site = Site::new().await;
    let mut browser = Browser::new(site.port);
    browser.log_in("ada").await;
    for _ in 0..3 {
        let request = browser.ask(Method::POST, "/auth/session/refresh").header("rekindle-request", "1");
        assert_eq!(lost(request).await.with(200)["generation"], 1);
    }
    assert_eq!(browser.refresh().await.with(200)["generation"], 1);
    assert_eq!(browser.refresh().await.with(200)["generation"], 2);
}

#[tokio::test]
async fn a_committed_browser_refreshes_with_its_openings_and_a_thief_of_its_cookies_does_not() {
    let site = Site::new().await;
    let mut browser = Browser::new(site.port);
    let openings: Vec<Opening> = (0..3).map(|_| Opening::draw(&SystemRng::default())).collect();
    let first = format!("c={}", bytes(&openings[0].commitment().to_bytes()));
    let login = browser.ask(Method::POST, "/login").header("rekindle-proof", first).body("ada");
    browser.send(login).await.with(204);
    let commitment = browser.cookie("rekindle-session").split('.').nth(2).unwrap().to_owned();
    assert_eq!(Commitment::parse(&commitment), Ok(openings[0].commitment()));

    let mut thief = browser.clone();
    let refused = thief.refresh().await;
    assert!(refused.cookies().is_empty());
    let refused = refused.refused("proof_required");
    assert_eq!((&refused["generation"], &refused["commitment"]), (&json!(0), &json!(commitment)));

    let step = proof(&browser, &openings[1], Some(&openings[0]));
    let again = lost(browser.ask(Method::POST, "/auth/session/refresh").header("rekindle-proof", &step)).await;
    let once = again.with(200)["commitment"].clone();
    assert_eq!(browser.refresh_with(&step).await.with(200)["commitment"], once);

    let wrong = proof(&browser, &openings[2], Some(&openings[0]));
    let theft = thief.send(browser.ask(Method::POST, "/auth/session/refresh").header("rekindle-proof", wrong)).await;
    let theft = theft.refused("token_theft_detected");
    assert_eq!(theft["kind"], "stolen_token");
    assert!(theft.get("user_id").is_none(), "a thief does not learn whom it robbed");
    let step = proof(&browser, &openings[2], Some(&openings[1]));
    browser.refresh_with(&step).await.refused("session_revoked");
    assert!(browser.cookies().is_empty());
}

#[tokio::test]
async fn another_site_s_page_can_do_nothing() {
    let site = Site::new().await;
    let mut browser = Browser::new(site.port);
    let foreign = |browser: &Browser, path: &str| {
        browser.bare(Method::POST, path).header("sec-fetch-site", "cross-site").header("origin", "https://evil.example")
    };
    lost(foreign(&browser, "/login").body("mallory")).await.refused("csrf_failed");
    browser.log_in("ada").await;
    for path in ["/me", "/logout", "/auth/session/refresh", "/auth/session/signout", "/auth/session/revoke", "/login"] {
        let refused = lost(foreign(&browser, path).header("rekindle-request", "1")).await;
        assert!(refused.cookies().is_empty());
        refused.refused("csrf_failed");
        lost(browser.bare(Method::POST, path).header("rekindle-request", "1")).await.refused("csrf_failed");
    }
    for path in ["/auth/session/refresh", "/auth/session/signout"] {
        lost(browser.ask(Method::POST, path)).await.refused("csrf_failed");
    }
    assert_eq!(browser.post("/me").await.with(200)["generation"], 0);
    // A WebSocket begins with a GET, and no browser asks before it.
    let socket =
        browser.bare(Method::GET, "/me").header("upgrade", "websocket").header("origin", "https://evil.example");
    lost(socket).await.refused("csrf_failed");
    // A link from elsewhere leads to the page as its user.
    let link = browser.bare(Method::GET, "/me").header("sec-fetch-site", "cross-site");
    lost(link).await.with(200);
}

#[tokio::test]
async fn an_app_has_its_tokens_in_headers() {
    let site = Site::new().await;
    let mut app = Browser::new(site.port);
    let login = app.bare(Method::POST, "/login").header("rekindle-mode", "header").body("ada");
    let signed_in = app.send(login).await;
    assert!(signed_in.cookies().is_empty());
    let token = |name: &str| signed_in.header(name).unwrap().to_owned();
    let (access, refresh) = (token("rekindle-access-token"), token("rekindle-refresh-token"));
    assert_eq!(token("rekindle-session").split('.').nth(1), Some("0"));
    let with = |method: Method, path: &str, token: &str| app.bare(method, path).bearer_auth(token);
    assert_eq!(lost(with(Method::POST, "/me", &access)).await.with(200)["user"], "ada");
    lost(with(Method::GET, "/me", &refresh)).await.refused("access_token_expired");
    let refreshed = lost(with(Method::POST, "/auth/session/refresh", &refresh)).await;
    assert!(refreshed.cookies().is_empty());
    let newer = refreshed.header("rekindle-access-token").unwrap().to_owned();
    assert_eq!(lost(with(Method::GET, "/me", &newer)).await.with(200)["generation"], 1);
    lost(with(Method::POST, "/auth/session/refresh", &access)).await.refused("token_malformed");
    lost(with(Method::POST, "/auth/session/signout", &newer)).await.with(204);
    let over = lost(with(Method::GET, "/me", &newer)).await;
    assert!(over.cookies().is_empty());
    over.refused("session_revoked");
}

#[tokio::test]
async fn a_single_page_application_sends_its_refresh_token_only_to_the_session_s_routes() {
    let site = Site::with(|s| s.cookies = rekindle_client::web::Cookies::Spa).await;
    let mut browser = Browser::new(site.port);
    browser.log_in("ada").await;
    site.advance(EXPIRED);
    browser.get("/rendered").await.refused("access_token_expired");
    assert_eq!(browser.refresh().await.with(200)["generation"], 1);
    assert_eq!(browser.get("/me").await.with(200)["generation"], 1);
    browser.sign_out().await.with(204);
    assert!(browser.cookies().is_empty());
}

#[tokio::test]
async fn a_user_sees_and_ends_its_own_sessions_and_nobody_else_s() {
    let site = Site::new().await;
    let (mut phone, mut laptop, mut eve) = (Browser::new(site.port), Browser::new(site.port), Browser::new(site.port));
    for (browser, user) in [(&mut phone, "ada"), (&mut laptop, "ada"), (&mut eve, "eve")] {
        browser.log_in(user).await;
    }
    let listed = laptop.get("/auth/session/list").await.with(200);
    let ids: Vec<&str> = listed["items"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 2);
    let currents: Vec<bool> = listed["items"].as_array().unwrap().iter().map(|s| s["current"] == true).collect();
    assert_eq!(currents.iter().filter(|current| **current).count(), 1);
    let own = ids[currents.iter().position(|c| *c).unwrap()];
    let other = ids[currents.iter().position(|c| !*c).unwrap()];

    eve.post_json("/auth/session/revoke", &json!({"session_id": own})).await.refused("session_not_found");
    let revoked = laptop.post_json("/auth/session/revoke", &json!({"session_id": other})).await;
    assert_eq!(revoked.with(200), json!({"revoked": 1}));
    phone.get("/me").await.refused("session_revoked");
    phone.log_in("ada").await;
    assert_eq!(
        laptop.post_json("/auth/session/revoke", &json!({"others": true})).await.with(200),
        json!({"revoked": 1})
    );
    phone.get("/me").await.refused("session_revoked");
    assert_eq!(laptop.get("/auth/session/list").await.with(200)["items"].as_array().unwrap().len(), 1);
    laptop.post_json("/auth/session/revoke", &json!({"all": 1})).await.refused("invalid_request");

    site.advance(16 * 60);
    laptop.refresh().await.with(200);
    let stale = laptop.post_json("/auth/session/revoke", &json!({"others": true})).await;
    assert_eq!(stale.refused("reauthentication_required")["max_age"], 900);
    laptop.log_in("ada").await;
    let ended = laptop.post_json("/auth/session/revoke", &json!({"session_id": own})).await.with(200);
    assert_eq!(ended, json!({"revoked": 0}), "the sign-in had ended the session before");
    let listed = laptop.get("/auth/session/list").await.with(200);
    let own = listed["items"][0]["id"].clone();
    laptop.post_json("/auth/session/revoke", &json!({"session_id": own})).await.with(200);
    assert!(laptop.cookies().is_empty());
}

#[tokio::test]
async fn visitors_without_a_name_do_not_see_each_other() {
    let site = Site::new().await;
    let (mut one, mut two) = (Browser::new(site.port), Browser::new(site.port));
    one.log_in("").await;
    two.log_in("").await;
    let mine = one.get("/auth/session/list").await.with(200)["items"].clone();
    assert_eq!(mine.as_array().unwrap().len(), 1);
    two.post_json("/auth/session/revoke", &json!({"session_id": mine[0]["id"]})).await.refused("session_not_found");
    assert_eq!(two.post_json("/auth/session/revoke", &json!({"others": true})).await.with(200), json!({"revoked": 0}));
    one.get("/me").await.with(200);
}

#[tokio::test]
async fn a_sign_in_ends_the_session_before_it_and_an_elevation_makes_older_tokens_old() {
    let site = Site::new().await;
    let mut browser = Browser::new(site.port);
    browser.log_in("ada").await;
    let mut before = browser.clone();
    browser.log_in("ada").await;
    before.get("/me").await.refused("session_revoked");

    let mut before = browser.clone();
    browser.post("/elevate").await.with(204);
    assert_eq!(browser.get("/me").await.with(200)["acr"], "aal2");
    before.get("/me").await.refused("access_token_expired");
}

#[tokio::test]
async fn cookies_of_a_short_session_stay_short() {
    let site = Site::new().await;
    let mut browser = Browser::new(site.port);
    let login = browser.ask(Method::POST, "/login/short").body("ada");
    let signed_in = browser.send(login).await;
    assert!(signed_in.cookies().iter().all(|cookie| !cookie.contains("Max-Age")));
    let refreshed = browser.refresh().await;
    assert!(refreshed.cookies().iter().all(|cookie| !cookie.contains("Max-Age")), "{:?}", refreshed.cookies());
    assert_eq!(browser.get("/me").await.with(200)["generation"], 1);
}

#[tokio::test]
async fn claims_that_fit_no_cookie_are_refused_when_they_are_written() {
    let site = Site::new().await;
    let mut browser = Browser::new(site.port);
    let large = json!({"rights": "r".repeat(3500), "name": "Ada"});
    let refused = browser.post_json("/login/claims", &large).await;
    assert!(refused.cookies().is_empty());
    let refused = refused.refused("data_invalid");
    assert_eq!(refused["fields"][0]["field"], "/claims/rights");
    browser.post_json("/login/claims", &json!({"name": "Ada"})).await.with(204);
    let patch = |claims| browser.ask(Method::PATCH, "/me").json(claims);
    lost(patch(&large)).await.refused("data_invalid");
    assert_eq!(lost(patch(&json!({"role": "admin"}))).await.with(200), json!({"name": "Ada", "role": "admin"}));
    browser.refresh().await.with(200);
    assert_eq!(browser.get("/me").await.with(200)["claims"]["role"], "admin");
    let sessions = site.rekindle.list(Default::default()).await.unwrap().sessions;
    let active = sessions.iter().filter(|s| s.state == rekindle_client::session::State::Active).count();
    assert_eq!(active, 1, "the session whose tokens nobody got was ended");
}

#[tokio::test]
async fn the_end_of_one_session_does_not_take_another_one_s_cookies() {
    let site = Site::new().await;
    let mut browser = Browser::new(site.port);
    browser.log_in("ada").await;
    let access = browser.cookie("rekindle-access").to_owned();
    browser.sign_out().await;
    browser.log_in("eve").await;
    // A late answer puts an older cookie back.
    browser.set("rekindle-access", &access);
    let refused = browser.get("/me").await;
    assert!(refused.cookies().is_empty());
    refused.refused("session_revoked");
    browser.refresh().await.with(200);
    assert_eq!(browser.get("/me").await.with(200)["user"], "eve");
}

#[tokio::test]
async fn a_page_of_an_earlier_session_does_not_sign_the_present_one_out() {
    let site = Site::new().await;
    let mut browser = Browser::new(site.port);
    browser.log_in("ada").await;
    let earlier = proof(&browser, &Opening::draw(&SystemRng::default()), None);
    browser.log_in("eve").await;
    let request = browser.ask(Method::POST, "/auth/session/signout").header("rekindle-proof", earlier);
    browser.send(request).await.refused("superseded");
    assert_eq!(browser.get("/me").await.with(200)["user"], "eve");
}

#[tokio::test]
async fn a_broken_cookie_never_keeps_a_user_out() {
    let site = Site::new().await;
    let mut browser = Browser::new(site.port);
    for name in ALL {
        browser.set(name, "nonsense");
    }
    browser.get("/me").await.refused("token_malformed");
    assert_eq!(browser.get("/maybe").await.with(200), json!(null));
    browser.refresh().await.refused("token_malformed");
    browser.log_in("ada").await.with(204);
    browser.get("/me").await.with(200);
    browser.set("rekindle-refresh", "nonsense");
    browser.sign_out().await.with(204);
    assert!(browser.cookies().is_empty());
}

#[tokio::test]
async fn a_listed_origin_s_script_may_ask_and_another_one_may_not() {
    const APP: &str = "https://app.shop.example";
    let site = Site::with(|s| s.origins = vec![APP.into()]).await;
    let mut browser = Browser::new(site.port);
    let preflight = browser
        .bare(Method::OPTIONS, "/auth/session/refresh")
        .header("origin", APP)
        .header("access-control-request-method", "POST");
    let allowed = lost(preflight).await;
    assert_eq!((allowed.status.as_u16(), allowed.header("access-control-allow-origin")), (204, Some(APP)));
    let login = browser.bare(Method::POST, "/login").header("origin", APP).header("sec-fetch-site", "same-site");
    let signed_in = browser.send(login.body("ada")).await;
    assert_eq!(signed_in.header("access-control-allow-credentials"), Some("true"));
    let foreign = browser.bare(Method::GET, "/me").header("origin", "https://evil.example");
    assert_eq!(lost(foreign).await.header("access-control-allow-origin"), None);
}

#[tokio::test]
async fn a_token_against_csrf_is_asked_for_where_it_is_wanted() {
    let site = Site::with(|s| s.csrf_token = Some(rekindle_client::web::CsrfKey::new(&[7; 32]))).await;
    let mut browser = Browser::new(site.port);
    let signed_in = browser.log_in("ada").await;
    let token = signed_in.header("anti-csrf").unwrap().to_owned();
    browser.post("/me").await.refused("csrf_failed");
    browser.get("/me").await.with(200);
    let with = |browser: &Browser, token: &str| browser.ask(Method::POST, "/me").header("anti-csrf", token);
    lost(with(&browser, &token)).await.with(200);
    let newer = browser.refresh().await.header("anti-csrf").unwrap().to_owned();
    lost(with(&browser, &token)).await.refused("csrf_failed");
    lost(with(&browser, &newer)).await.with(200);
}

#[tokio::test]
async fn a_sensitive_route_asks_the_session_itself() {
    let site = Site::new().await;
    let mut browser = Browser::new(site.port);
    browser.log_in("ada").await;
    assert_eq!(browser.get("/online").await.with(200)["user"], "ada");
    assert_eq!(browser.get("/checked").await.with(200)["user"], "ada");
    browser.sign_out().await;
    browser.get("/online").await.refused("token_malformed");
}
