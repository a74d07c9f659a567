// The package for `import`; one copy of everything, whichever way it was loaded.

import rekindle from "./index.js";

export const { Rekindle, RekindleError, Web, onLog } = rekindle;
export default rekindle;
