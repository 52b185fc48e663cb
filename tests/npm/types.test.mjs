// The package's types, as strict compilers and the tools of the trade see them.
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import test from "node:test";
import { fileURLToPath } from "node:url";

import { required } from "../browser/support/retinker.mjs";
import { freshFolder, run, TOOLS, write } from "./support/folder.mjs";

const tool = (name) => join(TOOLS, ".bin", name);
const EXAMPLES = fileURLToPath(new URL("../../crates/wasm/npm/examples", import.meta.url));

const STRICT = {
  strict: true,
  exactOptionalPropertyTypes: true,
  noUncheckedIndexedAccess: true,
  skipLibCheck: false,
  noEmit: true,
  target: "es2022",
  lib: ["es2022", "esnext.disposable", "dom", "dom.iterable", "dom.asynciterable"],
};

test("the examples compile under the strictest settings, wherever modules are looked for", async (t) => {
  const folder = await freshFolder(t);
  const examples = (await readdir(EXAMPLES)).filter((name) => name.endsWith(".ts"));
  assert.ok(examples.length >= 5);
  for (const name of examples) await write(folder, { [name]: await readFile(join(EXAMPLES, name), "utf8") });
  await write(folder, {
    "globals.d.ts": "declare const process: { argv: string[]; exit(code: number): never; stdout: { write(text: string): void } };\n",
    "old.cts": 'import { RestClient } from "retinker";\nexport const rest: RestClient = new RestClient({ baseUrl: "http://x" });\n',
  });
  for (const [module, moduleResolution] of [["nodenext", "nodenext"], ["esnext", "bundler"]]) {
    await write(folder, { "tsconfig.json": JSON.stringify({ compilerOptions: { ...STRICT, module, moduleResolution } }) });
    await run(tool("tsc"), ["-p", "."], folder);
  }
});

test("types refuse what the clients would", async (t) => {
  const folder = await freshFolder(t, {
    "wrong.ts": `
      import { RestClient, type Checkpoint, type Health, ServiceClient } from "retinker";
      const rest = new RestClient({ baseUrl: "x" });
      // @ts-expect-error an option in snake_case
      new RestClient({ base_url: "x" });
      // @ts-expect-error a base model is needed
      new ServiceClient().createLoraTrainingClient({ rank: 4 });
      // @ts-expect-error a health is a text
      export const health: Health = 7;
      export const type = (checkpoint: Checkpoint): "training" | "sampler" | "external" | string => checkpoint.checkpointType;
      // @ts-expect-error a time is a Date
      export const time: string = ({} as Checkpoint).time;
      // @ts-expect-error nothing of the insides
      rest._client;
      // @ts-expect-error made by a service client only
      new (await import("retinker")).TrainingClient();
    `,
    "tsconfig.json": JSON.stringify({ compilerOptions: { ...STRICT, module: "nodenext", moduleResolution: "nodenext" } }),
  });
  await run(tool("tsc"), ["-p", "."], folder);
});

/**
 * What a line begins with that begins a member, or what is exported, in a file as tsc writes it. Not what is private, nor what is passed on
 * from another file.
 */
const BEGINNINGS = [
  /^\s+(?:readonly|static|get) /,
  /^ {4}(?:[a-zA-Z]\w*[<(]|\[)/,
  /^export (?:declare )?(?:interface|type|class|abstract class|function|const) \w/,
];

test("nothing of the wasm's insides is among the types, and nothing is untyped", async (t) => {
  const folder = join(await freshFolder(t), "node_modules/retinker/dist/esm");
  for (const file of (await readdir(folder)).filter((name) => name.endsWith(".d.ts"))) {
    const text = await readFile(join(folder, file), "utf8");
    const code = text.replaceAll(/\/\*\*[\s\S]*?\*\//g, "");
    assert.doesNotMatch(code, /#wasm|wbindgen|__wbg|\bany\b/, file);
    const lines = text.split("\n");
    const begins = (line) => BEGINNINGS.some((beginning) => beginning.test(line));
    const bare = lines.filter((line, at) => begins(line) && !lines[at - 1]?.endsWith("*/"));
    assert.deepEqual(bare, [], `${file} has members or declarations without a doc comment`);
  }
});

test("publint and attw find nothing", async (t) => {
  const folder = await freshFolder(t);
  const tarball = required("RETINKER_NPM");
  await run(tool("attw"), [tarball, "--format", "ascii", "--no-emoji", "--exclude-entrypoints", "./retinker.wasm", "./rest.wasm"], folder);
  const told = await run(tool("publint"), ["run", tarball, "--strict"], folder);
  assert.match(told, /All good/i, told);
});
