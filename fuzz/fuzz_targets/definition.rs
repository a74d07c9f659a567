//! A definition that is accepted is written as JSON that gives the same definition, and checks any data.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rekindle::definition::Definition;
use serde_json::Value;

fuzz_target!(|text: &str| {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return };
    let Ok(definition) = Definition::from_json(&value) else { return };
    assert_eq!(Definition::from_json(&definition.to_json()), Ok(definition.clone()));
    if let Value::Object(data) = &value {
        let _ = definition.check_data(data);
        if let Some(selector) = &definition.selector {
            let _ = selector.resolve(data);
        }
    }
});
