use std::sync::Arc;

use rekindle::clock::Seconds;
use rekindle::definition::Definition;
use rekindle::keys::{Algorithm, SigningKey};
use rekindle::session::{EndReason, Scope, Session};
use rekindle::store::{
    ApiKey, Change, Changed, Environment, EnvironmentPatch, Permission, Product, ScopeRead, ScopeRecord, Store,
};

use crate::fixtures::*;

async fn change(store: &dyn Store, change: Change) -> Changed {
    store.change(change, audit("config", at(1))).await.unwrap()
}

fn product(name: &str) -> Product {
    Product { tag: tag(name), name: format!("The \u{1F980} {name}") }
}

fn environment(slug: &str) -> Environment {
    Environment { slug: slug.parse().expect("a valid slug"), name: slug.to_uppercase(), active: true }
}

async fn found(store: &dyn Store, scope: &Scope) -> ScopeRecord {
    match store.scope(scope).await.unwrap() {
        ScopeRead::Found(record) => *record,
        other => panic!("expected {scope} to be found, got {other:?}"),
    }
}

/// One product, one environment, one definition.
pub async fn a_new_store_can_serve(store: Arc<dyn Store>) {
    let record = found(&*store, &scope()).await;
    assert_eq!((record.environment.name.as_str(), record.environment.active), ("Development", true));
    assert_eq!(record.definitions, [(1, Definition::default_for(tag("default")))]);
    assert!(record.keys.is_empty());
    let products = store.products().await.unwrap();
    assert_eq!((products.len(), products[0].product.name.as_str()), (1, "Default"));
    assert_eq!(products[0].environments, [record.environment]);
    assert!(matches!(store.scope(&scope_of("no", "dev")).await, Ok(ScopeRead::NoProduct)));
    assert!(matches!(store.scope(&scope_of("default", "no")).await, Ok(ScopeRead::NoEnvironment)));
    assert_eq!(store.ping().await, Ok(()));
}

/// Made, changed, listed by tag, removed.
pub async fn products_live_and_die(store: Arc<dyn Store>) {
    assert_eq!(change(&*store, Change::CreateProduct(product("shop"))).await, Changed::Done);
    assert_eq!(change(&*store, Change::CreateProduct(product("shop"))).await, Changed::Exists);
    let renamed = Product { name: "Shop".into(), ..product("shop") };
    assert_eq!(change(&*store, Change::UpdateProduct(renamed.clone())).await, Changed::Done);
    assert_eq!(change(&*store, Change::UpdateProduct(product("none"))).await, Changed::NoProduct);
    assert_eq!(change(&*store, Change::CreateProduct(product("bar"))).await, Changed::Done);
    let listed: Vec<_> = store.products().await.unwrap().into_iter().map(|p| p.product).collect();
    assert_eq!(listed.iter().map(|p| p.tag.as_str()).collect::<Vec<_>>(), ["bar", "default", "shop"]);
    assert_eq!(listed[2], renamed);
    let delete = |name| Change::DeleteProduct { product: tag(name), now: at(1) };
    assert_eq!(change(&*store, delete("none")).await, Changed::NoProduct);
    assert_eq!(change(&*store, delete("shop")).await, Changed::Done);
    assert_eq!(store.products().await.unwrap().len(), 2);
    // A product of the same name begins with nothing.
    assert_eq!(change(&*store, Change::CreateProduct(product("shop"))).await, Changed::Done);
    let again = store.products().await.unwrap().remove(2);
    assert!(again.environments.is_empty() && again.definitions.is_empty());
}

/// Made, changed, listed by slug, removed.
pub async fn environments_live_and_die(store: Arc<dyn Store>) {
    let create = |p: &str, slug| Change::CreateEnvironment(tag(p), environment(slug));
    assert_eq!(change(&*store, create("none", "prod")).await, Changed::NoProduct);
    assert_eq!(change(&*store, create("default", "prod")).await, Changed::Done);
    assert_eq!(change(&*store, create("default", "prod")).await, Changed::Exists);
    let prod = scope_of("default", "prod");
    let off = EnvironmentPatch { active: Some(false), name: None };
    let update = |scope: &Scope, patch: &EnvironmentPatch| Change::UpdateEnvironment {
        scope: scope.clone(),
        patch: patch.clone(),
    };
    assert_eq!(change(&*store, update(&prod, &off)).await, Changed::Done);
    assert_eq!(found(&*store, &prod).await.environment, off.applied(environment("prod")));
    // What a patch does not name stays as somebody else has set it.
    let named = EnvironmentPatch { name: Some("Off".into()), active: None };
    assert_eq!(change(&*store, update(&prod, &named)).await, Changed::Done);
    let both = Environment { active: false, name: "Off".into(), ..environment("prod") };
    assert_eq!(found(&*store, &prod).await.environment, both);
    assert_eq!(change(&*store, update(&scope_of("default", "none"), &off)).await, Changed::Missing);
    assert_eq!(change(&*store, update(&scope_of("none", "prod"), &off)).await, Changed::NoProduct);
    let slugs: Vec<_> = store.products().await.unwrap()[0].environments.iter().map(|e| e.slug.to_string()).collect();
    assert_eq!(slugs, ["dev", "prod"]);
    let delete = |p: &str, e: &str| Change::DeleteEnvironment { scope: scope_of(p, e), now: at(1) };
    assert_eq!(change(&*store, delete("none", "prod")).await, Changed::NoProduct);
    assert_eq!(change(&*store, delete("default", "none")).await, Changed::Missing);
    assert_eq!(change(&*store, delete("default", "prod")).await, Changed::Done);
    assert_eq!(change(&*store, delete("default", "prod")).await, Changed::Missing);
}

/// Each version stays readable; only the present one can be replaced; a deleted one's number is not used again.
pub async fn definitions_keep_their_versions(store: Arc<dyn Store>) {
    let definition = Definition::default_for(tag("admin"));
    let create = || Change::CreateDefinition(tag("default"), definition.clone());
    let update =
        |version| Change::UpdateDefinition { product: tag("default"), version, definition: definition.clone() };
    let delete = || Change::DeleteDefinition { product: tag("default"), tag: tag("admin"), now: at(1) };
    assert_eq!(change(&*store, update(1)).await, Changed::Missing);
    assert_eq!(change(&*store, delete()).await, Changed::Missing);
    assert_eq!(change(&*store, create()).await, Changed::Done);
    assert_eq!(change(&*store, create()).await, Changed::Exists);
    assert_eq!(change(&*store, update(1)).await, Changed::Done);
    assert_eq!(change(&*store, update(1)).await, Changed::Stale);
    assert_eq!(change(&*store, update(3)).await, Changed::Stale);
    let versions =
        |record: ScopeRecord| record.definitions.iter().map(|(v, d)| (*v, d.tag.clone())).collect::<Vec<_>>();
    assert_eq!(versions(found(&*store, &scope()).await), [(2, tag("admin")), (1, tag("default"))]);
    assert_eq!(change(&*store, delete()).await, Changed::Done);
    assert_eq!(change(&*store, delete()).await, Changed::Missing);
    assert_eq!(change(&*store, update(2)).await, Changed::Missing);
    assert_eq!(versions(found(&*store, &scope()).await), [(1, tag("default"))]);
    for version in [1, 2] {
        let kept = store.definition(&tag("default"), &tag("admin"), version).await.unwrap();
        assert_eq!(kept, Some(definition.clone()));
    }
    assert_eq!(store.definition(&tag("default"), &tag("admin"), 3).await, Ok(None));
    assert_eq!(store.definition(&tag("none"), &tag("admin"), 1).await, Ok(None));
    assert_eq!(change(&*store, create()).await, Changed::Done);
    assert_eq!(versions(found(&*store, &scope()).await), [(3, tag("admin")), (1, tag("default"))]);
    let nowhere = Change::CreateDefinition(tag("none"), definition.clone());
    assert_eq!(change(&*store, nowhere).await, Changed::NoProduct);
    let nowhere = Change::UpdateDefinition { product: tag("none"), version: 1, definition: definition.clone() };
    assert_eq!(change(&*store, nowhere).await, Changed::NoProduct);
    let nowhere = Change::DeleteDefinition { product: tag("none"), tag: tag("admin"), now: at(1) };
    assert_eq!(change(&*store, nowhere).await, Changed::NoProduct);
}

/// The feed must tell of a session for as long as its longest-living access token.
pub async fn the_longest_access_lifetime_is_remembered(store: Arc<dyn Store>) {
    let longest = async || found(&*store, &scope()).await.longest_access;
    let default = Definition::default_for(tag("default")).access_token.lifetime.seconds();
    assert_eq!(longest().await, default);
    let with = |lifetime: u64| {
        let patch = serde_json::json!({ "access_token": { "lifetime": lifetime } });
        Definition::default_for(tag("admin")).patched(&patch).unwrap()
    };
    let long = Change::CreateDefinition(tag("default"), with(7_200));
    assert_eq!(change(&*store, long).await, Changed::Done);
    assert_eq!(longest().await, Seconds(7_200));
    let short = with(60);
    let shorter = Change::UpdateDefinition { product: tag("default"), version: 1, definition: short };
    assert_eq!(change(&*store, shorter).await, Changed::Done);
    let gone = Change::DeleteDefinition { product: tag("default"), tag: tag("admin"), now: at(1) };
    assert_eq!(change(&*store, gone).await, Changed::Done);
    assert_eq!(longest().await, Seconds(7_200));
}

/// While sessions are active, none of the three can go; afterwards all that belonged to it goes.
pub async fn what_is_in_use_cannot_be_deleted(store: Arc<dyn Store>) {
    let active = start(&*store, session("ada")).await;
    let ended = start(&*store, session("ada")).await;
    applied(store.end(end_of(&ended, at(1), EndReason::Revoked)).await.unwrap());
    start(&*store, Session { idle_expires_at: at(1), ..session("ada") }).await;
    start(&*store, Session { scope: scope_of("shop", "dev"), ..session("ada") }).await;
    store.ban(ban_of("eve", at(1))).await.unwrap();
    let key = key(1, &scope(), Algorithm::EdDsa, 0);
    assert_eq!(store.add_signing_key(key, None).await, Ok(true));
    let environment = Change::DeleteEnvironment { scope: scope(), now: at(1) };
    let definition = Change::DeleteDefinition { product: tag("default"), tag: tag("default"), now: at(1) };
    let product = Change::DeleteProduct { product: tag("default"), now: at(1) };
    for delete in [&environment, &definition, &product] {
        assert_eq!(change(&*store, delete.clone()).await, Changed::InUse(1));
    }
    applied(store.end(end_of(&active, at(1), EndReason::Revoked)).await.unwrap());
    assert_eq!(change(&*store, definition).await, Changed::Done);
    assert_eq!(row(&*store, active.id).await.id, active.id);
    assert_eq!(change(&*store, environment).await, Changed::Done);
    assert_eq!(store.session(active.id).await, Ok(None));
    assert!(store.events(events_of(ended.id)).await.unwrap().is_empty());
    assert!(store.revocations(None, 0, at(1), 10).await.unwrap().is_empty());
    assert_eq!(store.user(&scope(), &user("eve"), at(1)).await, Ok(None));
    assert_eq!(store.sessions(sessions_in(scope_of("shop", "dev"), at(1))).await.unwrap().len(), 1);
    let again = Change::CreateEnvironment(tag("default"), found_dev());
    assert_eq!(change(&*store, again).await, Changed::Done);
    assert!(found(&*store, &scope()).await.keys.is_empty());
    assert_eq!(change(&*store, product).await, Changed::Done);
}

fn found_dev() -> Environment {
    environment("dev")
}

/// And nothing else does; the audit log has the changes that were made.
pub async fn the_configuration_s_version_grows_with_each_change(store: Arc<dyn Store>) {
    let before = store.config_version().await.unwrap();
    assert_eq!(change(&*store, Change::CreateProduct(product("default"))).await, Changed::Exists);
    start(&*store, session("ada")).await;
    assert_eq!(store.config_version().await, Ok(before));
    assert!(store.audit_log(None, 10).await.unwrap().is_empty());
    let entry = audit("product.create", at(7));
    assert_eq!(store.change(Change::CreateProduct(product("shop")), entry.clone()).await, Ok(Changed::Done));
    let after = store.config_version().await.unwrap();
    assert!(after > before);
    assert_eq!(store.audit_log(None, 10).await.unwrap(), [entry]);
    let key = key(1, &scope(), Algorithm::EdDsa, 0);
    assert_eq!(store.add_signing_key(key.clone(), None).await, Ok(true));
    let with_key = store.config_version().await.unwrap();
    assert!(with_key > after);
    store.remove_signing_keys(vec![key.kid]).await.unwrap();
    assert!(store.config_version().await.unwrap() > with_key);
}

fn key(n: u8, scope: &Scope, algorithm: Algorithm, signs_from: u64) -> SigningKey {
    SigningKey {
        kid: format!("key-{n}").parse().expect("a valid key id"),
        scope: scope.clone(),
        chain: algorithm.into(),
        public_jwk: format!(r#"{{"n":{n}}}"#),
        wrapped: vec![n, 0, 255],
        created_at: at(0),
        signs_from: at(signs_from),
    }
}

/// Per scope and algorithm, whoever saw the newest key adds the next.
pub async fn a_signing_key_is_added_after_the_newest(store: Arc<dyn Store>) {
    let here = scope();
    let ed1 = key(1, &here, Algorithm::EdDsa, 10);
    let ed2 = key(2, &here, Algorithm::EdDsa, 5);
    let ed3 = key(3, &here, Algorithm::EdDsa, 10);
    let es = key(4, &here, Algorithm::Es256, 10);
    let there = key(5, &scope_of("shop", "dev"), Algorithm::EdDsa, 10);
    assert_eq!(store.add_signing_key(ed1.clone(), Some(es.kid.clone())).await, Ok(false));
    assert_eq!(store.add_signing_key(ed1.clone(), None).await, Ok(true));
    assert_eq!(store.add_signing_key(ed2.clone(), None).await, Ok(false));
    assert_eq!(store.add_signing_key(es.clone(), None).await, Ok(true));
    assert_eq!(store.add_signing_key(there.clone(), None).await, Ok(true));
    assert_eq!(store.add_signing_key(ed2.clone(), Some(ed1.kid.clone())).await, Ok(true));
    // The newest is the one that signs last, not the one that was added last; a known id is not added again.
    assert_eq!(store.add_signing_key(ed3.clone(), Some(ed2.kid.clone())).await, Ok(false));
    assert_eq!(store.add_signing_key(ed1.clone(), Some(ed1.kid.clone())).await, Ok(false));
    assert_eq!(store.add_signing_key(ed3.clone(), Some(ed1.kid.clone())).await, Ok(true));
    assert_eq!(store.add_signing_key(key(6, &here, Algorithm::EdDsa, 11), Some(ed1.kid.clone())).await, Ok(false));
    assert_eq!(found(&*store, &here).await.keys, [ed1.clone(), es.clone(), ed2, ed3]);

    // Of two that sign from the same moment, the one that was made later.
    let made_later = SigningKey { created_at: at(1), ..key(0, &here, Algorithm::Es256, 10) };
    assert_eq!(store.add_signing_key(made_later.clone(), Some(es.kid.clone())).await, Ok(true));
    assert_eq!(store.add_signing_key(key(8, &here, Algorithm::Es256, 9), Some(es.kid.clone())).await, Ok(false));
    store.remove_signing_keys(vec![made_later.kid]).await.unwrap();

    let rewrapped = SigningKey { wrapped: vec![9; 100], public_jwk: "{}".into(), ..ed1.clone() };
    let unknown = key(7, &here, Algorithm::EdDsa, 1);
    store.rewrap_signing_keys(vec![rewrapped, unknown.clone()]).await.unwrap();
    let keys = found(&*store, &here).await.keys;
    assert_eq!((keys.len(), &keys[0]), (4, &SigningKey { wrapped: vec![9; 100], ..ed1.clone() }));
    store.remove_signing_keys(vec![ed1.kid, unknown.kid]).await.unwrap();
    assert_eq!(found(&*store, &here).await.keys[0], es);
}

/// The first check value of a secret's id stays.
pub async fn secret_checks_are_registered_once(store: Arc<dyn Store>) {
    assert_eq!(store.secret_checks(Vec::new()).await, Ok(Vec::new()));
    assert_eq!(store.secret_checks(vec![(2, [2; 16])]).await, Ok(vec![(2, [2; 16])]));
    let all = store.secret_checks(vec![(2, [9; 16]), (1, [1; 16])]).await.unwrap();
    assert_eq!(all, [(1, [1; 16]), (2, [2; 16])]);
}

/// Sessions that were not ended, by the secret of their position.
pub async fn secret_usage_counts_unended_sessions(store: Arc<dyn Store>) {
    assert_eq!(store.secret_usage().await, Ok(Vec::new()));
    for kid in [1, 1, 7] {
        let mut session = session("ada");
        session.position.kid = kid;
        start(&*store, session).await;
    }
    let ended = start(&*store, session("ada")).await;
    applied(store.end(end_of(&ended, at(1), EndReason::Revoked)).await.unwrap());
    assert_eq!(store.secret_usage().await, Ok(vec![(1, 2), (7, 1)]));
}

/// Oldest first; an id or a secret is there once; the first revocation stays.
pub async fn api_keys_are_created_and_revoked(store: Arc<dyn Store>) {
    let key = |n: u8| ApiKey {
        id: format!("k{n}"),
        name: "back \u{0} end".into(),
        hash: [n; 32],
        permissions: vec![Permission::Sessions, Permission::Confirm],
        created_at: at(n.into()),
        revoked_at: None,
    };
    assert_eq!(change(&*store, Change::CreateApiKey(key(2))).await, Changed::Done);
    assert_eq!(change(&*store, Change::CreateApiKey(key(1))).await, Changed::Done);
    assert_eq!(change(&*store, Change::CreateApiKey(key(2))).await, Changed::Exists);
    let same_hash = ApiKey { id: "other".into(), ..key(2) };
    assert_eq!(change(&*store, Change::CreateApiKey(same_hash)).await, Changed::Exists);
    let revoke = |id: &str, secs| Change::RevokeApiKey { id: id.into(), at: at(secs) };
    assert_eq!(change(&*store, revoke("k1", 5)).await, Changed::Done);
    assert_eq!(change(&*store, revoke("k1", 6)).await, Changed::Done);
    assert_eq!(change(&*store, revoke("none", 6)).await, Changed::Missing);
    let revoked = ApiKey { revoked_at: Some(at(5)), ..key(1) };
    assert_eq!(store.api_keys().await, Ok(vec![key(2), revoked]));
}
