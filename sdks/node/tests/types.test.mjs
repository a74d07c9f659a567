// The types, as a compiler reads them.

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { it } from "node:test";
import { fileURLToPath } from "node:url";

it("is typed for applications of either kind of module", () => {
  const file = (path) => fileURLToPath(new URL(path, import.meta.url));
  const { status, stdout, stderr } = spawnSync(file("../node_modules/.bin/tsc"), ["-p", file("types")], { encoding: "utf8" });
  assert.equal(status, 0, stdout + stderr);
});
