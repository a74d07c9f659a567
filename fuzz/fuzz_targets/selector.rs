//! A selector that is accepted is canonical, and resolves in any data without a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rekindle::definition::Selector;
use serde_json::{Map, Value};

fuzz_target!(|text: &str| {
    let Ok(selector) = text.parse::<Selector>() else { return };
    assert_eq!(selector.as_str().parse::<Selector>().as_ref(), Ok(&selector));
    let leaf = selector.segments().collect::<Vec<_>>().into_iter().rev();
    let data = leaf.fold(Value::from("alice"), |inner, name| Value::Object(Map::from_iter([(name.to_owned(), inner)])));
    let data = data.as_object().expect("a selector has a segment");
    assert_eq!(selector.resolve(data).map(|user| user.as_str().to_owned()), Ok("alice".to_owned()));
});
