// Draws many samples at once, and shows each as soon as it is there. Ctrl+C ends those that are under way.
//
//   node sample.ts 100
import { ServiceClient } from "retinker";

const many = Number(process.argv[2] ?? 100);
await using service = new ServiceClient({ displayName: "sample.ts" });
const sampling = await service.createSamplingClient({ baseModel: "retinker/nano-llama" });

void (async () => {
  for await (const event of sampling.events()) {
    if (event.type === "queued" && event.reason !== undefined) console.log(`The service waits: ${event.reason}`);
  }
})();

let done = 0;
const samples = Array.from({ length: many }, async (_, seed) => {
  const { sequences } = await sampling.sample([1, 2, 3], { samplingParams: { maxTokens: 16, seed, temperature: 0.8, stop: [] } });
  done += 1;
  const [sequence] = sequences;
  const logprob = sequence?.logprobs.reduce((sum, each) => sum + each, 0) ?? 0;
  console.log(`${done}/${many}: ${sequence?.tokens.join(" ")} (${logprob.toFixed(2)} nats)`);
  return sequence;
});
await Promise.all(samples);
sampling.dispose();
