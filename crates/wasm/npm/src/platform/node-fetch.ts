/**
 * Requests by Node's own client, which takes a quarter of the processor time that its `fetch` does. What it answers is as much of a
 * `Response` as the wasm reads. It follows no redirect and takes nothing that is compressed, as is asked of `fetch` as well.
 */
import * as http from "node:http";
import * as https from "node:https";

/** What the wasm says of a request. */
interface Init {
  readonly method: string;
  readonly headers: Iterable<[string, string]>;
  readonly body?: Uint8Array;
  readonly signal: AbortSignal;
}

/** What it reads of an answer. */
interface Answer {
  readonly type: "default";
  readonly status: number;
  readonly headers: [string, string][];
  readonly body: { getReader(): { read(): Promise<IteratorResult<Uint8Array, undefined>> } };
}

// Idle connections hold no program. There may be as many as there are samples at once: none is made twice.
const keep = { keepAlive: true, maxFreeSockets: Infinity };
const agents = { "http:": new http.Agent(keep), "https:": new https.Agent(keep) };

export function fetch(address: string, { method, headers, body, signal }: Init): Promise<Answer> {
  const url = new URL(address);
  const secure = url.protocol === "https:";
  const agent = secure ? agents["https:"] : agents["http:"];
  const named: Record<string, string | number> = Object.fromEntries(headers);
  named["content-length"] = body?.byteLength ?? 0;
  return new Promise((answered, failed) => {
    const request = (secure ? https : http).request(url, { method, agent, headers: named, signal }, (response) => {
      // One that breaks off is told to who reads it, if anybody still does.
      response.on("error", () => {});
      answered({
        type: "default",
        status: response.statusCode ?? 0,
        headers: pairs(response.rawHeaders),
        body: { getReader: () => ({ read: () => next(response) }) },
      });
    });
    request.on("error", (error: NodeJS.ErrnoException) => failed(new Error(error.message || error.code)));
    request.end(body);
  });
}

/** The next piece of an answer. */
function next(response: http.IncomingMessage): Promise<IteratorResult<Uint8Array, undefined>> {
  return new Promise((done, failed) => {
    const look = (): void => {
      const value: Uint8Array | null = response.read();
      if (value === null && !response.readableEnded && !response.errored) return;
      response.off("readable", look).off("end", look).off("error", broke);
      if (value !== null) done({ done: false, value });
      else if (response.errored) failed(response.errored);
      else done({ done: true, value: undefined });
    };
    const broke = (error: Error): void => {
      response.off("readable", look).off("end", look);
      failed(error);
    };
    response.on("readable", look).on("end", look).on("error", broke);
    look();
  });
}

function pairs(raw: readonly string[]): [string, string][] {
  return Array.from({ length: raw.length / 2 }, (_, at) => [raw[2 * at] ?? "", raw[2 * at + 1] ?? ""]);
}
