// An app on Express.

"use strict";

const express = require("express");

module.exports = (sdk, routes) => {
  const app = express();
  app.use(express.json(), ...sdk.express.before());
  for (const [method, path, answer] of routes) {
    app[method.toLowerCase()](path, (req, res, next) => {
      answer({ req, res, body: req.body, query: req.query }).then((said) => res.json(said), next);
    });
  }
  app.use(...sdk.express.after());
  return app;
};
