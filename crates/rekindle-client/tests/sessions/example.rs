//! The example, run as its first line says, by its built program.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use reqwest::Method;

use crate::browser::Browser;

struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_example_signs_in_refreshes_and_signs_out() {
    // Cargo builds examples beside the tests.
    let folder: PathBuf = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("examples");
    let mut child = Command::new(folder.join("axum"))
        .env_clear()
        .envs([("PORT", "0"), ("DEFINITION", r#"{"access_token":{"lifetime":1}}"#)])
        .stdout(Stdio::piped())
        .spawn()
        .expect("`cargo test` builds the example");
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let _example = Example(child);
    let port = line.trim().rsplit_once(':').expect("it says where it listens").1.parse().unwrap();

    let mut browser = Browser::new(port);
    let form = ("content-type", "application/x-www-form-urlencoded");
    let login = browser.ask(Method::POST, "/login").header(form.0, form.1).body("user=Ada+%3C3");
    let signed_in = browser.send(login).await;
    assert_eq!((signed_in.status.as_u16(), signed_in.header("location")), (303, Some("/")));
    assert!(browser.get("/").await.text.contains("Signed in as Ada &lt;3."));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    browser.get("/api/me").await.refused("access_token_expired");
    assert!(browser.visit("/page").await.text.contains("/auth/session/refresh.js"));
    browser.visit("/rendered").await;
    browser.refresh().await.with(200);
    assert_eq!(browser.get("/api/me").await.with(200)["generation"], 1);
    assert_eq!(browser.post("/logout").await.status, 303);
    assert!(browser.cookies().is_empty());
}
