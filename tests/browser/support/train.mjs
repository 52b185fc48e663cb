// Runs the training program: the example `train` of the core crate.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { required } from "./retinker.mjs";

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
