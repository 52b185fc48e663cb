// A service of any number of runs, that remembers next to nothing, and a console on it.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

import { Retinker, required, temporaryDir, until } from "./retinker.mjs";

/** A running simulated service. */
export class Simulated {
  /** Starts it with these arguments (`simulated_service --help` tells which) and waits for its address. */
  static async start(t, args = []) {
    const child = spawn(required("RETINKER_SIMULATED"), args.map(String), { stdio: ["ignore", "pipe", "inherit"] });
    t.after(() => child.kill("SIGKILL"));
    const self = new Simulated();
    self.child = child;
    self.url = await new Promise((resolve, reject) => {
      child.on("exit", (code) => reject(new Error(`the simulated service ended with code ${code}`)));
      createInterface({ input: child.stdout }).on("line", (line) => {
        const address = line.match(/Service:\s+(\S+)/);
        if (address) resolve(address[1]);
      });
    });
    return self;
  }

  /** Has so many of the newest runs be asked for something now. */
  async touch(count) {
    await fetch(`${this.url}/simulated/touch/${count}`, { method: "POST" });
  }

  /** Poisons run `n`. */
  async poison(n) {
    await fetch(`${this.url}/simulated/poison/${n}`, { method: "POST" });
  }
}

/** Writes so many restores that are over into the journal in this directory. */
export async function writeRestores(journal, count) {
  const child = spawn(required("RETINKER_MANY_RESTORES"), [journal, String(count)], { stdio: ["ignore", "inherit", "inherit"] });
  const code = await new Promise((resolve) => child.on("exit", resolve));
  if (code !== 0) throw new Error(`the restores could not be written: code ${code}`);
}

/** A console on this service, once its host has read all of its runs; with more arguments, as they are. */
export async function consoleOn(t, url, runs, more = []) {
  const args = ["console", "--base-url", url, "--port", "0", "--data-dir", await temporaryDir(t), ...more];
  const retinker = await Retinker.start(t, args);
  await until(`the host to have read ${runs} runs`, async () => {
    const { body } = await retinker.host("runs?limit=1");
    return body.total === runs && body.as_of;
  }, 600);
  return retinker;
}
