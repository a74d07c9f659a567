// One small app: `node app.js '{"sdk": "24", "framework": "express", "cores": ["http://…"], "antiCsrf": false}'`. Says where it listens.

"use strict";

const { routes } = require("./routes");

const { sdk: name, ...settings } = JSON.parse(process.argv[2]);
const sdk = require(`./sdk-${name}`);
sdk.init(settings);
const server = require(`./on-${settings.framework}`)(sdk, routes(sdk)).listen(0, "127.0.0.1", () => {
  console.log(`Listening on http://127.0.0.1:${server.address().port}`);
});
