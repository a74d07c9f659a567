//! Pages: what a browser gets that asks for one.

use crate::browser::Browser;
use crate::site::Site;

#[tokio::test]
async fn a_page_with_an_expired_token_is_answered_with_the_page_that_refreshes() {
    let site = Site::new().await;
    let mut browser = Browser::new(site.port);
    browser.log_in("ada").await;
    assert_eq!(browser.visit("/me").await.status, 200);
    site.advance(3600);
    let page = browser.visit("/me").await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (401, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().starts_with("default-src 'none'; script-src 'self';"));
    let source = page.text.split("src=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let script = browser.get(source).await;
    assert_eq!((script.status.as_u16(), script.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
    browser.refresh().await.with(200);
    assert_eq!(browser.visit("/me").await.status, 200);
    browser.sign_out().await;
    browser.visit("/me").await.refused("token_malformed");
}

#[tokio::test]
async fn a_page_that_is_rendered_here_mints_and_sets_no_cookie() {
    let site = Site::new().await;
    let mut browser = Browser::new(site.port);
    browser.log_in("ada").await;
    site.advance(3600);
    for _ in 0..3 {
        let page = browser.visit("/rendered").await;
        assert!(page.cookies().is_empty());
        assert_eq!(page.with(200)["generation"], 0);
    }
    browser.post("/rendered").await.refused("access_token_expired");
    assert_eq!(browser.refresh().await.with(200)["generation"], 1);
}
