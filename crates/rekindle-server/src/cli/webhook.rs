//! `rekindle webhook`.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use rekindle::{
    clock::{Clock, SystemClock},
    journal::EventId,
    rng::SystemRng,
    session::Tag,
};
use serde_json::json;

use super::Source;
use crate::{runtime::endpoint, webhook::Sender};

#[derive(Debug, Args)]
pub(super) struct Webhooks {
    #[command(flatten)]
    source: Source,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Send a signed event of the type `webhook.test` to each configured webhook, and say what came back.
    Test {
        /// Only those of this product.
        #[arg(long, value_name = "TAG")]
        product: Option<Tag>,
    },
}

impl Webhooks {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let config = self.source.read()?;
        let Action::Test { product } = self.action;
        let sender = Sender::new()?;
        let (mut tried, mut failed) = (0, 0);
        let chosen =
            config.webhooks.iter().enumerate().filter(|(_, w)| product.as_ref().is_none_or(|p| *p == w.product));
        for (at, webhook) in chosen {
            let receiver = endpoint(webhook)?;
            let now = SystemClock.now();
            let id = EventId::draw(now, &SystemRng::default()).to_string();
            let body = json!({ "id": id, "type": "webhook.test", "at": now, "product": webhook.product }).to_string();
            let outcome = sender.send(&receiver.url, &receiver.secret, &id, body.into(), now).await;
            // Not its URL: that may carry a token.
            let name = format!("webhooks[{at}] (product {})", webhook.product);
            match outcome {
                Ok(()) => println!("OK    {name}: delivered"),
                Err(error) => {
                    failed += 1;
                    println!("FAIL  {name}: {error}");
                }
            }
            tried += 1;
        }
        if tried == 0 {
            eprintln!(
                "No webhook is configured{}.",
                product.map(|p| format!(" for the product `{p}`")).unwrap_or_default()
            );
        }
        Ok(if failed == 0 && tried > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
