// `rekindle-web/xhr`: sessions for XMLHttpRequest, and so for axios and jQuery.

import type { Answer, Passage, Session } from "./session.js";

/** What the application hears of a request that was answered, when it is decided that this is the answer. */
const ENDING = ["readystatechange", "load", "loadend"];
const FAILURES = ["error", "timeout", "abort"];

/**
 * Makes `globalThis.XMLHttpRequest` one of this session: like `session.fetch`, it adds what the backend needs, refreshes and repeats.
 * The application sees one request; only what listens to `upload` hears a repeated upload twice. Synchronous requests are left as
 * they are. If the session cannot be refreshed because of the network or an outage, the request fails with `error`.
 */
export function installXhr(session: Session): void {
  globalThis.XMLHttpRequest = sessionXhr(session, globalThis.XMLHttpRequest);
}

function sessionXhr(session: Session, Native: typeof XMLHttpRequest): typeof XMLHttpRequest {
  return class extends Native {
    #opened: [method: string, url: string | URL, async: boolean, username?: string | null, password?: string | null] | undefined;
    #headers: [name: string, value: string][] = [];
    #body: Document | XMLHttpRequestBodyInit | null | undefined;
    #passage: Passage | undefined;
    /** Whether the session is being looked after, and the platform has nothing to do for this request. */
    #isWaiting = false;
    #isRepeated = false;

    constructor() {
      super();
      // Before any listener of the application, so that this one decides what those hear.
      for (const type of [...ENDING, ...FAILURES, "loadstart", "progress"]) this.addEventListener(type, (event) => this.#hear(event));
    }

    override open(...args: [method: string, url: string | URL, async?: boolean, username?: string | null, password?: string | null]) {
      const [method, url, async = true, ...credentials] = args;
      this.#opened = [method, url, async, ...credentials];
      this.#headers = [];
      this.#passage = async && session.concerns(String(url)) ? session.passage(method) : undefined;
      this.#isRepeated = false;
      super.open(...this.#opened);
    }

    override setRequestHeader(name: string, value: string) {
      super.setRequestHeader(name, value);
      this.#headers.push([name, value]);
    }

    override send(body?: Document | XMLHttpRequestBodyInit | null) {
      const has = (name: string) => this.#headers.some(([each]) => each.toLowerCase() === name);
      if (has("authorization")) this.#passage = undefined;
      if (!this.#passage) return super.send(body);
      this.#body = body;
      void this.#dispatch(this.#passage);
    }

    override abort() {
      const wasWaiting = this.#isWaiting;
      this.#settle();
      super.abort();
      if (wasWaiting) this.#tell(["abort", "loadend"]);
    }

    async #dispatch(passage: Passage) {
      this.#isWaiting = true;
      const headers = await passage.headers().catch(() => undefined);
      if (passage !== this.#passage) return;
      if (!headers) return this.#fail();
      this.#isWaiting = false;
      for (const [name, value] of Object.entries(headers)) super.setRequestHeader(name, value);
      super.send(this.#body);
    }

    #hear(event: Event) {
      const passage = this.#passage;
      if (!passage || !event.isTrusted) return;
      if (FAILURES.includes(event.type)) {
        this.#settle();
        return this.#tell(["readystatechange"]);
      }
      const isRefusal = this.readyState >= 2 && (this.status === 401 || this.status === 440);
      const isRepetition = this.#isRepeated && this.readyState < 2;
      if (this.readyState < 4 && !isRefusal && !isRepetition) return;
      event.stopImmediatePropagation();
      if (event.type === "loadend") void this.#decide(passage);
    }

    async #decide(passage: Passage) {
      this.#isWaiting = true;
      const body = await bodyOf(this);
      const answer: Answer = { status: this.status, header: (name) => this.getResponseHeader(name), body };
      const again = await passage.again(answer).catch(() => undefined);
      if (passage !== this.#passage) return;
      if (again === undefined) return this.#fail();
      if (!again) {
        this.#settle();
        return this.#tell(ENDING);
      }
      this.#isRepeated = true;
      super.open(...this.#opened!);
      for (const [name, value] of this.#headers) super.setRequestHeader(name, value);
      await this.#dispatch(passage);
    }

    #fail() {
      this.#settle();
      super.abort();
      this.#tell(["error", "loadend"]);
    }

    /** Nothing is hidden any more. */
    #settle() {
      this.#passage = undefined;
      this.#isWaiting = false;
    }

    #tell(types: string[]) {
      for (const type of types) this.dispatchEvent(type === "readystatechange" ? new Event(type) : new ProgressEvent(type));
    }
  };
}

/** The body of a refusal, whatever type the application asked for. */
async function bodyOf(request: XMLHttpRequest): Promise<Answer["body"]> {
  if (!request.getResponseHeader("Content-Type")?.startsWith("application/problem+json")) return {};
  const { response } = request;
  try {
    if (response instanceof ArrayBuffer || response instanceof Blob) return await new Response(response).json();
    return typeof response === "string" ? JSON.parse(response) : (response ?? {});
  } catch {
    return {};
  }
}
