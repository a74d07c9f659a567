//! `rekindle sessions`.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use rekindle::{
    clock::Timestamp,
    engine::Engine,
    journal::Event,
    session::{EndReason, Session, SessionId, UserId},
    store::SessionQuery,
};
use serde_json::Value;

use super::{InScope, Source, operator, printable, table};
use crate::{
    runtime,
    view::{ExplanationView, SessionView},
};

#[derive(Debug, Args)]
pub(super) struct Sessions {
    #[command(flatten)]
    source: Source,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List an environment's sessions, newest first.
    List {
        #[command(flatten)]
        at: InScope,
        /// Only this user's.
        #[arg(long, value_name = "ID")]
        user: Option<UserId>,
        /// Only active ones.
        #[arg(long, conflicts_with = "ended")]
        active: bool,
        /// Only ended ones.
        #[arg(long)]
        ended: bool,
        /// How many at most.
        #[arg(long, default_value_t = 50, value_name = "N")]
        limit: u32,
        /// Print JSON, one session per line.
        #[arg(long)]
        json: bool,
    },
    /// Print one session.
    Show {
        /// Its id.
        id: SessionId,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// End one session.
    Revoke {
        /// Its id.
        id: SessionId,
    },
    /// Say why a session is alive or how it ended: by which rule, which request, when.
    Explain {
        /// Its id.
        id: SessionId,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

impl Sessions {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let opened = runtime::open(&self.source.read_of_store()?).await?;
        let engine = &opened.engine;
        let now = engine.now();
        match self.action {
            Action::List { at, user, active, ended, limit, json } => {
                let query = SessionQuery {
                    scope: at.scope(),
                    user_id: user,
                    tag: None,
                    active: (active || ended).then_some(active),
                    started_after: None,
                    started_before: None,
                    before: None,
                    limit,
                    now,
                };
                let sessions = engine.sessions(query).await?;
                if json {
                    for session in &sessions {
                        println!("{}", serde_json::to_string(&SessionView::of(session, now))?);
                    }
                } else {
                    print!("{}", list(&sessions, now));
                }
            }
            Action::Show { id, json } => {
                let session = find(engine, id).await?;
                if json {
                    println!("{}", serde_json::to_string_pretty(&SessionView::of(&session, now))?);
                } else {
                    print!("{}", details(&session, now)?);
                }
            }
            Action::Revoke { id } => {
                let session = find(engine, id).await?;
                let before = session.end(now);
                engine.revoke(&session.scope, id, EndReason::Revoked, &operator()).await?;
                match before {
                    Some(ended) => eprintln!("It had ended at {} already ({}).", ended.at, ended.reason.as_str()),
                    None => eprintln!("The session is over. Running servers refuse its access tokens within a second."),
                }
            }
            Action::Explain { id, json } => {
                let session = find(engine, id).await?;
                let told = engine.explain(&session.scope, id).await?;
                if json {
                    println!("{}", serde_json::to_string_pretty(&ExplanationView::from(&told))?);
                } else {
                    println!("{}\n\nRule: {}\nAt:   {}", told.summary, told.rule, told.at);
                    if let Some(request) = &told.request {
                        println!("By:   {}", line(request));
                    }
                    if !told.remarkable.is_empty() {
                        println!("\nRefused or answered again, newest first:");
                        told.remarkable.iter().for_each(|event| println!("  {}", line(event)));
                    }
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// A session by its id, whatever its scope.
async fn find(engine: &Engine, id: SessionId) -> anyhow::Result<Session> {
    let session = engine.store().session(id).await?;
    session.with_context(|| format!("there is no session {id} in this store (any more)"))
}

/// `active`, or why it ended.
fn state(session: &Session, now: Timestamp) -> &'static str {
    session.end(now).map_or("active", |ended| ended.reason.as_str())
}

fn list(sessions: &[Session], now: Timestamp) -> String {
    let head = ["ID", "TAG", "USER", "STATE", "GENERATION", "STARTED", "LAST REFRESHED", "EXPIRES"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(sessions.iter().map(|session| {
        [
            session.id.to_string(),
            session.tag.to_string(),
            session.user_id.to_string(),
            state(session, now).to_owned(),
            session.position.generation.to_string(),
            session.created_at.to_string(),
            session.last_refreshed_at().to_string(),
            session.expires_at.min(session.idle_expires_at).to_string(),
        ]
    }));
    table(&rows)
}

/// The session as the API tells it, a line for each field.
fn details(session: &Session, now: Timestamp) -> anyhow::Result<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let told = serde_json::to_value(SessionView::of(session, now))?;
    let fields = told.as_object().into_iter().flatten();
    let rows: Vec<[String; 2]> = fields.map(|(name, value)| [name.clone(), text(value)]).collect();
    Ok(table(&rows))
}

/// An event on one line.
fn line(event: &Event) -> String {
    let mut parts = vec![event.at.to_string(), event.kind.as_str().to_owned()];
    parts.extend(event.outcome.map(|outcome| outcome.as_str().to_owned()));
    parts.extend(event.reason.map(|reason| reason.as_str().to_owned()));
    let mut named = |name: &str, value: Option<String>| parts.extend(value.map(|value| format!("{name} {value}")));
    named("generation", Some(event.generation.to_string()));
    named("presented", event.presented_generation.map(|g| g.to_string()));
    named("from", event.client.ip.clone());
    named("request", event.request_id.clone());
    named("by", event.actor.clone());
    printable(&parts.join(", "))
}
