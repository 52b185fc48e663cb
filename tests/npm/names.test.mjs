// What the facade knows of the core's members is what the core says of them.
import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import test from "node:test";

const root = new URL("../../crates/", import.meta.url);
const FOLDERS = ["wire/src/", "retinker/src/recovery/", "retinker/src/host/"];
/** Times that nothing of this package tells. */
const UNTOLD = ["expired_at", "former_expires_at", "given_up_at", "last_created_at", "last_request", "left_alone_until", "next", "noted"];
/** Members with names of their own that this package tells in another way, or not at all. */
const OTHERWISE = ["body", "detail", "graph", "labels", "loss_fn_inputs", "optimizer_params", "saved_steps", "sessions", "weights"];

/** The members of public structs, with their types. */
async function members() {
  const all = [];
  for (const folder of FOLDERS) {
    for (const file of (await readdir(new URL(folder, root))).filter((name) => name.endsWith(".rs") && name !== "proto.rs")) {
      const text = (await readFile(new URL(folder + file, root), "utf8")).split("#[cfg(test)]")[0];
      for (const [, name, type] of text.matchAll(/^ +pub (\w+): ([^\n]*?),?$/gm)) all.push({ name, type, file });
    }
  }
  return all;
}

/** The names of a set in json.ts. */
async function named(set) {
  const text = await readFile(new URL("wasm/npm/src/json.ts", root), "utf8");
  const [, names] = text.match(new RegExp(`${set}: ReadonlySet<string> = new Set\\(\\[([^\\]]*)`));
  return [...names.matchAll(/"(\w+)"/g)].map(([, name]) => name);
}

test("every time of the core's is a Date", async () => {
  const [times, all] = [await named("TIMES"), await members()];
  const isTime = ({ type }) => /^(?:Option<)?Time>?$/.test(type);
  const told = [...new Set(all.filter(isTime).map(({ name }) => name))].filter((name) => !UNTOLD.includes(name));
  assert.deepEqual(told.sort(), times.sort());
  const texts = all.filter((member) => times.includes(member.name) && /String/.test(member.type));
  assert.deepEqual(texts, [], "a text has the name of a time");
});

test("labels, and what else people gave names to, are left as they are", async () => {
  const [kept, all] = [[...(await named("KEPT")), ...(await named("LABELS"))], await members()];
  const isFree = ({ type }) => /Map<|UserMetadata|Value\b|OptimizerConfig|Metrics/.test(type);
  const told = [...new Set(all.filter(isFree).map(({ name }) => name))].filter((name) => !OTHERWISE.includes(name));
  assert.deepEqual(told.sort(), kept.sort());
});
