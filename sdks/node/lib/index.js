// `rekindle`: sessions in a Node.js application.

"use strict";

const { RekindleError } = require("./errors");
const { Rekindle } = require("./rekindle");
const { Web } = require("./web");

module.exports = { Rekindle, RekindleError, Web };
