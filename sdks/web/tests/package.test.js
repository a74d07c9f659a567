// What is published: its size, its files, and that it needs nothing else.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { it } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

import esbuild from "esbuild";

const folder = fileURLToPath(new URL("..", import.meta.url));
const about = JSON.parse(readFileSync(`${folder}package.json`));

const bundled = (entry) => {
  const options = { bundle: true, minify: true, write: false, format: "esm", target: "es2022" };
  return esbuild.buildSync({ entryPoints: [`${folder}dist/${entry}.js`], ...options }).outputFiles[0];
};

/** The greatest sizes, minified and gzipped, in bytes. */
const LIMITS = { index: 8192, xhr: 2048, "react-native": 8192, supertokens: 3072 };

for (const [entry, limit] of Object.entries(LIMITS)) {
  it(`has at most ${limit} bytes in ${entry}, gzipped`, (t) => {
    const { length } = gzipSync(bundled(entry).contents, { level: 9 });
    t.diagnostic(`${entry}: ${length} bytes`);
    assert.ok(length <= limit, `${length} bytes`);
  });
}

it("needs no other package, and no eval", () => {
  assert.equal(about.dependencies ?? about.peerDependencies, undefined);
  for (const entry of Object.keys(LIMITS)) assert.doesNotMatch(bundled(entry).text, /\beval\(|new Function|from\s*"/);
});

it("publishes every file that it exports, with types", () => {
  const listed = execFileSync("npm", ["pack", "--dry-run", "--json", "--ignore-scripts", "--loglevel=error"], { cwd: folder });
  const [{ files }] = [JSON.parse(listed)].flat();
  const paths = files.map(({ path }) => `./${path}`);
  const exported = Object.values(about.exports).flatMap((each) => (typeof each === "string" ? [each] : Object.values(each)));
  for (const path of [...exported, about.types, "./README.md"]) assert.ok(paths.includes(path), path);
  assert.ok(!paths.some((path) => path.startsWith("./tests/")));
});

it("is what backends serve to pages that have to refresh", () => {
  const built = readFileSync(`${folder}dist/refresh.js`, "utf8");
  assert.equal(readFileSync(process.env.REFRESH_SCRIPT, "utf8"), built, "copy dist/refresh.js there");
});
