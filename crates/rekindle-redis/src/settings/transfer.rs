//! All that servers share, taken out and put in whole.

use super::*;
use crate::scripts::{CONFIGURATION, SET_CONFIGURATION};

impl Config {
    /// A product's definitions with all their versions.
    fn stored_definitions(
        &self,
        product: &str,
        versions: &BTreeMap<String, String>,
    ) -> StoreResult<Vec<StoredDefinition>> {
        let mut definitions = Vec::new();
        for (tag, saved) in self.under::<SavedDefinition>(&format!("definition:{product}/"))? {
            let mut known = Vec::new();
            for version in 1..=saved.last {
                let field = format!("{product}/{tag}/{version}");
                if let Some(text) = versions.get(&field) {
                    known.push((version, read_definition(&field, text)?));
                }
            }
            let tag = tag.parse().map_err(|_| self.corrupt(tag))?;
            definitions.push(StoredDefinition { tag, current: saved.current, versions: known });
        }
        Ok(definitions)
    }
}

impl Edit {
    fn set_stored(mut self, stored: &StoredProduct) -> Self {
        let StoredProduct { product, longest_access, environments, definitions } = stored;
        let Product { tag, name } = product;
        for definition in definitions {
            let StoredDefinition { tag: of, current, versions } = definition;
            for (version, definition) in versions {
                self.set_versions.push((format!("{tag}/{of}/{version}"), definition.to_json().to_string()));
            }
            let last = versions.iter().map(|(version, _)| *version).max().unwrap_or(0);
            self = self.set(format!("definition:{tag}/{of}"), &SavedDefinition { current: *current, last });
        }
        for environment in environments {
            self = self.set(format!("environment:{tag}/{}", environment.slug), environment);
        }
        let saved = SavedProduct { name: name.clone(), longest_access: *longest_access };
        self.set(format!("product:{tag}"), &saved)
    }
}

impl Inner {
    pub(crate) async fn configuration(&self) -> StoreResult<Configuration> {
        let read: (BTreeMap<String, String>, _) = self.link.look(&CONFIGURATION.on(&self.keys.config())).await?;
        let (config, versions) = (Config::new(read.0)?, read.1);
        let mut products = Vec::new();
        for (tag, saved) in config.under::<SavedProduct>("product:")? {
            products.push(StoredProduct {
                product: Product { tag: tag.parse().map_err(|_| config.corrupt(tag))?, name: saved.name },
                longest_access: saved.longest_access,
                environments: config.environments(tag)?,
                definitions: config.stored_definitions(tag, &versions)?,
            });
        }
        Ok(Configuration {
            version: config.version,
            products,
            signing_keys: config.keys()?.into_iter().map(|(_, key)| key).collect(),
            api_keys: config.api_keys()?.into_iter().map(|(_, key)| key).collect(),
            secret_checks: config.secret_checks()?,
        })
    }

    pub(crate) async fn set_configuration(&self, configuration: &Configuration) -> StoreResult<()> {
        let Configuration { version, products, signing_keys, api_keys, secret_checks } = configuration;
        let mut edit = products.iter().fold(Edit::default(), Edit::set_stored);
        edit = (0..).zip(signing_keys).fold(edit, |edit, (order, key)| edit.set_key(order, key));
        edit = (0..).zip(api_keys).fold(edit, |edit, (order, key)| edit.set_api_key(order, key));
        edit.set.extend(secret_checks.iter().map(|(kid, check)| (format!("secret:{kid}"), hex(check))));
        // Keys that are added later take the version as their order.
        let least = (signing_keys.len().max(api_keys.len()) as u64).max(*version);
        let mut call = SET_CONFIGURATION.on(&self.keys.config()).arg(self.token()).arg(least).arg(edit.set.len());
        for (field, value) in edit.set.into_iter().chain(edit.set_versions) {
            call.push(field);
            call.push(value);
        }
        self.link.run(&call).await
    }
}
