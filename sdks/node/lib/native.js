// Loads the native half: built beside this package, or from the package of this platform.

"use strict";

const path = require("node:path");

const { platform, arch } = process;
const ABI = { linux: "-gnu", win32: "-msvc" }[platform] ?? "";
const NAME = `rekindle.${platform}-${arch}${ABI}.node`;

const load = () => {
  const own = process.env.REKINDLE_NATIVE ?? path.join(__dirname, "..", NAME);
  try {
    return require(own);
  } catch (error) {
    if (process.env.REKINDLE_NATIVE || error.code !== "MODULE_NOT_FOUND") throw error;
  }
  try {
    return require(`rekindle-${platform}-${arch}${ABI}`);
  } catch (error) {
    const cause = error;
    throw new Error(`rekindle has no native half for ${platform} on ${arch}: build it with \`npm run build\` in its folder`, { cause });
  }
};

module.exports = load();
