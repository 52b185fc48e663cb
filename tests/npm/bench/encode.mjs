// A large batch, from typed arrays to the bodies of its requests, which are carried nowhere: what
// `crates/retinker/examples/encode.rs` does natively. Prints one line of JSON.
import { RequestFailedError, TrainingClient } from "retinker";

/** As there: sequences of the batch, tokens of each, and how often it is encoded; the best counts. */
const SEQUENCES = 1024;
const LENGTH = 4096;
const ROUNDS = 9;
/** Bytes of a token, its target and its weight. */
const PAYLOAD = SEQUENCES * LENGTH * (4 + 8 + 4);

let received = 0;
const ANSWERS = {
  forward_backward: { request_id: "1" },
  retrieve_future: { error: "nothing is carried out here", category: "user" },
};

/** Takes requests, and carries none of them out. */
async function nowhere(url, { body }) {
  received += body?.byteLength ?? 0;
  return Response.json(ANSWERS[url.slice(url.lastIndexOf("/") + 1)] ?? {});
}

/** What a program has before there is a batch. */
function sequences() {
  const tokens = Int32Array.from({ length: LENGTH }, (_, at) => at);
  const targets = BigInt64Array.from({ length: LENGTH }, (_, at) => BigInt(at));
  const weights = new Float32Array(LENGTH).fill(1);
  return Array.from({ length: SEQUENCES }, () => [tokens.slice(), targets.slice(), weights.slice()]);
}

let best = Infinity;
for (let round = 0; round < ROUNDS; round += 1) {
  received = 0;
  const attachment = { sessionId: "s", modelId: "s:train:0", nextSeqId: 1 };
  const client = await TrainingClient.attach(attachment, { baseUrl: "http://nowhere", apiKey: "tml-bench", fetch: nowhere });
  const made = sequences();
  const begin = performance.now();
  const batch = made.map(([modelInput, target_tokens, weights]) => ({ modelInput, lossFnInputs: { target_tokens, weights } }));
  const refused = await client.forwardBackward(batch, "cross_entropy").then(
    () => undefined,
    (error) => error,
  );
  best = Math.min(best, (performance.now() - begin) / 1000);
  client.dispose();
  if (!(refused instanceof RequestFailedError) || received < PAYLOAD) {
    throw new Error(`the batch was not sent as a whole: ${received} of ${PAYLOAD} bytes; ${refused}`);
  }
}
console.log(JSON.stringify({ payload_bytes: PAYLOAD, seconds: best }));
process.exit(0);
