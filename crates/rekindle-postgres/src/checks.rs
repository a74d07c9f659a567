//! What an operator should know of the server: settings that weaken the store's promises.

use std::collections::BTreeMap;

use rekindle::store::{Check, StoreResult};

use crate::database::{Database, statement};
use crate::row::Cells;

impl Database {
    pub(crate) async fn checks(&self, connections: usize) -> StoreResult<Vec<Check>> {
        let settings = self.rows(statement!(
            "SELECT name, setting FROM pg_settings WHERE name IN
                 ('server_version', 'fsync', 'full_page_writes', 'synchronous_commit', 'max_connections')"
        ));
        let mut found = BTreeMap::new();
        for row in &settings.await? {
            let row = Cells::new(row, "pg_settings", "name");
            found.insert(row.text("name")?.to_owned(), row.text("setting")?.to_owned());
        }
        let mut checks = of_settings(&found, connections);
        let refused = self.rows(statement!(
            "SELECT table_name::text AS name FROM information_schema.tables WHERE table_schema = current_schema() AND NOT (
                 has_table_privilege(quote_ident(table_name), 'SELECT') AND has_table_privilege(quote_ident(table_name), 'INSERT')
                 AND has_table_privilege(quote_ident(table_name), 'UPDATE')
                 AND has_table_privilege(quote_ident(table_name), 'DELETE')
             ) AND table_name <> 'migrations' ORDER BY table_name"
        ));
        let mut names = Vec::new();
        for row in &refused.await? {
            names.push(Cells::new(row, "information_schema.tables", "name").text("name")?.to_owned());
        }
        let text = match names.is_empty() {
            true => "the role may read and write all tables".to_owned(),
            false => format!("the role has not all rights on {}", names.join(", ")),
        };
        checks.push(expect(names.is_empty(), text, "grant it SELECT, INSERT, UPDATE and DELETE"));
        Ok(checks)
    }
}

/// What the settings tell; one that the server does not have is passed over.
fn of_settings(found: &BTreeMap<String, String>, connections: usize) -> Vec<Check> {
    let checked = |name: &str, good: &dyn Fn(&str) -> bool, otherwise: &str| {
        found.get(name).map(|value| expect(good(value), format!("{name} = {value}"), otherwise))
    };
    let room = format!("too few for a pool of {connections}; raise it, or lower `pool_size` in the URL");
    [
        checked("server_version", &|_| true, ""),
        checked("fsync", &|value| value == "on", "a crash of the machine loses or destroys everything; set it to on"),
        checked("full_page_writes", &|value| value == "on", "a power cut may destroy pages; set it to on"),
        checked(
            "synchronous_commit",
            &|value| !matches!(value, "off" | "local"),
            "a crash or a failover loses answered writes, so that honest clients are taken for thieves; set it to on",
        ),
        checked("max_connections", &|value| value.parse::<usize>().is_ok_and(|n| n > connections), &room),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn expect(ok: bool, found: String, otherwise: &str) -> Check {
    Check { ok, text: if ok { found } else { format!("{found}: {otherwise}") } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_settings_are_told_with_what_to_do() {
        let found = |settings: &[(&str, &str)]| {
            let settings = settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            of_settings(&settings, 16)
        };
        let good = found(&[("fsync", "on"), ("synchronous_commit", "remote_apply"), ("max_connections", "17")]);
        assert!(good.iter().all(|c| c.ok) && good.len() == 3, "{good:?}");
        let weak = found(&[("fsync", "off"), ("synchronous_commit", "local"), ("max_connections", "16")]);
        assert!(weak.iter().all(|c| !c.ok), "{weak:?}");
        assert_eq!(
            weak[2].text,
            "max_connections = 16: too few for a pool of 16; raise it, or lower `pool_size` in the URL"
        );
        assert!(found(&[]).is_empty(), "what speaks the protocol may lack the settings");
    }
}
