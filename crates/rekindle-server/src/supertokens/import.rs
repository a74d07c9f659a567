//! Takes over a running installation of SuperTokens, so that tokens that are in browsers already go on working.
//!
//! The core's database is only read. Each pass brings over what is new or has changed there, and ends what was ended there, but for
//! sessions whose clients have come over: it may be repeated, and taken up after an interruption. Sessions and their former tokens
//! meet again in `origin`.

mod plan;
mod source;

use std::collections::{BTreeMap, HashSet};

use anyhow::Context as _;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use futures_util::StreamExt as _;
use rekindle::{
    clock::Timestamp,
    definition::Definition,
    engine::{Error, Imported},
    journal::Context,
    keys::{Adopted, Chain},
    session::{EndReason, Env, Session, SessionId},
    store::{Held, Record, Section, StoredSession},
};
use rekindle_embedded::Opened;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use super::{
    application::{self, Application},
    keys, path,
    path::AppId,
    settings::Settings,
};
use crate::config::SuperTokens;
use plan::Compared;
use source::{CoreApp, CoreKey, CoreSession, Source};

/// An import under way.
pub(crate) struct Importer<'a> {
    opened: &'a Opened,
    config: &'a SuperTokens,
    source: Source,
    /// Nothing is written.
    dry_run: bool,
    ctx: Context,
}

/// What a pass found, and did about it.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// How many apps and tenants there are.
    pub(crate) apps: usize,
    pub(crate) tenants: usize,
    /// How many signing keys were new.
    pub(crate) keys: usize,
    /// How many sessions there are.
    pub(crate) sessions: u64,
    /// Those that were not here.
    pub(crate) created: u64,
    /// Those that had changed in the core.
    pub(crate) updated: u64,
    /// Those that were here.
    pub(crate) same: u64,
    /// Those whose clients have come over.
    pub(crate) in_use: u64,
    /// Those that were ended here.
    pub(crate) ended: u64,
    /// Those that had been imported, and have ended in the core since: they were ended here, too.
    pub(crate) gone: u64,
    /// What could not be taken over, and why.
    pub(crate) refused: Vec<(String, String)>,
    /// Parts of `coreConfig` that mean nothing here.
    pub(crate) ignored: Vec<(String, String)>,
}

/// How many sessions are worked on at once.
const AT_ONCE: usize = 64;

/// An app that sessions can be imported to.
struct Target {
    application: Application,
    definition: (u32, Definition),
}

impl<'a> Importer<'a> {
    /// Connects to the core's database. See [`Source::open`].
    pub(crate) async fn open(
        opened: &'a Opened,
        config: &'a SuperTokens,
        url: &str,
        prefix: &str,
        dry_run: bool,
        ctx: Context,
    ) -> anyhow::Result<Self> {
        let source = Source::open(url, prefix).await.context("--from")?;
        Ok(Self { opened, config, source, dry_run, ctx })
    }

    /// A pass; `tell` is called now and then with how many of how many sessions are done.
    pub(crate) async fn pass(&mut self, mut tell: impl FnMut(u64, u64)) -> anyhow::Result<Report> {
        let now = self.opened.engine.now();
        let mut report = Report::default();
        let apps = self.source.apps(now).await?;
        let of: u64 = apps.values().map(|app| app.sessions).sum();
        let mut targets = BTreeMap::new();
        for (id, app) in &apps {
            match self.take_over(id, app, &mut report).await? {
                Ok(target) => drop(targets.insert(id.clone(), target)),
                Err(why) => report.refused.push((format!("app {id}"), why)),
            }
        }
        let work = Work { opened: self.opened, targets: &targets, dry_run: self.dry_run, ctx: &self.ctx };
        let mut seen = HashSet::new();
        let mut done = self.source.sessions(now).await?.map(|core| work.session(core)).buffer_unordered(AT_ONCE);
        while let Some(outcome) = done.next().await {
            let (handle, id, outcome) = outcome?;
            report.sessions += 1;
            seen.extend(id);
            match outcome {
                Outcome::Created => report.created += 1,
                Outcome::Updated => report.updated += 1,
                Outcome::Same => report.same += 1,
                Outcome::InUse => report.in_use += 1,
                Outcome::Ended => report.ended += 1,
                Outcome::Refused(why) => report.refused.push((format!("session {handle}"), why)),
            }
            if report.sessions.is_multiple_of(256) {
                tell(report.sessions, of);
            }
        }
        drop(done);
        tell(report.sessions, report.sessions);
        report.gone = work.end_what_is_gone(&seen, now).await?;
        Ok(report)
    }

    /// Makes an app and its tenants, adopts its keys. `Err` in the result says why its sessions cannot be taken over.
    async fn take_over(&self, id: &str, app: &CoreApp, report: &mut Report) -> anyhow::Result<Result<Target, String>> {
        let (engine, config, ctx) = (&self.opened.engine, self.config, &self.ctx);
        let app_id: AppId = match id.parse() {
            Ok(app_id) => app_id,
            Err(why) => return Ok(Err(why)),
        };
        let Some(refresh_key) = &app.refresh_key else {
            let why = "it has no `refresh_token_key`".to_owned();
            return Ok(if app.sessions == 0 { Ok(self.without_sessions(app_id).await?) } else { Err(why) });
        };
        let core_config = self.core_config(id, &app.config, report);
        let mut application = self.application(app_id.clone(), &core_config).await?;
        report.apps += 1;
        for name in &app.tenants {
            let Ok(tenant) = name.parse::<Env>() else {
                report.refused.push((
                    format!("tenant {name} of app {id}"),
                    "its id has more than 32 characters, or others than a-z, 0-9 and -".into(),
                ));
                continue;
            };
            report.tenants += 1;
            if !self.dry_run && !application.has(&tenant) {
                application.put_tenant(engine, config, &tenant, Map::new(), ctx).await?;
            }
        }
        let scope = app_id.scope(&path::public());
        let mut adopted = Vec::new();
        for key in &app.keys {
            let kid = keys::adopted_id(&scope, &key.kid)
                .map_err(|error| anyhow::anyhow!("signing key `{}`: {error}", key.kid))?;
            adopted.push(Adopted { kid, chain: key.chain(), pkcs8: key.pkcs8()? });
        }
        if !self.dry_run {
            report.keys += engine.adopt_keys(&scope, adopted, ctx).await?;
            // A session that is refreshed with it at the last moment may have to be refreshed with it once more.
            let until = app.last_expiry + application.settings.refresh_token_validity;
            application.adopt_refresh_key(engine, config, refresh_key, until, ctx).await?;
        }
        Ok(Ok(Target { definition: self.definition(&application).await?, application }))
    }

    /// What an app is configured with as far as it means something here.
    fn core_config(&self, id: &str, given: &Map<String, Value>, report: &mut Report) -> Map<String, Value> {
        let mut known = Map::new();
        for (name, value) in given {
            let one = Map::from_iter([(name.clone(), value.clone())]);
            match Settings::changed(self.config, &Map::new(), &one) {
                Ok(_) => drop(known.insert(name.clone(), value.clone())),
                Err(why) => report.ignored.push((format!("app {id}: {name}"), why)),
            }
        }
        known
    }

    /// The app, made or changed where that is needed.
    async fn application(&self, id: AppId, core_config: &Map<String, Value>) -> anyhow::Result<Application> {
        let engine = &self.opened.engine;
        let found = Application::open(engine, self.config, id.clone()).await?;
        let is_so = |metadata| Settings::changed(self.config, metadata, core_config).as_ref() == Ok(metadata);
        match found {
            Some(found) if found.definition().is_some() && (self.dry_run || is_so(found.metadata())) => Ok(found),
            _ if self.dry_run => Ok(Application::new(self.config, id)),
            _ => match Application::put(engine, self.config, id, core_config, &self.ctx).await? {
                Ok((application, _)) => Ok(application),
                Err(why) => Err(anyhow::anyhow!(why)),
            },
        }
    }

    /// An app of the core that has no sessions, and nothing to take over.
    async fn without_sessions(&self, id: AppId) -> anyhow::Result<Target> {
        let application = Application::new(self.config, id);
        Ok(Target { definition: self.definition(&application).await?, application })
    }

    /// The definition of an app's sessions with its version; that which a new app would get, if it is new.
    async fn definition(&self, application: &Application) -> anyhow::Result<(u32, Definition)> {
        if application.definition().is_none() {
            return Ok((1, application.new_definition()?));
        }
        let view = self.opened.engine.definition(&application.id.product(), &application::tag()).await?;
        Ok((view.version, view.definition))
    }
}

impl CoreKey {
    fn chain(&self) -> Chain {
        if self.is_static { Chain::Static } else { Chain::Dynamic }
    }

    fn pkcs8(&self) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        let decoded = BASE64_STANDARD.decode(self.private.trim());
        decoded.map(Zeroizing::new).map_err(|_| anyhow::anyhow!("the signing key `{}` is not base64", self.kid))
    }
}

/// What came of a session.
enum Outcome {
    Created,
    Updated,
    Same,
    InUse,
    Ended,
    Refused(String),
}

/// What the work on each session needs.
struct Work<'a> {
    opened: &'a Opened,
    targets: &'a BTreeMap<String, Target>,
    dry_run: bool,
    ctx: &'a Context,
}

impl Work<'_> {
    /// Brings a session over: its handle, its id if it could be one here, and what came of it.
    async fn session(&self, core: anyhow::Result<CoreSession>) -> anyhow::Result<(String, Option<SessionId>, Outcome)> {
        let core = core?;
        let (tenant, import) = match plan::import(&core) {
            Ok(planned) => planned,
            Err(why) => return Ok((core.handle, None, Outcome::Refused(why))),
        };
        let id = import.id;
        let refused = |why: String| Ok((core.handle.clone(), Some(id), Outcome::Refused(why)));
        let Some(target) = self.targets.get(&core.app) else {
            return refused(format!("its app `{}` was refused", core.app));
        };
        if !self.dry_run && !target.application.has(&tenant) {
            return refused(format!("its tenant `{tenant}` is not among the tenants"));
        }
        let scope = target.application.scope(&tenant);
        let (version, definition) = &target.definition;
        let wanted = match self.opened.engine.imported(&scope, (*version, definition), import) {
            Ok(wanted) => wanted,
            Err(error) => return refused(error.to_string()),
        };
        let outcome = match self.present(&wanted).await {
            Ok(None) => Outcome::Created,
            Ok(Some(present)) => match plan::compare(&wanted, &present) {
                Compared::Same => Outcome::Same,
                Compared::InUse => Outcome::InUse,
                Compared::Ended => Outcome::Ended,
                Compared::Foreign => Outcome::Refused("another session has its id here".into()),
                Compared::Changed(changed) => {
                    if !self.dry_run {
                        self.put(*changed).await?;
                    }
                    Outcome::Updated
                }
            },
            Err(Error::UserBanned(_)) => Outcome::Refused("its user is banned here".into()),
            Err(error) => return Err(error.into()),
        };
        Ok((core.handle, Some(id), outcome))
    }

    /// The session that is here already; otherwise it is imported.
    async fn present(&self, wanted: &Session) -> Result<Option<Session>, Error> {
        if self.dry_run {
            return Ok(self.opened.engine.store().session(wanted.id).await?);
        }
        Ok(match self.opened.engine.import(wanted.clone(), self.ctx).await? {
            Imported::Created(_) => None,
            Imported::Present(present) => Some(*present),
        })
    }

    async fn put(&self, session: Session) -> anyhow::Result<()> {
        let stored = StoredSession { session, idempotency: None, events: Held::default() };
        Ok(self.opened.store.store().put(vec![Record::Session(Box::new(stored))], Vec::new()).await?)
    }

    /// Ends what was imported and is not among the core's sessions any more, unless its client has come over; how many these were.
    async fn end_what_is_gone(&self, seen: &HashSet<SessionId>, now: Timestamp) -> anyhow::Result<u64> {
        let products: HashSet<_> = self.targets.values().map(|target| target.application.id.product()).collect();
        let (mut gone, mut after) = (0, None);
        loop {
            let page = self.opened.store.store().records(Section::Sessions, after.take(), PAGE).await?;
            let Some(last) = page.last().map(Record::key) else { return Ok(gone) };
            let is_gone = |session: &Session| {
                products.contains(&session.scope.product)
                    && session.end(now).is_none()
                    && plan::is_untouched(session)
                    && !seen.contains(&session.id)
                    && plan::was_imported(session)
            };
            let ended = page.into_iter().filter_map(|record| match record {
                Record::Session(stored) if is_gone(&stored.session) => Some(stored.session),
                _ => None,
            });
            for session in ended {
                gone += 1;
                if !self.dry_run {
                    self.opened.engine.end(&session.scope, session.id, EndReason::Revoked, self.ctx).await?;
                }
            }
            after = Some(last);
        }
    }
}

/// How many sessions are read at once.
const PAGE: u32 = 500;
