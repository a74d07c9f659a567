// `rekindle`: sessions in a Node.js application.

"use strict";

const { RekindleError } = require("./errors");
const { onLog } = require("./native");
const { Rekindle } = require("./rekindle");
const { Web } = require("./web");

module.exports = { Rekindle, RekindleError, Web, onLog: (told) => onLog((level, message, fields) => told({ level, message, fields })) };
