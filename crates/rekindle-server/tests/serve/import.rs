//! A SuperTokens installation is taken over: its database is made from the documented schema, its tokens as its core made them.

use std::{
    collections::BTreeMap,
    process::Output,
    sync::atomic::{AtomicU64, Ordering},
};

use aws_lc_rs::{
    aead, digest,
    encoding::AsDer,
    pbkdf2,
    rsa::{KeyPair, KeySize},
    signature::{self, KeyPair as _},
};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine as _};
use rekindle::{
    clock::{Clock as _, SystemClock},
    rng::{Rng as _, SystemRng},
};
use rekindle_testkit::servers::{mysql::Mysql, postgres::Postgres};
use serde_json::{Map, Value, json};

use crate::process::{Dir, Server, fails, ok, run};

/// A core's database.
#[derive(Clone, Copy)]
enum Database {
    Postgres(&'static Postgres),
    Mysql(&'static Mysql),
}

/// A core that ran until a moment ago.
struct Core {
    database: Database,
    name: String,
    /// Whether it knows apps and tenants.
    apps: bool,
    keys: BTreeMap<&'static str, String>,
    dynamic: (String, KeyPair),
    fixed: (String, KeyPair),
    made: AtomicU64,
}

/// A session there, with the tokens that its client may hold.
#[derive(Clone)]
struct Login {
    app: &'static str,
    tenant: &'static str,
    handle: String,
    user: String,
}

/// What a client holds.
#[derive(Clone)]
struct Held {
    refresh: String,
    access: String,
}

const NEW: &str = "
CREATE TABLE apps (app_id VARCHAR(64) PRIMARY KEY, created_at_time BIGINT);
CREATE TABLE tenants (app_id VARCHAR(64), tenant_id VARCHAR(64), created_at_time BIGINT, PRIMARY KEY (app_id, tenant_id));
CREATE TABLE tenant_configs (connection_uri_domain VARCHAR(256), app_id VARCHAR(64), tenant_id VARCHAR(64), core_config TEXT);
CREATE TABLE key_value (app_id VARCHAR(64), tenant_id VARCHAR(64), name VARCHAR(128), value TEXT, created_at_time BIGINT);
CREATE TABLE session_access_token_signing_keys (app_id VARCHAR(64), created_at_time BIGINT, value TEXT);
CREATE TABLE jwt_signing_keys (app_id VARCHAR(64), key_id VARCHAR(255), key_string TEXT, algorithm VARCHAR(10), created_at BIGINT);
CREATE TABLE session_info (app_id VARCHAR(64), tenant_id VARCHAR(64), session_handle VARCHAR(255), user_id VARCHAR(128),
  refresh_token_hash_2 VARCHAR(128), session_data TEXT, expires_at BIGINT, created_at_time BIGINT, jwt_user_payload TEXT,
  use_static_key BOOLEAN, PRIMARY KEY (app_id, tenant_id, session_handle));";

/// Before apps and tenants, with a prefix.
const OLD: &str = "
CREATE TABLE st_key_value (name VARCHAR(128) PRIMARY KEY, value TEXT, created_at_time BIGINT);
CREATE TABLE st_session_access_token_signing_keys (created_at_time BIGINT PRIMARY KEY, value TEXT);
CREATE TABLE st_jwt_signing_keys (key_id VARCHAR(255) PRIMARY KEY, key_string TEXT, algorithm VARCHAR(10), created_at BIGINT);
CREATE TABLE st_session_info (session_handle VARCHAR(255) PRIMARY KEY, user_id VARCHAR(128), refresh_token_hash_2 VARCHAR(128),
  session_data TEXT, expires_at BIGINT, created_at_time BIGINT, jwt_user_payload TEXT);";

fn now() -> i64 {
    SystemClock.now().millis()
}

fn sha256(text: &str) -> String {
    digest::digest(&digest::SHA256, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn uuid() -> String {
    let mut bytes = [0; 16];
    SystemRng::default().fill(&mut bytes);
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-4{}-8{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..])
}

/// A key as the core keeps it: its halves in base64.
fn halves(pair: &KeyPair) -> String {
    let public: aws_lc_rs::encoding::PublicKeyX509Der<'_> = pair.public_key().as_der().unwrap();
    let private: aws_lc_rs::encoding::Pkcs8V1Der<'_> = pair.as_der().unwrap();
    format!("{};{}", BASE64_STANDARD.encode(public.as_ref()), BASE64_STANDARD.encode(private.as_ref()))
}

impl Database {
    fn new_database(self) -> String {
        match self {
            Self::Postgres(server) => server.new_database(),
            Self::Mysql(server) => server.new_database(),
        }
    }

    fn url(self, name: &str) -> String {
        match self {
            Self::Postgres(server) => server.url(name),
            Self::Mysql(server) => server.url(name),
        }
    }

    fn sql(self, name: &str, statements: &str) -> String {
        match self {
            Self::Postgres(server) => server.sql(name, statements),
            Self::Mysql(server) => server.sql(name, statements),
        }
    }
}

impl Core {
    /// Installs one.
    fn new(database: Database, apps: bool) -> Self {
        let name = database.new_database();
        let created = now() - 86_400_000;
        let pair = || KeyPair::generate(KeySize::Rsa2048).unwrap();
        let core = Self {
            database,
            name,
            apps,
            keys: BTreeMap::from([
                ("public", format!("1000:{}:{}", sha256("salt"), sha256(&uuid()))),
                ("shop", format!("1000:{}:{}", sha256("salt"), sha256(&uuid()))),
            ]),
            dynamic: (format!("d-{created}"), pair()),
            fixed: (format!("s-{}", uuid()), pair()),
            made: AtomicU64::new(0),
        };
        let (key, shop) = (&core.keys["public"], &core.keys["shop"]);
        let (dynamic, (kid, fixed)) = (halves(&core.dynamic.1), (&core.fixed.0, halves(&core.fixed.1)));
        let statements = if apps {
            format!(
                "{NEW}
                INSERT INTO apps VALUES ('public', 0), ('shop', 0);
                INSERT INTO tenants VALUES ('public', 'public', 0), ('public', 't1', 0), ('shop', 'public', 0);
                INSERT INTO tenant_configs VALUES
                  ('', 'public', 'public', '{{}}'), ('', 'public', 't1', '{{}}'),
                  ('', 'shop', 'public', '{{\"access_token_validity\":1800,\"password_hashing_alg\":\"BCRYPT\"}}');
                INSERT INTO key_value VALUES ('public', 'public', 'refresh_token_key', '{key}', 0),
                  ('shop', 'public', 'refresh_token_key', '{shop}', 0), ('public', 'public', 'TELEMETRY_ID', 'x', 0);
                INSERT INTO session_access_token_signing_keys VALUES ('public', {created}, '{dynamic}');
                INSERT INTO jwt_signing_keys VALUES ('public', '{kid}', '{fixed}', 'RS256', {created});"
            )
        } else {
            format!(
                "{OLD}
                INSERT INTO st_key_value VALUES ('refresh_token_key', '{key}', 0);
                INSERT INTO st_session_access_token_signing_keys VALUES ({created}, '{dynamic}');
                INSERT INTO st_jwt_signing_keys VALUES ('{kid}', '{fixed}', 'RS256', {created});"
            )
        };
        core.sql(&statements);
        if let Database::Postgres(_) = database {
            // The import needs no more than this.
            core.sql("GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC;");
        }
        core
    }

    fn sql(&self, statements: &str) -> String {
        self.database.sql(&self.name, statements)
    }

    fn table(&self, name: &str) -> String {
        if self.apps { name.into() } else { format!("st_{name}") }
    }

    /// A user has signed in; what the client holds then.
    fn login(&self, app: &'static str, tenant: &'static str, payload: &Value) -> (Login, Held) {
        let user = format!("user-{}", self.made.fetch_add(1, Ordering::Relaxed));
        let handle = uuid() + &(if tenant == "public" { String::new() } else { format!("_{tenant}") });
        let login = Login { app, tenant, handle, user };
        let held = self.tokens(&login, None, payload);
        let (table, hash) = (self.table("session_info"), sha256(&sha256(&held.refresh)));
        let Login { handle, user, .. } = &login;
        let (created, expires) = (now() - 3_600_000, now() + 86_400_000 * 50);
        let scope = if self.apps { format!("'{app}', '{tenant}', ") } else { String::new() };
        let is_static = if self.apps { ", FALSE" } else { "" };
        self.sql(&format!(
            "INSERT INTO {table} VALUES ({scope}'{handle}', '{user}', '{hash}', '{{\"cart\":[1,null]}}', {expires}, {created}, \
             '{payload}'{is_static});"
        ));
        (login, held)
    }

    /// The tokens of a refresh with `parent`, or of a login. The core writes nothing down until one of them is used.
    fn tokens(&self, login: &Login, parent: Option<&Held>, payload: &Value) -> Held {
        let nonce = sha256(&uuid());
        let parent_hash = parent.map(|parent| sha256(&parent.refresh));
        let csrf = format!("csrf of {}", &nonce[..8]);
        let sealed = json!({
            "sessionHandle": login.handle, "userId": login.user, "parentRefreshTokenHash1": parent_hash, "nonce": nonce,
            "antiCsrfToken": csrf, "tenantId": login.tenant,
        });
        let mut iv = [0; 12];
        SystemRng::default().fill(&mut iv);
        let mut key = [0; 32];
        let iterations = 100.try_into().unwrap();
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, iterations, &iv, self.keys[login.app].as_bytes(), &mut key);
        let mut text = sealed.to_string().into_bytes();
        let seal = aead::LessSafeKey::new(aead::UnboundKey::new(&aead::AES_256_GCM, &key).unwrap());
        seal.seal_in_place_append_tag(aead::Nonce::assume_unique_for_key(iv), aead::Aad::empty(), &mut text).unwrap();
        let refresh = format!("{}.{nonce}.V2", BASE64_STANDARD.encode([&iv[..], &text].concat()));

        let mut claims = payload.as_object().unwrap().clone();
        claims.extend(Map::from_iter([
            ("sub".into(), json!(login.user)),
            ("rsub".into(), json!(login.user)),
            ("tId".into(), json!(login.tenant)),
            ("iat".into(), json!(now() / 1000)),
            ("exp".into(), json!(now() / 1000 + 3600)),
            ("sessionHandle".into(), json!(login.handle)),
            ("refreshTokenHash1".into(), json!(sha256(&refresh))),
            ("parentRefreshTokenHash1".into(), json!(parent_hash)),
            ("antiCsrfToken".into(), json!(csrf)),
        ]));
        let access = self.sign(&claims);
        Held { refresh, access }
    }

    /// An access token of version 5; of version 2 from a core without apps.
    fn sign(&self, claims: &Map<String, Value>) -> String {
        let (kid, pair) = &self.dynamic;
        let signature = |message: &str| {
            let mut signature = vec![0; pair.public_modulus_len()];
            let hash = digest::digest(&digest::SHA256, message.as_bytes());
            pair.sign_digest(&signature::RSA_PKCS1_SHA256, &hash, &mut signature).unwrap();
            signature
        };
        if self.apps {
            let header = json!({ "alg": "RS256", "kid": kid, "typ": "JWT", "version": "5" });
            let encode = |text: String| BASE64_URL_SAFE_NO_PAD.encode(text);
            let message = format!("{}.{}", encode(header.to_string()), encode(json!(claims).to_string()));
            return format!("{message}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature(&message)));
        }
        let plain = json!({
            "userId": claims["sub"], "expiryTime": claims["exp"].as_i64().unwrap() * 1000,
            "timeCreated": claims["iat"].as_i64().unwrap() * 1000, "sessionHandle": claims["sessionHandle"],
            "refreshTokenHash1": claims["refreshTokenHash1"], "parentRefreshTokenHash1": claims["parentRefreshTokenHash1"],
            "antiCsrfToken": claims["antiCsrfToken"], "userData": { "role": claims["role"] },
        });
        let message = format!(
            "{}.{}",
            BASE64_STANDARD.encode(r#"{"alg":"RS256","typ":"JWT","version":"2"}"#),
            BASE64_STANDARD.encode(plain.to_string())
        );
        format!("{message}.{}", BASE64_STANDARD.encode(signature(&message)))
    }

    /// What the core does when a child of `parent` is used for the first time: the child is current.
    fn promote(&self, login: &Login, child: &Held) {
        let hash = sha256(&sha256(&child.refresh));
        let (table, later) = (self.table("session_info"), now() + 86_400_000 * 60);
        self.sql(&format!(
            "UPDATE {table} SET refresh_token_hash_2 = '{hash}', expires_at = {later} WHERE session_handle = '{}';",
            login.handle
        ));
    }

    /// The arguments of an import from it.
    fn import<'a>(&self, url: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let prefix: &[&str] = if self.apps { &[] } else { &["--table-prefix", "st_"] };
        [&["import", "supertokens", "--from", url], prefix, more].concat()
    }
}

/// A client of the face.
struct Sdk<'a> {
    server: &'a Server,
    cdi: &'static str,
}

impl Sdk<'_> {
    async fn post(&self, path: &str, body: Value) -> Value {
        let request =
            reqwest::Client::new().post(format!("{}{path}", self.server.base)).header("cdi-version", self.cdi);
        let answer = request.json(&body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    }

    async fn verify(&self, access: &str) -> Value {
        let body = json!({
            "accessToken": access, "doAntiCsrfCheck": false, "enableAntiCsrf": false, "checkDatabase": false,
        });
        self.post("/recipe/session/verify", body).await
    }

    async fn refresh(&self, refresh: &str) -> Value {
        let body = json!({ "refreshToken": refresh, "enableAntiCsrf": false, "useDynamicSigningKey": true });
        self.post("/recipe/session/refresh", body).await
    }
}

/// The rows of the table that an import prints.
fn counts(output: &Output) -> BTreeMap<String, u64> {
    let said = String::from_utf8_lossy(&output.stdout);
    let row =
        |line: &str| line.rsplit_once(' ').map(|(name, number)| (name.trim().to_owned(), number.parse().unwrap()));
    said.lines().filter_map(row).collect()
}

/// A directory with master secrets and a store.
fn installed() -> Dir {
    let dir = Dir::new();
    assert!(Server::start(dir.path(), &[]).stop().success());
    dir
}

fn databases() -> [Database; 2] {
    [Database::Postgres(Postgres::shared()), Database::Mysql(Mysql::shared())]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_from_before_the_move_go_on_working_and_nobody_is_logged_out() {
    for database in databases() {
        let core = Core::new(database, true);
        let role = json!({ "role": "admin", "none": null });
        // What a client can hold at the moment of the move.
        let (fresh, current) = core.login("public", "public", &role);
        let (in_tenant, in_tenant_held) = core.login("public", "t1", &role);
        let (unused, unused_parent) = core.login("public", "public", &role);
        let unused_child = core.tokens(&unused, Some(&unused_parent), &role);
        let (raced, raced_parent) = core.login("public", "public", &role);
        let raced_child = core.tokens(&raced, Some(&raced_parent), &role);
        let (used, used_parent) = core.login("public", "public", &role);
        let used_child = core.tokens(&used, Some(&used_parent), &role);
        core.promote(&used, &used_child);
        let (other_app, other_app_held) = core.login("shop", "public", &role);

        let dir = installed();
        let url = core.database.url(&core.name);
        let (dry, import) = (core.import(&url, &["--dry-run"]), core.import(&url, &[]));
        let planned = run(dir.path(), &dry);
        assert_eq!(counts(&planned)["new"], 6, "{planned:?}");
        let done = run(dir.path(), &import);
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{said}");
        assert!(said.contains("verified: every session"), "{said}");
        assert!(said.contains("ignored: app shop: password_hashing_alg"), "{said}");
        let found = counts(&done);
        assert_eq!((found["apps"], found["tenants"], found["new signing keys"], found["new"]), (2, 1, 2, 6));
        assert_eq!(counts(&run(dir.path(), &import))["as they were"], 6);

        let server = Server::start(dir.path(), &[]);
        let sdk = Sdk { server: &server, cdi: "5.4" };
        let keys: Value =
            reqwest::get(format!("{}/.well-known/jwks.json", server.base)).await.unwrap().json().await.unwrap();
        let kids: Vec<&str> = keys["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap()).collect();
        assert!(kids.contains(&core.dynamic.0.as_str()) && kids.contains(&core.fixed.0.as_str()), "{kids:?}");

        // The access token is good as it is, without a look at the session.
        let answer = sdk.verify(&current.access).await;
        assert_eq!((&answer["status"], answer.get("accessToken")), (&json!("OK"), None));
        assert_eq!(answer["session"]["handle"], json!(fresh.handle));
        assert_eq!(answer["session"]["userDataInJWT"]["role"], "admin");
        // The refresh token becomes one of ours; repeated, it gives the same one, until that is used.
        let first = sdk.refresh(&current.refresh).await;
        assert_eq!(first["session"]["handle"], json!(fresh.handle));
        assert_eq!(first["session"]["userDataInJWT"], role);
        let again = sdk.refresh(&current.refresh).await;
        assert_eq!(again["refreshToken"]["token"], first["refreshToken"]["token"]);
        let used_now = sdk.verify(first["accessToken"]["token"].as_str().unwrap()).await;
        assert_eq!(used_now["status"], "OK");
        assert!(used_now["accessToken"]["token"].is_string());
        assert_eq!(sdk.refresh(&current.refresh).await["status"], "TOKEN_THEFT_DETECTED");
        assert_eq!(sdk.refresh(first["refreshToken"]["token"].as_str().unwrap()).await["status"], "OK");

        // In a tenant, and with what was stored beside it.
        let moved = sdk.refresh(&in_tenant_held.refresh).await;
        assert_eq!(moved["session"]["tenantId"], "t1");
        let path = format!("{}/recipe/session?sessionHandle={}", server.base, in_tenant.handle);
        let shown: Value = reqwest::get(path).await.unwrap().json().await.unwrap();
        assert_eq!(shown["userDataInDatabase"], json!({ "cart": [1, null] }));

        // A child that was handed out and not used: its first use is by verifying ...
        let seen = sdk.verify(&unused_child.access).await;
        assert_eq!((&seen["status"], seen["accessToken"]["token"].is_string()), (&json!("OK"), true));
        assert_eq!(sdk.refresh(&unused_parent.refresh).await["status"], "TOKEN_THEFT_DETECTED");
        assert_eq!(sdk.refresh(&unused_child.refresh).await["status"], "OK");
        // ... or by refreshing; twice, for its answer was lost.
        let next = sdk.refresh(&raced_child.refresh).await;
        let again = sdk.refresh(&raced_child.refresh).await;
        assert_eq!(again["refreshToken"]["token"], next["refreshToken"]["token"]);
        assert_eq!(sdk.refresh(&raced_parent.refresh).await["status"], "TOKEN_THEFT_DETECTED");
        assert_eq!(sdk.refresh(next["refreshToken"]["token"].as_str().unwrap()).await["status"], "OK");

        // What had been replaced there is theft here.
        let theft = sdk.refresh(&used_parent.refresh).await;
        assert_eq!(
            (&theft["status"], &theft["session"]["handle"]),
            (&json!("TOKEN_THEFT_DETECTED"), &json!(used.handle))
        );
        assert_eq!(sdk.verify(&used_parent.access).await["status"], "OK", "until it expires, as there");
        assert_eq!(sdk.refresh(&used_child.refresh).await["status"], "OK");

        // Each app opens its own tokens alone.
        assert_eq!(sdk.refresh(&other_app_held.refresh).await["status"], "UNAUTHORISED");
        let body =
            json!({ "refreshToken": other_app_held.refresh, "enableAntiCsrf": false, "useDynamicSigningKey": true });
        let in_shop = sdk.post("/appid-shop/recipe/session/refresh", body).await;
        assert_eq!(in_shop["session"]["handle"], json!(other_app.handle));
        let lives = in_shop["accessToken"]["expiry"].as_i64().unwrap()
            - in_shop["accessToken"]["createdTime"].as_i64().unwrap();
        assert_eq!(lives, 1_800_000, "the app's own validity");

        // Forged and damaged ones are neither theft nor good.
        let mut damaged = used_child.refresh.clone();
        damaged.replace_range(40..41, if &damaged[40..41] == "A" { "B" } else { "A" });
        for bad in [damaged, "x.y.V2".into(), format!("{}.V2", "A".repeat(3000))] {
            assert_eq!(sdk.refresh(&bad).await["status"], "UNAUTHORISED");
        }
        assert!(server.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anti_csrf_tokens_from_before_the_move_hold() {
    let core = Core::new(Database::Postgres(Postgres::shared()), true);
    let (_, held) = core.login("public", "public", &json!({}));
    let claims: Value =
        serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(held.access.split('.').nth(1).unwrap()).unwrap())
            .unwrap();
    let dir = installed();
    ok(dir.path(), &core.import(&core.database.url(&core.name), &[]));
    let server = Server::start(dir.path(), &[]);
    let sdk = Sdk { server: &server, cdi: "5.4" };
    let verify = |token: Option<&str>| {
        json!({
            "accessToken": held.access, "antiCsrfToken": token, "doAntiCsrfCheck": true, "enableAntiCsrf": true,
            "checkDatabase": true,
        })
    };
    let refresh = |token: Option<&str>| {
        json!({
            "refreshToken": held.refresh, "antiCsrfToken": token, "enableAntiCsrf": true, "useDynamicSigningKey": true,
        })
    };
    let right = claims["antiCsrfToken"].as_str();
    for wrong in [None, Some("wrong")] {
        assert_eq!(sdk.post("/recipe/session/verify", verify(wrong)).await["status"], "TRY_REFRESH_TOKEN");
        assert_eq!(sdk.post("/recipe/session/refresh", refresh(wrong)).await["status"], "UNAUTHORISED");
    }
    assert_eq!(sdk.post("/recipe/session/verify", verify(right)).await["status"], "OK");
    let moved = sdk.post("/recipe/session/refresh", refresh(right)).await;
    assert!(moved["antiCsrfToken"].is_string(), "{moved}");
    assert!(server.stop().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_import_is_repeated_while_the_core_serves_and_clients_come_over() {
    for database in databases() {
        let core = Core::new(database, true);
        let (kept, kept_held) = core.login("public", "public", &json!({}));
        let (moved, moved_held) = core.login("public", "public", &json!({}));
        let (ended, ended_held) = core.login("public", "public", &json!({}));
        let dir = installed();
        let url = core.database.url(&core.name);
        let import = core.import(&url, &[]);
        ok(dir.path(), &import);
        let server = Server::start(dir.path(), &[]);
        let sdk = Sdk { server: &server, cdi: "5.4" };

        // One comes over early; meanwhile the core serves the others: one refreshes and gets another payload, one signs out.
        assert_eq!(sdk.refresh(&moved_held.refresh).await["status"], "OK");
        let child = core.tokens(&kept, Some(&kept_held), &json!({}));
        core.promote(&kept, &child);
        core.sql(&format!(
            "UPDATE session_info SET jwt_user_payload = '{{\"role\":\"editor\"}}' WHERE session_handle = '{}';
             DELETE FROM session_info WHERE session_handle = '{}';",
            kept.handle, ended.handle
        ));
        let (_, late_held) = core.login("public", "public", &json!({}));
        let again = run(dir.path(), &import);
        let found = counts(&again);
        assert_eq!(
            ["sessions", "new", "changed", "in use here", "ended in the core"].map(|row| found[row]),
            [3, 1, 1, 1, 1],
            "{again:?}"
        );
        let after = sdk.refresh(&child.refresh).await;
        assert_eq!(
            (&after["status"], &after["session"]["userDataInJWT"]),
            (&json!("OK"), &json!({ "role": "editor" }))
        );
        assert_eq!(sdk.refresh(&late_held.refresh).await["status"], "OK");
        assert_eq!(sdk.refresh(&ended_held.refresh).await["status"], "UNAUTHORISED");

        // What was ended here stays ended, though the core still has it.
        let removed = sdk.post("/recipe/session/remove", json!({ "sessionHandles": [moved.handle] })).await;
        assert_eq!(removed["sessionHandlesRevoked"], json!([moved.handle]));
        let last = counts(&run(dir.path(), &import));
        assert_eq!((last["ended here"], last["new"]), (1, 0));
        assert_eq!(sdk.refresh(&moved_held.refresh).await["status"], "UNAUTHORISED");
        assert!(server.stop().success());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_core_from_before_apps_and_tenants_is_taken_over_too() {
    for database in databases() {
        let core = Core::new(database, false);
        let (login, held) = core.login("public", "public", &json!({ "role": "admin" }));
        let dir = installed();
        ok(dir.path(), &core.import(&core.database.url(&core.name), &[]));
        let server = Server::start(dir.path(), &[]);
        let sdk = Sdk { server: &server, cdi: "2.20" };
        let body = json!({ "accessToken": held.access, "doAntiCsrfCheck": false, "enableAntiCsrf": false });
        let answer = sdk.post("/recipe/session/verify", body).await;
        assert_eq!((&answer["status"], &answer["session"]["handle"]), (&json!("OK"), &json!(login.handle)));
        let own = BASE64_STANDARD.encode(
            AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(core.dynamic.1.public_key()).unwrap().as_ref(),
        );
        assert_eq!(answer["jwtSigningPublicKey"], json!(own));
        let body = json!({ "refreshToken": held.refresh, "enableAntiCsrf": false });
        assert_eq!(sdk.post("/recipe/session/refresh", body).await["status"], "OK");
        assert!(server.stop().success());
    }
}

#[test]
fn what_cannot_be_imported_is_named() {
    let dir = installed();
    let from = |url: &str| fails(dir.path(), &["import", "supertokens", "--from", url]);
    assert!(from("mongodb://ada:s3cret@127.0.0.1/x").contains("postgres://"));
    for database in databases() {
        let name = database.new_database();
        let said = from(&database.url(&name));
        assert!(said.contains("there is no SuperTokens installation"), "{said}");
        database.sql(&name, "CREATE TABLE session_info (session_handle VARCHAR(255));");
        let said = from(&database.url(&name));
        assert!(said.contains("there is no SuperTokens installation"), "{said}");

        let core = Core::new(database, true);
        let (login, _) = core.login("public", "public", &json!({}));
        core.login("public", "public", &json!({}));
        core.sql(&format!(
            "UPDATE session_info SET jwt_user_payload = '[]' WHERE session_handle = '{}';
             INSERT INTO tenants VALUES ('public', 'a-tenant-with-a-name-of-more-than-32', 0);",
            login.handle
        ));
        let dir = installed();
        let url = core.database.url(&core.name);
        let output = run(dir.path(), &core.import(&url, &[]));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("refused: session {}", login.handle)), "{said}");
        assert!(said.contains("refused: tenant a-tenant-with-a-name-of-more-than-32"), "{said}");
        let found = counts(&output);
        assert_eq!((found["new"], found["refused"]), (1, 2));

        // Another installation in its place would end this one's sessions.
        let other = Core::new(database, true);
        other.login("public", "public", &json!({}));
        let other_url = other.database.url(&other.name);
        let said = fails(dir.path(), &other.import(&other_url, &[]));
        assert!(said.contains("was imported from another installation"), "{said}");
    }
}
