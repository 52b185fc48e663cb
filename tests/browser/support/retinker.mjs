// Starts and kills the real binary.
import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const BIN = required("RETINKER_BIN");

export function required(name) {
  const value = process.env[name];
  if (!value) throw new Error(`${name} is not set: run these tests with \`cargo xtask test browser\``);
  return value;
}

/** A port that was free a moment ago; for programs that must come back on the same one. */
export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A directory that is gone after the test. */
export async function temporaryDir(t) {
  const dir = await mkdtemp(join(tmpdir(), "retinker-"));
  // A service may still be writing in it: what comes after a test is done in the order in which it was asked for.
  t.after(() => rm(dir, { recursive: true, force: true, maxRetries: 10, retryDelay: 100 }));
  return dir;
}

/** What starts a service and its console without the demonstration so that, killed and started again, they come back on
 * the same ports with the same data. */
export async function lastingUp(t, dataDir) {
  const ports = ["--port", `${await freePort()}`, "--service-port", `${await freePort()}`];
  return ["up", "--no-demo", ...ports, "--data-dir", dataDir ?? (await temporaryDir(t))];
}

/** Runs the binary to its end. */
export async function runToEnd(args, env = {}) {
  const child = spawn(BIN, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (data) => (stdout += data));
  child.stderr.on("data", (data) => (stderr += data));
  const code = await new Promise((resolve) => child.on("exit", resolve));
  return { code, stdout, stderr };
}

/** A running `retinker`, from the moment it has printed the console's address. */
export class Retinker {
  /** Starts `retinker` with these arguments and waits for its addresses. */
  static async start(t, args, env = {}) {
    // A key, as `console` needs one for any service.
    env = { TINKER_API_KEY: "tml-test", ...process.env, ...env };
    const child = spawn(BIN, args, { env, stdio: ["ignore", "pipe", "pipe"] });
    const self = new Retinker();
    self.child = child;
    self.stderr = "";
    self.exited = new Promise((resolve) => child.on("exit", (code, signal) => resolve({ code, signal })));
    child.stderr.on("data", (data) => (self.stderr += data));
    t.after(() => self.kill("SIGKILL"));
    const started = new Promise((resolve) => {
      createInterface({ input: child.stdout }).on("line", (line) => {
        const console = line.match(/Console:\s+(\S+)/);
        const service = line.match(/Service:\s+(\S+)/);
        if (console) self.consoleUrl = console[1];
        if (service) self.serviceUrl = service[1];
        if (self.consoleUrl && self.serviceUrl) resolve();
      });
    });
    await Promise.race([
      started,
      self.exited.then(({ code }) => {
        throw new Error(`retinker ${args.join(" ")} ended with code ${code}:\n${self.stderr}`);
      }),
    ]);
    return self;
  }

  /** Starts a service and its console on free ports, without the demonstration, with these arguments besides. */
  static async up(t, ...more) {
    return Retinker.upWith(t, {}, ...more);
  }

  /** The same with these in its environment. */
  static async upWith(t, env, ...more) {
    const args = ["up", "--no-demo", "--port", "0", "--service-port", "0", "--data-dir", await temporaryDir(t), ...more];
    return Retinker.start(t, args, env);
  }

  /** Sends a signal and waits for the process to be gone. */
  async kill(signal = "SIGKILL") {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill(signal);
    return this.exited;
  }

  /** Asks the service behind the console. */
  async service(path) {
    const response = await fetch(`${this.serviceUrl}/api/v1/${path}`, { headers: { "x-api-key": "tml-test" } });
    if (!response.ok) throw new Error(`GET ${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  /** Makes something go wrong on a service that was started with `--faults`, or with `DELETE` ends it. */
  async fault(path, body, method = "POST") {
    const response = await fetch(`${this.serviceUrl}/retinker/local/v1/faults/${path}`, {
      method,
      headers: { "content-type": "application/json", "x-api-key": "tml-test" },
      body: body && JSON.stringify(body),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
  }

  /** Asks the host, as the console does. */
  async host(path, options = {}) {
    const url = new URL(this.consoleUrl);
    const token = new URLSearchParams(url.hash.slice(1)).get("token");
    const response = await fetch(`${url.origin}/retinker/v1/${path}`, {
      ...options,
      headers: { "x-retinker-token": token, ...options.headers },
    });
    return { status: response.status, body: await response.json() };
  }
}

/** Polls until `look` gives something true. */
export async function until(what, look, seconds = 120) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const found = await look();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited ${seconds} s for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}
