// How long to wait between the attempts of one refresh.

/** How many requests one refresh makes, at most, while it gets no answer. */
export const ATTEMPTS = 5;

const FIRST = 300;
const LONGEST = 10_000;

/**
 * Milliseconds to wait after failed attempt number `attempt`, counted from 0; `undefined`: give up.
 *
 * `random` is below 1. `retryAfter` is what the server asked for, in seconds; more than ten are not waited for.
 */
export function backoff(attempt: number, random: number, retryAfter = 0): number | undefined {
  if (attempt + 1 >= ATTEMPTS || retryAfter * 1000 > LONGEST) return undefined;
  // Half of it at random: many tabs that failed together do not come back together.
  const wait = Math.min(LONGEST, FIRST * 2 ** attempt) * (0.5 + random / 2);
  return Math.max(wait, retryAfter * 1000);
}
