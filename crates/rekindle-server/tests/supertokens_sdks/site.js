// A site: Rekindle servers on one store, and an app in front of them.

"use strict";

const fs = require("node:fs");
const os = require("node:os");
const path = require("node:path");

const { start } = require("./process");

/** Where `./test` has built the server, and installed the SDKs. */
const { REKINDLE: rekindle, SUPERTOKENS_SDKS: sdks } = process.env;

const program = ({ language, app }) =>
  language === "node"
    ? [process.execPath, "node/app.js"]
    : [path.join(sdks, "venv/bin/python"), `python/${app.framework}_app.py`];

exports.Site = class {
  #directory = fs.mkdtempSync(path.join(os.tmpdir(), "rekindle-sdks-"));

  /**
   * Starts servers and app. `accessTokens`: the seconds that access tokens live; `keyHours`: the hours that a key
   * signs them; `apiKey`: what the servers ask for, and the app sends; `between`: changes the address under which the app sees a server.
   */
  static async start(client, options = {}) {
    const { antiCsrf = false, apiKey, accessTokens = 3600, keyHours, count = 1, between = (core) => core } = options;
    const site = new this();
    try {
      const settings = {
        core_config_version: 0,
        access_token_validity: accessTokens,
        ...(keyHours && { access_token_dynamic_signing_key_update_interval: keyHours }),
        ...(apiKey && { api_keys: apiKey }),
        // SDKs before 3.0 ask the server for these, later ones have settings of their own.
        cookie_domain: "localhost",
        cookie_secure: false,
        enable_anti_csrf: antiCsrf,
        refresh_api_path: "/auth/session/refresh",
      };
      const lines = Object.entries(settings).map(([key, value]) => `${key}: ${value}\n`);
      fs.writeFileSync(path.join(site.#directory, "config.yaml"), lines.join(""));
      site.cores = [];
      while (site.cores.length < count) site.cores.push(await site.#core());
      const addresses = [];
      for (const core of site.cores) addresses.push(await between(core.address));
      const [command, file] = program(client);
      const about = JSON.stringify({ ...client.app, cores: addresses, apiKey, antiCsrf });
      const env = { ...process.env, PYTHONDONTWRITEBYTECODE: "1" };
      site.app = await start(command, [path.join(__dirname, file), about], { env });
      return site;
    } catch (error) {
      await site.stop();
      throw error;
    }
  }

  #core() {
    const args = ["serve", "--dev", "--test-mode", "--listen", "127.0.0.1:0", "--supertokens-config", "config.yaml"];
    return start(rekindle, args, { cwd: this.#directory });
  }

  /** Ends everything. */
  async stop() {
    await Promise.all([this.app, ...(this.cores ?? [])].map((program) => program?.kill()));
    fs.rmSync(this.#directory, { recursive: true });
  }
};
