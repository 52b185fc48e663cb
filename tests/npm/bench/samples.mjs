// Many samples of a small prompt at once, as `tests/bench/client_python.py` draws them; with `fetch` as the last argument over the
// global `fetch`, else over what the package takes in Node. Prints one line of JSON.
import { ServiceClient } from "retinker";

const [baseUrl, baseModel, ...numbers] = process.argv.slice(2);
const [tokens, atOnce, rounds] = numbers.map(Number);
const over = numbers.at(-1) === "fetch" ? { fetch: (url, init) => fetch(url, init) } : {};

const service = new ServiceClient({ baseUrl, apiKey: "tml-bench", ...over });
const client = await service.createSamplingClient({ baseModel });
const prompt = Int32Array.from({ length: tokens }, (_, at) => 65 + at);
const draw = (many) =>
  Promise.all(Array.from({ length: many }, () => client.sample(prompt, { samplingParams: { maxTokens: 1, seed: 1 } })));

await draw(atOnce / 10);
const before = process.cpuUsage();
const begin = performance.now();
for (let round = 0; round < rounds; round += 1) await draw(atOnce);
const { user, system } = process.cpuUsage(before);
console.log(
  JSON.stringify({
    samples: atOnce * rounds,
    cpu_seconds: (user + system) / 1e6,
    seconds: (performance.now() - begin) / 1000,
    peak_bytes: process.resourceUsage().maxRSS * 1024,
  }),
);
await service.finish();
process.exit(0);
