// What the SDKs from 4 on want to know about an app.

"use strict";

exports.appInfo = {
  appName: "app",
  apiDomain: "http://localhost",
  websiteDomain: "http://localhost",
  apiBasePath: "/auth",
};
