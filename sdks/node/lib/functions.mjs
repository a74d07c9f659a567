// `rekindle/functions` for `import`; one copy of everything, whichever way it was loaded.

import functions from "./functions.js";

export const {
  Error,
  createNewSession,
  getAllSessionHandlesForUser,
  getSession,
  getSessionData,
  getSessionInfo,
  init,
  refreshSession,
  revokeAllSessionsForUser,
  revokeSession,
  revokeSessionUsingSessionHandle,
  updateSessionData,
  updateSessionInfo,
} = functions;
