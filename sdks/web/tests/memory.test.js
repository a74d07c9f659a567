// What the storage holds, and where to go on after each answer.

import assert from "node:assert/strict";
import { describe, it } from "node:test";

import { announce, believed, csrfToken, empty, end, openingOf, prove, proofRequired, superseded, tell } from "../dist/memory.js";

const A = "0199a3b4-7c00-7000-8000-00000000000a";
const B = "0199a3b4-7c00-7000-8000-00000000000b";

const secret = (name) => ({ opening: `opening ${name}`, commitment: `commitment ${name}` });
const at = (generation, name = generation, session = A) => ({ session, generation, commitment: name === "" ? "" : `commitment ${name}` });
const ask = (about, newest = false) => ({ about, newest });

/** A client that has seen these generations, and has drawn the next one's opening. */
const client = (...generations) => {
  const memory = empty();
  announce(memory, secret(0));
  for (const generation of generations) {
    if (generation > 0) prove(memory, ask(at(generation - 1)), secret(generation));
    tell(memory, at(generation));
  }
  return memory;
};

describe("openings", () => {
  it("belong to the first writer", () => {
    const memory = client(0);
    const first = prove(memory, ask(at(0)), secret("first"));
    const second = prove(memory, ask(at(0)), secret("second"));
    assert.deepEqual(first, { session: A, generation: 0, commitment: "commitment first", opening: "opening 0" });
    assert.deepEqual(second, first);
  });

  it("are sent only if they hash to the commitment that was told", () => {
    const memory = client(0, 1);
    assert.equal(openingOf(memory, at(1)), "opening 1");
    assert.equal(openingOf(memory, at(1, "another")), undefined);
    assert.equal(openingOf(memory, at(1, 1, B)), undefined);
    assert.equal("opening" in prove(memory, ask(at(1, "another")), secret(2)), false);
  });

  it("of logins are found by the commitment, whichever session it was", () => {
    const memory = client(0);
    assert.equal(openingOf(memory, at(0, 0, B)), "opening 0");
    assert.equal(openingOf(memory, at(1, 0, B)), undefined);
  });

  it("of a login are announced until a session begins with them", () => {
    const memory = empty();
    assert.equal(announce(memory, secret("one")), "commitment one");
    assert.equal(announce(memory, secret("two")), "commitment one");
    tell(memory, at(0, "one"));
    assert.equal(announce(memory, secret("two")), "commitment two");
    assert.equal(openingOf(memory, at(0, "one")), "opening one");
  });

  it("of the last eight generations and logins are kept", () => {
    const memory = client(...Array(12).keys());
    assert.deepEqual(Object.keys(memory.sessions[0].secrets).map(Number), [4, 5, 6, 7, 8, 9, 10, 11]);
    for (let login = 0; login < 10; login++) {
      announce(memory, secret(`login ${login}`));
      tell(memory, at(0, `login ${login}`, `${B.slice(0, -1)}${login}`));
    }
    assert.equal(memory.logins.length, 8);
    assert.equal(memory.sessions.length, 8);
    assert.equal(openingOf(memory, at(0, "login 1", B)), undefined);
    assert.equal(openingOf(memory, at(0, "login 2", B)), "opening login 2");
  });
});

describe("positions", () => {
  it("never go back", () => {
    const memory = client(0, 1, 2);
    tell(memory, at(1));
    assert.deepEqual(believed(memory, at(1)), at(2));
    assert.deepEqual(believed(memory, at(3)), at(3));
    assert.deepEqual(believed(memory, at(0, 0, B)), at(0, 0, B));
  });

  it("of header mode take their tokens with them", () => {
    const memory = client(0);
    tell(memory, at(1), { tokens: { access: "access 1", refresh: "refresh 1" } });
    tell(memory, at(0), { tokens: { access: "access 0", refresh: "refresh 0" } });
    assert.deepEqual(memory.tokens, { position: at(1), access: "access 1", refresh: "refresh 1" });
  });

  it("have their own token against CSRF", () => {
    const memory = client(0);
    tell(memory, at(0), { csrf: "token 0" });
    assert.equal(csrfToken(memory, at(0)), "token 0");
    tell(memory, at(1), { csrf: "token 1" });
    tell(memory, at(0), { csrf: "token 0" });
    assert.equal(csrfToken(memory, at(1)), "token 1");
    assert.equal(csrfToken(memory, at(0)), undefined);
    assert.equal(csrfToken(memory, undefined), undefined);
  });
});

describe("superseded", () => {
  it("goes on from the named generation if its opening is held", () => {
    const memory = client(0, 1);
    prove(memory, ask(at(1)), secret(2));
    const standing = { named: at(2), presented: 0 };
    assert.deepEqual(superseded(memory, ask(at(1)), standing, at(1)), ask(at(2)));
  });

  it("starts over if another tab was faster", () => {
    const memory = client(0, 1, 2);
    const standing = { named: at(3, "unknown"), presented: 1 };
    assert.equal(superseded(memory, ask(at(1)), standing, at(1)), "again");
  });

  it("repeats once with `newest`, for the generation that was presented", () => {
    const memory = client(0, 1);
    const standing = { named: at(3, "a thief's"), presented: 1 };
    const next = superseded(memory, ask(at(1)), standing, at(1));
    assert.deepEqual(next, ask(at(1), true));
    assert.equal(prove(memory, next, secret(2)).newest, true);
    assert.equal(superseded(memory, next, standing, at(1)), "again");
  });

  it("says `newest` of an older cookie with that generation's opening", () => {
    const memory = client(0, 1, 2);
    const standing = { named: at(4, "a thief's"), presented: 1 };
    assert.deepEqual(superseded(memory, ask(at(2)), standing, at(1)), ask(at(1), true));
  });

  it("starts over if the answer is about a token that is not held any more", () => {
    const memory = client(0, 1);
    assert.equal(superseded(memory, ask(at(1)), { named: at(3, "x"), presented: 0 }, at(1)), "again");
    assert.equal(superseded(memory, ask(at(1)), { named: at(3, "x", B), presented: 1 }, at(1)), "again");
  });

  it("gives up without the openings of both generations", () => {
    const memory = empty();
    assert.equal(superseded(memory, ask(at(1)), { named: at(3), presented: 1 }, at(1)), "lost");
  });

  it("says `newest` of a bearer token without an opening", () => {
    const memory = empty();
    assert.deepEqual(superseded(memory, ask(at(1, "")), { named: at(3), presented: 1 }, at(1, "")), ask(at(1, ""), true));
  });
});

describe("proof_required", () => {
  it("sends the opening of the named generation", () => {
    const memory = client(0, 1);
    assert.deepEqual(proofRequired(memory, ask(at(0)), { named: at(1), presented: 1 }), ask(at(1)));
  });

  it("gives up without it, or if it did not help", () => {
    const memory = client(0, 1);
    assert.equal(proofRequired(memory, ask(at(1)), { named: at(2), presented: 1 }), "lost");
    assert.equal(proofRequired(memory, ask(at(1)), { named: at(1), presented: 1 }), "lost");
  });
});

describe("the end of a session", () => {
  it("takes what was of its generation", () => {
    const memory = client(0, 1);
    assert.equal(end(memory, A, 1), true);
    assert.deepEqual(memory.sessions, []);
  });

  it("takes nothing newer, and nothing of another session", () => {
    const memory = client(0, 1);
    assert.equal(end(memory, A, 0), false);
    tell(memory, at(0, 0, B), { tokens: { access: "", refresh: "" } });
    assert.equal(end(memory, A, 1), false);
    assert.equal(memory.sessions.length, 2);
    assert.ok(memory.tokens);
  });
});
