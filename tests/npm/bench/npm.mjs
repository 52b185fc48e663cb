// Measures the npm package in Node beside native Rust and the official Python SDK, each side in a process of its own. Writes
// docs/bench-npm.md; the last line on standard output is one JSON object. `cargo xtask bench npm` runs it.
import { readFile, writeFile } from "node:fs/promises";
import { cpus } from "node:os";
import { join } from "node:path";
import { brotliCompressSync } from "node:zlib";
import { fileURLToPath } from "node:url";

import { required } from "../../browser/support/retinker.mjs";
import { freshFolder, run } from "../support/folder.mjs";
import { MODEL, startService } from "../support/service.mjs";

/** Samples at once, tokens of their prompt, and how often each side draws them. */
const AT_ONCE = 1000;
const TOKENS = 8;
const ROUNDS = 5;

const root = fileURLToPath(new URL("../../../", import.meta.url));
const cleanups = [];
/** What the support files know of a test: what is to be done after it. */
const t = { after: (work) => cleanups.push(work) };

const say = (text) => process.stderr.write(`${text}\n`);
const round = (number, digits) => Number(number.toFixed(digits));
/** What a side prints last. */
const answer = (text) => JSON.parse(text.trim().split("\n").at(-1));
/** What a browser loads for an entry: its wasm and its script. */
const weight = async (dist, entry, script) => {
  const files = await Promise.all([`${entry}.wasm`, `esm/${script}`].map((name) => readFile(join(dist, name))));
  return files.reduce((sum, file) => sum + brotliCompressSync(file).length, 0) / 1000;
};

try {
  const own = async (name) => readFile(new URL(name, import.meta.url), "utf8");
  const folder = await freshFolder(t, { "encode.mjs": await own("encode.mjs"), "samples.mjs": await own("samples.mjs") });
  const { url } = await startService(t);
  say("encoding, Rust");
  const native = answer(await run(required("RETINKER_ENCODE"), [], folder));
  say("encoding, Node");
  const node = answer(await run("node", ["encode.mjs"], folder));
  const numbers = [MODEL, TOKENS, AT_ONCE, ROUNDS].map(String);
  say("samples, Node");
  const sampled = answer(await run("node", ["samples.mjs", url, ...numbers], folder));
  say("samples, Node, over fetch");
  const fetched = answer(await run("node", ["samples.mjs", url, ...numbers, "fetch"], folder));
  say("samples, Python");
  const env = { TINKER_TELEMETRY: "0", TINKER_BASE_URL: url, TINKER_API_KEY: "tml-bench" };
  const script = join(root, "tests/bench/client_python.py");
  const python = answer(await run(required("RETINKER_PYTHON"), ["-B", script, "samples", ...numbers], root, env));
  const dist = join(folder, "node_modules/retinker/dist");
  const perCpu = ({ samples, cpu_seconds }) => samples / cpu_seconds;
  const figures = {
    encode_slowdown_vs_native: round(node.seconds / native.seconds, 2),
    sample_cpu_ratio_vs_python: round(perCpu(sampled) / perCpu(python), 1),
    brotli_kb: round(await weight(dist, "retinker", "index.js"), 1),
    brotli_kb_rest: round(await weight(dist, "rest", "rest.js"), 1),
  };
  const text = page({ native, node, sampled, fetched, python, figures, perCpu });
  await writeFile(join(root, "docs/bench-npm.md"), text);
  process.stdout.write(`${text}\n${JSON.stringify(figures)}\n`);
} finally {
  for (const cleanup of cleanups) await cleanup();
}

function page({ native, node, sampled, fetched, python, figures, perCpu }) {
  const held = (is) => (is ? "held" : "**missed**");
  const gigabytes = ({ payload_bytes, seconds }) => round(payload_bytes / seconds / 1e9, 2);
  const rows = [
    ["encoding a batch, in times of what native Rust needs", figures.encode_slowdown_vs_native, "≤ 3", figures.encode_slowdown_vs_native <= 3],
    ["samples per CPU second, in times of the Python SDK's", figures.sample_cpu_ratio_vs_python, "≥ 4", figures.sample_cpu_ratio_vs_python >= 4],
    ["`retinker`, wasm and script, compressed", `${figures.brotli_kb} kB`, "≤ 220 kB", figures.brotli_kb <= 220],
    ["`retinker/rest`, likewise", `${figures.brotli_kb_rest} kB`, "≤ 120 kB", figures.brotli_kb_rest <= 120],
  ];
  return `# Benchmark of the npm package

Written by \`cargo xtask bench npm\` on a machine with ${cpus().length} cores, the service on the same ones, with Node ${process.version}. Python is the
official SDK 0.38.0.

| | measured | target | |
| --- | --- | --- | --- |
${rows.map(([name, measured, target, is]) => `| ${name} | ${measured} | ${target} | ${held(is)} |`).join("\n")}

## How

**Encoding**: a forward_backward of 1024 sequences of 4096 tokens with targets and weights, from typed arrays (in Rust from vectors)
to the bodies of its requests, which nobody carries out. The best of nine rounds: ${gigabytes(native)} GB of tensors a second in Rust,
${gigabytes(node)} in Node.

**Samples**: ${AT_ONCE} at once of a prompt of ${TOKENS} tokens, one token each, ${ROUNDS} times, on ${MODEL}, over \`node:http\`, which the package takes in
Node, over the global \`fetch\`, as elsewhere, and over the SDK's own connections. Processor time is that of the client's process alone.

| | Node | over \`fetch\` | Python |
| --- | --- | --- | --- |
| samples a second of the client's processor time | ${round(perCpu(sampled), 0)} | ${round(perCpu(fetched), 0)} | ${round(perCpu(python), 0)} |
| samples a second | ${round(sampled.samples / sampled.seconds, 0)} | ${round(fetched.samples / fetched.seconds, 0)} | ${round(python.samples / python.seconds, 0)} |
| most memory | ${round(sampled.peak_bytes / (1 << 20), 0)} MiB | ${round(fetched.peak_bytes / (1 << 20), 0)} MiB | ${round(python.peak_bytes / (1 << 20), 0)} MiB |

As JSON:

\`\`\`json
${JSON.stringify(figures)}
\`\`\`
`;
}
