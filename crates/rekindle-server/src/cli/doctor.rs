//! `rekindle doctor`.

use std::{fmt::Display, path::Path, process::ExitCode};

use clap::Args;
use rekindle::{
    clock::{Clock, Seconds, SystemClock, Timestamp},
    keys::{Chain, KeyRing},
    refresh::SecretRing,
    revocation_log::{FileRevocationLog, RevocationLog},
    session::Scope,
    store::{ScopeRead, StoreError},
};
use rekindle_embedded::{OpenStore, files};
use rekindle_sqlite::SqliteStore;

use super::Source;
use crate::{config::Config, runtime};

#[derive(Debug, Args)]
pub(super) struct Doctor {
    #[command(flatten)]
    source: Source,
    /// Look at an installation for development: weak settings are allowed.
    #[arg(long)]
    dev: bool,
}

/// What was found so far; each finding is printed when it is made.
#[derive(Default)]
struct Findings {
    failed: bool,
}

impl Findings {
    fn ok(&mut self, what: impl Display) {
        println!("OK    {what}");
    }

    fn warn(&mut self, what: impl Display) {
        println!("WARN  {what}");
    }

    fn fail(&mut self, what: impl Display) {
        self.failed = true;
        println!("FAIL  {what}");
    }

    fn check<T, E: Display>(&mut self, outcome: Result<T, E>, what: &str) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                self.fail(format_args!("{what}: {error}"));
                None
            }
        }
    }
}

/// Less free space than this is too little to go on writing for long.
const LOW_SPACE: u64 = 1 << 30;
/// What happened further in the future than this did not happen by this clock.
const CLOCK_TOLERANCE: Seconds = Seconds(60);
/// Nobody ran this program before.
const NOT_BEFORE: Timestamp = Timestamp::from_secs(1_767_225_600);

impl Doctor {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut found = Findings::default();
        let config = match self.source.read() {
            Ok(config) => config,
            Err(problems) => {
                problems.0.iter().for_each(|problem| found.fail(format_args!("configuration: {problem}")));
                return Ok(ExitCode::FAILURE);
            }
        };
        if found.check(files::refuse_root(&config.data_dir), "data directory").is_none() {
            return Ok(ExitCode::FAILURE);
        }
        self.configuration(&config, &mut found);
        let now = SystemClock.now();
        space(&config, &mut found);
        revocation_log(&config, now, &mut found);
        let secrets = found.check(runtime::secrets(&config), "secrets");
        if let Some(path) = config.sqlite_path().filter(|path| !path.exists()) {
            found.fail(format_args!("store: {} does not exist; the server makes it", path.display()));
        } else if let Some(store) = found.check(OpenStore::open(&config.location()).await, "store") {
            let looked_at = store_and_clock(&config, &store, self.dev, now, &mut found).await;
            found.check(looked_at, "store");
            if let Some(secrets) = secrets {
                let looked_at = secrets_and_keys(&config, &store, secrets, now, &mut found).await;
                found.check(looked_at, "store");
            }
        }
        Ok(if found.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn configuration(&self, config: &Config, found: &mut Findings) {
        let weak = config.problems_for_production(self.source.config.as_deref());
        let before = found.failed;
        if !self.dev {
            weak.iter().for_each(|problem| found.fail(format_args!("configuration: {problem}")));
        }
        for (at, webhook) in config.webhooks.iter().enumerate() {
            found.check(runtime::endpoint(webhook), &format!("webhooks[{at}]"));
        }
        if found.failed == before {
            found.ok("configuration: is valid");
        }
        match files::open_to_others(&config.data_dir) {
            Ok(false) => found.ok(format_args!("data directory: {} is its owner's alone", config.data_dir.display())),
            Ok(true) => found
                .warn(format_args!("data directory: {} is open to others: `chmod 700` it", config.data_dir.display())),
            Err(e) => found.fail(format_args!("data directory: {}: {e}", config.data_dir.display())),
        }
        if config.secrets.is_none() {
            private_file("secrets", &config.data_dir.join("secrets"), found);
        }
    }
}

fn private_file(what: &str, path: &Path, found: &mut Findings) {
    if let Ok(true) = files::open_to_others(path) {
        found.fail(format_args!("{what}: {} is open to others: `chmod 600` it", path.display()));
    }
}

fn space(config: &Config, found: &mut Findings) {
    #[cfg(unix)]
    let store = config.sqlite_path().map(|path| ("store", path));
    for (what, path) in store.into_iter().chain([("revocation log", config.revocation_log_path())]) {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let Ok(stat) = rustix::fs::statvfs(folder) else { continue };
        let free = stat.f_bavail.saturating_mul(stat.f_frsize);
        let line = format!("disk: {} MiB are free for the {what} in {}", free >> 20, folder.display());
        if free < LOW_SPACE { found.warn(line) } else { found.ok(line) }
    }
    #[cfg(not(unix))]
    let _ = (config, found);
}

fn revocation_log(config: &Config, now: Timestamp, found: &mut Findings) {
    let path = config.revocation_log_path();
    match FileRevocationLog::open(&path, now) {
        Ok(log) => found.ok(format_args!("revocation log: {} endings in {}", log.endings().len(), path.display())),
        Err(e) => found.fail(format_args!("revocation log: {}: {e}", path.display())),
    }
}

async fn store_and_clock(
    config: &Config,
    store: &OpenStore,
    dev: bool,
    now: Timestamp,
    found: &mut Findings,
) -> Result<(), StoreError> {
    if let Some(path) = config.sqlite_path()
        && found.check(SqliteStore::verify_file(&path), "store").is_some()
    {
        found.ok(format_args!("store: {} is whole", path.display()));
    }
    for check in store.checks().await? {
        if check.ok {
            found.ok(format_args!("store: {}", check.text))
        } else {
            found.warn(format_args!("store: {}", check.text))
        }
    }
    let store = store.store();
    if found.check(store.ping().await, "store").is_some() {
        found.ok("store: can be written");
    }
    let in_force = store.api_keys().await?.iter().filter(|key| key.revoked_at.is_none()).count();
    let keys = format!("API keys: {in_force} are in force");
    match in_force {
        0 if dev => found.warn(keys),
        0 => found.fail(keys + "; make one with `rekindle api-key create`"),
        _ => found.ok(keys),
    }
    let newest = store.audit_log(None, 1).await?.first().map(|entry| entry.at);
    match newest {
        _ if now < NOT_BEFORE => found.fail(format_args!("clock: it says {now}, which is before this program existed")),
        Some(newest) if newest > now + CLOCK_TOLERANCE => {
            found.fail(format_args!("clock: it says {now}, but the audit log has an entry of {newest}"));
        }
        _ => found.ok(format_args!("clock: {now}")),
    }
    Ok(())
}

async fn secrets_and_keys(
    config: &Config,
    store: &OpenStore,
    secrets: SecretRing,
    now: Timestamp,
    found: &mut Findings,
) -> Result<(), StoreError> {
    let store = store.store();
    let known = store.secret_checks(Vec::new()).await?;
    let usage = store.secret_usage().await?;
    let mut all_fit = true;
    for (kid, check) in secrets.checks() {
        if known.iter().any(|(k, c)| *k == kid && *c != check) {
            all_fit = false;
            found.fail(format_args!(
                "secrets: secret {kid} is not the one that this store was used with; put that one back"
            ));
        }
        if kid != secrets.current() && !usage.iter().any(|(k, sessions)| *k == kid && *sessions > 0) {
            found.warn(format_args!(
                "secrets: no session carries secret {kid}; unless it is about to become the first one, it can be removed"
            ));
        }
    }
    for (kid, sessions) in &usage {
        if *sessions > 0 && !secrets.checks().any(|(k, _)| k == *kid) {
            all_fit = false;
            found.fail(format_args!(
                "secrets: {sessions} sessions need secret {kid}, which is not configured; put it back"
            ));
        }
    }
    if all_fit {
        found.ok(format_args!("secrets: they fit the store; secret {} issues", secrets.current()));
    }
    let (mut scopes, mut faults) = (0, 0);
    for product in store.products().await? {
        for environment in product.environments {
            let scope = Scope { product: product.product.tag.clone(), env: environment.slug };
            let ScopeRead::Found(record) = store.scope(&scope).await? else { continue };
            scopes += 1;
            let ring = KeyRing::open(scope.clone(), record.keys.clone(), &secrets, config.key_schedule());
            for fault in ring.faults() {
                faults += 1;
                found.fail(format_args!("signing keys of {scope}: {fault}"));
            }
            for chain in Chain::ALL.into_iter().filter(|chain| record.keys.iter().any(|k| k.chain == *chain)) {
                // What a running server does in advance is late once the key should sign already.
                let late = ring.upkeep(chain, now).add.filter(|_| {
                    let newest = record.keys.iter().filter(|k| k.chain == chain).map(|k| k.signs_from).max();
                    newest.is_some_and(|from| from + Seconds(config.keys.rotate_every.as_secs()) <= now)
                });
                if late.is_some() {
                    faults += 1;
                    found.warn(format_args!(
                        "signing keys of {scope}: the {chain} key is older than keys.rotate_every; a running server replaces it"
                    ));
                }
            }
        }
    }
    if faults == 0 {
        found.ok(format_args!("signing keys: those of {scopes} environments are in order"));
    }
    Ok(())
}
