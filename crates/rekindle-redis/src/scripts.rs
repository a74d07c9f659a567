//! The scripts: one per write. No script asks for the time; every one may be repeated when its answer was lost.

use std::sync::OnceLock;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use redis::{Cmd, ToRedisArgs};

use crate::keys::hex;

macro_rules! scripts {
    ($($name:ident = $($file:literal),+;)*) => {
        $(pub(crate) static $name: Script = Script::new(concat!($(include_str!(concat!("scripts/", $file, ".lua"))),+));)*
    };
}

/// A script of several that run as one, where their keys need not be of one slot: each is a function with keys and arguments of
/// its own, and the last one calls them.
macro_rules! at_once {
    ($($name:ident = $($part:literal = $($file:literal),+;)+ then $last:literal;)*) => {
        $(pub(crate) static $name: Script = Script::new(concat!(
            include_str!("scripts/part.lua"),
            $("local function ", $part, "(KEYS, ARGV)\n", $(include_str!(concat!("scripts/", $file, ".lua"))),+, "end\n",)+
            include_str!(concat!("scripts/", $last, ".lua"))
        ));)*
    };
}

at_once! {
    START_AT_ONCE =
        "reserve" = "reserve";
        "write" = "fields", "journal", "write";
        "outbox_add" = "outbox_add";
        "add" = "add";
        "index_user" = "index_user";
        "join" = "join";
        then "start_at_once";
    WRITE_AT_ONCE =
        "write" = "fields", "journal", "write";
        "publish" = "publish";
        "outbox_add" = "outbox_add";
        "add" = "add";
        then "write_at_once";
}

scripts! {
    ADD = "add";
    ADVANCE = "fields", "journal", "advance";
    APPEND = "journal", "append";
    BAN = "ban";
    CHANGE = "change";
    CLAIM = "claim";
    CONFIGURATION = "configuration";
    CONFIRM = "confirm";
    FINISH = "finish";
    HELD = "held";
    INDEX_USER = "index_user";
    INIT = "init";
    JOIN = "join";
    LEAVE = "leave";
    OUTBOX_ADD = "outbox_add";
    OUTBOX_SETTLE = "outbox_settle";
    OUTBOX_TAKE = "outbox_take";
    PUBLISH = "publish";
    RELEASE = "release";
    REMOVE = "remove";
    REPLACE = "replace";
    RESERVE = "reserve";
    RESTORE = "restore";
    RETIRE = "retire";
    SETTLE = "settle";
    SET_CONFIGURATION = "set_configuration";
    TOGETHER = "together";
    UNBAN = "unban";
    UNINDEX_USER = "unindex_user";
    UNPUBLISH = "unpublish";
    WITHDRAW = "withdraw";
    WRITE = "fields", "journal", "write";
}

/// A script, which servers know by its hash once they have seen it.
pub(crate) struct Script {
    text: &'static str,
    hash: OnceLock<String>,
}

impl Script {
    const fn new(text: &'static str) -> Self {
        Self { text, hash: OnceLock::new() }
    }

    /// A call with these keys, all of one slot.
    pub(crate) fn on(&'static self, keys: &[impl AsRef<str>]) -> Call {
        let keys = keys.iter().map(|key| key.as_ref().to_owned()).collect();
        Call { script: self, keys, arguments: Vec::new() }
    }

    /// The calls of the scripts that this one consists of, as one.
    pub(crate) fn of<const N: usize>(&'static self, calls: [Call; N]) -> Call {
        let mut all = Call { script: self, keys: Vec::new(), arguments: Vec::new() };
        for call in calls {
            all.push(call.keys.len());
            all.push(call.arguments.len());
            all.keys.extend(call.keys);
            all.arguments.extend(call.arguments);
        }
        all
    }

    fn hash(&self) -> &str {
        self.hash.get_or_init(|| hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, self.text.as_bytes()).as_ref()))
    }
}

/// A script with its keys and arguments.
pub(crate) struct Call {
    script: &'static Script,
    keys: Vec<String>,
    arguments: Vec<Vec<u8>>,
}

impl Call {
    pub(crate) fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.push(argument);
        self
    }

    pub(crate) fn push(&mut self, argument: impl ToRedisArgs) {
        self.arguments.extend(argument.to_redis_args());
    }

    /// Whether there are arguments; a script that takes lists does nothing without.
    pub(crate) fn says_something(&self) -> bool {
        !self.arguments.is_empty()
    }

    /// What becomes of a hash: its fields to set, with their values, and those to remove.
    pub(crate) fn push_changes<T: ToRedisArgs>(&mut self, set: Vec<(T, String)>, removed: Vec<T>) {
        self.push(set.len());
        for (field, value) in set {
            self.push(field);
            self.push(value);
        }
        self.push(removed.len());
        removed.into_iter().for_each(|field| self.push(field));
    }

    /// By the script's hash; the server may not know it.
    pub(crate) fn by_hash(&self) -> Cmd {
        self.command("EVALSHA", self.script.hash())
    }

    /// With the script's text, which the server then knows.
    pub(crate) fn by_text(&self) -> Cmd {
        self.command("EVAL", self.script.text)
    }

    fn command(&self, name: &str, script: &str) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(self.keys.len()).arg(&self.keys).arg(&self.arguments);
        command
    }

    pub(crate) fn first_key(&self) -> &str {
        &self.keys[0]
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn scripts_and_rows_have_the_same_fields() {
        let text = include_str!("scripts/fields.lua");
        let list = text.split_once("KEYS[1],").unwrap().1.split_once(')').unwrap().0;
        let fields: Vec<&str> = list.split(',').map(|field| field.trim().trim_matches('\'')).collect();
        assert_eq!(fields, crate::row::FIELDS);
        let (names, places) = text.rsplit_once("local ").unwrap().1.split_once('=').unwrap();
        for (name, place) in names.split(',').zip(places.split(',')) {
            let place: usize = place.trim().parse().unwrap();
            assert_eq!(fields[place - 1].to_uppercase(), name.trim());
        }
    }
}
