// `rekindle/express` for `import`; one copy of everything, whichever way it was loaded.

import express from "./express.js";

// What follows goes before the functions of the same names.
export * from "./functions.mjs";
export const { Session, createNewSession, getSession, refreshSession, setRelevantHeadersForOptionsAPI } = express;
