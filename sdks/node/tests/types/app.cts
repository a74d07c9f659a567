// The same package by `require`.

import rekindle = require("rekindle");

export const open = (): Promise<rekindle.Rekindle> => rekindle.Rekindle.embedded();
