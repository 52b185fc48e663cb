// Runs the training programs: the examples of the core crate, and the console's code for Python.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { required, temporaryDir } from "./retinker.mjs";

export const TEXT = fileURLToPath(new URL("../../../crates/cli/src/demo/corpus.txt", import.meta.url));

/** A training program at work. */
export class Training {
  constructor(t, serviceUrl, args) {
    this.losses = [];
    this.watchers = [];
    this.saveEvery = args.includes("--save-every") ? Number(args[args.indexOf("--save-every") + 1]) : 0;
    const all = ["--base-url", serviceUrl, "--text", TEXT, ...args];
    this.child = spawn(required("RETINKER_TRAIN"), all, {
      env: { ...process.env, TINKER_API_KEY: "tml-test" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.stderr = "";
    this.child.stderr.on("data", (data) => (this.stderr += data));
    this.exited = new Promise((resolve) => this.child.on("exit", (code, signal) => resolve({ code, signal })));
    t.after(() => this.child.kill("SIGKILL"));
    createInterface({ input: this.child.stdout }).on("line", (line) => {
      const message = JSON.parse(line);
      if (message.model_id) this.attachment = message;
      if (message.loss !== undefined) this.losses.push(message.loss);
      for (const watcher of this.watchers) watcher();
    });
  }

  /** Trains a new run of the smallest model. */
  static create(t, serviceUrl, { name, rank = 4 }, ...more) {
    const made = ["--create", "retinker/nano-llama", "--rank", `${rank}`, "--seed", "3", "--lr", "0.001", "--name", name];
    return new Training(t, serviceUrl, [...made, ...more]);
  }

  /** Resolves once this many steps are done. */
  async steps(count) {
    const enough = new Promise((resolve) => {
      const look = () => this.losses.length >= count && resolve();
      this.watchers.push(look);
      look();
    });
    const ended = this.exited.then(({ code }) => {
      if (this.losses.length < count) {
        throw new Error(`the training program ended with code ${code} after ${this.losses.length} steps:\n${this.stderr}`);
      }
    });
    await Promise.race([enough, ended]);
  }

  /** Resolves with all losses when the program has ended well. */
  async finish() {
    const { code } = await this.exited;
    if (code !== 0) throw new Error(`the training program ended with code ${code}:\n${this.stderr}`);
    return this.losses;
  }

  /** Holds the program soon, where a step has been taken that is not saved: what dies then is poisoned. */
  async pause() {
    for (;;) {
      this.child.kill("SIGSTOP");
      // What it has said is on its way.
      await new Promise((resolve) => setTimeout(resolve, 100));
      if (!this.saveEvery || this.losses.length % this.saveEvery !== 0) return;
      this.child.kill("SIGCONT");
      await this.steps(this.losses.length + 1);
    }
  }

  stop() {
    this.child.kill("SIGKILL");
  }
}

/** Trains with a redo log in this directory up to a step; gives the run's id. */
export async function trainWithLog(serviceUrl, log, steps) {
  const child = spawn(required("RETINKER_REDO"), [log, String(steps)], {
    env: { ...process.env, TINKER_BASE_URL: serviceUrl, TINKER_API_KEY: "tml-test" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  let said = "";
  child.stdout.on("data", (data) => (said += data));
  const code = await new Promise((resolve) => child.on("exit", resolve));
  assert.equal(code, 0, said);
  return said.trim().split("\n").at(-1).split("\t").at(-1);
}

/** Runs a piece of the console's Python, word for word, with these arguments; what it says. */
export async function python(t, code, args = [], env = {}) {
  const file = join(await temporaryDir(t), "copied.py");
  await writeFile(file, code);
  const child = spawn(required("RETINKER_PYTHON"), [file, ...args.map(String)], {
    env: { ...process.env, TINKER_API_KEY: "tml-test", TINKER_TELEMETRY: "0", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  t.after(() => child.kill("SIGKILL"));
  let [stdout, stderr] = ["", ""];
  child.stdout.on("data", (data) => (stdout += data));
  child.stderr.on("data", (data) => (stderr += data));
  const exitCode = await new Promise((resolve) => child.on("close", resolve));
  assert.equal(exitCode, 0, `the Python program failed:\n${stderr}`);
  return stdout.split("\n").filter(Boolean);
}

/** Runs it with a training loop behind it; the losses. */
export async function trainOn(t, code, { firstStep, steps, rate }) {
  const loop = await readFile(new URL("./train_on.py", import.meta.url), "utf8");
  const lines = await python(t, `${code}\n\n${loop}`, [TEXT, firstStep, steps, rate]);
  return lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line).loss);
}
