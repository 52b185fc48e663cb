// Stands between a console and its service, and misbehaves when asked to.
import { writeFile } from "node:fs/promises";
import { createServer, request as forward } from "node:http";
import { join } from "node:path";
import { pipeline } from "node:stream";
import { text } from "node:stream/consumers";

import { Retinker, temporaryDir } from "./retinker.mjs";

const status = (code, headers = {}, detail = `the answer ${code} that was asked for`) => (_, response) => {
  response.writeHead(code, { "content-type": "application/json", ...headers });
  response.end(JSON.stringify({ detail }));
};

/** What it does, by name, instead of passing a request on; `down` and the like are of the whole server. */
const ANSWERS = {
  401: status(401),
  // Without a time the host leaves the service alone for a minute: only the waiting is shorter.
  402: status(402, { "retry-after": "1" }),
  403: status(403),
  404: status(404),
  429: status(429, { "retry-after": "1" }),
  500: status(500),
  malformed: (_, response) => {
    response.writeHead(200, { "content-type": "application/json" });
    response.end('{"training_runs": [{"training_run_id": 7,');
  },
};

/** How long `slow` waits with each answer. */
const SLOW = 10_000;
/** How long `flapping` is well, and then not. */
const FLAP = 1500;

export const FAULTS = ["down", "slow", "flapping", ...Object.keys(ANSWERS)];

/** How a server answers where it has nothing, in its router's words. */
const NOTHING_THERE = status(404, {}, "Not Found");

/** Passes on so many bytes, and the rest when that is allowed. */
const heldBack = ({ bytes, gone }) =>
  async function* (pieces) {
    let left = bytes;
    for await (const piece of pieces) {
      if (left > 0) yield piece.subarray(0, left);
      if (piece.length > left) {
        await gone;
        yield piece.subarray(left);
      }
      left = Math.max(0, left - piece.length);
    }
  };

export class Misbehaving {
  /** In front of the service at this address. */
  static async start(t, target) {
    const self = new Misbehaving();
    self.target = new URL(target);
    self.fault = null;
    self.asked = 0;
    self.without = [];
    self.own = [];
    self.heard = [];
    self.held = [];
    await self.listen(0);
    t.after(() => self.close());
    return self;
  }

  get url() {
    return `http://127.0.0.1:${this.port}`;
  }

  /** A console of its own journal, which looks at it every second, where it would every thirty: only the waiting is
   * shorter. */
  async console(t) {
    const dir = await temporaryDir(t);
    const policy = join(dir, "policy.json");
    await writeFile(policy, JSON.stringify({ poll_interval_ms: 1000 }));
    const args = ["console", "--base-url", this.url, "--port", "0", "--data-dir", dir, "--policy", policy];
    return Retinker.start(t, args);
  }

  /** From now on it has no endpoint whose method and path one of these matches, as in `GET /api/v1/sessions`. */
  offersNot(...patterns) {
    this.without = patterns;
  }

  /** From now on it answers what this matches by itself, with what `answer` makes of the query and of the body, and with
   * a 403 where that is nothing. For what the embedded service does not have, or never comes to say. */
  answers(pattern, answer) {
    this.own.push({ pattern, answer });
  }

  /** What is asked at these from now on: the bodies, as they come. */
  hears(pattern) {
    const bodies = [];
    this.heard.push({ pattern, bodies });
    return bodies;
  }

  /** Of each answer that this matches it passes on so many bytes, and the rest when the function that it gives is
   * called. */
  holdsBack(pattern, bytes) {
    let go;
    const gone = new Promise((resolve) => (go = resolve));
    this.held.push({ pattern, bytes, gone });
    return go;
  }

  /** Misbehaves so from now on; `null` ends it. */
  async misbehave(fault) {
    const was = this.fault;
    this.fault = fault;
    clearInterval(this.flapping);
    if (fault === "down") await this.close();
    if (was === "down" && fault !== "down") await this.listen(this.port);
    if (fault === "flapping") {
      this.well = false;
      this.flapping = setInterval(() => (this.well = !this.well), FLAP);
    }
  }

  async listen(port) {
    this.server = createServer((request, response) => this.answer(request, response));
    await new Promise((resolve, reject) => {
      this.server.on("error", reject);
      this.server.listen(port, "127.0.0.1", resolve);
    });
    this.port = this.server.address().port;
  }

  async close() {
    clearInterval(this.flapping);
    const closed = new Promise((resolve) => this.server.close(resolve));
    this.server.closeAllConnections();
    await closed;
  }

  answer(request, response) {
    this.asked += 1;
    const asked = `${request.method} ${request.url.split("?")[0]}`;
    const flaps = this.fault === "flapping" && !this.well;
    const answer = this.without.some((one) => one.test(asked)) ? NOTHING_THERE : ANSWERS[flaps ? 500 : this.fault];
    if (answer) {
      request.resume();
      answer(request, response);
    } else if (this.fault === "slow") {
      setTimeout(() => this.pass(request, response, asked), SLOW);
    } else {
      this.pass(request, response, asked);
    }
  }

  pass(request, response, asked) {
    const matching = (all) => all.filter(({ pattern }) => pattern.test(asked));
    const [own] = matching(this.own);
    if (own) return this.speak(request, response, own.answer);
    for (const { bodies } of matching(this.heard)) {
      const pieces = [];
      request.on("data", (piece) => pieces.push(piece));
      request.on("end", () => bodies.push(JSON.parse(Buffer.concat(pieces))));
    }
    const [held] = matching(this.held);
    const { hostname, port } = this.target;
    const options = { hostname, port, path: request.url, method: request.method, headers: request.headers };
    const onward = forward(options, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      if (held) pipeline(answer, heldBack(held), response, () => {});
      else answer.pipe(response);
    });
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.pipe(onward);
  }

  async speak(request, response, answer) {
    const body = await text(request);
    const said = answer(new URL(request.url, this.url).searchParams, body && JSON.parse(body));
    if (said === undefined) return ANSWERS[403](request, response);
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify(said));
  }
}
