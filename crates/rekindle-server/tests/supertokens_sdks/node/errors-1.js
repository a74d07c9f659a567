// What the errors of supertokens-node 1.0.0 are answered with: the words that later versions use.

"use strict";

/** The SDK takes hosts, not addresses. */
exports.host = (core) => {
  const { hostname, port } = new URL(core);
  return { hostname, port: Number(port) };
};

/** Status and message for an error of the SDK. A stolen session ends, as the SDK's documentation says. */
exports.refusal = async (sdk, error) => {
  switch (error.errType) {
    case sdk.Error.UNAUTHORISED:
      return { status: 401, message: "unauthorised" };
    case sdk.Error.TRY_REFRESH_TOKEN:
      return { status: 401, message: "try refresh token" };
    case sdk.Error.TOKEN_THEFT_DETECTED:
      await sdk.revokeSessionUsingSessionHandle(error.err.sessionHandle);
      return { status: 401, message: "token theft detected" };
    default:
      return { status: 500, message: String(error.err ?? error) };
  }
};
